import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createApi } from "../../lib/api.ts";
import type { StreamEvent } from "../../lib/protocol.ts";
import { openFeed, type Feed } from "../../lib/tabs.ts";
import type { TabMessage } from "../../lib/tabState.ts";
import type { Status } from "../../lib/types.ts";
import { testLocks } from "../support/locks.ts";
import { aMessage, aToken } from "../support/samples.ts";
import { block, cursorOf, scriptedServer, STREAM, stream, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

interface Tab {
  readonly feed: Feed;
  readonly texts: string[];
  readonly events: StreamEvent[];
  readonly joins: number[];
  status: Status | null;
  cursor: string | null;
  readonly close: () => void;
}

let server: ScriptedServer;
let tabs: Tab[];
let scope = 0;

beforeEach(async () => {
  server = await scriptedServer();
  server.on(STREAM, stream("e.0"));
  vi.stubGlobal("navigator", { locks: testLocks(), onLine: true });
  tabs = [];
  scope += 1;
});

afterEach(async () => {
  for (const { close } of tabs) close();
  vi.useRealTimers();
  await server.close();
});

const name = () => `gapless-test:${scope}`;

function openTab({ cursor = null as string | null, shareStream = true } = {}): Tab {
  const life = new AbortController();
  const { signal } = life;
  const api = createApi({ baseUrl: server.url, source: () => aToken("bob"), fetch, signal, onToken: () => {} });
  const tab: Omit<Tab, "feed"> = {
    texts: [],
    events: [],
    joins: [],
    status: null,
    cursor,
    close: () => life.abort(),
  };
  const feed = openFeed(
    {
      api,
      baseUrl: server.url,
      userId: "bob",
      transport: "fetch",
      scope: name(),
      shareStream,
      onError: () => {},
      onEvent(event, place) {
        tab.events.push(event);
        if (event.event === "new_message") tab.texts.push(event.data.content);
        tab.cursor = place;
      },
      onStatus: (now) => (tab.status = now),
      onJoined: () => tab.joins.push(tab.events.length),
    },
    cursor,
    signal,
  );
  const whole = Object.assign(tab, { feed });
  tabs.push(whole);
  return whole;
}

const isOpen = (tab: Tab) => tab.status === "open";
const say = (seq: number) => {
  const text = block("new_message", aMessage(seq), `e.${seq}`);
  for (const response of server.open) response.write(text);
};
const beat = () => {
  const text = block("heartbeat", { server_time: "2026-01-01T00:00:00Z", head: 3 });
  for (const response of server.open) response.write(text);
};
/** A stream that replays what its cursor lacks of three messages. */
const replay = () =>
  server.on(STREAM, (response, asked) => {
    const from = Number((cursorOf(asked) ?? "e.3").split(".")[1]);
    const missed = [1, 2, 3].filter((seq) => seq > from).map((seq) => block("new_message", aMessage(seq), `e.${seq}`));
    stream("e.3", ...missed)(response, asked);
  });
const froms = () => server.askedFor(STREAM).map(cursorOf);
const upTo = (seq: number, from = 1) => Array.from({ length: seq - from + 1 }, (_, index) => `message ${from + index}`);
const all = (...texts: Tab[]) => texts.map((tab) => tab.texts);

describe("tabs of one browser", () => {
  test("share one stream, and each gets every event once", async () => {
    const [one, two, three] = [openTab(), openTab(), openTab()];
    await until(() => [one, two, three].every(isOpen));
    say(1);
    say(2);
    await until(() => three.texts.length === 2 && two.texts.length === 2);
    expect(all(one, two, three)).toEqual([upTo(2), upTo(2), upTo(2)]);
    expect(server.askedFor(STREAM)).toHaveLength(1);
  });

  test("go on where they were when the leader is closed", async () => {
    const [one, two, three] = [openTab(), openTab(), openTab()];
    await until(() => [one, two, three].every(isOpen));
    say(1);
    await until(() => two.texts.length === 1 && three.texts.length === 1);
    one.close();
    await until(() => server.askedFor(STREAM).length === 2 && server.open.size === 1);
    expect(server.askedFor(STREAM)[1]!.query.get("last_event_id")).toBe("e.1");
    await until(() => isOpen(two) && isOpen(three));
    say(2);
    await until(() => two.texts.length === 2 && three.texts.length === 2);
    expect(all(two, three)).toEqual([upTo(2), upTo(2)]);
  });

  test("tell one that comes later when the stream is open, and where", async () => {
    const one = openTab();
    await until(() => isOpen(one));
    say(1);
    await until(() => one.texts.length === 1);
    const two = openTab();
    await until(() => isOpen(two) && two.joins.length === 1);
    say(2);
    await until(() => two.texts.length === 1);
    expect(two.texts).toEqual(["message 2"]);
    expect(two.cursor).toBe("e.2");
    expect(server.askedFor(STREAM)).toHaveLength(1);
  });

  test("have the stream opened anew from where the one is that missed something", async () => {
    const one = openTab();
    await until(() => isOpen(one));
    for (const seq of [1, 2, 3]) say(seq);
    await until(() => one.texts.length === 3);
    replay();
    const frozen = openTab({ cursor: "e.1" }); // it was in the back/forward cache
    await until(() => frozen.texts.length === 2);
    expect(frozen.texts).toEqual(["message 2", "message 3"]);
    expect(one.texts).toEqual(upTo(3));
    expect(froms()).toEqual([null, "e.1"]);
  });

  test("do not let one jump over what it missed, whatever the leader tells meanwhile", async () => {
    replay();
    const one = openTab({ cursor: "e.3" });
    await until(() => isOpen(one));
    const frozen = openTab({ cursor: "e.1" });
    await until(() => {
      beat();
      return frozen.texts.length === 2;
    });
    expect(all(one, frozen)).toEqual([[], upTo(3, 2)]);
    expect(froms()).toEqual(["e.3", "e.1"]);
  });

  test("do not lose what one misses that comes back together with one that is further", async () => {
    replay();
    const [further, behind] = [openTab({ cursor: "e.2" }), openTab({ cursor: "e.1" })];
    await until(() => further.texts.length === 1 && behind.texts.length === 2);
    expect(all(further, behind)).toEqual([upTo(3, 3), upTo(3, 2)]);
  });

  test("do not lose what one misses that comes back together with one that is new", async () => {
    replay();
    const [fresh, behind] = [openTab(), openTab({ cursor: "e.1" })];
    await until(() => isOpen(fresh) && behind.texts.length === 2);
    expect(all(fresh, behind)).toEqual([[], upTo(3, 2)]);
  });

  test("tell one of another epoch, also if it comes back together with one that is new", async () => {
    const [fresh, frozen] = [openTab(), openTab({ cursor: "d.9" })];
    await until(() => isOpen(fresh) && frozen.cursor === "e.0");
    expect(frozen.events.map(({ event }) => event)).toContain("resync");
  });

  test.each(["at once", "after an event"])("tell one of another epoch of the `resync` that it missed, %s", async (when) => {
    replay();
    const one = openTab({ cursor: "e.3" });
    await until(() => isOpen(one));
    const frozen = openTab({ cursor: "d.9" }); // the database was restored meanwhile
    if (when === "after an event") say(4);
    await until(() => isOpen(frozen) && frozen.joins.length === 1);
    const [first] = frozen.events;
    expect(first).toMatchObject({ event: "resync", data: { reason: "epoch", scope: "all" } });
    expect(frozen.events.filter(({ event }) => event === "resync")).toHaveLength(1);
    say(5);
    await until(() => frozen.cursor === "e.5");
    expect(froms()).toEqual(["e.3"]);
  });

  test("take the stream from one that holds the lock and says nothing", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const isStolen = navigator.locks.request(name(), () => new Promise(() => {})).catch((error: Error) => error.name);
    const two = openTab();
    const three = openTab();
    await vi.advanceTimersByTimeAsync(12_000 + 2_000 + 1_900);
    expect(server.askedFor(STREAM)).toHaveLength(0); // the second look
    await vi.advanceTimersByTimeAsync(200);
    expect(await isStolen).toBe("AbortError");
    vi.useRealTimers();
    await until(() => isOpen(two) && isOpen(three));
    say(1);
    await until(() => two.texts.length === 1 && three.texts.length === 1);
    expect(server.askedFor(STREAM)).toHaveLength(1);
  });

  test("leave a leader alone that answers, however quiet its stream is", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const leads = navigator.locks.request(name(), () => new Promise(() => {})).catch((error: Error) => error.name);
    const channel = new BroadcastChannel(name());
    let pings = 0;
    channel.onmessage = ({ data }: MessageEvent<TabMessage>) => {
      if (data.kind !== "ping") return;
      pings += 1;
      channel.postMessage({ kind: "status", term: 1, status: "reconnecting", cursor: null } satisfies TabMessage);
    };
    const two = openTab();
    for (let second = 0; second < 60; second += 1) {
      await vi.advanceTimersByTimeAsync(1_000);
      await new Promise(setImmediate);
    }
    channel.close();
    expect(pings).toBeGreaterThan(2);
    expect(two.status).toBe("reconnecting");
    expect(await Promise.race([leads, "still"])).toBe("still");
  });

  test("ignore a leader of the past, and close the stream of one that is deposed", async () => {
    const one = openTab();
    const two = openTab();
    await until(() => isOpen(one) && isOpen(two));
    const channel = new BroadcastChannel(name());
    const lie = (term: number): TabMessage => ({
      kind: "event",
      term,
      received: { event: { event: "new_message", data: aMessage(1, { content: "a lie" }) }, from: "e.0", to: "e.1" },
    });
    channel.postMessage(lie(1));
    say(1);
    await until(() => two.texts.length === 1);
    expect(all(one, two)).toEqual([upTo(1), upTo(1)]);
    channel.postMessage({ kind: "status", term: Date.now() + 1e9, status: "open", cursor: "e.1" } satisfies TabMessage);
    // It queues again; nobody else holds the lock, so one of the two leads anew, with a higher term.
    await until(() => server.askedFor(STREAM).length === 2 && server.open.size === 1);
    await until(() => isOpen(one) && isOpen(two));
    say(2);
    await until(() => one.texts.length === 2 && two.texts.length === 2);
    expect(all(one, two)).toEqual([upTo(2), upTo(2)]);
    channel.close();
  });

  test("reconnect through the leader", async () => {
    const one = openTab();
    const two = openTab();
    await until(() => isOpen(one) && isOpen(two));
    two.feed.reopen();
    await until(() => server.askedFor(STREAM).length === 2);
    await until(() => isOpen(two));
  });

  test("have a stream each without Web Locks, or if they are told to", async () => {
    const alone = openTab({ shareStream: false });
    vi.stubGlobal("navigator", { onLine: true });
    const [one, two] = [openTab(), openTab()];
    await until(() => [alone, one, two].every(isOpen));
    expect(server.open.size).toBe(3);
  });
});
