// What is written, and what takes parameters: these go by DoPut, whose request a page sends whole.
import { randomUUID } from "node:crypto";
import { expect, test } from "./fixtures.ts";

test("a query takes parameters", { tag: ["@parameters", "@prepared"] }, async ({ tab, session }) => {
  const answers = await tab.evaluate(async ({ url, session }) => {
    const { arrow, Client } = window.jammi;
    const client = new Client(url, session);
    const prepared = await client.prepare(
      "SELECT code FROM currencies.public.currencies WHERE per_euro > ? ORDER BY code",
    );
    const above = (limit: number) =>
      client.execute(prepared, new arrow.Table({ "0": arrow.vectorFromArray([limit], new arrow.Float64()) }));
    return [await above(1.0), await above(1e9)];
  }, session);
  expect(answers).toEqual([[{ code: "JPY" }, { code: "USD" }], []]);
});

test("a wrong number of parameters is told", { tag: ["@parameters", "@errors"] }, async ({
  tab,
  session,
}) => {
  const error = await tab.evaluate(async ({ url, session }) => {
    const { arrow, Client, failure } = window.jammi;
    const client = new Client(url, session);
    const prepared = await client.prepare("SELECT code FROM currencies.public.currencies WHERE per_euro > ?");
    const two = new arrow.Table({ "0": arrow.vectorFromArray([1.5]), "1": arrow.vectorFromArray([1.5]) });
    return client.execute(prepared, two).then(() => undefined, failure);
  }, session);
  expect(error?.code).toBe(3);
  expect(error?.text).toMatch(/parameter/);
});

test("rows are written one by one, in batches and by ingest", { tag: ["@batch", "@ingest"] }, async ({
  tab,
  session,
}) => {
  const seen = await tab.evaluate(
    async ({ url, session, tenant }) => {
      const { arrow, Client } = window.jammi;
      const client = new Client(url, session);
      await client.bind(tenant);
      await client.rows("CREATE TABLE tasks (id BIGINT PRIMARY KEY, title VARCHAR)");
      const one = await client.rows("INSERT INTO tasks VALUES (1, 'one')");
      const table = (ids: number[]) =>
        new arrow.Table({
          id: arrow.vectorFromArray(ids.map(BigInt), new arrow.Int64()),
          title: arrow.vectorFromArray(
            ids.map((id) => `task ${id}`),
            new arrow.Utf8(),
          ),
        });
      const insert = await client.prepare("INSERT INTO tasks VALUES (?, ?)");
      const batch = await client.update(insert, table([2, 3, 4]));
      const ingested = await client.ingest("tasks", table(Array.from({ length: 1000 }, (_, at) => at + 5)));
      const [count] = await client.rows("SELECT count(*) AS n, max(title) AS last FROM tasks");
      return { one: Number(one[0]?.count), batch, ingested, count: Number(count?.n), last: count?.last };
    },
    { ...session, tenant: randomUUID() },
  );
  expect(seen).toEqual({ one: 1, batch: 3, ingested: 1000, count: 1004, last: "task 999" });
});

test("transactions commit and roll back", { tag: "@transactions" }, async ({ tab, session, server }) => {
  const seen = await tab.evaluate(
    async ({ url, session, tenant }) => {
      const client = new window.jammi.Client(url, session);
      await client.bind(tenant);
      await client.rows("CREATE TABLE words (word VARCHAR)");
      const words = async (transaction?: Uint8Array) => {
        const options = transaction === undefined ? {} : { transaction };
        const rows = await client.rows("SELECT word FROM words ORDER BY word", options);
        return rows.map((row) => row.word);
      };
      const seen: unknown[][] = [];
      for (const how of ["COMMIT", "ROLLBACK"] as const) {
        const transaction = await client.begin();
        await client.rows(`INSERT INTO words VALUES ('${how}')`, { transaction });
        seen.push(await words(transaction), await words());
        await client.end(transaction, how);
        seen.push(await words());
      }
      return seen;
    },
    { ...session, tenant: randomUUID() },
  );
  expect(seen).toEqual([["COMMIT"], [], ["COMMIT"], ["COMMIT", "ROLLBACK"], ["COMMIT"], ["COMMIT"]]);
  expect(await server.metric("jammi_transactions")).toBe(0);
});

test("tables, keys, sources and their columns are listed", { tag: "@metadata" }, async ({ tab, session }) => {
  const seen = await tab.evaluate(
    async ({ url, session, tenant }) => {
      const client = new window.jammi.Client(url, session);
      await client.bind(tenant);
      await client.rows("CREATE TABLE listed (id BIGINT PRIMARY KEY, title VARCHAR)");
      const table = (await client.tables()).find((row) => row.table_name === "listed");
      const [key] = await client.primaryKeys("listed");
      const { sources } = await client.catalog.listSources({});
      const { tables } = await client.catalog.listTables({});
      return {
        table: [table?.catalog_name, table?.db_schema_name, table?.table_type],
        key: key?.column_name,
        sources: sources.map((source) => source.sqlName),
        columns: tables[0]?.columns.map((column) => `${column.name} ${column.type}`),
      };
    },
    { ...session, tenant: randomUUID() },
  );
  expect(seen.table).toEqual(["mutable", "public", "TABLE"]);
  expect(seen.key).toBe("id");
  expect(seen.sources).toEqual(["currencies.public.currencies", "notes.public.notes"]);
  expect(seen.columns).toContain("id Int64");
});

test("values of every kind reach the page as they are", { tag: "@types" }, async ({ tab, session }) => {
  const row = await tab.evaluate(async ({ url, session }) => {
    const client = new window.jammi.Client(url, session);
    const [row] = await client.rows(`SELECT
      true AS boolean, CAST(-7 AS SMALLINT) AS small, 9223372036854775807 AS big, 0.1 AS double,
      CAST('12.340' AS DECIMAL(10, 3)) AS decimal, 'größe → 大小' AS text, X'00ff' AS bytes,
      DATE '2024-02-29' AS day, TIMESTAMP '2024-02-29 12:34:56.789' AS instant,
      make_array(1, NULL, 3) AS list, named_struct('a', 1, 'b', 'x') AS struct, NULL AS nothing,
      arrow_cast('a', 'Dictionary(Int32, Utf8)') AS word, arrow_cast('view', 'Utf8View') AS view`);
    const shown = (value: unknown): unknown => {
      if (typeof value === "bigint") {
        return `${value}n`;
      }
      if (value instanceof Uint8Array) {
        return [...value];
      }
      if (value !== null && typeof value === "object" && "toJSON" in value) {
        return JSON.parse(JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}n` : part)));
      }
      return value;
    };
    return Object.fromEntries(Object.entries(row ?? {}).map(([name, value]) => [name, shown(value)]));
  }, session);
  expect(row).toMatchObject({
    boolean: true,
    small: -7,
    big: "9223372036854775807n",
    double: 0.1,
    text: "größe → 大小",
    bytes: [0, 255],
    day: Date.UTC(2024, 1, 29),
    instant: Date.UTC(2024, 1, 29, 12, 34, 56, 789),
    list: ["1n", null, "3n"],
    struct: { a: 1n, b: "x" },
    nothing: null,
    word: "a",
    view: "view",
  });
  expect(row.decimal).toBeDefined();
});
