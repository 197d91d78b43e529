import { EventSource } from "eventsource";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createApi } from "../../lib/api.ts";
import { openEventStream, type Received } from "../../lib/eventStream.ts";
import type { ClientError, Status, TokenSource, TransportChoice } from "../../lib/types.ts";
import { aMessage, aToken, connectedAt } from "../support/samples.ts";
import { begin, block, cursorOf, json, opening, problem, scriptedServer, STREAM, stream, type Answer, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const SESSION = "POST /messages/stream/session";
const TICKET = "POST /messages/stream/ticket";
let server: ScriptedServer;
let life: AbortController;

beforeEach(async () => {
  server = await scriptedServer();
  server.on(SESSION, json({ user_id: "bob", expires_at: "2026-01-01T00:00:00Z" }));
  server.on(TICKET, json({ ticket: "t+1", expires_at: "2026-01-01T00:00:00Z" }));
  life = new AbortController();
});

afterEach(async () => {
  life.abort();
  vi.useRealTimers();
  await server.close();
});

function open(transport: TransportChoice, token: TokenSource = aToken("bob")) {
  const received: Received[] = [];
  const statuses: Status[] = [];
  const errors: (ClientError | null)[] = [];
  const { signal } = life;
  const api = createApi({ baseUrl: server.url, source: () => token, fetch, signal, onToken: () => {} });
  const sourceOf = EventSource as unknown as typeof globalThis.EventSource;
  const opened = openEventStream(
    {
      api,
      baseUrl: server.url,
      userId: "bob",
      transport,
      EventSource: sourceOf,
      onReceived: (one) => received.push(one),
      onStatus: (now) => statuses.at(-1) === now || statuses.push(now),
      onError: (error) => errors.push(error),
    },
    null,
    signal,
  );
  return {
    opened,
    statuses,
    errors,
    status: () => statuses.at(-1),
    texts: () => received.flatMap(({ event }) => (event.event === "new_message" ? [event.data.content] : [])),
    received,
  };
}

const message = (seq: number, content = `message ${seq}`) => block("new_message", aMessage(seq, { content }), `e.${seq}`);

const BEAT = { server_time: "2026-01-01T00:00:00Z", head: 9 };

/** A stream that cannot go on from the cursor it was asked for (clause 6.2). */
const strange = (cursor: string) =>
  `retry: 1\n\n${block("connected", { ...connectedAt(cursor), recovered: false })}${block("resync", { reason: "epoch", scope: "all", cursor })}`;

describe.each(["fetch", "cookie", "ticket"] as const)("the stream by %s", (transport) => {
  test("delivers in order, and goes on from its cursor after a cut, without a double", async () => {
    server.on(
      STREAM,
      (response) => {
        begin(response, opening("e.0"), message(1), message(2));
        response.write("id: e.3\nevent: new_message\nda", () => response.destroy()); // in the middle of a frame
      },
      (response) => begin(response, opening("e.2"), message(3)),
    );
    const { texts, status } = open(transport);
    await until(() => texts().length === 3);
    expect(texts()).toEqual(["message 1", "message 2", "message 3"]);
    expect(status()).toBe("open");
    expect(cursorOf(server.askedFor(STREAM)[1]!)).toBe("e.2");
  });

  test("asks for one fresh token after a 401, and no more", async () => {
    const token = vi.fn((isRefused: boolean) => aToken("bob", { isRefused }));
    const first = transport === "fetch" ? STREAM : transport === "cookie" ? SESSION : TICKET;
    server.on(first, problem(401, "unauthorized"));
    server.on(STREAM, ...(transport === "fetch" ? [problem(401, "unauthorized")] : [stream("e.0")]));
    const { status, errors } = open(transport, token);
    await until(() => status() === "unauthorized");
    expect(token.mock.calls).toEqual([[false], [true]]);
    expect(server.askedFor(first)).toHaveLength(2);
    expect(errors.at(-1)).toMatchObject({ code: "unauthorized", status: 401 });
  });

  test("is open with the fresh token", async () => {
    const refuseFirst = [problem(401, "unauthorized")];
    if (transport === "fetch") server.on(STREAM, ...refuseFirst, stream("e.0"));
    else {
      server.on(SESSION, ...refuseFirst, json({ user_id: "bob", expires_at: "" }));
      server.on(TICKET, ...refuseFirst, json({ ticket: "t", expires_at: "" }));
      server.on(STREAM, stream("e.0"));
    }
    const { status } = open(transport, (isRefused) => aToken(isRefused ? "fresh" : "old"));
    await until(() => status() === "open");
    const bearers = server.asked.map(({ headers }) => headers.authorization).filter(Boolean);
    expect(bearers.at(-1)).toBe(`Bearer ${aToken("fresh")}`);
  });

  test("waits as long as a 503 says", async () => {
    const refuse = problem(503, "unavailable", { "retry-after": "7" });
    const gate = transport === "fetch" ? STREAM : transport === "cookie" ? SESSION : TICKET;
    server.on(STREAM, stream("e.0"));
    server.on(gate, refuse, ...(gate === STREAM ? [stream("e.0")] : [json({ user_id: "bob", ticket: "t", expires_at: "" })]));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { status, errors } = open(transport);
    await until(() => errors.length > 0);
    expect(errors[0]).toMatchObject({ code: "unavailable", status: 503 });
    vi.advanceTimersByTime(6_900);
    await new Promise(setImmediate);
    expect(server.askedFor(gate)).toHaveLength(1);
    vi.advanceTimersByTime(200);
    await until(() => status() === "open");
    expect(server.askedFor(gate)).toHaveLength(2);
  });

  test("takes 25 s of silence for a loss, and comes back from its cursor", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    server.on(STREAM, (response) => begin(response, opening("e.0"), message(1)), stream("e.0"));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { statuses, texts, status } = open(transport);
    await until(() => texts().length === 1);
    vi.advanceTimersByTime(24_900);
    expect(status()).toBe("open");
    vi.advanceTimersByTime(200);
    expect(status()).toBe("reconnecting");
    await until(() => server.open.size === 0); // it was closed
    vi.advanceTimersByTime(1_000);
    await until(() => status() === "open");
    expect(server.askedFor(STREAM)[1]!.query.get("last_event_id")).toBe("e.1");
    expect(statuses).toEqual(["connecting", "open", "reconnecting", "open"]);
  });

  test("does not wait for ever for a server that takes the request and never answers", async () => {
    server.on(STREAM, () => {}, stream("e.0"));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { status } = open(transport);
    await until(() => server.askedFor(STREAM).length === 1);
    vi.advanceTimersByTime(25_100);
    vi.advanceTimersByTime(1_000);
    await until(() => status() === "open");
    expect(server.askedFor(STREAM)).toHaveLength(2);
  });

  test("tells of a cursor that the server does not know, and goes on from the new one", async () => {
    server.on(STREAM, (response) => begin(response, strange("f.9"), "id: f.9\n\n", block("heartbeat", BEAT)), stream("f.12"));
    const { opened, received } = open(transport);
    await until(() => received.length === 3);
    expect(received[1]!.event).toEqual({ event: "resync", data: { reason: "epoch", scope: "all", cursor: "f.9" } });
    expect(opened.cursor()).toBe("f.9");
    for (const response of server.open) response.destroy();
    // Not every EventSource keeps the cursor of an id-only block: then it takes one more connection.
    await until(() => server.askedFor(STREAM).some((asked) => cursorOf(asked) === "f.9"));
    expect(opened.cursor()).toBe("f.9");
  });

  test("reads a character whose bytes come apart", async () => {
    const bytes = Buffer.from(message(1, "naïve 👩‍💻 日本"));
    server.on(STREAM, async (response) => {
      begin(response, opening("e.0"));
      for (const byte of bytes) {
        response.write(Buffer.of(byte));
        await new Promise(setImmediate);
      }
    });
    const { texts } = open(transport);
    await until(() => texts().length === 1);
    expect(texts()).toEqual(["naïve 👩‍💻 日本"]);
  });

  test("does not break at an event that is poisoned, and passes on what follows", async () => {
    server.on(STREAM, (response) =>
      begin(
        response,
        opening("e.0"),
        `id: e.1\nevent: new_message\ndata: {"__proto__":{"x":1}}\n\n`,
        `event: nonsense\ndata: {}\n\n`,
        message(2),
      ),
    );
    const { texts, opened } = open(transport);
    await until(() => texts().length === 1);
    expect(opened.cursor()).toBe("e.2");
  });

  test("ends with its signal", async () => {
    server.on(STREAM, stream("e.0"));
    const { status } = open(transport);
    await until(() => status() === "open");
    life.abort();
    await until(() => server.open.size === 0);
    expect(server.askedFor(STREAM)).toHaveLength(1);
  });
});

