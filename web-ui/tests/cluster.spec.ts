import type { Page } from "@playwright/test";
import { expect, test } from "./node";

const tile = (page: Page, label: string) => page.getByRole("group", { name: "Health" }).getByRole("link", { name: new RegExp(`^${label}`) });
const picture = (page: Page) => page.getByRole("region", { name: "Partitions" });
const card = (page: Page, id: number) => page.getByRole("listitem", { name: `Node ${id}`, exact: true });

test("a node alone is shown as a healthy cluster, its partitions one by one", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "pictured", partitions: 3, configs: {} });
  await page.goto(node.url);
  await page.getByRole("navigation").getByRole("link", { name: "Cluster" }).click();
  await expect(page.getByText("healthy", { exact: true }).first()).toBeVisible();
  await expect(card(page, 1).getByText("controller")).toBeVisible();
  await expect(card(page, 1).getByText("active")).toBeVisible();
  const row = picture(page).getByRole("row").filter({ has: page.getByText("pictured", { exact: true }) });
  await expect(row.getByRole("gridcell")).toHaveCount(3);
  await row.getByRole("gridcell").nth(1).hover();
  await expect(picture(page).getByRole("status")).toContainText("pictured partition 1");
  await expect(picture(page).getByRole("status")).toContainText("node 1 leads in epoch");
  await expect(page.getByRole("region", { name: "Quorum" }).getByRole("row", { name: /^1 voter, leads/ })).toBeVisible();

  await tile(page, "Without a leader").click();
  await expect(page).toHaveURL(/\/cluster\/leaderless$/);
  await expect(picture(page)).toContainText("No partition of these is without a leader.");
  await tile(page, "Without a leader").click();
  await expect(row).toBeVisible();
});

test("the picture is walked through by keys, and stopped at once by tab", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "walked-a", partitions: 3, configs: {} });
  await node.call("POST", "/topics", { name: "walked-b", partitions: 2, configs: {} });
  await page.goto(`${node.url}/cluster`);
  await page.getByLabel("Topics containing").fill("walked");
  const cells = picture(page).getByRole("gridcell");
  await expect(cells).toHaveCount(5);
  await page.getByLabel("internal").focus();
  await page.keyboard.press("Tab");
  await expect(cells.first()).toBeFocused();
  const told = picture(page).getByRole("status");
  await expect(told).toContainText("walked-a partition 0");
  for (const [key, place] of [
    ["ArrowRight", "walked-a partition 1"],
    ["End", "walked-a partition 2"],
    ["ArrowDown", "walked-b partition 1"],
    ["Home", "walked-b partition 0"],
    ["ArrowLeft", "walked-a partition 2"],
  ] as const) {
    await page.keyboard.press(key);
    await expect(told).toContainText(place);
  }
  await page.keyboard.press("Tab");
  await expect(told.getByRole("link")).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/topics\/walked-a$/);
});

test("thousands of partitions come page by page, and nothing moves while they are polled", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "many", partitions: 1200, configs: {} });
  await page.goto(`${node.url}/cluster`);
  await page.getByLabel("Topics containing").fill("many");
  await expect(picture(page).getByText("1–500 of 1,200")).toBeVisible();
  const cells = picture(page).getByRole("gridcell");
  await expect(cells).toHaveCount(500);
  const shift = () => page.evaluate(() => (window as unknown as { shift: number }).shift);
  await page.evaluate(() => {
    const seen = window as unknown as { shift: number };
    seen.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) seen.shift += (entry as unknown as { value: number }).value;
    }).observe({ type: "layout-shift" });
  });
  for (let polls = 0; polls < 2; polls++) await page.waitForResponse((response) => response.url().includes("/cluster/partitions"));
  await cells.nth(3).hover();
  await expect(picture(page).getByRole("status")).toContainText("many partition 3");
  expect(await shift()).toBe(0);

  await picture(page).getByRole("button", { name: "Next" }).click();
  await picture(page).getByRole("button", { name: "Next" }).click();
  await expect(picture(page).getByText("1,001–1,200 of 1,200")).toBeVisible();
  await expect(cells).toHaveCount(200);
  await expect(picture(page).getByRole("button", { name: "Next" })).toBeDisabled();
  await picture(page).getByRole("button", { name: "Previous" }).click();
  await expect(picture(page).getByText("501–1,000 of 1,200")).toBeVisible();

  await page.goto(`${node.url}/topics/many`);
  await page.getByRole("button", { name: "Partitions" }).click();
  await expect(page.getByText("1–100 of 1,200")).toBeVisible();
  await expect(page.getByRole("row")).toHaveCount(101);
  await node.call("DELETE", "/topics/many");
});

test("a node that is killed is shown, with what it leaves behind, and so is its return", async ({ page, three }) => {
  const { node } = three;
  const topic = { name: "shared", partitions: 6, replication_factor: 3, configs: { "min.insync.replicas": "2" } };
  await expect.poll(async () => (await node.call("GET", "/cluster/health")) as { state: string }).toMatchObject({ state: "healthy", nodes: { active: 3 } });
  await node.call("POST", "/topics", topic);
  await node.call("POST", "/topics/shared/records", { records: [{ partition: 0, value: { utf8: "a" } }] });
  await page.goto(`${node.url}/cluster`);
  await expect(card(page, 3).getByText("active")).toBeVisible();
  await expect(card(page, 3).getByText("rack rack-3")).toBeVisible();
  await expect(picture(page).getByRole("gridcell", { name: /: healthy;/ })).toHaveCount(6);
  await expect(page.getByRole("region", { name: "Quorum" }).getByRole("row", { name: /^3 observer/ })).toBeVisible();

  await three.kill(3);
  await expect(card(page, 3).getByText("fenced")).toBeVisible();
  await expect(page.getByText("degraded", { exact: true })).toBeVisible();
  await expect(tile(page, "Under-replicated")).toContainText("6");
  await expect(picture(page).getByRole("gridcell", { name: /: under-replicated;.*node 3 out of sync/ })).toHaveCount(6);
  await tile(page, "Under-replicated").click();
  await expect(picture(page).getByText("1–6 of 6")).toBeVisible();

  await page.goto(`${node.url}/topics/shared`);
  await page.getByRole("button", { name: "Partitions" }).click();
  await expect(page.getByRole("row", { name: /^0 under-replicated/ })).toBeVisible();
  await expect(page.getByRole("cell", { name: /node 3 \d/ }).first()).toBeVisible();
  await expect(page.getByRole("link", { name: "ask node 2" }).first()).toBeVisible();

  await page.goto(`${node.url}/cluster`);
  await three.revive(3);
  await expect(card(page, 3).getByText("active")).toBeVisible();
  await expect(tile(page, "Under-replicated")).toContainText("0");
  await expect(picture(page).getByRole("gridcell", { name: /: healthy;/ })).toHaveCount(6);
});
