import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createApi } from "../../lib/api.ts";
import { createOutbox, type Outbox } from "../../lib/outbox.ts";
import { openOutboxStorage } from "../../lib/outboxStorage.ts";
import type { Message } from "../../lib/protocol.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, aToken, ROOM } from "../support/samples.ts";
import { json, problem, scriptedServer, type Answer, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const SEND = "POST /messages/send";
let server: ScriptedServer;
let stored: Map<string, Message>; // by key: what the server has
let tabs: AbortController[];
let scope = 0;

/** As the server does: the same key is the same message. */
const commit: Answer = (response, { body }) => {
  const key = body["client_message_id"] as string;
  const isNew = !stored.has(key);
  const message = stored.get(key) ?? aMessage(stored.size + 1, { content: body["content"] as string, client_message_id: key });
  stored.set(key, message);
  response.writeHead(isNew ? 201 : 200, { "content-type": "application/json" }).end(JSON.stringify(message));
};

beforeEach(async () => {
  server = await scriptedServer();
  server.on(SEND, commit);
  stored = new Map();
  tabs = [];
  scope += 1;
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
});

afterEach(async () => {
  for (const tab of tabs) tab.abort();
  vi.useRealTimers();
  await server.close();
});

async function openTab({ isOnline = true } = {}): Promise<Outbox & { tab: AbortController; sent: string[] }> {
  const tab = new AbortController();
  tabs.push(tab);
  const { signal } = tab;
  const sent: string[] = [];
  const name = `gapless-test-outbox:${scope}`;
  const outbox = createOutbox({
    userId: "ada",
    api: createApi({ baseUrl: server.url, source: () => aToken("ada"), fetch, signal, onToken: () => {} }),
    storage: openOutboxStorage(name),
    scope: name,
    conversationOf: ({ conversation_id }) => conversation_id || undefined,
    onSent: (message) => sent.push(message.content),
    onChange: () => {},
    signal,
  });
  if (isOnline) outbox.drain(signal);
  return Object.assign(outbox, { tab, sent });
}

const say = (outbox: Outbox, content: string) => outbox.send({ conversationId: ROOM, content });
const posted = () => server.askedFor(SEND).map(({ body }) => body["content"]);
const keys = () => server.askedFor(SEND).map(({ body }) => body["client_message_id"]);
const states = ({ items }: Outbox) => [...items.values()].map(({ content, status }) => `${content}: ${status}`);

describe("sending", () => {
  test("shows a message at once, and resolves with it as the server has it", async () => {
    const outbox = await openTab();
    const end = say(outbox, "hello");
    expect(states(outbox)).toEqual(["hello: sending"]);
    expect(await end).toMatchObject({ content: "hello", status: "sent", seq: 1 });
    expect(outbox.items.size).toBe(0);
  });

  test("is committed to the outbox before it is posted", async () => {
    const outbox = await openTab();
    let wasStored = false;
    server.on(SEND, async (response, asked) => {
      const storage = openOutboxStorage(`gapless-test-outbox:${scope}`);
      wasStored = (await storage.all()).some(({ id }) => id === asked.body["client_message_id"]);
      commit(response, asked);
    });
    await say(outbox, "hello");
    expect(wasStored).toBe(true);
  });

  test("goes one at a time and in order, and of two conversations at once", async () => {
    let inFlight = 0;
    server.on(SEND, async (response, asked) => {
      if (asked.body["conversation_id"] === ROOM) {
        expect((inFlight += 1)).toBe(1);
        await until(() => posted().includes("x")); // the other conversation does not wait for this one
        inFlight -= 1;
      }
      commit(response, asked);
    });
    const outbox = await openTab();
    const ends = ["a", "b", "c"].map((content) => say(outbox, content));
    await until(() => posted().includes("a"));
    ends.push(outbox.send({ recipientId: "bob", content: "x" }));
    await Promise.all(ends);
    expect(posted()).toEqual(["a", "x", "b", "c"]);
  });

  test("is tried again with the same key, in order, while the server cannot be reached", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const cut: Answer = (response) => response.destroy();
    const lost: Answer = (response, asked) => {
      stored.set(asked.body["client_message_id"] as string, aMessage(1, { content: "one", client_message_id: asked.body["client_message_id"] as string }));
      response.destroy(); // committed, and the answer is lost
    };
    server.on(SEND, cut, lost, problem(503, "unavailable"), commit);
    const outbox = await openTab();
    const [one, two] = await Promise.all([say(outbox, "one"), say(outbox, "two")]);
    expect([one.status, two.status]).toEqual(["sent", "sent"]);
    expect(posted()).toEqual(["one", "one", "one", "one", "two"]);
    expect(new Set(keys()).size).toBe(2);
    expect(stored.size).toBe(2);
  });

  test("waits as long as Retry-After says", async () => {
    server.on(SEND, problem(429, "rate_limited", { "retry-after": "30" }), commit);
    const outbox = await openTab({ isOnline: false });
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    outbox.drain(outbox.tab.signal);
    const end = say(outbox, "hello");
    await until(() => vi.getTimerCount() > 0 && posted().length === 1);
    vi.advanceTimersByTime(29_000);
    await new Promise(setImmediate);
    expect(posted()).toHaveLength(1);
    vi.advanceTimersByTime(1_100);
    expect((await end).status).toBe("sent");
  });

  test("fails when the server refuses, and does not stand in the way of the next", async () => {
    server.on(SEND, problem(422, "invalid_request"), commit);
    const outbox = await openTab();
    const [bad, good] = await Promise.all([say(outbox, "bad"), say(outbox, "good")]);
    expect(bad).toMatchObject({ status: "failed", error: { code: "invalid_request", status: 422 } });
    expect(good.status).toBe("sent");
    expect(states(outbox)).toEqual(["bad: failed"]);
  });

  test.each([403, 413])("fails where a proxy refuses it with %i, and does not stand in the way of the next", async (status) => {
    const refuse: Answer = (response) => response.writeHead(status, { "content-type": "text/html" }).end("<h1>No</h1>");
    server.on(SEND, refuse, commit);
    const outbox = await openTab();
    const [bad, good] = await Promise.all([say(outbox, "bad"), say(outbox, "good")]);
    expect(bad).toMatchObject({ status: "failed", error: { code: "unexpected", status } });
    expect(good.status).toBe("sent");
  });

  test("is tried again where it is a proxy that finds nothing, and no word of the server's", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    server.on(SEND, (response) => response.writeHead(404, { "content-type": "text/html" }).end("<h1>No backend</h1>"), commit);
    const outbox = await openTab();
    expect((await say(outbox, "hello")).status).toBe("sent");
    expect(posted()).toHaveLength(2);
  });

  test("can be tried again, or given up, after it has failed", async () => {
    server.on(SEND, problem(404, "not_found"), problem(404, "not_found"), commit);
    const outbox = await openTab();
    const [one, two] = await Promise.all([say(outbox, "one"), say(outbox, "two")]);
    outbox.retry(one.id);
    await until(() => outbox.sent.length === 1);
    expect(keys()[2]).toBe(one.client_message_id);
    outbox.discard(two.id);
    await until(() => outbox.items.size === 0);
    const next = await openTab();
    expect(states(next)).toEqual([]);
  });
});

