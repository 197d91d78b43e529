/** Read positions on their way to the server: the furthest of each conversation, again after a failure. */

import { asClientError, isPassing, type Api } from "./api.ts";

export interface Reads {
  readonly mark: (conversationId: string, seq: number) => void;
  /** What could not be told is told again. */
  readonly flush: () => void;
}

export function createReads(api: Api): Reads {
  const wanted = new Map<string, number>();
  const telling = new Set<string>();

  return {
    mark(id, seq) {
      wanted.set(id, Math.max(seq, wanted.get(id) ?? 0));
      void tell(id);
    },
    flush: () => wanted.forEach((_seq, id) => void tell(id)),
  };

  async function tell(id: string): Promise<void> {
    const seq = wanted.get(id);
    if (seq === undefined || telling.has(id)) return;
    telling.add(id);
    const problem = await api.call("POST", `/conversations/${id}/read`, { seq }).then(() => null, asClientError);
    telling.delete(id);
    if (problem && isPassing(problem)) return;
    if (wanted.get(id) === seq) wanted.delete(id);
    void tell(id);
  }
}
