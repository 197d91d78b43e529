/**
 * The Web Locks of one browser, for Node: exclusive locks in order of asking, `ifAvailable`, `steal` and `signal`
 * as https://w3c.github.io/web-locks/ has them. Each tab of a test shares one manager.
 */

interface Waiting {
  readonly grant: () => void;
}

interface Holding {
  readonly steal: (reason: DOMException) => void;
}

type Callback = (lock: { name: string; mode: "exclusive" } | null) => unknown;

export function testLocks(): LockManager {
  const held = new Map<string, Holding>();
  const queues = new Map<string, Waiting[]>();

  function request(name: string, ...rest: [LockOptions, Callback] | [Callback]): Promise<unknown> {
    const callback = rest.at(-1) as Callback;
    const { ifAvailable = false, steal = false, signal } = (rest.length > 1 ? rest[0] : {}) as LockOptions;
    const queue = queues.get(name) ?? [];
    queues.set(name, queue);

    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      const hold = () => {
        const mine: Holding = {
          steal(reason) {
            held.delete(name);
            reject(reason);
          },
        };
        held.set(name, mine);
        // The callback runs in a task of its own, as in a browser.
        queueMicrotask(() => {
          Promise.resolve()
            .then(() => callback({ name, mode: "exclusive" }))
            .then(resolve, reject)
            .finally(() => {
              if (held.get(name) !== mine) return;
              held.delete(name);
              queue.shift()?.grant();
            });
        });
      };
      if (steal) {
        held.get(name)?.steal(new DOMException("The lock was stolen.", "AbortError"));
        return hold();
      }
      if (!held.has(name)) return hold();
      if (ifAvailable) return resolve(Promise.resolve(callback(null)));
      const waiting: Waiting = {
        grant() {
          signal?.removeEventListener("abort", withdraw);
          hold();
        },
      };
      const withdraw = () => {
        const place = queue.indexOf(waiting);
        if (place >= 0) queue.splice(place, 1);
        reject(signal!.reason as Error);
      };
      signal?.addEventListener("abort", withdraw, { once: true });
      queue.push(waiting);
    });
  }

  return { request: request as LockManager["request"], query: () => Promise.resolve({ held: [], pending: [] }) };
}
