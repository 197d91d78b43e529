/**
 * Sending. A message is shown, committed to the outbox, and only then posted, with the same `client_message_id`
 * until the server has answered. One tab at a time empties the outbox, one message at a time per conversation.
 */

import { asClientError, isPassing, plain, type Api } from "./api.ts";
import { backoffMs } from "./backoff.ts";
import { message as checkMessage } from "./border.ts";
import { channelOf, locksOf, newUuid } from "./environment.ts";
import type { OutboxItem, OutboxStorage } from "./outboxStorage.ts";
import type { Message as WireMessage } from "./protocol.ts";
import { asSent } from "./thread.ts";
import type { ClientError, Message, SendRequest } from "./types.ts";

export interface Outbox {
  /** By `client_message_id`: what is being sent, waits, or was refused. */
  readonly items: ReadonlyMap<string, OutboxItem>;
  /** The same, in the order of writing. */
  readonly line: () => OutboxItem[];
  /** Resolves with what became of it; at the signal, with what it is then. */
  readonly send: (request: SendRequest) => Promise<Message>;
  readonly retry: (clientMessageId: string) => void;
  readonly discard: (clientMessageId: string) => void;
  /** It has been sent: an answer, an event or another tab says so. */
  readonly settle: (message: WireMessage) => void;
  readonly clear: () => Promise<unknown>;
  /** Send what waits, while the signal lasts. */
  readonly drain: (signal: AbortSignal) => void;
}

export interface OutboxOptions {
  readonly userId: string;
  readonly api: Api;
  readonly storage: OutboxStorage;
  /** Names the lock and the channel. */
  readonly scope: string;
  /** The one that a message with a recipient goes to, if it is known: what is written to either keeps its order. */
  readonly conversationOf: (item: OutboxItem) => string | undefined;
  readonly onSent: (message: WireMessage) => void;
  readonly onChange: (item: OutboxItem) => void;
  readonly signal: AbortSignal;
}

const MOST_ENDED = 1_000; // forgotten, one would be posted once more with its key: no harm
const UNHEARD_MS = 2_000; // the tab that has sent it says so sooner

const DISCARDED: ClientError = { code: "discarded", message: "Discarded.", status: 0 };

