import { expect, module, test } from "./node";

const wasm = (name: string, buffer: Buffer) => ({ name, mimeType: "application/wasm", buffer });

test("what is no module is refused, with the reason", async ({ page, node }) => {
  await page.goto(`${node.url}/modules`);
  const input = page.getByLabel("Module file");
  await input.setInputFiles(wasm("empty.wasm", Buffer.alloc(0)));
  await expect(page.getByText("empty.wasm was refused:")).toBeVisible();
  await input.setInputFiles(wasm("noise.wasm", Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 131) % 251))));
  await expect(page.getByText("noise.wasm was refused:")).toBeVisible();
  await input.setInputFiles(wasm("film.wasm", Buffer.alloc(45_000_000)));
  await expect(page.getByRole("alert")).toContainText("45.0 MB is no module");
  // A core module: the right magic, and no component.
  await input.setInputFiles(wasm("core.wasm", Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0])));
  await expect(page.getByText("core.wasm was refused:")).toBeVisible();
  await expect(page.getByRole("alert")).toContainText("component");
});

test("a module is dropped in; a filter is tried, deployed with its parameters, paused and resumed", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "flights", partitions: 1, configs: {} });
  const flights = [40, 3, 16, -5, 15].map((delay) => ({ value: { utf8: JSON.stringify({ origin: "ORD", delay }) } }));
  await node.call("POST", "/topics/flights/records", { records: flights });

  await page.goto(`${node.url}/modules`);
  // As a browser hands a dragged file over.
  const bytes = [...module("examples/late_flights.wasm")];
  const dragged = await page.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "late_flights.wasm", { type: "application/wasm" }));
    return transfer;
  }, bytes);
  await page.getByRole("group", { name: "Upload a module" }).dispatchEvent("drop", { dataTransfer: dragged });
  await expect(page.getByText("accepted", { exact: true })).toBeVisible();

  await page.getByRole("row", { name: /^filter/ }).getByRole("link", { name: "Deploy" }).click();
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("late");
  await page.getByLabel("Source topic").fill("flights");
  await page.getByLabel("Sink topics").fill("flights.late");
  await page.getByLabel("where").fill("delay > 15");
  await page.getByRole("button", { name: "Try it on 20 records" }).click();
  const tried = page.getByLabel("Dry run");
  await expect(tried.getByText("kept")).toHaveCount(2);
  await expect(tried.getByText("dropped")).toHaveCount(3);
  await page.getByRole("button", { name: "Deploy" }).click();

  await expect(page.getByRole("heading", { name: "late" })).toBeVisible();
  await expect(page.getByText("running").first()).toBeVisible();
  await expect(page.getByText("2 records, 3 dropped")).toBeVisible();
  await page.getByRole("button", { name: "Pause" }).click();
  await expect(page.getByText("paused").first()).toBeVisible();
  await page.getByRole("button", { name: "Resume" }).click();
  await expect(page.getByText("running").first()).toBeVisible();

  await page.getByRole("link", { name: "flights.late" }).first().click();
  await page.getByRole("button", { name: "From the start" }).click();
  await expect(page.getByText('"delay":40')).toBeVisible();
});
