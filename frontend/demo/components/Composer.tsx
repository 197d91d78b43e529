import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { EmojiPicker } from "./EmojiPicker";
import { Icon } from "./Icon";
import { IconButton } from "./IconButton";

/** What the words are for: a new message, an answer, or other words for an old one. */
export type Intent =
  | { readonly kind: "new" }
  | { readonly kind: "reply"; readonly messageId: string; readonly to: string; readonly excerpt: string }
  | { readonly kind: "edit"; readonly messageId: string; readonly content: string; readonly words?: string };

interface ComposerProps {
  readonly title: string;
  readonly intent: Intent;
  readonly draft: string;
  readonly onDraft: (text: string) => void;
  readonly onSubmit: (text: string) => void;
  readonly onCancel: () => void;
  readonly onEditLast: () => void;
  readonly onTyping: (isTyping: boolean) => void;
}

const MAX_CHARACTERS = 10_000; // of the server, in code points
const COUNT_FROM = 9_500;

export function Composer(props: ComposerProps) {
  const { title, intent, draft, onDraft, onSubmit, onCancel, onEditLast, onTyping } = props;
  const [text, setText] = useState(intent.kind === "edit" ? (intent.words ?? intent.content) : draft);
  const [picker, setPicker] = useState<HTMLElement | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const length = text.length > COUNT_FROM ? [...text].length : 0;
  const canSend = text.trim() !== "" && length <= MAX_CHARACTERS;

  useLayoutEffect(() => {
    const area = field.current;
    if (area === null || intent.kind === "new") return;
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }, [intent]);

  const isTyping = useRef(false);
  const tell = useCallback(
    (next: boolean) => {
      if (next || isTyping.current) onTyping(next);
      isTyping.current = next;
    },
    [onTyping],
  );

  // Whoever leaves the conversation has stopped typing.
  useEffect(() => () => tell(false), [tell]);

  const change = (next: string) => {
    setText(next);
    if (intent.kind === "edit") return;
    onDraft(next);
    tell(next.trim() !== "");
  };
  const submit = () => {
    if (!canSend) return;
    setText("");
    if (intent.kind !== "edit") onDraft("");
    tell(false);
    onSubmit(text.trim());
    field.current?.focus();
  };
  const insert = (emoji: string) => {
    const area = field.current;
    if (area === null) return;
    area.setRangeText(emoji, area.selectionStart, area.selectionEnd, "end");
    change(area.value);
  };
  const onKeyDown = (event: React.KeyboardEvent<HTMLTextAreaElement>) => {
    // A key that ends the input of a character (Japanese, Chinese) is not meant for us.
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && intent.kind !== "new") {
      event.stopPropagation();
      onCancel();
    } else if (event.key === "ArrowUp" && text === "") {
      event.preventDefault();
      onEditLast();
    }
  };

  return (
    <form
      className="composer-box"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      {intent.kind !== "new" && <About intent={intent} onCancel={onCancel} />}
      <div className="composer-line">
        <IconButton
          icon="smile"
          label="Insert an emoji"
          aria-haspopup="dialog"
          aria-expanded={picker !== null}
          onClick={(event) => setPicker(event.currentTarget)}
        />
        <textarea
          ref={field}
          rows={1}
          dir="auto"
          value={text}
          enterKeyHint="send"
          aria-label={intent.kind === "edit" ? "Edit message" : `Message to ${title}`}
          placeholder={`Message ${title}`}
          onChange={(event) => change(event.target.value)}
          onKeyDown={onKeyDown}
          onBlur={() => tell(false)}
        />
        {length > 0 && (
          <span className={`composer-count ${length > MAX_CHARACTERS ? "is-over" : ""}`} role="status">
            {MAX_CHARACTERS - length}
          </span>
        )}
        <button
          type="submit"
          className="icon-button send"
          aria-label={intent.kind === "edit" ? "Save" : "Send"}
          title={intent.kind === "edit" ? "Save" : "Send"}
          disabled={!canSend}
        >
          <Icon name={intent.kind === "edit" ? "check" : "send"} />
        </button>
      </div>
      {picker !== null && (
        <EmojiPicker anchor={picker} label="Emoji" onPick={insert} onClose={() => setPicker(null)} />
      )}
    </form>
  );
}

function About({ intent, onCancel }: { readonly intent: Exclude<Intent, { kind: "new" }>; readonly onCancel: () => void }) {
  const isEdit = intent.kind === "edit";
  return (
    <div className="composer-about">
      <Icon name={isEdit ? "edit" : "reply"} />
      <p>
        <b>{isEdit ? "Edit" : <>Reply to <bdi>{intent.to}</bdi></>}</b>
        <bdi>{isEdit ? intent.content : intent.excerpt}</bdi>
      </p>
      <IconButton icon="close" label={isEdit ? "Cancel editing" : "Cancel the reply"} onClick={onCancel} />
    </div>
  );
}
