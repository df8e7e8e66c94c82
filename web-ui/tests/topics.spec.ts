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
  await expect(page.getByText("3 records")).toBeVisible();

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
  await page.getByRole("tab", { name: "Configuration" }).click();
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
