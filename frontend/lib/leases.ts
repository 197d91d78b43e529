/** One client for all components that name the same server and user; it outlives the last one by a moment. */

import { createClient, type Client } from "./client.ts";
import type { Actions, ClientOptions } from "./types.ts";

export interface Lease {
  readonly client: Client;
  readonly release: () => void;
}

interface Shared {
  readonly client: Client;
  holders: number;
  timer?: ReturnType<typeof setTimeout>;
}

const LINGER_MS = 50; // StrictMode and a change of route unmount, and mount again
const shared = new Map<string, Shared>();

/** What names a client. */
export const clientKey = ({ baseUrl = "", userId = null }: { baseUrl?: string; userId?: string | null }): string =>
  JSON.stringify([baseUrl, userId]);

export function leaseClient(key: string, options: ClientOptions): Lease {
  let one = shared.get(key);
  if (!one) shared.set(key, (one = { client: createClient(options), holders: 0 }));
  const { client } = one;
  const mine = one;
  clearTimeout(mine.timer);
  mine.holders += 1;
  client.setToken(options.token);
  client.start();
  return {
    client,
    release() {
      mine.holders -= 1;
      if (mine.holders > 0) return;
      mine.timer = setTimeout(() => {
        shared.delete(key);
        client.close();
      }, LINGER_MS);
    },
  };
}

/** The actions of whichever client there is, as functions that stay the same; without one they say `closed`. */
export function actionsOf(find: () => Client | null): Actions {
  const idle = createClient({ token: "" });
  const { getState, subscribe, observe, start, close, setToken, ...actions } = idle;
  const names = Object.keys(actions) as (keyof Actions)[];
  const pass = (name: keyof Actions) => (...given: unknown[]) =>
    ((find() ?? idle)[name] as (...given: unknown[]) => unknown)(...given);
  return Object.fromEntries(names.map((name) => [name, pass(name)])) as unknown as Actions;
}
