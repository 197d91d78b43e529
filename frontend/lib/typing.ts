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

export function createTyping({ userId: me, onChange, tell, signal }: TypingOptions): Typing {
  const names = new Map<string, readonly string[]>();
  const timers = new Map<string, ReturnType<typeof setTimeout>>();
  const toldAt = new Map<string, number>();

  signal.addEventListener("abort", () => timers.forEach(clearTimeout));

  return {
    apply({ event, data }) {
      if (event === "typing_status" && data.user_id !== me) {
        note(data.conversation_id, data.user_id, data.is_typing ? data.expires_in : 0);
      } else if (event === "new_message") {
        note(data.conversation_id, data.sender.id, 0); // of oneself: what was yet to be told, too
        if (data.sender.id === me) toldAt.delete(data.conversation_id);
      }
    },
    who,
    set(id, isTyping) {
      const [key, last, now] = [`${id} ${me}`, toldAt.get(id) ?? 0, Date.now()];
      clearTimeout(timers.get(key));
      if (!isTyping && last) timers.set(key, setTimeout(stop, last + PAUSE_MS - now, id));
      if (!isTyping || now - last < AGAIN_MS) return;
      toldAt.set(id, now);
      tell(id, true);
    },
  };

  function stop(id: string): void {
    toldAt.delete(id);
    tell(id, false);
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
