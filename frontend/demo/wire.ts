/**
 * The connection of one pane, with a switch. While it is cut, every request fails and every stream breaks off,
 * as with a pulled plug. The client library is given these in place of the browser's own and knows nothing of it.
 */
export interface Wire {
  readonly fetch: typeof fetch;
  readonly EventSource: typeof EventSource;
  readonly isWhole: () => boolean;
  readonly set: (isWhole: boolean) => void;
  readonly subscribe: (listener: () => void) => () => void;
}

export function createWire(): Wire {
  const listeners = new Set<() => void>();
  const streams = new Set<CuttableStream>();
  let isCut = false;
  let whole = new AbortController(); // aborted by the cut

  const wiredFetch: typeof fetch = async (input, init = {}) => {
    if (isCut) throw new TypeError("The wire is cut.");
    const signals = [whole.signal, init.signal].filter((signal) => signal != null);
    return fetch(input, { ...init, signal: AbortSignal.any(signals) });
  };

  class CuttableStream extends EventSource {
    constructor(address: string | URL, init?: EventSourceInit) {
      super(address, init);
      streams.add(this);
      if (isCut) queueMicrotask(() => this.breakOff());
    }

    override close(): void {
      streams.delete(this);
      super.close();
    }

    /** As after an answer that EventSource takes for the end: it does not come back by itself. */
    breakOff(): void {
      if (!streams.has(this)) return;
      this.close();
      this.dispatchEvent(new Event("error"));
    }
  }

  return {
    fetch: wiredFetch,
    EventSource: CuttableStream,
    isWhole: () => !isCut,
    set(isWhole) {
      if (isWhole !== isCut) return;
      if (isWhole) {
        isCut = false;
        whole = new AbortController();
      } else {
        isCut = true;
        whole.abort(new TypeError("The wire is cut."));
        for (const stream of [...streams]) stream.breakOff();
      }
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
