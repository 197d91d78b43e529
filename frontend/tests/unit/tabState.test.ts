import { describe, expect, test } from "vitest";
import { isBehind, isElsewhere, judge } from "../../lib/cursor.ts";
import type { StreamEvent } from "../../lib/protocol.ts";
import { advance, isLate, isLed, nextTerm } from "../../lib/tabState.ts";
import { aMessage, connectedAt, ROOM } from "../support/samples.ts";

describe("a cursor", () => {
  test.each([
    [null, "e.1", "e.2", "deliver"],
    ["e.1", "e.1", "e.2", "deliver"],
    ["e.1", "e.1", "e.5", "deliver"], // the seqs between were id-only blocks
    ["e.2", "e.1", "e.2", "drop"],
    ["e.5", "e.1", "e.2", "drop"],
    ["e.5", "e.4", "e.6", "deliver"],
    ["e.1", "e.2", "e.3", "hole"],
    ["e.9", "e.9", "e.9", "deliver"], // an event that moves nothing
    ["e.3", "e.9", "e.9", "deliver"],
    ["f.9", "e.1", "e.2", "deliver"], // another epoch: `resync` has said so
    ["nonsense", "e.1", "e.2", "deliver"],
  ] as const)("at %s, from %s to %s: %s", (own, from, to, verdict) => expect(judge(own, from, to)).toBe(verdict));

  test("is behind another of its epoch only", () => {
    expect([isBehind("e.9", "e.10"), isBehind("e.10", "e.9"), isBehind("e.1", "f.2"), isBehind(null, "e.1")]).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });

  test("is elsewhere in another epoch, not where there is none", () => {
    expect([isElsewhere("d.9", "e.1"), isElsewhere("e.9", "e.1"), isElsewhere(null, "e.1"), isElsewhere("e.1", null)]).toEqual(
      [true, false, false, false],
    );
  });
});

describe("what a tab makes of what it hears", () => {
  test("ignores a lower term, follows its own or a higher, and deposes itself for a higher", () => {
    expect([4, 5, 6].map((other) => isLed({ term: 5, isLeader: false }, other))).toEqual([false, true, true]);
    expect([4, 5, 6].map((other) => isLed({ term: 5, isLeader: true }, other))).toEqual([false, false, true]);
  });

  test("counts terms above all that were heard, whatever the clock says", () => {
    expect(nextTerm(0, 1_000)).toBe(1_000);
    expect(nextTerm(5_000, 1_000)).toBe(5_001);
  });

  test("does not trust the silence of a timer that was throttled", () => {
    expect([isLate(2_010), isLate(5_500)]).toEqual([false, true]);
  });

  test("does not go back for a `connected` that begins a replay", () => {
    const event: StreamEvent = { event: "connected", data: connectedAt("e.3") };
    expect(advance("e.7", { event, from: "e.3", to: "e.3" })).toEqual({ verdict: "deliver", cursor: "e.7" });
    expect(advance(null, { event, from: null, to: "e.3" })).toEqual({ verdict: "deliver", cursor: "e.3" });
  });

  test("stays where something is missing, also for an event that moves nothing", () => {
    const event: StreamEvent = { event: "heartbeat", data: { server_time: "2026-01-01T00:00:00Z", head: 7 } };
    expect(advance("e.3", { event, from: "e.7", to: "e.7" })).toEqual({ verdict: "deliver", cursor: "e.3" });
  });

  test("goes where a `resync` of all says, also back", () => {
    const event: StreamEvent = { event: "resync", data: { reason: "epoch", scope: "all", cursor: "e.1" } };
    expect(advance("e.7", { event, from: "e.7", to: "e.1" })).toEqual({ verdict: "deliver", cursor: "e.1" });
  });

  test("takes what is no message, wherever it is told: behind an id-only block it seems to move", () => {
    const event: StreamEvent = { event: "conversation_updated", data: { id: ROOM, rev: 9, role: null } };
    expect(advance("e.9", { event, from: "e.8", to: "e.9" })).toEqual({ verdict: "deliver", cursor: "e.9" });
    expect(advance("e.8", { event, from: "e.8", to: "e.9" })).toEqual({ verdict: "deliver", cursor: "e.9" });
    expect(advance("e.7", { event, from: "e.8", to: "e.9" })).toEqual({ verdict: "deliver", cursor: "e.7" });
  });

  test("stays before a hole", () => {
    const event: StreamEvent = { event: "new_message", data: aMessage(9) };
    expect(advance("e.7", { event, from: "e.8", to: "e.9" })).toEqual({ verdict: "hole", cursor: "e.7" });
  });
});
