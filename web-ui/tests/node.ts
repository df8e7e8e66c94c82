// A real node for the browser to look at: started on free ports with a folder of its own, stopped by its own process.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { test as base } from "@playwright/test";

const READY = /^ready tcp=(\S+) quic=(\S+) http=(\S+)$/;

export interface Node {
  /** Where its web UI is. */
  url: string;
  /** Calls its API; throws with the answer's text unless it succeeds. */
  call(method: string, path: string, body?: unknown): Promise<unknown>;
  /** Ends the process in order. */
  stop(): Promise<void>;
  /** Starts it again, with its data and at its address. */
  start(): Promise<void>;
}

/** The binary under test. */
function binary(): string {
  const given = process.env.HEADWATER_BIN;
  if (given) return given;
  const built = resolve(dirname(fileURLToPath(import.meta.url)), "../../target/debug/headwater");
  if (existsSync(built)) return built;
  throw new Error("no node to test: build one with `cargo build`, or name it in HEADWATER_BIN");
}

/** A module that `cargo xtask modules` built, looked for beside the binary's own target folder. */
export function module(name: string): Buffer {
  for (let folder = dirname(binary()), up = 0; up < 4; folder = dirname(folder), up += 1) {
    const file = join(folder, "modules", name);
    if (existsSync(file)) return readFileSync(file);
  }
  throw new Error(`no ${name}: build the modules with \`cargo xtask modules\``);
}

async function start(data: string, address: string): Promise<{ child: ChildProcess; http: string }> {
  const flags = ["--data-dir", data, "--listen-tcp", "127.0.0.1:0", "--listen-quic", "127.0.0.1:0", "--listen-http", address];
  // Our own HEADWATER_BIN is no setting of the node, which refuses what it does not know.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("HEADWATER_")));
  const child = spawn(binary(), ["node", ...flags], { stdio: ["ignore", "pipe", "pipe"], env });
  let log = "";
  child.stderr?.on("data", (text: Buffer) => (log = (log + text.toString()).slice(-10_000)));
  const ended = new Promise<never>((_, fail) => child.once("exit", (code) => fail(new Error(`the node ended with ${code}:\n${log}`))));
  ended.catch(() => undefined);
  const ready = new Promise<string>((done) => {
    createInterface({ input: child.stdout! }).on("line", (line) => {
      const match = READY.exec(line);
      if (match?.[3]) done(match[3]);
    });
  });
  return { child, http: await Promise.race([ready, ended]) };
}

export const test = base.extend<object, { node: Node }>({
  node: [
    async ({}, use) => {
      const data = mkdtempSync(join(tmpdir(), "headwater-ui-"));
      let { child, http } = await start(data, "127.0.0.1:0");
      const url = `http://${http}`;
      const call = async (method: string, path: string, body?: unknown) => {
        const response = await fetch(`${url}/api/v1${path}`, {
          method,
          headers: { "content-type": "application/json" },
          body: body === undefined ? undefined : JSON.stringify(body),
        });
        const text = await response.text();
        if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
        return text === "" ? undefined : (JSON.parse(text) as unknown);
      };
      const stop = async () => {
        const gone = new Promise((done) => child.once("exit", done));
        child.kill("SIGTERM");
        await gone;
      };
      await use({ url, call, stop, start: async () => void ({ child, http } = await start(data, http)) });
      await stop();
      rmSync(data, { recursive: true, force: true });
    },
    { scope: "worker" },
  ],
});

export { expect } from "@playwright/test";
