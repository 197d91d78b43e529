import { initialsOf, toneOf } from "../text/names";

interface AvatarProps {
  readonly id: string;
  readonly name: string;
  readonly isGroup?: boolean;
  readonly size?: "small" | "tiny";
}

/** Initials on a colour of one's own. The name always stands beside it, so it is hidden from a reader. */
export function Avatar({ id, name, isGroup = false, size }: AvatarProps) {
  const className = ["avatar", isGroup && "is-group", size && `is-${size}`].filter(Boolean).join(" ");
  return (
    <span className={className} data-tone={toneOf(id)} aria-hidden="true">
      {initialsOf(name)}
    </span>
  );
}