export function createOutbox(options: OutboxOptions): Outbox {
  const { userId, api, storage, scope, conversationOf, onSent, onChange, signal } = options;
  const items = new Map<string, OutboxItem>();
  const ended = new Set<string>(); // a record that is being deleted may still be read, or told of
  const saving = new Set<string>(); // not known to be stored
  const unsaved = new Set<string>(); // a full disk: they are sent all the same
  const waiters = new Map<string, (end: Message) => void>();
  const waiting = new Map<string, ReturnType<typeof setTimeout>>(); // targets, until the next try
  const busy = new Set<string>(); // targets
  const again = new Set<string>(); // targets for which something was written meanwhile
  let lastAt = 0;
  let active = AbortSignal.abort();

  // Other tabs show the same; that a message was sent the one that sent it knows first.
  const channel = channelOf(`${scope}:outbox`);
  if (channel) {
    channel.onmessage = ({ data }: MessageEvent<OutboxItem | WireMessage>) => {
      if (!("at" in data)) return take(data);
      show(data);
      start(data); // the tab that wrote it may be gone before it is sent
    };
  }
  signal.addEventListener("abort", () => {
    waiting.forEach(clearTimeout);
    channel?.close();
    items.forEach(tellWaiter); // as it is: what waits is sent by another tab, or by the next client
  });
  void restore();

  return {
    items,
    line,
    send({ content, replyToId = null, conversationId = "", recipientId }) {
      lastAt = Math.max(lastAt + 1, Date.now());
      const id = newUuid();
      return new Promise((resolve) => {
        waiters.set(id, resolve);
        void keep({
          id,
          client_message_id: id,
          conversation_id: conversationId,
          recipient_id: recipientId,
          sender: { id: userId, name: null, avatar_url: null },
          content,
          reply_to_id: replyToId,
          seq: 0,
          rev: 0,
          reactions: [],
          created_at: new Date(lastAt).toISOString(),
          edited_at: null,
          deleted_at: null,
          at: lastAt,
          status: "sending",
          error: null,
        });
      });
    },
    retry: (id) => void change(id, { status: "sending", error: null }),
    discard,
    settle,
    // Also what was written before, and has not been read yet.
    clear: () => restore().then(() => Promise.all([...items.keys()].map(discard))),
    drain(until) {
      active = until;
      waiting.forEach(clearTimeout);
      waiting.clear();
      void restore().then(() => items.forEach((item) => void drain(item)));
    },
  };

  function line(): OutboxItem[] {
    return [...items.values()].sort((one, other) => one.at - other.at);
  }

  function discard(id: string): Promise<void> | undefined {
    return change(id, { status: "failed", error: DISCARDED });
  }

  function change(id: string, to: Pick<OutboxItem, "status" | "error">): Promise<void> | undefined {
    const item = items.get(id);
    return item && keep({ ...item, ...to });
  }

  /** The item in its new state: shown, committed, told to the other tabs, and sent if it is to be. */
  async function keep(item: OutboxItem): Promise<void> {
    const { id } = item;
    show(item);
    if (items.has(id)) {
      saving.add(id);
      await storage.put(item).then(() => saving.delete(id), () => unsaved.add(id));
    }
    tell(item);
    start(item);
  }

  function start(item: OutboxItem): void {
    if (!waiting.has(targetOf(item))) void drain(item);
  }

  function tell(news: OutboxItem | WireMessage): void {
    if (!signal.aborted) channel?.postMessage(news);
  }

  function show(item: OutboxItem): void {
    if (item.error?.code === DISCARDED.code) return end(item);
    if (ended.has(item.id)) return;
    lastAt = Math.max(lastAt, item.at); // the clock may have been set back since
    items.set(item.id, item);
    if (item.error) tellWaiter(item);
    onChange(item);
  }

  function take(message: WireMessage): void {
    settle(message);
    onSent(message);
  }

  function settle(message: WireMessage): void {
    remember(message.client_message_id);
    if (items.has(message.client_message_id)) end(asSent(message));
  }

  /** It no longer waits. */
  function end(message: Message): void {
    const id = message.client_message_id;
    const item = items.get(id);
    for (const held of [items, saving, unsaved]) held.delete(id);
    remember(id);
    storage.delete(id).catch(() => {});
    tellWaiter(message);
    if (item) onChange(item);
  }

  function remember(id: string): void {
    if (ended.add(id).size > MOST_ENDED) ended.delete(ended.values().next().value!);
  }

  function tellWaiter(message: Message): void {
    waiters.get(message.client_message_id)?.(message);
    waiters.delete(message.client_message_id);
  }

  /** What is stored, also by other tabs: in the back/forward cache a page does not hear what becomes of it. */
  async function restore(): Promise<ReadonlySet<string>> {
    const known = new Set(line().filter(({ id }) => !saving.has(id)));
    const stored = await storage.all().catch(() => null);
    // A storage may die under way: then what was written here is sent all the same.
    const there = stored ?? line().filter(({ id }) => waiters.has(id));
    for (const item of there) {
      const held = items.get(item.id);
      if (!held || (known.has(held) && held.status !== item.status)) show(item);
    }
    const ids = new Set([...unsaved, ...there.map(({ id }) => id)]);
    if (stored) for (const item of known) if (!ids.has(item.id)) setTimeout(letGo, UNHEARD_MS, item);
    return ids;
  }

  /** Sent, or given up. */
  function letGo(item: OutboxItem): void {
    if (items.get(item.id) === item && !signal.aborted) end(item);
  }

  /** The conversation of the item, or the person as long as there is none. */
  function targetOf(item: OutboxItem): string {
    return conversationOf(item) ?? item.recipient_id!;
  }

  /** What waits for the conversation of an item. A failure lets go of the lock until the next try. */
  async function drain(item: OutboxItem, attempt = 0): Promise<void> {
    const target = targetOf(item);
    waiting.delete(target);
    again.add(target);
    if (busy.has(target) || active.aborted) return;
    busy.add(target);
    const until = active;
    const pass = () => sendInOrder(target, attempt, until);
    let wait = 0;
    while (!wait && !until.aborted && again.delete(target)) {
      // A rejection: site data are blocked; or the place was given up with the signal, and nothing is sent any more.
      const locked = locksOf()?.request(`${scope}:outbox:${target}`, { signal: until }, pass);
      wait = await (locked ?? pass()).catch(pass);
    }
    busy.delete(target);
    const next = targetOf(item); // another one, if the conversation has become known under way
    if (until.aborted || (!wait && next !== target)) void drain(item);
    else if (wait) waiting.set(next, setTimeout(drain, wait, item, attempt + 1));
  }

  /** How long to wait before the next try; 0 if all went well. */
  async function sendInOrder(target: string, attempt: number, until: AbortSignal): Promise<number> {
    const stored = await restore();
    for (const item of line()) {
      const { id, client_message_id, recipient_id, conversation_id, content, reply_to_id } = item;
      // Not stored: another tab has sent it, and says so in a moment.
      const isDue = items.get(id)?.status === "sending" && stored.has(id);
      if (!isDue || targetOf(item) !== target) continue;
      try {
        const to = recipient_id ? { recipient_id } : { conversation_id };
        const request = { ...to, client_message_id, content, reply_to_id };
        const message = checkMessage(await api.call("POST", "/messages/send", request, until));
        take(message);
        tell(message);
      } catch (cause) {
        const error = asClientError(cause);
        // A proxy's own page; but this is what it says of one message, and the others must not wait behind it for ever.
        if (isPassing(error) && ![403, 413].includes(error.status)) return Math.max(1, error.retryMs, backoffMs(attempt));
        await change(id, { status: "failed", error: plain(error) });
      }
    }
    return 0;
  }
}
