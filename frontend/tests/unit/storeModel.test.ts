import { describe, expect, test } from "vitest";
import type { Api } from "../../lib/api.ts";
import { createMessageStore } from "../../lib/messageStore.ts";
import type { StreamEvent } from "../../lib/protocol.ts";
import { createSync } from "../../lib/sync.ts";
import { createView } from "../../lib/view.ts";
import { seeded } from "../support/random.ts";
import { ROOM } from "../support/samples.ts";
import { createTable } from "../support/table.ts";

/**
 * Changes at the server, events that overtake each other, come twice or are lost (then a `resync` says so), and
 * answers that were read long before they arrive. Whatever the order: in the end the copy is the table.
 */
async function run(seed: number, { isLossy = false, isShown = true }): Promise<number> {
  const random = seeded(seed);
  const table = createTable();
  const wire: StreamEvent[] = [];
  const answers: (() => void)[] = [];
  const session = new AbortController();
  const api: Pick<Api, "call"> = {
    // The snapshot is of now, the answer of later.
    call(_method, path) {
      const answer = structuredClone(table.get(path));
      return new Promise((resolve) => answers.push(() => resolve(answer)));
    },
  };
  const store = createMessageStore("bob", () => {});
  const sync = createSync({ api: api as Api, store, onChange: () => {}, onError: (error) => { if (error) throw error; } });
  const view = createView(store, () => []);
  let asked = 0;

  const tell = (index: number) => {
    const [event] = wire.splice(index, 1);
    store.apply(structuredClone(event!));
    if (random.chance(0.1)) store.apply(structuredClone(event!));
    void sync.work();
  };
  const answer = async () => {
    answers.splice(random.below(answers.length), 1)[0]!();
    asked += 1;
    await taken();
  };

  for (let count = random.below(20); count > 0; count -= 1) table.change(random);
  sync.refresh(session.signal);
  if (isShown) store.show(ROOM);
  void sync.work();
  let isLost = false;
  for (let turn = 0; turn < 120; turn += 1) {
    const what = random.below(10);
    if (what < 3) wire.push(table.change(random));
    else if (what < 6 && wire.length > 0) tell(random.below(Math.min(wire.length, 4)));
    else if (what === 6 && isLossy && wire.length > 0) {
      wire.shift();
      isLost = true;
    } else if (what === 7) void sync.older(ROOM);
    else if (answers.length > 0) await answer();
  }
  while (wire.length > 0) tell(random.below(wire.length));
  if (isLost) sync.refresh(session.signal);
  await taken();
  while (answers.length > 0) await answer();

  const { thread, conversation } = store.entries.get(ROOM)!;
  view();
  const shown = store.entries.get(ROOM)!.shown.map(({ status: _status, error: _error, ...message }) => message);
  const low = thread?.low ?? Infinity;
  expect(shown, `seed ${seed}: messages`).toEqual(table.messages().filter(({ seq }) => seq >= low));
  // Its own rev says when its title and members were told of; messages change without it.
  expect({ ...conversation, rev: 0 }, `seed ${seed}: conversation`).toEqual({ ...table.conversation(), rev: 0 });
  expect(thread?.hasMore ?? true, `seed ${seed}: hasMore`).toBe(low > 1);
  session.abort();
  return asked;
}

/** All microtasks have run. */
const taken = () => new Promise((resolve) => setImmediate(resolve));

const SEEDS = Array.from({ length: 300 }, (_, index) => index + 1);

describe("the copy of a conversation", () => {
  test("is the server's table after events and answers in any order", async () => {
    let asked = 0;
    for (const seed of SEEDS) asked += await run(seed, {});
    expect(asked).toBeGreaterThan(1_000); // or it was all events
  });

  test("is the server's table after a resync, whatever was lost", async () => {
    for (const seed of SEEDS) await run(seed, { isLossy: true });
  });

  test("of which only the list is shown is the server's, too", async () => {
    for (const seed of SEEDS) await run(seed, { isShown: false, isLossy: seed % 2 === 0 });
  });
});
