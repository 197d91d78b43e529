/** Two ways to read the stream. Neither decides anything: they tell, until the signal. */

import { answerOf, asClientError, type Api, type ApiError } from "./api.ts";
import { EVENT_NAMES } from "./border.ts";
import { createSseParser } from "./sse.ts";

export interface StreamSink {
  /** `lastEventId` is "" as long as the stream has given none. */
  readonly onEvent: (name: string, data: string, lastEventId: string) => void;
  /** The connection is lost; the browser comes back by itself. */
  readonly onInterrupted: () => void;
  /** It has ended; once, and the last call. Null: without a word why. */
  readonly onEnd: (problem: ApiError | null, retryMs: number) => void;
}

export interface EventSourceRequest {
  readonly EventSource: typeof EventSource;
  readonly url: string;
  /** Whether the browser may come back by itself: with a ticket it would be refused. */
  readonly canReturn: boolean;
}

/** The browser's own, which hides every status. */
export function readEventSource(
  { EventSource, url, canReturn }: EventSourceRequest,
  sink: StreamSink,
  signal: AbortSignal,
): void {
  const source = new EventSource(url, { withCredentials: true });
  signal.addEventListener("abort", () => source.close());
  for (const name of EVENT_NAMES) {
    source.addEventListener(name, (event: MessageEvent<string>) => {
      if (!signal.aborted) sink.onEvent(name, event.data, event.lastEventId);
    });
  }
  source.onerror = () => {
    if (signal.aborted) return;
    if (canReturn && source.readyState === 0) return sink.onInterrupted();
    source.close();
    sink.onEnd(null, 0);
  };
}

export interface FetchRequest {
  readonly api: Api;
  readonly token: string;
  readonly path: string;
}

/** For bearer tokens, and where there is no EventSource. */
export async function readFetch({ api, token, path }: FetchRequest, sink: StreamSink, signal: AbortSignal): Promise<void> {
  let retryMs = 0;
  let problem: ApiError | null = null;
  try {
    const parse = createSseParser({
      onBlock: ({ name, data, lastEventId }) => {
        if (!signal.aborted) sink.onEvent(name, data, lastEventId);
      },
      onRetry: (ms) => {
        retryMs = ms;
      },
    });
    const response = await api.request("GET", path, { token, signal, isStream: true });
    if (response.status !== 200 || !response.body) await answerOf(response);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parse(value);
    }
  } catch (error) {
    problem = asClientError(error);
  }
  if (!signal.aborted) sink.onEnd(problem, retryMs);
}
