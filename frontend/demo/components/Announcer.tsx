import { useEffect, useRef, useState } from "react";
import type { Message } from "../../lib/types";
import { nameOf } from "../people";

/** Reads a new message of somebody else to those who listen to the page. */
export function Announcer({ messages, me }: { readonly messages: readonly Message[]; readonly me: string }) {
  const newest = messages.at(-1);
  const heard = useRef<string | null>(null);
  const [text, setText] = useState("");

  useEffect(() => {
    if (newest === undefined) return;
    const isFirst = heard.current === null;
    if (heard.current === newest.id) return;
    heard.current = newest.id;
    if (!isFirst && newest.sender.id !== me) setText(`${nameOf(newest.sender)}: ${newest.content}`);
  }, [newest, me]);

  return (
    <p className="unseen" aria-live="polite" aria-atomic="true">
      {text}
    </p>
  );
}
