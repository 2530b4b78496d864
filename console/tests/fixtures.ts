// The console as people use it: in Chromium, from the port that a real server serves it on.
import { type BrowserContext, test as base, expect, type Locator, type Page } from "@playwright/test";
import { Server } from "../../tests/clients/browser/serving.ts";

export { expect, Server };

/** The tenants of the sample. */
export const ALICE = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
export const BOB = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

/** A tab with the console. */
export class Tab {
  readonly grid: Locator;
  readonly status: Locator;
  readonly catalog: Locator;
  readonly sql: Locator;
  /** What the page was refused or asked of others. */
  readonly faults: string[] = [];

  private constructor(
    readonly page: Page,
    server: Server,
  ) {
    this.grid = page.getByRole("grid");
    this.status = page.locator(".run-status");
    this.catalog = page.getByRole("navigation", { name: "Catalog" });
    this.sql = page.getByRole("textbox", { name: "SQL" });
    page.on("pageerror", (error) => this.faults.push(error.message));
    page.on("console", (message) => {
      // Where text replaces text, Chromium itself writes a style attribute into the editor, for which the policy
      // has no exception; CodeMirror takes it out again.
      if (message.type() === "error" && !message.text().startsWith("Applying inline style")) {
        this.faults.push(message.text());
      }
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(server.url) && !request.url().startsWith(server.http)) {
        this.faults.push(request.url());
      }
    });
  }

  static async open(context: BrowserContext, server: Server): Promise<Tab> {
    const tab = new Tab(await context.newPage(), server);
    await tab.page.goto(`${server.http}/console/`);
    await expect(tab.catalog.getByText("notes")).toBeVisible();
    return tab;
  }

  async bind(tenant: string): Promise<void> {
    await this.page.getByLabel("Tenant").fill(tenant);
    await this.page.getByRole("button", { name: "Bind", exact: true }).click();
    await expect(this.page.getByText("Bound: own and shared rows")).toBeVisible();
  }

  async write(sql: string): Promise<void> {
    await this.sql.focus();
    await this.page.keyboard.press("ControlOrMeta+a");
    await this.page.keyboard.insertText(sql);
    // A list of completions would take the next Escape.
    await this.page.keyboard.press("Escape");
  }

  async run(sql: string): Promise<void> {
    await this.write(sql);
    await this.page.keyboard.press("ControlOrMeta+Enter");
  }

  /** Runs a statement to its end. */
  async ran(sql: string): Promise<void> {
    await this.run(sql);
    await expect(this.status).toHaveText(/ s$/);
    await expect(this.page.getByRole("button", { name: "Run", exact: true })).toBeVisible();
  }

  cell(text: string): Locator {
    return this.grid.getByRole("gridcell", { name: text, exact: true });
  }
}

interface WorkerFixtures {
  server: Server;
}

export const test = base.extend<{ tab: Tab }, WorkerFixtures>({
  server: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright wants a pattern here.
    async ({}, use) => {
      const server = await Server.start({ JAMMI_CONSOLE__ENABLED: "true" });
      await use(server);
      for (const gauge of [
        "jammi_requests_active",
        "jammi_queries_running",
        "jammi_queries_polled",
        "jammi_transactions",
        "jammi_panics_total",
      ]) {
        await expect.poll(() => server.metric(gauge), { message: gauge }).toBe(0);
      }
      await server.stop();
    },
    { scope: "worker" },
  ],
  tab: async ({ context, server }, use) => {
    const tab = await Tab.open(context, server);
    await use(tab);
    expect(tab.faults).toEqual([]);
  },
});
