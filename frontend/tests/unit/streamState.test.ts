import { describe, expect, test } from "vitest";
import { DOUBT_MS, SILENCE_MS, startState, statusOf, step, type StreamInput, type StreamStep } from "../../lib/streamState.ts";

const half = () => 0.5;
const failed = (status: number, retryMs = 0): StreamInput => ({ status, retryMs });
const OPENING: StreamInput[] = ["start", "authorized"];
const OPEN: StreamInput[] = [...OPENING, "connected"];

/** The last step after all these. */
function after(...inputs: StreamInput[]): StreamStep {
  let last: StreamStep = { state: startState(true) };
  for (const input of inputs) last = step(last.state, input, half);
  return last;
}

const status = (...inputs: StreamInput[]) => statusOf(after(...inputs).state);

describe("the supervisor", () => {
  test("authorizes, opens, and is open at `connected` only", () => {
    expect(after("start")).toMatchObject({ command: "authorize", timerMs: SILENCE_MS });
    expect(after(...OPENING)).toMatchObject({ command: "open", timerMs: SILENCE_MS });
    expect(status(...OPENING)).toBe("connecting");
    expect(status(...OPENING, "event")).toBe("connecting");
    expect(status(...OPEN)).toBe("open");
  });

  test("gives up when the fresh token is refused too", () => {
    const refused = after("start", failed(401));
    expect(refused).toMatchObject({ command: "close", timerMs: null });
    expect(statusOf(refused.state)).toBe("unauthorized");
  });

  test("waits as long as Retry-After says, for 429 and 503 alike", () => {
    expect(after("start", failed(429, 7_000)).timerMs).toBe(7_000);
    expect(after("start", failed(503, 20_000)).timerMs).toBe(20_000);
    expect(after("start", failed(503, 20_000), "timer").command).toBe("authorize");
  });

  test("backs off further with each failure, and starts anew once it was open", () => {
    const again: StreamInput[] = [failed(0), "timer"];
    expect(after("start", failed(0)).timerMs).toBe(500);
    expect(after("start", ...again, failed(0)).timerMs).toBe(1_000);
    expect(after("start", ...again, ...again, failed(0)).timerMs).toBe(2_000);
    expect(after(...OPEN, failed(0)).timerMs).toBe(500);
  });

  test("takes silence for a loss, while connecting too", () => {
    expect(after("start", "timer")).toMatchObject({ command: "close", timerMs: 500 });
    expect(after(...OPENING, "timer")).toMatchObject({ command: "close" });
    expect(after(...OPEN, "timer")).toMatchObject({ command: "close" });
    expect(status(...OPEN, "timer")).toBe("reconnecting");
  });

  test("is re-armed by every event", () => {
    expect(after(...OPEN, "event").timerMs).toBe(SILENCE_MS);
  });

  test("is not re-armed by the failures of a browser that tries again by itself", () => {
    expect(after(...OPEN, "interrupted").timerMs).toBe(SILENCE_MS);
    expect(after(...OPEN, "interrupted", "interrupted").timerMs).toBeUndefined();
    expect(status(...OPEN, "interrupted")).toBe("reconnecting");
    expect(status(...OPEN, "interrupted", "connected")).toBe("open");
  });

  test("says `offline`, until an event proves the browser wrong", () => {
    expect(status(...OPEN, "offline")).toBe("offline");
    expect(after(...OPEN, "offline").command).toBeUndefined();
    expect(status(...OPEN, "offline", "event")).toBe("open");
  });

  test("on `online` gives an open stream 2 s to show that it lives, and else does not wait", () => {
    expect(after(...OPEN, "offline", "online")).toMatchObject({ timerMs: DOUBT_MS });
    expect(after(...OPEN, "online", "event").timerMs).toBe(SILENCE_MS);
    expect(after(...OPEN, "online", "timer").command).toBe("close");
    expect(after(...OPEN, failed(0), "offline", "online").command).toBe("authorize");
  });

  test("leaves a refusal alone when the network comes back, and tries when it is told to", () => {
    const refused: StreamInput[] = ["start", failed(401)];
    expect(after(...refused, "online").command).toBeUndefined();
    expect(after(...refused, "start").command).toBe("authorize");
  });
});
