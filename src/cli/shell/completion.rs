//! What Tab offers: keywords, tables, columns, and the shell's own commands.

use std::sync::Arc;

use clap::ValueEnum;
use datafusion::common::utils::quote_identifier;
use parking_lot::RwLock;
use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::super::args::OutputFormat;
use super::super::target::TableRecord;
use super::command;
use super::line::{self, expects_table, is_in_string, word_start};

/// The keywords of statements.
const KEYWORDS: &[&str] = &[
    "ADD COLUMN",
    "ALL",
    "ALTER TABLE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CHECK",
    "CONSTRAINT",
    "COUNT",
    "CREATE INDEX",
    "CREATE TABLE",
    "CREATE VIEW",
    "CROSS JOIN",
    "DEFAULT",
    "DELETE FROM",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DO NOTHING",
    "DO UPDATE SET",
    "DROP COLUMN",
    "DROP INDEX",
    "DROP TABLE",
    "DROP VIEW",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "HAVING",
    "IF EXISTS",
    "IF NOT EXISTS",
    "IN",
    "INNER JOIN",
    "INSERT INTO",
    "INTERSECT",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "MATCHED",
    "MERGE INTO",
    "NOT",
    "NOT MATCHED",
    "NULL",
    "OFFSET",
    "ON",
    "ON CONFLICT",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "PRIMARY KEY",
    "RENAME TO",
    "RETURNING",
    "RIGHT JOIN",
    "SELECT",
    "SET",
    "SHOW TABLES",
    "THEN",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The catalogs and schemas whose tables go by their bare names.
const BARE_SCHEMAS: [(&str, &str); 2] = [("mutable", "public"), ("jammi", "catalog")];

/// What can be named.
#[derive(Debug, Default)]
pub struct Names {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    /// Catalog, schema and name.
    path: [String; 3],
    columns: Vec<String>,
}

/// Something to put in the place of the word before the cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where the word starts, in bytes.
    pub start: usize,
    /// What takes its place.
    pub text: String,
    /// Whether the word is whole then.
    pub is_whole: bool,
}

impl Names {
    /// The names of `tables` and their columns.
    pub fn new(tables: &[TableRecord]) -> Self {
        let tables = tables.iter().map(|table| Table {
            path: [&table.catalog, &table.schema, &table.name].map(String::clone),
            columns: table
                .columns
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect(),
        });
        Names {
            tables: tables.collect(),
        }
    }

    /// What may stand at the end of `line[..cursor]`.
    pub fn candidates(&self, line: &str, cursor: usize) -> Vec<Candidate> {
        let Some(before) = line.get(..cursor) else {
            return Vec::new();
        };
        let start = word_start(before);
        let word = &before[start..];
        let mut texts = if before.trim_start().starts_with('\\') {
            self.in_command(before.trim_start(), word)
        } else if is_in_string(before) {
            Vec::new()
        } else if let Some((qualifier, end)) = word.rsplit_once('.') {
            self.after_dot(line, &before[..start], qualifier, end)
        } else {
            self.bare(line, &before[..start], word)
        };
        let mut seen = std::collections::HashSet::new();
        texts.retain(|(text, _)| seen.insert(text.clone()));
        texts
            .into_iter()
            .map(|(text, is_whole)| Candidate {
                start,
                text,
                is_whole,
            })
            .collect()
    }

    fn in_command(&self, command: &str, word: &str) -> Vec<(String, bool)> {
        let Some((name, _)) = command.split_once(char::is_whitespace) else {
            return matching(command::NAMES, word);
        };
        match name {
            "\\d" => self.table_names(word),
            "\\format" => {
                let formats = OutputFormat::value_variants().iter();
                let names = formats
                    .filter(|format| !format.is_binary())
                    .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()));
                matching(names, word)
            }
            "\\timing" => matching(["on", "off"], word),
            _ => Vec::new(),
        }
    }

    /// What follows `qualifier.`: a schema, a table, or a column.
    fn after_dot(
        &self,
        line: &str,
        before: &str,
        qualifier: &str,
        end: &str,
    ) -> Vec<(String, bool)> {
        let qualified = |name: &str| format!("{qualifier}.{}", quoted(name));
        let path: Vec<String> = qualifier.split('.').map(unquoted).collect();
        let mut found = Vec::new();
        for table in &self.tables {
            let [catalog, schema, name] = &table.path;
            if path == [catalog.as_str()] && starts_with(schema, end) {
                found.push((qualified(schema) + ".", false));
            }
            if path == [catalog.as_str(), schema.as_str()] && starts_with(name, end) {
                found.push((qualified(name), true));
            }
        }
        if expects_table(before) {
            return found;
        }
        let mentioned = self.mentioned(line);
        let columns = mentioned
            .iter()
            .filter(|(table, alias)| path.as_slice() == alias.as_slice() || is_called(table, &path))
            .flat_map(|(table, _)| &table.columns)
            .filter(|column| starts_with(column, end));
        found.extend(columns.map(|column| (qualified(column), true)));
        found
    }

    fn bare(&self, line: &str, before: &str, word: &str) -> Vec<(String, bool)> {
        if expects_table(before) {
            return self.table_names(word);
        }
        if word.is_empty() {
            return Vec::new();
        }
        let mentioned = self.mentioned(line);
        let columns: Vec<&String> = if mentioned.is_empty() {
            self.tables
                .iter()
                .flat_map(|table| &table.columns)
                .collect()
        } else {
            mentioned
                .iter()
                .flat_map(|(table, _)| &table.columns)
                .collect()
        };
        let mut found = matching(columns.into_iter().map(|column| quoted(column)), word);
        let as_typed = |keyword: &&str| match word.starts_with(char::is_lowercase) {
            true => keyword.to_lowercase(),
            false => (*keyword).to_owned(),
        };
        found.extend(matching(KEYWORDS.iter().map(as_typed), word));
        found.extend(self.table_names(word));
        found
    }

    /// The tables whose whole name or own name starts with `word`.
    fn table_names(&self, word: &str) -> Vec<(String, bool)> {
        let tables = self.tables.iter().filter_map(|table| {
            let [catalog, schema, name] = &table.path;
            let full = [catalog, schema, name].map(|part| quoted(part)).join(".");
            let is_bare = BARE_SCHEMAS.contains(&(catalog.as_str(), schema.as_str()));
            if is_bare && starts_with(name, word) {
                Some((quoted(name), true))
            } else if starts_with(&full, word) || starts_with(name, word) {
                Some((full, true))
            } else {
                None
            }
        });
        tables.collect()
    }

    /// The tables that `line` reads, with what it calls them.
    fn mentioned(&self, line: &str) -> Vec<(&Table, Option<String>)> {
        let mut found = Vec::new();
        for relation in line::relations(line) {
            let tables = self.tables.iter();
            let tables = tables.filter(|table| is_called(table, &relation.path));
            found.extend(tables.map(|table| (table, relation.alias.clone())));
        }
        found
    }
}

