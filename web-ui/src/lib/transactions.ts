// How transactions are shown: their age and their partitions. Pure.

import type { TransactionPartition, TransactionStage, TransactionSummary } from "../api/generated";
import { duration } from "./format";

export const stages: readonly TransactionStage[] = ["empty", "ongoing", "prepare-commit", "prepare-abort", "complete-commit", "complete-abort"];

/** For how long it has been open; undefined: none is. */
export function age(started_ms: number | null, now: number): string | undefined {
  return started_ms === null ? undefined : duration(Math.max(0, now - started_ms));
}

/** Whether its coordinator will abort it before long: most of its time is over. */
export function isOld(of: Pick<TransactionSummary, "state" | "started_ms" | "timeout_ms">, now: number): boolean {
  return of.state === "ongoing" && of.started_ms !== null && now - of.started_ms > 0.8 * of.timeout_ms;
}

/** Partitions by topic, in order: "orders 0, 1, 4". */
export function byTopic(partitions: readonly TransactionPartition[]): { topic: string; indexes: string }[] {
  const topics = new Map<string, number[]>();
  for (const { topic, partition } of partitions) topics.set(topic, [...(topics.get(topic) ?? []), partition]);
  return [...topics]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([topic, indexes]) => ({ topic, indexes: indexes.sort((a, b) => a - b).join(", ") }));
}
