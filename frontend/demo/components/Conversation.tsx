import { useCallback, useEffect, useRef, useState } from "react";
import type { Conversation as ConversationData } from "../../lib/types";
import { sentenceOf, type Chat } from "../chat";
import { peerOf, peopleOf, titleOf } from "../conversations";
import { nameOf } from "../people";
import { firstNameOf, listOf } from "../text/names";
import { Announcer } from "./Announcer";
import { Avatar } from "./Avatar";
import { Composer, type Intent } from "./Composer";
import { Ghosts } from "./Ghosts";
import { IconButton } from "./IconButton";
import { MessageList } from "./MessageList";
import { useFound } from "./useFound";
import { useMessageActions } from "./useMessageActions";
import { useReading } from "./useReading";

interface ConversationProps {
  readonly chat: Chat;
  readonly me: string;
  readonly conversation: ConversationData;
  readonly drafts: Map<string, string>;
  readonly onBack: () => void;
  readonly onDetails: () => void;
}

const NEW: Intent = { kind: "new" };

/** One conversation, open. It is built anew for another one: nothing is carried over. */
export function Conversation({ chat, me, conversation, drafts, onBack, onDetails }: ConversationProps) {
  const { id } = conversation;
  const { setTyping, loadOlder } = chat;
  const messages = chat.messages(id);
  const title = titleOf(conversation, me);
  const [intent, setIntent] = useState<Intent>(NEW);
  const [visiting, setVisiting] = useState<string | null>(null);
  const field = useRef<HTMLDivElement>(null);
  const { found, find } = useFound(chat.findMessage);
  const { readBefore, setAtEnd, clear } = useReading(conversation, chat.markRead);

  const focusField = useCallback(() => field.current?.querySelector("textarea")?.focus(), []);
  useEffect(() => {
    // Writing can begin at once, but not where the keyboard would come up and hide the messages.
    if (matchMedia("(pointer: fine)").matches) focusField();
  }, [focusField]);
  const [trouble, setTrouble] = useState<string | null>(null);
  const attempt = useCallback((what: string, work: Promise<unknown>) => {
    setTrouble(null);
    work.catch((error: unknown) => setTrouble(`${what} ${sentenceOf(error)}`));
  }, []);
  const actions = useMessageActions(chat, { me, setIntent, setVisiting, find, attempt });
  const onTyping = useCallback((isTyping: boolean) => setTyping(id, isTyping), [setTyping, id]);
  const typing = chat.typing(id);
  const typingNames = conversation.members.filter((each) => typing.includes(each.id)).map((each) => firstNameOf(nameOf(each)));

  const isLoaded = chat.hasLoaded(id) || messages.length > 0;
  const onVisited = useCallback(() => setVisiting(null), []);
  const onLoadOlder = useCallback(() => loadOlder(id), [loadOlder, id]);

  const submit = (text: string) => {
    setIntent(NEW);
    if (intent.kind === "edit") {
      requestAnimationFrame(focusField);
      if (text === intent.content) return;
      const saved = chat.edit(intent.messageId, text);
      attempt("The change is not saved.", saved);
      saved.catch(() => setIntent({ ...intent, words: text })); // what was written is not lost
    } else {
      clear();
      void chat.send({ conversationId: id, content: text, ...(intent.kind === "reply" && { replyToId: intent.messageId }) });
    }
  };
  const editLast = () => {
    const last = messages.findLast((each) => each.sender.id === me && each.deleted_at === null && each.status === "sent");
    if (last !== undefined) actions.edit(last);
  };

  return (
    <div className="conversation" role="group" aria-label={title}>
      <header className="conversation-head">
        <IconButton className="only-narrow" icon="back" label="Back to the list" onClick={onBack} />
        <button type="button" className="conversation-title" aria-haspopup="dialog" onClick={onDetails}>
          <Avatar id={peerOf(conversation, me)?.id ?? id} name={title} isGroup={conversation.kind === "group"} />
          <span className="conversation-title-text">
            <h2>
              <bdi>{title}</bdi>
            </h2>
            <bdi>{conversation.kind === "group" ? peopleOf(conversation, me) : "Direct chat"}</bdi>
          </span>
          <span className="unseen">Details</span>
        </button>
      </header>
      <Announcer messages={messages} me={me} />
      {isLoaded ? (
        <MessageList
          conversation={conversation}
          messages={messages}
          me={me}
          readBefore={readBefore}
          hasMore={chat.hasMore(id)}
          found={found}
          actions={actions}
          visiting={visiting}
          onVisited={onVisited}
          onLoadOlder={onLoadOlder}
          onAtEnd={setAtEnd}
          onLeave={focusField}
        />
      ) : (
        <div className="log-frame">
          <Ghosts count={6} />
        </div>
      )}
      <div className="composer" ref={field}>
        <p className="typing" role="status">
          {typingNames.length > 0 && (
            <>
              <span className="dots" aria-hidden="true">
                <i />
                <i />
                <i />
              </span>
              <bdi>
                {listOf(typingNames)} {typingNames.length > 1 ? "are" : "is"} typing
              </bdi>
            </>
          )}
        </p>
        {trouble !== null && (
          <div className="trouble composer-trouble" role="alert">
            <p>{trouble}</p>
            <IconButton icon="close" label="Close" onClick={() => setTrouble(null)} />
          </div>
        )}
        <Composer
          key={intent.kind === "edit" ? intent.messageId : "new"}
          title={title}
          intent={intent}
          draft={drafts.get(id) ?? ""}
          onDraft={(text) => drafts.set(id, text)}
          onSubmit={submit}
          onCancel={() => {
            setIntent(NEW);
            requestAnimationFrame(focusField);
          }}
          onEditLast={editLast}
          onTyping={onTyping}
        />
      </div>
    </div>
  );
}
