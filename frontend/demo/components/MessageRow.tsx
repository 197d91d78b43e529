import { memo, useState } from "react";
import type { Conversation, Message } from "../../lib/types";
import { isOnlyEmoji } from "../text/emoji";
import { nameOf } from "../people";
import { dayName, fullTime } from "../text/times";
import { toneOf } from "../text/names";
import type { Row } from "../rows";
import type { MessageActions, Quoted } from "./actions";
import { Avatar } from "./Avatar";
import { LinkedText } from "./LinkedText";
import { MessageMeta } from "./MessageMeta";
import { MessageTools } from "./MessageTools";
import { Quote } from "./Quote";
import { Reactions } from "./Reactions";

interface MessageRowProps {
  readonly row: Row;
  readonly me: string;
  readonly conversation: Conversation;
  readonly actions: MessageActions;
  readonly quoted: Quoted;
  readonly isFlashing: boolean;
}

const FOLD_FROM = 1_400; // characters, about a screen of a phone

export const MessageRow = memo(function MessageRow(props: MessageRowProps) {
  const { row, me, conversation, actions, quoted, isFlashing } = props;
  const { message, startsRun, endsRun } = row;
  const isMine = message.sender.id === me;
  const isGroup = conversation.kind === "group";
  const isGone = message.deleted_at !== null;
  const classes = [
    "row",
    isMine && "is-mine",
    !isGroup && "is-direct",
    startsRun && "starts-run",
    endsRun && "ends-run",
    message.status !== "sent" && "is-waiting",
    isFlashing && "flash",
  ];
  const sender = nameOf(message.sender);
  return (
    <div className={classes.filter(Boolean).join(" ")}>
      {row.startsDay && <h3 className="day">{dayName(message.created_at)}</h3>}
      {row.isFirstNew && (
        <div className="new-line" role="separator" aria-label="New messages">
          New messages
        </div>
      )}
      <article className="message" tabIndex={-1} data-key={row.key} aria-label={isMine ? "You" : sender}>
        <div className="message-body">
          {isGroup && !isMine && startsRun && (
            <bdi className="sender" data-tone={toneOf(message.sender.id)}>
              {sender}
            </bdi>
          )}
          <div className="bubble-line">
            {isGroup && !isMine && endsRun && <Avatar id={message.sender.id} name={sender} size="small" />}
            <Bubble message={message} quoted={quoted} actions={actions} />
          </div>
          {message.reactions.length > 0 && <Reactions message={message} me={me} conversation={conversation} actions={actions} />}
          <MessageMeta row={row} isMine={isMine} conversation={conversation} actions={actions} />
          {!isGone && message.status === "sent" && (
            <MessageTools message={message} me={me} conversation={conversation} actions={actions} />
          )}
        </div>
      </article>
    </div>
  );
});

interface BubbleProps {
  readonly message: Message;
  readonly quoted: Quoted;
  readonly actions: MessageActions;
}

function Bubble({ message, quoted, actions }: BubbleProps) {
  const [isOpen, setOpen] = useState(false);
  if (message.deleted_at !== null) {
    return <p className="bubble is-gone">This message was deleted.</p>;
  }
  const isLong = message.content.length > FOLD_FROM;
  const isLarge = message.reply_to_id === null && isOnlyEmoji(message.content);
  return (
    <div className={`bubble ${isLarge ? "is-large" : ""}`} title={fullTime(message.created_at)}>
      {message.reply_to_id !== null && <Quote messageId={message.reply_to_id} quoted={quoted} actions={actions} />}
      <div className={`bubble-text ${isLong && !isOpen ? "is-folded" : ""}`} dir="auto">
        <LinkedText text={message.content} />
        {message.edited_at !== null && <span className="edited">edited</span>}
      </div>
      {isLong && (
        <button type="button" className="more" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {isOpen ? "Show less" : "Show all"}
        </button>
      )}
    </div>
  );
}
