import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "./node";

const pages = ["/", "/cluster", "/cluster/under-replicated", "/topics", "/topics/looked-at", "/groups", "/groups/looked-at", "/modules", "/transforms", "/transforms/new", "/links"];

test("a node that stops is missed on every page, and found again without a click", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "outlived", partitions: 1, configs: {} });
  await page.goto(`${node.url}/topics/outlived`);
  await expect(page.getByText("live", { exact: true })).toBeVisible();

  await node.stop();
  await expect(page.getByText("node not reached")).toBeVisible();
  await expect(page.getByText("reconnecting")).toBeVisible();
  await expect(page.getByRole("alert")).toContainText("The node does not answer.");

  await node.start();
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  await expect(page.getByText("node not reached")).toHaveCount(0);
  await expect(page.getByRole("alert")).toHaveCount(0);
  await node.call("POST", "/topics/outlived/records", { records: [{ value: { utf8: "after the pause" } }] });
  await expect(page.getByText("after the pause")).toBeVisible();
});

for (const scheme of ["light", "dark"] as const) {
  test(`pages can be read by everybody, ${scheme}`, async ({ page, node }) => {
    await page.emulateMedia({ colorScheme: scheme });
    await lookedAt(node);
    for (const path of pages) {
      await page.goto(node.url + path);
      await expect(page.getByRole("banner").getByText("node 1", { exact: true })).toBeVisible();
      await expect(page.getByText("Loading…")).toHaveCount(0);
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map(({ id, nodes }) => [path, id, nodes.map(({ target }) => target)])).toEqual([]);
    }
  });
}

test("no page is wider than a phone", async ({ page, node }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await lookedAt(node);
  for (const path of pages) {
    await page.goto(node.url + path);
    await expect(page.getByRole("banner").getByText("node 1", { exact: true })).toBeVisible();
    await expect(page.getByText("Loading…")).toHaveCount(0);
    expect(await page.evaluate(() => document.documentElement.scrollWidth), path).toBeLessThanOrEqual(360);
  }
});

test("an address that is no encoding is no page", async ({ page, node }) => {
  await page.goto(`${node.url}/%zz`);
  await expect(page.getByText("Nothing here")).toBeVisible();
});

async function lookedAt(node: { call(method: string, path: string, body?: unknown): Promise<unknown> }) {
  const body = { name: "looked-at", partitions: 3, configs: { "cleanup.policy": "compact" } };
  await node.call("POST", "/topics", body).catch(() => undefined);
  const records = [{ key: { utf8: "k" }, value: { utf8: '{"a":1}' }, partition: 1 }];
  await node.call("POST", "/topics/looked-at/records", { records });
  await node.call("POST", "/groups/looked-at/offsets", { to: "earliest", topics: [{ topic: "looked-at" }] });
}
