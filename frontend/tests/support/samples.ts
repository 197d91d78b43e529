import type { Connected, Conversation, Message } from "../../lib/protocol.ts";

export const ADA = { id: "ada", name: "Ada", avatar_url: null };
export const BOB = { id: "bob", name: "Bob", avatar_url: null };
export const ROOM = "01900000-0000-7000-8000-000000000001";

export function aMessage(seq: number, more: Partial<Message> = {}): Message {
  return {
    id: `01900000-0000-7000-9000-${String(seq).padStart(12, "0")}`,
    conversation_id: ROOM,
    seq,
    rev: seq,
    sender: ADA,
    client_message_id: `01900000-0000-7000-a000-${String(seq).padStart(12, "0")}`,
    content: `message ${seq}`,
    reply_to_id: null,
    reactions: [],
    created_at: new Date(1_800_000_000_000 + seq * 1_000).toISOString(),
    edited_at: null,
    deleted_at: null,
    ...more,
  };
}

export function aConversation(more: Partial<Conversation> = {}): Conversation {
  return {
    id: ROOM,
    kind: "direct",
    title: null,
    last_seq: 0,
    rev: 1,
    last_message: null,
    unread: 0,
    last_read_seq: 0,
    role: "member",
    muted_until: null,
    hidden: false,
    member_count: 2,
    members: [ADA, BOB].map((person) => ({ ...person, role: "member", last_read_seq: 0 })),
    ...more,
  };
}

export function connectedAt(cursor: string): Connected {
  return {
    user_id: "bob",
    cursor,
    recovered: true,
    replayed: 0,
    heartbeat_seconds: 10,
    server_time: "2026-01-01T00:00:00Z",
  };
}

/** A token such as a host app would sign; nobody checks it here. */
export function aToken(sub: string, more: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ sub, ...more })}.signature`;
}
