/**
 * The tab's way to the stream. A Web Lock elects the tab that holds it, a BroadcastChannel carries its events to
 * the others. `tabState` decides whom to believe. Without Web Locks each tab has a stream of its own.
 */

import { isBehind } from "./cursor.ts";
import { listen, locksOf, pause } from "./environment.ts";
import { openEventStream, type EventStream, type Received, type StreamDeps } from "./eventStream.ts";
import type { StreamEvent } from "./protocol.ts";
import { advance, hear, isLate, nextTerm, PONG_MS, SILENCE_MS, type TabMessage } from "./tabState.ts";
import type { Status } from "./types.ts";

export interface Feed {
  /** Try again now, in whichever tab holds the stream. */
  readonly reopen: () => void;
}

export interface FeedOptions extends StreamDeps {
  /** Names the channel and the locks: server and user. */
  readonly scope: string;
  readonly shareStream: boolean;
  readonly startCursor: string | null;
}

export interface FeedListener {
  /** In order, each once; with the place to start from next time. */
  readonly onEvent: (event: StreamEvent, cursor: string | null) => void;
  readonly onStatus: (status: Status) => void;
  /** This tab has joined a stream that was open before: what it loads from now on is complete. */
  readonly onJoined: () => void;
}

export function openFeed(options: FeedOptions, listener: FeedListener, signal: AbortSignal): Feed {
  const locks = locksOf();
  let cursor = options.startCursor;

  /** Pass on what is new; false where something is missing before it. */
  function deliver(received: Received): boolean {
    const { verdict, cursor: next } = advance(cursor, received);
    cursor = next;
    if (verdict === "deliver") listener.onEvent(received.event, cursor);
    return verdict !== "hole";
  }

  if (!options.shareStream || !locks || !globalThis.BroadcastChannel) {
    const stream = openEventStream(options, cursor, { onReceived: deliver, onStatus: listener.onStatus }, signal);
    return { reopen: () => stream.reopen() };
  }

  const { scope } = options;
  const channel = new BroadcastChannel(scope);
  let term = 0;
  let status: Status = "connecting";
  let stream: EventStream | undefined;
  let reign: AbortController | undefined; // while this tab leads
  let queue = new AbortController(); // for the lock
  let hasJoined = false;
  let heard = 0; // messages of a leader
  let askedAt = 0; // for what is missing
  let watch: ReturnType<typeof setTimeout> | undefined;

  signal.addEventListener("abort", () => {
    clearTimeout(watch);
    queue.abort();
    reign?.abort();
    channel.close();
  });
  channel.onmessage = ({ data }: MessageEvent<TabMessage>) => onHeard(data);
  listen("visibilitychange", () => globalThis.document.visibilityState === "visible" && lookAfterLeader(), signal);
  void stand(locks);
  say({ kind: "ping" });
  expectNews();

  return {
    reopen: () => (stream ? stream.reopen() : say({ kind: "reopen", cursor: null })),
  };

  /** Queue for the lock, lead while it is held, and queue again when deposed. */
  async function stand(manager: LockManager, steal = false): Promise<void> {
    queue.abort();
    const mine = (queue = new AbortController());
    // A rejection says that the place in the queue was given up, or the lock was stolen.
    await manager.request(scope, steal ? { steal } : { signal: mine.signal }, lead).catch(() => {});
    if (mine !== queue) return;
    reign?.abort();
    if (!signal.aborted) void stand(manager);
  }

  function lead(): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const mine = (reign = new AbortController());
      term = nextTerm(term, Date.now());
      clearTimeout(watch);
      mine.signal.addEventListener("abort", () => {
        stream = reign = undefined;
        resolve();
        if (!signal.aborted) rejoin();
      });
      const onReceived = (received: Received) => {
        say({ kind: "event", term, received });
        deliver(received);
      };
      stream = openEventStream(options, cursor, { onReceived, onStatus: tell }, mine.signal);
    });
  }

  function tell(now: Status): void {
    if (now !== status) listener.onStatus(now);
    status = now;
    say({ kind: "status", term, status, cursor });
  }

  function rejoin(): void {
    hasJoined = false;
    say({ kind: "ping" });
    expectNews();
  }

  function onHeard(message: TabMessage): void {
    if (message.kind === "ping") {
      if (stream) tell(status);
    } else if (message.kind === "reopen") {
      // Whoever misses less than another is served by that one's replay, too.
      if (stream && (!message.cursor || isBehind(message.cursor, stream.cursor()))) {
        stream.reopen(message.cursor ?? undefined);
      }
    } else {
      const whom = hear({ term, isLeader: reign !== undefined }, message.term);
      if (whom === "ignore") return;
      if (whom === "depose") reign?.abort();
      term = message.term;
      heard += 1;
      expectNews();
      if (message.kind === "status") follow(message.status, message.cursor);
      else if (!deliver(message.received)) askForMissing();
    }
  }

  function follow(now: Status, place: string | null): void {
    if (now !== status) listener.onStatus(now);
    status = now;
    if (now !== "open" || hasJoined) return;
    hasJoined = true;
    cursor ??= place;
    if (isBehind(cursor, place)) askForMissing();
    listener.onJoined();
  }

  function askForMissing(): void {
    if (Date.now() - askedAt < PONG_MS) return;
    askedAt = Date.now();
    say({ kind: "reopen", cursor });
  }

  function expectNews(): void {
    clearTimeout(watch);
    watch = setTimeout(() => void lookAfterLeader(), SILENCE_MS);
  }

  /** A leader that does not answer loses the lock: it hangs, or is frozen with it. */
  async function lookAfterLeader(): Promise<void> {
    if (await isLed()) return;
    await locks!.request(`${scope}:takeover`, { ifAvailable: true }, async (lock) => {
      if (lock && !(await isLed())) void stand(locks!, true);
    }).catch(() => {}); // the page is going away
    if (!signal.aborted && !reign) expectNews();
  }

  async function isLed(): Promise<boolean> {
    const before = heard;
    const since = Date.now();
    if (!signal.aborted && !reign) say({ kind: "ping" });
    await pause(PONG_MS, signal);
    if (signal.aborted || reign || heard !== before) return true;
    return isLate(Date.now() - since) ? isLed() : false;
  }

  function say(message: TabMessage): void {
    if (!signal.aborted) channel.postMessage(message);
  }
}
