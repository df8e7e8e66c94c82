// Real nodes for the browser to look at, one or a cluster of three: started on free ports, each with a folder of its own, stopped
// by their own process.

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
  /** Runs a client of it by our own command; ends it with SIGTERM. */
  client(...args: string[]): { end(): Promise<void> };
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

interface Started {
  child: ChildProcess;
  tcp: string;
  quic: string;
  http: string;
}

async function start(data: string, address: string, more: string[] = []): Promise<Started> {
  const flags = ["--data-dir", data, "--listen-tcp", "127.0.0.1:0", "--listen-quic", "127.0.0.1:0", "--listen-http", address, ...more];
  // Our own HEADWATER_BIN is no setting of the node, which refuses what it does not know.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("HEADWATER_")));
  const child = spawn(binary(), ["node", ...flags], { stdio: ["ignore", "pipe", "pipe"], env });
  let log = "";
  child.stderr?.on("data", (text: Buffer) => (log = (log + text.toString()).slice(-10_000)));
  const ended = new Promise<never>((_, fail) => child.once("exit", (code) => fail(new Error(`the node ended with ${code}:\n${log}`))));
  ended.catch(() => undefined);
  const ready = new Promise<{ tcp: string; quic: string; http: string }>((done) => {
    createInterface({ input: child.stdout! }).on("line", (line) => {
      const match = READY.exec(line);
      if (match?.[1] && match[2] && match[3]) done({ tcp: match[1], quic: match[2], http: match[3] });
    });
  });
  return { child, ...(await Promise.race([ready, ended])) };
}

function caller(url: string): Node["call"] {
  return async (method, path, body) => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  };
}

async function end(child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill(signal);
  await gone;
}

/** A voter, node 1, and two observers. */
export interface Three {
  /** Node 1. */
  node: Pick<Node, "url" | "call">;
  /** The power of a node goes. */
  kill(id: 2 | 3): Promise<void>;
  /** A node that was killed comes back, on its data. */
  revive(id: 2 | 3): Promise<void>;
}

async function startThree(folder: string): Promise<Three & { end(): Promise<void> }> {
  const flags = (id: number) => ["--node-id", String(id), "--cluster-id", "shown-to-a-browser"];
  const data = (id: number) => join(folder, String(id));
  const first = await start(data(1), "127.0.0.1:0", flags(1));
  const running = new Map([[1, first.child]]);
  const join23 = async (id: number) => {
    const { child } = await start(data(id), "127.0.0.1:0", [...flags(id), "--voters", `1@${first.quic}`, "--set", `broker.rack=rack-${id}`]);
    running.set(id, child);
  };
  await join23(2);
  await join23(3);
  const url = `http://${first.http}`;
  return {
    node: { url, call: caller(url) },
    kill: (id) => end(running.get(id)!, "SIGKILL"),
    revive: join23,
    // The voter last: the others ask it for their leave.
    end: async () => {
      for (const id of [3, 2, 1]) await end(running.get(id)!, "SIGTERM");
    },
  };
}

export const test = base.extend<{ three: Three }, { node: Node }>({
  node: [
    async ({}, use) => {
      const data = mkdtempSync(join(tmpdir(), "headwater-ui-"));
      let { child, tcp, http } = await start(data, "127.0.0.1:0");
      const url = `http://${http}`;
      const stop = () => end(child, "SIGTERM");
      const client = (...args: string[]) => {
        const running = spawn(binary(), [...args, "--bootstrap", tcp], { stdio: "ignore" });
        return { end: () => end(running, "SIGTERM") };
      };
      await use({ url, client, call: caller(url), stop, start: async () => void ({ child, tcp, http } = await start(data, http)) });
      await stop();
      rmSync(data, { recursive: true, force: true });
    },
    { scope: "worker" },
  ],
  three: async ({}, use) => {
    const folder = mkdtempSync(join(tmpdir(), "headwater-ui-"));
    const three = await startThree(folder);
    await use(three);
    await three.end();
    rmSync(folder, { recursive: true, force: true });
  },
});

export { expect } from "@playwright/test";
