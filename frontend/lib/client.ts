/**
 * The client without a framework. It is passive until `start`, and after `close` it can be started again:
 *
 *     const client = createClient({ token });
 *     client.subscribe(() => render(client.getState()));
 *     client.start();
 */

import { asClientError, clientError, createApi, plain, subjectOf, type Api, type ApiError } from "./api.ts";
import { backoffMs } from "./backoff.ts";
import { pause } from "./environment.ts";
import { createNotifier } from "./notify.ts";
import type { StreamEvent } from "./protocol.ts";
import type { Actions, ClientOptions, State, Status, StreamOptions, TokenSource } from "./types.ts";
import { openUser, type User, type UserActions } from "./user.ts";

export type * from "./types.ts";

export interface Client extends Actions {
  readonly getState: () => State;
  /** Called once per task in which something changed; returns the way to stop it. */
  readonly subscribe: (listener: () => void) => () => void;
  /** Also for single events; the callbacks are read at each event. */
  readonly observe: (callbacks: () => Pick<StreamOptions, "onEvent" | "onResync">) => () => void;
  readonly start: () => void;
  readonly close: () => void;
  /** Another token, or another way to have one. */
  readonly setToken: (token: TokenSource) => void;
}

export const emptyState = (status: Status): State => ({
  status,
  userId: null,
  conversations: [],
  hasMoreConversations: false,
  isLoaded: false,
  unread: 0,
  queued: 0,
  error: null,
});

/** What returns promises. */
type Doing = {
  [K in keyof UserActions]: ReturnType<UserActions[K]> extends Promise<unknown> ? K : never;
}[keyof UserActions];

const NONE: readonly never[] = [];

export function createClient(options: ClientOptions): Client {
  const listeners = new Set<() => void>();
  const observers = new Set<Parameters<Client["observe"]>[0]>();
  const notify = createNotifier(flush);
  let source = options.token;
  let state = emptyState("closed");
  let status: Status = "closed";
  let error: State["error"] = null;
  let events: StreamEvent[] = [];
  let life: AbortController | null = null;
  let wake = new AbortController();
  let api: Api | null = null;
  let user: User | null = null;
  let opened: Promise<User> | null = null;

  return {
    getState: () => state,
    subscribe: (listener) => adding(listeners, listener),
    observe: (callbacks) => adding(observers, callbacks),
    start,
    close,
    setToken(token) {
      const isNew = typeof token === "string" && token !== source;
      source = token;
      if (!isNew) return;
      api?.forgetToken();
      if (status === "unauthorized") reconnect();
    },
    // What is asked while rendering has an answer at any time; what is done waits until there is a user.
    messages: (id) => user?.actions.messages(id) ?? NONE,
    hasLoaded: (id) => user?.actions.hasLoaded(id) ?? false,
    hasMore: (id) => user?.actions.hasMore(id) ?? false,
    typing: (id) => user?.actions.typing(id) ?? NONE,
    retry: (id) => user?.actions.retry(id),
    discard: (id) => user?.actions.discard(id),
    markRead: (id, seq) => user?.actions.markRead(id, seq),
    setTyping: (id, isTyping) => user?.actions.setTyping(id, isTyping),
    loadOlder: later("loadOlder"),
    send: later("send"),
    edit: later("edit"),
    remove: later("remove"),
    react: later("react"),
    createConversation: later("createConversation"),
    loadMoreConversations: later("loadMoreConversations"),
    call: later("call") as Actions["call"],
    reconnect,
    async signOut() {
      await user?.forget();
      const token = await api?.token().catch(() => null);
      // The cookie ends with the token at the latest: whoever cannot be told to clear it need not be.
      if (token) await api!.request("DELETE", "/messages/stream/session", { token, credentials: "include" }).catch(() => {});
      close();
    },
  };

  function start(): void {
    if (life) return;
    life = new AbortController();
    const { signal } = life;
    const { baseUrl = "" } = options;
    const send: typeof fetch = (...request) => (options.fetch ?? globalThis.fetch)(...request);
    api = createApi({ baseUrl, source: () => source, fetch: send, signal, onToken: (token) => checkUser(token) });
    reset("connecting");
    opened = open(api, signal);
    opened.catch(() => {}); // said by `status` and `error`
  }

  function close(): void {
    life?.abort();
    life = api = user = opened = null;
    error = null;
    events = [];
    reset("closed");
  }

  function reconnect(): void {
    wake.abort();
    user?.reopen();
  }

  /** Find out who the user is, and open what is theirs. */
  async function open(from: Api, signal: AbortSignal): Promise<User> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const me = options.userId ?? subjectOf(await from.token());
        if (me === null) throw clientError("unauthorized", "The token names no user.", 401);
        const found = await openUser({
          me,
          api: from,
          options,
          signal,
          onChange: notify,
          onStatus: setStatus,
          onError: setError,
          onEvent: (event) => events.push(event),
        });
        if (signal.aborted) break;
        setError(null);
        return (user = found);
      } catch (cause) {
        if (signal.aborted) break;
        const problem = asClientError(cause);
        setError(problem);
        if (problem.status === 401) setStatus("unauthorized");
        from.forgetToken();
        wake = new AbortController();
        const isFinal = problem.status === 401;
        await pause(isFinal ? 2 ** 31 - 1 : backoffMs(attempt), AbortSignal.any([signal, wake.signal]));
      }
    }
    return refuse();
  }

  /** A token of another user makes this another client: nothing of the one before is shown. */
  function checkUser(token: string): void {
    if (!user || options.userId || subjectOf(token) === user.me) return;
    close();
    start();
  }

  function reset(now: Status): void {
    state = emptyState(now);
    setStatus(now);
  }

  function setStatus(now: Status): void {
    status = now;
    notify();
  }

  function setError(problem: ApiError | null): void {
    error = problem && plain(problem);
    notify();
  }

  function flush(): void {
    state = { ...emptyState(status), ...user?.look(), userId: user?.me ?? null, error };
    for (const listener of [...listeners]) guarded(listener);
    const due = events;
    events = [];
    for (const event of due) {
      for (const callbacks of [...observers]) {
        guarded(() => {
          const { onEvent, onResync } = callbacks();
          onEvent?.(event);
          if (event.event === "resync") onResync?.(event.data);
        });
      }
    }
  }

  function later<K extends Doing>(name: K) {
    return async (...given: Parameters<UserActions[K]>): Promise<Awaited<ReturnType<UserActions[K]>>> => {
      const act = (await (opened ?? refuse())).actions[name] as (...all: typeof given) => ReturnType<UserActions[K]>;
      return await act(...given);
    };
  }
}

function refuse(): never {
  throw clientError("closed", "The client is not open.");
}

function adding<T>(set: Set<T>, member: T): () => void {
  set.add(member);
  return () => void set.delete(member);
}

/** A defect in one listener is reported, and costs the others nothing. */
function guarded(act: () => void): void {
  try {
    act();
  } catch (cause) {
    // oxlint-disable-next-line no-console -- Node has no reportError
    (globalThis.reportError ?? console.error)(cause);
  }
}
