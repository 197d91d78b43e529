import { useState } from "react";
import type { Row } from "../rows";

/**
 * Whether older rows have just been put before the ones that were there: only then the list is to keep
 * its distance from the end.
 */
export function useShift(rows: readonly Row[]): boolean {
  const [shown, setShown] = useState({ rows, shift: false });
  if (shown.rows === rows) return shown.shift;
  const shift = isPrepended(shown.rows, rows);
  setShown({ rows, shift });
  return shift;
}

function isPrepended(before: readonly Row[], after: readonly Row[]): boolean {
  const first = before[0];
  const added = after.length - before.length;
  return first !== undefined && added > 0 && after[0]?.key !== first.key && after[added]?.key === first.key;
}
