import { defineConfig } from "vitest/config";

const REACT_18 = new URL("tests/react18/node_modules/", import.meta.url).pathname;

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: "unit", include: ["tests/unit/**/*.test.{ts,tsx}"], env: { REACT_MAJOR: "19" } } },
      {
        extends: true,
        resolve: {
          alias: [
            { find: /^(react|react-dom)(?=\/|$)/, replacement: `${REACT_18}$1` },
            { find: "@testing-library/react", replacement: "@testing-library/react/dist/@testing-library/react.esm.js" },
          ],
        },
        test: {
          name: "react 18",
          include: ["tests/unit/hook.test.tsx"],
          env: { REACT_MAJOR: "18" },
          // Not as Node would load it, beside the other React.
          server: { deps: { inline: [/react\.esm\.js/] } },
        },
      },
    ],
    // Two cores, shared: more workers only queue.
    maxWorkers: 2,
    testTimeout: 10_000,
    hookTimeout: 10_000,
    restoreMocks: true,
    unstubGlobals: true,
    // The scripted servers have ports of their own.
    environmentOptions: { happyDOM: { settings: { fetch: { disableSameOriginPolicy: true } } } },
  },
});
