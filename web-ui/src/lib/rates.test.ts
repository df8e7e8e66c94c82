import { expect, it } from "vitest";
import { Rate, Rates } from "./rates";

it("is zero until two samples are there", () => {
  const rate = new Rate();
  expect(rate.now()).toBe(0);
  rate.push(0, 10);
  expect(rate.now()).toBe(0);
});

it("counts per second", () => {
  const rate = new Rate();
  rate.push(0, 0);
  rate.push(500, 100);
  rate.push(1000, 400);
  expect(rate.now(1)).toBe(600);
  expect(rate.now(9)).toBe(400);
  expect(rate.history()).toEqual([200, 600]);
});

it("begins anew when a counter falls", () => {
  const rate = new Rate();
  rate.push(0, 1000);
  rate.push(1000, 5);
  expect(rate.now()).toBe(0);
  rate.push(2000, 15);
  expect(rate.now()).toBe(10);
});

it("keeps a bounded history", () => {
  const rate = new Rate(5);
  for (let i = 0; i < 50; i++) rate.push(i * 1000, i);
  expect(rate.history().length).toBe(4);
});

it("tells counters apart", () => {
  const rates = new Rates();
  rates.now("a", 1000, 0);
  rates.now("b", 1000, 500);
  expect(rates.now("a", 2000, 30)).toBe(30);
  expect(rates.now("b", 2000, 500)).toBe(0);
  expect(rates.now("b", 90_000, 900)).toBeGreaterThan(0);
  expect(rates.now("a", 90_001, 60)).toBe(0);
});
