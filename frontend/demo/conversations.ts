import type { Conversation } from "../lib/types";
import { nameOf, type User } from "./people";
import { listOf } from "./text/names";

/** The other one of a direct conversation. */
export function peerOf(conversation: Conversation, me: string): User | undefined {
  return conversation.kind === "direct" ? conversation.members.find(({ id }) => id !== me) : undefined;
}

export function titleOf(conversation: Conversation, me: string): string {
  const peer = peerOf(conversation, me);
  if (peer !== undefined) return nameOf(peer);
  if (conversation.title !== null) return conversation.title;
  const others = conversation.members.filter(({ id }) => id !== me).map(nameOf);
  return others.length > 0 ? listOf(others) : "Group without a name";
}

/** Who is in it: "Ada, Bob and you". */
export function peopleOf(conversation: Conversation, me: string): string {
  const others = conversation.members.filter(({ id }) => id !== me).map(nameOf);
  const hidden = conversation.member_count - conversation.members.length;
  return listOf([...others, ...(hidden > 0 ? [`${hidden} more`] : []), "you"], { most: 6 });
}
