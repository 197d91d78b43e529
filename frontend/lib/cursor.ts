/**
 * `<epoch>.<seq>`, a place in the user's inbox. Pure. Each event knows the cursor of its stream before it
 * (`from`) and after it (`to`): so a tab sees a hole although seqs may be skipped (an id-only block).
 */

export type Verdict = "deliver" | "drop" | "hole";

/** What to do with an event that goes from `from` to `to`, for a reader that has seen everything up to `own`. */
export function judge(own: string | null, from: string | null, to: string | null): Verdict {
  if (from === to) return "deliver";
  const step = distance(own, to);
  if (step <= 0) return "drop";
  return step > 0 && distance(own, from) > 0 ? "hole" : "deliver";
}

/** Whether `one` is behind `other`, in the same epoch. */
export const isBehind = (one: string | null, other: string | null): boolean => distance(one, other) > 0;

/** Whether they are of two epochs: from one to the other nothing is proven. */
export const isElsewhere = (one: string | null, other: string | null): boolean =>
  !!one && !!other && Number.isNaN(distance(one, other));

/** NaN from one epoch to another, and where there is no cursor: neither before nor behind. */
function distance(one: string | null, other: string | null): number {
  const [a, b] = [one, other].map((cursor) => /^(\w+)\.(\d+)$/.exec(cursor ?? ""));
  return a && b && a[1] === b[1] ? Number(b[2]) - Number(a[2]) : NaN;
}
