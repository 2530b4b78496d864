// A plan as EXPLAIN prints it: operators, each indented below the one that it feeds.
import { button, h } from "./dom.ts";

interface Operator {
  name: string;
  detail: string;
  /** Of EXPLAIN ANALYZE, as in `output_rows`. */
  metrics: [string, string][];
  inputs: Operator[];
}

const TITLES: Record<string, string> = {
  logical_plan: "Logical plan",
  physical_plan: "Physical plan",
  "Plan with Metrics": "Plan as it ran",
};

/** Metrics that tell most, first. */
const FOREMOST = ["output_rows", "elapsed_compute", "output_bytes"];

/** The plans of the rows that EXPLAIN answers: pairs of a type and a text. */
export function planView(plans: [string, string][], analyze: (() => void) | null): HTMLElement {
  const parts = plans
    .toReversed()
    .map(([type, text]) =>
      h("section", { class: "plan" }, h("h2", {}, TITLES[type] ?? type), tree(parse(text))),
    );
  const again = analyze && button("Run it and measure", analyze, { title: "EXPLAIN ANALYZE" });
  return h(
    "div",
    { class: "plans", tabIndex: 0, attrs: { role: "region", "aria-label": "Plan" } },
    again ? h("p", { class: "plan-bar" }, again) : null,
    ...parts,
  );
}

function parse(text: string): Operator[] {
  const roots: Operator[] = [];
  const path: { indent: number; operator: Operator }[] = [];
  for (const line of text.split("\n").filter((line) => line.trim() !== "")) {
    const indent = line.length - line.trimStart().length;
    const operator = operatorOf(line.trim());
    while (path.length > 0 && (path.at(-1)?.indent ?? 0) >= indent) {
      path.pop();
    }
    (path.at(-1)?.operator.inputs ?? roots).push(operator);
    path.push({ indent, operator });
  }
  return roots;
}

function operatorOf(line: string): Operator {
  const [before = "", measured] = line.split(/,? metrics=\[/);
  const at = before.search(/[:,]/);
  const [name, detail] = at < 0 ? [before, ""] : [before.slice(0, at), before.slice(at + 1).trim()];
  const pairs = (measured ?? "").replace(/\]$/, "").split(/, (?=\w+=)/);
  const metrics = pairs
    .filter((pair) => pair.includes("="))
    .map((pair): [string, string] => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);
  const rank = ([name]: [string, string]) =>
    FOREMOST.includes(name) ? FOREMOST.indexOf(name) : FOREMOST.length;
  return { name, detail, metrics: metrics.sort((a, b) => rank(a) - rank(b)), inputs: [] };
}

function tree(operators: Operator[]): HTMLElement {
  const items = operators.map(({ name, detail, metrics, inputs }) =>
    h(
      "li",
      {},
      h(
        "div",
        { class: "operator" },
        h("span", { class: "operator-name" }, name),
        detail === "" ? null : h("span", { class: "operator-detail" }, detail),
        metrics.length === 0
          ? null
          : h(
              "span",
              { class: "metrics", title: metrics.map(([name, value]) => `${name} ${value}`).join("\n") },
              ...metrics
                .slice(0, FOREMOST.length)
                .map(([name, value]) => h("span", {}, `${name.replace(/^output_|^elapsed_/, "")} ${value}`)),
            ),
      ),
      inputs.length > 0 ? tree(inputs) : null,
    ),
  );
  return h("ul", {}, ...items);
}
