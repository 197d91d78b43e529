/** The store and the outbox as an application sees them: arrays that stay the same until something changes. */

import { activeAt } from "./conversationState.ts";
import type { MessageStore } from "./messageStore.ts";
import type { OutboxItem } from "./outboxStorage.ts";
import type { Conversation, Message as WireMessage } from "./protocol.ts";
import type { Message } from "./types.ts";

export interface View {
  /** Take in what has changed since the last time. */
  readonly refresh: () => void;
  readonly messages: (conversationId: string) => readonly Message[];
  readonly conversations: () => readonly Conversation[];
}

export const NO_MESSAGES: readonly Message[] = [];

export function createView(store: MessageStore, items: ReadonlyMap<string, OutboxItem>): View {
  const sent = new Map<string, readonly Message[]>();
  const shown = new Map<string, readonly Message[]>();
  let conversations: readonly Conversation[] = [];

  return {
    refresh,
    messages: (id) => shown.get(id) ?? NO_MESSAGES,
    conversations: () => conversations,
  };

  function refresh(): void {
    let isChanged = false;
    for (const [id, entry] of store.entries) {
      if (!entry.isChanged) continue;
      entry.isChanged = false;
      isChanged = true;
      if (!entry.thread) sent.delete(id);
      // While it is loaded anew, what was there stays on the screen.
      else if (entry.thread.rev !== null) {
        sent.set(id, [...entry.thread.byId.values()].sort((one, other) => one.seq - other.seq).map(asShown));
      }
      shown.set(id, [...(sent.get(id) ?? []), ...waiting(id, entry.conversation)]);
    }
    if (isChanged) conversations = listed(store);
  }

  /** Own messages that are not sent, in the order of writing; the sender looks as in the others. */
  function waiting(id: string, conversation: Conversation | undefined): Message[] {
    const { name = null, avatar_url = null } = conversation?.members.find((member) => member.id === store.me) ?? {};
    return [...items.values()]
      .filter((item) => targetOf(item, store) === id)
      .sort((one, other) => one.at - other.at)
      .map((item) => ({ ...item, conversation_id: id, sender: { id: store.me, name, avatar_url } }));
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

const known = new WeakMap<WireMessage, Message>();

/** The same object for the same state: a list renders only what is different. */
function asShown(message: WireMessage): Message {
  let shown = known.get(message);
  if (!shown) known.set(message, (shown = { ...message, status: "sent", error: null }));
  return shown;
}

function listed({ entries }: MessageStore): readonly Conversation[] {
  const all: Conversation[] = [];
  for (const { conversation } of entries.values()) if (conversation && !conversation.hidden) all.push(conversation);
  return all.sort((one, other) => activeAt(other) - activeAt(one));
}
