/** One client for all components that name the same server and user; it outlives the last one by a moment. */

import { ACTIONS, createClient, type Client } from "./client.ts";
import type { Actions, State, StreamOptions } from "./types.ts";

interface Shared {
  readonly client: Client;
  holders: number;
  timer?: ReturnType<typeof setTimeout>;
}

/** What one component has of a client. */
export interface Lease {
  /** The options of the latest render. */
  readonly update: (options: StreamOptions) => void;
  /** Hold the client of that name; returns the way to let go of it. */
  readonly take: (key: string, listener: () => void) => () => void;
  readonly getState: () => State | undefined;
  /** Of whichever client is held, as functions that stay the same; without one they say `closed`. */
  readonly actions: Actions;
}

const LINGER_MS = 50; // StrictMode and a change of route unmount, and mount again
const shared = new Map<string, Shared>();

/** What names a client. */
export const clientKey = ({ baseUrl = "", userId }: StreamOptions): string => JSON.stringify([baseUrl, userId]);

export function createLease(options: StreamOptions): Lease {
  const idle = createClient({ token: "" });
  let latest = options;
  let client: Client | undefined;
  const pass = (name: keyof Actions) => (...given: unknown[]) =>
    ((client ?? idle)[name] as (...given: unknown[]) => unknown)(...given);

  return {
    update(given) {
      latest = given;
      client?.setToken(given.token);
    },
    take(key, listener) {
      const held = shared.get(key) ?? { client: createClient(latest), holders: 0 };
      shared.set(key, held);
      client = held.client;
      clearTimeout(held.timer);
      held.holders += 1;
      client.setToken(latest.token);
      client.start();
      const stop = client.subscribe(listener);
      const ignore = client.observe(() => latest);
      return () => {
        stop();
        ignore();
        client = undefined;
        held.holders -= 1;
        if (held.holders > 0) return;
        held.timer = setTimeout(() => {
          shared.delete(key);
          held.client.close();
        }, LINGER_MS);
      };
    },
    getState: () => client?.getState(),
    actions: Object.fromEntries(ACTIONS.map((name) => [name, pass(name)])) as unknown as Actions,
  };
}