describe("what waits", () => {
  test("is kept over a reload, with its key and its order", async () => {
    const before = await openTab({ isOnline: false });
    void say(before, "one");
    void say(before, "two");
    const storage = openOutboxStorage(`gapless-test-outbox:${scope}`);
    for (let count = 0; count < 2; ) count = (await storage.all()).length;
    const key = [...before.items.keys()];
    before.tab.abort();
    const after = await openTab();
    await until(() => after.sent.length === 2);
    expect(after.sent).toEqual(["one", "two"]);
    expect(keys()).toEqual(key);
    expect(await storage.all()).toEqual([]);
  });

  test("is told as it is to who waits for it, when the client is closed", async () => {
    const answers: (() => void)[] = [];
    server.on(SEND, (...given) => answers.push(() => void commit(...given)));
    const closed = await openTab();
    const ends = [say(closed, "under way"), say(closed, "waits")];
    await until(() => answers.length === 1);
    closed.tab.abort();
    expect(await Promise.all(ends)).toMatchObject([
      { content: "under way", status: "sending", error: null },
      { content: "waits", status: "sending", error: null },
    ]);
    server.on(SEND, commit);
    const next = await openTab();
    await until(() => next.sent.length === 2);
    expect(next.sent).toEqual(["under way", "waits"]);
  });

  test("is kept as failed over a reload", async () => {
    server.on(SEND, problem(422, "invalid_request"));
    const before = await openTab();
    await say(before, "bad");
    before.tab.abort();
    const after = await openTab();
    await until(() => after.items.size === 1);
    expect(states(after)).toEqual(["bad: failed"]);
    expect(posted()).toHaveLength(1);
  });

  test("is gone after a sign-out", async () => {
    const outbox = await openTab({ isOnline: false });
    const end = say(outbox, "secret");
    await until(() => outbox.items.size === 1);
    await outbox.clear();
    expect(await end).toMatchObject({ status: "failed", error: { code: "discarded" } });
    expect(await openOutboxStorage(`gapless-test-outbox:${scope}`).all()).toEqual([]);
  });

  test("is gone after a sign-out, also what this tab has not read yet", async () => {
    const before = await openTab({ isOnline: false });
    void say(before, "secret");
    const storage = openOutboxStorage(`gapless-test-outbox:${scope}`);
    for (let count = 0; count < 1; ) count = (await storage.all()).length;
    before.tab.abort();
    const after = await openTab({ isOnline: false });
    await after.clear();
    expect(await storage.all()).toEqual([]);
    expect(states(after)).toEqual([]);
  });

  test("is settled by the echo, when that is faster than the answer", async () => {
    const outbox = await openTab();
    server.on(SEND, () => {}); // never answers
    const end = say(outbox, "hello");
    await until(() => keys().length === 1);
    outbox.settle(aMessage(1, { content: "hello", client_message_id: keys()[0] as string }));
    expect((await end).status).toBe("sent");
  });
});

