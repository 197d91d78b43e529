/** One supervised stream: `streamState` decides, this does. Frames in, events with their cursors out. */

import { answerOf, asClientError, type Api, type ApiError } from "./api.ts";
import { parseEvent } from "./border.ts";
import { listen } from "./environment.ts";
import type { StreamEvent, StreamTicket } from "./protocol.ts";
import { startState, statusOf, step, type StreamInput } from "./streamState.ts";
import { readEventSource, readFetch, type StreamSink } from "./transports.ts";
import type { Status, TransportChoice } from "./types.ts";

export interface StreamOptions {
  readonly api: Api;
  readonly baseUrl?: string;
  readonly userId: string;
  readonly transport?: TransportChoice;
  readonly EventSource?: typeof EventSource | undefined;
  readonly onReceived: (received: Received) => void;
  readonly onStatus: (status: Status) => void;
  readonly onError: (error: ApiError | null) => void;
}

/** An event, and the cursor of its stream before and after it. */
export interface Received {
  readonly event: StreamEvent;
  readonly from: string | null;
  readonly to: string | null;
}

export interface EventStream {
  /** Open anew, now; from another place, if one is given. */
  readonly reopen: (cursor?: string | null) => void;
  readonly cursor: () => string | null;
}

const STREAM = "/messages/stream";
const STICKS_NOT = 2; // streams in a row refused although the cookie was given: it is not kept here
const TICKETS_MS = 3_600_000; // then it is tried once more: it may have been a proxy that refused

export function openEventStream(
  options: StreamOptions,
  startCursor: string | null,
  signal: AbortSignal,
): EventStream {
  const { api, baseUrl = "", userId, transport = "auto", onReceived, onStatus, onError } = options;
  const { EventSource = globalThis.EventSource } = options;
  let state = startState(globalThis.navigator?.onLine !== false);
  let cursor = startCursor;
  let urlCursor = startCursor;
  let connection = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let way: Exclude<TransportChoice, "auto">;
  let pass = "";
  let refusals = 0; // of the cookie
  let ticketsUntil = 0;

  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    connection.abort();
  });
  listen("online offline", ({ type }) => take(type as "online" | "offline"), signal);
  take("start");

  return {
    reopen(from) {
      cursor = from ?? cursor;
      take("start");
    },
    cursor: () => cursor,
  };

  function take(input: StreamInput): void {
    if (signal.aborted) return;
    const { state: next, command, timerMs } = step(state, input);
    state = next;
    if (timerMs !== undefined) {
      clearTimeout(timer);
      timer = timerMs === null ? undefined : setTimeout(take, timerMs, "timer");
    }
    if (command) {
      connection.abort();
      connection = new AbortController();
      if (command === "open") open(connection.signal);
      if (command === "authorize") void authorize(connection.signal);
    }
    onStatus(statusOf(state));
  }

  /** Who the stream is for, told to the server before it is opened: the status that EventSource would hide. */
  async function authorize(until: AbortSignal): Promise<void> {
    try {
      way = choose();
      pass = "";
      if (way !== "fetch") {
        const path = `${STREAM}/${way === "ticket" ? way : "session"}`;
        const answer = await answerOf(await api.request("POST", path, { until, credentials: "include" }));
        if (way === "ticket") pass = `&ticket=${encodeURIComponent((answer as StreamTicket).ticket)}`;
      }
      if (!until.aborted) take("authorized");
    } catch (error) {
      if (!until.aborted) fail(asClientError(error));
    }
  }

  function choose(): typeof way {
    if (transport !== "auto") return transport;
    if (!EventSource) return "fetch";
    return Date.now() < ticketsUntil ? "ticket" : "cookie";
  }

  function open(until: AbortSignal): void {
    urlCursor = cursor;
    const from = cursor ? `&last_event_id=${cursor}` : "";
    const path = `${STREAM}?user_id=${encodeURIComponent(userId)}${pass}${from}`;
    const unlessOver =
      <T extends unknown[]>(act: (...given: T) => void) =>
      (...given: T) =>
        until.aborted || act(...given);
    const sink: StreamSink = {
      onEvent: unlessOver(receive),
      onInterrupted: unlessOver(() => take("interrupted")),
      onEnd: unlessOver(fail),
    };
    if (way === "fetch") void readFetch({ api, path }, sink, until);
    else readEventSource({ EventSource, url: `${baseUrl}/api/v1${path}` }, sink, until);
  }

  function receive(name: string, data: string, lastEventId: string): void {
    const event = parseEvent(name, data);
    // What cannot be read is passed over with the next event: so no reader of the events is left behind it.
    if (!event) return take("event");
    const connected = event.event === "connected" && event.data.cursor;
    const from = cursor;
    // The browser came back by itself, with the URL of a time before there was a cursor: what lies between is missing.
    if (connected && from && !urlCursor && connected !== from) return take("start");
    // A `connected` without an id is not where this client stands: first comes the `resync`.
    cursor = lastEventId || cursor || connected || null;
    if (connected) {
      if (!pass) refusals = 0;
      onError(null);
    }
    if (event.event === "resync" && event.data.scope === "all") cursor = event.data.cursor;
    take(connected ? "connected" : "event");
    onReceived({ event, from, to: cursor });
  }

  function fail(problem: ApiError | null, retryMs = 0): void {
    if (problem) onError(problem);
    // EventSource ends without a word.
    else if (way === "cookie" && (refusals += 1) >= STICKS_NOT) ticketsUntil = Date.now() + TICKETS_MS;
    take({ status: problem?.status ?? 0, retryMs: Math.max(retryMs, problem?.retryMs ?? 0) });
  }
}
