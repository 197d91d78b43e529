/**
 * What the stream does not replay, by REST: the list, the first page, `changes`, single conversations. It works
 * off what the store wants while the stream is open, and tries again for as long.
 */

import { asClientError, isPassing, type Api, type ApiError } from "./api.ts";
import { backoffMs } from "./backoff.ts";
import * as border from "./border.ts";
import { pause } from "./environment.ts";
import type { Conversation, HistoryPage } from "./protocol.ts";
import type { Entry, MessageStore } from "./messageStore.ts";
import { addChanges, addPage, isStale, newThread, type Thread } from "./thread.ts";

export interface Sync {
  /** Ask for everything that may be different: after every (re)connect and `resync`. */
  readonly refresh: (until: AbortSignal) => void;
  /** Work off what the store wants, until the signal of the last `refresh`. */
  readonly work: () => void;
  readonly older: (conversationId: string) => Promise<void>;
  readonly moreConversations: () => Promise<void>;
  /** Null before the first answer. */
  readonly hasMoreConversations: () => boolean | null;
}

export interface SyncOptions {
  readonly api: Api;
  readonly store: MessageStore;
  readonly onChange: () => void;
  readonly onError: (error: ApiError | null) => void;
}

const AT_ONCE = 4;
const MAX_CHANGES_PAGES = 10; // 2,000 messages: loading anew is less
const KEPT = 20; // conversations whose messages are held although nobody has asked for them lately
const LATELY_MS = 300_000;

export function createSync({ api, store, onChange, onError }: SyncOptions): Sync {
  const { entries, wanted } = store;
  const loading = new Map<string, Promise<void>>();
  let session: AbortSignal = AbortSignal.abort();
  let wantsList = false;
  let isWorking = false;
  let listPages = 1;
  let listNext: string | null | undefined;

  return {
    refresh(until) {
      session = until;
      letGo();
      wantsList = true;
      for (const [id, { thread }] of entries) if (thread) wanted.add(id);
      void work();
    },
    work: () => void work(),
    older: (id) => once(id, () => readOlder(id)),
    moreConversations: () =>
      once("", async () => {
        if (!listNext) return;
        listPages += 1;
        await readList(listNext);
      }),
    hasMoreConversations: () => (listNext === undefined ? null : listNext !== null),
  };

  async function work(): Promise<void> {
    if (isWorking) return;
    isWorking = true;
    const until = session;
    for (let attempt = 0; !until.aborted && (wantsList || wanted.size > 0); ) {
      try {
        if (wantsList) await readListAgain();
        await Promise.all([...wanted].slice(0, AT_ONCE).map(catchUp));
        if (attempt > 0) onError(null);
        attempt = 0;
      } catch (error) {
        const problem = asClientError(error);
        if (!until.aborted) onError(problem);
        await pause(Math.max(problem.retryMs, backoffMs(attempt++)), until);
      }
      onChange();
    }
    isWorking = false;
    if (session !== until) void work();
  }

  async function readListAgain(): Promise<void> {
    wantsList = false;
    const step = store.step();
    const kept = new Set<string>();
    try {
      let before: string | null = null;
      for (let page = 0; page < listPages; page += 1) {
        before = await readList(before, kept);
        if (before === null) return store.keep(kept, step);
      }
    } catch (error) {
      wantsList = true;
      throw error;
    }
  }

  async function readList(before: string | null, kept?: Set<string>): Promise<string | null> {
    const place = before === null ? "" : `&before=${encodeURIComponent(before)}`;
    const page = border.conversationsPage(await get(`/conversations?limit=100${place}`));
    for (const conversation of page.items) {
      store.takeConversation(conversation);
      kept?.add(conversation.id);
    }
    onChange();
    return (listNext = page.has_more ? page.next_cursor : null);
  }

  async function catchUp(id: string): Promise<void> {
    wanted.delete(id);
    try {
      const thread = entries.get(id)?.thread;
      if (!thread || !entries.get(id)?.conversation) await readConversation(id);
      const entry = entries.get(id);
      if (!entry || !thread || entry.thread !== thread) return;
      if (thread.rev === null) await readFirstPage(id, entry, thread);
      else await readChanges(id, entry, thread);
      if (isStale(thread) && entry.thread === thread) wanted.add(id);
    } catch (error) {
      const problem = asClientError(error);
      if (isPassing(problem)) {
        wanted.add(id);
        throw problem;
      }
      store.drop(id);
    }
  }

  async function readConversation(id: string): Promise<void> {
    const seen = entries.get(id)?.seen;
    takeState(id, seen, border.conversation(await get(`/conversations/${encodeURIComponent(id)}`)));
  }

  /** A state that is newer than all that events had told when it was asked for: a rev beyond it was never taken. */
  function takeState(id: string, seen: number | undefined, state: Conversation): void {
    const entry = entries.get(id);
    if (entry && entry.seen === seen) entry.seen = 0;
    store.takeConversation(state);
  }

  async function readFirstPage(id: string, entry: Entry, thread: Thread): Promise<void> {
    const page = border.historyPage(await get(`/conversations/${encodeURIComponent(id)}/messages`));
    if (entry.thread === thread) takePage(entry, thread, page);
  }

  function takePage(entry: Entry, thread: Thread, page: HistoryPage): void {
    addPage(thread, page);
    store.touch(entry);
    page.items.forEach(store.takeMessage); // an own one is no longer waiting to be sent
  }

  async function readChanges(id: string, entry: Entry, thread: Thread): Promise<void> {
    const { low } = thread;
    let after = thread.rev!;
    for (let page = 0; ; page += 1) {
      const [seen, entrySeen] = [thread.seen, entry.seen];
      const changes = border.changes(await get(`/conversations/${id}/changes?limit=200&after_rev=${after}`));
      if (entry.thread !== thread) return;
      const outcome = page < MAX_CHANGES_PAGES ? addChanges(thread, changes, { low, seen, after }) : "reload";
      if (outcome === "reload") delete entry.conversation;
      takeState(id, entrySeen, changes.conversation);
      for (const position of changes.read_positions) store.takeRead(id, position.user_id, position.last_read_seq);
      for (const message of changes.items) store.takeMessage(message);
      if (outcome === "done") return;
      if (outcome === "reload") {
        entry.thread = newThread();
        wanted.add(id);
        return;
      }
      after = changes.rev;
    }
  }

  async function readOlder(id: string): Promise<void> {
    const entry = entries.get(id);
    const thread = entry?.thread;
    if (!thread?.hasMore || thread.rev === null) return;
    const page = border.historyPage(await get(`/conversations/${id}/messages?before=${thread.low}`));
    if (entry!.thread !== thread) return;
    takePage(entry!, thread, page);
    if (isStale(thread)) wanted.add(id);
    void work();
    onChange();
  }

  /** A second call while the first is under way is the first. */
  function once(key: string, act: () => Promise<void>): Promise<void> {
    let running = loading.get(key);
    if (!running) {
      running = act().finally(() => loading.delete(key));
      loading.set(key, running);
    }
    return running;
  }

  function letGo(): void {
    const idle = [...entries].filter(([, { thread, askedAt }]) => thread && askedAt < Date.now() - LATELY_MS);
    idle.sort(([, one], [, other]) => other.askedAt - one.askedAt);
    for (const [id] of idle.slice(KEPT)) store.hide(id);
  }

  function get(path: string): Promise<unknown> {
    return api.call("GET", path, undefined, session);
  }
}
