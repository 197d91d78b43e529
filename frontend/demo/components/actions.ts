import type { Message } from "../../lib/types";

/** What a message lets one do. The functions stay the same while a conversation is shown. */
export interface MessageActions {
  readonly react: (message: Message, emoji: string) => void;
  readonly reply: (message: Message) => void;
  readonly edit: (message: Message) => void;
  readonly remove: (message: Message) => void;
  readonly retry: (message: Message) => void;
  readonly discard: (message: Message) => void;
  /** Show the message that was answered. */
  readonly visit: (messageId: string) => void;
  /** Read a message that is quoted and not loaded. */
  readonly find: (messageId: string) => void;
}

/** A message that is quoted: undefined while it is being read, null where there is none to read. */
export type Quoted = Message | null | undefined;
