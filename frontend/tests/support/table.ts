/**
 * One conversation as the server's tables hold it: each change takes the next rev and gives the event that the
 * readers are told of it. The answers are snapshots.
 */

import type { Changes, Conversation, HistoryPage, Message, StreamEvent } from "../../lib/protocol.ts";
import type { Random } from "./random.ts";
import { ADA, aConversation, aMessage, BOB, ROOM } from "./samples.ts";

export interface Table {
  /** Some change; the event that tells of it. */
  readonly change: (random: Random) => StreamEvent;
  readonly messages: () => Message[];
  /** As `bob` sees it. */
  readonly conversation: () => Conversation;
  readonly get: (path: string) => Conversation | HistoryPage | Changes | { items: Conversation[] };
}

export function createTable(): Table {
  const messages: Message[] = [];
  const read = new Map([
    ["ada", 0],
    ["bob", 0],
  ]);
  let rev = 1;
  let title: string | null = null;

  function change(random: Random): StreamEvent {
    const living = messages.filter(({ deleted_at }) => deleted_at === null);
    const kind = random.below(10);
    if (living.length === 0 || kind < 4) {
      const seq = messages.length + 1;
      const message = aMessage(seq, { rev: ++rev, sender: random.pick([ADA, BOB]) });
      messages.push(message);
      read.set(message.sender.id, seq);
      return { event: "new_message", data: message };
    }
    if (kind < 8) return ofMessage(random.pick(living), kind, random);
    if (kind === 8) {
      title = `title ${++rev}`;
      return { event: "conversation_updated", data: conversation() };
    }
    const user_id = random.pick(["ada", "bob"]);
    read.set(user_id, Math.max(read.get(user_id)!, random.below(messages.length + 1)));
    const last_read_seq = read.get(user_id)!;
    return { event: "read_receipt", data: { conversation_id: ROOM, user_id, last_read_seq, read_at: "" } };
  }

  function ofMessage({ id, seq }: Message, kind: number, random: Random): StreamEvent {
    const put = (more: Partial<Message>) => (messages[seq - 1] = { ...messages[seq - 1]!, ...more, rev: ++rev });
    const where = { conversation_id: ROOM, message_id: id };
    if (kind === 4) {
      const { deleted_at } = put({ content: "", reactions: [], deleted_at: `at ${rev}` });
      return { event: "message_deleted", data: { ...where, rev, deleted_at: deleted_at! } };
    }
    if (kind === 5) {
      const { reactions } = put({ reactions: [{ emoji: "x", count: random.below(9), user_ids: [] }] });
      return { event: "reaction_update", data: { ...where, rev, reactions } };
    }
    return { event: "message_edited", data: put({ content: `edited ${rev}`, edited_at: `at ${rev}` }) };
  }

  function conversation(): Conversation {
    const members = [ADA, BOB].map((one) => ({ ...one, role: "member" as const, last_read_seq: read.get(one.id)! }));
    return aConversation({
      title,
      rev,
      members,
      last_seq: messages.length,
      last_message: messages.at(-1) ?? null,
      last_read_seq: read.get("bob")!,
      unread: messages.length - read.get("bob")!,
    });
  }

  function get(path: string) {
    const { pathname, searchParams } = new URL(path, "http://localhost");
    const limit = Math.min(Number(searchParams.get("limit") ?? 5), 5); // small pages, so that there are several
    if (pathname.endsWith("/changes")) {
      const after = Number(searchParams.get("after_rev"));
      const later = messages.filter((one) => one.rev > after).sort((one, other) => one.rev - other.rev);
      const items = later.slice(0, limit);
      const has_more = later.length > limit;
      const positions = [...read].map(([user_id, last_read_seq]) => ({ user_id, last_read_seq }));
      const upTo = has_more ? items.at(-1)!.rev : rev;
      return { rev: upTo, joined_seq: 0, conversation: conversation(), read_positions: positions, items, has_more };
    }
    if (pathname.endsWith("/messages")) {
      const before = Number(searchParams.get("before") ?? messages.length + 1);
      const older = messages.slice(0, before - 1);
      const items = older.slice(-limit);
      return { items, next_cursor: null, has_more: older.length > limit, rev };
    }
    if (pathname === "/conversations") return { items: [conversation()], next_cursor: null, has_more: false };
    return conversation();
  }

  return { change, messages: () => [...messages], conversation, get };
}
