import { useCallback, useRef, useState } from "react";
import type { Message } from "../../lib/types";
import type { Chat } from "../chat";

/** Messages that are quoted and not loaded, each asked for once. */
export function useFound(findMessage: Chat["findMessage"]) {
  const asked = useRef(new Set<string>());
  const [found, setFound] = useState<ReadonlyMap<string, Message | null>>(new Map());

  const find = useCallback(
    (messageId: string) => {
      if (asked.current.has(messageId)) return;
      asked.current.add(messageId);
      findMessage(messageId).then(
        (message) => setFound((before) => new Map(before).set(messageId, message)),
        () => asked.current.delete(messageId), // the connection: the next look asks again
      );
    },
    [findMessage],
  );
  return { found, find };
}
