import { ALICE, BOB, expect, Tab, test } from "./fixtures.ts";

const NOTES = "SELECT tenant_id, title FROM notes.public.notes ORDER BY id";

test("two tabs of two tenants show disjoint rows", { tag: ["@isolation", "@query"] }, async ({
  context,
  server,
}) => {
  const tabs = [await Tab.open(context, server), await Tab.open(context, server)] as const;
  await tabs[0].bind(ALICE);
  await tabs[1].bind(BOB);
  await tabs[0].ran("CREATE TABLE secrets (word VARCHAR)");
  // At the same time.
  await Promise.all(tabs.map((tab) => tab.ran(NOTES)));
  for (const [tab, own, other, mine, theirs] of [
    [tabs[0], ALICE, BOB, "Alice's groceries", "Bob's"],
    [tabs[1], BOB, ALICE, "Bob's groceries", "Alice's"],
  ] as const) {
    await expect(tab.cell("Welcome to Jammi")).toBeVisible();
    await expect(tab.cell(mine)).toBeVisible();
    await expect(tab.cell(own).first()).toBeVisible();
    await expect(tab.grid).not.toContainText(theirs);
    await expect(tab.grid).not.toContainText(other);
    await expect(tab.page).toHaveTitle(`${own.slice(0, 8)}… · Jammi`);
    await expect(tab.page.locator("body")).not.toContainText(other);
  }
  await expect(tabs[0].catalog.getByText("secrets")).toBeVisible();
  await tabs[1].page.getByRole("button", { name: "Read the catalog again" }).click();
  await expect(tabs[1].catalog.getByText("notes")).toBeVisible();
  await expect(tabs[1].catalog).not.toContainText("secrets");
  await tabs[1].run("SELECT * FROM secrets");
  await expect(tabs[1].page.getByRole("alert").filter({ hasText: "secrets" })).toBeVisible();
  await tabs[0].ran("DROP TABLE secrets");
  await expect(tabs[0].catalog).not.toContainText("secrets");
});

test("rows of the tenant before are gone with it", { tag: "@isolation" }, async ({ tab }) => {
  await tab.bind(ALICE);
  await tab.ran(NOTES);
  await expect(tab.cell("Alice's groceries")).toBeVisible();
  await tab.bind(BOB);
  await expect(tab.page.locator("body")).not.toContainText("Alice's");
  await tab.page.getByRole("button", { name: "Unbind" }).click();
  await expect(tab.page.getByText("No tenant: shared rows only")).toBeVisible();
  await tab.ran(NOTES);
  await expect(tab.cell("Welcome to Jammi")).toBeVisible();
  await expect(tab.grid).not.toContainText("Alice's");
  await expect(tab.grid).not.toContainText("Bob's");
});

test("a statement that binds is told by the bar, and rows of the tenant before are gone", {
  tag: ["@session", "@isolation"],
}, async ({ tab }) => {
  await tab.bind(ALICE);
  await tab.ran(NOTES);
  await expect(tab.cell("Alice's groceries")).toBeVisible();
  await tab.run(`-- another\nSET app.current_tenant_id = '${BOB}'`);
  await expect(tab.page).toHaveTitle(`${BOB.slice(0, 8)}… · Jammi`);
  await expect(tab.page.getByLabel("Tenant")).toHaveValue(BOB);
  await expect(tab.page.locator("body")).not.toContainText("Alice's");
  await tab.ran(NOTES);
  await expect(tab.cell("Bob's groceries")).toBeVisible();
  await expect(tab.grid).not.toContainText("Alice's");
  await tab.run("RESET app.current_tenant_id");
  await expect(tab.page.getByText("No tenant: shared rows only")).toBeVisible();
  await tab.ran(NOTES);
  await expect(tab.grid).not.toContainText("Bob's");
});

test("a statement of the tenant before ends with it", { tag: "@isolation" }, async ({ tab, server }) => {
  await tab.bind(ALICE);
  await tab.run("SELECT value FROM generate_series(1, 1000000000000)");
  await expect(tab.grid.getByRole("gridcell").first()).toBeVisible();
  await tab.bind(BOB);
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
  await expect(tab.page.getByText("Run a statement to see its rows.")).toBeVisible();
  await expect(tab.grid).toHaveCount(0);
  await expect(tab.status).toBeEmpty();
  await expect(tab.page.getByRole("button", { name: "Cancel" })).toBeDisabled();
  await tab.ran(NOTES);
  await expect(tab.cell("Bob's groceries")).toBeVisible();
  await expect(tab.grid).not.toContainText("Alice's");
});

test("a tab keeps its tenant over a reload, and a copy of it is a session of its own", {
  tag: "@session",
}, async ({ tab, context, server }) => {
  await tab.bind(ALICE);
  await tab.page.reload();
  await expect(tab.page.getByText("Bound: own and shared rows")).toBeVisible();
  await tab.ran(NOTES);
  await expect(tab.cell("Alice's groceries")).toBeVisible();
  const other = await Tab.open(context, server);
  await expect(other.page.getByText("No tenant: shared rows only")).toBeVisible();
  await other.page.evaluate((tenant) => sessionStorage.setItem("jammi-tenant", tenant), ALICE);
  await other.page.reload();
  await expect(other.page.getByText("Bound: own and shared rows")).toBeVisible();
  await other.bind(BOB);
  await tab.ran(NOTES);
  await expect(tab.cell("Alice's groceries")).toBeVisible();
  await expect(tab.grid).not.toContainText("Bob's");
});

test("a session ends with its page", { tag: "@session" }, async ({ context, server }) => {
  const tab = await Tab.open(context, server);
  const before = await server.metric("jammi_sessions_bound");
  await tab.bind(ALICE);
  await expect.poll(() => server.metric("jammi_sessions_bound")).toBe(before + 1);
  await tab.page.close({ runBeforeUnload: true });
  await expect.poll(() => server.metric("jammi_sessions_bound")).toBe(before);
});

test("a tenant that is no UUID is told beside the field", { tag: "@errors" }, async ({ context, server }) => {
  const tab = await Tab.open(context, server);
  await tab.page.getByLabel("Tenant").fill("alice");
  await tab.page.keyboard.press("Enter");
  await expect(tab.page.getByRole("alert")).toContainText("hyphenated UUID");
  await expect(tab.page.getByLabel("Tenant")).toBeFocused();
  await expect(tab.page.getByText("No tenant: shared rows only")).toBeVisible();
});
