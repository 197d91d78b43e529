/** Who types: what is told expires, and what is told of oneself is told seldom. */

import type { StreamEvent } from "./protocol.ts";

export interface Typing {
  readonly apply: (event: StreamEvent) => void;
  readonly who: (conversationId: string) => readonly string[];
  /** At every key; calls `tell` seldom. */
  readonly set: (conversationId: string, isTyping: boolean) => void;
}

export interface TypingOptions {
  readonly userId: string;
  readonly onChange: () => void;
  readonly tell: (conversationId: string, isTyping: boolean) => void;
  readonly signal: AbortSignal;
}

const PAUSE_MS = 2_100; // the server drops what comes within 2 s of the last it passed on
const AGAIN_MS = 2_500; // the others forget it after 6 s
const NOBODY: readonly string[] = [];

/** What was said last, and when. */
type Told = readonly [isTyping: boolean, at: number];
const NEVER: Told = [false, 0];

export function createTyping({ userId: me, onChange, tell, signal }: TypingOptions): Typing {
  const names = new Map<string, readonly string[]>();
  const timers = new Map<string, ReturnType<typeof setTimeout>>();
  const mine = new Map<string, Told>();

  signal.addEventListener("abort", () => timers.forEach(clearTimeout));

  return {
    apply({ event, data }) {
      if (event === "typing_status" && data.user_id !== me) {
        note(data.conversation_id, data.user_id, data.is_typing ? data.expires_in : 0);
      } else if (event === "new_message") {
        note(data.conversation_id, data.sender.id, 0); // of oneself: what was yet to be told, too
        if (data.sender.id === me) mine.set(data.conversation_id, [false, (mine.get(data.conversation_id) ?? NEVER)[1]]);
      }
    },
    who,
    set(id, isTyping) {
      const [told, at] = mine.get(id) ?? NEVER;
      const sinceMs = Date.now() - at;
      const key = `${id} ${me}`;
      clearTimeout(timers.get(key));
      if (isTyping ? told && sinceMs < AGAIN_MS : !told) return;
      if (sinceMs < PAUSE_MS) timers.set(key, setTimeout(say, PAUSE_MS - sinceMs, id, isTyping));
      else say(id, isTyping);
    },
  };

  function say(id: string, isTyping: boolean): void {
    mine.set(id, [isTyping, Date.now()]);
    tell(id, isTyping);
  }

  function who(id: string): readonly string[] {
    return names.get(id) ?? NOBODY;
  }

  function note(id: string, userId: string, seconds: number): void {
    const key = `${id} ${userId}`;
    const isKnown = who(id).includes(userId);
    clearTimeout(timers.get(key));
    timers.delete(key);
    if (seconds > 0) timers.set(key, setTimeout(note, seconds * 1_000, id, userId, 0));
    if (isKnown === seconds > 0) return;
    names.set(id, isKnown ? who(id).filter((name) => name !== userId) : [...who(id), userId]);
    onChange();
  }
}
