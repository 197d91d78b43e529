/**
 * What comes from outside is taken over field by field, or refused: a wrong type, `__proto__` and fields of a
 * newer server end here. A test holds the fields against the server's documents.
 */

import type * as wire from "./protocol.ts";

export type Check<T> = (value: unknown) => T;

function refuse(): never {
  throw new TypeError("Not as agreed.");
}

const when =
  <T>(isRight: (value: unknown) => boolean): Check<T> =>
  (value) =>
    isRight(value) ? (value as T) : refuse();

export const text = when<string>((value) => typeof value === "string");
const flag = when<boolean>((value) => typeof value === "boolean");
const number = when<number>(Number.isFinite);
const whole = when<number>(Number.isSafeInteger);
const oneOf = <T extends string>(...words: T[]) => when<T>((value) => words.includes(value as T));

const orNull =
  <T>(check: Check<T>): Check<T | null> =>
  (value) =>
    value === null ? null : check(value);

// What JSON has besides lists has no `map` that could be called, and null has no fields: a TypeError, too.
const list =
  <T>(check: Check<T>): Check<readonly T[]> =>
  (value) =>
    (value as unknown[]).map((item) => check(item));

const record =
  <T>(fields: { readonly [K in keyof T]-?: Check<T[K]> }): Check<T> =>
  (value) => {
    const taken = {} as T;
    for (const name in fields) taken[name] = fields[name]((value as T)[name]);
    return taken;
  };

const textOrNull = orNull(text);
const person = { id: text, name: textOrNull, avatar_url: textOrNull };
const role = oneOf<wire.Role>("owner", "member");
const reactions = list(record<wire.Reaction>({ emoji: text, count: whole, user_ids: list(text) }));

export const message = record<wire.Message>({
  id: text,
  conversation_id: text,
  seq: whole,
  rev: whole,
  sender: record<wire.Person>(person),
  client_message_id: text,
  content: text,
  reply_to_id: textOrNull,
  reactions,
  created_at: text,
  edited_at: textOrNull,
  deleted_at: textOrNull,
});

const own = { id: text, muted_until: textOrNull, hidden: flag };
const readPosition = { user_id: text, last_read_seq: whole };

export const conversation = record<wire.Conversation>({
  ...own,
  kind: oneOf<"direct" | "group">("direct", "group"),
  title: textOrNull,
  last_seq: whole,
  rev: whole,
  last_message: orNull(message),
  unread: whole,
  last_read_seq: whole,
  role,
  member_count: whole,
  members: list(record<wire.Member>({ ...person, role, last_read_seq: whole })),
});

export const changes = record<wire.Changes>({
  rev: whole,
  joined_seq: whole,
  conversation,
  read_positions: list(record<wire.ReadPosition>(readPosition)),
  items: list(message),
  has_more: flag,
});

const page = { next_cursor: textOrNull, has_more: flag };

export const historyPage = record<wire.HistoryPage>({ ...page, items: list(message), rev: whole });
export const conversationsPage = record<wire.ConversationsPage>({ ...page, items: list(conversation) });

const ownSettings = record<wire.OwnSettings>(own);
const notice = record<wire.ConversationNotice>({ id: text, rev: whole, role: orNull(() => undefined) });

/** Its forms are told apart by what they hold (clause 3.7). */
const conversationUpdated: Check<wire.EventData["conversation_updated"]> = (value) => {
  const { kind, rev } = value as Partial<wire.Conversation>;
  return (kind ? conversation : rev === undefined ? ownSettings : notice)(value);
};

const ofMessage = { conversation_id: text, message_id: text, rev: whole };

export const eventData: { readonly [N in wire.EventName]: Check<wire.EventData[N]> } = {
  connected: record<wire.Connected>({
    user_id: text,
    cursor: text,
    recovered: flag,
    replayed: whole,
    heartbeat_seconds: number,
    server_time: text,
  }),
  new_message: message,
  message_edited: message,
  message_deleted: record<wire.MessageDeleted>({ ...ofMessage, deleted_at: text }),
  reaction_update: record<wire.ReactionUpdate>({ ...ofMessage, reactions }),
  read_receipt: record<wire.ReadReceipt>({ ...readPosition, conversation_id: text, read_at: text }),
  typing_status: record<wire.TypingStatus>({
    conversation_id: text,
    user_id: text,
    is_typing: flag,
    expires_in: number,
  }),
  conversation_updated: conversationUpdated,
  heartbeat: record<wire.Heartbeat>({ server_time: text, head: whole }),
  resync: record<wire.Resync>({ reason: text, scope: oneOf<"changes" | "all">("changes", "all"), cursor: text }),
};

export const EVENT_NAMES = Object.keys(eventData) as wire.EventName[];

/** One event as it came; null if it is none of ours, or not as the protocol says. */
export function parseEvent(event: string, json: string): wire.StreamEvent | null {
  try {
    const name = EVENT_NAMES.find((each) => each === event)!;
    return { event: name, data: eventData[name](JSON.parse(json)) } as wire.StreamEvent;
  } catch {
    return null;
  }
}
