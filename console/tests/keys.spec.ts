// Signing in, where the server asks for keys.
import { type BrowserContext, chromium } from "@playwright/test";
import { Certificates } from "../../tests/clients/browser/certificates.ts";
import { jammi } from "../../tests/clients/browser/serving.ts";
import { ALICE, BOB, expect, Server, test } from "./fixtures.ts";

const NOTES = "SELECT title FROM notes.public.notes ORDER BY id";

/** A server that asks for keys, and one of each of two tenants. */
async function guarded(more: Record<string, string> = {}) {
  const server = await Server.start({
    JAMMI_CONSOLE__ENABLED: "true",
    JAMMI_AUTH__METHODS: "api_key",
    ...more,
  });
  const keys = Object.fromEntries(
    [ALICE, BOB].map((tenant) => {
      const made = jammi("keys", "create", "someone", "--acts-for", tenant, "--artifact-dir", server.data);
      return [tenant, made.trim()];
    }),
  );
  return { server, keys };
}

async function signIn(context: BrowserContext, server: Server, keys: Record<string, string>) {
  for (const [tenant, mine, theirs] of [
    [ALICE, "Alice's groceries", "Bob's"],
    [BOB, "Bob's groceries", "Alice's"],
  ] as const) {
    const page = await context.newPage();
    await page.goto(`${server.http}/console/`);
    const key = page.getByLabel("API key");
    await expect(key).toBeFocused();
    await expect(page.getByRole("navigation", { name: "Catalog" })).not.toContainText("notes");
    await key.fill("jammi_0");
    await key.press("Enter");
    await expect(page.getByRole("navigation", { name: "Catalog" })).toContainText("not accepted");
    await key.fill(keys[tenant] ?? "");
    await key.press("Enter");
    await expect(key).toBeHidden();
    // Without being asked for it.
    await expect(page.getByLabel("Tenant")).toHaveValue(tenant);
    await expect(page.getByRole("navigation", { name: "Catalog" })).toContainText("notes");
    await page.getByRole("textbox", { name: "SQL" }).focus();
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.insertText(NOTES);
    await page.keyboard.press("ControlOrMeta+Enter");
    const grid = page.getByRole("grid");
    await expect(grid.getByRole("gridcell", { name: mine, exact: true })).toBeVisible();
    await expect(grid).not.toContainText(theirs);
    // To another it cannot be bound.
    await page.getByLabel("Tenant").fill(tenant === ALICE ? BOB : ALICE);
    await page.getByRole("button", { name: "Bind", exact: true }).click();
    await expect(page.getByRole("alert").filter({ hasText: "does not act for the tenant" })).toBeVisible();
    // The key is in nothing that outlives the page.
    const kept = await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }));
    expect(kept).not.toContain("jammi_0");
    expect(kept).not.toContain(keys[tenant]);
    await page.close();
  }
}

test("a page acts for the tenant of the key that is typed into it", {
  tag: ["@token", "@isolation"],
}, async ({ context }) => {
  const { server, keys } = await guarded();
  await signIn(context, server, keys);
  await server.stop();
});

test("over TLS too, where both ports are encrypted", {
  tag: ["@token", "@encryption", "@isolation"],
}, async () => {
  const certificates = new Certificates();
  const { server, keys } = await guarded(certificates.settings());
  expect(server.http).toMatch(/^https:/);
  const browser = await chromium.launch(certificates.trusted());
  const context = await browser.newContext();
  await signIn(context, server, keys);
  await browser.close();
  await server.stop();
  certificates.remove();
});
