import { ALICE, BOB, expect, newSession, test } from "./fixtures.ts";

test("a page reaches the server", { tag: "@connect" }, async ({ tab, session }) => {
  const info = await tab.evaluate(async ({ url }) => {
    const [name] = await new window.jammi.Client(url, undefined).sqlInfo([0]);
    return String(name?.value);
  }, session);
  expect(info).toMatch(/jammi/i);
});

test("a session is bound, rebound and unbound", { tag: "@session" }, async ({ tab, session }) => {
  const seen = await tab.evaluate(
    async ({ url, session, alice, bob }) => {
      const client = new window.jammi.Client(url, session);
      const seen = [await client.bound()];
      seen.push(await client.bind(alice.toUpperCase()), await client.bound());
      seen.push(await client.bind(bob), await client.bound());
      await client.sessions.clearTenant({});
      seen.push(await client.bound());
      return seen;
    },
    { ...session, alice: ALICE, bob: BOB },
  );
  expect(seen).toEqual([undefined, ALICE, ALICE, BOB, BOB, undefined]);
});

test("two tabs of two tenants see disjoint rows", { tag: "@isolation" }, async ({
  context,
  origin,
  server,
}) => {
  const sql =
    "SELECT tenant_id, title FROM notes.public.notes WHERE tenant_id IS NOT NULL OR true ORDER BY id";
  const read = async (tenant: string) => {
    const tab = await context.newPage();
    await tab.goto(origin);
    const binding = { ...newSession(server), tenant };
    await tab.evaluate(async ({ url, session, tenant }) => {
      await new window.jammi.Client(url, session).bind(tenant);
    }, binding);
    return () =>
      tab.evaluate(({ url, session, sql }) => new window.jammi.Client(url, session).rows(sql), {
        ...binding,
        sql,
      });
  };
  const [alice, bob] = [await read(ALICE), await read(BOB)];
  // At the same time, since a tenant that is kept in the wrong place is mixed up only then.
  const answers = await Promise.all([alice(), bob(), alice(), bob()]);
  for (const [at, rows] of answers.entries()) {
    const [own, other] = at % 2 === 0 ? [ALICE, BOB] : [BOB, ALICE];
    const tenants = rows.map((row) => row.tenant_id);
    expect(tenants).toContain(own);
    expect(tenants).toContain(null);
    expect(tenants).not.toContain(other);
    const names = rows.map((row) => String(row.title)).join("\n");
    expect(names).toContain(at % 2 === 0 ? "Alice's" : "Bob's");
    expect(names).not.toContain(at % 2 === 0 ? "Bob's" : "Alice's");
  }
});

test("what one tab writes, another tenant's does not see", { tag: "@isolation" }, async ({ tab, server }) => {
  const [alice, bob] = [newSession(server), newSession(server)];
  const found = await tab.evaluate(
    async ({ alice, bob, tenants }) => {
      const [a, b] = [alice, bob].map(({ url, session }) => new window.jammi.Client(url, session));
      await a?.bind(tenants[0] ?? "");
      await b?.bind(tenants[1] ?? "");
      await a?.rows("CREATE TABLE secrets (id BIGINT PRIMARY KEY, word VARCHAR)");
      await a?.rows("INSERT INTO secrets VALUES (1, 'alice-only')");
      const own = await a?.rows("SELECT word FROM secrets");
      const error = await b?.rows("SELECT word FROM secrets").catch(window.jammi.failure);
      const never = await b?.rows("SELECT word FROM nobody_ever_made").catch(window.jammi.failure);
      const listed = (await b?.tables())?.map((row) => row.table_name);
      return { own, error, never, listed };
    },
    { alice, bob, tenants: [ALICE, BOB] },
  );
  expect(found.own).toEqual([{ word: "alice-only" }]);
  expect(found.listed).not.toContain("secrets");
  // The same as for a table that nobody ever had.
  const renamed = JSON.stringify(found.never).replaceAll("nobody_ever_made", "secrets");
  expect(JSON.stringify(found.error)).toBe(renamed);
});

test("a page of an origin that is not listed is refused", { tag: "@isolation" }, async ({
  page,
  origin,
  server,
}) => {
  const session = newSession(server);
  const bind = 'jammi_requests_total{method="/jammi.v1.session.SessionService/SetTenant",code="OK"}';
  const before = await server.metric(bind);
  // The same page by another name of the same machine is another origin.
  await page.goto(origin.replace("127.0.0.1", "localhost"));
  const refusal = await page.evaluate(
    ({ url, session, alice }) =>
      new window.jammi.Client(url, session).bind(alice).then(() => undefined, window.jammi.failure),
    { ...session, alice: ALICE },
  );
  expect(refusal?.text).toBe("Failed to fetch");
  await page.goto(origin);
  const bound = await page.evaluate(
    ({ url, session }) => new window.jammi.Client(url, session).bound(),
    session,
  );
  expect(bound).toBeUndefined();
  expect(await server.metric(bind)).toBe(before);
});
