/** The doors of a development server: who there is, and a token for anybody. */

export interface Person {
  readonly id: string;
  readonly name: string;
}

export interface User {
  readonly id: string;
  readonly name: string | null;
}

const PATIENCE_MS = 10_000;

export const nameOf = (user: User): string => user.name ?? user.id;

export async function fetchPeople(): Promise<readonly Person[]> {
  const { items } = await ask<{ items: User[] }>("/dev/users");
  return items.map((user) => ({ id: user.id, name: nameOf(user) }));
}

/** A token such as a host app would mint; the user exists from now on. */
export async function fetchToken(person: Person, over: typeof fetch = fetch): Promise<string> {
  const body = JSON.stringify({ user_id: person.id, name: person.name });
  const { token } = await ask<{ token: string }>("/dev/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  }, over);
  return token;
}

/** Make an id of a name: "Zoë King" becomes "zoe-king". */
export function personNamed(name: string): Person {
  const plain = name.normalize("NFKD").replace(/\p{Mark}/gu, "").toLowerCase();
  const id = plain.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
  return { id: id || `guest-${crypto.randomUUID().slice(0, 8)}`, name: name.trim() };
}

async function ask<T>(path: string, init: RequestInit = {}, over: typeof fetch = fetch): Promise<T> {
  const response = await over(path, { ...init, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`The server answered ${path} with ${response.status}.`);
  return (await response.json()) as T;
}
