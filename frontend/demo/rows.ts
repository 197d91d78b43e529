import type { Message } from "../lib/types";
import { dayOf } from "./text/times";

/** A message with what its neighbours make of it. */
export interface Row {
  readonly key: string;
  readonly message: Message;
  /** The first of its day: the day is named above it. */
  readonly startsDay: boolean;
  /** The first that had not been read when the conversation was opened. */
  readonly isFirstNew: boolean;
  readonly startsRun: boolean;
  readonly endsRun: boolean;
}

const RUN_MS = 5 * 60_000; // after a pause, the sender and the time are said again

interface Grouping {
  /** The message that the divider is above. */
  readonly firstNewKey: string | null;
  /** Older ones are still to come: what the first row starts is not known, and it must not change its height then. */
  readonly hasMore: boolean;
}

/** Group messages by day, and by sender within a few minutes. */
export function rowsOf(messages: readonly Message[], { firstNewKey, hasMore }: Grouping): readonly Row[] {
  const rows: Row[] = [];
  let startsDay = !hasMore;
  let startsRun = !hasMore;
  for (const [index, message] of messages.entries()) {
    const next = messages[index + 1];
    const endsDay = next === undefined || dayOf(next.created_at) !== dayOf(message.created_at);
    const endsRun = endsDay || keyOf(next) === firstNewKey || !belongTogether(message, next);
    rows.push({
      key: keyOf(message),
      message,
      startsDay,
      isFirstNew: keyOf(message) === firstNewKey,
      startsRun,
      endsRun,
    });
    startsDay = endsDay;
    startsRun = endsRun;
  }
  return rows;
}

/** Also an unsent message has it, and keeps it when it has been sent: its row is not built anew. */
export const keyOf = (message: Message): string => message.client_message_id;

function belongTogether(one: Message, other: Message): boolean {
  return one.sender.id === other.sender.id && Date.parse(other.created_at) - Date.parse(one.created_at) < RUN_MS;
}

interface Reading {
  readonly me: string;
  readonly readBefore: number | null;
  readonly hasMore: boolean;
}

/** The message that the divider goes above, unless it lies before what is loaded. */
export function firstNewOf(messages: readonly Message[], { me, readBefore, hasMore }: Reading): string | null {
  if (readBefore === null) return null;
  const index = messages.findIndex((message) => message.seq > readBefore && message.sender.id !== me);
  const message = messages[index];
  return message === undefined || (index === 0 && hasMore) ? null : keyOf(message);
}
