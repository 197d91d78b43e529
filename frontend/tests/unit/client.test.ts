import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Client } from "../../lib/client.ts";
import type { StreamEvent } from "../../lib/protocol.ts";
import { CHANGES, changed, chatServer, clientOf, HISTORY, history, LIST, listed } from "../support/chat.ts";
import { testLocks } from "../support/locks.ts";
import { aConversation, ADA, aMessage, aToken, BOB, ROOM } from "../support/samples.ts";
import { begin, block, json, opening, problem, STREAM, stream, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

let server: ScriptedServer;
let clients: Client[];

beforeEach(async () => {
  server = await chatServer();
  clients = [];
});

afterEach(async () => {
  for (const client of clients) client.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  await server.close();
});

function start(more: Parameters<typeof clientOf>[1] = {}): Client {
  const client = clientOf(server, more);
  clients.push(client);
  client.start();
  return client;
}

const texts = (client: Client) => client.messages(ROOM).map(({ content }) => content);
const tell = (...blocks: string[]) => server.open.forEach((response) => response.write(blocks.join("")));
const message = (seq: number, more = {}) => block("new_message", aMessage(seq, more), `e.${seq}`);
async function opened(more: Parameters<typeof clientOf>[1] = {}): Promise<Client> {
  const client = start(more);
  await until(() => texts(client).length === 1 && client.getState().isLoaded);
  return client;
}

describe("the client", () => {
  test("opens the stream, and loads only then", async () => {
    await opened();
    const order = server.asked.map(({ method, path }) => `${method} ${path}`);
    expect(order.indexOf(STREAM)).toBeLessThan(order.indexOf(LIST));
    expect(order.indexOf(STREAM)).toBeLessThan(order.indexOf(HISTORY));
  });

  test("shows what comes, and counts what is unread", async () => {
    const client = await opened();
    tell(message(2), message(3, { sender: BOB }), message(4));
    await until(() => texts(client).length === 4);
    expect(texts(client)).toEqual([1, 2, 3, 4].map((seq) => `message ${seq}`));
    const [room] = client.getState().conversations;
    expect(room).toMatchObject({ last_seq: 4, last_read_seq: 3, unread: 1 }); // bob has read what he wrote himself
    expect(client.getState()).toMatchObject({ unread: 1, userId: "bob", error: null, queued: 0 });
  });

  test("gives the same arrays and objects until they change", async () => {
    const client = await opened();
    const [state, messages] = [client.getState(), client.messages(ROOM)];
    expect(client.getState()).toBe(state);
    tell(message(2));
    await until(() => client.messages(ROOM) !== messages);
    expect(client.messages(ROOM)[0]).toBe(messages[0]);
    expect(client.getState()).not.toBe(state);
  });

  test("asks `changes` after a reconnect, and shows what was edited and deleted meanwhile", async () => {
    const client = await opened();
    const edited = aMessage(1, { rev: 7, content: "edited", edited_at: "2026-01-01T00:00:00Z" });
    const gone = aMessage(2, { rev: 8, content: "", deleted_at: "2026-01-01T00:00:00Z" });
    server.on(CHANGES, changed([edited, gone], 8));
    for (const response of server.open) response.destroy();
    await until(() => texts(client).length === 2);
    expect(client.messages(ROOM)).toMatchObject([{ content: "edited" }, { deleted_at: gone.deleted_at }]);
    expect(server.askedFor(CHANGES)[0]!.query.get("after_rev")).toBe("1");
    expect(server.askedFor(LIST)).toHaveLength(2);
  });

  test("asks `changes` for an event that has overtaken another, but not for the next", async () => {
    const client = await opened();
    tell(message(2));
    await until(() => texts(client).length === 2);
    expect(server.askedFor(CHANGES)).toHaveLength(0);
    server.on(CHANGES, changed([aMessage(3), aMessage(4)], 4));
    tell(message(4));
    await until(() => texts(client).length === 4);
    expect(server.askedFor(CHANGES).map(({ query }) => query.get("after_rev"))).toEqual(["2"]);
  });

  test("loads anew after a `resync` of all, keeps what is shown until then, and says so", async () => {
    const client = await opened();
    const resyncs: unknown[] = [];
    client.observe(() => ({ onResync: (resync) => resyncs.push(resync) }));
    let answer: (() => void) | undefined;
    server.on(HISTORY, (response, asked) => (answer = () => void history([aMessage(1), aMessage(2)])(response, asked)));
    tell(block("resync", { reason: "epoch", scope: "all", cursor: "f.1" }));
    const go = await until(() => answer);
    expect(texts(client)).toEqual(["message 1"]);
    go();
    await until(() => texts(client).length === 2);
    expect(resyncs).toEqual([{ reason: "epoch", scope: "all", cursor: "f.1" }]);
  });

  test("loads older pages on demand, and only one at a time", async () => {
    server.on(HISTORY, history([aMessage(3)], 3, true), history([aMessage(1), aMessage(2)], 3));
    const client = await opened();
    expect(client.hasMore(ROOM)).toBe(true);
    await Promise.all([client.loadOlder(ROOM), client.loadOlder(ROOM)]);
    await until(() => texts(client).length === 3);
    expect(client.hasMore(ROOM)).toBe(false);
    expect(server.askedFor(HISTORY)[1]!.query.get("before")).toBe("3");
    await client.loadOlder(ROOM);
    expect(server.askedFor(HISTORY)).toHaveLength(2);
  });

  test("marks read at once, and tells the server, again if it must", async () => {
    const client = await opened();
    const READ = `POST /conversations/${ROOM}/read`;
    server.on(READ, problem(503, "unavailable"), json({ conversation_id: ROOM, last_read_seq: 1, unread: 0 }));
    client.markRead(ROOM);
    await until(() => client.getState().unread === 0);
    await until(() => server.askedFor(READ).length === 1);
    for (const response of server.open) response.destroy();
    await until(() => server.askedFor(READ).length === 2);
    expect(server.askedFor(READ)[1]!.body).toEqual({ seq: 1 });
    client.markRead(ROOM, 1);
    expect(client.getState().unread).toBe(0);
  });

  test("drops a conversation that the user is no longer in, and takes it back", async () => {
    const client = await opened();
    server.on(`GET /conversations/${ROOM}`, problem(404, "not_found"));
    tell(block("conversation_updated", { id: ROOM, rev: 9, role: null }));
    await until(() => client.getState().conversations.length === 0 && texts(client).length === 0);
    tell(block("conversation_updated", aConversation({ rev: 10 })));
    await until(() => client.getState().conversations.length === 1);
  });

  test("lists no longer what is gone from the list after a reconnect, also if nothing else is different", async () => {
    const client = start();
    await until(() => client.getState().conversations.length === 1);
    server.on(LIST, listed());
    for (const response of server.open) response.destroy();
    await until(() => client.getState().conversations.length === 0);
  });

  test("does not ask for ever for a conversation that is not there", async () => {
    const client = await opened();
    const other = "01900000-0000-7000-8000-000000000009";
    client.messages(other);
    await until(() => server.askedFor(`GET /conversations/${other}`).length === 1);
    tell(message(2));
    await until(() => texts(client).length === 2);
    client.messages(other);
    tell(message(3));
    await until(() => texts(client).length === 3);
    expect(server.askedFor(`GET /conversations/${other}`)).toHaveLength(1);
  });

  test("tells who types, until it expires or the message comes", async () => {
    const client = await opened();
    const typing = (is_typing: boolean, expires_in = 6) =>
      block("typing_status", { conversation_id: ROOM, user_id: "ada", is_typing, expires_in });
    tell(typing(true), block("typing_status", { conversation_id: ROOM, user_id: "bob", is_typing: true, expires_in: 6 }));
    await until(() => client.typing(ROOM).length > 0);
    expect(client.typing(ROOM)).toEqual(["ada"]);
    tell(message(2));
    await until(() => client.typing(ROOM).length === 0);
    tell(typing(true, 0.05));
    await until(() => client.typing(ROOM).length === 1);
    await until(() => client.typing(ROOM).length === 0);
  });

  test("says seldom that its user types, and once that it is over", async () => {
    const client = await opened();
    const TYPING = `POST /conversations/${ROOM}/typing`;
    server.on(TYPING, json(null, 200));
    for (let key = 0; key < 20; key += 1) client.setTyping(ROOM, true);
    client.setTyping(ROOM, false);
    client.setTyping(ROOM, false);
    await until(() => server.askedFor(TYPING).length === 2);
    expect(server.askedFor(TYPING).map(({ body }) => body)).toEqual([{ is_typing: true }, { is_typing: false }]);
  });

  test("shows a message that waits after all others, and replaces it by the echo", async () => {
    const client = await opened();
    let commit: (() => void) | undefined;
    let key = "";
    server.on("POST /messages/send", (response, asked) => {
      key = asked.body["client_message_id"] as string;
      commit = () => void json(aMessage(3, { sender: BOB, content: "mine", client_message_id: key }), 201)(response, asked);
    });
    const end = client.send({ conversationId: ROOM, content: "mine" });
    const go = await until(() => commit);
    tell(message(2));
    await until(() => texts(client).length === 3);
    expect(client.messages(ROOM).at(-1)).toMatchObject({ content: "mine", status: "sending", sender: BOB });
    expect(client.getState().queued).toBe(1);
    tell(message(3, { sender: BOB, content: "mine", client_message_id: key }));
    await until(() => client.getState().queued === 0);
    go();
    expect((await end).status).toBe("sent");
    expect(client.messages(ROOM).filter(({ content }) => content === "mine")).toMatchObject([{ status: "sent", seq: 3 }]);
  });

  test("passes on every event once, in order, after the state has them", async () => {
    const client = await opened();
    const seen: [string, number][] = [];
    client.observe(() => ({
      onEvent: (event: StreamEvent) => seen.push([event.event, texts(client).length]),
    }));
    tell(message(2), block("heartbeat", { server_time: "2026-01-01T00:00:00Z", head: 2 }));
    await until(() => seen.length === 2);
    expect(seen).toEqual([
      ["new_message", 2],
      ["heartbeat", 2],
    ]);
  });

  test("notifies once for a thousand events in one chunk", async () => {
    const client = await opened();
    const notified = vi.fn();
    client.subscribe(notified);
    tell(Array.from({ length: 1_000 }, (_, index) => message(index + 2)).join(""));
    await until(() => texts(client).length === 1_001);
    expect(notified.mock.calls.length).toBeLessThan(20);
  });

  test("goes on when one of its listeners throws", async () => {
    const client = await opened();
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    const stop = client.subscribe(() => {
      throw new Error("a defect");
    });
    tell(message(2));
    await until(() => texts(client).length === 2);
    stop();
    expect(reported).toHaveBeenCalledWith(new Error("a defect"));
  });
});

describe("whose client it is", () => {
  test("is said by the token, and another user's token makes it another's", async () => {
    let user = "bob";
    const client = await opened({ token: () => aToken(user) });
    user = "eve";
    server.on(STREAM, problem(401, "unauthorized"), stream("e.1"));
    server.on(LIST, listed(aConversation({ id: "01900000-0000-7000-8000-000000000002" })));
    for (const response of server.open) response.destroy();
    await until(() => client.getState().userId === "eve" && client.getState().status === "open");
    await until(() => client.getState().isLoaded);
    expect(client.getState().conversations.map(({ id }) => id)).not.toContain(ROOM);
    expect(server.askedFor(STREAM).at(-1)!.query.get("user_id")).toBe("eve");
  });

  test("is not known with a token that is none", async () => {
    const client = start({ token: "nonsense" });
    await until(() => client.getState().status === "unauthorized");
    expect(client.getState().error).toMatchObject({ code: "unauthorized" });
    client.setToken(aToken("bob"));
    await until(() => client.getState().status === "open");
    expect(client.getState().error).toBeNull();
  });

  test("can be refused, and let in again with another token", async () => {
    server.on(STREAM, problem(401, "unauthorized"), stream("e.1"));
    const client = start();
    await until(() => client.getState().status === "unauthorized");
    client.setToken(aToken("bob", { iat: 2 }));
    await until(() => client.getState().status === "open");
  });

  test("is waited for by what is to be done, until the client is closed", async () => {
    const client = start({ token: "nonsense" });
    const [sent, edited] = [client.send({ conversationId: ROOM, content: "x" }), client.edit("m", "x")];
    const ends = Promise.allSettled([sent, edited]);
    await until(() => client.getState().status === "unauthorized");
    client.close();
    expect(await ends).toMatchObject([{ reason: { code: "closed" } }, { reason: { code: "closed" } }]);
    expect(server.asked).toEqual([]);
  });

  test("asks again for a token that cannot be had just now", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const token = vi.fn(async () => aToken("bob")).mockRejectedValueOnce(new Error("no network"));
    const client = start({ token });
    await until(() => client.getState().status === "open");
    expect(token).toHaveBeenCalledTimes(2);
  });
});

