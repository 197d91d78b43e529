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
  /** Whether a fresh token has been asked for since then. */
  readonly isFresh: boolean;
  readonly isOnline: boolean;
  readonly wasOpen: boolean;
}

export type StreamInput =
  | { readonly type: "start" | "authorized" | "connected" | "event" | "interrupted" | "timer" | "online" | "offline" }
  /** Authorizing was refused, or the transport has ended for good. Status 0: not known. */
  | { readonly type: "failed"; readonly status: number; readonly retryMs: number };

export interface StreamStep {
  readonly state: StreamState;
  /** What to do; each of them first closes what is open. */
  readonly command?: "authorize" | "authorizeFresh" | "open" | "close";
  /** When the timer is to fire; null stops it; left out, it goes on. */
  readonly timerMs?: number | null;
}

export const startState = (isOnline: boolean): StreamState => ({
  phase: "idle",
  attempt: 0,
  isFresh: false,
  isOnline,
  wasOpen: false,
});

export function step(state: StreamState, input: StreamInput, random: () => number = Math.random): StreamStep {
  const authorize = (more: Partial<StreamState> = {}): StreamStep => ({
    state: { ...state, phase: "authorizing", ...more },
    command: more.isFresh ? "authorizeFresh" : "authorize",
    timerMs: SILENCE_MS,
  });
  const wait = (retryMs: number): StreamStep => ({
    state: { ...state, phase: "waiting", attempt: state.attempt + 1 },
    command: "close",
    timerMs: Math.max(retryMs, backoffMs(state.attempt, random)),
  });

  switch (input.type) {
    case "start":
      return authorize({ attempt: 0, isFresh: false });
    case "authorized":
      return { state: { ...state, phase: "opening" }, command: "open", timerMs: SILENCE_MS };
    case "connected":
      return {
        state: { phase: "open", attempt: 0, isFresh: false, isOnline: true, wasOpen: true },
        timerMs: SILENCE_MS,
      };
    case "event":
      // It also says that there is a network, whatever the browser believes.
      return { state: state.isOnline ? state : { ...state, isOnline: true }, timerMs: SILENCE_MS };
    case "interrupted": {
      // The browser tries again by itself. Its failures do not re-arm the watchdog, or it would try for ever.
      const next: StreamState = { ...state, phase: "opening" };
      return state.phase === "open" ? { state: next, timerMs: SILENCE_MS } : { state: next };
    }
    case "failed":
      if (input.status !== 401) return wait(input.retryMs);
      if (!state.isFresh) return authorize({ isFresh: true });
      return { state: { ...state, phase: "unauthorized" }, command: "close", timerMs: null };
    case "timer":
      return state.phase === "waiting" ? authorize() : wait(0);
    case "offline":
      return { state: { ...state, isOnline: false } };
    case "online": {
      const next = { ...state, isOnline: true };
      if (state.phase === "waiting") return authorize({ isOnline: true });
      return state.phase === "open" || state.phase === "opening" ? { state: next, timerMs: DOUBT_MS } : { state: next };
    }
  }
}

export function statusOf({ phase, isOnline, wasOpen }: StreamState): Status {
  if (phase === "unauthorized") return phase;
  if (!isOnline) return "offline";
  if (phase === "open") return phase;
  return wasOpen ? "reconnecting" : "connecting";
}
