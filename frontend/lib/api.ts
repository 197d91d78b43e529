/** REST with the user's token: one fresh token after a 401, a time-out on everything, problems as errors. */

import { retryAfterMs } from "./backoff.ts";
import type { ClientError, TokenSource } from "./types.ts";

const PATIENCE_MS = 12_000; // the server answers or gives up within 5 s

export type ApiError = Error & ClientError & { readonly retryMs: number };

export interface Api {
  /** The token at hand; with the one that was refused, a new one. Rejects with `unauthorized` where there is none. */
  readonly token: (refused?: string) => Promise<string>;
  /** Ask the source again at the next request. */
  readonly forgetToken: () => void;
  /** `path` is below `/api/v1`. Rejects with an `ApiError`. */
  readonly call: (method: string, path: string, body?: object, signal?: AbortSignal) => Promise<unknown>;
  /** One request with one token; any status. A stream has no time-out here. */
  readonly request: (method: string, path: string, init: ApiRequest) => Promise<Response>;
}

export interface ApiRequest extends RequestInit {
  readonly token: string;
  readonly isStream?: boolean;
}

export interface ApiOptions {
  readonly baseUrl: string;
  readonly source: () => TokenSource;
  readonly fetch: typeof fetch;
  readonly signal: AbortSignal;
  /** Every new token, before it is used. */
  readonly onToken: (token: string) => void;
}

export function createApi({ baseUrl, source, fetch, signal, onToken }: ApiOptions): Api {
  let held: Promise<string> | null = null;
  let current: string | undefined;

  async function ask(isRefused: boolean): Promise<string> {
    const from = source();
    try {
      const given = typeof from === "string" ? from : await from(isRefused);
      onToken(given);
      return (current = given);
    } catch (cause) {
      held = null;
      throw isClientError(cause) ? cause : clientError("network", "No token could be had.", 0, 0, cause);
    }
  }

  async function token(refused?: string): Promise<string> {
    if (!held || (refused !== undefined && refused === current)) {
      current = undefined;
      held = ask(refused !== undefined);
    }
    const given = await held;
    if (given === refused) throw clientError("unauthorized", "The token was refused.", 401);
    return given;
  }

  async function request(method: string, path: string, { token: bearer, isStream, ...init }: ApiRequest) {
    const patience = isStream ? null : AbortSignal.timeout(PATIENCE_MS);
    const limits = [signal, patience, init.signal].filter((each) => each != null);
    try {
      return await fetch(`${baseUrl}/api/v1${path}`, {
        credentials: "omit",
        ...init,
        method,
        headers: { authorization: `Bearer ${bearer}`, ...init.headers },
        signal: AbortSignal.any(limits),
      });
    } catch (cause) {
      throw clientError("network", "The server cannot be reached.", 0, 0, cause);
    }
  }

  async function call(method: string, path: string, body?: object, until?: AbortSignal): Promise<unknown> {
    const init: RequestInit = { signal: until ?? null };
    if (body) {
      init.headers = { "content-type": "application/json" };
      init.body = JSON.stringify(body);
    }
    const first = await token();
    let response = await request(method, path, { ...init, token: first });
    if (response.status === 401) response = await request(method, path, { ...init, token: await token(first) });
    return answerOf(response);
  }

  return {
    token,
    forgetToken() {
      held = null;
    },
    request,
    call,
  };
}

/** The body of a good answer; anything else is thrown. */
export async function answerOf(response: Response): Promise<unknown> {
  const { status, ok, headers } = response;
  let body: unknown;
  try {
    body = JSON.parse((await response.text()) || "null");
  } catch (cause) {
    if (ok) throw clientError("network", "The answer broke off.", 0, 0, cause);
  }
  if (ok) return body;
  const { code, detail } = (body ?? {}) as { code?: unknown; detail?: unknown };
  throw clientError(
    typeof code === "string" ? code : "unexpected",
    typeof detail === "string" ? detail : `The server answered ${status}.`,
    status,
    retryAfterMs(headers.get("retry-after"), Date.now()),
  );
}

export function clientError(code: string, message: string, status = 0, retryMs = 0, cause?: unknown): ApiError {
  return Object.assign(new Error(message, { cause }), { code, status, retryMs });
}

/** What can be stored and shown of an error. */
export const plain = ({ code, message, status }: ClientError): ClientError => ({ code, message, status });

export function isClientError(error: unknown): error is ApiError {
  return error instanceof Error && "code" in error && "retryMs" in error;
}

/** Anything that was thrown, as one of ours: what is not is a defect in an answer, and worth another try. */
export function asClientError(error: unknown): ApiError {
  return isClientError(error) ? error : clientError("unexpected", String(error), 0, 0, error);
}

/** Whether the same request may succeed later, as it is. */
export function isPassing({ status }: ClientError): boolean {
  return status === 0 || status === 401 || status === 408 || status === 429 || status >= 500;
}

/** The `sub` of a JWT; null if it is none. Only a name for things of this browser: the server checks. */
export function subjectOf(token: string): string | null {
  try {
    const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown };
    return typeof sub === "string" ? sub : null;
  } catch {
    return null;
  }
}
