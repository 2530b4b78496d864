// How a chart looks: uPlot's options.
import uPlot from "uplot";
import { h } from "./dom.ts";

export const KINDS = ["Line", "Bars", "Points"] as const;
export type Kind = (typeof KINDS)[number];

/** What is drawn. */
interface Drawing {
  kind: Kind;
  x: string;
  /** Whether x is seconds of Unix time. */
  time: boolean;
  /** What x means, by row, where it is no number. */
  labels: (string | null)[];
  y: string;
}

/** uPlot's legend is below what it takes for its height. */
const LEGEND_PX = 34;
const WIDTH_MIN = 200;
const HEIGHT_MIN = 120;
const LABEL_CHARS_MAX = 14;
const DAY_SECS = 86_400;
const BARS = uPlot.paths.bars?.({ size: [0.7, 64] }) ?? (() => null);
const NOTHING = () => null;

export function plotSize(area: HTMLElement): { width: number; height: number } {
  return {
    width: Math.max(WIDTH_MIN, area.clientWidth),
    height: Math.max(HEIGHT_MIN, area.clientHeight - LEGEND_PX),
  };
}

export function plotOptions(drawing: Drawing, area: HTMLElement): uPlot.Options {
  const { kind, time, labels, x, y } = drawing;
  const bars = kind === "Bars";
  const line = color("--series", area);
  return {
    ...plotSize(area),
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), "Etc/UTC"),
    scales: {
      x: { time, ...(bars ? { range: besides(labels.length > 0) } : {}) },
      y: bars
        ? { range: (_, low, high) => uPlot.rangeNum(Math.min(0, low), Math.max(0, high), 0.1, true) }
        : {},
    },
    axes: [
      { ...axis(area), label: x, ...along(drawing) },
      { ...axis(area), label: y, size: 76, values: (_, at) => at.map(figure) },
    ],
    series: [
      { label: x, ...legend(drawing) },
      {
        label: y,
        stroke: line,
        width: kind === "Line" ? 1.75 : 0,
        ...(bars ? { fill: line, paths: BARS, points: { show: false } } : {}),
        ...(kind === "Points" ? { paths: NOTHING, points: { show: true, size: 5, fill: line } } : {}),
      },
    ],
    cursor: { drag: { x: true, y: false }, points: { size: 7 } },
  };
}

function axis(area: HTMLElement) {
  const grid = { stroke: color("--grid", area), width: 1 };
  const font = `12px ${getComputedStyle(area).fontFamily}`;
  return { stroke: color("--muted", area), font, labelFont: font, grid, ticks: grid };
}

/** The marks of the x axis. */
function along({ time, labels }: Drawing): uPlot.Axis {
  if (labels.length > 0) {
    return {
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500],
      space: 90,
      values: (_, at) => at.map((row) => shortened(labelOf(labels, row))),
    };
  }
  return time
    ? { space: 80, values: (_, at, __, ___, apart) => at.map((seconds) => moment(seconds, apart)) }
    : {};
}

/** What the legend says below the cursor. */
function legend({ time, labels }: Drawing): uPlot.Series {
  if (labels.length > 0) {
    return { value: (_, row) => (row === null ? "–" : labelOf(labels, row)) };
  }
  return time ? { value: (_, seconds) => (seconds === null ? "–" : moment(seconds, 1)) } : {};
}

/** Room for the first and the last bar. */
function besides(labelled: boolean) {
  return (_: uPlot, low: number, high: number): uPlot.Range.MinMax => {
    const room = labelled ? 0.5 : Math.max((high - low) * 0.02, 0.5);
    return [low - room, high + room];
  };
}

/** A time in UTC, as exact as marks that are `apart` seconds from each other need. */
function moment(seconds: number, apart: number): string {
  const text = new Date(seconds * 1_000).toISOString().replace("T", " ");
  if (apart >= 365 * DAY_SECS) {
    return text.slice(0, 4);
  }
  if (apart >= 28 * DAY_SECS) {
    return text.slice(0, 7);
  }
  return apart >= DAY_SECS ? text.slice(0, 10) : text.slice(0, apart >= 60 ? 16 : 19);
}

function figure(value: number): string {
  return value.toLocaleString("en", { notation: Math.abs(value) >= 1e6 ? "compact" : "standard" });
}

/** Nothing beyond the rows, where an axis may have marks too. */
function labelOf(labels: (string | null)[], row: number): string {
  const label = labels[row];
  return label === null ? "NULL" : (label ?? "");
}

function shortened(label: string): string {
  return label.length > LABEL_CHARS_MAX ? `${label.slice(0, LABEL_CHARS_MAX - 1)}…` : label;
}

/** A custom property as a color that a canvas understands, whichever scheme holds. */
function color(name: string, within: HTMLElement): string {
  const probe = h("span");
  probe.style.color = `var(${name})`;
  within.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
