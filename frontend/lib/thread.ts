/**
 * The copy of one conversation's messages, from the newest down to `low`. No I/O, no clock. Events, pages and
 * `changes` may come in any order; R (`rev`) says up to where nothing is missing (clause 6.5), and `seen` what an
 * event has claimed beyond it.
 */

import type { Changes, HistoryPage, Message, MessageDeleted, ReactionUpdate } from "./protocol.ts";
import type { Message as ShownMessage } from "./types.ts";

export interface Thread {
  /** As they are shown: the same object for the same state, so that a list renders only what is different. */
  readonly byId: Map<string, ShownMessage>;
  /** Older ones are not loaded, and would leave a gap if they were taken in. */
  low: number;
  hasMore: boolean;
  /** R; null until the first page. */
  rev: number | null;
  seen: number;
}

/** A message in some state, or what an event says of one. */
export type Change = Message | MessageDeleted | ReactionUpdate;

export const newThread = (): Thread => ({ byId: new Map(), low: 0, hasMore: true, rev: null, seen: 0 });

/** Whether `changes` must be asked: an event has overtaken another. */
export const isStale = ({ rev, seen }: Thread): boolean => rev === null || seen > rev;

export function put({ byId, low }: Thread, change: Change): void {
  const held = byId.get(idOf(change));
  if (held) byId.set(held.id, latest(held, change));
  else if ("seq" in change && change.seq >= low) byId.set(change.id, asSent(change));
}

export const asSent = (message: Message): ShownMessage => ({ ...message, status: "sent", error: null });

export const idOf = (change: Change): string => ("seq" in change ? change.id : change.message_id);

/**
 * The newer of two states of a message. Of the same rev a whole message wins: what is at hand may be put together
 * from an event that had overtaken another.
 */
export function latest<M extends Message>(held: M, change: Change): M {
  const { rev } = change;
  if ("seq" in change) return held.rev > rev ? held : { ...held, ...change };
  if (held.rev >= rev) return held;
  if ("reactions" in change) return { ...held, rev, reactions: change.reactions };
  return { ...held, rev, deleted_at: change.deleted_at, content: "", reactions: [] };
}

/** An event has carried `rev`. `isTold` false: it did not say what changed. */
export function note(thread: Thread, rev: number, isTold: boolean): void {
  if (isTold && rev - 1 === thread.rev) thread.rev = rev;
  thread.seen = Math.max(thread.seen, rev);
}

/** The newest page makes the copy, an older one extends it; its messages are put after this. */
export function addPage(thread: Thread, page: HistoryPage): void {
  thread.low = page.items[0]?.seq ?? (thread.rev === null ? 0 : thread.low);
  thread.hasMore = page.has_more;
  forgetBelow(thread, thread.low);
  // A page is as old as its rev. What was told since of messages that were not held then is lost: R goes back,
  // and `changes` brings it.
  thread.seen = Math.max(thread.seen, thread.rev ?? 0);
  thread.rev = Math.min(thread.rev ?? page.rev, page.rev);
}

function forgetBelow({ byId }: Thread, low: number): void {
  for (const [id, { seq }] of byId) if (seq < low) byId.delete(id);
}

/** What was held when `changes` was asked for the first time, and the rev that the last question named. */
export interface Question {
  readonly low: number;
  readonly seen: number;
  readonly after: number;
}

export type Outcome = "more" | "done" | "reload";

/** Its messages are put after this. */
export function addChanges(thread: Thread, changes: Changes, { low, seen, after }: Question): Outcome {
  if (changes.rev < after) return "reload"; // the database was restored
  forgetBelow(thread, changes.joined_seq + 1);
  if (changes.has_more) return "more";
  if (thread.low !== low) {
    // A page came meanwhile: what the first answers said of its messages was not taken.
    thread.seen = Math.max(thread.seen, changes.rev);
  } else {
    thread.rev = Math.max(thread.rev ?? 0, changes.rev);
    // All that had been told when it was asked is in it: a rev beyond it was never taken.
    if (thread.seen === seen) thread.seen = thread.rev;
  }
  return "done";
}
