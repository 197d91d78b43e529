/** Whose token it is: other users in the same browser, and tabs of which one has a better token than another. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Client } from "../../lib/client.ts";
import { chatServer, clientOf } from "../support/chat.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, aToken } from "../support/samples.ts";
import { json, problem, STREAM, stream, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const SEND = "POST /messages/send";
let server: ScriptedServer;
let clients: Client[];

beforeEach(async () => {
  server = await chatServer();
  server.on(SEND, (response, { body }) => json(aMessage(2, body), 201)(response, {} as never));
  clients = [];
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
});

afterEach(async () => {
  for (const client of clients) client.close();
  vi.useRealTimers();
  await server.close();
});

function start(more: Parameters<typeof clientOf>[1]): Client {
  const client = clientOf(server, { keepOutbox: false, ...more });
  clients.push(client);
  client.start();
  return client;
}

const status = (client: Client) => client.getState().status;
const bearers = () => server.asked.map(({ headers }) => headers.authorization);

describe("another user's token", () => {
  test("ends what is shown of the one before at once", async () => {
    const client = start({ token: aToken("bob") });
    await until(() => client.getState().isLoaded);
    client.setToken(aToken("ada"));
    await until(() => client.getState().userId !== "bob");
    expect(client.getState().conversations).toEqual([]);
    await until(() => client.getState().userId === "ada" && client.getState().isLoaded);
  });

  test("is never used for a user who was named", async () => {
    const client = start({ userId: "bob", token: aToken("bob") });
    await until(() => client.getState().isLoaded);
    client.setToken(aToken("ada"));
    await expect(client.call("GET", "/conversations")).rejects.toMatchObject({ code: "unauthorized", status: 401 });
    expect(bearers()).not.toContain(`Bearer ${aToken("ada")}`);
    client.setToken(aToken("bob", { iat: 2 }));
    await client.call("GET", "/conversations");
  });
});

describe("a send before it is known who the user is", () => {
  const hello = { recipientId: "zoe", content: "from bob" };
  const refused = () => Promise.reject(Object.assign(new Error("Signed out."), { code: "unauthorized", status: 401, retryMs: 0 }));

  test("is not sent as somebody who signs in afterwards", async () => {
    const client = start({ token: refused });
    await until(() => status(client) === "unauthorized");
    const send = client.send(hello);
    client.setToken(aToken("ada"));
    await expect(send).rejects.toMatchObject({ code: "closed" });
    await until(() => client.getState().userId === "ada" && client.getState().isLoaded);
    expect(server.askedFor(SEND)).toEqual([]);
    await client.send(hello);
    expect(server.askedFor(SEND)).toHaveLength(1);
  });

  test("nor as somebody whose token comes while the first is on its way", async () => {
    let give!: (token: string) => void;
    const client = start({ token: () => new Promise((resolve) => (give = resolve)) });
    const send = client.send(hello);
    await until(() => give);
    client.setToken(aToken("ada"));
    give(aToken("bob"));
    await expect(send).rejects.toMatchObject({ code: "closed" });
    await until(() => client.getState().isLoaded);
    expect(client.getState().userId).toBe("ada");
    expect(new Set(bearers())).toEqual(new Set([`Bearer ${aToken("ada")}`]));
  });

  test("is shown and waits where the user was named, though there is no token", async () => {
    const client = start({ userId: "bob", token: () => Promise.reject(new TypeError("No network.")) });
    void client.send(hello);
    await until(() => client.getState().queued === 1);
    client.setToken(aToken("bob"));
    await until(() => client.getState().queued === 0);
    expect(server.askedFor(SEND)[0]!.headers.authorization).toBe(`Bearer ${aToken("bob")}`);
  });
});

describe("a tab whose token is refused", () => {
  const [old, fresh] = [aToken("bob", { iat: 1 }), aToken("bob", { iat: 2 })];

  beforeEach(() =>
    server.on(STREAM, (response, asked) => {
      const isOld = asked.headers.authorization === `Bearer ${old}`;
      return (isOld ? problem(401, "unauthorized") : stream("e.1"))(response, asked);
    }),
  );

  test("leaves the stream to one that has a better token, and follows it", async () => {
    const one = start({ shareStream: true, token: old });
    await until(() => status(one) === "unauthorized");
    const two = start({ shareStream: true, token: fresh });
    await until(() => status(two) === "open" && status(one) === "open");
    one.setToken(fresh);
    two.close();
    await until(() => server.open.size === 1 && status(one) === "open");
  });

  test("leaves it to one that waits already", async () => {
    const [one, two] = [start({ shareStream: true, token: old }), start({ shareStream: true, token: fresh })];
    await until(() => status(one) === "open" && status(two) === "open");
    expect(server.open.size).toBe(1);
  });

  test("asks no more, until it is given another", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const [one, two] = [start({ shareStream: true, token: old }), start({ shareStream: true, token: old })];
    await until(() => status(one) === "unauthorized" && status(two) === "unauthorized");
    const before = server.asked.length;
    for (let second = 0; second < 60; second += 1) {
      await vi.advanceTimersByTimeAsync(1_000);
      await new Promise(setImmediate);
    }
    expect(server.asked).toHaveLength(before);
    vi.useRealTimers();
    two.setToken(fresh);
    await until(() => status(one) === "open" && status(two) === "open");
  });
});
