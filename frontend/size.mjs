/** What the hook adds to an application's page: bundled, minified, gzipped, without React. Fails above the budget. */

import { writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "vite";

// 9 KB was the aim, and is missed: docs/decisions/0008-size-of-the-client.md
const BUDGET_BYTES = 11_200;

const result = await build({
  configFile: false,
  logLevel: "error",
  build: {
    write: false,
    minify: true,
    target: "es2022",
    modulePreload: false,
    // Not `lib`: that mode leaves white space in.
    rolldownOptions: {
      input: new URL("hooks/useUserMessageStream.ts", import.meta.url).pathname,
      external: ["react"],
      preserveEntrySignatures: "strict",
    },
  },
});
const [{ output }] = [result].flat();
const [{ code }] = output;
if (process.argv[2]) writeFileSync(process.argv[2], code);
const bytes = gzipSync(code, { level: 9 }).length;
console.log(`hook and library: ${bytes} bytes gzip, at most ${BUDGET_BYTES} (${code.length} minified, React not counted)`);
if (output.length > 1 || bytes > BUDGET_BYTES) {
  console.error("Over the budget.");
  process.exit(1);
}
