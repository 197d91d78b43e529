// Made once: a formatter costs more than everything else in a row.
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const OLD_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });

const DAYS_OF_WEEKDAYS = 6; // on the seventh the weekday would name today

export const clockTime = (time: string | number): string => CLOCK.format(new Date(time));
export const fullTime = (time: string | number): string => FULL.format(new Date(time));

/** Which local day it is: equal numbers are the same day. */
export function dayOf(time: string | number): number {
  const date = new Date(time);
  return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000);
}

export function dayName(time: string | number, now: number = Date.now()): string {
  const date = new Date(time);
  const age = dayOf(now) - dayOf(time);
  if (age === 0) return "Today";
  if (age === 1) return "Yesterday";
  return date.getFullYear() === new Date(now).getFullYear() ? DAY.format(date) : OLD_DAY.format(date);
}

/** For the list: a clock today, a weekday this week, else a date. */
export function shortTime(time: string | number, now: number = Date.now()): string {
  const age = dayOf(now) - dayOf(time);
  if (age === 0) return clockTime(time);
  if (age === 1) return "Yesterday";
  return age <= DAYS_OF_WEEKDAYS ? WEEKDAY.format(new Date(time)) : SHORT_DAY.format(new Date(time));
}