describe("two tabs", () => {
  test("show the same, and send each message once", async () => {
    const [one, two, three] = [await openTab(), await openTab(), await openTab()];
    const ends = Array.from({ length: 10 }, (_, index) => say([one, two, three][index % 3]!, `m${index}`));
    const messages = await Promise.all(ends);
    await until(() => [one, two, three].every(({ items }) => items.size === 0));
    expect(messages.every(({ status }) => status === "sent")).toBe(true);
    expect(stored.size).toBe(10);
    expect(posted()).toHaveLength(10);
  });

  test("learn from each other what waits, what failed and what was given up", async () => {
    server.on(SEND, problem(422, "invalid_request"));
    const one = await openTab();
    const two = await openTab();
    const { id } = await say(one, "bad");
    await until(() => states(two)[0] === "bad: failed");
    two.discard(id);
    await until(() => one.items.size === 0);
    expect(posted()).toHaveLength(1);
  });

  test("do not try again what was refused to the other", async () => {
    server.on(SEND, problem(422, "invalid_request"));
    const [one, two] = [await openTab(), await openTab()];
    await Promise.all(["bad", "worse", "worst"].map((content) => say(one, content)));
    await until(() => states(two).every((state) => state.endsWith("failed")) && two.items.size === 3);
    expect(posted()).toEqual(["bad", "worse", "worst"]);
  });

  test("go on with a message that the other has begun and did not finish, though nothing else happens", async () => {
    const [one, two] = [await openTab(), await openTab()];
    await say(two, "first"); // what it did when it was opened is over
    server.on(SEND, () => {}); // it hangs
    void say(one, "hello");
    await until(() => posted().length === 2 && two.items.size === 1);
    server.on(SEND, commit);
    one.tab.abort();
    await until(() => two.sent.length === 2);
    expect(new Set(keys()).size).toBe(2);
  });

  test("go on with the other's messages when that one is gone", async () => {
    const one = await openTab();
    server.on(SEND, () => {}); // it hangs
    void say(one, "hello");
    await until(() => posted().length === 1);
    const two = await openTab();
    server.on(SEND, commit);
    one.tab.abort();
    await until(() => two.sent.length === 1);
    expect(new Set(keys()).size).toBe(1);
  });
});

describe("without a storage", () => {
  beforeEach(() => vi.stubGlobal("indexedDB", undefined));

  test("it works until the reload, also a second try", async () => {
    server.on(SEND, problem(404, "not_found"), commit);
    const outbox = await openTab();
    const { id, status } = await say(outbox, "hello");
    expect(status).toBe("failed");
    outbox.retry(id);
    await until(() => outbox.sent.length === 1);
    expect(new Set(keys()).size).toBe(1);
  });

  test("another tab shows what waits, and leaves it to the one that has it", async () => {
    const [one, two] = [await openTab({ isOnline: false }), await openTab()];
    const end = say(one, "hello");
    await until(() => states(two)[0] === "hello: sending");
    two.drain(two.tab.signal);
    const other = say(two, "bye");
    expect((await other).status).toBe("sent");
    expect(posted()).toEqual(["bye"]);
    one.drain(one.tab.signal);
    expect((await end).status).toBe("sent");
    await until(() => two.items.size === 0);
    expect(posted()).toEqual(["bye", "hello"]);
  });
});

test("nothing is kept where that is not wanted", async () => {
  const storage = openOutboxStorage(`gapless-test-outbox:${scope}`, false);
  await expect(storage.all()).rejects.toThrow();
  expect((await indexedDB.databases()).map(({ name }) => name)).not.toContain(`gapless-test-outbox:${scope}`);
});

test("an answer that is none is tried again", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  server.on(SEND, json({ id: 1 }), commit);
  const outbox = await openTab();
  expect((await say(outbox, "hello")).status).toBe("sent");
  expect(new Set(keys()).size).toBe(1);
});
