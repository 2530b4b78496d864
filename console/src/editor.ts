// The SQL editor: CodeMirror with completion from the catalog.
//
// It is in a shadow root, where CodeMirror adopts its style sheets; in the document it would write a <style>, which
// the page's content security policy refuses.
import {
  acceptCompletion,
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  closeCompletion,
  completionKeymap,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { PostgreSQL, type SQLNamespace, sql } from "@codemirror/lang-sql";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { type Diagnostic, lintGutter, setDiagnostics } from "@codemirror/lint";
import { Compartment, EditorState } from "@codemirror/state";
import {
  drawSelection,
  EditorView,
  highlightActiveLine,
  keymap,
  lineNumbers,
  placeholder,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { h } from "./dom.ts";
import type { Catalog } from "./server.ts";
import { type Statement, statementAt } from "./statements.ts";

const HIGHLIGHT = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--code-keyword)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-number)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  { tag: tags.typeName, color: "var(--code-type)" },
]);

const THEME = EditorView.theme({
  "&": { height: "100%", fontSize: "14px", color: "var(--text)", backgroundColor: "var(--surface)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6" },
  ".cm-content": { caretColor: "var(--text)", padding: "10px 0" },
  ".cm-cursor": { borderLeftColor: "var(--text)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--faint)", border: "none" },
  ".cm-activeLine": { backgroundColor: "var(--line-active)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selection) !important",
  },
  ".cm-matchingBracket": { backgroundColor: "var(--selection) !important" },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)",
    color: "var(--text)",
    border: "1px solid var(--border)",
    borderRadius: "6px",
    boxShadow: "var(--shadow)",
    overflow: "hidden",
  },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", maxHeight: "16em" },
  ".cm-tooltip-autocomplete > ul > li": { padding: "3px 8px" },
  ".cm-tooltip-autocomplete > ul > li[aria-selected]": {
    backgroundColor: "var(--accent) !important",
    color: "var(--on-accent) !important",
  },
  ".cm-completionDetail": { color: "inherit", opacity: "0.7" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--danger)" },
});

export class Editor {
  readonly element: HTMLElement;
  private readonly view: EditorView;
  private readonly language = new Compartment();

  constructor(text: string, onRun: () => void, onChange: (text: string) => void) {
    this.element = h("div", { class: "editor" });
    const root = this.element.attachShadow({ mode: "open" });
    const runs = (view: EditorView) => {
      closeCompletion(view);
      onRun();
      return true;
    };
    this.view = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: text,
        selection: { anchor: text.length },
        extensions: [
          lineNumbers(),
          history(),
          drawSelection(),
          bracketMatching(),
          closeBrackets(),
          highlightActiveLine(),
          // Its icons are letters that many systems have no glyph for.
          autocompletion({ icons: false }),
          lintGutter(),
          EditorView.lineWrapping,
          placeholder("SELECT …"),
          EditorView.contentAttributes.of({ "aria-label": "SQL", spellcheck: "false" }),
          // Before the default keymap, in which Mod-Enter is a blank line. Tab takes what is offered, and leaves
          // the editor where nothing is.
          keymap.of([
            { key: "Mod-Enter", run: runs },
            { key: "Tab", run: acceptCompletion },
          ]),
          keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap]),
          syntaxHighlighting(HIGHLIGHT),
          THEME,
          this.language.of(sql({ dialect: PostgreSQL, upperCaseKeywords: true })),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) {
              onChange(update.state.doc.toString());
            }
          }),
        ],
      }),
    });
  }

  /** What to run: what is selected, else the statement at the cursor. */
  statement(): Statement | null {
    const { state } = this.view;
    const { from, to, head, empty } = state.selection.main;
    const selected = state.sliceDoc(from, to);
    if (!empty && selected.trim() !== "") {
      return { text: selected.trim(), from: from + (selected.length - selected.trimStart().length) };
    }
    return statementAt(state.doc.toString(), head);
  }

  /** Replaces the selection with `text`, or adds it as a statement of its own. */
  insert(text: string, own: boolean): void {
    const { state } = this.view;
    const { doc, selection } = state;
    const before = doc.toString().trimEnd();
    const { from, to } = own ? { from: before.length, to: doc.length } : selection.main;
    const lead = own && before !== "" ? `${before.endsWith(";") ? "" : ";"}\n\n` : "";
    const insert = lead + text;
    this.view.dispatch({
      changes: { from, to, insert },
      selection: { anchor: from + insert.length },
      scrollIntoView: true,
    });
    this.focus();
  }

  focus(): void {
    this.view.focus();
  }

  /** Offers the catalog's names. */
  complete(catalog: Catalog): void {
    const dialect = { dialect: PostgreSQL, upperCaseKeywords: true, schema: namespace(catalog) };
    this.view.dispatch({ effects: this.language.reconfigure(sql(dialect)) });
  }

  /** Marks where an error's text says that the statement is wrong, as in `at Line: 1, Column: 8`. */
  mark(statement: Statement | null, message: string): void {
    const diagnostics: Diagnostic[] = [];
    const [, line, column] = /at Line: (\d+), Column: (\d+)/.exec(message) ?? [];
    if (statement !== null && line !== undefined && column !== undefined) {
      const lines = statement.text.split("\n").slice(0, Number(line) - 1);
      const within = lines.reduce((sum, text) => sum + text.length + 1, 0) + Number(column) - 1;
      const from = Math.min(statement.from + within, this.view.state.doc.length);
      const word = /^[\w"]*/.exec(this.view.state.sliceDoc(from, from + 100))?.[0].length ?? 0;
      diagnostics.push({
        from,
        to: Math.min(from + Math.max(1, word), this.view.state.doc.length),
        severity: "error",
        message,
      });
    }
    this.view.dispatch(setDiagnostics(this.view.state, diagnostics));
  }
}

/** The catalog as lang-sql nests names: catalog, schema, table, columns; and tables by their bare names. */
function namespace({ sources, tables }: Catalog): SQLNamespace {
  const columns = (list: { name: string; type: string }[]) =>
    list.map(({ name, type }) => ({ label: name, type: "property", detail: type }));
  const own = Object.fromEntries(tables.map((table) => [table.name, columns(table.columns)]));
  // A source is completed to its whole name, since its first part alone is no table.
  const named = ({ name, sqlName, columns: list }: Catalog["sources"][number]): [string, SQLNamespace] => [
    name,
    {
      self: { label: name, type: "class", apply: sqlName, detail: "source" },
      children: { public: { [name]: columns(list) } },
    },
  ];
  return {
    ...Object.fromEntries(sources.map(named)),
    ...own,
    mutable: { public: own },
    jammi: { catalog: { sources: [], tables: [], models: [] } },
  };
}
