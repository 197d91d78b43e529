import { useCallback, useRef, useState, useSyncExternalStore } from "react";
import { useChat } from "../chat";
import { titleOf } from "../conversations";
import { healthOf } from "../health";
import type { Person } from "../people";
import { openSession } from "../session";
import { Conversation } from "./Conversation";
import { Details } from "./Details";
import { EmptyConversation } from "./EmptyConversation";
import { NewChat } from "./NewChat";
import { Notice } from "./Notice";
import { PaneBar } from "./PaneBar";
import { Sidebar } from "./Sidebar";

interface PaneProps {
  readonly person: Person;
  readonly open: readonly Person[];
  readonly onAdd: (person: Person) => void;
  readonly onClose: (person: Person) => void;
}

type OpenSheet = "new" | "details" | null;

/** The chat of one person: list and conversation, over a connection of its own. */
export function Pane({ person, open, onAdd, onClose }: PaneProps) {
  const [session] = useState(() => openSession(person)); // a pane has its person for life: `key`
  const isWhole = useSyncExternalStore(session.wire.subscribe, session.wire.isWhole);
  const chat = useChat(session);
  const drafts = useRef(new Map<string, string>()).current;
  const [openId, setOpenId] = useState<string | null>(null);
  const [sheet, setSheet] = useState<OpenSheet>(null);
  const conversation = chat.conversations.find(({ id }) => id === openId);
  const gone = useGone(openId, conversation === undefined ? null : titleOf(conversation, person.id));
  const health = healthOf(chat.status, { isWhole, waiting: chat.queued });
  const pane = useRef<HTMLElement>(null);

  const closeSheet = useCallback(() => setSheet(null), []);
  const back = useCallback(() => {
    const item = `[data-conversation="${CSS.escape(openId ?? "")}"]`;
    setSheet(null);
    setOpenId(null);
    requestAnimationFrame(() => pane.current?.querySelector<HTMLElement>(item)?.focus());
  }, [openId]);
  const show = useCallback((id: string) => {
    setSheet(null);
    setOpenId(id);
  }, []);

  return (
    <section ref={pane} className="pane" aria-label={`Chats of ${person.name}`}>
      <div className="pane-inner" inert={sheet !== null}>
        <PaneBar
          person={person}
          open={open}
          health={health}
          isWhole={isWhole}
          onWire={(next) => {
            session.wire.set(next);
            if (next) chat.reconnect();
          }}
          onAdd={onAdd}
          onSignOut={() => void chat.signOut().finally(() => onClose(person))}
        />
        <Notice chat={chat} isWhole={isWhole} gone={gone} />
        <div className="chat" data-shows={conversation === undefined ? "list" : "conversation"}>
          <Sidebar chat={chat} me={person.id} openId={openId} drafts={drafts} onOpen={show} onNew={() => setSheet("new")} />
          {conversation === undefined ? (
            <EmptyConversation hasChats={chat.conversations.length > 0} />
          ) : (
            <Conversation
              key={conversation.id}
              chat={chat}
              me={person.id}
              conversation={conversation}
              drafts={drafts}
              onBack={back}
              onDetails={() => setSheet("details")}
            />
          )}
        </div>
      </div>
      {sheet === "new" && <NewChat chat={chat} me={person.id} onStarted={show} onClose={closeSheet} />}
      {sheet === "details" && conversation !== undefined && (
        <Details chat={chat} me={person.id} conversation={conversation} onClose={closeSheet} onLeft={back} />
      )}
    </section>
  );
}

/** The title of what was open and is no longer there, until something else is opened. */
function useGone(openId: string | null, title: string | null): string | null {
  const [last, setLast] = useState<{ id: string; title: string } | null>(null);
  if (openId !== null && title !== null && (last?.id !== openId || last.title !== title)) {
    setLast({ id: openId, title });
  }
  return openId !== null && title === null && last?.id === openId ? last.title : null;
}
