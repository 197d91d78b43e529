/** How long to wait before another try. Pure but for the random number, which can be given. */

const FIRST_MS = 1_000;
const MOST_MS = 30_000;

/** Full jitter: anything up to 1 s, 2 s, 4 s … 30 s, so that many clients do not come back at once. */
export function backoffMs(attempt: number, random: () => number = Math.random): number {
  return random() * Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(attempt, 10));
}

/** `Retry-After` in ms: seconds or a date (RFC 9110, 10.2.3); 0 where there is none. At most five minutes. */
export function retryAfterMs(header: string | null, now: number): number {
  if (!header) return 0;
  const seconds = Number(header);
  const wait = Number.isNaN(seconds) ? Date.parse(header) - now : seconds * 1_000;
  return Math.min(Math.max(wait || 0, 0), 300_000);
}
