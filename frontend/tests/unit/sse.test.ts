import { describe, expect, test } from "vitest";
import { createSseParser } from "../../lib/sse.ts";
import { seeded } from "../support/random.ts";

interface Block {
  readonly name: string;
  readonly data: string;
  readonly lastEventId: string;
}

function parse(...pieces: string[]): { blocks: Block[]; retries: number[] } {
  const blocks: Block[] = [];
  const retries: number[] = [];
  const take = createSseParser(
    (name, data, lastEventId) => blocks.push({ name, data, lastEventId }),
    (ms) => retries.push(ms),
  );
  pieces.forEach(take);
  return { blocks, retries };
}

describe("the SSE parser", () => {
  test("gives name, data and the last event id", () => {
    const { blocks } = parse("id: e.7\nevent: new_message\ndata: {}\n\nevent: heartbeat\ndata: 1\n\n");
    expect(blocks).toEqual([
      { name: "new_message", data: "{}", lastEventId: "e.7" },
      { name: "heartbeat", data: "1", lastEventId: "e.7" },
    ]);
  });

  test("takes an id-only block for the cursor of what comes after it, and dispatches nothing", () => {
    expect(parse("retry: 1200\n\nid: e.9\n\n")).toEqual({ blocks: [], retries: [1200] });
    expect(parse("id: e.9\n\ndata: x\n\n").blocks[0]!.lastEventId).toBe("e.9");
  });

  test("ignores comments, unknown fields, a bad retry and an id with NUL", () => {
    const { blocks, retries } = parse(":12\nfoo: bar\nretry: 1x\nid: a\0b\ndata: x\n\n");
    expect(blocks).toEqual([{ name: "", data: "x", lastEventId: "" }]);
    expect(retries).toEqual([]);
  });

  test("joins data lines, takes one space off, and dispatches an empty data line", () => {
    const { blocks } = parse("data:  a\ndata:b\n\ndata\n\n");
    expect(blocks.map(({ data }) => data)).toEqual([" a\nb", ""]);
  });

  test("dispatches nothing of a block that has not ended", () => {
    expect(parse("id: e.9\ndata: x\n").blocks).toEqual([]);
  });

  test("refuses a line without an end", () => {
    expect(() => parse(...Array.from({ length: 20 }, () => "x".repeat(64 * 1024)))).toThrow(RangeError);
  });

  test.each(["\n", "\r\n", "\r"])("reads the same however it is cut, with line ends %j", (end) => {
    const text = ["retry: 5", "", "id: e.1", "event: a", "data: one", "data: two", "", ":c", "data: é", "", ""].join(end);
    const whole = parse(`${text}:${end}`);
    expect(whole.blocks.map(({ data }) => data)).toEqual(["one\ntwo", "é"]);
    for (let seed = 0; seed < 200; seed += 1) {
      const random = seeded(seed);
      const pieces: string[] = [];
      for (let from = 0; from < text.length; ) {
        const to = from + 1 + random.below(5);
        pieces.push(text.slice(from, to));
        from = to;
      }
      expect(parse(...pieces, `:${end}`), `seed ${seed}`).toEqual(whole);
    }
  });
});
