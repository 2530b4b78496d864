// A grid over a result of any length: only the cells in view are elements.
//
// Rows have one height, so that where a row is is arithmetic. Browsers bound the height of an element (Firefox at
// 17.8 million pixels), so beyond HEIGHT_MAX the scrollbar's way is stretched over all rows.
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  type VirtualItem,
  Virtualizer,
} from "@tanstack/virtual-core";
import { h } from "./dom.ts";
import type { Result } from "./result.ts";
import { isNumeric, typeName } from "./values.ts";

const ROW_PX = 26;
const HEADER_PX = 46;
const HEIGHT_MAX = 12_000_000;
const ROWS_OVERSCAN = 6;
const WIDTH_MIN = 64;
const WIDTH_MAX = 420;
const CHAR_PX = 7.4;
const CELL_PADDING_PX = 26;
/** How many rows a column's width is guessed from. */
const SAMPLE_ROWS = 200;

interface Row {
  element: HTMLElement;
  /** The row and columns that it shows. */
  shows: string;
}

export class Grid {
  readonly element: HTMLElement;
  private readonly viewport: HTMLElement;
  private readonly sizer: HTMLElement;
  private readonly header: HTMLElement;
  private readonly pool: Row[] = [];
  private readonly columns: Virtualizer<HTMLElement, HTMLElement>;
  private readonly unmount: () => void;
  private readonly resized: ResizeObserver;
  private result: Result;
  private widths: number[] = [];
  private active = { row: 0, column: -1 };
  /** The first pixel in view of the rows as if there were no bound on heights. */
  private offset = 0;
  /** Where this class put the scrollbar, which rounds. */
  private placed = 0;
  private frame = 0;
  private sampled = false;

  constructor(result: Result) {
    this.result = result;
    this.header = h("div", { class: "grid-header", attrs: { role: "row", "aria-rowindex": "1" } });
    this.sizer = h("div", { class: "grid-rows", attrs: { role: "rowgroup" } });
    this.viewport = h(
      "div",
      {
        class: "grid",
        tabIndex: 0,
        attrs: {
          role: "grid",
          "aria-label": "Rows",
          "aria-readonly": "true",
          "aria-multiselectable": "false",
        },
      },
      h("div", { class: "grid-head", attrs: { role: "rowgroup" } }, this.header),
      this.sizer,
    );
    this.element = this.viewport;
    this.columns = new Virtualizer<HTMLElement, HTMLElement>({
      count: 0,
      horizontal: true,
      overscan: 3,
      getScrollElement: () => this.viewport,
      estimateSize: (column) => this.widths[column] ?? WIDTH_MIN,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => this.schedule(),
    });
    this.unmount = this.columns._didMount();
    this.viewport.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.viewport.addEventListener("keydown", (event) => this.key(event));
    this.viewport.addEventListener("mousedown", (event) => this.clicked(event));
    this.viewport.addEventListener("copy", (event) => this.copied(event));
    this.resized = new ResizeObserver(() => this.schedule());
    this.resized.observe(this.viewport);
    this.update();
  }

  dispose(): void {
    this.unmount();
    this.resized.disconnect();
    cancelAnimationFrame(this.frame);
  }

  /** Shows what the result has come to. */
  update(): void {
    const { schema, rows, columns } = this.result;
    if (schema !== null && (this.widths.length !== columns || (!this.sampled && rows > 0))) {
      this.sampled = rows > 0;
      this.measure();
      this.columns.setOptions({ ...this.columns.options, count: columns });
      this.columns.measure();
    }
    this.viewport.setAttribute("aria-rowcount", String(rows + 1));
    this.viewport.setAttribute("aria-colcount", String(columns));
    this.schedule();
  }