/// Whether `path` is the end of the table's whole name.
fn is_called(table: &Table, path: &[String]) -> bool {
    !path.is_empty() && table.path.ends_with(path)
}

fn unquoted(part: &str) -> String {
    match part.strip_prefix('"') {
        Some(inner) => inner.trim_end_matches('"').to_owned(),
        None => part.to_lowercase(),
    }
}

fn quoted(name: &str) -> String {
    quote_identifier(name).into_owned()
}

fn matching<T: Into<String>>(
    texts: impl IntoIterator<Item = T>,
    word: &str,
) -> Vec<(String, bool)> {
    texts
        .into_iter()
        .map(Into::into)
        .filter(|text| starts_with(text, word))
        .map(|text| (text, true))
        .collect()
}

/// Without regard to case or to a quote that was opened.
fn starts_with(text: &str, word: &str) -> bool {
    let plain = |text: &str| text.replace('"', "").to_lowercase();
    plain(text).starts_with(&plain(word))
}

/// Offers [`Names`] to the line editor.
pub struct NameCompleter {
    names: Arc<RwLock<Names>>,
}

impl NameCompleter {
    /// A completer of whatever `names` holds at the time.
    pub fn new(names: Arc<RwLock<Names>>) -> Self {
        NameCompleter { names }
    }
}

impl Completer for NameCompleter {
    fn complete(&mut self, line: &str, cursor: usize) -> CompletionResult {
        let candidates = self.names.read().candidates(line, cursor);
        let suggestions = candidates.into_iter().map(|candidate| Suggestion {
            value: candidate.text,
            span: Span::new(candidate.start, cursor),
            append_whitespace: candidate.is_whole,
            ..Suggestion::default()
        });
        CompletionResult::fresh(suggestions.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};

    fn names() -> Names {
        let table = |catalog: &str, schema: &str, name: &str, columns: &[&str]| TableRecord {
            catalog: catalog.into(),
            schema: schema.into(),
            name: name.into(),
            kind: "TABLE".into(),
            columns: Arc::new(Schema::new(
                columns
                    .iter()
                    .map(|column| Field::new(*column, DataType::Utf8, true))
                    .collect::<Vec<_>>(),
            )),
        };
        Names::new(&[
            table("inbox", "public", "inbox", &["id", "title", "Sent At"]),
            table("rates", "public", "rates", &["currency", "rate"]),
            table("jammi", "catalog", "models", &["name", "version"]),
        ])
    }

    #[test]
    fn tab_offers_what_may_stand_at_the_cursor() {
        let names = names();
        // `|` is the cursor.
        for (input, expected) in [
            ("sel|", &["select"][..]),
            ("SEL|", &["SELECT"]),
            (
                "select * from |",
                &["inbox.public.inbox", "rates.public.rates", "models"],
            ),
            ("select * from in|", &["inbox.public.inbox"]),
            ("select * from mo|", &["models"]),
            ("select * from inbox.|", &["inbox.public."]),
            ("select * from inbox.public.|", &["inbox.public.inbox"]),
            ("select ti| from inbox.public.inbox", &["title"]),
            (
                "select ra| from inbox.public.inbox",
                &["rates.public.rates"],
            ),
            (
                "select i.| from inbox.public.inbox as i",
                &["i.id", "i.title", "i.\"Sent At\""],
            ),
            (
                "select r.c| from rates.public.rates r where",
                &["r.currency"],
            ),
            ("select models.v| from models", &["models.version"]),
            ("select 'sel|", &[]),
            ("select é, cur|", &["currency"]),
            ("\\t|", &["\\tenant", "\\timing"]),
            ("\\d in|", &["inbox.public.inbox"]),
            ("\\format |", &["table", "csv", "json", "ndjson"]),
            ("|", &[]),
        ] {
            let cursor = input.find('|').unwrap();
            let line = input.replacen('|', "", 1);
            let offered: Vec<String> = names
                .candidates(&line, cursor)
                .into_iter()
                .map(|candidate| candidate.text)
                .collect();
            assert_eq!(offered, expected, "{input}");
        }
    }

    #[test]
    fn a_candidate_replaces_its_whole_word() {
        let line = "select i.ti";
        let line = format!("{line} from inbox.public.inbox i");
        let found = names().candidates(&line, "select i.ti".len());
        assert_eq!(
            found,
            [Candidate {
                start: "select ".len(),
                text: "i.title".into(),
                is_whole: true,
            }]
        );
    }
}
