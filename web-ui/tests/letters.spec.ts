import { expect, test } from "./node";

test("a dead letter is looked at, mended and written back; the rest at a rate", async ({ page, node }) => {
  await node.call("POST", "/topics", { name: "parcels", partitions: 1, configs: {} });
  const filter = async () => ((await node.call("GET", "/modules")) as { name: string; version: string }[]).find((it) => it.name === "filter");
  await expect.poll(filter).toBeDefined();
  const version = (await filter())!.version;
  const spec = { name: "heavy", module: { name: "filter", version }, params: { where: "weight > 15" }, source: "parcels", sinks: ["parcels.heavy"] };
  await node.call("POST", "/transforms", spec);
  const values = ["no JSON", '{"weight":40}', "nor this", "nor that"];
  await node.call("POST", "/topics/parcels/records", { records: values.map((utf8) => ({ value: { utf8 } })) });

  await page.goto(`${node.url}/transforms/heavy`);
  await page.getByRole("button", { name: "Dead letters" }).click();
  const groups = page.getByRole("region", { name: "Dead letters by reason" });
  await expect(groups.getByRole("row", { name: /rejected filter/ })).toContainText("3");
  const letters = page.getByRole("region", { name: "Letters", exact: true });
  await page.getByLabel("Reason", { exact: true }).selectOption("rejected");
  await letters.getByRole("button", { name: "0@0" }).click();
  const letter = page.getByRole("region", { name: "Letter 0@0" });
  await expect(letter.getByText("partition 0, offset 0")).toBeVisible();
  await expect(letter.getByText("no JSON", { exact: true })).toBeVisible();
  await letter.getByRole("button", { name: "Edit" }).click();
  await letter.getByLabel("Value", { exact: true }).fill('{"weight":50}');
  await letter.getByRole("button", { name: "Redrive as edited" }).click();
  await expect(letter.getByRole("status")).toContainText("Written to partition 0, offset 4 of parcels.");
  // What was typed stays.
  await expect(letter.getByRole("button", { name: "Redrive as edited again" })).toBeVisible();

  const redrive = page.getByRole("region", { name: "Redrive" });
  await redrive.getByRole("button", { name: "Try" }).click();
  await expect(redrive.getByText("done, dry run")).toBeVisible();
  await redrive.getByRole("button", { name: "Redrive all" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Redrive all" }).click();
  await expect(redrive.getByText("1 already-redriven")).toHaveCount(2);
  // They are as broken as before, and tell of it.
  await expect(letters.getByText(", after a redrive")).toHaveCount(2);
});
