import type { Conversation } from "../../lib/types";
import { nameOf } from "../people";
import type { Row } from "../rows";
import { listOf } from "../text/names";
import { clockTime, fullTime } from "../text/times";
import { Icon } from "./Icon";
import type { MessageActions } from "./actions";

interface MessageMetaProps {
  readonly row: Row;
  readonly isMine: boolean;
  readonly conversation: Conversation;
  readonly actions: MessageActions;
}

/** When, and how far it got. Said once for a run of messages, except for what is not sent. */
export function MessageMeta({ row: { message, endsRun }, isMine, conversation, actions }: MessageMetaProps) {
  if (message.status === "failed") {
    return (
      <p className="meta is-failed" role="alert">
        <Icon name="warning" />
        Not sent.
        <button type="button" className="link-button" onClick={() => actions.retry(message)}>
          Try again
        </button>
        <button type="button" className="link-button" onClick={() => actions.discard(message)}>
          Discard
        </button>
      </p>
    );
  }
  if (!endsRun) return null;
  return (
    <p className="meta">
      <time dateTime={message.created_at} title={fullTime(message.created_at)}>
        {clockTime(message.created_at)}
      </time>
      {isMine && (message.status === "sending" ? <Sending /> : <Ticks seq={message.seq} conversation={conversation} me={message.sender.id} />)}
    </p>
  );
}

function Sending() {
  return (
    <span title="Waiting to be sent">
      <Icon name="clock" />
      <span className="unseen">Sending</span>
    </span>
  );
}

function Ticks({ seq, conversation, me }: { readonly seq: number; readonly conversation: Conversation; readonly me: string }) {
  const others = conversation.members.filter(({ id }) => id !== me);
  const readers = others.filter((member) => member.last_read_seq >= seq);
  const isReadByAll = readers.length > 0 && readers.length === others.length;
  const text = readers.length === 0 ? "Sent" : conversation.kind === "direct" ? "Read" : `Read by ${listOf(readers.map(nameOf), { most: 6 })}`;
  return (
    <span className={isReadByAll ? "is-read" : ""} title={text}>
      <Icon name={readers.length > 0 ? "checks" : "check"} />
      <span className="unseen">{text}</span>
    </span>
  );
}
