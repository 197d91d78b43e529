/** What waits to be sent, kept over a reload: one record per `client_message_id`, in IndexedDB. */

import type { Message } from "./types.ts";

/** A message in the shape in which it is shown. `conversation_id` is "" as long as there is only a recipient. */
export interface OutboxItem extends Message {
  readonly recipient_id: string | undefined;
  /** When it was written, in ms; no two of a tab alike. The order of sending. */
  readonly at: number;
}

/** In a browser that keeps nothing, and where nothing is to be kept, everything rejects. */
export interface OutboxStorage {
  readonly all: () => Promise<OutboxItem[]>;
  /** Resolves when it is committed. */
  readonly put: (item: OutboxItem) => Promise<unknown>;
  readonly delete: (clientMessageId: string) => Promise<unknown>;
}

const STORE = "outbox";
const PATIENCE_MS = 3_000; // some browsers never answer in private windows

export function openOutboxStorage(name: string, isKept = true): OutboxStorage {
  let database: Promise<IDBDatabase> | undefined;

  async function run<T>(mode: IDBTransactionMode, act: (records: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    database ??= isKept ? open() : Promise.reject(new Error());
    const connection = await database;
    try {
      const transaction = connection.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.commit(); // now, not when the answer has come: the page may be gone by then
      return new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve(request.result);
        transaction.onabort = reject;
      });
    } catch (error) {
      database = undefined; // some browsers lose the connection: the next one is new
      throw error;
    }
  }

  function open(): Promise<IDBDatabase> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(reject, PATIENCE_MS);
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "client_message_id" });
      request.onerror = reject;
      request.onsuccess = () => {
        clearTimeout(timer);
        database = Promise.resolve(request.result); // also when nobody waits any more
        resolve(request.result);
      };
    });
  }

  return {
    all: () => run("readonly", (store) => store.getAll() as IDBRequest<OutboxItem[]>),
    put: (item) => run("readwrite", (store) => store.put(item)),
    delete: (id) => run("readwrite", (store) => store.delete(id)),
  };
}
