import type { Status } from "../lib/types";

/** How the connection is doing, in words that promise nothing. */
export interface Health {
  readonly tone: "good" | "waiting" | "bad";
  readonly word: string;
}

/** `waiting` counts the messages that are written and not sent. */
export function healthOf(status: Status, { isWhole, waiting }: { isWhole: boolean; waiting: number }): Health {
  const queued = waiting === 0 ? "" : ` · ${waiting} waiting`;
  if (status === "unauthorized") return { tone: "bad", word: `Signed out${queued}` };
  if (status === "open") return { tone: "good", word: waiting === 0 ? "Live" : `Live · sending ${waiting}` };
  if (!isWhole) return { tone: "bad", word: `Cut off${queued}` };
  if (status === "offline") return { tone: "bad", word: `Offline${queued}` };
  if (status === "reconnecting") return { tone: "waiting", word: `Reconnecting${queued}` };
  return { tone: "waiting", word: `Connecting${queued}` };
}
