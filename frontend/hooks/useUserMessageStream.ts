/** The client, as a React hook: effects and nothing else. */

import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { emptyState } from "../lib/client.ts";
import { actionsOf, clientKey, leaseClient, type Lease } from "../lib/leases.ts";
import type { StreamOptions, UserMessageStream } from "../lib/types.ts";

export type * from "../lib/types.ts";

const BEFORE = emptyState("connecting");
const DISABLED = emptyState("closed");

/**
 * All of a user's conversations, live. Components that name the same server and user share one client. Nothing is
 * opened while rendering, nor on a server; the client closes a moment after the last component is gone.
 */
export function useUserMessageStream(options: StreamOptions): UserMessageStream {
  const { enabled = true } = options;
  const key = clientKey(options);
  const latest = useRef(options);
  const lease = useRef<Lease | null>(null);

  useEffect(() => {
    latest.current = options;
    lease.current?.client.setToken(options.token);
  });

  const subscribe = useCallback(
    (listener: () => void) => {
      if (!enabled) return () => {};
      const mine = leaseClient(key, latest.current);
      lease.current = mine;
      const stop = mine.client.subscribe(listener);
      const ignore = mine.client.observe(() => latest.current);
      return () => {
        stop();
        ignore();
        mine.release();
        lease.current = null;
      };
    },
    [enabled, key],
  );
  const before = enabled ? BEFORE : DISABLED;
  const state = useSyncExternalStore(
    subscribe,
    () => lease.current?.client.getState() ?? before,
    () => before,
  );
  const actions = useMemo(() => actionsOf(() => lease.current?.client ?? null), []);
  return useMemo(() => ({ ...state, ...actions }), [state, actions]);
}
