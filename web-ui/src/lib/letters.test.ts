import { describe, expect, it } from "vitest";
import { choices, edited, progress, ranges, recordDraft } from "./letters";

const letter = {
  key: { utf8: "k" },
  value: { base64: "/w==" },
  headers: [
    { name: "trace", value: { utf8: "7" } },
    { name: "empty", value: null },
  ],
};

describe("what was changed in a letter", () => {
  it("is nothing when nothing was", () => expect(edited(letter, recordDraft(letter))).toBeUndefined());
  it("is said of the parts that were, and of no other", () => {
    const now = recordDraft(letter);
    now.value = { shape: "utf8", text: "mended" };
    expect(edited(letter, now)).toEqual({ value: { utf8: "mended" } });
  });
  it("takes a key away when it is none any more", () => {
    const now = recordDraft(letter);
    now.key = { shape: "null", text: "k" };
    expect(edited(letter, now)).toEqual({ key: null });
  });
  it("is all headers when one was", () => {
    const now = recordDraft(letter);
    now.headers[0]!.value.text = "8";
    expect(edited(letter, now)).toEqual({
      headers: [
        { name: "trace", value: { utf8: "8" } },
        { name: "empty", value: null },
      ],
    });
    const fewer = recordDraft(letter);
    fewer.headers.pop();
    expect(edited(letter, fewer)?.headers).toHaveLength(1);
  });
});

describe("a redrive", () => {
  const range = (partition: number, from_offset: number, until_offset: number, position: number) => ({ partition, from_offset, until_offset, position });
  it("is as far as its ranges are", () => {
    expect(progress({ ranges: [range(0, 10, 20, 15), range(1, 0, 10, 0)] })).toBe(0.25);
    expect(progress({ ranges: [range(0, 5, 5, 5)] })).toBe(1);
  });
  it("says which letters it was about", () => expect(ranges({ ranges: [range(0, 5, 9, 9), range(1, 0, 3, 1)] })).toBe("0: 5 to 9, 1: 0 to 3"));
});

it("reasons and versions are offered once, in order", () => {
  const group = (reason: string, version: string) => ({
    reason,
    module: { name: "filter", version },
    count: 1,
    redriven: 0,
    first_failed_ms: 0,
    last_failed_ms: 0,
    message: "",
    last: { partition: 0, offset: 0 },
  });
  expect(choices({ groups: [group("trap", "2"), group("late", "2"), group("trap", "1")] })).toEqual({ reasons: ["late", "trap"], versions: ["1", "2"] });
  expect(choices(undefined)).toEqual({ reasons: [], versions: [] });
});
