/** The store and the outbox as an application sees them: arrays that stay the same until something changes. */

import { activeAt } from "./conversationState.ts";
import type { MessageStore } from "./messageStore.ts";
import type { OutboxItem } from "./outboxStorage.ts";
import type { Conversation } from "./protocol.ts";
import type { Message } from "./types.ts";

/** Take in what has changed since the last time: `shown` of each entry, and the list. */
export type View = () => readonly Conversation[];

export function createView(store: MessageStore, line: () => OutboxItem[]): View {
  let conversations: readonly Conversation[] = [];
  let step = 0;

  return () => {
    if (step === store.step()) return conversations;
    for (const [id, entry] of store.entries) {
      const { thread, touched, conversation } = entry;
      if (touched <= step) continue;
      if (!thread) entry.sent = [];
      // While it is loaded anew, what was there stays on the screen.
      else if (thread.rev !== null) {
        entry.sent = [...thread.byId.values()].sort((one, other) => one.seq - other.seq);
      }
      entry.shown = [...entry.sent, ...waiting(id, conversation)];
    }
    step = store.step();
    return (conversations = listed(store));
  };

  /** Own messages that are not sent, in the order of writing; the sender looks as in the others. */
  function waiting(id: string, conversation: Conversation | undefined): Message[] {
    const me = conversation?.members.find((member) => member.id === store.me);
    return line()
      .filter((item) => targetOf(item, store) === id)
      .map((item) => ({ ...item, conversation_id: id, sender: me ?? item.sender }));
  }
}

/** The conversation of a message that is not sent; that with a person may not be there yet. */
export function targetOf({ conversation_id, recipient_id }: OutboxItem, { entries }: MessageStore): string | undefined {
  if (conversation_id) return conversation_id;
  for (const [id, { conversation }] of entries) {
    if (conversation?.kind === "direct" && conversation.members.some((member) => member.id === recipient_id)) return id;
  }
  return undefined;
}

function listed({ entries }: MessageStore): readonly Conversation[] {
  return [...entries.values()]
    .flatMap(({ conversation }) => (conversation && !conversation.hidden ? [conversation] : []))
    .sort((one, other) => activeAt(other) - activeAt(one));
}
