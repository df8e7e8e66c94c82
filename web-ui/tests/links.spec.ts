import { expect, test } from "./node";

test("the overview shows the node, and every page can be reached", async ({ page, node }) => {
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(node.url);
  await expect(page.getByText("Records in")).toBeVisible();
  for (const name of ["Cluster", "Topics", "Groups", "Modules", "Transforms", "Links", "Overview"]) {
    await page.getByRole("navigation").getByRole("link", { name }).click();
    await expect(page.getByRole("navigation").getByRole("link", { name })).toHaveAttribute("aria-current", "page");
  }
  await page.goto(`${node.url}/no/such/page`);
  await expect(page.getByText("Nothing here")).toBeVisible();
  expect(errors).toEqual([]);
});

test("a site is invited with a token, and revoked", async ({ page, node }) => {
  await page.goto(`${node.url}/links`);
  await page.getByLabel("Site name").fill("harbour");
  await page.getByRole("button", { name: "Invite site" }).click();
  await expect(page.getByText(/headwater site enrol hwt_/)).toBeVisible();
  const row = page.getByRole("row", { name: /^harbour/ });
  await expect(row.getByText("invited")).toBeVisible();
  await row.getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await expect(row.getByText("revoked")).toBeVisible();
});

test("a token that is none is refused", async ({ page, node }) => {
  await page.goto(`${node.url}/links`);
  await page.getByLabel("Token").fill("not a token");
  await page.getByRole("button", { name: "Enrol this node" }).click();
  await expect(page.getByRole("alert")).toContainText("token");
});
