/** Small things that not every browser, and no server, has. */

/** A random one (RFC 9562, version 4); plain http off localhost has no `crypto.randomUUID`. */
export const newUuid = (): string =>
  "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
    const bits = 15 >> (Number(digit) / 4); // those that are random
    return (Number(digit) ^ (crypto.getRandomValues(new Uint8Array(1))[0]! & bits)).toString(16);
  });

/** Listen to the page until the signal; capturing, for some events are the document's and do not bubble. */
export function listen(names: string, handler: (event: Event) => void, signal: AbortSignal): void {
  for (const name of names.split(" ")) globalThis.addEventListener?.(name, handler, { signal, capture: true });
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
