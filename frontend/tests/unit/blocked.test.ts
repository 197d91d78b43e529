/** A browser with all site data blocked: Web Locks, BroadcastChannel and IndexedDB are there, and refuse. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Client } from "../../lib/client.ts";
import { chatServer, clientOf } from "../support/chat.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, ROOM } from "../support/samples.ts";
import { json, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

let server: ScriptedServer;
let clients: Client[];
let refusals: number;

const refusal = () => {
  refusals += 1;
  return new DOMException("Access is denied.", "SecurityError");
};
// A loop of microtasks would hang the test: from the thousandth on there is no answer.
const refuse = () => (refusals < 1_000 ? Promise.reject(refusal()) : new Promise(() => {}));

beforeEach(async () => {
  server = await chatServer();
  server.on("POST /messages/send", (response, asked) =>
    json(aMessage(2, { client_message_id: String(asked.body["client_message_id"]) }), 201)(response, asked),
  );
  clients = [];
  refusals = 0;
  vi.stubGlobal("indexedDB", {
    open() {
      throw refusal();
    },
  });
});

afterEach(async () => {
  for (const client of clients) client.close();
  await server.close();
});

function start(): Client {
  const client = clientOf(server, { shareStream: true });
  clients.push(client);
  client.start();
  return client;
}

async function works(...each: Client[]): Promise<void> {
  await until(() => each.every((client) => client.getState().status === "open"));
  for (const client of each) {
    expect(await client.send({ conversationId: ROOM, content: "hello" })).toMatchObject({ status: "sent", seq: 2 });
  }
}

test("without locks each tab has a stream of its own, and sends", async () => {
  vi.stubGlobal("navigator", { locks: { request: refuse, query: refuse }, onLine: true });
  await works(start(), start());
  expect(server.open.size).toBe(2);
  expect(refusals).toBeLessThan(50);
});

test("without a channel, too", async () => {
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
  vi.stubGlobal("BroadcastChannel", function refused() {
    throw refusal();
  });
  await works(start(), start());
  expect(server.open.size).toBe(2);
});
