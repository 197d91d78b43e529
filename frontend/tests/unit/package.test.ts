import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exportsOf, pack, type Consumer, type Packed, type ReactMajor } from "../support/consumer.ts";

const APP = `
import { useUserMessageStream, type Message, type StreamEvent, type UserMessageStream } from "@gapless/react";
import { createClient, type Client } from "@gapless/react/client";

export function Chat({ token }: { token: string }) {
  const chat: UserMessageStream = useUserMessageStream({
    token,
    onEvent(event: StreamEvent) {
      if (event.event === "new_message") console.log(event.data.content);
    },
  });
  const texts = chat.messages("c").map(({ content }: Message) => content);
  return <p>{chat.status + texts.join()}</p>;
}

export const client: Client = createClient({ token: async () => "token" });
// @ts-expect-error -- the types are there: without them anything would do
useUserMessageStream({ tokn: 1 });
`;

const SERVER = `
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { useUserMessageStream } from "@gapless/react";
import { createClient } from "@gapless/react/client";

function Chat() {
  const { status, messages } = useUserMessageStream({ token: "token" });
  return createElement("p", null, status, messages("c").length);
}
process.stdout.write(renderToString(createElement(Chat)) + createClient({ token: "token" }).getState().status);
`;

const RESOLUTIONS: [string, ts.CompilerOptions][] = [
  ["bundler", { module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler }],
  ["node16", { module: ts.ModuleKind.Node16, moduleResolution: ts.ModuleResolutionKind.Node16 }],
  ["nodenext", { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext }],
];

const PATIENT = { timeout: 120_000 }; // a compiler, a bundler, npm: seconds on a machine that has nothing else to do

let packed: Packed;

beforeAll(() => {
  packed = pack();
}, PATIENT.timeout);
afterAll(() => packed?.remove());

test("the package holds what its exports name, and no source, test or demo", () => {
  expect(packed.files).toEqual(expect.arrayContaining(["package.json", "README.md", "LICENSE"]));
  for (const target of Object.values(exportsOf()).flatMap((conditions) => Object.values(conditions))) {
    expect(packed.files).toContain(target.replace("./", ""));
  }
  const others = packed.files.filter((path) => !/^dist\/(hooks|lib)\/\w+\.(js|d\.ts)$/.test(path));
  expect(others.sort()).toEqual(["LICENSE", "README.md", "package.json"]);
});

describe.each<ReactMajor>([18, 19])("installed beside React %i", (react) => {
  let app: Consumer;

  beforeAll(() => {
    app = packed.install(react);
  }, PATIENT.timeout);

  test.each(RESOLUTIONS)("type-checks with module resolution %s, its own declarations included", PATIENT, (_, options) => {
    expect(app.mistakes(app.write("App.tsx", APP), options)).toEqual([]);
  });

  test("is bundled, and leaves nothing behind where nothing of it is used", PATIENT, async () => {
    const code = await app.bundle(app.write("main.js", `import { useUserMessageStream as use } from "@gapless/react"; use({});`));
    expect(code).toContain("/api/v1");
    expect(await app.bundle(app.write("idle.js", `import "@gapless/react"; import "@gapless/react/client";`))).toBe("");
  });

  test("is loaded by Node, and renders on a server", PATIENT, () => {
    expect(app.run(app.write("server.mjs", SERVER))).toMatch(/^<p>connecting(<!-- -->)?0<\/p>closed$/);
  });
});
