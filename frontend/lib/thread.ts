/**
 * The copy of one conversation's messages, from the newest down to `low`. No I/O, no clock. Events, pages and
 * `changes` may come in any order; R (`rev`) says up to where nothing is missing (clause 6.5), and `seen` what an
 * event has claimed beyond it.
 */

import type { Changes, HistoryPage, Message, Reaction } from "./protocol.ts";

export interface Thread {
  readonly byId: Map<string, Message>;
  /** Older ones are not loaded, and would leave a gap if they were taken in. */
  low: number;
  hasMore: boolean;
  /** R; null until the first page. */
  rev: number | null;
  seen: number;
}

export const newThread = (): Thread => ({ byId: new Map(), low: 0, hasMore: true, rev: null, seen: 0 });

/** Whether `changes` must be asked: an event has overtaken another. */
export const isStale = ({ rev, seen }: Thread): boolean => rev === null || seen > rev;

/**
 * A message in some state, unless it is older than that at hand. One of the same rev replaces it: what is at hand
 * may be put together from an event that had overtaken another.
 */
export function put(thread: Thread, message: Message): boolean {
  const held = thread.byId.get(message.id);
  if (held ? held.rev > message.rev : message.seq < thread.low) return false;
  thread.byId.set(message.id, message);
  return true;
}

/** An event has carried `rev`. `isTold` false: it did not say what changed. */
export function note(thread: Thread, rev: number, isTold = true): void {
  if (isTold && rev - 1 === thread.rev) thread.rev = rev;
  thread.seen = Math.max(thread.seen, rev);
}

export type Patch =
  | { readonly rev: number; readonly deleted_at: string }
  | { readonly rev: number; readonly reactions: readonly Reaction[] };

/** What an event says of a message; the same if it is older. */
export function patched(message: Message, change: Patch): Message {
  if (message.rev >= change.rev) return message;
  if ("reactions" in change) return { ...message, rev: change.rev, reactions: change.reactions };
  return { ...message, rev: change.rev, deleted_at: change.deleted_at, content: "", reactions: [] };
}

export function patch(thread: Thread, messageId: string, change: Patch): boolean {
  const held = thread.byId.get(messageId);
  return held !== undefined && put(thread, patched(held, change));
}

/** The newest page makes the copy, an older one extends it. */
export function addPage(thread: Thread, page: HistoryPage): void {
  thread.low = page.items[0]?.seq ?? (thread.rev === null ? 0 : thread.low);
  thread.hasMore = page.has_more;
  for (const [id, { seq }] of thread.byId) if (seq < thread.low) thread.byId.delete(id);
  for (const message of page.items) put(thread, message);
  // A page is as old as its rev. What was told since of messages that were not held then is lost: R goes back,
  // and `changes` brings it.
  thread.seen = Math.max(thread.seen, thread.rev ?? 0);
  thread.rev = Math.min(thread.rev ?? page.rev, page.rev);
}

/** What was held when `changes` was asked for the first time, and the rev that the last question named. */
export interface Question {
  readonly low: number;
  readonly seen: number;
  readonly after: number;
}

export type Outcome = "more" | "done" | "reload";

export function addChanges(thread: Thread, changes: Changes, { low, seen, after }: Question): Outcome {
  if (changes.rev < after) return "reload"; // the database was restored
  for (const [id, { seq }] of thread.byId) if (seq <= changes.joined_seq) thread.byId.delete(id);
  for (const message of changes.items) put(thread, message);
  if (changes.has_more) return "more";
  if (thread.low !== low) {
    // A page came meanwhile: what the first answers said of its messages was not taken.
    thread.seen = Math.max(thread.seen, changes.rev);
    return "done";
  }
  thread.rev = Math.max(thread.rev ?? 0, changes.rev);
  // All that had been told when it was asked is in it: a rev beyond it was never taken.
  if (thread.seen === seen) thread.seen = thread.rev;
  return "done";
}
