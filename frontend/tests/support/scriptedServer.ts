/**
 * A real HTTP server that does what a test says, byte by byte: it ends in the middle of a frame, stalls, refuses.
 * What a test does not say is a 404.
 */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connectedAt } from "./samples.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: Record<string, unknown>;
}

export type Answer = (response: ServerResponse, asked: Asked) => unknown;

export interface ScriptedServer {
  readonly url: string;
  readonly asked: Asked[];
  readonly askedFor: (route: string) => Asked[];
  /** `route` is "GET /messages/stream"; of several answers the last one stays. */
  readonly on: (route: string, ...answers: Answer[]) => void;
  /** Streams that are open now. */
  readonly open: Set<ServerResponse>;
  readonly close: () => Promise<void>;
}

export async function scriptedServer(): Promise<ScriptedServer> {
  const scripts = new Map<string, Answer[]>();
  const asked: Asked[] = [];
  const open = new Set<ServerResponse>();
  const server = createServer((request, response) => void answer(request, response));
  server.keepAliveTimeout = 1;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("close", () => open.delete(response));
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { pathname, searchParams } = new URL(request.url!, "http://localhost");
    const text = Buffer.concat(chunks).toString();
    const one: Asked = {
      method: request.method!,
      path: decodeURIComponent(pathname.replace("/api/v1", "")),
      query: searchParams,
      headers: request.headers,
      body: text ? (JSON.parse(text) as Record<string, unknown>) : {},
    };
    asked.push(one);
    const script = scripts.get(`${one.method} ${one.path}`);
    const act = script && script.length > 1 ? script.shift()! : script?.[0];
    if (act) act(response, one);
    else problem(404, "not_found")(response, one);
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    askedFor: (route) => asked.filter(({ method, path }) => `${method} ${path}` === route),
    on: (route, ...answers) =>
      void scripts.set(
        route,
        answers.map((act) => (response, one) => {
          if (route.endsWith("/stream")) open.add(response);
          return act(response, one);
        }),
      ),
    open,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export const STREAM = "GET /messages/stream";

export const json =
  (value: unknown, status = 200): Answer =>
  (response) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));

export const problem =
  (status: number, code: string, headers: Record<string, string> = {}): Answer =>
  (response) =>
    response
      .writeHead(status, { "content-type": "application/problem+json", ...headers })
      .end(JSON.stringify({ type: "about:blank", title: code, status, detail: `It is ${code}.`, code, request_id: "r" }));

/** The beginning of a stream; it stays open. */
export function begin(response: ServerResponse, ...pieces: (string | Buffer)[]): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const piece of pieces) response.write(piece);
}

export const block = (event: string, data: unknown, id?: string): string =>
  `${id === undefined ? "" : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

/** What every stream begins with. */
export const opening = (cursor: string, retryMs = 1): string =>
  `retry: ${retryMs}\n\nid: ${cursor}\n\n${block("connected", connectedAt(cursor))}`;

/** A stream that opens at the cursor that was asked for, or at `cursor`, writes and stays open. */
export const stream =
  (cursor: string, ...pieces: string[]): Answer =>
  (response, asked) =>
    begin(response, opening(cursorOf(asked) ?? cursor), ...pieces);

/** The header wins, as it does at the server (clause 4.3). */
export const cursorOf = ({ headers, query }: Asked): string | null =>
  (headers["last-event-id"] as string | undefined) ?? query.get("last_event_id");
