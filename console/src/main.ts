// The console: binds this tab's session to a tenant, and runs its statements.
import "./style.css";
import { CatalogPanel } from "./catalog.ts";
import { button, counted, grouped, h } from "./dom.ts";
import { Editor } from "./editor.ts";
import { KeyBar } from "./key.ts";
import { Results } from "./results.ts";
import { type Run, Runner } from "./runner.ts";
import { failure, grpcUrl, Server } from "./server.ts";
import { binds, defines, reads, type Statement } from "./statements.ts";
import { TenantBar } from "./tenant.ts";

const TEXT = "jammi-sql";
const FIRST_TEXT = "SELECT * FROM jammi.catalog.sources";
/** How often a running statement's figures are written. */
const TICK_MS = 100;

const keyBar = new KeyBar((key) => void signIn(key));
const server = new Server(grpcUrl(), () => keyBar.ask());
let current: Statement | null = null;

const words = async <T>(call: Promise<T>): Promise<T> => {
  try {
    return await call;
  } catch (error) {
    throw new Error(failure(error, server.url).text);
  }
};

const tenant = new TenantBar(
  {
    tenant: () => words(server.tenant()),
    bind: (id) => words(server.bind(id)),
    unbind: () => words(server.unbind()),
  },
  () => {
    // Nothing of the tenant before may come after this.
    runner.drop();
    pending = null;
    current = null;
    running(false);
    results.empty();
    say("");
    void refresh();
  },
);
const catalog = new CatalogPanel(
  (text, own) => editor.insert(text, own),
  () => void refresh(),
);
const editor = new Editor(
  sessionStorage.getItem(TEXT) ?? FIRST_TEXT,
  () => void run(),
  (text) => {
    sessionStorage.setItem(TEXT, text);
  },
);
const results = new Results(() => void explain(false));
const status = h("output", { class: "run-status", attrs: { "aria-live": "polite" } });
const progress = h("div", {
  class: "progress",
  hidden: true,
  attrs: { role: "progressbar", "aria-label": "Statement" },
});
const runButton = button("Run", () => void run(), {
  class: "primary",
  title: "Run the statement at the cursor, or the selection (Ctrl or ⌘ + Enter)",
});
const cancelButton = button("Cancel", () => runner.cancel(), { disabled: true, title: "Cancel (Esc)" });
const explainButton = button("Explain", () => void explain(false), {
  title: "Read the plan of the statement at the cursor",
});

const runner = new Runner(server, (run) => schedule(run));
let pending: Run | null = null;
let shownAt = 0;

function say(text: string): void {
  if (status.textContent !== text) {
    status.textContent = text;
  }
}

/** At most once a tick, but at once when it has ended. */
function schedule(run: Run): void {
  const waits = pending !== null;
  pending = run;
  if (run.outcome !== null) {
    draw();
  } else if (!waits) {
    setTimeout(draw, Math.max(0, shownAt + TICK_MS - performance.now()));
  }
}

function draw(): void {
  const run = pending;
  if (run === null) {
    return;
  }
  pending = null;
  shownAt = performance.now();
  running(runner.running);
  if (run.kind === "rows") {
    results.show(run.result);
  }
  say(summary(run));
}

function running(now: boolean): void {
  progress.hidden = !now;
  cancelButton.disabled = !now;
  runButton.textContent = now ? "Running…" : "Run";
}

