/** All that exists for one user in one tab, wired: stream → store, outbox, typing → view. */

import type { Api, ApiError } from "./api.ts";
import { conversation as checkConversation, message as checkMessage } from "./border.ts";
import { listen } from "./environment.ts";
import { createMessageStore } from "./messageStore.ts";
import { createOutbox } from "./outbox.ts";
import { openOutboxStorage } from "./outboxStorage.ts";
import type { StreamEvent } from "./protocol.ts";
import { createReads } from "./reads.ts";
import { createSync } from "./sync.ts";
import { openFeed, type Feed } from "./tabs.ts";
import type { Actions, ClientOptions, State, Status } from "./types.ts";
import { createTyping } from "./typing.ts";
import { createView, targetOf } from "./view.ts";

export type UserActions = Omit<Actions, "reconnect" | "signOut">;

export interface User extends UserActions {
  readonly userId: string;
  /** The state, with all that has changed taken in. */
  readonly look: () => Omit<State, "status" | "error">;
  readonly reopen: () => void;
  readonly forget: () => Promise<unknown>;
}

export interface UserOptions extends ClientOptions {
  readonly userId: string;
  readonly api: Api;
  readonly onChange: () => void;
  readonly onEvent: (event: StreamEvent) => void;
  readonly onStatus: (status: Status) => void;
  readonly onError: (error: ApiError | null) => void;
  /** The end. */
  readonly signal: AbortSignal;
}

export function openUser(options: UserOptions): User {
  const { userId, api, baseUrl = "", onChange, signal } = options;
  const scope = `gapless:${baseUrl}:${userId}`;
  const store = createMessageStore(userId, (message) => outbox.settle(message));
  const outbox = createOutbox({
    ...options,
    storage: openOutboxStorage(scope, options.keepOutbox),
    scope,
    conversationOf: (item) => targetOf(item, store),
    onSent(message) {
      store.takeMessage(message);
      void sync.work();
      onChange();
    },
    onChange(item) {
      const id = targetOf(item, store);
      if (id) store.touch(id);
      onChange();
    },
  });
  const sync = createSync({ ...options, store });
  const reads = createReads(api);
  const typing = createTyping({
    ...options,
    tell: (id, is_typing) => void api.call("POST", `/conversations/${id}/typing`, { is_typing }).catch(() => {}),
  });
  const view = createView(store, outbox.line);
  let cursor: string | null = null;
  let feed: Feed | undefined;
  let session: AbortController | undefined;

  // A frozen tab, or one in the back/forward cache, would keep its lock and its stream, and pass nothing on.
  listen("pagehide freeze", suspend, signal);
  listen("pageshow resume", resume, signal);
  listen("online", () => session && outbox.drain(session.signal), signal);
  signal.addEventListener("abort", suspend);
  resume();

  const path = (id: string) => `/messages/${id}`;
  return {
    userId,
    look,
    reopen: () => feed?.reopen(),
    forget: outbox.clear,
    messages(id) {
      const entry = store.show(id);
      entry.askedAt = Date.now();
      if (store.wanted.has(id)) void sync.work();
      return entry.shown;
    },
    hasLoaded: (id) => threadOf(id)?.rev != null,
    hasMore: (id) => threadOf(id)?.hasMore ?? false,
    loadOlder: sync.older,
    typing: typing.who,
    send: outbox.send,
    retry: outbox.retry,
    discard: outbox.discard,
    async edit(id, content) {
      store.takeMessage(checkMessage(await api.call("PATCH", path(id), { content })));
      onChange();
    },
    async remove(id) {
      await api.call("DELETE", path(id));
    },
    async react(id, emoji, on = true) {
      await api.call(on ? "PUT" : "DELETE", `${path(id)}/reactions/${encodeURIComponent(emoji)}`);
    },
    markRead(id, seq) {
      const held = store.entries.get(id)?.conversation;
      const to = seq ?? held?.last_seq ?? 0;
      if (held ? to <= held.last_read_seq : !to) return;
      store.takeRead(id, userId, to);
      reads.mark(id, to);
      onChange();
    },
    setTyping: typing.set,
    async createConversation(request) {
      const made = checkConversation(await api.call("POST", "/conversations", request));
      store.takeConversation(made);
      onChange();
      return made;
    },
    loadMoreConversations: sync.moreConversations,
    call: api.call as Actions["call"],
  };

  function resume(): void {
    if (session || signal.aborted) return;
    session = new AbortController();
    options.onStatus("connecting"); // what it was before the page was frozen says nothing
    outbox.drain(session.signal);
    feed = openFeed({ ...options, scope, onEvent: take, onJoined: catchUp }, cursor, session.signal);
  }

  function suspend(): void {
    session?.abort();
    session = feed = undefined;
  }

  function take(event: StreamEvent, place: string | null): void {
    cursor = place;
    store.apply(event);
    typing.apply(event);
    if (event.event === "resync" && event.data.scope === "all") store.distrust();
    if (event.event === "connected" || event.event === "resync") catchUp();
    if (event.event === "heartbeat") reads.flush();
    if (session) void sync.work();
    options.onEvent(event);
    onChange();
  }

  /** The stream is open: what it does not replay is asked for, what waits is sent. */
  function catchUp(): void {
    if (!session) return;
    sync.refresh(session.signal);
    reads.flush();
    outbox.drain(session.signal);
  }

  function look() {
    const conversations = view();
    const next = sync.next();
    return {
      userId,
      conversations,
      hasMoreConversations: !!next,
      isLoaded: next !== undefined,
      unread: conversations.reduce((sum, { unread }) => sum + unread, 0),
      queued: outbox.line().filter(({ status }) => status === "sending").length,
    };
  }

  function threadOf(id: string) {
    return store.entries.get(id)?.thread;
  }
}
