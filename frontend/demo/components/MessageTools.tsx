import { useRef, useState } from "react";
import type { Conversation, Message } from "../../lib/types";
import { EmojiPicker } from "./EmojiPicker";
import { IconButton } from "./IconButton";
import type { MessageActions } from "./actions";

interface MessageToolsProps {
  readonly message: Message;
  readonly me: string;
  readonly conversation: Conversation;
  readonly actions: MessageActions;
}

/** Shown while the message has the pointer or the focus. */
export function MessageTools({ message, me, conversation, actions }: MessageToolsProps) {
  const [picker, setPicker] = useState<HTMLElement | null>(null);
  const [isSure, setSure] = useState(false);
  const tools = useRef<HTMLDivElement>(null);
  const isMine = message.sender.id === me;
  const mayDelete = isMine || (conversation.kind === "group" && conversation.role === "owner");
  const own = new Set(message.reactions.filter(({ user_ids }) => user_ids.includes(me)).map(({ emoji }) => emoji));
  return (
    <div
      ref={tools}
      className={`tools ${picker === null ? "" : "is-open"}`}
      role="toolbar"
      aria-label="Message"
      onBlur={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget)) setSure(false);
      }}
    >
      <IconButton
        icon="smile"
        label="React"
        aria-haspopup="dialog"
        aria-expanded={picker !== null}
        onClick={(event) => setPicker(event.currentTarget)}
      />
      <IconButton icon="reply" label="Reply" onClick={() => actions.reply(message)} />
      {isMine && <IconButton icon="edit" label="Edit" onClick={() => actions.edit(message)} />}
      {mayDelete &&
        (isSure ? (
          <button type="button" className="button small danger" onClick={() => actions.remove(message)}>
            Delete for everyone
          </button>
        ) : (
          <IconButton
            icon="trash"
            label="Delete"
            onClick={() => {
              setSure(true);
              // The button that was pressed is gone; the one in its place has the focus.
              requestAnimationFrame(() => tools.current?.querySelector<HTMLElement>(".danger")?.focus());
            }}
          />
        ))}
      {picker !== null && (
        <EmojiPicker
          anchor={picker}
          label="React with"
          hasQuickRow
          chosen={own}
          onPick={(emoji) => actions.react(message, emoji)}
          onClose={() => setPicker(null)}
        />
      )}
    </div>
  );
}
