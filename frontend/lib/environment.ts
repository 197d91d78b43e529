/** Small things that not every browser, and no server, has. */

/** A random one (RFC 9562, version 4); plain http off localhost has no `crypto.randomUUID`. */
export const newUuid = (): string =>
  "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx".replace(/x/g, () =>
    (crypto.getRandomValues(new Uint8Array(1))[0]! % 16).toString(16),
  );

/** Listen to the page until the signal; capturing, for some events are the document's and do not bubble. */
export function listen(names: string, handler: (event: Event) => void, signal: AbortSignal): void {
  for (const name of names.split(" ")) globalThis.addEventListener?.(name, handler, { signal, capture: true });
}

/** None where site data are blocked: some browsers then refuse it with an error. */
export function channelOf(name: string): BroadcastChannel | undefined {
  try {
    return new BroadcastChannel(name);
  } catch {
    return undefined;
  }
}

export const locksOf = (): LockManager | undefined => globalThis.navigator?.locks;

/** Resolves after `ms`, or at once when the signal is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (signal.aborted) done();
    else signal.addEventListener("abort", done);
  });
}
