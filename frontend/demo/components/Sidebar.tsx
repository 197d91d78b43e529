import { sentenceOf, type Chat } from "../chat";
import { ConversationList } from "./ConversationList";
import { Ghosts } from "./Ghosts";
import { Icon } from "./Icon";
import { IconButton } from "./IconButton";

interface SidebarProps {
  readonly chat: Chat;
  readonly me: string;
  readonly openId: string | null;
  readonly drafts: ReadonlyMap<string, string>;
  readonly onOpen: (conversationId: string) => void;
  readonly onNew: () => void;
}

export function Sidebar({ chat, me, openId, drafts, onOpen, onNew }: SidebarProps) {
  const shown = chat.conversations;
  return (
    <div className="sidebar">
      <header className="sidebar-head">
        <h2>Chats</h2>
        <IconButton icon="compose" label="New chat" onClick={onNew} />
      </header>
      {shown.length > 0 && (
        <ConversationList
          conversations={shown}
          me={me}
          openId={openId}
          drafts={drafts}
          typing={chat.typing}
          hasMore={chat.hasMoreConversations}
          onMore={chat.loadMoreConversations}
          onOpen={onOpen}
        />
      )}
      {shown.length === 0 && chat.isLoaded && (
        <div className="empty">
          <Icon name="people" />
          <h3>No chats yet</h3>
          <p>Write to somebody, or start a group.</p>
          <button type="button" className="button primary" onClick={onNew}>
            New chat
          </button>
        </div>
      )}
      {shown.length === 0 && !chat.isLoaded && <Loading chat={chat} />}
    </div>
  );
}

function Loading({ chat }: { readonly chat: Chat }) {
  if (chat.error === null) return <Ghosts count={5} />;
  return (
    <div className="empty" role="alert">
      <Icon name="warning" />
      <h3>Your chats cannot be read</h3>
      <p>{sentenceOf(chat.error)}</p>
      <button type="button" className="button" onClick={chat.reconnect}>
        Try again
      </button>
    </div>
  );
}
