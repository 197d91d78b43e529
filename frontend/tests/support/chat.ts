/** A scripted server that has one conversation, and a client of it. */

import { createClient, type Client } from "../../lib/client.ts";
import type { Conversation, Message } from "../../lib/protocol.ts";
import type { ClientOptions } from "../../lib/types.ts";
import { aConversation, aMessage, aToken, ROOM } from "./samples.ts";
import { json, scriptedServer, STREAM, stream, type ScriptedServer } from "./scriptedServer.ts";

export const HISTORY = `GET /conversations/${ROOM}/messages`;
export const CHANGES = `GET /conversations/${ROOM}/changes`;
export const LIST = "GET /conversations";

export const listed = (...items: Conversation[]) => json({ items, next_cursor: null, has_more: false });
export const history = (items: Message[], rev = items.at(-1)?.rev ?? 1, has_more = false) =>
  json({ items, next_cursor: null, has_more, rev });

export function changed(items: Message[], rev: number, conversation = aConversation({ rev })) {
  return json({ rev, joined_seq: 0, conversation, read_positions: [], items, has_more: false });
}

export async function chatServer(): Promise<ScriptedServer> {
  const server = await scriptedServer();
  const first = aMessage(1);
  const room = aConversation({ last_seq: 1, last_message: first, unread: 1 });
  server.on(STREAM, stream("e.1"));
  server.on(LIST, listed(room));
  server.on(`GET /conversations/${ROOM}`, json(room));
  server.on(HISTORY, history([first]));
  server.on(CHANGES, changed([], 1, room));
  return server;
}

export function clientOf(server: ScriptedServer, more: Partial<ClientOptions> = {}): Client {
  return createClient({ baseUrl: server.url, token: aToken("bob"), transport: "fetch", shareStream: false, ...more });
}
