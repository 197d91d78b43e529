import { useEffect } from "react";
import { nameOf } from "../people";
import type { MessageActions, Quoted } from "./actions";

interface QuoteProps {
  readonly messageId: string;
  readonly quoted: Quoted;
  readonly actions: MessageActions;
}

/** The message that this one answers, in one line; a click goes there. */
export function Quote({ messageId, quoted, actions }: QuoteProps) {
  const isUnknown = quoted === undefined;
  useEffect(() => {
    if (isUnknown) actions.find(messageId);
  }, [isUnknown, messageId, actions]);

  if (quoted === null) return <span className="quote">This message cannot be read any more.</span>;
  if (quoted === undefined) return <span className="quote">…</span>;
  return (
    <button type="button" className="quote" onClick={() => actions.visit(messageId)}>
      <bdi>{nameOf(quoted.sender)}</bdi>
      <bdi>{quoted.deleted_at === null ? quoted.content : "This message was deleted."}</bdi>
    </button>
  );
}
