// Numbers, times and bytes as people read them. Pure.

import type { Data } from "../api/generated";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(n: number): string {
  let value = n;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function count(n: number): string {
  return new Intl.NumberFormat("en").format(Math.round(n));
}

export function compact(n: number): string {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(n);
}

export function duration(ms: number): string {
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  const m = Math.floor(s / 60);
  const h = Math.floor(m / 60);
  if (m < 60) return two(m, "min", s % 60, "s");
  return h < 24 ? two(h, "h", m % 60, "min") : two(Math.floor(h / 24), "d", h % 24, "h");
}

function two(whole: number, unit: string, rest: number, smaller: string): string {
  return rest === 0 ? `${whole} ${unit}` : `${whole} ${unit} ${rest} ${smaller}`;
}

export function ago(ms: number | null | undefined, now: number): string {
  if (ms === null || ms === undefined) return "never";
  const past = now - ms;
  return past < 1500 ? "just now" : `${duration(past)} ago`;
}

export function time(ms: number): string {
  if (ms < 0) return "none";
  return new Date(ms).toISOString().replace("T", " ").replace("Z", "");
}

/** "15m", "1h 30m", "500ms" to milliseconds; undefined when it is none. A bare number is milliseconds. */
export function parseDuration(text: string): number | undefined {
  const scale: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  const trimmed = text.trim();
  if (/^\d+$/.test(trimmed)) return Number(trimmed);
  const parts = [...trimmed.matchAll(/(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*/gy)];
  const length = parts.reduce((sum, part) => sum + part[0].length, 0);
  if (parts.length === 0 || length !== trimmed.length) return undefined;
  return parts.reduce((sum, part) => sum + Number(part[1]) * (scale[part[2] ?? "ms"] ?? 1), 0);
}

export function toBytes(data: Data): Uint8Array {
  if ("utf8" in data) return new TextEncoder().encode(data.utf8);
  return Uint8Array.from(atob(data.base64), (c) => c.charCodeAt(0));
}

export function text(data: Data | null): string {
  if (data === null) return "";
  return "utf8" in data ? data.utf8 : `0x${[...toBytes(data)].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
}

/** The data as indented JSON, or null when it is not JSON. */
export function prettyJson(data: Data | null): string | null {
  if (data === null || !("utf8" in data)) return null;
  const first = data.utf8.trimStart()[0];
  if (first !== "{" && first !== "[") return null;
  try {
    return JSON.stringify(JSON.parse(data.utf8), null, 2);
  } catch {
    return null;
  }
}

export interface HexLine {
  offset: string;
  hex: string;
  ascii: string;
}

export function hexLines(data: Uint8Array, width = 16): HexLine[] {
  const lines: HexLine[] = [];
  for (let at = 0; at < data.length; at += width) {
    const row = [...data.subarray(at, at + width)];
    lines.push({
      offset: at.toString(16).padStart(6, "0"),
      hex: row.map((b) => b.toString(16).padStart(2, "0")).join(" "),
      ascii: row.map((b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : "·")).join(""),
    });
  }
  return lines;
}
