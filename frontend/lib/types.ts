/** What an application gives to the client or the hook, and what it gets. */

import type { Conversation, CreateConversation, Message as WireMessage, Resync, StreamEvent } from "./protocol.ts";

export type {
  Conversation,
  CreateConversation,
  Member,
  Person,
  Reaction,
  Resync,
  Role,
  StreamEvent,
} from "./protocol.ts";

/**
 * How the connection is:
 * `connecting` until the first `connected`; `open`; `reconnecting` after a loss; `offline` while the browser
 * says that there is no network; `unauthorized` when a fresh token was refused too (give another, or call
 * `reconnect`); `closed` when not enabled, or signed out.
 */
export type Status = "connecting" | "open" | "reconnecting" | "offline" | "unauthorized" | "closed";

/** How far a message got: `sending` also while it waits for the network; `failed` when the server refused it. */
export type MessageStatus = "sending" | "sent" | "failed";

/**
 * A message as shown. One's own that has not been sent yet has `seq` and `rev` 0, its `client_message_id` as
 * `id`, and comes after all others: `client_message_id` is what stays the same, and so is the key of a list.
 */
export interface Message extends WireMessage {
  readonly status: MessageStatus;
  /** Why it failed. */
  readonly error: ClientError | null;
}

/** What went wrong: `code` is the server's (`not_found`, `rate_limited`, …) or `network`, `discarded`, `closed`. */
export interface ClientError {
  readonly code: string;
  readonly message: string;
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number;
}

/**
 * The JWT of the user, or a function that gives one. It is called with `true` when the server has refused the
 * one before: then it should give a new one.
 */
export type TokenSource = string | ((isRefused: boolean) => string | Promise<string>);

/**
 * How the stream is opened. `cookie`: EventSource and the stream cookie, for an API on the same site. `ticket`:
 * EventSource where the cookie is not kept. `fetch`: bearer token in a header. `auto`: the cookie, a ticket if it
 * does not stick, fetch where there is no EventSource.
 */
export type TransportChoice = "auto" | "cookie" | "ticket" | "fetch";

export interface ClientOptions {
  readonly token: TokenSource;
  /** Where the server is, without a slash at the end; "" is this origin. */
  readonly baseUrl?: string;
  /**
   * The JWT's `sub`; for a page that shows several users side by side with the same `baseUrl`, where the user changes
   * without a reload, or that is to show and keep what is written before the first token is there.
   */
  readonly userId?: string;
  readonly transport?: TransportChoice;
  /** False: this tab has a stream of its own, and does not share one with the other tabs of the browser. */
  readonly shareStream?: boolean;
  /** False: messages that wait to be sent are not kept over a reload. */
  readonly keepOutbox?: boolean;
  /** In place of the browser's own. */
  readonly fetch?: typeof fetch;
  readonly EventSource?: typeof EventSource;
}

export interface StreamOptions extends ClientOptions {
  /** False: nothing is opened. Default true. */
  readonly enabled?: boolean;
  /** Every event, in order, once per tab; the state has been updated before. */
  readonly onEvent?: (event: StreamEvent) => void;
  /** Something may have been missed; the client reloads by itself. */
  readonly onResync?: (resync: Resync) => void;
}

export type SendRequest = {
  readonly content: string;
  readonly replyToId?: string;
} & (
  | { readonly conversationId: string; readonly recipientId?: undefined }
  | { readonly recipientId: string; readonly conversationId?: undefined }
);

/** The part that changes. The same object until something does. */
export interface State {
  readonly status: Status;
  /** Who the token says; null before the first one was read. */
  readonly userId: string | null;
  /** Newest first, without hidden ones. */
  readonly conversations: readonly Conversation[];
  readonly hasMoreConversations: boolean;
  /** Whether the list of conversations has been read at all. */
  readonly isLoaded: boolean;
  /** Of all conversations together. */
  readonly unread: number;
  /** How many own messages wait to be sent; failed ones are not among them. */
  readonly queued: number;
  /** Of the connection and of loading; null again when that works. */
  readonly error: ClientError | null;
}

/**
 * What one can do and ask. The functions stay the same; those that return promises reject with an `Error` that
 * is a `ClientError`, but `send`, which tells by the message's `status` once it is known who the user is.
 */
export interface Actions {
  /** Oldest first. Asking for a conversation that is not loaded loads its newest page. The same array until it changes. */
  readonly messages: (conversationId: string) => readonly Message[];
  /** Whether the newest page is there: an empty array is an empty conversation. */
  readonly hasLoaded: (conversationId: string) => boolean;
  /** Whether there are older messages than those loaded. */
  readonly hasMore: (conversationId: string) => boolean;
  readonly loadOlder: (conversationId: string) => Promise<void>;
  /** Ids of the others who are typing. */
  readonly typing: (conversationId: string) => readonly string[];
  /** Shows it at once, keeps it until it is sent, and resolves when it is `sent` or `failed`, or the client is closed. */
  readonly send: (request: SendRequest) => Promise<Message>;
  /** Send a failed message again. */
  readonly retry: (clientMessageId: string) => void;
  /** Give up a message that is not sent. */
  readonly discard: (clientMessageId: string) => void;
  readonly edit: (messageId: string, content: string) => Promise<void>;
  readonly remove: (messageId: string) => Promise<void>;
  /** Give a message an emoji; `on` false takes it back. */
  readonly react: (messageId: string, emoji: string, on?: boolean) => Promise<void>;
  /** Read up to `seq`, or to the end. */
  readonly markRead: (conversationId: string, seq?: number) => void;
  /** Call it at every key; it is sent seldom. */
  readonly setTyping: (conversationId: string, isTyping: boolean) => void;
  readonly createConversation: (request: CreateConversation) => Promise<Conversation>;
  readonly loadMoreConversations: () => Promise<void>;
  /** Any other route below `/api/v1`, with the token: `call("PATCH", "/conversations/…", { title })`. */
  readonly call: <T = unknown>(method: string, path: string, body?: object) => Promise<T>;
  /** Try again now, after `unauthorized` with a new token. */
  readonly reconnect: () => void;
  /** Close, forget what was not sent, and clear the stream cookie. */
  readonly signOut: () => Promise<void>;
}

export interface UserMessageStream extends State, Actions {}
