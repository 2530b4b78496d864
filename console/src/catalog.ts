// The catalog: what the session may query, with columns and types.
import { button, counted, h } from "./dom.ts";
import { type Column, Lane, type Source, type Table, TableKind } from "./gen/jammi/v1/catalog/catalog_pb.ts";
import type { Catalog } from "./server.ts";
import { quoted } from "./statements.ts";

/** How many rows a look at a table asks for. */
const LOOK_ROWS = 100;

interface Entry {
  name: string;
  sqlName: string;
  badge: string;
  about: string;
  columns: Column[];
  keys: Set<string>;
}

export class CatalogPanel {
  readonly element: HTMLElement;
  private readonly list = h("div", { class: "catalog-list" });
  private readonly filter: HTMLInputElement;
  private catalog: Catalog = { sources: [], tables: [] };

  constructor(
    private readonly insert: (text: string, own: boolean) => void,
    refresh: () => void,
  ) {
    this.filter = h("input", {
      type: "search",
      placeholder: "Filter",
      class: "catalog-filter",
      attrs: { "aria-label": "Filter tables and columns", autocomplete: "off" },
    });
    this.filter.addEventListener("input", () => this.render());
    this.element = h(
      "nav",
      { class: "catalog", attrs: { "aria-label": "Catalog" } },
      h(
        "div",
        { class: "catalog-top" },
        this.filter,
        button("↻", refresh, {
          class: "quiet icon",
          title: "Read the catalog again",
          ariaLabel: "Read the catalog again",
        }),
      ),
      this.list,
    );
  }

  show(catalog: Catalog): void {
    this.catalog = catalog;
    this.render();
  }

  /** Says why there is no catalog to show. */
  fail(text: string): void {
    this.list.replaceChildren(h("p", { class: "empty", attrs: { role: "status" } }, text));
  }

  private render(): void {
    const { sources, tables } = this.catalog;
    const open = new Set(
      [...this.list.querySelectorAll<HTMLDetailsElement>("details[open]")].map(({ id }) => id),
    );
    const ofKind = (kind: TableKind) => tables.filter((table) => table.kind === kind).map(ofTable);
    const groups = [
      this.group("Sources", sources.map(ofSource), open),
      this.group("Tables", ofKind(TableKind.TABLE), open),
      this.group("Views", ofKind(TableKind.VIEW), open),
    ].filter((group) => group !== null);
    const word = this.filter.value.trim();
    const none = word === "" ? "No sources or tables yet." : `Nothing is called “${word}”.`;
    this.list.replaceChildren(...(groups.length > 0 ? groups : [h("p", { class: "empty" }, none)]));
  }

  private group(title: string, entries: Entry[], open: Set<string>): HTMLElement | null {
    const word = this.filter.value.trim().toLowerCase();
    const found = entries.filter(
      ({ name, columns }) =>
        name.toLowerCase().includes(word) ||
        columns.some((column) => column.name.toLowerCase().includes(word)),
    );
    if (found.length === 0) {
      return null;
    }
    const items = found.map((entry) => h("li", {}, this.entry(entry, open)));
    return h(
      "section",
      {},
      h("h2", {}, title, h("span", { class: "count" }, String(found.length))),
      h("ul", {}, ...items),
    );
  }

  private entry(entry: Entry, open: Set<string>): HTMLElement {
    const id = `entry-${entry.sqlName}`;
    const columns = entry.columns.map((column) =>
      h(
        "li",
        {},
        button(column.name, () => this.insert(quoted(column.name), false), {
          class: "column",
          title: `Insert ${column.name}`,
        }),
        entry.keys.has(column.name)
          ? h("span", { class: "key", title: "Part of the primary key" }, "key")
          : null,
        h("span", { class: "type", title: column.nullable ? "" : "NOT NULL" }, column.type),
      ),
    );
    const look = `SELECT * FROM ${entry.sqlName} LIMIT ${LOOK_ROWS}`;
    return h(
      "details",
      { id, open: open.has(id) },
      h(
        "summary",
        { title: entry.about },
        h("span", { class: "name" }, entry.name),
        h("span", { class: "badge" }, entry.badge),
      ),
      h(
        "div",
        { class: "entry" },
        button("Query", () => this.insert(look, true), {
          class: "look",
          ariaLabel: `Query ${entry.name}`,
          title: look,
        }),
        h("ul", { attrs: { "aria-label": counted(entry.columns.length, "column") } }, ...columns),
      ),
    );
  }
}

function ofSource({ name, sqlName, lane, location, columns }: Source): Entry {
  return { name, sqlName, badge: badge(lane), about: `${sqlName}\n${location}`, columns, keys: new Set() };
}

function ofTable({ name, sqlName, lane, temporary, columns, indexes }: Table): Entry {
  const primary = indexes.find((index) => index.kind === 1);
  return {
    name,
    sqlName,
    badge: temporary ? "temporary" : badge(lane),
    about: sqlName,
    columns,
    keys: new Set(primary?.columns),
  };
}

function badge(lane: Lane): string {
  return lane === Lane.TENANT ? "own" : "shared";
}
