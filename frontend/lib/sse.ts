/** A parser of `text/event-stream` (WHATWG HTML, 9.2.6), fed with decoded text in pieces of any size. */

export interface SseBlock {
  readonly name: string;
  readonly data: string;
  /** The last event id of the stream, also if this block has none of its own. */
  readonly lastEventId: string;
}

export interface SseReader {
  readonly onBlock: (block: SseBlock) => void;
  readonly onRetry: (ms: number) => void;
}

const MAX_LINE = 1 << 20; // characters; the server's frames end at 64 KB

export function createSseParser({ onBlock, onRetry }: SseReader): (piece: string) => void {
  let rest = "";
  let [name, data, lastEventId] = ["", "", ""];

  function takeLine(line: string): void {
    if (!line) {
      if (data) onBlock({ name, data: data.slice(0, -1), lastEventId });
      name = data = "";
      return;
    }
    const [, field, value = ""] = /^([^:]*):? ?(.*)$/s.exec(line)!;
    if (field === "event") name = value;
    else if (field === "data") data += `${value}\n`;
    else if (field === "id" && !value.includes("\0")) lastEventId = value;
    else if (field === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
  }

  return (piece) => {
    // A CR at the end may be half of a CRLF: it waits for what comes next.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    if (rest.length > MAX_LINE) throw new RangeError("A line without an end.");
    lines.forEach(takeLine);
  };
}
