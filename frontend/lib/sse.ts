/** A parser of `text/event-stream` (WHATWG HTML, 9.2.6), fed with decoded text in pieces of any size. */

const MAX_LINE = 1 << 20; // characters; the server's frames end at 64 KB

/** `onBlock` gets the last event id of the stream, also if the block has none of its own. */
export function createSseParser(
  onBlock: (name: string, data: string, lastEventId: string) => void,
  onRetry: (ms: number) => void,
): (piece: string) => void {
  let rest = "";
  let [name, data, lastEventId] = ["", "", ""];

  function takeLine(line: string): void {
    if (!line) {
      if (data) onBlock(name, data.slice(0, -1), lastEventId);
      name = data = "";
      return;
    }
    const [, field, value = ""] = /^([^:]*):? ?(.*)$/s.exec(line)!;
    if (field === "event") name = value;
    if (field === "data") data += `${value}\n`;
    if (field === "id" && !value.includes("\0")) lastEventId = value;
    if (field === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
  }

  return (piece) => {
    // A CR at the end may be half of a CRLF: it waits for what comes next.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    if (rest.length > MAX_LINE) throw new RangeError("Too long a line.");
    lines.forEach(takeLine);
  };
}
