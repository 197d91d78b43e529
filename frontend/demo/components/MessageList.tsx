import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { Virtualizer, type VirtualizerHandle } from "virtua";
import type { Conversation, Message } from "../../lib/types";
import { firstNewOf, rowsOf } from "../rows";
import { Icon } from "./Icon";
import { MessageRow } from "./MessageRow";
import type { MessageActions } from "./actions";
import { useFollowEnd } from "./useFollowEnd";
import { useLoadOlder } from "./useLoadOlder";
import { useRoving } from "./useRoving";
import { useShift } from "./useShift";

interface MessageListProps {
  readonly conversation: Conversation;
  readonly messages: readonly Message[];
  readonly me: string;
  /** What had been read when the conversation was opened, null for everything: the divider follows it. */
  readonly readBefore: number | null;
  readonly hasMore: boolean;
  readonly found: ReadonlyMap<string, Message | null>;
  readonly actions: MessageActions;
  /** The message to go to: one that was answered. */
  readonly visiting: string | null;
  readonly onVisited: () => void;
  readonly onLoadOlder: () => Promise<unknown>;
  readonly onAtEnd: (isAtEnd: boolean) => void;
  readonly onLeave: () => void;
}

const TOP_PX = 56; // above the first message: the height of .log-top
const FLASH_MS = 1_600;

export function MessageList(props: MessageListProps) {
  const { conversation, messages, me, readBefore, hasMore, found, actions, onAtEnd } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);

  const firstNewKey = useMemo(() => firstNewOf(messages, { me, readBefore, hasMore }), [messages, me, readBefore, hasMore]);
  const rows = useMemo(() => rowsOf(messages, { firstNewKey, hasMore }), [messages, firstNewKey, hasMore]);
  const byId = useMemo(() => new Map(messages.map((message) => [message.id, message])), [messages]);
  const shift = useShift(rows);

  const older = useLoadOlder(scroller, { rows, hasMore, load: props.onLoadOlder });
  const { isAtEnd, toEnd, letGo, onScroll } = useFollowEnd(scroller, inner, list, rows, me);
  const roving = useRoving(scroller, list, rows, props.onLeave);
  const flashing = useVisit(list, rows, { ...props, loadOlder: older.load, letGo });
  const missed = useMissed(messages, me, isAtEnd);

  useEffect(() => onAtEnd(isAtEnd), [isAtEnd, onAtEnd]);

  return (
    <div className="log-frame">
      {/* Live regions speak of whatever is added: here also what scrolls into view. New messages are
          announced by Announcer instead. */}
      <div
        ref={scroller}
        className="log"
        role="log"
        aria-live="off"
        aria-label="Messages"
        tabIndex={0}
        onKeyDown={roving.onKeyDown}
        onFocus={roving.onFocus}
        onScroll={() => {
          onScroll();
          older.onScroll();
        }}
      >
        <div ref={inner} className="log-inner">
          <div className="log-top">
            <p className="log-start">{hasMore ? (older.trouble ?? "Loading older messages …") : "This is the beginning."}</p>
          </div>
          <Virtualizer
            ref={list}
            scrollRef={scroller}
            startMargin={TOP_PX}
            data={rows}
            shift={shift}
            {...(roving.active === null ? {} : { keepMounted: [roving.active] })}
          >
            {(row) => (
              <MessageRow
                key={row.key}
                row={row}
                me={me}
                conversation={conversation}
                actions={actions}
                quoted={quotedBy(row.message, byId, found)}
                isFlashing={flashing === row.message.id}
              />
            )}
          </Virtualizer>
        </div>
      </div>
      {!isAtEnd && (
        <button type="button" className={`to-end ${missed > 0 ? "has-new" : ""}`} onClick={toEnd}>
          {missed > 0 ? `${missed} new` : <span className="unseen">To the newest message</span>}
          <Icon name="down" />
        </button>
      )}
    </div>
  );
}

function quotedBy(message: Message, byId: ReadonlyMap<string, Message>, found: ReadonlyMap<string, Message | null>) {
  const id = message.reply_to_id;
  return id === null ? null : (byId.get(id) ?? found.get(id));
}

/** How many came from others since the reader left the end. */
function useMissed(messages: readonly Message[], me: string, isAtEnd: boolean): number {
  const seen = useRef(0);
  const last = messages.reduce((seq, message) => Math.max(seq, message.seq), 0);
  useLayoutEffect(() => {
    if (isAtEnd) seen.current = last;
  }, [isAtEnd, last]);
  if (isAtEnd || last <= seen.current) return 0;
  return messages.filter((message) => message.seq > seen.current && message.sender.id !== me).length;
}

type Visit = Pick<MessageListProps, "visiting" | "onVisited" | "hasMore"> & {
  readonly loadOlder: () => void;
  readonly letGo: () => void;
};

/** Go to a message, loading what lies between, and light it up for a moment. */
function useVisit(
  list: React.RefObject<VirtualizerHandle | null>,
  rows: readonly { readonly message: Message }[],
  { visiting, onVisited, hasMore, loadOlder, letGo }: Visit,
): string | null {
  const [flashing, setFlashing] = useState<string | null>(null);
  useEffect(() => {
    if (visiting === null) return;
    const index = rows.findIndex(({ message }) => message.id === visiting);
    if (index < 0 && hasMore) {
      loadOlder();
      return;
    }
    if (index >= 0) {
      letGo();
      list.current?.scrollToIndex(index, { align: "center" });
      setFlashing(visiting);
    }
    onVisited();
  }, [visiting, rows, hasMore, loadOlder, letGo, onVisited, list]);
  useEffect(() => {
    if (flashing === null) return;
    const timer = setTimeout(() => setFlashing(null), FLASH_MS);
    return () => clearTimeout(timer);
  }, [flashing]);
  return flashing;
}
