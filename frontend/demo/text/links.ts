export interface Piece {
  readonly text: string;
  /** Where it begins. */
  readonly at: number;
  readonly href?: string;
}

const ADDRESS = /https?:\/\/[^\s<>"'`]{3,2000}/giu;
const CLOSING_MARKS = /[.,;:!?…)\]}*_]+$/u;

/** Cut a text into plain pieces and web addresses. Only http and https become links, whatever the text says. */
export function piecesOf(text: string): readonly Piece[] {
  const pieces: Piece[] = [];
  let done = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = withoutClosingMarks(match[0]);
    const href = webAddress(address);
    if (href === null) continue;
    if (match.index > done) pieces.push({ text: text.slice(done, match.index), at: done });
    pieces.push({ text: address, at: match.index, href });
    done = match.index + address.length;
  }
  if (done < text.length) pieces.push({ text: text.slice(done), at: done });
  return pieces;
}

/** The full stop after an address ends the sentence; a bracket that was opened inside belongs to it. */
function withoutClosingMarks(address: string): string {
  const marks = CLOSING_MARKS.exec(address)?.[0] ?? "";
  if (marks.startsWith(")") && address.includes("(")) return address.slice(0, address.length - marks.length + 1);
  return address.slice(0, address.length - marks.length);
}

function webAddress(text: string): string | null {
  try {
    const url = new URL(text);
    return (url.protocol === "http:" || url.protocol === "https:") && url.hostname ? url.href : null;
  } catch {
    return null;
  }
}
