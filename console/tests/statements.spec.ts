import { ALICE, expect, test } from "./fixtures.ts";

const ENDLESS = "SELECT value, 'row ' || value AS name FROM generate_series(1, 1000000000000)";
const SILENT =
  "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b";

test("an error is readable, and marked in the text", { tag: "@errors" }, async ({ tab }) => {
  await tab.run("SELECT tittle FROM notes.public.notes");
  const alert = tab.page.getByRole("alert").filter({ hasText: "tittle" });
  await expect(alert).toContainText("Invalid argument");
  await expect(alert).toContainText("column tittle does not exist: the columns there are");
  await expect(alert.locator("code")).toHaveText(/^[0-9a-f-]{36}$/);
  await tab.run("SELECT 1 AS one;\n\nSELECT 1\nFRUM notes");
  await expect(tab.page.getByRole("alert").filter({ hasText: "parse" })).toBeVisible();
  await expect(tab.page.locator(".cm-lintRange-error")).toHaveText("notes");
  // What is right again is without marks.
  await tab.ran("SELECT 'fine' AS word");
  await expect(tab.cell("fine")).toBeVisible();
  await expect(alert).toHaveCount(0);
  await expect(tab.page.locator(".cm-lintRange-error")).toHaveCount(0);
});

test("a statement that fails midway keeps the rows before", { tag: "@errors" }, async ({ tab }) => {
  await tab.run("SELECT 1 / (value - 500000) FROM generate_series(1, 1000000)");
  await expect(tab.page.getByRole("alert").filter({ hasText: "division by zero" })).toBeVisible();
  await expect(tab.status).toHaveText(/^Failed/);
});

test("rows stream in with their count, and Escape cancels", { tag: ["@cancel", "@streaming"] }, async ({
  tab,
  server,
}) => {
  await tab.run(ENDLESS);
  await expect(tab.grid.getByRole("gridcell").first()).toBeVisible();
  await expect(tab.status).toHaveText(/^[\d,]+ rows · .* MB · .* s$/);
  await expect(tab.page.getByRole("progressbar")).toBeVisible();
  await tab.page.keyboard.press("Escape");
  await expect(tab.status).toHaveText(/^Cancelled · [\d,]+ rows/);
  await expect(tab.page.getByRole("progressbar")).toBeHidden();
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
  // The rows that came stay.
  await expect(tab.grid.getByRole("gridcell").first()).toBeVisible();
});

test("a statement that computes is cancelled by the button", { tag: "@cancel" }, async ({ tab, server }) => {
  await tab.run(SILENT);
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(1);
  await tab.page.getByRole("button", { name: "Cancel" }).click();
  await expect(tab.status).toHaveText(/^Cancelled/);
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
});

test("another statement takes the place of one that runs", { tag: "@cancel" }, async ({ tab, server }) => {
  await tab.run(SILENT);
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(1);
  await tab.ran("SELECT 'second' AS word");
  await expect(tab.cell("second")).toBeVisible();
  await expect.poll(() => server.metric("jammi_requests_active")).toBe(0);
});

test("a tab is used by keyboard alone", { tag: "@query" }, async ({ tab }) => {
  const { page } = tab;
  const press = (key: string) => page.keyboard.press(key);
  await expect(tab.sql).toBeFocused();
  await press("ControlOrMeta+a");
  await page.keyboard.type("SELECT value, value * 2 AS twice FROM generate_series(1, 500) ORDER BY value");
  await press("ControlOrMeta+Enter");
  await expect(tab.cell("1").first()).toBeVisible();
  // Out of the editor, over the buttons and the tabs, into the rows.
  const order: string[] = [];
  for (let step = 0; step < 4; step += 1) {
    await press("Tab");
    order.push(
      await page.evaluate(
        () => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "",
      ),
    );
    const ring = await page.evaluate(
      () => getComputedStyle(document.activeElement ?? document.body).outlineStyle,
    );
    expect(ring, order.at(-1)).not.toBe("none");
  }
  expect(order).toEqual(["Run", "Explain", "Rows", "Rows"]);
  await expect(tab.grid).toBeFocused();
  const active = () =>
    page.evaluate(() => {
      const id = document.activeElement?.getAttribute("aria-activedescendant");
      return id ? document.getElementById(id)?.textContent : null;
    });
  await press("ArrowDown");
  await expect.poll(active).toBe("1");
  await press("ArrowDown");
  await press("ArrowRight");
  await expect.poll(active).toBe("4");
  await press("ControlOrMeta+End");
  await expect.poll(active).toBe("1000");
  await press("Home");
  await press("PageUp");
  await expect.poll(async () => Number(await active())).toBeLessThan(500);
  await press("ControlOrMeta+Home");
  await expect.poll(active).toBe("1");
  await expect(tab.grid).toHaveAttribute("aria-rowcount", "501");
  // Back to the tabs, to the chart.
  await press("Shift+Tab");
  await press("ArrowRight");
  await expect(page.getByRole("tab", { name: "Chart" })).toBeFocused();
  await expect(page.getByRole("img", { name: "Line of twice by value, 500 points" })).toBeVisible();
});

