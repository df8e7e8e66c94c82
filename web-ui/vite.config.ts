import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// The node serves the built files from inside its binary: few files, no external host, hashed names so that they cache for ever.
// `npm run dev` forwards the API to a node on the default port.
export default defineConfig({
  plugins: [svelte()],
  build: { target: "es2022", sourcemap: false, assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": process.env.HEADWATER_HTTP ?? "http://127.0.0.1:8080" } },
  test: { include: ["src/**/*.test.ts"] },
});
