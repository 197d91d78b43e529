/** How long to wait before another try. Pure but for the random number, which can be given. */

const FIRST_MS = 1_000;
const MOST_MS = 30_000;

/** Full jitter: anything up to 1 s, 2 s, 4 s … 30 s, so that many clients do not come back at once. */
export const backoffMs = (attempt: number, random: () => number = Math.random): number =>
  random() * Math.min(MOST_MS, FIRST_MS * 2 ** attempt);

/** `Retry-After` in ms: seconds or a date (RFC 9110, 10.2.3); 0 where there is none. At most five minutes. */
export function retryAfterMs(header: string | null, now: number): number {
  const wait = Number(header) * 1_000 || Date.parse(header ?? "") - now || 0;
  return Math.min(Math.max(wait, 0), 300_000);
}
