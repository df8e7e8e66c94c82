import { describe, expect, it } from "vitest";
import { ago, bytes, duration, hexLines, parseDuration, prettyJson, text, toBytes } from "./format";

describe("bytes", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [99_900, "99.9 kB"],
    [999_600, "1.0 MB"],
    [17_920_817, "17.9 MB"],
    [2_300_000_000, "2.3 GB"],
  ])("%d is %s", (n, shown) => expect(bytes(n)).toBe(shown));
});

describe("durations", () => {
  it.each([
    ["500ms", 500],
    ["15m", 900_000],
    ["1h 30m", 5_400_000],
    ["1.5s", 1500],
    ["250", 250],
    ["", undefined],
    ["soon", undefined],
    ["5 parsecs", undefined],
  ])("%s parses", (shown, ms) => expect(parseDuration(shown)).toBe(ms));
  it.each([
    [0, "0 ms"],
    [0.25, "250 µs"],
    [12, "12 ms"],
    [1500, "1.5 s"],
    [65_000, "1 min 5 s"],
    [3_600_000, "1 h"],
    [3_700_000, "1 h 1 min"],
    [90_000_000, "1 d 1 h"],
  ])("%d shows", (ms, shown) => expect(duration(ms)).toBe(shown));
  it("says never for what has not been seen", () => expect(ago(null, 5)).toBe("never"));
});

describe("data", () => {
  it("indents JSON and leaves the rest", () => {
    expect(prettyJson({ utf8: '{"a":1}' })).toBe('{\n  "a": 1\n}');
    expect(prettyJson({ utf8: "{broken" })).toBeNull();
    expect(prettyJson({ utf8: "42" })).toBeNull();
    expect(prettyJson({ base64: "e30=" })).toBeNull();
  });
  it("shows binary as hex", () => {
    expect(text({ base64: "AP8=" })).toBe("0x00ff");
    expect([...toBytes({ utf8: "é" })]).toEqual([0xc3, 0xa9]);
    expect(hexLines(new Uint8Array([72, 105, 0]))).toEqual([{ offset: "000000", hex: "48 69 00", ascii: "Hi·" }]);
    expect(hexLines(new Uint8Array(17)).length).toBe(2);
  });
});
