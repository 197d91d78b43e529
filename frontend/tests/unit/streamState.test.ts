import { describe, expect, test } from "vitest";
import { DOUBT_MS, SILENCE_MS, startState, statusOf, step, type StreamInput, type StreamStep } from "../../lib/streamState.ts";

const half = () => 0.5;
const failed = (status: number, retryMs = 0): StreamInput => ({ type: "failed", status, retryMs });
const OPENING: StreamInput[] = [{ type: "start" }, { type: "authorized" }];
const OPEN: StreamInput[] = [...OPENING, { type: "connected" }];

/** The last step after all these. */
function after(...inputs: StreamInput[]): StreamStep {
  let last: StreamStep = { state: startState(true) };
  for (const input of inputs) last = step(last.state, input, half);
  return last;
}

const status = (...inputs: StreamInput[]) => statusOf(after(...inputs).state);

describe("the supervisor", () => {
  test("authorizes, opens, and is open at `connected` only", () => {
    expect(after({ type: "start" })).toMatchObject({ command: "authorize", timerMs: SILENCE_MS });
    expect(after(...OPENING)).toMatchObject({ command: "open", timerMs: SILENCE_MS });
    expect(status(...OPENING)).toBe("connecting");
    expect(status(...OPENING, { type: "event" })).toBe("connecting");
    expect(status(...OPEN)).toBe("open");
  });

  test("asks for one fresh token after a 401, and gives up at the second", () => {
    expect(after({ type: "start" }, failed(401)).command).toBe("authorizeFresh");
    const second = after({ type: "start" }, failed(401), failed(401));
    expect(second).toMatchObject({ command: "close", timerMs: null });
    expect(statusOf(second.state)).toBe("unauthorized");
  });

  test("may ask for a fresh token again once it has been open", () => {
    const inputs = [{ type: "start" } as const, failed(401), { type: "authorized" } as const, { type: "connected" } as const];
    expect(after(...inputs, failed(401)).command).toBe("authorizeFresh");
  });

  test("does not ask for another token because the one that was accepted met an overloaded server", () => {
    const accepted = [{ type: "start" } as const, failed(401), { type: "authorized" } as const, failed(503)];
    expect(after(...accepted, { type: "timer" }).command).toBe("authorize");
  });

  test("waits as long as Retry-After says, for 429 and 503 alike", () => {
    expect(after({ type: "start" }, failed(429, 7_000)).timerMs).toBe(7_000);
    expect(after({ type: "start" }, failed(503, 20_000)).timerMs).toBe(20_000);
    expect(after({ type: "start" }, failed(503, 20_000), { type: "timer" }).command).toBe("authorize");
  });

  test("backs off further with each failure, and starts anew once it was open", () => {
    const again: StreamInput[] = [failed(0), { type: "timer" }];
    expect(after({ type: "start" }, failed(0)).timerMs).toBe(500);
    expect(after({ type: "start" }, ...again, failed(0)).timerMs).toBe(1_000);
    expect(after({ type: "start" }, ...again, ...again, failed(0)).timerMs).toBe(2_000);
    expect(after(...OPEN, failed(0)).timerMs).toBe(500);
  });

  test("takes silence for a loss, while connecting too", () => {
    expect(after({ type: "start" }, { type: "timer" })).toMatchObject({ command: "close", timerMs: 500 });
    expect(after(...OPENING, { type: "timer" })).toMatchObject({ command: "close" });
    expect(after(...OPEN, { type: "timer" })).toMatchObject({ command: "close" });
    expect(status(...OPEN, { type: "timer" })).toBe("reconnecting");
  });

  test("is re-armed by every event", () => {
    expect(after(...OPEN, { type: "event" }).timerMs).toBe(SILENCE_MS);
  });

  test("is not re-armed by the failures of a browser that tries again by itself", () => {
    expect(after(...OPEN, { type: "interrupted" }).timerMs).toBe(SILENCE_MS);
    expect(after(...OPEN, { type: "interrupted" }, { type: "interrupted" }).timerMs).toBeUndefined();
    expect(status(...OPEN, { type: "interrupted" })).toBe("reconnecting");
    expect(status(...OPEN, { type: "interrupted" }, { type: "connected" })).toBe("open");
  });

  test("says `offline`, until an event proves the browser wrong", () => {
    expect(status(...OPEN, { type: "offline" })).toBe("offline");
    expect(after(...OPEN, { type: "offline" }).command).toBeUndefined();
    expect(status(...OPEN, { type: "offline" }, { type: "event" })).toBe("open");
  });

  test("on `online` gives an open stream 2 s to show that it lives, and else does not wait", () => {
    expect(after(...OPEN, { type: "offline" }, { type: "online" })).toMatchObject({ timerMs: DOUBT_MS });
    expect(after(...OPEN, { type: "online" }, { type: "event" }).timerMs).toBe(SILENCE_MS);
    expect(after(...OPEN, { type: "online" }, { type: "timer" }).command).toBe("close");
    expect(after(...OPEN, failed(0), { type: "offline" }, { type: "online" }).command).toBe("authorize");
  });

  test("leaves a refusal alone when the network comes back, and tries when it is told to", () => {
    const refused = [{ type: "start" } as const, failed(401), failed(401)];
    expect(after(...refused, { type: "online" }).command).toBeUndefined();
    expect(after(...refused, { type: "start" }).command).toBe("authorize");
  });
});
