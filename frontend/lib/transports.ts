/** Two ways to read the stream. Neither decides anything: they tell, until the signal and maybe a moment longer. */

import { answerOf, asClientError, type Api, type ApiError } from "./api.ts";
import { EVENT_NAMES } from "./border.ts";
import { createSseParser } from "./sse.ts";

export interface StreamSink {
  /** `lastEventId` is "" as long as the stream has given none. */
  readonly onEvent: (name: string, data: string, lastEventId: string) => void;
  /** The connection is lost; the browser comes back by itself. */
  readonly onInterrupted: () => void;
  /** It has ended; once, and the last call. Null: without a word why. */
  readonly onEnd: (problem: ApiError | null, retryMs?: number) => void;
}

export interface EventSourceRequest {
  readonly EventSource: typeof EventSource;
  readonly url: string;
}

/**
 * The browser's own, which hides every status, and the server's `retry:`. So it is left to the browser to come back,
 * also with a ticket that is no longer good: it does so when the server wants it, and then is refused.
 */
export function readEventSource(
  { EventSource, url }: EventSourceRequest,
  { onEvent, onInterrupted, onEnd }: StreamSink,
  signal: AbortSignal,
): void {
  const source = new EventSource(url, { withCredentials: true });
  const close = () => source.close();
  signal.addEventListener("abort", close);
  for (const name of EVENT_NAMES) {
    source.addEventListener(name, ({ data, lastEventId }: MessageEvent<string>) => onEvent(name, data, lastEventId));
  }
  source.onerror = () => {
    if (source.readyState === 0) return onInterrupted();
    close();
    onEnd(null);
  };
}

export interface FetchRequest {
  readonly api: Api;
  readonly path: string;
}

/** For bearer tokens, and where there is no EventSource. */
export async function readFetch(
  { api, path }: FetchRequest,
  { onEvent, onEnd }: StreamSink,
  until: AbortSignal,
): Promise<void> {
  let retryMs = 0;
  let problem: ApiError | null = null;
  try {
    const response = await api.request("GET", path, { until, isStream: true });
    if (response.status !== 200) await answerOf(response);
    const write = createSseParser(onEvent, (ms) => {
      retryMs = ms;
    });
    await response.body!.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({ write }));
  } catch (error) {
    problem = asClientError(error);
  }
  onEnd(problem, retryMs);
}
