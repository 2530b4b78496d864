import { ALICE, expect, test } from "./fixtures.ts";

/** More rows than are ever made: what is seen of it is seen before its end. */
const ENDLESS = "SELECT value FROM generate_series(1, 1000000000000)";
/** Computes without end before its first row. */
const SILENT =
  "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b";

test("a query answers rows, and an empty one its columns", { tag: "@query" }, async ({ tab, session }) => {
  const seen = await tab.evaluate(
    async ({ url, session, alice }) => {
      const client = new window.jammi.Client(url, session);
      await client.bind(alice);
      const rows = await client.rows("SELECT id, title FROM notes.public.notes WHERE id < 3 ORDER BY id");
      const columns: string[] = [];
      for await (const batch of client.stream("SELECT id, title FROM notes.public.notes WHERE false")) {
        columns.push(...batch.schema.names.map(String));
      }
      return { rows: rows.map(({ id, title }) => [Number(id), title]), columns };
    },
    { ...session, alice: ALICE },
  );
  expect(seen.rows).toHaveLength(2);
  expect(seen.rows[0]?.[0]).toBe(1);
});

test("rows appear before the end of a result", { tag: "@streaming" }, async ({ tab, session, server }) => {
  const seen = await tab.evaluate(
    async ({ url, session, sql }) => {
      const client = new window.jammi.Client(url, session);
      let [rows, batches] = [0, 0];
      for await (const batch of client.stream(sql)) {
        rows += batch.numRows;
        batches += 1;
        if (rows >= 100_000) {
          break;
        }
      }
      return { rows, batches };
    },
    { ...session, sql: ENDLESS },
  );
  expect(seen.rows).toBeGreaterThanOrEqual(100_000);
  expect(seen.batches).toBeGreaterThan(1);
  // A page that stops reading stops the work.
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
});

test("a million rows arrive whole", { tag: "@streaming" }, async ({ tab, session }) => {
  const seen = await tab.evaluate(async ({ url, session }) => {
    const client = new window.jammi.Client(url, session);
    let [rows, sum] = [0, 0n];
    for await (const batch of client.stream("SELECT value FROM generate_series(1, 1000000)")) {
      rows += batch.numRows;
      for (const value of batch.getChildAt(0) ?? []) {
        sum += value;
      }
    }
    return { rows, sum: String(sum) };
  }, session);
  expect(seen).toEqual({ rows: 1_000_000, sum: "500000500000" });
});

for (const [what, sql] of [
  ["that streams", ENDLESS],
  ["that computes", SILENT],
] as const) {
  test(`aborting a query ${what} stops the server's work`, { tag: "@cancel" }, async ({
    tab,
    session,
    server,
  }) => {
    await tab.evaluate(
      ({ url, session, alice, sql }) => {
        const client = new window.jammi.Client(url, session);
        const abort = new AbortController();
        const drain = async () => {
          await client.bind(alice);
          for await (const _ of client.stream(sql, { signal: abort.signal })) {
            // Read on, until it is aborted.
          }
        };
        Object.assign(window, { abort, ended: drain().catch(window.jammi.failure) });
      },
      { ...session, alice: ALICE, sql },
    );
    await expect.poll(() => server.metric("jammi_requests_active")).toBe(1);
    const ended = await tab.evaluate(async () => {
      const running = window as unknown as { abort: AbortController; ended: Promise<{ code: number }> };
      running.abort.abort();
      return running.ended;
    });
    expect(ended.code).toBe(1); // CANCELLED
    await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
    // The tenant's only thread is free again.
    const rows = await tab.evaluate(
      ({ url, session }) => new window.jammi.Client(url, session).rows("SELECT 1 AS one"),
      session,
    );
    expect(rows.map((row) => Number(row.one))).toEqual([1]);
  });
}

test("closing the page stops the server's work", { tag: "@cancel" }, async ({ tab, session, server }) => {
  await tab.evaluate(
    ({ url, session, sql }) => {
      const client = new window.jammi.Client(url, session);
      client.rows(sql).catch(window.jammi.failure);
    },
    { ...session, sql: SILENT },
  );
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(1);
  await tab.close();
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
});

for (const { what, sql, code, says } of [
  { what: "a table that is not there", sql: "SELECT * FROM nowhere", code: 5, says: "nowhere" },
  {
    what: "a column that is not there",
    sql: "SELECT tittle FROM notes.public.notes",
    code: 3,
    says: "title",
  },
  { what: "a syntax error", sql: "SELEC 1", code: 3, says: "SELEC" },
  {
    what: "letters beyond ASCII",
    sql: 'SELECT "größe → 大小" FROM notes.public.notes',
    code: 3,
    says: "größe → 大小",
  },
  {
    what: "a row that fails midway",
    sql: "SELECT 1 / (value - 500000) FROM generate_series(1, 1000000)",
    code: 3,
    says: "division by zero",
  },
]) {
  test(`an error is readable: ${what}`, { tag: "@errors" }, async ({ tab, session }) => {
    const error = await tab.evaluate(
      ({ url, session, sql }) =>
        new window.jammi.Client(url, session).rows(sql).then(() => undefined, window.jammi.failure),
      { ...session, sql },
    );
    expect(error?.text).toContain(says);
    expect(error?.code).toBe(code);
    expect(error?.text).not.toContain("%20");
  });
}
