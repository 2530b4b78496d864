// Which statement of a text is meant, and what kind it is.

const DEFINES = /^\s*(?:create|drop|alter|rename)\b/i;
const BINDS = /\b(?:set|reset|set_config)\b/i;
const READS = /^\s*(?:select|with|values|table)\b/i;

/** A statement and where it starts in the text. */
export interface Statement {
  text: string;
  from: number;
}

/** The statements of a text, by the semicolons outside quotes and comments. */
export function statements(text: string): Statement[] {
  const found: Statement[] = [];
  const token = /'(?:[^']|'')*'?|"(?:[^"]|"")*"?|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|;/g;
  let from = 0;
  const add = (to: number) => {
    const part = text.slice(from, to);
    const bare = part.replace(/--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/g, "");
    if (bare.trim() !== "") {
      const start = from + (part.length - part.trimStart().length);
      found.push({ text: part.trim(), from: start });
    }
    from = to + 1;
  };
  for (const match of text.matchAll(token)) {
    if (match[0] === ";") {
      add(match.index);
    }
  }
  add(text.length);
  return found;
}

/** The statement that the cursor is in, or the one before it. */
export function statementAt(text: string, cursor: number): Statement | null {
  const found = statements(text);
  return found.findLast(({ from }) => from <= cursor) ?? found[0] ?? null;
}

/** Whether a statement may change what the catalog lists. */
export function defines(statement: string): boolean {
  return DEFINES.test(statement);
}

/** Whether a statement may bind the session: what holds none of the words does not. */
export function binds(statement: string): boolean {
  return BINDS.test(statement);
}

/** Whether EXPLAIN ANALYZE, which runs what it explains, changes nothing. */
export function reads(statement: string): boolean {
  return READS.test(statement);
}

/** An identifier as SQL spells it. */
export function quoted(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