test("a million rows are scrolled from end to end", { tag: "@streaming" }, async ({ tab }) => {
  await tab.ran(
    "SELECT value, 'row ' || value AS name, value % 7 AS day FROM generate_series(1, 1000000) ORDER BY value",
  );
  await expect(tab.status).toHaveText(/^1,000,000 rows/);
  await expect(tab.cell("row 1")).toBeVisible();
  const rows = tab.grid.getByRole("row");
  const few = async () => expect(await rows.count()).toBeLessThan(60);
  await few();
  await tab.grid.focus();
  await tab.page.keyboard.press("ControlOrMeta+End");
  await expect(tab.cell("row 1000000")).toBeVisible();
  await few();
  // Every row can be reached, although the scrollbar's way is shorter than the rows are high.
  await tab.page.keyboard.press("PageUp");
  await tab.page.keyboard.press("ArrowUp");
  await tab.grid.evaluate((grid) => grid.scrollTo({ top: grid.scrollHeight / 2 }));
  const middle = tab.grid.getByRole("gridcell", { name: /^row (49|50)\d{4}$/ });
  await expect(middle.first()).toBeVisible();
  const names = await middle.allTextContents();
  const numbers = names.map((name) => Number(name.slice(4))).sort((a, b) => a - b);
  expect(numbers.at(-1)).toBe((numbers[0] ?? 0) + numbers.length - 1);
  await few();
  await tab.grid.evaluate((grid) => grid.scrollTo({ top: 0 }));
  await expect(tab.cell("row 1")).toBeVisible();
});

test("a wide result has only the columns in view", { tag: "@query" }, async ({ tab }) => {
  const columns = Array.from({ length: 400 }, (_, at) => `${at} AS column_${at}`);
  await tab.ran(`SELECT ${columns.join(", ")}`);
  await expect(tab.grid).toHaveAttribute("aria-colcount", "400");
  await expect(tab.grid.getByRole("columnheader", { name: "column_0 Int64" })).toBeVisible();
  expect(await tab.grid.getByRole("gridcell").count()).toBeLessThan(40);
  await tab.grid.focus();
  await tab.page.keyboard.press("End");
  await expect(tab.grid.getByRole("columnheader", { name: "column_399 Int64" })).toBeVisible();
});

test("values of every kind are shown", { tag: "@types" }, async ({ tab }) => {
  await tab.ran(`SELECT true AS a, CAST('-12.340' AS DECIMAL(10, 3)) AS b, 9223372036854775807 AS c, 'größe → 大小' AS d,
    X'00ff' AS e, DATE '2024-02-29' AS f, TIMESTAMP '2024-02-29 12:34:56.789' AS g,
    arrow_cast('2024-02-29T12:34:56.123456789', 'Timestamp(Nanosecond, None)') AS h,
    make_array(1, NULL, 3) AS i, named_struct('k', 1, 'l', 'x') AS j, NULL AS k, TIME '12:34:56' AS l,
    arrow_cast('word', 'Dictionary(Int32, Utf8)') AS m, 0.1 AS n`);
  for (const text of [
    "true",
    "-12.340",
    "9223372036854775807",
    "größe → 大小",
    "0x00ff",
    "2024-02-29",
    "2024-02-29 12:34:56.789",
    "2024-02-29 12:34:56.123456789",
    "[1, null, 3]",
    '{k: 1, l: "x"}',
    "NULL",
    "word",
    "0.1",
  ]) {
    await tab.grid.focus();
    const cell = tab.cell(text);
    while ((await cell.count()) === 0) {
      await tab.page.keyboard.press("ArrowRight");
    }
    await expect(cell.first()).toBeVisible();
  }
});

