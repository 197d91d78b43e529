// @vitest-environment happy-dom
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import ts from "typescript";
import type { FunctionComponent } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { chatServer, history, HISTORY } from "../support/chat.ts";
import { aMessage, aToken, BOB, ROOM } from "../support/samples.ts";
import { json, type ScriptedServer } from "../support/scriptedServer.ts";
import { until } from "../support/until.ts";

const ROOT = join(import.meta.dirname, "../..");
const COMPILES = { timeout: 90_000 }; // a few seconds, on a machine that has nothing else to do
let server: ScriptedServer | undefined;
let folder: string | undefined;

afterEach(async () => {
  cleanup();
  await server?.close();
  if (folder !== undefined) rmSync(folder, { recursive: true });
});

/** The block between two markers of the document, in a file of its own, reading the sources of the package. */
function example(document: string, name: string, suffix: string): string {
  const text = readFileSync(join(ROOT, "..", document), "utf8");
  const code = new RegExp(`<!-- example:${name} -->\n\`\`\`\\w+\n(.*?)\`\`\`\n<!-- /example:${name} -->`, "s").exec(text)![1]!;
  folder = mkdtempSync(join(import.meta.dirname, ".example-"));
  const file = `${folder}/example${suffix}`;
  const sources = code
    .replace(`"@gapless/react/client"`, `"../../../lib/client.ts"`)
    .replace(`"@gapless/react"`, `"../../../hooks/useUserMessageStream.ts"`);
  writeFileSync(file, sources);
  return file;
}

function mistakesOf(file: string): string[] {
  const config = ts.readConfigFile(join(ROOT, "tsconfig.json"), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
  const program = ts.createProgram([file], options);
  return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

const written = (body: Record<string, unknown>) => ({
  content: body["content"] as string,
  client_message_id: body["client_message_id"] as string,
});

test.each(["README.md", "docs/client.md"])("the React example of %s compiles, shows all of a conversation, and sends", COMPILES, async (document) => {
  const file = example(document, "react", ".tsx");
  expect(readFileSync(file, "utf8").trim().split("\n").length).toBeLessThanOrEqual(17); // 15 lines, and the import
  expect(mistakesOf(file)).toEqual([]);

  const chat = (server = await chatServer());
  chat.on(HISTORY, history([aMessage(2)], 2, true), history([aMessage(1)], 2));
  chat.on("POST /messages/send", (response, asked) =>
    json(aMessage(3, { ...written(asked.body), sender: { ...BOB, name: "Me" } }), 201)(response, asked),
  );
  // The example is on the page's own origin.
  const network = globalThis.fetch;
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => network(`${chat.url}${path}`, init));
  const { Chat } = (await import(/* @vite-ignore */ file)) as {
    Chat: FunctionComponent<{ token: string; conversationId: string }>;
  };
  render(<Chat token={aToken("bob")} conversationId={ROOM} />);
  await until(() => screen.queryByText("Ada: message 2"));
  fireEvent.click(screen.getByText("Older"));
  await until(() => screen.queryByText("Ada: message 1"));
  expect(screen.queryByText("Older")).toBeNull();
  const field = screen.getByLabelText<HTMLInputElement>("Message");
  fireEvent.change(field, { target: { value: "hello" } });
  fireEvent.submit(field.form!);
  await until(() => screen.queryByText("Me: hello"));
  expect(chat.askedFor("POST /messages/send")[0]!.body).toMatchObject({ conversation_id: ROOM, content: "hello" });
});

test("the plain example names what the client has", COMPILES, async () => {
  const file = example("docs/client.md", "plain", ".ts");
  const text = readFileSync(file, "utf8");
  writeFileSync(
    file,
    `declare function fetchToken(): Promise<string>;\ndeclare function render(...things: unknown[]): void;\n${text}`,
  );
  expect(mistakesOf(file)).toEqual([]);
});
