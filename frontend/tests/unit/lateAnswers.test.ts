/** Answers that were read before something that an event has told of since. */

import { beforeEach, expect, test } from "vitest";
import { clientError, type Api } from "../../lib/api.ts";
import { createMessageStore, type MessageStore } from "../../lib/messageStore.ts";
import type { Conversation } from "../../lib/protocol.ts";
import { createSync, type Sync } from "../../lib/sync.ts";
import { aConversation, aMessage, ROOM } from "../support/samples.ts";

const LIST = "/conversations?limit=100";
const CHANGES = `/conversations/${ROOM}/changes?limit=200&after_rev=9`;
const before = aConversation({ rev: 9, title: "old", last_seq: 5, last_message: aMessage(5) });
let answers: Map<string, (value: unknown) => void>;
let store: MessageStore;
let sync: Sync;

beforeEach(() => {
  answers = new Map();
  const api: Pick<Api, "call"> = { call };
  store = createMessageStore("bob", () => {});
  sync = createSync({ api: api as Api, store, onChange() {}, onError: (error) => { if (error) throw error; } });
  store.takeConversation(before);
});

const call: Api["call"] = (_method, path) => new Promise((resolve) => answers.set(path, resolve));
const room = () => store.entries.get(ROOM)!.conversation!;

async function answer(path: string, value: unknown): Promise<void> {
  answers.get(path)!(value);
  await new Promise((resolve) => setImmediate(resolve));
}

async function refresh(): Promise<void> {
  sync.refresh(new AbortController().signal);
  await new Promise((resolve) => setImmediate(resolve));
}

const list = (...items: Conversation[]) => ({ items, next_cursor: null, has_more: false });

test("a title that was missed is taken, though a message has come since", async () => {
  await refresh();
  store.apply({ event: "new_message", data: aMessage(6, { rev: 11 }) });
  await answer(LIST, list({ ...before, rev: 10, title: "new" }));
  expect(room()).toMatchObject({ title: "new", last_seq: 6 });
});

test.each([10, 11])("a conversation that a message of rev %i has brought back is not hidden again", async (rev) => {
  store.show(ROOM).thread!.rev = 9;
  store.wanted.clear();
  store.apply({ event: "conversation_updated", data: { id: ROOM, muted_until: null, hidden: true } });
  await refresh();
  await answer(LIST, list());
  store.apply({ event: "new_message", data: aMessage(6, { rev }) });
  const conversation = { ...before, hidden: true, muted_until: "2027-01-01T00:00:00Z" };
  await answer(CHANGES, { rev: 9, joined_seq: 0, conversation, read_positions: [], items: [], has_more: false });
  expect(room()).toMatchObject({ hidden: false, muted_until: "2027-01-01T00:00:00Z" });
});

test("what is gone is let go of, also where the list goes on", async () => {
  const gone = aConversation({ id: ROOM.replace(/1$/, "2"), title: "gone", last_seq: 6, last_message: aMessage(6) });
  store.takeConversation(gone);
  await refresh();
  await answer(LIST, { items: [before], next_cursor: "c", has_more: true });
  expect([...store.entries.keys()]).toEqual([ROOM]);
});

test("what comes while the list is read stays", async () => {
  await refresh();
  const made = aConversation({ id: ROOM.replace(/1$/, "2") });
  store.takeConversation(made);
  await answer(LIST, { items: [before], next_cursor: "c", has_more: true });
  expect([...store.entries.keys()]).toEqual([ROOM, made.id]);
});

test("a list that was read before one was removed from a group does not bring it back", async () => {
  await refresh();
  store.apply({ event: "conversation_updated", data: { id: ROOM, rev: 10, role: null } });
  await answer(LIST, list(before));
  expect(store.entries.get(ROOM)?.conversation).toBeUndefined();
  store.apply({ event: "conversation_updated", data: { ...before, rev: 11 } }); // taken back
  expect(room()).toMatchObject({ rev: 11 });
});

test("of two first pages the later one leaves what the earlier has been extended by", async () => {
  const [page, other] = [`/conversations/${ROOM}/messages`, ROOM.replace(/1$/, "2")];
  const history = (from: number, to: number, rev: number) => {
    const items = Array.from({ length: to - from + 1 }, (_, index) => aMessage(from + index));
    return { items, next_cursor: null, has_more: from > 1, rev };
  };
  const both = list(before, aConversation({ id: other }));
  sync = createSync({ api: { call } as Api, store, onChange() {}, onError() {} });
  store.takeConversation(aConversation({ id: other }));
  const thread = store.show(ROOM).thread!;
  store.show(other);
  await refresh();
  await answer(LIST, both);
  const first = answers.get(page)!;
  await answer(`/conversations/${other}/messages`, Promise.reject(clientError("unavailable", "", 503, 60_000)));
  await refresh();
  await answer(LIST, both); // asks for both once more
  expect(answers.get(page)).not.toBe(first);
  first(history(51, 100, 100));
  await new Promise((resolve) => setImmediate(resolve));
  const older = sync.older(ROOM);
  await answer(page, history(61, 110, 110));
  await answer(`${page}?before=51`, history(1, 50, 110));
  await older;
  const seqs = [...thread.byId.values()].map(({ seq }) => seq).sort((one, two) => one - two);
  expect(seqs).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
});