  private measure(): void {
    const fields = this.result.schema?.fields ?? [];
    this.widths = fields.map((field, column) => {
      let chars = Math.max(field.name.length + 1, typeName(field).length * 0.85);
      for (let row = 0; row < Math.min(this.result.rows, SAMPLE_ROWS); row += 1) {
        chars = Math.max(chars, (this.result.text(row, column) ?? "").length);
      }
      return Math.round(Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, chars * CHAR_PX + CELL_PADDING_PX)));
    });
  }

  private get total(): number {
    return this.result.rows * ROW_PX;
  }

  private get height(): number {
    return Math.min(this.total, HEIGHT_MAX);
  }

  private get inView(): number {
    return Math.max(0, this.viewport.clientHeight - HEADER_PX);
  }

  /** How many pixels of rows one pixel of the scrollbar's way is. */
  private get stretch(): number {
    const way = this.height - this.inView;
    return this.total > this.height && way > 0 ? (this.total - this.inView) / way : 1;
  }

  private scrolled(): void {
    const { scrollTop } = this.viewport;
    if (Math.abs(scrollTop - this.placed) > 1) {
      this.offset = scrollTop * this.stretch;
      this.placed = scrollTop;
    }
    this.schedule();
  }

  private scrollTo(offset: number): void {
    this.offset = Math.max(0, Math.min(offset, this.total - this.inView));
    this.viewport.scrollTop = this.offset / this.stretch;
    this.placed = this.viewport.scrollTop;
    this.schedule();
  }

  private schedule(): void {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.render();
      });
    }
  }

  private render(): void {
    this.columns._willUpdate();
    const shown = this.columns.getVirtualItems();
    const width = this.columns.getTotalSize();
    this.sizer.style.height = `${this.height}px`;
    this.sizer.style.width = `${width}px`;
    this.header.style.width = `${width}px`;
    this.renderHeader(shown);
    const first = Math.max(0, Math.floor(this.offset / ROW_PX) - ROWS_OVERSCAN);
    const last = Math.min(this.result.rows, Math.ceil((this.offset + this.inView) / ROW_PX) + ROWS_OVERSCAN);
    const needed = Math.max(0, last - first);
    while (this.pool.length < needed) {
      const element = h("div", { class: "grid-row", attrs: { role: "row" } });
      this.pool.push({ element, shows: "" });
      this.sizer.append(element);
    }
    for (const extra of this.pool.splice(needed)) {
      extra.element.remove();
    }
    const columns = shown.map(({ index, start, size }) => `${index}:${start}:${size}`).join();
    // By its number modulo the pool's size, so that rows that stay in view keep their elements.
    for (let row = first; row < last; row += 1) {
      const slot = this.pool[row % needed];
      if (slot) {
        slot.element.style.transform = `translateY(${this.placed + row * ROW_PX - this.offset}px)`;
        this.renderRow(slot, row, shown, columns);
      }
    }
    this.renderActive();
  }

  private renderHeader(shown: VirtualItem[]): void {
    const fields = this.result.schema?.fields ?? [];
    const cells = shown.flatMap(({ index, start, size }) => {
      const field = fields[index];
      if (field === undefined) {
        return [];
      }
      const cell = h(
        "div",
        {
          class: `grid-column${isNumeric(field.type) ? " numeric" : ""}`,
          title: `${field.name}: ${typeName(field)}${field.nullable ? "" : " NOT NULL"}`,
          attrs: { role: "columnheader", "aria-colindex": String(index + 1) },
        },
        h("span", { class: "grid-name" }, field.name),
        h("span", { class: "grid-type" }, typeName(field)),
      );
      place(cell, start, size);
      return [cell];
    });
    this.header.replaceChildren(...cells);
  }

  private renderRow(slot: Row, row: number, shown: VirtualItem[], columns: string): void {
    const shows = `${row}|${columns}`;
    if (slot.shows === shows) {
      return;
    }
    slot.shows = shows;
    slot.element.setAttribute("aria-rowindex", String(row + 2));
    slot.element.classList.toggle("odd", row % 2 === 1);
    const fields = this.result.schema?.fields ?? [];
    const cells = shown.map(({ index, start, size }) => {
      const text = this.result.text(row, index);
      const field = fields[index];
      const cell = h(
        "div",
        {
          class: `grid-cell${field && isNumeric(field.type) ? " numeric" : ""}${text === null ? " null" : ""}`,
          id: cellId(row, index),
          attrs: { role: "gridcell", "aria-colindex": String(index + 1) },
        },
        text ?? "NULL",
      );
      place(cell, start, size);
      return cell;
    });
    slot.element.replaceChildren(...cells);
  }

  private renderActive(): void {
    this.sizer.querySelector(".active")?.classList.remove("active");
    const { row, column } = this.active;
    const cell = column < 0 ? null : this.sizer.querySelector(`#${cellId(row, column)}`);
    cell?.classList.add("active");
    if (cell) {
      this.viewport.setAttribute("aria-activedescendant", cell.id);
    } else {
      this.viewport.removeAttribute("aria-activedescendant");
    }
  }

  private move(row: number, column: number): void {
    if (this.result.rows === 0 || this.result.columns === 0) {
      return;
    }
    this.active = {
      row: Math.max(0, Math.min(row, this.result.rows - 1)),
      column: Math.max(0, Math.min(column, this.result.columns - 1)),
    };
    const top = this.active.row * ROW_PX;
    if (top < this.offset) {
      this.scrollTo(top);
    } else if (top + ROW_PX > this.offset + this.inView) {
      this.scrollTo(top + ROW_PX - this.inView);
    }
    this.columns.scrollToIndex(this.active.column, { align: "auto" });
    this.schedule();
  }

  private key(event: KeyboardEvent): void {
    const { row } = this.active;
    const column = Math.max(0, this.active.column);
    const page = Math.max(1, Math.floor(this.inView / ROW_PX) - 1);
    const whole = event.ctrlKey || event.metaKey;
    const [firstRow, lastRow] = [0, this.result.rows - 1];
    const moves: Record<string, () => [number, number]> = {
      ArrowUp: () => [whole ? firstRow : row - 1, column],
      ArrowDown: () => [whole ? lastRow : this.active.column < 0 ? row : row + 1, column],
      ArrowLeft: () => [row, whole ? 0 : column - 1],
      ArrowRight: () => [row, whole ? this.result.columns : this.active.column < 0 ? 0 : column + 1],
      PageUp: () => [row - page, column],
      PageDown: () => [row + page, column],
      Home: () => [whole ? firstRow : row, 0],
      End: () => [whole ? lastRow : row, this.result.columns],
    };
    const move = moves[event.key];
    if (move && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      this.move(...move());
    }
  }

  private clicked(event: MouseEvent): void {
    const cell = (event.target as Element).closest(".grid-cell");
    const [, row, column] = /^cell-(\d+)-(\d+)$/.exec(cell?.id ?? "") ?? [];
    if (row !== undefined && column !== undefined) {
      this.active = { row: Number(row), column: Number(column) };
      this.schedule();
    }
  }

  private copied(event: ClipboardEvent): void {
    const { row, column } = this.active;
    if (column >= 0 && document.getSelection()?.isCollapsed !== false) {
      event.clipboardData?.setData("text/plain", this.result.text(row, column) ?? "");
      event.preventDefault();
    }
  }
}

function cellId(row: number, column: number): string {
  return `cell-${row}-${column}`;
}

function place(cell: HTMLElement, start: number, size: number): void {
  cell.style.left = `${start}px`;
  cell.style.width = `${size}px`;
}
