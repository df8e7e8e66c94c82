import { describe, expect, it } from "vitest";
import type { PlacedPage } from "../api/generated";
import { back, condition, conditions, filterOf, filters, FIRST, forth, marks, moved, pagesOf, range, told } from "./cluster";

const placed = { leader: 1, replicas: [1, 2, 3, 4], isr: [1, 2], eligible: [3], adding: [4], removing: [2], waits_for: [] };

describe("marks", () => {
  it("say of each replica what it is, in the order of preference", () => {
    expect(marks(placed)).toEqual([
      { node: 1, leads: true, inSync: true, eligible: false, text: "node 1 leads" },
      { node: 2, leads: false, inSync: true, eligible: false, text: "node 2 in sync, being removed" },
      { node: 3, leads: false, inSync: false, eligible: true, text: "node 3 out of sync, may lead" },
      { node: 4, leads: false, inSync: false, eligible: false, text: "node 4 out of sync, being added" },
    ]);
  });
  it("name no leader where there is none", () => {
    expect(marks({ ...placed, leader: -1 }).some((mark) => mark.leads)).toBe(false);
    expect(marks({ ...placed, leader: 1, waits_for: [1] }).some((mark) => mark.leads)).toBe(false);
  });
  it("make a sentence", () => {
    const two = { leader: 2, replicas: [1, 2], isr: [2], eligible: [], adding: [], removing: [], waits_for: [] };
    expect(told("orders", 7, "under-replicated", two)).toBe("orders 7: under-replicated; node 1 out of sync; node 2 leads");
  });
});

describe("conditions", () => {
  it("can be told apart without colours", () => {
    expect(new Set(conditions.map((of) => condition(of).glyph)).size).toBe(conditions.length);
  });
  it("are filtered by what an address says", () => {
    for (const { only } of filters) expect(filterOf(only)?.only).toBe(only);
    expect(filterOf(undefined)).toBeUndefined();
    expect(filterOf("healthy")).toBeUndefined();
  });
});

describe("keys in the picture", () => {
  // Rows of 3, 12 and 1 cells, five side by side: the second row has lines of 5, 5 and 2.
  const rows = [3, 12, 1];
  it.each([
    [0, 2, "ArrowRight", 1, 0],
    [1, 4, "ArrowRight", 1, 5],
    [2, 0, "ArrowRight", 2, 0],
    [1, 0, "ArrowLeft", 0, 2],
    [0, 0, "ArrowLeft", 0, 0],
    [0, 2, "ArrowDown", 1, 2],
    [1, 2, "ArrowDown", 1, 7],
    [1, 9, "ArrowDown", 1, 11],
    [1, 11, "ArrowDown", 2, 0],
    [2, 0, "ArrowDown", 2, 0],
    [2, 0, "ArrowUp", 1, 10],
    [1, 10, "ArrowUp", 1, 5],
    [1, 4, "ArrowUp", 0, 2],
    [0, 1, "ArrowUp", 0, 1],
    [1, 7, "Home", 1, 0],
    [1, 7, "End", 1, 11],
  ])("%d,%d %s leads to %d,%d", (row, column, key, toRow, toColumn) => {
    expect(moved(rows, { row, column }, key, 5)).toEqual({ row: toRow, column: toColumn });
  });
  it("are left alone unless they move", () => expect(moved(rows, { row: 0, column: 0 }, "Tab", 5)).toBeUndefined());
});

describe("pages", () => {
  const page = (partitions: number, before: number, total: number, next: PlacedPage["next"]): PlacedPage => ({
    total,
    before,
    next,
    topics: [
      {
        name: "t",
        min_insync_replicas: 1,
        partitions: Array.from({ length: partitions }, (_, partition) => ({
          ...placed,
          partition,
          condition: "healthy",
          leader_epoch: 0,
        })),
      },
    ],
  });
  it("say where they are", () => {
    expect(range(page(500, 1000, 4000, null))).toBe("1,001–1,500 of 4,000");
    expect(range(page(0, 0, 0, null))).toBe("0 of 0");
  });
  it("are left on the way they were reached", () => {
    const next = { topic: "t", partition: 500 };
    const second = forth(FIRST, page(500, 0, 501, next));
    expect(second.at(-1)).toEqual(next);
    expect(forth(second, page(1, 500, 501, null))).toBe(second);
    expect(back(second)).toEqual(FIRST);
    expect(back(FIRST)).toBe(FIRST);
  });
});

it("a node without HTTP has no pages", () => {
  expect(pagesOf("")).toBeUndefined();
  expect(pagesOf("10.0.0.2:8080")).toBe("http://10.0.0.2:8080/cluster");
});
