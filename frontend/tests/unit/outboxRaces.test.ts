/** The outbox between tabs, clocks and a storage that do not keep in step. */

import "fake-indexeddb/auto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createApi } from "../../lib/api.ts";
import { createOutbox, type Outbox } from "../../lib/outbox.ts";
import { openOutboxStorage, type OutboxItem, type OutboxStorage } from "../../lib/outboxStorage.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, aToken, ROOM } from "../support/samples.ts";
import { json, scriptedServer, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const SEND = "POST /messages/send";
let server: ScriptedServer;
let tabs: AbortController[];
let scope = "";
let count = 0;

beforeEach(async () => {
  server = await scriptedServer();
  server.on(SEND, (response, asked) => {
    const [content, key] = [String(asked.body["content"]), String(asked.body["client_message_id"])];
    json(aMessage(posted().length, { content, client_message_id: key }), 201)(response, asked);
  });
  tabs = [];
  scope = `gapless-test-races:${(count += 1)}`;
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
});

afterEach(async () => {
  for (const tab of tabs) tab.abort();
  vi.useRealTimers();
  await server.close();
});

function openTab(storage: OutboxStorage = openOutboxStorage(scope)): Outbox & { tab: AbortController; go: () => void } {
  const tab = new AbortController();
  const { signal } = tab;
  tabs.push(tab);
  const api = createApi({ baseUrl: server.url, source: () => aToken("ada"), signal, onToken: () => {} });
  const outbox = createOutbox({ userId: "ada", api, storage, scope, onSent: () => {}, onChange: () => {}, signal });
  return { ...outbox, tab, go: () => outbox.drain(signal) };
}

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
