/**
 * The tab's way to the stream. A Web Lock elects the tab that holds it, a BroadcastChannel carries its events to
 * the others. `tabState` decides whom to believe. Without Web Locks each tab has a stream of its own.
 */

import { isBehind, isElsewhere } from "./cursor.ts";
import { channelOf, listen, locksOf, pause } from "./environment.ts";
import { openEventStream, type EventStream, type Received, type StreamOptions } from "./eventStream.ts";
import type { StreamEvent } from "./protocol.ts";
import { advance, isLate, isLed, nextTerm, PONG_MS, SILENCE_MS, startOf, type TabMessage } from "./tabState.ts";
import type { Status } from "./types.ts";

export interface Feed {
  /** Try again now, in whichever tab holds the stream. */
  readonly reopen: () => void;
}

export interface FeedOptions extends Omit<StreamOptions, "onReceived"> {
  /** Names the channel and the locks: server and user. */
  readonly scope: string;
  readonly shareStream?: boolean;
  /** In order, each once; with the place to start from next time. */
  readonly onEvent: (event: StreamEvent, cursor: string | null) => void;
  /** This tab has joined a stream that was open before: what it loads from now on is complete. */
  readonly onJoined: () => void;
}

export function openFeed(options: FeedOptions, startCursor: string | null, signal: AbortSignal): Feed {
  const { scope, shareStream = true, onEvent, onStatus, onJoined } = options;
  const locks = locksOf();
  let cursor = startCursor;

  /** Pass on what is new; false where something is missing before it. */
  function deliver(received: Received): boolean {
    moveTo(startOf(received));
    const { verdict, cursor: next } = advance(cursor, received);
    cursor = next;
    if (verdict === "deliver") onEvent(received.event, cursor);
    return !isBehind(cursor, received.to);
  }

  /** Into another epoch: a tab that was frozen has not heard the `resync` that said so. */
  function moveTo(place: string | null): void {
    if (!place || !isElsewhere(cursor, place)) return;
    cursor = place;
    onEvent({ event: "resync", data: { reason: "epoch", scope: "all", cursor } }, cursor);
  }

  const shared = shareStream && locks && channelOf(scope);
  if (!shared) return openEventStream({ ...options, onReceived: deliver }, cursor, signal);

  const channel = shared;
  let term = 0;
  let status: Status = "connecting";
  let stream: EventStream | undefined; // while this tab leads
  let seat = new AbortController(); // in the queue for the lock, and at its head
  let hasJoined = false;
  let heard = 0; // messages of a leader
  let askedAt = 0; // for what is missing
  let watch: ReturnType<typeof setTimeout> | undefined;

  signal.addEventListener("abort", () => {
    clearTimeout(watch);
    seat.abort();
    channel.close();
  });
  channel.onmessage = ({ data }: MessageEvent<TabMessage>) => onHeard(data);
  listen("visibilitychange", () => globalThis.document.hidden || lookAfterLeader(), signal);
  void stand();
  join();

  return {
    reopen() {
      if (stream) stream.reopen();
      else if (status === "unauthorized") void stand();
      else say({ kind: "reopen", cursor: null });
    },
  };

  /** Queue for the lock, lead while it is held, and queue again when deposed. */
  async function stand(steal = false): Promise<void> {
    seat.abort();
    const mine = (seat = new AbortController());
    const turn = () => lead(mine.signal);
    await locks!.request(scope, steal ? { steal } : { signal: mine.signal }, turn).catch(({ name }: Error) => {
      // The place in the queue was given up, or the lock was stolen.
      if (name === "AbortError") return;
      // Site data are blocked: there is nothing to share, and it would be refused again at once.
      channel.onmessage = null;
      return turn();
    });
    if (mine !== seat) return;
    mine.abort();
    if (!signal.aborted && status !== "unauthorized") void stand();
  }

  function lead(until: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (until.aborted) return resolve();
      term = nextTerm(term, Date.now());
      clearTimeout(watch);
      until.addEventListener("abort", () => {
        stream = undefined;
        resolve();
        if (!signal.aborted) join();
      });
      const onReceived = (received: Received) => {
        say({ kind: "event", term, received });
        deliver(received);
      };
      stream = openEventStream({ ...options, onReceived, onStatus: tell }, cursor, until);
    });
  }

  function tell(now: Status): void {
    take(now);
    // Another tab may have a better token; this one stands again with a new one, or once somebody else is open.
    if (now === "unauthorized") seat.abort();
    else say({ kind: "status", term, status, cursor });
  }

  function take(now: Status): void {
    if (now !== status) onStatus(now);
    status = now;
  }

  function join(): void {
    hasJoined = false;
    say({ kind: "ping" });
    expectNews();
  }

  function onHeard(message: TabMessage): void {
    if (message.kind === "ping") {
      if (stream) tell(status);
    } else if (message.kind === "reopen") {
      // Whoever misses less than another is served by that one's replay, too.
      if (stream && (!message.cursor || isBehind(message.cursor, stream.cursor()))) stream.reopen(message.cursor);
    } else {
      if (!isLed({ term, isLeader: !!stream }, message.term)) return;
      if (stream) seat.abort();
      term = message.term;
      heard += 1;
      expectNews();
      if (message.kind === "status") follow(message.status, message.cursor);
      else if (!deliver(message.received)) askForMissing();
    }
  }

  function follow(now: Status, place: string | null): void {
    // That another tab tries says nothing to one whose token was refused.
    if (now === "open" || status !== "unauthorized") take(now);
    if (now !== "open" || hasJoined) return;
    if (seat.signal.aborted) void stand();
    hasJoined = true;
    cursor ??= place;
    moveTo(place);
    if (isBehind(cursor, place)) askForMissing();
    onJoined();
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
    if (status === "unauthorized" || (await hasLeader())) return;
    await locks!.request(`${scope}:takeover`, { ifAvailable: true }, async (lock) => {
      if (lock && !(await hasLeader())) void stand(true);
    }).catch(() => {}); // the page is going away
    if (!signal.aborted && !stream) expectNews();
  }

  async function hasLeader(): Promise<boolean> {
    const before = heard;
    const since = Date.now();
    if (!stream) say({ kind: "ping" });
    await pause(PONG_MS, signal);
    if (signal.aborted || stream || heard !== before) return true;
    return isLate(Date.now() - since) && hasLeader();
  }

  function say(message: TabMessage): void {
    if (!signal.aborted) channel.postMessage(message);
  }
}
