import type { Person } from "./people";

/** Each pane holds a stream, and a browser opens six connections to an HTTP/1.1 server. */
export const MAX_PANES = 4;

const GRAMMAR = /^[A-Za-z0-9._:@|+=-]{1,128}$/;

/** Who is signed in stands in the address, so that a reload, or a link, shows the same panes. */
export function panesOf(hash: string): readonly string[] {
  const ids = hash.replace(/^#/, "").split(",").map(decoded).filter((id) => GRAMMAR.test(id));
  return [...new Set(ids)].slice(0, MAX_PANES);
}

export function hashOf(people: readonly Person[]): string {
  return people.length === 0 ? "" : `#${people.map((person) => encodeURIComponent(person.id)).join(",")}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
