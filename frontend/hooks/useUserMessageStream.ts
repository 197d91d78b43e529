/** The client, as a React hook: effects and nothing else. */

import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { emptyState } from "../lib/client.ts";
import { clientKey, createLease } from "../lib/leases.ts";
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
  const [lease] = useState(() => createLease(options));

  useEffect(() => lease.update(options));

  const subscribe = useCallback(
    (listener: () => void) => (enabled ? lease.take(key, listener) : () => {}),
    [lease, enabled, key],
  );
  const before = enabled ? BEFORE : DISABLED;
  const state = useSyncExternalStore(
    subscribe,
    () => lease.getState() ?? before,
    () => before,
  );
  return useMemo(() => ({ ...state, ...lease.actions }), [state, lease]);
}
