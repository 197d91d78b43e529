import { useMemo } from "react";
import type { Message } from "../../lib/types";
import type { Chat } from "../chat";
import { nameOf } from "../people";
import type { Intent } from "./Composer";
import type { MessageActions } from "./actions";

interface Place {
  readonly me: string;
  readonly setIntent: (intent: Intent) => void;
  readonly setVisiting: (messageId: string) => void;
  readonly find: (messageId: string) => void;
  readonly attempt: (what: string, work: Promise<unknown>) => void;
}

export function useMessageActions(chat: Chat, { me, setIntent, setVisiting, find, attempt }: Place): MessageActions {
  const { react, remove, retry, discard } = chat;
  return useMemo(
    () => ({
      react: (message: Message, emoji: string) => {
        const isOwn = message.reactions.some((each) => each.emoji === emoji && each.user_ids.includes(me));
        attempt("The reaction is not saved.", react(message.id, emoji, !isOwn));
      },
      reply: (message: Message) =>
        setIntent({ kind: "reply", messageId: message.id, to: nameOf(message.sender), excerpt: message.content }),
      edit: (message: Message) => setIntent({ kind: "edit", messageId: message.id, content: message.content }),
      remove: (message: Message) => attempt("The message is not deleted.", remove(message.id)),
      retry: (message: Message) => retry(message.client_message_id),
      discard: (message: Message) => discard(message.client_message_id),
      visit: setVisiting,
      find,
    }),
    [react, remove, retry, discard, me, setIntent, setVisiting, find, attempt],
  );
}
