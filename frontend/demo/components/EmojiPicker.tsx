import { GROUPS, QUICK, nameOfEmoji } from "../text/emoji";
import { Popover } from "./Popover";

interface EmojiPickerProps {
  readonly anchor: HTMLElement;
  readonly label: string;
  readonly chosen?: ReadonlySet<string>;
  readonly hasQuickRow?: boolean;
  readonly onPick: (emoji: string) => void;
  readonly onClose: () => void;
}

const NONE: ReadonlySet<string> = new Set();

/** Emoji are text: nothing is fetched. */
export function EmojiPicker({ anchor, label, chosen = NONE, hasQuickRow = false, onPick, onClose }: EmojiPickerProps) {
  const first = hasQuickRow ? QUICK[0] : GROUPS[0]?.emoji[0]?.text;
  const button = (emoji: string, key: string) => (
    <button
      key={key}
      data-first={emoji === first ? "" : undefined}
      type="button"
      className="emoji"
      aria-label={nameOfEmoji(emoji)}
      aria-pressed={chosen.has(emoji)}
      title={nameOfEmoji(emoji)}
      onClick={() => {
        onPick(emoji);
        onClose();
      }}
    >
      {emoji}
    </button>
  );
  return (
    <Popover anchor={anchor} label={label} onClose={onClose} className="emoji-panel">
      {hasQuickRow && <div className="quick-emoji">{QUICK.map((emoji) => button(emoji, `quick ${emoji}`))}</div>}
      {GROUPS.map((group) => (
        <section key={group.title} aria-label={group.title}>
          <h3>{group.title}</h3>
          <div className="emoji-grid">{group.emoji.map(({ text }) => button(text, text))}</div>
        </section>
      ))}
    </Popover>
  );
}
