// What the cluster's state means to people: words, colours, marks, and where the keys lead in the picture. Pure.

import type { Ailment, ClusterHealth, PartitionCondition, PartitionPlace, PlacedPage } from "../api/generated";
import { count } from "./format";

export type Kind = "good" | "warn" | "bad";

interface Shown {
  text: string;
  /** In the picture, so that colour is not all that tells them apart. */
  glyph: string;
  kind: Kind;
}

const CONDITIONS: Record<PartitionCondition, Shown> = {
  healthy: { text: "healthy", glyph: "", kind: "good" },
  "under-replicated": { text: "under-replicated", glyph: "−", kind: "warn" },
  "under-min-isr": { text: "under min ISR", glyph: "!", kind: "bad" },
  leaderless: { text: "without a leader", glyph: "×", kind: "bad" },
};

export const conditions = Object.keys(CONDITIONS) as PartitionCondition[];

export function condition(of: PartitionCondition): Shown {
  return CONDITIONS[of];
}

interface Filter {
  only: Ailment;
  label: string;
  /** What it means, in a sentence. */
  note: string;
  /** How bad one of them is. */
  kind: Kind;
}

/** What the tiles count and the picture is filtered by; the address is `/cluster/<only>`. The worst comes first. */
export const filters: Filter[] = [
  { only: "leaderless", label: "Without a leader", note: "cannot be written or read", kind: "bad" },
  { only: "under-min-isr", label: "Under min ISR", note: "commit nothing", kind: "bad" },
  { only: "under-replicated", label: "Under-replicated", note: "lack a replica in sync", kind: "warn" },
  { only: "at-min-isr", label: "At min ISR", note: "have none to spare", kind: "warn" },
  { only: "moving", label: "Moving", note: "get other replicas", kind: "good" },
];

export function filterOf(part: string | undefined): Filter | undefined {
  return filters.find(({ only }) => only === part);
}

export function affected(health: ClusterHealth, only: Ailment): number {
  switch (only) {
    case "leaderless":
      return health.leaderless.count;
    case "under-min-isr":
      return health.under_min_isr.count;
    case "at-min-isr":
      return health.at_min_isr.count;
    case "under-replicated":
      return health.under_replicated.count;
    case "moving":
      return health.moving.count;
  }
}

/** Who holds a partition, as the API says it in several places. */
export interface Placed {
  leader: number;
  replicas: number[];
  isr: number[];
  eligible: number[];
  adding: number[];
  removing: number[];
  /** Who has to come back; none while somebody leads. */
  waits_for: number[];
}

/** Who leads now: the metadata may still name a leader that is away. */
export function leaderOf(placed: Placed): number | undefined {
  return placed.leader < 0 || placed.waits_for.length > 0 ? undefined : placed.leader;
}

export interface Mark {
  node: number;
  leads: boolean;
  inSync: boolean;
  eligible: boolean;
  /** All of it in words. */
  text: string;
}

/** The replicas of a partition in the order of preference, each with what is to be said of it. */
export function marks(placed: Placed): Mark[] {
  return placed.replicas.map((node) => {
    const leads = node === leaderOf(placed);
    const inSync = placed.isr.includes(node);
    const eligible = placed.eligible.includes(node);
    const words = [leads ? "leads" : inSync ? "in sync" : eligible ? "out of sync, may lead" : "out of sync"];
    if (placed.adding.includes(node)) words.push("being added");
    if (placed.removing.includes(node)) words.push("being removed");
    return { node, leads, inSync, eligible, text: `node ${node} ${words.join(", ")}` };
  });
}

/** A partition in one sentence, for those who hear it. */
export function told(topic: string, partition: number, of: PartitionCondition, placed: Placed): string {
  return `${topic} ${partition}: ${CONDITIONS[of].text}; ${marks(placed)
    .map((mark) => mark.text)
    .join("; ")}`;
}

/** A place in rows of unequal length. */
export interface At {
  row: number;
  column: number;
}

/** Where a key leads from `at` in rows of these lengths, of which none is empty; undefined: it is none of ours. `wide` is how
 * many stand side by side, since long rows wrap. */
export function moved(lengths: number[], at: At, key: string, wide: number): At | undefined {
  const length = lengths[at.row] ?? 0;
  const last = lengths.length - 1;
  const clamped = (row: number, column: number): At => ({ row, column: Math.min(column, (lengths[row] ?? 1) - 1) });
  switch (key) {
    case "ArrowRight":
      if (at.column + 1 < length) return { row: at.row, column: at.column + 1 };
      return at.row < last ? { row: at.row + 1, column: 0 } : at;
    case "ArrowLeft":
      if (at.column > 0) return { row: at.row, column: at.column - 1 };
      return at.row > 0 ? { row: at.row - 1, column: (lengths[at.row - 1] ?? 1) - 1 } : at;
    case "ArrowDown":
      // In the same line of cells there is one below while the row goes on for another line.
      if (Math.floor(at.column / wide) < Math.floor((length - 1) / wide)) return clamped(at.row, at.column + wide);
      return at.row < last ? clamped(at.row + 1, at.column % wide) : at;
    case "ArrowUp": {
      if (at.column >= wide) return { row: at.row, column: at.column - wide };
      if (at.row === 0) return at;
      const above = lengths[at.row - 1] ?? 1;
      const line = Math.floor((above - 1) / wide) * wide;
      return clamped(at.row - 1, line + at.column);
    }
    case "Home":
      return { row: at.row, column: 0 };
    case "End":
      return { row: at.row, column: length - 1 };
    default:
      return undefined;
  }
}

/** "1–500 of 4,000". */
export function range(page: PlacedPage): string {
  const shown = page.topics.reduce((sum, topic) => sum + topic.partitions.length, 0);
  if (shown === 0) return `0 of ${count(page.total)}`;
  return `${count(page.before + 1)}–${count(page.before + shown)} of ${count(page.total)}`;
}

/** The way through the pages: where each page before this one began, and where this one begins. */
export type Trail = (PartitionPlace | undefined)[];

export const FIRST: Trail = [undefined];

export function forth(trail: Trail, page: PlacedPage): Trail {
  return page.next ? [...trail, page.next] : trail;
}

export function back(trail: Trail): Trail {
  return trail.length > 1 ? trail.slice(0, -1) : trail;
}

/** Where another node shows its own pages; undefined: it serves none. */
export function pagesOf(http: string): string | undefined {
  return http === "" ? undefined : `http://${http}/cluster`;
}
