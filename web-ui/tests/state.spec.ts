import { expect, test } from "./node";

test("what a module keeps by key is shown, and found by a prefix", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "clicks", partitions: 1, configs: {} });
  const dedup = async () => ((await node.call("GET", "/modules")) as { name: string; version: string }[]).find((it) => it.name === "dedup");
  await expect.poll(dedup).toBeDefined();
  const version = (await dedup())!.version;
  const spec = { name: "once", module: { name: "dedup", version }, params: { ttl: "1h" }, source: "clicks", sinks: ["clicks.once"] };
  await node.call("POST", "/transforms", spec);

  await page.goto(`${node.url}/transforms/once`);
  await page.getByRole("button", { name: "State" }).click();
  await expect(page.getByText("The module keeps nothing on this partition.")).toBeVisible();
  const keys = ["anna", "bert", "anna"];
  await node.call("POST", "/topics/clicks/records", { records: keys.map((utf8) => ({ key: { utf8 }, value: { utf8: "{}" } })) });
  await expect(async () => {
    await page.getByRole("button", { name: "Refresh" }).click();
    await expect(page.getByText("before offset 3 of the source")).toBeVisible({ timeout: 500 });
  }).toPass();
  await expect(page.getByRole("row")).toHaveCount(3);
  await page.getByLabel("Keys that begin with").fill("be");
  await expect(page.getByRole("row")).toHaveCount(2);
  await expect(page.getByRole("cell", { name: "bert", exact: true })).toBeVisible();
  await page.getByLabel("Keys that begin with").fill("c");
  await expect(page.getByText("No key begins so.")).toBeVisible();
});
