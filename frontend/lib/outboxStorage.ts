/** What waits to be sent, kept over a reload: one record per `client_message_id`, in IndexedDB. */

import type { Message } from "./types.ts";

/** A message in the shape in which it is shown. `conversation_id` is "" as long as there is only a recipient. */
export interface OutboxItem extends Message {
  readonly recipient_id: string | undefined;
  /** When it was written, in ms; no two of a tab alike. The order of sending. */
  readonly at: number;
}

export interface OutboxStorage {
  readonly all: () => Promise<OutboxItem[]>;
  /** Resolves when it is committed. */
  readonly put: (item: OutboxItem) => Promise<unknown>;
  readonly delete: (clientMessageId: string) => Promise<unknown>;
}

const STORE = "outbox";
const PATIENCE_MS = 3_000; // some browsers never answer in private windows

/** Without a `name`, and in a browser that keeps nothing: in memory only. */
export async function openOutboxStorage(name: string | null): Promise<OutboxStorage> {
  const database = name === null ? null : await openDatabase(name).catch(() => null);
  const records = new Map<string, OutboxItem>();
  if (!database) {
    return {
      all: async () => [...records.values()],
      put: async (item) => records.set(item.id, item),
      delete: async (id) => records.delete(id),
    };
  }

  const run = <T>(mode: IDBTransactionMode, act: (records: IDBObjectStore) => IDBRequest<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = reject;
    });

  return {
    all: () => run("readonly", (store) => store.getAll() as IDBRequest<OutboxItem[]>),
    put: (item) => run("readwrite", (store) => store.put(item)),
    delete: (id) => run("readwrite", (store) => store.delete(id)),
  };
}

function openDatabase(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(reject, PATIENCE_MS);
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "client_message_id" });
    request.onerror = reject;
    request.onsuccess = () => {
      clearTimeout(timer);
      resolve(request.result);
    };
  });
}
