import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const SERVER = process.env["GAPLESS_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  build: {
    outDir: "dist",
    // light-dark(), :popover-open and the v flag as written: nothing older is served.
    target: ["chrome125", "firefox128", "safari18"],
    // A data: address would need a hole in the policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  // `npx vite` beside a running `gapless dev`: the page from here, everything else from there.
  server: { proxy: { "/api": SERVER, "/dev": SERVER }, strictPort: true },
});
