// What a statement answered: rows, a chart of them, a plan, or why there are none.
import { Chart } from "./chart.ts";
import { button, h } from "./dom.ts";
import { Grid } from "./grid.ts";
import { planView } from "./plan.ts";
import type { Result } from "./result.ts";
import type { Failure } from "./server.ts";

const TABS = ["Rows", "Chart", "Plan"] as const;
export type Tab = (typeof TABS)[number];

export class Results {
  readonly element: HTMLElement;
  private readonly tabs: Map<Tab, HTMLButtonElement>;
  private readonly panel = h("div", {
    class: "panel",
    id: "panel",
    attrs: { role: "tabpanel", "aria-labelledby": "tab-Rows" },
  });
  private tab: Tab = "Rows";
  private result: Result | null = null;
  private grid: Grid | null = null;
  private chart: Chart | null = null;
  private plan: HTMLElement | null = null;

  /** `explain` is asked for a plan when its tab is opened without one. */
  constructor(private readonly explain: () => void) {
    this.tabs = new Map(
      TABS.map((tab) => [
        tab,
        button(tab, () => this.choose(tab), {
          id: `tab-${tab}`,
          class: "tab",
          attrs: { role: "tab", "aria-controls": "panel" },
        }),
      ]),
    );
    const bar = h(
      "div",
      { class: "tabs", attrs: { role: "tablist", "aria-label": "Result" } },
      ...this.tabs.values(),
    );
    bar.addEventListener("keydown", (event) => this.key(event));
    this.element = h("section", { class: "results", attrs: { "aria-label": "Result" } }, bar, this.panel);
    this.empty();
  }

  /** Forgets everything, such as rows of the tenant before. */
  empty(): void {
    this.forget();
    this.plan = null;
    this.select("Rows");
    this.panel.replaceChildren(
      h(
        "div",
        { class: "hint" },
        h("p", {}, "Run a statement to see its rows."),
        h(
          "p",
          {},
          h("kbd", {}, "Ctrl"),
          " or ",
          h("kbd", {}, "⌘"),
          " + ",
          h("kbd", {}, "Enter"),
          " runs, ",
          h("kbd", {}, "Esc"),
          " cancels.",
        ),
      ),
    );
  }

  /** Shows a result that has begun or has grown. */
  show(result: Result): void {
    if (result !== this.result) {
      this.forget();
      this.plan = null;
      this.result = result;
      if (this.tab === "Plan") {
        this.select("Rows");
      }
      this.panel.replaceChildren();
    }
    if (result.schema === null) {
      return;
    }
    if (this.tab === "Rows" && result.columns > 0) {
      this.grid ??= new Grid(result);
      this.mount(this.grid.element);
      this.grid.update();
    } else if (this.tab === "Chart") {
      this.chart ??= new Chart(result);
      this.mount(this.chart.element);
      this.chart.update();
    }
  }

  /** Says that a statement without rows is done. */
  done(text: string): void {
    this.panel.replaceChildren(h("div", { class: "hint" }, h("p", { class: "done" }, text)));
  }

  fail({ title, text, requestId }: Failure): void {
    const alert = h(
      "div",
      { class: "failure", attrs: { role: "alert" } },
      h("h2", {}, title),
      h("p", { class: "failure-text" }, text),
      requestId === null ? null : h("p", { class: "failure-id" }, "Request ", h("code", {}, requestId)),
    );
    // Rows that came before it stay in view.
    const rows = this.tab === "Rows" ? this.grid?.element : undefined;
    this.panel.replaceChildren(alert, ...(rows ? [rows] : []));
  }

  showPlan(plans: [string, string][], analyze: (() => void) | null): void {
    this.plan = planView(plans, analyze);
    this.select("Plan");
    this.panel.replaceChildren(this.plan);
  }

  private mount(element: HTMLElement): void {
    if (!element.isConnected) {
      this.panel.replaceChildren(element);
    }
  }

  private forget(): void {
    this.grid?.dispose();
    this.chart?.dispose();
    this.grid = null;
    this.chart = null;
    this.result = null;
  }

  private select(tab: Tab): void {
    this.tab = tab;
    this.panel.setAttribute("aria-labelledby", `tab-${tab}`);
    for (const [name, element] of this.tabs) {
      element.setAttribute("aria-selected", String(name === tab));
      element.tabIndex = name === tab ? 0 : -1;
    }
  }

  private choose(tab: Tab): void {
    this.select(tab);
    if (tab === "Plan") {
      if (this.plan === null) {
        this.explain();
      } else {
        this.panel.replaceChildren(this.plan);
      }
    } else if (this.result === null) {
      this.empty();
      this.select(tab);
    } else {
      this.panel.replaceChildren();
      this.show(this.result);
    }
  }

  private key(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = TABS[(TABS.indexOf(this.tab) + step + TABS.length) % TABS.length] ?? "Rows";
      this.choose(next);
      this.tabs.get(next)?.focus();
    }
  }
}
