import { describe, expect, it } from "vitest";
import { age, byTopic, isOld } from "./transactions";

describe("the age of a transaction", () => {
  it("is none where none is open", () => expect(age(null, 5000)).toBeUndefined());
  it("is never negative, whatever the clocks say", () => {
    expect(age(1000, 3500)).toBe("2.5 s");
    expect(age(4000, 3500)).toBe("0 ms");
  });
  it("is high when its coordinator will soon abort it", () => {
    const of = { state: "ongoing" as const, started_ms: 0, timeout_ms: 1000 };
    expect(isOld(of, 800)).toBe(false);
    expect(isOld(of, 801)).toBe(true);
    expect(isOld({ ...of, state: "prepare-commit" }, 801)).toBe(false);
    expect(isOld({ ...of, started_ms: null }, 801)).toBe(false);
  });
});

it("partitions are put together by topic, in order", () => {
  const place = (topic: string, partition: number) => ({ topic, partition });
  expect(byTopic([place("b", 10), place("a", 1), place("b", 2)])).toEqual([
    { topic: "a", indexes: "1" },
    { topic: "b", indexes: "2, 10" },
  ]);
  expect(byTopic([])).toEqual([]);
});
