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
  readonly onSent: (message: WireMessage) => void;
  readonly onChange: (item: OutboxItem) => void;
  readonly signal: AbortSignal;
}

const DISCARDED: ClientError = { code: "discarded", message: "Discarded.", status: 0 };

export function createOutbox({ userId, api, storage, scope, onSent, onChange, signal }: OutboxOptions): Outbox {
  const items = new Map<string, OutboxItem>();
  const ended = new Set<string>(); // a record that is being deleted may still be read, or told of
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
    channel.onmessage = ({ data }: MessageEvent<OutboxItem | WireMessage>) => ("at" in data ? show(data) : take(data));
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
      void restore().then(() => items.forEach((item) => void drain(targetOf(item))));
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
    show(item);
    if (items.has(item.id)) await storage.put(item).catch(() => unsaved.add(item.id));
    tell(item);
    if (!waiting.has(targetOf(item))) void drain(targetOf(item));
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
    ended.add(message.client_message_id);
    if (items.has(message.client_message_id)) end(asSent(message));
  }

  /** It no longer waits. */
  function end(message: Message): void {
    const id = message.client_message_id;
    const item = items.get(id);
    items.delete(id);
    ended.add(id);
    storage.delete(id).catch(() => {});
    tellWaiter(message);
    if (item) onChange(item);
  }

  function tellWaiter(message: Message): void {
    waiters.get(message.client_message_id)?.(message);
    waiters.delete(message.client_message_id);
  }

  /** What is stored, also by other tabs. */
  async function restore(): Promise<ReadonlySet<string>> {
    // A storage may die under way: then what was written here is sent all the same.
    const stored = await storage.all().catch(() => line().filter(({ id }) => waiters.has(id)));
    for (const item of stored) if (!items.has(item.id)) show(item);
    return new Set([...unsaved, ...stored.map(({ id }) => id)]);
  }

  /** What waits for one conversation. A failure lets go of the lock until the next try. */
  async function drain(target: string, attempt = 0): Promise<void> {
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
    if (until.aborted) void drain(target);
    else if (wait) waiting.set(target, setTimeout(drain, wait, target, attempt + 1));
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
        if (isPassing(error)) return Math.max(1, error.retryMs, backoffMs(attempt));
        await change(id, { status: "failed", error: plain(error) });
      }
    }
    return 0;
  }
}

const targetOf = ({ recipient_id, conversation_id }: OutboxItem): string => recipient_id ?? conversation_id;
