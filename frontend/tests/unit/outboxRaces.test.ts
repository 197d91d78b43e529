/** The outbox between tabs, clocks and a storage that do not keep in step. */

import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createApi } from "../../lib/api.ts";
import { createOutbox, type Outbox } from "../../lib/outbox.ts";
import { openOutboxStorage, type OutboxItem, type OutboxStorage } from "../../lib/outboxStorage.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, aToken, ROOM } from "../support/samples.ts";
import { json, problem, scriptedServer, type Answer, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const SEND = "POST /messages/send";
let server: ScriptedServer;
let tabs: AbortController[];
let scope = "";
let count = 0;

beforeEach(async () => {
  server = await scriptedServer();
  server.on(SEND, commit);
  tabs = [];
  direct = undefined;
  scope = `gapless-test-races:${(count += 1)}`;
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
});

afterEach(async () => {
  for (const tab of tabs) tab.abort();
  vi.useRealTimers();
  vi.stubGlobal("indexedDB", browsers);
  await server.close();
});

const browsers = indexedDB;
let direct: string | undefined; // the conversation with bob, as soon as it is known

function openTab(storage: OutboxStorage = openOutboxStorage(scope)): Outbox & { tab: AbortController; go: () => void } {
  const tab = new AbortController();
  const { signal } = tab;
  tabs.push(tab);
  const api = createApi({ baseUrl: server.url, source: () => aToken("ada"), signal, onToken: () => {} });
  const conversationOf = (item: OutboxItem) => item.conversation_id || direct;
  const outbox = createOutbox({ userId: "ada", api, storage, scope, conversationOf, onSent() {}, onChange() {}, signal });
  return { ...outbox, tab, go: () => outbox.drain(signal) };
}

const commit: Answer = (response, asked) => {
  const [content, key] = [String(asked.body["content"]), String(asked.body["client_message_id"])];
  json(aMessage(posted().length, { content, client_message_id: key }), 201)(response, asked);
};
const posted = () => server.askedFor(SEND).map(({ body }) => body["content"]);
const say = (outbox: Outbox, content: string) => outbox.send({ conversationId: ROOM, content });
const held = (outbox: Outbox) => outbox.line().map(({ content }) => content);

async function stored(): Promise<OutboxItem[]> {
  const storage = openOutboxStorage(scope);
  for (;;) {
    const items = await storage.all();
    if (items.length > 0) return items;
  }
}

test("what is written after a reload comes after what waits, though the clock was set back", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  vi.setSystemTime(2_000_000);
  const before = openTab();
  void say(before, "one");
  await stored();
  before.tab.abort();
  vi.setSystemTime(1_000_000);
  const after = openTab();
  await until(() => after.items.size === 1);
  void say(after, "two");
  await until(() => after.items.size === 2);
  after.go();
  await until(() => posted().length === 2);
  expect(posted()).toEqual(["one", "two"]);
});

test("late news from a slow tab do not bring back what has been sent", async () => {
  const [fast, slow] = [openTab(), new BroadcastChannel(`${scope}:outbox`)];
  let news: OutboxItem | undefined;
  slow.onmessage = ({ data }: MessageEvent<OutboxItem | object>) => {
    if ("at" in data) news = data;
  };
  fast.go();
  await say(fast, "one");
  const item = await until(() => news);
  slow.postMessage(item);
  slow.postMessage({ ...item, id: "next", client_message_id: "next", content: "two", status: "failed" });
  await until(() => fast.items.has("next"));
  slow.close();
  expect(held(fast)).toEqual(["two"]);
});

test("nor does a storage that is read while another tab sends it", async () => {
  const real = openOutboxStorage(scope);
  const waiting = openTab();
  void say(waiting, "one");
  const before = await stored();
  const reads: ((items: OutboxItem[]) => void)[] = [];
  const reader = openTab({ ...real, all: () => new Promise((resolve) => reads.push(resolve)) });
  let isTold = false;
  const channel = new BroadcastChannel(`${scope}:outbox`);
  channel.onmessage = () => (isTold = true);
  waiting.go();
  await until(() => isTold && waiting.items.size === 0);
  // Its own news come in the same order: this one has been heard when the next is.
  channel.postMessage({ ...before[0]!, id: "next", client_message_id: "next", content: "two", status: "failed" });
  await until(() => reader.items.has("next"));
  channel.close();
  reads.forEach((answer) => answer(before));
  await new Promise(setImmediate);
  expect(held(reader)).toEqual(["two"]);
});

test("what was given up elsewhere, unheard, is not shown for ever", async () => {
  const [gone, cached] = [openTab(), openTab()];
  const end = say(gone, "one");
  await until(() => cached.items.size === 1);
  gone.tab.abort();
  expect((await end).status).toBe("sending");
  const [item] = await stored();
  await openOutboxStorage(scope).delete(item!.id); // a page in the back/forward cache hears nothing
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  cached.go();
  await until(() => vi.getTimerCount() > 0);
  vi.advanceTimersByTime(1_900);
  expect(held(cached)).toEqual(["one"]); // it may have been sent, and the word is on its way
  vi.advanceTimersByTime(200);
  expect(held(cached)).toEqual([]);
});

test("what was refused elsewhere, unheard, is shown so", async () => {
  const [gone, cached] = [openTab(), openTab()];
  void say(gone, "one");
  await until(() => cached.items.size === 1);
  gone.tab.abort();
  const [item] = await stored();
  await openOutboxStorage(scope).put({ ...item!, status: "failed", error: { code: "x", message: "No.", status: 422 } });
  cached.go();
  await until(() => cached.line()[0]?.status === "failed");
  expect(posted()).toEqual([]);
});

