/**
 * One stream per browser: what a tab makes of what it hears. Pure. A term counts leaders: what a lower one says
 * is ignored, and a higher one deposes.
 */

import { isBehind, judge } from "./cursor.ts";
import type { Received } from "./eventStream.ts";
import type { Status } from "./types.ts";

export const SILENCE_MS = 12_000; // a heartbeat and a bit
export const PONG_MS = 2_000;
const LATE_MS = 3_000;

export type TabMessage =
  /** From the leader: an event of the stream. */
  | { readonly kind: "event"; readonly term: number; readonly received: Received }
  /** From the leader: how the stream is; also the answer to a ping. */
  | { readonly kind: "status"; readonly term: number; readonly status: Status; readonly cursor: string | null }
  /** To the leader: are you there? */
  | { readonly kind: "ping" }
  /** To the leader: open anew, from there if a cursor is given. */
  | { readonly kind: "reopen"; readonly cursor: string | null };

export interface TabState {
  readonly term: number;
  readonly isLeader: boolean;
}

/** Whom to follow; a leader that hears such a one is deposed. */
export const isLed = ({ term, isLeader }: TabState, other: number): boolean => (isLeader ? other > term : other >= term);

/** Above every term heard of, and by the clock above those that were not heard. */
export const nextTerm = (term: number, now: number): number => Math.max(term + 1, now);

/** Whether the wait for a pong ended so late that the timer was throttled: then silence says nothing. */
export const isLate = (waitedMs: number): boolean => waitedMs > PONG_MS + LATE_MS;

/** Where the stream stood before an event; its first one is where it begins. */
export const startOf = ({ from, to }: Received): string | null => from ?? to;

/** Where a reader stands after an event, and what to do with it. */
export function advance(own: string | null, received: Received) {
  const { event, to } = received;
  const from = startOf(received);
  const isMoved = event.event === "resync" && event.data.scope === "all";
  // Only messages have a place: what else comes behind an id-only block has none, and is told once.
  const verdict = event.event === "new_message" ? judge(own, from, to) : "deliver";
  // The cursor of `connected` is where a replay starts: not what has been seen. Nor has a reader that misses
  // something seen it because of an event that moves nothing.
  const isNext = isMoved || own === null || !(isBehind(to, own) || isBehind(own, from));
  return { verdict, cursor: verdict === "deliver" && isNext ? to : own };
}
