import type { Chat } from "../chat";
import { Icon } from "./Icon";

interface NoticeProps {
  readonly chat: Chat;
  readonly isWhole: boolean;
  /** The title of the conversation that was open until the reader was removed from it. */
  readonly gone: string | null;
}

/** What the connection means for the reader: nothing while all is well. */
export function Notice({ chat, isWhole, gone }: NoticeProps) {
  if (chat.status === "unauthorized") {
    return (
      <div className="notice is-bad" role="alert">
        <Icon name="warning" />
        <p>You have been signed out. Sign in again to go on.</p>
      </div>
    );
  }
  if (!isWhole) {
    return (
      <div className="notice">
        <Icon name="warning" />
        <p>The wire is cut. What you write waits here; what others write waits on the server.</p>
      </div>
    );
  }
  if (chat.status === "reconnecting" || chat.status === "offline") {
    return (
      <div className="notice">
        <Icon name="warning" />
        <p>{chat.status === "offline" ? "You are offline." : "The connection is lost; trying again."} Messages wait until it is back.</p>
        <button type="button" className="link-button" onClick={chat.reconnect}>
          Try now
        </button>
      </div>
    );
  }
  if (gone !== null) {
    return (
      <div className="notice" role="status">
        <Icon name="people" />
        <p>
          You are no longer a member of <bdi>{gone}</bdi>.
        </p>
      </div>
    );
  }
  if (chat.caughtUp !== null) {
    return (
      <div className="notice is-good">
        <Icon name="checks" />
        <p>{sentenceOf(chat.caughtUp)}</p>
      </div>
    );
  }
  return null;
}

function sentenceOf(count: number): string {
  if (count === 0) return "Back again. Nobody wrote meanwhile.";
  return count === 1 ? "Back again. One message came meanwhile." : `Back again. ${count} messages came meanwhile.`;
}
