import { describe, expect, test } from "vitest";
import * as border from "../../lib/border.ts";
import type { StreamEvent } from "../../lib/protocol.ts";
import { aConversation, aMessage } from "../support/samples.ts";
import { resolve, sample, schemas } from "../support/schema.ts";

const checked: Record<string, border.Check<unknown>> = {
  Message: border.message,
  Conversation: border.conversation,
  Changes: border.changes,
  HistoryPage: border.historyPage,
  ConversationsPage: border.conversationsPage,
  Connected: border.eventData.connected,
  MessageDeleted: border.eventData.message_deleted,
  ReactionUpdate: border.eventData.reaction_update,
  ReadReceipt: border.eventData.read_receipt,
  TypingStatus: border.eventData.typing_status,
  ConversationNotice: border.eventData.conversation_updated,
  OwnSettings: border.eventData.conversation_updated,
  Heartbeat: border.eventData.heartbeat,
  Resync: border.eventData.resync,
};

describe("the types are the server's", () => {
  test("every event of the document has its check, and no other", () => {
    expect([...border.EVENT_NAMES].sort()).toEqual(Object.keys(schemas["StreamEvent"]!.discriminator!.mapping).sort());
  });

  describe.each(Object.entries(checked))("%s", (name, check) => {
    const schema = schemas[name]!;

    test("is taken over whole, with every alternative of its fields", () => {
      for (const choice of [0, 1]) {
        const value = sample(schema, choice);
        expect(check(value)).toEqual(value);
      }
    });

    const required = (schema.required ?? []).filter((field) => !resolve(schema.properties![field]!).anyOf);
    test.each(required)("is refused without %s, or with another type there", (field) => {
      const value = sample(schema) as Record<string, unknown>;
      for (const wrong of [undefined, {}, ["x"]]) {
        // Of a list, a wrong item is enough.
        expect(() => check({ ...value, [field]: wrong }), JSON.stringify(wrong)).toThrow(TypeError);
      }
    });

    test.each([null, undefined, 7, "text", true, []])("is not %j", (value) => expect(() => check(value)).toThrow(TypeError));
  });
});

describe("the four forms of conversation_updated (clause 3.7)", () => {
  const parse = (data: unknown) => border.parseEvent("conversation_updated", JSON.stringify(data))?.data;

  test("are told apart by what they hold", () => {
    expect(parse(aConversation())).toEqual(aConversation());
    expect(parse({ id: "c", rev: 3 })).toMatchObject({ id: "c", rev: 3 });
    expect(parse({ id: "c", rev: 3 })).not.toMatchObject({ role: null });
    expect(parse({ id: "c", rev: 3, role: null })).toEqual({ id: "c", rev: 3, role: null });
    expect(parse({ id: "c", muted_until: null, hidden: true })).toEqual({ id: "c", muted_until: null, hidden: true });
  });
});

describe("poison", () => {
  const raw = JSON.stringify(aMessage(1));

  test("__proto__ and constructor are fields like any other that is not known: gone", () => {
    const event = border.parseEvent(
      "new_message",
      `{"__proto__":{"isAdmin":true},"constructor":{"prototype":{"isAdmin":true}},${raw.slice(1)}`,
    );
    expect(event).toEqual({ event: "new_message", data: aMessage(1) });
    expect(({} as Record<string, unknown>)["isAdmin"]).toBeUndefined();
    expect(Object.getPrototypeOf((event as StreamEvent).data)).toBe(Object.prototype);
  });

  test.each([
    ["another event", "__proto__", "{}"],
    ["an event that is none", "toString", "{}"],
    ["no JSON", "new_message", "{"],
    ["null", "new_message", "null"],
    ["a list", "new_message", "[]"],
    ["a fraction as seq", "new_message", raw.replace('"seq":1', '"seq":1.5')],
    ["a seq beyond what JavaScript counts", "new_message", raw.replace('"seq":1', '"seq":9007199254740993')],
    ["a content that is no text", "new_message", raw.replace('"message 1"', '{"toString":1}')],
    ["reactions that are none", "new_message", raw.replace('"reactions":[]', '"reactions":{"length":1}')],
  ])("%s is refused", (_, name, json) => expect(border.parseEvent(name, json)).toBeNull());
});
