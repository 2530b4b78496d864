// Pages that sign in, over plain connections and encrypted ones.
import { type Browser, chromium } from "@playwright/test";
import { Certificates } from "../certificates.ts";
import { jammi, Server } from "../serving.ts";
import { ALICE, BOB, expect, newSession, test } from "./fixtures.ts";

const PERMISSION_DENIED = 7;
const UNAUTHENTICATED = 16;
const NOT_ACCEPTED = "the request's credential is not accepted: send a valid one";

/** A server that asks for keys, and one of each of the two tenants. */
async function guarded(origin: string, more: Record<string, string> = {}) {
  const server = await Server.start({
    JAMMI_SERVER__ALLOWED_ORIGINS: origin,
    JAMMI_AUTH__METHODS: "api_key",
    ...more,
  });
  const key = (tenant: string) =>
    jammi("keys", "create", "someone", "--acts-for", tenant, "--artifact-dir", server.data).trim();
  return { server, keys: { [ALICE]: key(ALICE), [BOB]: key(BOB) } as Record<string, string> };
}

/** Two tabs of two tenants write and read their own, and wrong keys nothing. */
async function signIn(browser: Browser, origin: string, server: Server, keys: Record<string, string>) {
  const context = await browser.newContext();
  for (const tenant of [ALICE, BOB]) {
    const tab = await context.newPage();
    await tab.goto(origin);
    const as = { ...newSession(server), key: keys[tenant], tenant, other: tenant === ALICE ? BOB : ALICE };
    const found = await tab.evaluate(async ({ url, session, key, tenant, other }) => {
      const client = new window.jammi.Client(url, session, key);
      await client.rows("CREATE TABLE words (word VARCHAR)");
      await client.rows(`INSERT INTO words VALUES ('of ${tenant}')`);
      const titles = await client.rows("SELECT title FROM notes.public.notes ORDER BY id");
      return {
        bound: await client.bound(),
        words: await client.rows("SELECT word FROM words"),
        titles: titles.map((row) => String(row.title)).join("\n"),
        denied: await client.bind(other).catch(window.jammi.failure),
      };
    }, as);
    // Without being asked for it.
    expect(found.bound).toBe(tenant);
    expect(found.words).toEqual([{ word: `of ${tenant}` }]);
    expect(found.titles).toContain(tenant === ALICE ? "Alice's" : "Bob's");
    expect(found.titles).not.toContain(tenant === ALICE ? "Bob's" : "Alice's");
    expect(found.denied).toEqual({
      code: PERMISSION_DENIED,
      text: "the credential does not act for the tenant: bind one that it acts for",
    });
    for (const key of [undefined, "jammi_0", `${keys[BOB]}x`, "none"]) {
      const refused = await tab.evaluate(
        ({ url, session, key }) =>
          new window.jammi.Client(url, session, key)
            .rows("SELECT word FROM words")
            .catch(window.jammi.failure),
        { ...newSession(server), key },
      );
      const absent = "the request carries no credential: send one in its metadata `authorization`";
      expect(refused).toEqual({ code: UNAUTHENTICATED, text: key === undefined ? absent : NOT_ACCEPTED });
    }
    await tab.close();
  }
  await context.close();
}

test("two tenants' pages sign in by keys", { tag: ["@token", "@isolation"] }, async ({ browser, origin }) => {
  const { server, keys } = await guarded(origin);
  await signIn(browser, origin, server, keys);
  await server.stop();
});

test("two tenants' pages sign in over TLS", { tag: ["@token", "@encryption"] }, async ({
  browser,
  origin,
}) => {
  const certificates = new Certificates();
  const { server, keys } = await guarded(origin, certificates.settings());
  const trusting = await chromium.launch(certificates.trusted());
  await signIn(trusting, origin, server, keys);
  await trusting.close();
  // One that does not know the root sends nothing.
  const tab = await browser.newPage();
  await tab.goto(origin);
  const refused = await tab.evaluate(
    ({ url, session, key }) => new window.jammi.Client(url, session, key).bound().catch(window.jammi.failure),
    { ...newSession(server), key: keys[ALICE] },
  );
  expect(refused).toMatchObject({ text: "Failed to fetch" });
  await server.stop();
  certificates.remove();
});
