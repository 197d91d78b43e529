import type { Conversation, Message } from "../../lib/types";
import { nameOf } from "../people";
import { nameOfEmoji } from "../text/emoji";
import { listOf } from "../text/names";
import type { MessageActions } from "./actions";

interface ReactionsProps {
  readonly message: Message;
  readonly me: string;
  readonly conversation: Conversation;
  readonly actions: MessageActions;
}

export function Reactions({ message, me, conversation, actions }: ReactionsProps) {
  const name = (id: string) => {
    if (id === me) return "You";
    const member = conversation.members.find((each) => each.id === id);
    return member ? nameOf(member) : id;
  };
  return (
    <ul className="reactions" aria-label="Reactions">
      {message.reactions.map(({ emoji, count, user_ids }) => {
        const isOwn = user_ids.includes(me);
        const known = user_ids.map(name);
        const people = listOf(count > known.length ? [...known, `${count - known.length} more`] : known, { most: 8 });
        return (
          <li key={emoji}>
            <button
              type="button"
              className="reaction"
              aria-pressed={isOwn}
              aria-label={`${nameOfEmoji(emoji)}, ${count}: ${people}`}
              title={people}
              onClick={() => actions.react(message, emoji)}
            >
              <b aria-hidden="true">{emoji}</b>
              {count}
            </button>
          </li>
        );
      })}
    </ul>
  );
}