test("but what is written again meanwhile stays", async () => {
  const [gone, cached] = [openTab(), openTab()];
  void say(gone, "one");
  await until(() => cached.items.size === 1);
  gone.tab.abort();
  const [item] = await stored();
  await openOutboxStorage(scope).delete(item!.id);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  server.on(SEND, () => {}); // it hangs
  cached.go();
  await until(() => vi.getTimerCount() > 0);
  cached.retry(item!.id);
  await until(() => posted().length === 1);
  vi.advanceTimersByTime(2_100);
  expect(held(cached)).toEqual(["one"]);
});

test("a storage whose connection is lost is opened anew, and what it holds is sent", async () => {
  const connections: IDBDatabase[] = [];
  vi.stubGlobal("indexedDB", {
    open(name: string, version: number) {
      const request = browsers.open(name, version);
      request.addEventListener("success", () => connections.push(request.result));
      return request;
    },
  });
  const outbox = openTab();
  void say(outbox, "one");
  await stored();
  outbox.tab.abort();
  const after = openTab();
  await until(() => after.items.size === 1);
  connections.forEach((connection) => connection.close()); // as some browsers do, without a word
  after.go();
  void say(after, "two");
  await until(() => posted().length > 0);
  after.go();
  await until(() => after.items.size === 0);
  expect(posted().sort()).toEqual(["one", "two"]);
});

test("a storage that is slow to open is used as soon as it is there", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const before = openTab();
  void say(before, "one");
  await stored();
  before.tab.abort();
  let open = () => {};
  vi.stubGlobal("indexedDB", {
    open(name: string, version: number) {
      const request = {} as IDBOpenDBRequest;
      open = () => {
        const opening = browsers.open(name, version);
        opening.onsuccess = () => {
          Object.defineProperty(request, "result", { value: opening.result });
          request.onsuccess!(new Event("success"));
        };
      };
      return request;
    },
  });
  const storage = openOutboxStorage(scope);
  const early = storage.all();
  await until(() => vi.getTimerCount() > 0);
  vi.advanceTimersByTime(3_100);
  await expect(early).rejects.toBeUndefined();
  open();
  const isThere = () => storage.all().then((items) => items.length === 1, () => false);
  while (!(await isThere())) await new Promise(setImmediate);
});

describe("to one person, by recipient and by conversation", () => {
  const toBob = (outbox: Outbox, content: string) => void outbox.send({ recipientId: "bob", content });

  test("it goes in the order of writing", async () => {
    direct = ROOM;
    const outbox = openTab();
    toBob(outbox, "one");
    void say(outbox, "two");
    toBob(outbox, "three");
    await until(() => outbox.items.size === 3);
    const answers: (() => void)[] = [];
    server.on(SEND, (...given) => answers.push(() => void commit(...given)));
    outbox.go();
    for (const nth of [1, 2, 3]) {
      await until(() => answers.length > 0);
      for (let trip = 0; trip < 5; trip += 1) await fetch(server.url); // nothing else is under way
      expect(posted()).toHaveLength(nth);
      answers.pop()!();
    }
    await until(() => outbox.items.size === 0);
    expect(posted()).toEqual(["one", "two", "three"]);
    expect(server.askedFor(SEND).map(({ body }) => body["recipient_id"])).toEqual(["bob", undefined, "bob"]);
  });

  test("also if the conversation becomes known under way", async () => {
    const answers: (() => void)[] = [];
    server.on(SEND, (...given) => answers.push(() => void commit(...given)), commit);
    const outbox = openTab();
    toBob(outbox, "one");
    toBob(outbox, "two");
    await until(() => outbox.items.size === 2);
    outbox.go();
    await until(() => answers.length === 1);
    direct = ROOM;
    answers[0]!();
    await until(() => outbox.items.size === 0);
    expect(posted()).toEqual(["one", "two"]);
  });

  test("also while it waits for another try", async () => {
    server.on(SEND, problem(503, "unavailable", { "retry-after": "5" }), commit);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const outbox = openTab();
    toBob(outbox, "one");
    outbox.go();
    await until(() => vi.getTimerCount() > 0 && posted().length === 1);
    direct = ROOM;
    await vi.advanceTimersByTimeAsync(5_100);
    await until(() => outbox.items.size === 0);
  });
});

test("of what has been sent only the latest thousand are remembered", async () => {
  const tab = openTab();
  const key = (seq: number) => aMessage(seq).client_message_id;
  for (let seq = 1; seq <= 1_500; seq += 1) tab.settle(aMessage(seq));
  const channel = new BroadcastChannel(`${scope}:outbox`);
  for (const seq of [1, 1_400, 2_000]) {
    const item = { ...aMessage(seq), client_message_id: key(seq), id: key(seq), at: seq, status: "failed", error: null };
    channel.postMessage(item);
  }
  await until(() => tab.items.has(key(2_000)));
  channel.close();
  expect(held(tab)).toEqual(["message 1", "message 2000"]);
});

test("a storage that dies under way does not keep a message back, nor let the next overtake it", async () => {
  const real = openOutboxStorage(scope);
  let isDead = false;
  const unlessDead = <T>(act: () => Promise<T>) => (isDead ? Promise.reject(new Error("The connection is lost.")) : act());
  const tab = openTab({
    all: () => unlessDead(real.all),
    put: (item) => unlessDead(() => real.put(item)),
    delete: (id) => unlessDead(() => real.delete(id)),
  });
  void say(tab, "one");
  await stored();
  isDead = true;
  tab.go();
  void say(tab, "two");
  await until(() => posted().length === 2 && tab.items.size === 0);
  expect(posted()).toEqual(["one", "two"]);
});
