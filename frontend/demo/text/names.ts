const TONES = 11;

/** The colour of a person or group: the same on every device, because it is made of the id. */
export function toneOf(id: string): number {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) | 0;
  return Math.abs(hash) % TONES;
}

/** The first letters of the first and the last word; of a name in one piece, such as an id, of its parts. */
export function initialsOf(name: string): string {
  const words = name.split(/\s/u.test(name.trim()) ? /\s+/u : /[._-]+/u).filter(Boolean);
  const chosen = words.length > 1 ? [words[0], words.at(-1)] : words;
  return chosen.map((word) => (word ? firstCharacter(word) : "")).join("").toLocaleUpperCase() || "?";
}

function firstCharacter(word: string): string {
  return String.fromCodePoint(word.codePointAt(0) ?? 63);
}

export function firstNameOf(name: string): string {
  return name.split(/\s+/u)[0] || name;
}

/** "Ada", "Ada and Bob", "Ada, Bob and 3 others". */
export function listOf(names: readonly string[], { most = 3 }: { most?: number } = {}): string {
  const shown = names.length > most ? names.slice(0, most - 1) : names;
  const rest = names.length - shown.length;
  const parts = rest > 0 ? [...shown, `${rest} others`] : shown;
  return parts.length < 2 ? (parts[0] ?? "") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
