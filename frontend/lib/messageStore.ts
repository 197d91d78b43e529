/**
 * Everything that one user holds: conversations, and the messages of those that are shown. No I/O and no clock.
 * Each change is noted for the next view (`view.ts`); what must be asked of the server is left in `wanted`.
 */

import { merged, withMessage, withRead } from "./conversationState.ts";
import type { Conversation, EventData, Message, StreamEvent } from "./protocol.ts";
import { isStale, newThread, note, put, type Change, type Thread } from "./thread.ts";
import type { Message as ShownMessage } from "./types.ts";

export interface Entry {
  conversation?: Conversation;
  /** Null: not shown, so its messages are not held. */
  thread: Thread | null;
  /** The highest rev that an event has told of. */
  seen: number;
  /** When it was last changed, in steps of the store. */
  touched: number;
  /** There is no such conversation for this user: not asked for again until something tells of it. */
  isGone: boolean;
  /** When its messages were last asked for, in ms. */
  askedAt: number;
  /** As the last view has them: those of the server, and with those that wait. */
  sent: readonly ShownMessage[];
  shown: readonly ShownMessage[];
}

export interface MessageStore {
  readonly me: string;
  readonly entries: Map<string, Entry>;
  /** Conversations of which something newer is at the server than here; "" is the list of them. */
  readonly wanted: Set<string>;
  readonly apply: (event: StreamEvent) => void;
  readonly takeMessage: (change: Change) => void;
  /** `seen`: what had been told of it when it was asked for. */
  readonly takeConversation: (conversation: Conversation, seen?: number) => void;
  readonly takeRead: (conversationId: string, userId: string, seq: number) => void;
  /** Hold the messages of a conversation from now on. */
  readonly show: (id: string) => Entry;
  readonly drop: (id: string) => void;
  /** Let go of all conversations that were not touched since `step` and are not in `kept`. */
  readonly keep: (kept: ReadonlySet<string>, step: number) => void;
  /** Nothing here can be trusted any more: load anew what is shown. */
  readonly distrust: () => void;
  readonly step: () => number;
  /** It is different now. */
  readonly touch: (id: string) => Entry;
}

/** `onOwn` is told of every message of `me`: what was waiting to be sent has been. */
export function createMessageStore(me: string, onOwn: (message: Message) => void): MessageStore {
  const entries = new Map<string, Entry>();
  const wanted = new Set<string>();
  let steps = 0;

  return {
    me,
    entries,
    wanted,
    apply,
    takeMessage,
    takeConversation,
    takeRead,
    show(id) {
      const entry = entries.get(id) ?? touch(id);
      if (id && !entry.thread && !entry.isGone) {
        entry.thread = newThread();
        wanted.add(id);
      }
      return entry;
    },
    drop,
    keep(kept, step) {
      for (const [id, { touched, thread }] of entries) {
        if (touched > step || kept.has(id)) continue;
        if (thread) wanted.add(id);
        else forget(id);
      }
    },
    distrust() {
      // No step: the list stays as it is until it is read anew.
      for (const [id, entry] of entries) {
        entry.seen = 0;
        delete entry.conversation;
        if (entry.thread) {
          entry.thread = newThread();
          wanted.add(id);
        } else entries.delete(id);
      }
    },
    step: () => steps,
    touch,
  };

  function apply({ event, data }: StreamEvent): void {
    switch (event) {
      case "new_message":
      case "message_edited":
      case "message_deleted":
      case "reaction_update":
        return tell(data.conversation_id, data.rev, () => takeMessage(data));
      case "conversation_updated":
        return update(data);
      case "read_receipt":
        takeRead(data.conversation_id, data.user_id, data.last_read_seq);
    }
  }

  function takeRead(id: string, userId: string, seq: number): void {
    const held = entries.get(id)?.conversation;
    if (held) touch(id).conversation = withRead(held, userId, seq, me);
  }

  /** An event of a conversation's rev; the rule of R. Without `take` it did not say what changed. */
  function tell(id: string, rev: number, take?: () => void): void {
    const entry = touch(id);
    // What has been overtaken is not taken, for it is the older state: so what it said must be asked for.
    const isLate = rev < Math.max(entry.seen, entry.conversation?.rev ?? 0);
    entry.seen = Math.max(entry.seen, rev);
    take?.();
    const { thread } = entry;
    if (thread) note(thread, rev, !!take);
    if (!entry.conversation || !take || (thread ? isStale(thread) : isLate)) wanted.add(id);
  }

  function takeMessage(change: Change): void {
    const entry = touch(change.conversation_id);
    if (entry.thread) put(entry.thread, change);
    if (entry.conversation) entry.conversation = withMessage(entry.conversation, change, me);
    if ("seq" in change && change.sender.id === me) onOwn(change);
  }

  /** The four forms of clause 3.7. */
  function update(data: EventData["conversation_updated"]): void {
    const { id } = data;
    const held = entries.get(id)?.conversation;
    if ("kind" in data) tell(id, data.rev, () => takeConversation(data));
    else if (!("rev" in data)) {
      if (held) touch(id).conversation = { ...held, ...data };
      else wanted.add(id);
    } else if (data.role === null) {
      drop(id);
      touch(id).seen = data.rev; // an answer that is on its way may be older
    }
    else tell(id, data.rev);
  }

  function takeConversation(conversation: Conversation, seen?: number): void {
    const entry = touch(conversation.id);
    if (entry.isGone && conversation.rev < entry.seen) return;
    // Newer than all that had been told when it was asked for: a rev beyond it was never taken.
    if (entry.seen === seen) entry.seen = 0;
    entry.isGone = false;
    entry.conversation = merged(entry.conversation, conversation);
    // It was read before something that an event has told of since.
    if (entry.conversation.rev < entry.seen) wanted.add(conversation.id);
  }

  function drop(id: string): void {
    wanted.delete(id);
    forget(id);
    touch(id).isGone = true;
  }

  function forget(id: string): void {
    steps += 1;
    entries.delete(id);
  }

  function touch(id: string): Entry {
    const entry: Entry = entries.get(id) ?? {
      thread: null,
      seen: 0,
      touched: 0,
      isGone: false,
      askedAt: 0,
      sent: [],
      shown: [],
    };
    entries.set(id, entry);
    entry.touched = steps += 1;
    return entry;
  }
}