function summary({ kind, result, elapsed, outcome }: Run): string {
  const seconds = `${(elapsed / 1_000).toFixed(elapsed < 10_000 ? 2 : 1)} s`;
  const size =
    result.bytes < 1e5 ? `${Math.ceil(result.bytes / 1e3)} kB` : `${(result.bytes / 1e6).toFixed(1)} MB`;
  const rows = `${counted(result.rows, "row")} · ${size} · ${seconds}`;
  if (kind === "plan" && (outcome === null || outcome === "done")) {
    return outcome === null ? "Planning…" : `Planned · ${seconds}`;
  }
  switch (outcome) {
    case null:
      return result.rows === 0 ? "Running…" : rows;
    case "done":
      return result.columns === 0 ? `Done · ${seconds}` : rows;
    case "cancelled":
      return `Cancelled · ${rows}`;
    case "cut":
      return `Stopped at ${size}: ${grouped(result.rows)} rows are kept. Ask for fewer with LIMIT.`;
    default:
      return result.rows === 0 ? `Failed · ${seconds}` : `Failed after ${rows}`;
  }
}

async function run(): Promise<void> {
  const statement = editor.statement();
  if (statement === null) {
    say("There is no statement to run.");
    return;
  }
  current = statement;
  editor.mark(null, "");
  const done = await runner.run(statement.text, "rows");
  if (binds(statement.text)) {
    // Also when it was cancelled, or failed on the way back.
    await tenant.follow();
  }
  if (current !== statement) {
    return;
  }
  if (typeof done.outcome === "object" && done.outcome !== null) {
    results.fail(done.outcome.failure);
    editor.mark(statement, done.outcome.failure.text);
    return;
  }
  if (done.outcome === "done" && done.result.columns === 0) {
    results.done("Done. The statement has no rows to show.");
  }
  if (done.outcome === "done" && defines(statement.text)) {
    await refresh();
  }
}

/** Reads the plan of what is shown, else of the statement at the cursor. */
async function explain(analyze: boolean): Promise<void> {
  const statement = editor.statement();
  if (statement === null) {
    say("There is no statement to explain.");
    return;
  }
  current = statement;
  const bare = statement.text.replace(/^explain\s+(?:analyze\s+|verbose\s+)*/i, "");
  editor.mark(null, "");
  const { outcome, result } = await runner.run(`EXPLAIN ${analyze ? "ANALYZE " : ""}${bare}`, "plan");
  if (current !== statement) {
    return;
  }
  if (typeof outcome === "object" && outcome !== null) {
    results.fail(outcome.failure);
    return;
  }
  if (outcome !== "done") {
    return;
  }
  const plans = Array.from({ length: result.rows }, (_, row): [string, string] => [
    result.text(row, 0) ?? "",
    result.text(row, 1) ?? "",
  ]);
  results.showPlan(plans, reads(bare) ? () => void explain(true) : null);
}

async function refresh(): Promise<void> {
  try {
    const found = await server.catalog();
    catalog.show(found);
    editor.complete(found);
  } catch (error) {
    const { title, text } = failure(error, server.url);
    catalog.fail(`${title}. ${text}`);
  }
}

/** Goes on as the holder of a key, whose one tenant, if it has one, is bound already. */
async function signIn(key: string): Promise<void> {
  server.sign(key);
  keyBar.hide();
  await tenant.follow();
  await refresh();
  begin();
}

/** To where what is typed next belongs. */
function begin(): void {
  if (!keyBar.focus()) {
    editor.focus();
  }
}

document.body.append(
  h(
    "header",
    { class: "top" },
    h("h1", {}, "Jammi"),
    keyBar.element,
    tenant.element,
    h("span", { class: "server", title: "Where this page calls" }, server.url.replace(/^https?:\/\//, "")),
    h("a", { class: "licences", attrs: { href: "licenses.txt" } }, "Licences"),
  ),
  h(
    "main",
    {},
    catalog.element,
    h(
      "div",
      { class: "work" },
      editor.element,
      h("div", { class: "bar" }, runButton, cancelButton, explainButton, status, progress),
      results.element,
    ),
  ),
);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && runner.running) {
    event.preventDefault();
    runner.cancel();
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) {
    event.preventDefault();
    void run();
  }
});
// A page that comes back from the browser's memory has a session that it has left.
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
window.addEventListener("pagehide", () => server.leave());

await tenant.restore();
await refresh();
begin();
