/**
 * `<epoch>.<seq>`, a place in the user's inbox. Pure. Each event knows the cursor of its stream before it
 * (`from`) and after it (`to`): so a tab sees a hole although seqs may be skipped (an id-only block).
 */

export interface Place {
  readonly epoch: string;
  readonly seq: number;
}

export function parseCursor(cursor: string | null): Place | null {
  const found = /^([0-9a-z]{1,12})\.([0-9]{1,19})$/.exec(cursor ?? "");
  return found ? { epoch: found[1]!, seq: Number(found[2]) } : null;
}

export type Verdict = "deliver" | "drop" | "hole";

/** What to do with an event that goes from `from` to `to`, for a reader that has seen everything up to `own`. */
export function judge(own: string | null, from: string | null, to: string | null): Verdict {
  const [mine, before, after] = [parseCursor(own), parseCursor(from), parseCursor(to)];
  if (!mine || !after || after.epoch !== mine.epoch || from === to) return "deliver";
  if (after.seq <= mine.seq) return "drop";
  return before && before.seq > mine.seq ? "hole" : "deliver";
}

/** Whether `one` is behind `other`, in the same epoch. */
export function isBehind(one: string | null, other: string | null): boolean {
  const [a, b] = [parseCursor(one), parseCursor(other)];
  return a !== null && b !== null && a.epoch === b.epoch && a.seq < b.seq;
}