describe("what opens the stream", () => {
  test("is another ticket when the one before is no longer good", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let count = 0;
    server.on(TICKET, (response, asked) => json({ ticket: `t&${(count += 1)}`, expires_at: "" })(response, asked));
    server.on(STREAM, stream("e.0"), problem(401, "unauthorized"), stream("e.0"));
    const { status } = open("ticket");
    await until(() => status() === "open");
    for (const response of server.open) response.destroy();
    await until(() => server.askedFor(STREAM).length === 3);
    expect(server.askedFor(STREAM).map(({ query }) => query.get("ticket"))).toEqual(["t&1", "t&1", "t&2"]);
  });

  test("is a ticket where the cookie is not kept", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    server.on(STREAM, (response, asked) =>
      asked.query.has("ticket") ? stream("e.0")(response, asked) : problem(401, "unauthorized")(response, asked),
    );
    const { status } = open("auto");
    await until(() => status() === "open");
    expect(server.askedFor(STREAM).map(({ query }) => query.has("ticket"))).toEqual([false, false, true]);
  });

  test("is the cookie after an outage, however many tries were refused", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const refuse = problem(503, "unavailable");
    server.on(SESSION, refuse, refuse, refuse, json({ user_id: "bob", expires_at: "" }));
    server.on(STREAM, stream("e.0"));
    const { status } = open("auto");
    await until(() => status() === "open");
    expect(server.askedFor(TICKET)).toEqual([]);
  });

  test("is the cookie again, later", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const refuse = problem(401, "unauthorized");
    server.on(STREAM, refuse, refuse, stream("e.0"));
    vi.useFakeTimers({ toFake: ["Date"] });
    const { status, opened } = open("auto");
    const again = async () => {
      opened.reopen();
      await until(() => status() === "open");
    };
    await until(() => status() === "open");
    await again();
    vi.setSystemTime(Date.now() + 3_600_000);
    await again();
    const byTicket = () => server.askedFor(STREAM).map(({ query }) => query.has("ticket"));
    expect(byTicket()).toEqual([false, false, true, true, false]);
    // One stream by cookie that was open, and what was refused before it does not count.
    server.on(STREAM, refuse, stream("e.0"));
    await again();
    expect(byTicket().slice(5)).toEqual([false, false]);
  });

  test("names the user, and carries the token in a header only", async () => {
    server.on(STREAM, stream("e.0"));
    const { status } = open("cookie");
    await until(() => status() === "open");
    const [asked] = server.askedFor(STREAM);
    expect(asked!.query.get("user_id")).toBe("bob");
    expect([...asked!.query.values()].join()).not.toContain(aToken("bob"));
  });
});

