/** REST with the user's token: one fresh token after a 401, a time-out on everything, problems as errors. */

import { retryAfterMs } from "./backoff.ts";
import { text } from "./border.ts";
import { pause } from "./environment.ts";
import type { ClientError, TokenSource } from "./types.ts";

const PATIENCE_MS = 12_000; // the server answers or gives up within 5 s
const TOKEN_MS = 60_000; // a person may have to sign in

export type ApiError = Error & ClientError & { readonly retryMs: number };

export interface Api {
  /** The token at hand. Rejects with `unauthorized` where there is none. */
  readonly token: () => Promise<string>;
  /** Ask the source again at the next request. */
  readonly forgetToken: () => void;
  /** `path` is below `/api/v1`. Rejects with an `ApiError`. */
  readonly call: (method: string, path: string, body?: object, until?: AbortSignal) => Promise<unknown>;
  /** The same, whatever the status of the answer; a stream has no time-out here. */
  readonly request: (method: string, path: string, how: ApiRequest) => Promise<Response>;
}

export interface ApiRequest {
  readonly body?: object | undefined;
  readonly until?: AbortSignal | undefined;
  readonly isStream?: boolean;
  /** Whether the cookie of the stream may come and go. */
  readonly credentials?: RequestCredentials;
}

export interface ApiOptions {
  readonly baseUrl?: string;
  readonly source: () => TokenSource;
  /** In place of the global one. */
  readonly fetch?: typeof fetch;
  readonly signal: AbortSignal;
  /** Every new token, before it is used. */
  readonly onToken: (token: string) => void;
}

export function createApi({ baseUrl = "", source, fetch, signal, onToken }: ApiOptions): Api {
  let held: Promise<string> | undefined;
  let current: string | null = null; // what `held` has come to

  return {
    token,
    forgetToken() {
      held = undefined;
    },
    call: async (method, path, body, until) => answerOf(await request(method, path, { body, until })),
    request,
  };

  async function request(method: string, path: string, how: ApiRequest, refused?: string): Promise<Response> {
    const { body, until = signal, isStream, credentials = "omit" } = how;
    const bearer = await token(refused);
    try {
      const response = await (fetch ?? globalThis.fetch)(`${baseUrl}/api/v1${path}`, {
        method,
        credentials,
        headers: { authorization: `Bearer ${bearer}`, ...(body && { "content-type": "application/json" }) },
        body: JSON.stringify(body),
        signal: AbortSignal.any([signal, until, isStream ? signal : AbortSignal.timeout(PATIENCE_MS)]),
      });
      if (response.status !== 401 || refused !== undefined) return response;
    } catch (cause) {
      throw asClientError(cause, "network", "The server is not there.");
    }
    return request(method, path, how, bearer);
  }

  async function token(refused?: string): Promise<string> {
    if (!held || refused === current) {
      current = null;
      held = ask(refused !== undefined);
    }
    const given = await held;
    if (given === refused) throw clientError("unauthorized", "The token was refused.", 401);
    return given;
  }

  async function ask(isRefused: boolean): Promise<string> {
    const from = source();
    try {
      const given = typeof from === "string" ? from : await Promise.race([from(isRefused), pause(TOKEN_MS, signal)]);
      if (given === undefined) throw new Error();
      onToken(given);
      return (current = given);
    } catch (cause) {
      held = undefined;
      throw asClientError(cause, "network", "There is no token.");
    }
  }
}

/** The body of a good answer; anything else is thrown. */
export async function answerOf(response: Response): Promise<unknown> {
  const { status, ok, headers } = response;
  let body: unknown;
  try {
    body = JSON.parse((await response.text()) || "null");
  } catch (cause) {
    if (ok) throw asClientError(cause, "network", "The answer is not whole.");
  }
  if (ok) return body;
  const { code = "unexpected", detail = `The server answered ${status}.` } = (body ?? {}) as Record<string, unknown>;
  throw clientError(String(code), String(detail), status, retryAfterMs(headers.get("retry-after"), Date.now()));
}

export const clientError = (code: string, message: string, status = 0, retryMs = 0, cause?: unknown): ApiError =>
  Object.assign(new Error(message, { cause }), { code, status, retryMs });

/** What can be stored and shown of an error. */
export const plain = ({ code, message, status }: ClientError): ClientError => ({ code, message, status });

/** Anything that was thrown, as one of ours: what is not is a defect in an answer, and worth another try. */
export function asClientError(error: unknown, code = "unexpected", message = String(error)): ApiError {
  const isOurs = error instanceof Error && "retryMs" in error;
  return isOurs ? (error as ApiError) : clientError(code, message, 0, 0, error);
}

/**
 * Whether the same request may succeed later, as it is. "unexpected" is not the server's own word: a proxy without a
 * server behind it says 404, too.
 */
export const isPassing = ({ code, status }: ClientError): boolean =>
  code === "unexpected" || [0, 401, 408, 429].includes(status) || status >= 500;

/**
 * The `sub` of a JWT; null if it is none. Only a name for things of this browser: the server checks. Bytes are
 * taken for characters, for a user's id is ASCII.
 */
export function subjectOf(token: string): string | null {
  try {
    const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    return text((JSON.parse(atob(payload)) as { sub?: unknown }).sub);
  } catch {
    return null;
  }
}
