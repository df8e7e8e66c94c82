import { expect, test } from "./node";

test("a topic is made, its records are followed live, sought and shown as JSON and hex", async ({ page, node }) => {
  await page.goto(node.url);
  await page.getByRole("navigation").getByRole("link", { name: "Topics" }).click();
  await page.getByRole("button", { name: "New topic" }).click();
  await page.getByLabel("Name").fill("sensors");
  await page.getByLabel("Partitions").fill("2");
  await page.getByRole("button", { name: "Create topic" }).click();
  await expect(page.getByRole("heading", { name: "sensors" })).toBeVisible();
  await expect(page.getByText("live", { exact: true })).toBeVisible();

  const record = (n: number) => ({ partition: 1, key: { utf8: `k${n}` }, value: { utf8: `{"celsius":${n}}` } });
  await node.call("POST", "/topics/sensors/records", { records: [1, 2, 3].map(record) });
  await expect(page.getByText('{"celsius":3}')).toBeVisible();
  await expect(page.getByText("3 new")).toBeVisible();

  await page.getByRole("button", { name: "Pause" }).click();
  await node.call("POST", "/topics/sensors/records", { records: [record(4)] });
  await expect(page.getByText("paused")).toBeVisible();
  await expect(page.getByText('{"celsius":4}')).toHaveCount(0);

  await page.getByLabel("Partition").selectOption("1");
  await page.getByLabel("Offset").fill("3");
  await page.getByRole("button", { name: "Seek" }).click();
  await expect(page.getByText('{"celsius":4}')).toBeVisible();
  await page.getByRole("button", { name: "3", exact: true }).click();
  await expect(page.getByText('"celsius": 4')).toBeVisible();
  await page.getByLabel("Show values as").selectOption("hex");
  await expect(page.getByText("7b 22 63 65 6c 73 69 75 73")).toBeVisible();
});

test("a property is changed, and a wrong value is refused with its reason", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "kept", partitions: 1, configs: {} });
  await page.goto(`${node.url}/topics/kept`);
  await page.getByRole("button", { name: "Configuration" }).click();
  const row = page.getByRole("row").filter({ has: page.getByText("retention.ms", { exact: true }) });
  await row.getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("retention.ms", { exact: true }).fill("soon");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("alert")).toContainText("retention.ms");
  await page.getByLabel("retention.ms", { exact: true }).fill("60000");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(row.getByText("60000")).toBeVisible();
});

test("a topic is deleted only after a question", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "doomed", partitions: 1, configs: {} });
  await page.goto(`${node.url}/topics/doomed`);
  await page.getByRole("button", { name: "Delete topic" }).click();
  await page.getByRole("button", { name: "Keep it" }).click();
  await expect(page.getByRole("heading", { name: "doomed" })).toBeVisible();
  await page.getByRole("button", { name: "Delete topic" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete topic" }).click();
  await expect(page).toHaveURL(/\/topics$/);
  await expect(page.getByRole("link", { name: "doomed" })).toHaveCount(0);
});

test("an idle topic shows what it has; a filter searches page by page", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "idle", partitions: 1, configs: {} });
  const records = Array.from({ length: 150 }, (_, n) => ({ value: { utf8: n === 140 ? "a needle" : `straw ${n}` } }));
  await node.call("POST", "/topics/idle/records", { records });
  await page.goto(`${node.url}/topics/idle`);
  await expect(page.getByText("straw 149")).toBeVisible();
  await expect(page.getByText("0 new")).toBeVisible();

  await page.getByLabel("Only records containing").fill("needle");
  await page.getByRole("button", { name: "From the start" }).click();
  await expect(page.getByText("a needle")).toBeVisible();
  await expect(page.getByText("straw")).toHaveCount(0);
  await page.getByLabel("Only records containing").fill("thread");
  await page.getByLabel("Only records containing").press("Enter");
  await expect(page.getByText("No record here contains that.")).toBeVisible();

  await page.getByLabel("Only records containing").fill("");
  await page.getByRole("button", { name: "From the start" }).click();
  await page.getByRole("button", { name: "Go on at 100" }).click();
  await expect(page.getByText("straw 100")).toBeVisible();
});

test("what is not there says so, and offers nothing", async ({ page, node }) => {
  await page.goto(`${node.url}/topics/absent`);
  await expect(page.getByRole("alert")).toContainText("not known");
  await expect(page.getByRole("button", { name: "Delete topic" })).toHaveCount(0);
});