test("a result is charted", { tag: "@query" }, async ({ tab }) => {
  await tab.ran("SELECT * FROM (VALUES ('Berlin', 3), ('Wien', 5), ('Zürich', 4)) AS t(city, orders)");
  await tab.page.getByRole("tab", { name: "Chart" }).click();
  await expect(tab.page.getByRole("img", { name: "Bars of orders by city, 3 points" })).toBeVisible();
  const inked = () =>
    tab.page.locator(".chart canvas").evaluate((canvas: HTMLCanvasElement) => {
      const { data } = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height) ?? {
        data: [],
      };
      return data.filter((_, at) => at % 4 === 3).filter((alpha) => alpha === 255).length;
    });
  const bars = await inked();
  expect(bars).toBeGreaterThan(10_000);
  await tab.page.getByLabel("Kind").selectOption("Points");
  await expect.poll(inked).toBeLessThan(bars / 4);
  await tab.ran("SELECT title FROM notes.public.notes");
  await expect(tab.page.getByText("A chart needs a column of numbers.")).toBeVisible();
});

test("a plan is read, and measured", { tag: "@query" }, async ({ tab }) => {
  await tab.bind(ALICE);
  await tab.write("SELECT title, count(*) FROM notes.public.notes GROUP BY title");
  await tab.page.getByRole("button", { name: "Explain" }).click();
  const plan = tab.page.getByRole("region", { name: "Plan" });
  await expect(plan).toContainText("Physical plan");
  await expect(plan.getByText("GuardExec")).toBeVisible();
  await expect(plan).toContainText(`lanes=[${ALICE}, global]`);
  await plan.getByRole("button", { name: "Run it and measure" }).click();
  await expect(plan).toContainText("Plan as it ran");
  await expect(plan).toContainText(/rows \d+/);
  // What writes is not run to be measured.
  await tab.ran("CREATE TABLE measured (id BIGINT)");
  await tab.write("INSERT INTO measured VALUES (1)");
  await tab.page.getByRole("tab", { name: "Plan" }).click();
  await expect(plan).toBeVisible();
  await expect(plan.getByRole("button")).toHaveCount(0);
  await tab.ran("SELECT count(*) AS n FROM measured");
  await expect(tab.cell("0")).toBeVisible();
  await tab.ran("DROP TABLE measured");
});

test("names of the catalog are completed and inserted", { tag: "@metadata" }, async ({ tab }) => {
  await tab.bind(ALICE);
  await tab.sql.focus();
  await tab.page.keyboard.press("ControlOrMeta+a");
  await tab.page.keyboard.type("SELECT * FROM curr");
  await tab.page.getByRole("option", { name: "currencies" }).click();
  await expect(tab.sql).toHaveText("SELECT * FROM currencies.public.currencies");
  await tab.page.keyboard.press("ControlOrMeta+Enter");
  await expect(tab.cell("USD")).toBeVisible();
  await tab.catalog.getByText("notes").click();
  await expect(tab.catalog.getByRole("button", { name: "title" })).toBeVisible();
  await tab.catalog.getByRole("button", { name: "Query notes" }).click();
  await expect(tab.sql).toContainText("SELECT * FROM notes.public.notes LIMIT 100");
  await tab.page.keyboard.press("ControlOrMeta+Enter");
  await expect(tab.cell("Alice's groceries")).toBeVisible();
  await tab.page.getByRole("searchbox").fill("per_euro");
  await expect(tab.catalog.getByText("currencies")).toBeVisible();
  await expect(tab.catalog).not.toContainText("notes");
});
