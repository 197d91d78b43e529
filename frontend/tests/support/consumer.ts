/** Somebody else's app: an empty folder that the packed package is installed into, beside a React. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import ts from "typescript";
import { build, type Rollup } from "vite";

const ROOT = join(import.meta.dirname, "../..");
const REACT_FOLDERS = { 19: join(ROOT, "node_modules"), 18: join(ROOT, "tests/react18/node_modules") };
const RUN_MS = 60_000;

export type ReactMajor = keyof typeof REACT_FOLDERS;

export interface Packed {
  readonly folder: string;
  /** What is in the package, by path. */
  readonly files: readonly string[];
  readonly install: (react: ReactMajor) => Consumer;
  readonly remove: () => void;
}

export interface Consumer {
  readonly write: (name: string, text: string) => string;
  readonly mistakes: (file: string, options: ts.CompilerOptions) => string[];
  readonly bundle: (file: string) => Promise<string>;
  readonly run: (file: string) => string;
}

/** Build and pack it as a publisher would, but away from the working tree's `dist`. */
export function pack(): Packed {
  const folder = mkdtempSync(join(tmpdir(), "gapless-package-"));
  const source = join(folder, "source");
  mkdirSync(source);
  for (const name of ["package.json", "README.md", "LICENSE"]) cpSync(join(ROOT, name), join(source, name));
  const compiler = join(ROOT, "node_modules/typescript/bin/tsc");
  execute(process.execPath, [compiler, "-p", join(ROOT, "tsconfig.build.json"), "--outDir", join(source, "dist")], ROOT);
  const told = execute("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], source);
  const [{ filename, files }] = JSON.parse(told) as [{ filename: string; files: { path: string }[] }];
  return {
    folder,
    files: files.map(({ path }) => path),
    install: (react) => install(join(folder, `react-${react}`), join(folder, filename), react),
    remove: () => rmSync(folder, { recursive: true }),
  };
}

function install(app: string, tarball: string, react: ReactMajor): Consumer {
  mkdirSync(app);
  writeFileSync(join(app, "package.json"), `{ "name": "app", "private": true, "type": "module" }\n`);
  // Without a network there is no React to be had: it is put beside it afterwards.
  const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
  execute("npm", ["install", "--offline", "--legacy-peer-deps", ...quiet, tarball], app);
  for (const name of ["react", "react-dom", "@types/react"]) {
    const link = join(app, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(REACT_FOLDERS[react], name), link);
  }
  const path = (name: string) => join(app, name);
  return {
    write(name, text) {
      writeFileSync(path(name), text);
      return name;
    },
    mistakes: (file, options) => mistakesOf(path(file), { ...options, typeRoots: [path("node_modules/@types")] }),
    bundle: (file) => bundle(app, path(file)),
    run: (file) => execute(process.execPath, [path(file)], app),
  };
}

function mistakesOf(file: string, options: ts.CompilerOptions): string[] {
  const program = ts.createProgram([file], {
    noEmit: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    jsx: ts.JsxEmit.ReactJSX,
    types: [],
    ...options,
  });
  return ts.getPreEmitDiagnostics(program).map(({ file: where, messageText }) => {
    return `${where?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
  });
}

async function bundle(root: string, input: string): Promise<string> {
  const result = await build({
    root,
    configFile: false,
    logLevel: "error",
    build: { write: false, modulePreload: false, rolldownOptions: { input, external: /^react/ } },
  });
  return (result as Rollup.RollupOutput).output[0].code;
}

function execute(command: string, given: string[], cwd: string): string {
  return execFileSync(command, given, { cwd, encoding: "utf8", timeout: RUN_MS, stdio: ["ignore", "pipe", "pipe"] });
}

export const exportsOf = (): Record<string, Record<string, string>> =>
  (JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { exports: Record<string, Record<string, string>> }).exports;
