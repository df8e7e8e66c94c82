import { expect, test } from "./node";

test("transactions have a page, which says what it does not find", async ({ page, node }) => {
  await page.goto(`${node.url}/`);
  await page.getByRole("navigation", { name: "Sections" }).getByRole("link", { name: "Transactions" }).click();
  await expect(page.getByRole("heading", { name: "Transactions" })).toBeVisible();
  // There may be those of transforms, which are open for a moment only.
  await page.getByLabel("State").selectOption("ongoing");
  await expect(page.getByText("None is in this state.")).toBeVisible();
  const hanging = page.getByRole("region", { name: "Hanging transactions" });
  await expect(hanging.getByText("Nothing hangs.")).toBeVisible();
});
