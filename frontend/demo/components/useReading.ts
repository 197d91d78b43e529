import { useCallback, useEffect, useState } from "react";
import type { Conversation } from "../../lib/types";

/**
 * What is read is what was on the screen: the end of the conversation, in a visible page. The divider stands
 * where reading had stopped, until the conversation is opened again.
 */
export function useReading(conversation: Conversation, markRead: (conversationId: string, seq: number) => void) {
  const { id, unread, last_read_seq: lastRead, last_seq: last } = conversation;
  const [readBefore, setReadBefore] = useState<number | null>(unread > 0 ? lastRead : null);
  const [isAtEnd, setAtEnd] = useState(false);
  const isVisible = useVisible();
  const isReading = isAtEnd && isVisible;

  if (unread > 0 && readBefore === null && !isReading) setReadBefore(lastRead);

  useEffect(() => {
    if (isReading && unread > 0) markRead(id, last);
  }, [isReading, unread, id, last, markRead]);

  /** Whoever answers has seen what was new. */
  const clear = useCallback(() => setReadBefore(null), []);
  return { readBefore, setAtEnd, clear };
}

function useVisible(): boolean {
  const [isVisible, setVisible] = useState(document.visibilityState === "visible");
  useEffect(() => {
    const look = () => setVisible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  return isVisible;
}
