/**
 * Everything that one user holds: conversations, and the messages of those that are shown. No I/O and no clock.
 * Each change is noted for the next view (`view.ts`); what must be asked of the server is left in `wanted`.
 */

import { merged, withMessage, withPatch, withRead } from "./conversationState.ts";
import type { Conversation, EventData, Message, StreamEvent } from "./protocol.ts";
import { isStale, newThread, note, patch, put, type Patch, type Thread } from "./thread.ts";

export interface Entry {
  conversation?: Conversation;
  /** Null: not shown, so its messages are not held. */
  thread: Thread | null;
  /** The highest rev that an event has told of. */
  seen: number;
  /** When it was last changed, in steps of the store: a list that was asked before does not know better. */
  touched: number;
  isChanged: boolean;
  /** There is no such conversation for this user: not asked for again until something tells of it. */
  isGone: boolean;
  /** When its messages were last asked for, in ms. */
  askedAt: number;
}

export interface MessageStore {
  readonly me: string;
  readonly entries: Map<string, Entry>;
  /** Conversations of which something newer is at the server than here. */
  readonly wanted: Set<string>;
  readonly apply: (event: StreamEvent) => void;
  /** A message of a REST answer. */
  readonly takeMessage: (message: Message) => void;
  readonly takeConversation: (conversation: Conversation) => void;
  readonly takeRead: (conversationId: string, userId: string, seq: number) => void;
  /** Hold the messages of a conversation from now on. */
  readonly show: (id: string) => Entry;
  /** Let go of messages, but not of the conversation. */
  readonly hide: (id: string) => void;
  readonly drop: (id: string) => void;
  /** Let go of all conversations that were not touched since `step` and are not in `kept`. */
  readonly keep: (kept: ReadonlySet<string>, step: number) => void;
  /** Nothing here can be trusted any more: load anew what is shown. */
  readonly distrust: () => void;
  readonly step: () => number;
  /** Its messages or settings are different now. */
  readonly touch: (entry: Entry) => Entry;
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
    takeMessage: (message) => placeMessage(message, entryOf(message.conversation_id)),
    takeConversation,
    takeRead,
    show(id) {
      const entry = entryOf(id);
      if (!entry.thread && !entry.isGone) {
        entry.thread = newThread();
        wanted.add(id);
      }
      return entry;
    },
    hide(id) {
      touch(entryOf(id)).thread = null;
    },
    drop,
    keep(kept, step) {
      for (const [id, { touched, thread }] of entries) {
        if (touched > step || kept.has(id)) continue;
        if (thread) wanted.add(id);
        else entries.delete(id);
      }
    },
    distrust() {
      for (const [id, entry] of entries) {
        entry.seen = 0;
        if (!entry.thread) {
          entries.delete(id);
          continue;
        }
        delete entry.conversation;
        entry.thread = newThread();
        wanted.add(id);
      }
    },
    step: () => steps,
    touch,
  };

  function apply({ event, data }: StreamEvent): void {
    switch (event) {
      case "new_message":
      case "message_edited":
        return tell(data.conversation_id, data.rev, (entry) => placeMessage(data, entry));
      case "message_deleted":
      case "reaction_update":
        return tell(data.conversation_id, data.rev, (entry) => change(entry, data.message_id, data));
      case "conversation_updated":
        return update(data);
      case "read_receipt":
        takeRead(data.conversation_id, data.user_id, data.last_read_seq);
    }
  }

  function takeRead(id: string, userId: string, seq: number): void {
    const entry = entries.get(id);
    if (entry?.conversation) touch(entry).conversation = withRead(entry.conversation, userId, seq, me);
  }

  /** An event of a conversation's rev; the rule of R. */
  function tell(id: string, rev: number, applyTo: (entry: Entry) => void, isTold = true): void {
    const entry = touch(entryOf(id));
    // What has been overtaken is not taken, for it is the older state: so what it said must be asked for.
    const isLate = rev < Math.max(entry.seen, entry.conversation?.rev ?? 0);
    entry.seen = Math.max(entry.seen, rev);
    applyTo(entry);
    if (entry.thread) note(entry.thread, rev, isTold);
    if (!entry.conversation || !isTold || (entry.thread ? isStale(entry.thread) : isLate)) wanted.add(id);
  }

  function placeMessage(message: Message, entry: Entry): void {
    touch(entry);
    if (entry.thread) put(entry.thread, message);
    if (entry.conversation) entry.conversation = withMessage(entry.conversation, message, me);
    if (message.sender.id === me) onOwn(message);
  }

  function change(entry: Entry, messageId: string, what: Patch): void {
    if (entry.thread) patch(entry.thread, messageId, what);
    if (entry.conversation) entry.conversation = withPatch(entry.conversation, messageId, what);
  }

  /** The four forms of clause 3.7. */
  function update(data: EventData["conversation_updated"]): void {
    const entry = entries.get(data.id);
    if ("kind" in data) {
      tell(data.id, data.rev, () => takeConversation(data));
    } else if (!("rev" in data)) {
      if (entry?.conversation) touch(entry).conversation = { ...entry.conversation, ...data };
      else wanted.add(data.id);
    } else if (data.role === null) {
      drop(data.id);
    } else {
      tell(data.id, data.rev, () => {}, false);
    }
  }

  function takeConversation(conversation: Conversation): void {
    const entry = touch(entryOf(conversation.id));
    entry.isGone = false;
    entry.conversation = merged(entry.conversation, conversation);
    // It was read before something that an event has told of since.
    if (entry.conversation.rev < entry.seen) wanted.add(conversation.id);
  }

  function drop(id: string): void {
    wanted.delete(id);
    const entry = touch(entryOf(id));
    entry.thread = null;
    entry.isGone = true;
    entry.seen = 0;
    delete entry.conversation;
  }

  function entryOf(id: string): Entry {
    let entry = entries.get(id);
    if (!entry) {
      entry = { thread: null, seen: 0, touched: 0, isChanged: true, isGone: false, askedAt: 0 };
      entries.set(id, entry);
    }
    return entry;
  }

  function touch(entry: Entry): Entry {
    entry.touched = steps += 1;
    entry.isChanged = true;
    return entry;
  }
}
