// What a person changes in a dead letter, and how far a redrive is. Pure.

import type { Data, DeadLetter, DeadLetterSummary, LetterEdit, Redrive } from "../api/generated";

/** Bytes as they stand in a form. */
export interface Draft {
  shape: "utf8" | "base64" | "null";
  text: string;
}

export interface HeaderDraft {
  name: string;
  value: Draft;
}

export interface RecordDraft {
  key: Draft;
  value: Draft;
  headers: HeaderDraft[];
}

export function draft(data: Data | null): Draft {
  if (data === null) return { shape: "null", text: "" };
  return "utf8" in data ? { shape: "utf8", text: data.utf8 } : { shape: "base64", text: data.base64 };
}

export function recordDraft(letter: Pick<DeadLetter, "key" | "value" | "headers">): RecordDraft {
  const headers = letter.headers.map((header) => ({ name: header.name, value: draft(header.value) }));
  return { key: draft(letter.key), value: draft(letter.value), headers };
}

export function data(of: Draft): Data | null {
  if (of.shape === "null") return null;
  return of.shape === "utf8" ? { utf8: of.text } : { base64: of.text };
}

const same = (a: Draft, b: Draft) => a.shape === b.shape && (a.shape === "null" || a.text === b.text);

/** What of the letter was changed; undefined: nothing was. What was not changed is not said, so that it stays as it is, byte for byte. */
export function edited(letter: Pick<DeadLetter, "key" | "value" | "headers">, now: RecordDraft): LetterEdit | undefined {
  const before = recordDraft(letter);
  const edit: LetterEdit = {};
  if (!same(before.key, now.key)) edit.key = data(now.key);
  if (!same(before.value, now.value)) edit.value = data(now.value);
  const isSame =
    before.headers.length === now.headers.length &&
    before.headers.every((header, i) => header.name === now.headers[i]?.name && same(header.value, now.headers[i]!.value));
  if (!isSame) edit.headers = now.headers.map((header) => ({ name: header.name, value: data(header.value) }));
  return Object.keys(edit).length === 0 ? undefined : edit;
}

/** How much of its range a redrive has dealt with, from 0 to 1. */
export function progress(of: Pick<Redrive, "ranges">): number {
  const all = of.ranges.reduce((sum, range) => sum + range.until_offset - range.from_offset, 0);
  const done = of.ranges.reduce((sum, range) => sum + range.position - range.from_offset, 0);
  return all === 0 ? 1 : done / all;
}

/** "0: 5 to 9" for each partition: what a person notes down, because a node forgets it when it is started again. */
export function ranges(of: Pick<Redrive, "ranges">): string {
  return of.ranges.map((range) => `${range.partition}: ${range.from_offset} to ${range.until_offset}`).join(", ");
}

/** The reasons and versions there are to choose from. */
export function choices(summary: Pick<DeadLetterSummary, "groups"> | undefined): { reasons: string[]; versions: string[] } {
  const groups = summary?.groups ?? [];
  const sorted = (all: string[]) => [...new Set(all)].sort();
  return { reasons: sorted(groups.map((group) => group.reason)), versions: sorted(groups.map((group) => group.module.version)) };
}
