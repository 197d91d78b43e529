import type { Message } from "../../lib/protocol";
import type { Conversation } from "../../lib/types";
import { peerOf, titleOf } from "../conversations";
import { nameOf } from "../people";
import { firstNameOf, listOf } from "../text/names";
import { fullTime, shortTime } from "../text/times";
import { Avatar } from "./Avatar";

interface ConversationListProps {
  readonly conversations: readonly Conversation[];
  readonly me: string;
  readonly openId: string | null;
  readonly drafts: ReadonlyMap<string, string>;
  readonly typing: (conversationId: string) => readonly string[];
  readonly hasMore: boolean;
  readonly onMore: () => Promise<void>;
  readonly onOpen: (conversationId: string) => void;
}

export function ConversationList(props: ConversationListProps) {
  const { conversations, me, openId, drafts, typing, hasMore, onMore, onOpen } = props;
  return (
    <div className="conversations" role="group" aria-label="Conversations">
      <ul>
        {conversations.map((conversation) => (
          <li key={conversation.id}>
            <Item
              conversation={conversation}
              me={me}
              isOpen={conversation.id === openId}
              draft={conversation.id === openId ? "" : (drafts.get(conversation.id) ?? "")}
              typing={typing(conversation.id)}
              onOpen={onOpen}
            />
          </li>
        ))}
      </ul>
      {hasMore && (
        <button type="button" className="link-button conversations-more" onClick={() => void onMore().catch(() => undefined)}>
          Older chats
        </button>
      )}
    </div>
  );
}

interface ItemProps {
  readonly conversation: Conversation;
  readonly me: string;
  readonly isOpen: boolean;
  readonly draft: string;
  readonly typing: readonly string[];
  readonly onOpen: (conversationId: string) => void;
}

function Item({ conversation, me, isOpen, draft, typing, onOpen }: ItemProps) {
  const { id, unread, last_message: last, muted_until: mutedUntil } = conversation;
  const title = titleOf(conversation, me);
  const isMuted = mutedUntil !== null && Date.parse(mutedUntil) > Date.now();
  return (
    <button
      type="button"
      className={`conversation-item ${unread > 0 ? "is-unread" : ""}`}
      aria-current={isOpen}
      data-conversation={id}
      onClick={() => onOpen(id)}
    >
      <Avatar id={peerOf(conversation, me)?.id ?? id} name={title} isGroup={conversation.kind === "group"} />
      <bdi className="conversation-name">{title}</bdi>
      {last === null ? (
        <span />
      ) : (
        <time className="conversation-time" dateTime={last.created_at} title={fullTime(last.created_at)}>
          {shortTime(last.created_at)}
        </time>
      )}
      <LastLine conversation={conversation} last={last} me={me} draft={draft} typing={typing} />
      {unread > 0 && (
        <span className={`badge ${isMuted ? "is-muted" : ""}`}>
          <span aria-hidden="true">{unread > 99 ? "99+" : unread}</span>
          <span className="unseen">{unread} unread</span>
        </span>
      )}
    </button>
  );
}

interface LastLineProps extends Pick<ItemProps, "conversation" | "me" | "draft" | "typing"> {
  readonly last: Message | null;
}

function LastLine({ conversation, last, me, draft, typing }: LastLineProps) {
  if (typing.length > 0) {
    const names = conversation.members.filter(({ id }) => typing.includes(id)).map((each) => firstNameOf(nameOf(each)));
    const isDirect = conversation.kind === "direct";
    return <span className="conversation-last is-typing">{isDirect ? "typing …" : `${listOf(names)} typing …`}</span>;
  }
  if (draft.trim() !== "") {
    return (
      <span className="conversation-last">
        <strong>Draft:</strong> <bdi>{draft}</bdi>
      </span>
    );
  }
  if (last === null) return <span className="conversation-last">No messages yet</span>;
  if (last.deleted_at !== null) return <span className="conversation-last is-gone">Message deleted</span>;
  const who = last.sender.id === me ? "You" : conversation.kind === "group" ? firstNameOf(nameOf(last.sender)) : null;
  // Each for itself: a name that turns the direction of writing turns no more than itself.
  return (
    <span className="conversation-last">
      {who !== null && (
        <>
          <bdi>{who}</bdi>
          {": "}
        </>
      )}
      <bdi>{last.content}</bdi>
    </span>
  );
}
