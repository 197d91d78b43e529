import { useEffect, useMemo, useState } from "react";
import { useUserMessageStream } from "../hooks/useUserMessageStream";
import type { Actions, Member, Message, Role, UserMessageStream } from "../lib/types";
import type { Session } from "./session";

/** What this page knows and can do as one person. */
export interface Chat extends UserMessageStream, Groups {
  /** How many messages the last reconnect brought; null a few seconds later. */
  readonly caughtUp: number | null;
}

/** What the hook has no function of its own for. */
interface Groups {
  readonly rename: (conversationId: string, title: string) => Promise<unknown>;
  readonly listMembers: (conversationId: string) => Promise<readonly Member[]>;
  readonly putMember: (conversationId: string, userId: string, role: Role) => Promise<unknown>;
  readonly removeMember: (conversationId: string, userId: string) => Promise<unknown>;
  readonly mute: (conversationId: string, until: string | null) => Promise<unknown>;
  /** Null where there is none to read. */
  readonly findMessage: (messageId: string) => Promise<Message | null>;
}

const SHOWN_MS = 6_000;
const MAX_SHOWN_MEMBERS = 100; // one page

export function useChat(session: Session): Chat {
  const [caughtUp, setCaughtUp] = useState<number | null>(null);
  const stream = useUserMessageStream({
    token: session.token,
    userId: session.person.id,
    fetch: session.wire.fetch,
    EventSource: session.wire.EventSource,
    onEvent(event) {
      if (event.event === "connected" && event.data.recovered) setCaughtUp(event.data.replayed);
    },
  });
  const groups = useMemo(() => groupsOf(stream.call), [stream.call]);

  useEffect(() => {
    if (caughtUp === null) return;
    const timer = setTimeout(() => setCaughtUp(null), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [caughtUp]);

  return { ...stream, ...groups, caughtUp };
}

function groupsOf(call: Actions["call"]): Groups {
  const member = (id: string, userId: string) => `/conversations/${id}/members/${encodeURIComponent(userId)}`;
  return {
    rename: (id, title) => call("PATCH", `/conversations/${id}`, { title }),
    async listMembers(id) {
      const path = `/conversations/${id}/members?limit=${MAX_SHOWN_MEMBERS}`;
      return (await call<{ items: readonly Member[] }>("GET", path)).items;
    },
    putMember: (id, userId, role) => call("PUT", member(id, userId), { role }),
    removeMember: (id, userId) => call("DELETE", member(id, userId)),
    mute: (id, until) => call("PATCH", `/conversations/${id}/me`, { muted_until: until }),
    async findMessage(id) {
      try {
        return { ...(await call<Message>("GET", `/messages/${id}`)), status: "sent", error: null };
      } catch (error) {
        if (statusOf(error) === 404) return null;
        throw error;
      }
    },
  };
}

/** What to tell a person about a failure. */
export function sentenceOf(error: unknown): string {
  if (statusOf(error) === 0) return "The server cannot be reached.";
  return hasMessage(error) ? error.message : "The server refused.";
}

function statusOf(error: unknown): number {
  const isKnown = typeof error === "object" && error !== null && "status" in error;
  return isKnown && typeof error.status === "number" ? error.status : 0;
}

const hasMessage = (error: unknown): error is { message: string } =>
  typeof error === "object" && error !== null && "message" in error && typeof error.message === "string";