test("a browser that comes back without the cursor is not believed", async () => {
  // It stores no cursor before the first block with an id, and repeats the URL that had none.
  server.on(STREAM, (response) => begin(response, strange("f.9")), stream("f.12"));
  const { received, status } = open("cookie");
  await until(() => received.length === 2);
  for (const response of server.open) response.destroy();
  await until(() => server.askedFor(STREAM).length === 3 && status() === "open");
  expect(server.askedFor(STREAM).map(({ query }) => query.get("last_event_id"))).toEqual([null, null, "f.9"]);
});

test.each(["fetch", "cookie", "ticket"] as const)("a stream by %s that the server ends comes back when its `retry:` says", async (transport) => {
  const drained: Answer = (response) => {
    begin(response, opening("e.0", 15_000));
    response.end();
  };
  server.on(STREAM, drained, stream("e.0"));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const { status, statuses } = open(transport);
  await until(() => status() === "reconnecting");
  vi.advanceTimersByTime(14_900);
  for (let trip = 0; trip < 5; trip += 1) await fetch(server.url); // nothing else is under way
  expect(server.askedFor(STREAM)).toHaveLength(1);
  vi.advanceTimersByTime(200);
  await until(() => status() === "open");
  expect(statuses).toEqual(["connecting", "open", "reconnecting", "open"]);
});
