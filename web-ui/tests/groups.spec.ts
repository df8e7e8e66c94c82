import { expect, test } from "./node";

test("a group is seen while it reads, and set back, tried first, when it does not", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "orders", partitions: 2, configs: {} });
  const record = (n: number) => ({ partition: n % 2, value: { utf8: String(n) } });
  await node.call("POST", "/topics/orders/records", { records: [...Array(10).keys()].map(record) });
  const member = node.client("consume", "orders", "--group", "billing");

  await page.goto(`${node.url}/groups`);
  const row = page.getByRole("row", { name: /^billing/ });
  await expect(row.getByText("stable")).toBeVisible();
  await row.getByRole("link", { name: "billing" }).click();
  await expect(page.getByRole("heading", { name: "billing" })).toBeVisible();
  await expect(page.getByText("assigned by cooperative-sticky")).toBeVisible();
  const members = page.getByRole("region", { name: "Members" });
  await expect(members.getByText("127.0.0.1")).toBeVisible();
  await expect(page.getByText("stop its consumers first")).toBeVisible();
  await expect(page.getByRole("button", { name: "Delete group" })).toHaveCount(0);

  // It commits what it has printed, and leaves.
  await member.end();
  await expect(page.getByText("empty", { exact: true })).toBeVisible();
  await expect(page.getByText("0 records behind")).toBeVisible();
  await node.call("POST", "/topics/orders/records", { records: [record(0), record(2)] });
  await expect(page.getByText("2 records behind")).toBeVisible();

  await page.getByLabel("Where").selectOption("by");
  await page.getByRole("textbox", { name: "Records" }).fill("-2");
  await page.getByRole("button", { name: "Try" }).click();
  const wouldBe = page.getByRole("table", { name: "What would be set" }).getByRole("row");
  await expect(wouldBe.nth(1).getByRole("cell")).toHaveText(["orders", "0", "5", "3"]);
  await expect(page.getByText("2 records behind")).toBeVisible();
  // What is changed after the trial has to be tried anew.
  await page.getByRole("textbox", { name: "Records" }).fill("-5");
  await expect(page.getByRole("button", { name: "Set offsets" })).toHaveCount(0);
  await page.getByRole("button", { name: "Try" }).click();
  await page.getByRole("button", { name: "Set offsets" }).click();
  await expect(page.getByRole("table", { name: "What was set" })).toBeVisible();
  await expect(page.getByText("12 records behind")).toBeVisible();

  await page.getByRole("textbox", { name: "Topic" }).fill("no-such");
  await page.getByRole("button", { name: "Try" }).click();
  await expect(page.getByRole("alert")).toContainText("no-such");

  await page.getByRole("button", { name: "Delete group" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete group" }).click();
  await expect(page).toHaveURL(/\/groups$/);
  await expect(page.getByText("No group yet")).toBeVisible();
});
