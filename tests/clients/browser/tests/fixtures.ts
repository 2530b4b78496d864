import { randomUUID } from "node:crypto";
import { test as base, expect, type Page } from "@playwright/test";
import { Server } from "../serving.ts";

export { expect };

/** The tenants of the sample. */
export const ALICE = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
export const BOB = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

/** What a test gives a page to make a client of. */
export interface Session {
  url: string;
  session: string;
}

interface Fixtures {
  /** A session that no other test has. */
  session: Session;
  /** A page that may call, with `window.jammi`. */
  tab: Page;
}

interface WorkerFixtures {
  /** The origin of the pages that may call. */
  origin: string;
  server: Server;
}

export function newSession(server: Server): Session {
  return { url: server.url, session: `tab-${randomUUID()}` };
}

export const test = base.extend<Fixtures, WorkerFixtures>({
  origin: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright wants a pattern here.
    async ({}, use) => {
      await use(process.env.PAGE_ORIGIN ?? "");
    },
    { scope: "worker" },
  ],
  server: [
    async ({ origin }, use) => {
      const server = await Server.start({
        JAMMI_SERVER__ALLOWED_ORIGINS: origin,
        // So that a test sees when a statement of a tenant holds its only thread.
        JAMMI_ENGINE__TENANT_THREADS_MAX: "1",
      });
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
  session: async ({ server }, use) => {
    await use(newSession(server));
  },
  tab: async ({ page, origin }, use) => {
    await page.goto(origin);
    await use(page);
  },
});
