/**
 * When to authorize, open, wait and give up: the supervisor of a stream, without clock and network.
 * It has one timer: in `waiting` it ends the wait, elsewhere it is the watchdog, which events re-arm.
 */

import { backoffMs } from "./backoff.ts";
import type { Status } from "./types.ts";

export const SILENCE_MS = 25_000; // two heartbeats and a half (clause 7.4)
export const DOUBT_MS = 2_000; // after `online`: does the old connection still deliver?

export interface StreamState {
  readonly phase: "idle" | "authorizing" | "opening" | "open" | "waiting" | "unauthorized";
  /** Tries that have failed since the stream was open. */
  readonly attempt: number;
  readonly isOnline: boolean;
  readonly wasOpen: boolean;
}

export type StreamInput =
  | ("start" | "authorized" | "connected" | "event" | "interrupted" | "timer" | "online" | "offline")
  /** Authorizing was refused, with a fresh token too, or the transport has ended for good. Status 0: not known. */
  | { readonly status: number; readonly retryMs: number };

export interface StreamStep {
  readonly state: StreamState;
  /** When the timer is to fire; null stops it; left out, it goes on. */
  readonly timerMs?: number | null | undefined;
  /** What to do; each of them first closes what is open. */
  readonly command?: "authorize" | "open" | "close" | undefined;
}

export const startState = (isOnline: boolean): StreamState => ({
  phase: "idle",
  attempt: 0,
  isOnline,
  wasOpen: false,
});

export function step(state: StreamState, input: StreamInput, random: () => number = Math.random): StreamStep {
  const { phase, attempt } = state;
  const go = (more: Partial<StreamState>, timerMs?: number | null, command?: StreamStep["command"]): StreamStep => ({
    state: { ...state, ...more },
    timerMs,
    command,
  });
  const authorize = (more?: Partial<StreamState>): StreamStep =>
    go({ ...more, phase: "authorizing" }, SILENCE_MS, "authorize");
  const wait = (retryMs: number): StreamStep =>
    go({ phase: "waiting", attempt: attempt + 1 }, Math.max(retryMs, backoffMs(attempt, random)), "close");

  switch (input) {
    case "start":
      return authorize({ attempt: 0 });
    case "authorized":
      return go({ phase: "opening" }, SILENCE_MS, "open");
    case "connected":
      return go({ phase: "open", attempt: 0, isOnline: true, wasOpen: true }, SILENCE_MS);
    case "event":
      // It also says that there is a network, whatever the browser believes.
      return go({ isOnline: true }, SILENCE_MS);
    case "interrupted":
      // The browser tries again by itself. Its failures do not re-arm the watchdog, or it would try for ever.
      return go({ phase: "opening" }, phase === "open" ? SILENCE_MS : undefined);
    case "timer":
      return phase === "waiting" ? authorize() : wait(0);
    case "offline":
      return go({ isOnline: false });
    case "online":
      if (phase === "waiting") return authorize({ isOnline: true });
      return go({ isOnline: true }, phase === "open" || phase === "opening" ? DOUBT_MS : undefined);
    default:
      return input.status === 401 ? go({ phase: "unauthorized" }, null, "close") : wait(input.retryMs);
  }
}

export function statusOf({ phase, isOnline, wasOpen }: StreamState): Status {
  if (phase === "unauthorized") return phase;
  if (!isOnline) return "offline";
  if (phase === "open") return phase;
  return wasOpen ? "reconnecting" : "connecting";
}
