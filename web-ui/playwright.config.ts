import { defineConfig } from "@playwright/test";

// Debian's Chromium; Playwright's own download is not needed. As root, Chromium runs without its sandbox.
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const args = process.getuid?.() === 0 ? ["--no-sandbox", ...quiet] : quiet;

export default defineConfig({
  testDir: "tests",
  workers: 1,
  retries: 0,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: [["list"]],
  outputDir: "test-results",
  use: { launchOptions: { executablePath, args }, screenshot: "only-on-failure", trace: "off" },
});
