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

export interface User {
  readonly me: string;
  readonly actions: UserActions;
  /** The state, with all that has changed taken in. */
  readonly look: () => Omit<State, "status" | "userId" | "error">;
  readonly reopen: () => void;
  readonly forget: () => Promise<unknown>;
}

export interface UserOptions {
  readonly me: string;
  readonly api: Api;
  readonly options: ClientOptions;
  readonly onChange: () => void;
  readonly onEvent: (event: StreamEvent) => void;
  readonly onStatus: (status: Status) => void;
  readonly onError: (error: ApiError | null) => void;
  /** The end. */
  readonly signal: AbortSignal;
}

export async function openUser({ me, api, options, onChange, signal, ...listener }: UserOptions): Promise<User> {
  const { baseUrl = "" } = options;
  const scope = `gapless:${baseUrl}:${me}`;
  const storage = await openOutboxStorage(options.keepOutbox === false ? null : scope);
  const store = createMessageStore(me, (message) => outbox.settle(message));
  const outbox = createOutbox({
    me,
    api,
    storage,
    scope,
    signal,
    onSent(message) {
      store.takeMessage(message);
      sync.work();
      onChange();
    },
    onChange(item) {
      const entry = store.entries.get(targetOf(item, store) ?? "");
      if (entry) store.touch(entry);
      onChange();
    },
  });
  const sync = createSync({ api, store, onChange, onError: listener.onError });
  const reads = createReads(api);
  const typing = createTyping({
    me,
    onChange,
    signal,
    tell: (id, is_typing) => void api.call("POST", `/conversations/${id}/typing`, { is_typing }).catch(() => {}),
  });
  const view = createView(store, outbox.items);
  let cursor: string | null = null;
  let feed: Feed | null = null;
  let session: AbortController | null = null;

  // A frozen tab, or one in the back/forward cache, would keep its lock and its stream, and pass nothing on.
  listen("pagehide freeze", suspend, signal);
  listen("pageshow resume", resume, signal);
  listen("online", () => session && outbox.drain(session.signal), signal);
  signal.addEventListener("abort", suspend);
  resume();

  return { me, actions: actionsOf(), look, reopen: () => feed?.reopen(), forget: outbox.clear };

  function resume(): void {
    if (session || signal.aborted) return;
    session = new AbortController();
    outbox.drain(session.signal);
    const { transport = "auto", shareStream = true, EventSource = globalThis.EventSource } = options;
    const { onStatus, onError } = listener;
    feed = openFeed(
      { api, baseUrl, userId: me, transport, EventSource, scope, shareStream, startCursor: cursor, onError },
      { onEvent: take, onStatus, onJoined: catchUp },
      session.signal,
    );
  }

  function suspend(): void {
    session?.abort();
    session = feed = null;
  }

  function take(event: StreamEvent, place: string | null): void {
    cursor = place;
    store.apply(event);
    typing.apply(event);
    if (event.event === "connected") catchUp();
    if (event.event === "resync") {
      if (event.data.scope === "all") store.distrust();
      catchUp();
    }
    if (session) sync.work();
    listener.onEvent(event);
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
    view.refresh();
    const conversations = view.conversations();
    const hasMore = sync.hasMoreConversations();
    return {
      conversations,
      hasMoreConversations: hasMore === true,
      isLoaded: hasMore !== null,
      unread: conversations.reduce((sum, { unread }) => sum + unread, 0),
      queued: [...outbox.items.values()].filter(({ status }) => status === "sending").length,
    };
  }

  function threadOf(id: string) {
    return store.entries.get(id)?.thread;
  }

  function actionsOf(): UserActions {
    const path = (id: string, emoji = "") => `/messages/${id}${emoji && `/reactions/${encodeURIComponent(emoji)}`}`;
    return {
      messages(id) {
        const entry = store.show(id);
        entry.askedAt = Date.now();
        if (store.wanted.has(id)) sync.work();
        return view.messages(id);
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
        await api.call(on ? "PUT" : "DELETE", path(id, emoji));
      },
      markRead(id, seq) {
        const held = store.entries.get(id)?.conversation;
        const to = seq ?? held?.last_seq ?? 0;
        if (held ? to <= held.last_read_seq : !to) return;
        store.takeRead(id, me, to);
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
  }
}
