/**
 * What crosses the wire, as `docs/openapi.json` and `docs/asyncapi.yaml` describe it: names, cases and
 * nulls are the server's. A test holds these types and `border.ts` against those documents.
 */

export interface Person {
  readonly id: string;
  readonly name: string | null;
  readonly avatar_url: string | null;
}

export type Role = "owner" | "member";

export interface Member extends Person {
  readonly role: Role;
  readonly last_read_seq: number;
}

export interface Reaction {
  readonly emoji: string;
  readonly count: number;
  /** The first of them: at most 20. */
  readonly user_ids: readonly string[];
}

export interface Message {
  readonly id: string;
  readonly conversation_id: string;
  /** Its place in the conversation, dense from 1. */
  readonly seq: number;
  /** The rev of its latest change; a lower one is older. */
  readonly rev: number;
  readonly sender: Person;
  readonly client_message_id: string;
  /** Empty when deleted. */
  readonly content: string;
  readonly reply_to_id: string | null;
  readonly reactions: readonly Reaction[];
  readonly created_at: string;
  readonly edited_at: string | null;
  readonly deleted_at: string | null;
}

export interface Conversation {
  readonly id: string;
  readonly kind: "direct" | "group";
  readonly title: string | null;
  readonly last_seq: number;
  readonly rev: number;
  /** Null where there is none, or where it was sent before the reader joined. */
  readonly last_message: Message | null;
  readonly unread: number;
  readonly last_read_seq: number;
  readonly role: Role;
  readonly muted_until: string | null;
  readonly hidden: boolean;
  readonly member_count: number;
  /** The first 20 by id. */
  readonly members: readonly Member[];
}

export interface ReadPosition {
  readonly user_id: string;
  readonly last_read_seq: number;
}

export interface Changes {
  readonly rev: number;
  readonly joined_seq: number;
  readonly conversation: Conversation;
  readonly read_positions: readonly ReadPosition[];
  readonly items: readonly Message[];
  readonly has_more: boolean;
}

export interface HistoryPage {
  readonly items: readonly Message[];
  readonly next_cursor: string | null;
  readonly has_more: boolean;
  readonly rev: number;
}

export interface ConversationsPage {
  readonly items: readonly Conversation[];
  readonly next_cursor: string | null;
  readonly has_more: boolean;
}

export interface Connected {
  readonly user_id: string;
  readonly cursor: string;
  readonly recovered: boolean;
  readonly replayed: number;
  readonly heartbeat_seconds: number;
  readonly server_time: string;
}

export interface MessageDeleted {
  readonly conversation_id: string;
  readonly message_id: string;
  readonly rev: number;
  readonly deleted_at: string;
}

export interface ReactionUpdate {
  readonly conversation_id: string;
  readonly message_id: string;
  readonly rev: number;
  readonly reactions: readonly Reaction[];
}

export interface ReadReceipt {
  readonly conversation_id: string;
  readonly user_id: string;
  readonly last_read_seq: number;
  readonly read_at: string;
}

export interface TypingStatus {
  readonly conversation_id: string;
  readonly user_id: string;
  readonly is_typing: boolean;
  /** Seconds after which it is no longer true. */
  readonly expires_in: number;
}

/** Something changed that is not told here, or (`role` null) the reader is no longer a member. */
export interface ConversationNotice {
  readonly id: string;
  readonly rev: number;
  readonly role?: null;
}

/** The user's own settings, to the user's own devices. */
export interface OwnSettings {
  readonly id: string;
  readonly muted_until: string | null;
  readonly hidden: boolean;
}

export interface Heartbeat {
  readonly server_time: string;
  readonly head: number;
}

export interface Resync {
  readonly reason: string;
  readonly scope: "changes" | "all";
  readonly cursor: string;
}

/** The data of each event, by the event's name. */
export interface EventData {
  readonly connected: Connected;
  readonly new_message: Message;
  readonly message_edited: Message;
  readonly message_deleted: MessageDeleted;
  readonly reaction_update: ReactionUpdate;
  readonly read_receipt: ReadReceipt;
  readonly typing_status: TypingStatus;
  readonly conversation_updated: Conversation | ConversationNotice | OwnSettings;
  readonly heartbeat: Heartbeat;
  readonly resync: Resync;
}

export type EventName = keyof EventData;

/** One event of the stream; `event` tells what `data` is. */
export type StreamEvent = { [N in EventName]: { readonly event: N; readonly data: EventData[N] } }[EventName];

export interface StreamSession {
  readonly user_id: string;
  readonly expires_at: string;
}

export interface StreamTicket {
  readonly ticket: string;
  readonly expires_at: string;
}

export interface User extends Person {}

export interface CreateConversation {
  readonly kind: "direct" | "group";
  readonly title?: string | null;
  readonly member_ids: readonly string[];
  /** A UUID; repeated, it makes the group once. */
  readonly client_conversation_id?: string;
}
