import { describe, expect, test } from "vitest";
import { backoffMs, retryAfterMs } from "../../lib/backoff.ts";

describe("backoff", () => {
  test("waits at most 1 s, 2 s, 4 s … and never over 30 s", () => {
    const most = [0, 1, 2, 3, 4, 5, 50].map((attempt) => backoffMs(attempt, () => 1));
    expect(most).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  });

  test("has full jitter: it may come back at once", () => {
    expect(backoffMs(9, () => 0)).toBe(0);
    expect(backoffMs(3, () => 0.5)).toBe(4_000);
  });
});

describe("Retry-After", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  test.each([
    ["3", 3_000],
    ["0", 0],
    ["Thu, 01 Jan 2026 00:00:07 GMT", 7_000],
    ["Wed, 31 Dec 2025 00:00:00 GMT", 0],
    ["999999", 300_000],
    ["-5", 0],
    ["soon", 0],
    ["", 0],
    [null, 0],
  ])("%s is %i ms", (header, ms) => expect(retryAfterMs(header, now)).toBe(ms));
});
