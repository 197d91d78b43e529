/**
 * What the stream does not replay, by REST: the list, the first page, `changes`, single conversations. It works
 * off what the store wants while the stream is open, and tries again for as long.
 */

import { asClientError, isPassing, type Api, type ApiError } from "./api.ts";
import { backoffMs } from "./backoff.ts";
import * as border from "./border.ts";
import { pause } from "./environment.ts";
import type { Entry, MessageStore } from "./messageStore.ts";
import { addChanges, addPage, isStale, newThread, type Thread } from "./thread.ts";

export interface Sync {
  /** Ask for everything that may be different: after every (re)connect and `resync`. */
  readonly refresh: (until: AbortSignal) => void;
  /** Work off what the store wants, until the signal of the last `refresh`. */
  readonly work: () => Promise<void>;
  readonly older: (conversationId: string) => Promise<void>;
  readonly moreConversations: () => Promise<void>;
  /** Where the list goes on; null at its end, undefined before the first answer. */
  readonly next: () => string | null | undefined;
}

export interface SyncOptions {
  readonly api: Api;
  readonly store: MessageStore;
  readonly onChange: () => void;
  readonly onError: (error: ApiError | null) => void;
}

const LIST = "";
const AT_ONCE = 4;
const MAX_CHANGES_PAGES = 10; // 2,000 messages: loading anew is less
const KEPT = 20; // conversations whose messages are held although nobody has asked for them lately
const LATELY_MS = 300_000;

export function createSync({ api, store, onChange, onError }: SyncOptions): Sync {
  const { entries, wanted } = store;
  const loading = new Map<string, Promise<void>>();
  let session: AbortSignal = AbortSignal.abort();
  let isWorking = false;
  let wake = new AbortController();
  let pages = 1; // of the list
  let next: string | null | undefined; // what asks for its next page

  return {
    refresh(until) {
      session = until;
      letGo();
      wanted.add(LIST);
      wake.abort();
      for (const [id, { thread }] of entries) if (thread) wanted.add(id);
      void work();
    },
    work,
    older: (id) => once(id, () => readOlder(id)),
    moreConversations: () =>
      once(LIST, async () => {
        if (!next) return;
        pages += 1;
        await readList(next);
      }),
    next: () => next,
  };

  async function work(): Promise<void> {
    if (isWorking) return;
    isWorking = true;
    const until = session;
    for (let attempt = 0; !until.aborted && wanted.size > 0; ) {
      try {
        // The list first: it tells what else need not be asked for.
        await Promise.all(wanted.has(LIST) ? [catchUp(LIST)] : [...wanted].slice(0, AT_ONCE).map(catchUp));
        if (attempt > 0) onError(null);
        attempt = 0;
      } catch (error) {
        const problem = asClientError(error);
        if (!until.aborted) onError(problem);
        wake = new AbortController();
        await pause(Math.max(problem.retryMs, backoffMs(attempt++)), AbortSignal.any([until, wake.signal]));
      }
      onChange();
    }
    isWorking = false;
    if (session !== until) void work();
  }

  async function catchUp(id: string): Promise<void> {
    wanted.delete(id);
    try {
      await (id === LIST ? readLists() : readOne(id));
    } catch (error) {
      const problem = asClientError(error);
      if (id !== LIST && !isPassing(problem)) return store.drop(id);
      wanted.add(id);
      throw problem;
    }
  }

  async function readLists(): Promise<void> {
    const step = store.step();
    const kept = new Set<string>();
    let query: string | null = "";
    for (let page = 0; page < pages; page += 1) {
      query = await readList(query, kept);
      if (query === null) break;
    }
    // Where the list goes on, what is further down is read with its page again.
    store.keep(kept, step);
  }

  async function readList(query: string, kept?: Set<string>): Promise<string | null> {
    const page = border.conversationsPage(await get(`?limit=100${query}`));
    for (const conversation of page.items) {
      store.takeConversation(conversation);
      kept?.add(conversation.id);
    }
    onChange();
    return (next = page.has_more ? `&before=${encodeURIComponent(page.next_cursor!)}` : null);
  }

  async function readOne(id: string): Promise<void> {
    const { thread, conversation, seen } = entries.get(id) ?? ({} as Partial<Entry>);
    if (!thread || !conversation) store.takeConversation(border.conversation(await get(pathOf(id))), seen);
    if (!isCurrent(id, thread)) return;
    if (thread.rev === null) await readPage(id, thread);
    else await readChanges(id, thread, thread.rev);
  }

  async function readPage(id: string, thread: Thread, query = ""): Promise<void> {
    const page = border.historyPage(await get(`${pathOf(id)}/messages${query}`));
    // Of two first pages, after a failure beside one, the one that came first has made the copy, and may have been
    // extended: the later one would cut it off above what was added.
    if (!isCurrent(id, thread) || !query !== (thread.rev === null)) return;
    addPage(thread, page);
    store.touch(id);
    page.items.forEach(store.takeMessage); // an own one is no longer waiting to be sent
    if (isStale(thread)) wanted.add(id);
  }

  async function readChanges(id: string, thread: Thread, after: number): Promise<void> {
    const { low } = thread;
    for (let page = 0; ; page += 1) {
      const { seen } = thread;
      const entrySeen = entries.get(id)?.seen;
      const changes = border.changes(await get(`${pathOf(id)}/changes?limit=200&after_rev=${after}`));
      if (!isCurrent(id, thread)) return;
      const outcome = page < MAX_CHANGES_PAGES ? addChanges(thread, changes, { low, seen, after }) : "reload";
      const entry = store.touch(id);
      if (outcome === "reload") {
        delete entry.conversation;
        entry.thread = newThread();
      }
      store.takeConversation(changes.conversation, entrySeen);
      for (const position of changes.read_positions) store.takeRead(id, position.user_id, position.last_read_seq);
      changes.items.forEach(store.takeMessage);
      if (outcome !== "more") {
        if (isStale(entry.thread!)) wanted.add(id);
        return;
      }
      after = changes.rev;
    }
  }

  async function readOlder(id: string): Promise<void> {
    const thread = entries.get(id)?.thread;
    if (!thread?.hasMore || thread.rev === null) return;
    await readPage(id, thread, `?before=${thread.low}`);
    void work();
    onChange();
  }

  /** Whether it was not let go of, or begun anew, while an answer was on its way. */
  function isCurrent(id: string, thread: Thread | null | undefined): thread is Thread {
    return !!thread && entries.get(id)?.thread === thread;
  }

  /** A second call while the first is under way is the first. */
  function once(key: string, act: () => Promise<void>): Promise<void> {
    const running = loading.get(key) ?? act().finally(() => loading.delete(key));
    loading.set(key, running);
    return running;
  }

  function letGo(): void {
    const idle = [...entries].filter(([, { thread, askedAt }]) => thread && askedAt < Date.now() - LATELY_MS);
    idle.sort(([, one], [, other]) => other.askedAt - one.askedAt);
    for (const [id] of idle.slice(KEPT)) store.touch(id).thread = null;
  }

  function get(path: string): Promise<unknown> {
    return api.call("GET", `/conversations${path}`, undefined, session);
  }
}

const pathOf = (id: string): string => `/${encodeURIComponent(id)}`;
