/** One supervised stream: `streamState` decides, this does. Frames in, events with their cursors out. */

import { answerOf, asClientError, type Api, type ApiError } from "./api.ts";
import { parseEvent } from "./border.ts";
import { listen } from "./environment.ts";
import type { StreamEvent, StreamTicket } from "./protocol.ts";
import { startState, statusOf, step, type StreamInput } from "./streamState.ts";
import { readEventSource, readFetch, type StreamSink } from "./transports.ts";
import type { Status, TransportChoice } from "./types.ts";

export interface StreamDeps {
  readonly api: Api;
  readonly baseUrl: string;
  readonly userId: string;
  readonly transport: TransportChoice;
  readonly EventSource: typeof EventSource | undefined;
  readonly onError: (error: ApiError | null) => void;
}

/** An event, and the cursor of its stream before and after it. */
export interface Received {
  readonly event: StreamEvent;
  readonly from: string | null;
  readonly to: string | null;
}

export interface StreamListener {
  readonly onReceived: (received: Received) => void;
  readonly onStatus: (status: Status) => void;
}

export interface EventStream {
  /** Open anew, now; from another place, if one is given. */
  readonly reopen: (cursor?: string) => void;
  readonly cursor: () => string | null;
}

const STREAM = "/messages/stream";
const STICKS_NOT = 2; // streams refused although the cookie was given: it is not kept here

export function openEventStream(
  deps: StreamDeps,
  startCursor: string | null,
  { onReceived, onStatus }: StreamListener,
  signal: AbortSignal,
): EventStream {
  const { api, baseUrl, userId, EventSource, onError } = deps;
  let state = startState(globalThis.navigator?.onLine !== false);
  let cursor = startCursor;
  let urlCursor = startCursor;
  let connection = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let token: string | undefined;
  let pass = "";
  let needsTicket = false;

  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    connection.abort();
  });
  listen("online offline", ({ type }) => take({ type: type as "online" | "offline" }), signal);
  take({ type: "start" });

  return {
    reopen(from) {
      cursor = from ?? cursor;
      take({ type: "start" });
    },
    cursor: () => cursor,
  };

  function take(input: StreamInput): void {
    if (signal.aborted) return;
    const { state: next, command, timerMs } = step(state, input);
    state = next;
    if (timerMs !== undefined) {
      clearTimeout(timer);
      timer = timerMs === null ? undefined : setTimeout(take, timerMs, { type: "timer" });
    }
    if (command) {
      connection.abort();
      connection = new AbortController();
      if (command === "open") open(connection.signal);
      else if (command !== "close") void authorize(command === "authorizeFresh", connection.signal);
    }
    onStatus(statusOf(state));
  }

  /** Who the stream is for, told to the server before it is opened: the status that EventSource would hide. */
  async function authorize(isFresh: boolean, until: AbortSignal): Promise<void> {
    try {
      token = await api.token(isFresh ? token : undefined);
      pass = "";
      if (how() !== "fetch" && !until.aborted) {
        const kind = how() === "ticket" ? "ticket" : "session";
        const init: RequestInit = { signal: until, credentials: "include" };
        const answer = await answerOf(await api.request("POST", `${STREAM}/${kind}`, { ...init, token }));
        if (kind === "ticket") pass = `&ticket=${encodeURIComponent((answer as StreamTicket).ticket)}`;
      }
      if (!until.aborted) take({ type: "authorized" });
    } catch (error) {
      if (!until.aborted) fail(asClientError(error));
    }
  }

  function open(until: AbortSignal): void {
    urlCursor = cursor;
    const from = cursor === null ? "" : `&last_event_id=${cursor}`;
    const path = `${STREAM}?user_id=${encodeURIComponent(userId)}${pass}${from}`;
    const sink: StreamSink = {
      onEvent: receive,
      onInterrupted: () => take({ type: "interrupted" }),
      onEnd: fail,
    };
    if (how() === "fetch") void readFetch({ api, token: token!, path }, sink, until);
    else {
      const url = `${baseUrl}/api/v1${path}`;
      readEventSource({ EventSource: EventSource!, url, canReturn: !pass }, sink, until);
    }
  }

  function receive(name: string, data: string, lastEventId: string): void {
    const event = parseEvent(name, data);
    const from = cursor;
    // The browser came back by itself, with the URL of a time before there was a cursor: what lies between is missing.
    if (event?.event === "connected" && from !== null && urlCursor === null && event.data.cursor !== from) {
      return take({ type: "start" });
    }
    // An event that cannot be read moves the cursor all the same, or every reconnect would bring it again.
    cursor = lastEventId || cursor;
    if (event?.event === "connected") {
      cursor = lastEventId || event.data.cursor;
      needsTicket ||= pass !== "";
      onError(null);
    }
    if (event?.event === "resync" && event.data.scope === "all") cursor = event.data.cursor;
    take({ type: event?.event === "connected" ? "connected" : "event" });
    if (event) onReceived({ event, from, to: cursor });
  }

  function fail(problem: ApiError | null, retryMs = 0): void {
    if (problem) onError(problem);
    take({ type: "failed", status: problem?.status ?? 0, retryMs: Math.max(retryMs, problem?.retryMs ?? 0) });
  }

  function how(): "cookie" | "ticket" | "fetch" {
    if (deps.transport !== "auto") return deps.transport;
    if (!EventSource) return "fetch";
    return needsTicket || state.attempt >= STICKS_NOT ? "ticket" : "cookie";
  }
}
