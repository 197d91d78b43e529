/** A conversation as the list shows it, and what events make of it. Pure: a new object if anything is different. */

import type { Conversation } from "./protocol.ts";
import { idOf, latest, type Change } from "./thread.ts";

/**
 * The newer of two states. Read positions only go forward, and the own settings have no rev: the latest answer holds,
 * but one from before a message does not know that this ended the hiding.
 */
export function merged(held: Conversation | undefined, given: Conversation): Conversation {
  if (!held) return given;
  const [base, other] = given.rev < held.rev ? [held, given] : [given, held];
  const { last_seq, last_message } = base.last_seq < other.last_seq ? other : base;
  const { muted_until } = given;
  const { hidden } = given.last_seq < held.last_seq ? held : given;
  const members = base.members.map((member) => {
    const before = other.members.find(({ id }) => id === member.id);
    return before ? raised(member, before.last_read_seq) : member;
  });
  return counted({ ...raised(base, other.last_read_seq), last_seq, last_message, members, hidden, muted_until });
}

/**
 * A new message is the preview, and its sender has read up to it (clause 2.6). Over a gap the rev stays: an answer from
 * before the message may still tell what was missed.
 */
export function withMessage(conversation: Conversation, change: Change, me: string): Conversation {
  const { last_message: last, last_seq, rev } = conversation;
  if ("seq" in change && change.seq > last_seq) {
    const next = { ...conversation, last_seq: change.seq, last_message: change, hidden: false };
    return withRead({ ...next, rev: change.rev === rev + 1 ? change.rev : rev }, change.sender.id, change.seq, me);
  }
  if (!last || last.id !== idOf(change)) return conversation;
  return { ...conversation, last_message: latest(last, change) };
}

export function withRead(conversation: Conversation, userId: string, seq: number, me: string): Conversation {
  const members = conversation.members.map((member) => (member.id === userId ? raised(member, seq) : member));
  return counted({ ...(userId === me ? raised(conversation, seq) : conversation), members });
}

const raised = <T extends { readonly last_read_seq: number }>(one: T, seq: number): T =>
  one.last_read_seq < seq ? { ...one, last_read_seq: seq } : one;

const counted = (conversation: Conversation): Conversation => ({
  ...conversation,
  unread: Math.max(0, conversation.last_seq - conversation.last_read_seq),
});

/** Newest first, as the server lists them: a conversation without a message stands where it was made (UUIDv7). */
export const activeAt = ({ id, last_message: last }: Conversation): number =>
  last ? Date.parse(last.created_at) : parseInt(id.replace("-", "").slice(0, 12), 16) || 0;
