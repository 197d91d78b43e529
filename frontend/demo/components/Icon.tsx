const PATHS = {
  back: "M15 5l-7 7 7 7",
  chat: "M12 4.5c4.7 0 8.5 3.1 8.5 7s-3.8 7-8.5 7c-1 0-2-.1-2.9-.4L5 20l.9-3.4c-1.5-1.3-2.4-3.1-2.4-5.1 0-3.9 3.8-7 8.5-7z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  checks: "M2.5 12.5L7 17l8.5-9M12 16l1 1 8.5-9",
  clock: "M12 7.5V12l3 2M12 3.5a8.5 8.5 0 100 17 8.5 8.5 0 000-17z",
  close: "M6 6l12 12M18 6L6 18",
  columns: "M4.5 5h15v14h-15zM12 5v14",
  compose: "M13 5.5H6.5a2 2 0 00-2 2v10a2 2 0 002 2h10a2 2 0 002-2V11M18.7 3.8a1.6 1.6 0 012.3 2.3L12.5 14.6l-3 .7.7-3z",
  copy: "M9 9h10.5v10.5H9zM15 9V4.5H4.5V15H9",
  down: "M6 10l6 6 6-6",
  edit: "M5 19l.9-3.9L16.4 4.6a1.9 1.9 0 012.7 0l.3.3a1.9 1.9 0 010 2.7L8.9 18.1z",
  more: "M4.6 12a.6.6 0 101.2 0 .6.6 0 10-1.2 0M11.4 12a.6.6 0 101.2 0 .6.6 0 10-1.2 0M18.2 12a.6.6 0 101.2 0 .6.6 0 10-1.2 0",
  people: "M9 11.5a3.5 3.5 0 100-7 3.5 3.5 0 000 7zM2.8 19.5c.5-3.2 3-5 6.2-5s5.7 1.8 6.2 5M15.5 4.9a3.5 3.5 0 010 6.2M18 15c1.8.7 2.9 2.2 3.2 4.5",
  reply: "M9.5 6L4.5 11l5 5M5 11h8.5a6 6 0 016 6v1.5",
  send: "M12 19.5V5M5.5 11.5L12 5l6.5 6.5",
  smile: "M12 3.5a8.5 8.5 0 100 17 8.5 8.5 0 000-17zM8.5 14.2c.8 1.3 2 2 3.5 2s2.7-.7 3.5-2M9 9.7h.01M15 9.7h.01",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 11v5M13.5 11v5",
  warning: "M12 4.5l8.5 15h-17zM12 10.5v4M12 17.2h.01",
} as const;

export type IconName = keyof typeof PATHS;

/** A drawing without a name of its own: what it stands for is said by the control around it. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
