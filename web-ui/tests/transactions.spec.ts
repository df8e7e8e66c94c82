import { expect, test } from "./node";

test("transactions have a page, which says where there is none", async ({ page, node }) => {
  await page.goto(`${node.url}/`);
  await page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name: "Transactions" }).click();
  await expect(page.getByRole("heading", { name: "Transactions" })).toBeVisible();
  await expect(page.getByText("No transaction yet")).toBeVisible();
  await page.getByLabel("State").selectOption("ongoing");
  await expect(page.getByText("None is in this state.")).toBeVisible();
  const hanging = page.getByRole("region", { name: "Hanging transactions" });
  await expect(hanging.getByText("Nothing hangs.")).toBeVisible();
});
