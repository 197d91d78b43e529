import { Icon } from "./Icon";

export function EmptyConversation({ hasChats }: { readonly hasChats: boolean }) {
  return (
    <div className="conversation">
      <div className="empty">
        <Icon name="chat" />
        <p>{hasChats ? "Choose a chat from the list." : "Your messages will be here."}</p>
      </div>
    </div>
  );
}
