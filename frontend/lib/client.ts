/**
 * The client without a framework. It is passive until `start`, and after `close` it can be started again:
 *
 *     const client = createClient({ token });
 *     client.subscribe(() => render(client.getState()));
 *     client.start();
 */

import { asClientError, clientError, createApi, plain, subjectOf, type Api } from "./api.ts";
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

const NONE: readonly never[] = [];

/** What can be called while rendering, and what it says where there is no user. */
const AT_ONCE = {
  messages: NONE,
  typing: NONE,
  hasLoaded: false,
  hasMore: false,
  retry: undefined,
  discard: undefined,
  markRead: undefined,
  setTyping: undefined,
} satisfies { readonly [K in keyof UserActions]?: ReturnType<UserActions[K]> };

/** What waits until there is a user. */
const LATER = [
  "loadOlder",
  "send",
  "edit",
  "remove",
  "react",
  "createConversation",
  "loadMoreConversations",
  "call",
] as const satisfies Exclude<keyof UserActions, keyof typeof AT_ONCE>[];

export const ACTIONS = [...Object.keys(AT_ONCE), ...LATER, "reconnect", "signOut"] as (keyof Actions)[];

type Doer = Record<string, (...given: unknown[]) => unknown>;

export function createClient(options: ClientOptions): Client {
  const listeners = new Set<() => void>();
  const observers = new Set<Parameters<Client["observe"]>[0]>();
  const notify = createNotifier(flush);
  let source = options.token;
  let state = emptyState("closed");
  let now: Pick<State, "status" | "error"> = { status: "closed", error: null };
  let events: StreamEvent[] = [];
  let life: AbortController | undefined;
  let wake = new AbortController();
  let api: Api | undefined;
  let user: User | undefined;
  let opened: Promise<User> | undefined;

  const actions: Doer = {};
  for (const [name, before] of Object.entries(AT_ONCE)) {
    actions[name] = (...given) => (user ? (user as object as Doer)[name]!(...given) : before);
  }
  for (const name of LATER) {
    actions[name] = async (...given) => ((await (opened ?? refuse())) as object as Doer)[name]!(...given);
  }

  return {
    ...(actions as unknown as UserActions),
    getState: () => state,
    subscribe: (listener) => adding(listeners, listener),
    observe: (callbacks) => adding(observers, callbacks),
    start,
    close,
    setToken(token) {
      const isNew = typeof token === "string" && token !== source;
      source = token;
      if (!isNew) return;
      // Nobody knows yet whose token is on its way, and what waits for it is not for somebody else to send.
      if (life && !user) return startAnew();
      api?.forgetToken();
      api?.token().catch(() => {}); // whose it is
      if (now.status === "unauthorized") reconnect();
    },
    reconnect,
    async signOut() {
      await user?.forget();
      // The cookie ends with the token at the latest: whoever cannot be told to clear it need not be.
      await api?.request("DELETE", "/messages/stream/session", { credentials: "include" }).catch(() => {});
      close();
    },
  };

  function start(): void {
    if (life) return;
    life = new AbortController();
    const { signal } = life;
    api = createApi({ ...options, source: () => source, signal, onToken: checkUser });
    reset("connecting");
    opened = open(api, signal);
    opened.catch(() => {}); // said by `status` and `error`
  }

  function close(): void {
    life?.abort();
    wake.abort();
    life = api = user = opened = undefined;
    events = [];
    reset("closed");
  }

  function reconnect(): void {
    wake.abort();
    user?.reopen();
  }

  /** Find out who the user is, and open what is theirs. */
  async function open(from: Api, signal: AbortSignal): Promise<User> {
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        const userId = options.userId ?? subjectOf(await from.token());
        if (signal.aborted) break;
        if (userId === null) throw clientError("unauthorized", "The token names no user.", 401);
        set({ error: null });
        return (user = openUser({
          ...options,
          userId,
          api: from,
          signal,
          onChange: notify,
          onStatus: (status) => set({ status }),
          onError: (error) => set({ error: error && plain(error) }),
          onEvent: (event) => events.push(event),
        }));
      } catch (cause) {
        if (signal.aborted) break;
        const error = asClientError(cause);
        const isFinal = error.status === 401;
        set({ status: isFinal ? "unauthorized" : "connecting", error: plain(error) });
        from.forgetToken();
        wake = new AbortController();
        await pause(isFinal ? 1e9 : backoffMs(attempt), wake.signal);
      }
    }
    return refuse();
  }

  /** A token of another user makes this another client: nothing of the one before is shown, or sent as them. */
  function checkUser(token: string): void {
    const userId = options.userId ?? user?.userId;
    if (!userId || subjectOf(token) === userId) return;
    if (options.userId) throw clientError("unauthorized", "The token names another user.", 401);
    startAnew();
  }

  function startAnew(): void {
    close();
    start();
  }

  function reset(status: Status): void {
    state = emptyState(status);
    set({ status, error: null });
  }

  function set(more: Partial<typeof now>): void {
    now = { ...now, ...more };
    notify();
  }

  function flush(): void {
    state = { ...emptyState("closed"), ...user?.look(), ...now };
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
