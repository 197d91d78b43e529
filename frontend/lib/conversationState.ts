/** A conversation as the list shows it, and what events make of it. Pure: a new object if anything is different. */

import type { Conversation, Member, Message } from "./protocol.ts";
import { patched, type Patch } from "./thread.ts";

/** The newer of two states. Read positions only go forward, and the own settings have no rev: the latest answer holds. */
export function merged(held: Conversation | undefined, given: Conversation): Conversation {
  if (!held) return given;
  const [base, other] = given.rev < held.rev ? [held, given] : [given, held];
  const newest = base.last_seq < other.last_seq ? other : base;
  return counted({
    ...base,
    last_seq: newest.last_seq,
    last_message: newest.last_message,
    last_read_seq: Math.max(base.last_read_seq, other.last_read_seq),
    members: base.members.map((member) => furthest(member, other.members)),
    hidden: given.hidden,
    muted_until: given.muted_until,
  });
}

function furthest(member: Member, others: readonly Member[]): Member {
  const read = others.find(({ id }) => id === member.id)?.last_read_seq ?? 0;
  return read > member.last_read_seq ? { ...member, last_read_seq: read } : member;
}

/** A message in some state: the newest one is the preview, and its sender has read up to it (clause 2.6). */
export function withMessage(conversation: Conversation, message: Message, me: string): Conversation {
  const { last_message: last, last_seq, rev } = conversation;
  if (message.seq > last_seq) {
    const next = { ...conversation, last_seq: message.seq, last_message: message, hidden: false };
    return withRead({ ...next, rev: Math.max(rev, message.rev) }, message.sender.id, message.seq, me);
  }
  if (last?.id !== message.id || last.rev > message.rev) return conversation;
  return { ...conversation, last_message: message };
}

export function withPatch(conversation: Conversation, messageId: string, patch: Patch): Conversation {
  const { last_message: last } = conversation;
  const next = last?.id === messageId ? patched(last, patch) : last;
  return next === last ? conversation : { ...conversation, last_message: next };
}

export function withRead(conversation: Conversation, userId: string, seq: number, me: string): Conversation {
  const member = conversation.members.find(({ id }) => id === userId);
  const own = userId === me ? Math.max(conversation.last_read_seq, seq) : conversation.last_read_seq;
  const isNew = member !== undefined && member.last_read_seq < seq;
  const members = isNew
    ? conversation.members.map((each) => (each === member ? { ...each, last_read_seq: seq } : each))
    : conversation.members;
  return counted({ ...conversation, members, last_read_seq: own });
}

function counted(conversation: Conversation): Conversation {
  return { ...conversation, unread: Math.max(0, conversation.last_seq - conversation.last_read_seq) };
}

/** Newest first, as the server lists them: a conversation without a message stands where it was made (UUIDv7). */
export function activeAt({ id, last_message: last }: Conversation): number {
  return last ? Date.parse(last.created_at) : Number.parseInt(id.replace("-", "").slice(0, 12), 16) || 0;
}
