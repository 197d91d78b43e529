/** What is wrong for a moment, at the server, at a proxy or in the application, must not stay wrong. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Client } from "../../lib/client.ts";
import { CHANGES, changed, chatServer, clientOf, LIST } from "../support/chat.ts";
import { aMessage, aToken, connectedAt, ROOM } from "../support/samples.ts";
import { begin, block, cursorOf, json, problem, STREAM, stream, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const OTHER = "01900000-0000-7000-8000-000000000002";
let server: ScriptedServer;
let client: Client;

beforeEach(async () => {
  server = await chatServer();
  client = clientOf(server, { keepOutbox: false });
});

afterEach(async () => {
  client.close();
  vi.useRealTimers();
  await server.close();
});

const texts = () => client.messages(ROOM).map(({ content }) => content);
const tell = (...blocks: string[]) => server.open.forEach((response) => response.write(blocks.join("")));
const message = (seq: number, more = {}) => block("new_message", aMessage(seq, more), `e.${seq}`);

async function open(): Promise<void> {
  client.start();
  await until(() => texts().length === 1 && client.getState().isLoaded);
}

test("a page that asks for the messages of no conversation loads nothing", async () => {
  await open();
  expect(client.messages("")).toEqual([]);
  tell(message(2));
  await until(() => texts().length === 2);
  server.on("GET /marker", json(null));
  for (let trip = 0; trip < 10; trip += 1) await client.call("GET", "/marker");
  expect(server.askedFor(LIST)).toHaveLength(1);
  expect(client.messages("")).toBe(client.messages(""));
});

test("a message that cannot be read does not keep back those after it", async () => {
  await open();
  const seen: string[] = [];
  client.observe(() => ({ onEvent: ({ event, data }) => void (event === "new_message" && seen.push(data.content)) }));
  server.on(CHANGES, changed([aMessage(2), aMessage(3)], 3));
  tell(message(2, { content: 7 }), message(3));
  await until(() => texts().length === 3);
  expect(seen).toEqual(["message 3"]);
  server.open.forEach((response) => response.destroy());
  await until(() => server.askedFor(STREAM).length === 2);
  expect(cursorOf(server.askedFor(STREAM)[1]!)).toBe("e.3");
});

test("a stream that is cut before its `resync` is told of it again", async () => {
  await open();
  const lost = block("connected", { ...connectedAt("f.9"), recovered: false });
  server.on(STREAM, (response) => begin(response, lost), stream("f.9"));
  server.open.forEach((response) => response.destroy());
  await until(() => server.askedFor(STREAM).length === 2);
  await until(() => client.getState().status === "open");
  server.open.forEach((response) => response.destroy());
  await until(() => server.askedFor(STREAM).length === 3);
  expect(cursorOf(server.askedFor(STREAM)[2]!)).toBe("e.1");
});

test("what failed long ago does not delay the catch-up after a reconnect", async () => {
  await open();
  const route = `GET /conversations/${OTHER}`;
  server.on(route, problem(503, "unavailable", { "retry-after": "300" }));
  client.messages(OTHER);
  await until(() => client.getState().error?.status === 503);
  const before = server.askedFor(LIST).length;
  server.open.forEach((response) => response.destroy());
  await until(() => server.askedFor(LIST).length > before && server.askedFor(route).length > 1);
});

test("a proxy that finds no server does not make a conversation go away", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  await open();
  server.on(CHANGES, (response) => response.writeHead(404, { "content-type": "text/html" }).end("<h1>No backend</h1>"));
  tell(message(3));
  await until(() => server.askedFor(CHANGES).length > 2);
  expect(client.getState().conversations).toHaveLength(1);
  expect(texts()).toContain("message 1");
  server.on(CHANGES, changed([aMessage(2), aMessage(3)], 3));
  await until(() => texts().length === 3);
});

test("a source of tokens that never answers is asked again", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  let asks = 0;
  client = clientOf(server, { token: () => ((asks += 1) === 1 ? new Promise<string>(() => {}) : aToken("bob")) });
  client.start();
  await vi.advanceTimersByTimeAsync(90_000);
  vi.useRealTimers();
  await until(() => client.getState().status === "open");
});

test("a read position that could not be told is told again, though the stream stays open", async () => {
  const route = `POST /conversations/${ROOM}/read`;
  server.on(route, problem(503, "unavailable"), json(null));
  await open();
  client.markRead(ROOM);
  await until(() => server.askedFor(route).length === 1);
  tell(message(2));
  await until(() => texts().length === 2);
  expect(server.askedFor(route)).toHaveLength(1);
  tell(block("heartbeat", { server_time: "2026-01-01T00:00:00Z", head: 2 }));
  await until(() => server.askedFor(route).length === 2);
  expect(server.askedFor(STREAM)).toHaveLength(1);
});