describe("a client that is closed", () => {
  test("asks nothing before it is started, and nothing after", async () => {
    const client = clientOf(server);
    client.messages(ROOM);
    await expect(client.send({ conversationId: ROOM, content: "x" })).rejects.toMatchObject({ code: "closed" });
    expect(server.asked).toEqual([]);
    expect(client.getState().status).toBe("closed");
  });

  test("can be started again", async () => {
    const client = await opened();
    client.close();
    await until(() => server.open.size === 0);
    expect(client.messages(ROOM)).toEqual([]);
    client.start();
    await until(() => client.getState().status === "open");
  });

  test("forgets what was not sent, and has the cookie cleared, when the user signs out", async () => {
    const client = await opened();
    server.on("POST /messages/send", (response) => response.destroy());
    const end = client.send({ conversationId: ROOM, content: "secret" });
    await until(() => client.getState().queued === 1);
    await client.signOut();
    expect((await end).error).toMatchObject({ code: "discarded" });
    expect(server.askedFor("DELETE /messages/stream/session")).toHaveLength(1);
    expect(client.getState().status).toBe("closed");
  });
});

test("a message of ada's is shown with what the server says, and nothing of a prototype", async () => {
  const client = start();
  server.on(HISTORY, (response) =>
    response
      .writeHead(200, { "content-type": "application/json" })
      .end(`{"items":[{"__proto__":{"status":"x"},${JSON.stringify(aMessage(1)).slice(1)}],"next_cursor":null,"has_more":false,"rev":1}`),
  );
  client.messages(ROOM);
  await until(() => client.messages(ROOM).length === 1);
  expect(client.messages(ROOM)).toEqual([{ ...aMessage(1), sender: ADA, status: "sent", error: null }]);
});

test("a browser that never opens its database has a stream all the same, at once", async () => {
  const asked = vi.fn(() => ({}));
  vi.stubGlobal("indexedDB", { open: asked });
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const client = start();
  await until(() => client.getState().status === "open");
  expect(asked).toHaveBeenCalled();
});

test("a stream that opens and breaks off at once is tried with growing pauses", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  let count = 0;
  server.on(STREAM, (response) => {
    count += 1;
    begin(response, count < 4 ? "retry: 1\n\n" : opening("e.1"));
    if (count < 4) response.end();
  });
  const client = start();
  await until(() => client.getState().status === "open");
  expect(count).toBe(4);
});

test("a page that is thawed while no server can be reached does not say that it is connected", async () => {
  const page = new EventTarget();
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
  const client = start({ shareStream: true });
  await until(() => client.getState().status === "open");
  page.dispatchEvent(new Event("pagehide"));
  server.on(STREAM, (response) => response.destroy());
  page.dispatchEvent(new Event("pageshow"));
  await until(() => server.askedFor(STREAM).length > 1);
  expect(client.getState().status).toBe("connecting");
});
