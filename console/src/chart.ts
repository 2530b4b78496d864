// A chart of a result: uPlot, which draws a million points on a canvas and needs no style of its own in the page.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { counted, h } from "./dom.ts";
import { KINDS, type Kind, plotOptions, plotSize } from "./plotting.ts";
import type { Result } from "./result.ts";
import { isNumeric, isTemporal, numberOf, textOf } from "./values.ts";

/** Beyond these a chart says no more. */
const POINTS_MAX = 1_000_000;
const BARS_MAX = 2_000;
const ROW_NUMBER = -1;

export class Chart {
  readonly element: HTMLElement;
  private readonly kind = h("select", { id: "chart-kind" });
  private readonly x = h("select", { id: "chart-x" });
  private readonly y = h("select", { id: "chart-y" });
  private readonly note = h("p", { class: "chart-note", attrs: { role: "status" } });
  private readonly area = h("div", { class: "chart-area", attrs: { role: "img" } });
  private readonly resized: ResizeObserver;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private readonly redraw = () => this.draw();
  private plot: uPlot | null = null;
  private drawn = "";

  constructor(private readonly result: Result) {
    const field = (label: string, select: HTMLSelectElement) =>
      h("label", { htmlFor: select.id }, label, select);
    this.kind.append(...KINDS.map((kind) => h("option", { value: kind }, kind)));
    this.element = h(
      "div",
      { class: "chart" },
      h(
        "div",
        { class: "chart-bar" },
        field("Kind", this.kind),
        field("x", this.x),
        field("y", this.y),
        this.note,
      ),
      this.area,
    );
    this.choices();
    for (const select of [this.kind, this.x, this.y]) {
      select.addEventListener("change", this.redraw);
    }
    this.dark.addEventListener("change", this.redraw);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(this.area);
  }

  dispose(): void {
    this.resized.disconnect();
    this.dark.removeEventListener("change", this.redraw);
    this.plot?.destroy();
  }

  /** Draws what has arrived. */
  update(): void {
    if (this.drawn !== this.state()) {
      this.draw();
    }
  }

  private state(): string {
    return [this.result.rows, this.kind.value, this.x.value, this.y.value].join();
  }

  private choices(): void {
    const fields = this.result.schema?.fields ?? [];
    const option = (at: number, name: string) => h("option", { value: String(at) }, name);
    this.x.append(option(ROW_NUMBER, "row number"), ...fields.map(({ name }, at) => option(at, name)));
    const numeric = fields.flatMap(({ name, type }, at) => (isNumeric(type) ? [{ name, at }] : []));
    this.y.append(...numeric.map(({ name, at }) => option(at, name)));
    const time = fields.findIndex(({ type }) => isTemporal(type));
    const label = fields.findIndex(({ type }) => !isNumeric(type));
    const measure = numeric.findLast(({ at }) => at !== 0) ?? numeric[0];
    this.y.value = String(measure?.at ?? "");
    const first =
      time >= 0
        ? time
        : label >= 0
          ? label
          : (numeric.find(({ at }) => at !== measure?.at)?.at ?? ROW_NUMBER);
    this.x.value = String(first);
    const type = fields[first]?.type;
    this.kind.value = type !== undefined && !isNumeric(type) && !isTemporal(type) ? "Bars" : "Line";
  }

  private draw(): void {
    this.drawn = this.state();
    this.plot?.destroy();
    this.plot = null;
    const fields = this.result.schema?.fields ?? [];
    const [x, y] = [Number(this.x.value), Number(this.y.value)];
    const yField = fields[y];
    if (this.y.value === "" || yField === undefined) {
      this.note.textContent = "A chart needs a column of numbers.";
      return;
    }
    const xField = fields[x];
    const labelled = xField !== undefined && !isNumeric(xField.type) && !isTemporal(xField.type);
    const kind = this.kind.value as Kind;
    const limit = labelled || kind === "Bars" ? BARS_MAX : POINTS_MAX;
    const count = Math.min(this.result.rows, limit);
    const labels = labelled ? this.column(x, count, textOf) : [];
    const along =
      labelled || x === ROW_NUMBER
        ? Array.from({ length: count }, (_, row) => row)
        : this.column(x, count, numberOf);
    const order = along.every((value, at) => at === 0 || (value ?? 0) >= (along[at - 1] ?? 0))
      ? null
      : along.map((_, row) => row).sort((a, b) => (along[a] ?? 0) - (along[b] ?? 0));
    const up = this.column(y, count, numberOf);
    const sorted = <T>(values: T[]): T[] => (order === null ? values : order.map((row) => values[row] as T));
    const name = x === ROW_NUMBER ? "row number" : (xField?.name ?? "");
    const time = xField !== undefined && isTemporal(xField.type);
    const title = `${kind} of ${yField.name} by ${name}, ${counted(count, "point")}`;
    this.area.setAttribute("aria-label", title);
    this.note.textContent =
      count < this.result.rows
        ? `The first ${counted(count, "row")} of ${counted(this.result.rows, "row")}.`
        : counted(count, "point");
    this.plot = new uPlot(
      plotOptions({ kind, x: name, time, labels, y: yField.name }, this.area),
      [sorted(along) as number[], sorted(up)],
      this.area,
    );
  }

  private column<T>(column: number, count: number, value: (vector: never, row: number) => T): T[] {
    const values: T[] = [];
    this.result.each(column, (vector) => {
      for (let row = 0; row < vector.length && values.length < count; row += 1) {
        values.push(value(vector as never, row));
      }
      return values.length < count;
    });
    return values;
  }

  private resize(): void {
    this.plot?.setSize(plotSize(this.area));
  }
}
