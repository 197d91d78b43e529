import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { StreamEvent } from "../../lib/protocol.ts";
import { createTyping } from "../../lib/typing.ts";

const CHAT = "018f-chat";

beforeEach(() => vi.useFakeTimers({ now: 1_000_000 }));
afterEach(() => vi.useRealTimers());

function start() {
  const told: string[] = [];
  const onChange = vi.fn();
  const end = new AbortController();
  const typing = createTyping({
    userId: "ada",
    onChange,
    tell: (id, isTyping) => told.push(`${Date.now() - 1_000_000} ${id} ${isTyping}`),
    signal: end.signal,
  });
  return { typing, told, onChange, end };
}

function status(userId: string, isTyping: boolean): StreamEvent {
  return {
    event: "typing_status",
    data: { conversation_id: CHAT, user_id: userId, is_typing: isTyping, expires_in: 6 },
  } as StreamEvent;
}

test("a key after another is told once in 2.5 s", () => {
  const { typing, told } = start();
  for (let key = 0; key < 40; key += 1) {
    typing.set(CHAT, true);
    vi.advanceTimersByTime(100);
  }
  expect(told).toEqual([`0 ${CHAT} true`, `2500 ${CHAT} true`]);
});

test("a stop that the server would drop waits until it would not", () => {
  const { typing, told } = start();
  typing.set(CHAT, true);
  vi.advanceTimersByTime(300);
  typing.set(CHAT, false);
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual([`0 ${CHAT} true`, `2100 ${CHAT} false`]);
});

test("a stop after a while is told at once, and only once", () => {
  const { typing, told } = start();
  typing.set(CHAT, true);
  vi.advanceTimersByTime(4_000);
  typing.set(CHAT, false);
  typing.set(CHAT, false);
  vi.advanceTimersByTime(5_000);
  typing.set(CHAT, false);
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual([`0 ${CHAT} true`, `4000 ${CHAT} false`]);
});

test("who goes on typing has not stopped", () => {
  const { typing, told } = start();
  typing.set(CHAT, true);
  typing.set(CHAT, false);
  vi.advanceTimersByTime(1_000);
  typing.set(CHAT, true);
  vi.advanceTimersByTime(1_400);
  expect(told).toEqual([`0 ${CHAT} true`]);
});

test("a start that the server would drop waits as well, and needs no further key", () => {
  const { typing, told } = start();
  typing.set(CHAT, true);
  typing.set(CHAT, false);
  vi.advanceTimersByTime(2_200);
  typing.set(CHAT, true);
  typing.set(CHAT, true);
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual([`0 ${CHAT} true`, `2100 ${CHAT} false`, `4200 ${CHAT} true`]);
});

test("who has sent has stopped, and need not say so", () => {
  const { typing, told } = start();
  typing.set(CHAT, true);
  typing.set(CHAT, false);
  typing.apply({
    event: "new_message",
    data: { conversation_id: CHAT, sender: { id: "ada" } },
  } as unknown as StreamEvent);
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual([`0 ${CHAT} true`]);
});

test("what is told of others expires, and of oneself is not shown", () => {
  const { typing, onChange } = start();
  typing.apply(status("bob", true));
  typing.apply(status("ada", true));
  expect(typing.who(CHAT)).toEqual(["bob"]);
  vi.advanceTimersByTime(5_900);
  typing.apply(status("bob", true));
  vi.advanceTimersByTime(5_900);
  expect(typing.who(CHAT)).toEqual(["bob"]);
  vi.advanceTimersByTime(200);
  expect(typing.who(CHAT)).toEqual([]);
  expect(onChange).toHaveBeenCalledTimes(2);
});

test("nothing is told after the end", () => {
  const { typing, told, end } = start();
  typing.set(CHAT, true);
  typing.set(CHAT, false);
  end.abort();
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual([`0 ${CHAT} true`]);
});
