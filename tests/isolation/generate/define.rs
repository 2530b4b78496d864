//! Statements that define tables, views and indexes, each as Alice.

use super::{Generator, Table, Type};

/// Names that Alice makes objects of; Bob has some of them.
pub const NAMES: [&str; 4] = ["fresh", "secret", "draft", "notes"];

pub fn stored_columns() -> Vec<(String, Type)> {
    [
        ("id", Type::Integer),
        ("n", Type::Integer),
        ("title", Type::Text),
        ("score", Type::Double),
        ("ok", Type::Boolean),
    ]
    .map(|(name, of)| (name.to_owned(), of))
    .to_vec()
}

pub const TABLE_COLUMNS: &str =
    "id BIGINT PRIMARY KEY, n BIGINT, title VARCHAR, score DOUBLE DEFAULT 0.5, ok BOOLEAN";

impl Generator {
    fn exists(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.name == name)
    }

    fn own(&mut self) -> Option<Table> {
        let own: Vec<&Table> = self.tables.iter().filter(|table| table.own).collect();
        match own.len() {
            0 => None,
            count => Some(own[self.dice.below(count)].clone()),
        }
    }

    /// A definition, for the most part one that can be made.
    pub fn define(&mut self) -> String {
        self.begin(3);
        let name = self.dice.pick(&NAMES);
        if !self.exists(name) {
            return self.create(name);
        }
        match self.dice.below(10) {
            0..=2 => {
                self.tables.retain(|table| table.name != name);
                format!("DROP TABLE IF EXISTS {name}")
            }
            3 => format!("CREATE INDEX {name}_by_n ON {name} (n)"),
            4 => format!("CREATE UNIQUE INDEX {name}_by_title ON {name} (title)"),
            5 => {
                let view = self.name("view_");
                let types = self.types(2);
                let query = self.query(&types, 1);
                format!("CREATE OR REPLACE VIEW {view} AS {query}")
            }
            6 => format!("DROP INDEX {name}_by_n"),
            7 => {
                // No statement reads the column, so that all of them still do.
                let column = self.dice.below(3);
                format!("ALTER TABLE {name} ADD COLUMN extra{column} BIGINT DEFAULT 3")
            }
            8 => match self.own() {
                Some(table) => format!("ALTER TABLE {} ALTER COLUMN n SET DEFAULT 4", table.sql),
                None => format!("DROP TABLE {name}"),
            },
            _ => format!("CREATE TABLE IF NOT EXISTS {name} ({TABLE_COLUMNS})"),
        }
    }

    fn create(&mut self, name: &str) -> String {
        let kind = self.dice.below(3);
        let table = Table {
            sql: name.to_owned(),
            name: name.to_owned(),
            columns: stored_columns(),
            tenant: true,
            writable: true,
            own: true,
        };
        match kind {
            0 => {
                self.tables.push(table);
                format!(
                    "CREATE TABLE {name} ({TABLE_COLUMNS}, UNIQUE (title, id), CHECK (n < 100000))"
                )
            }
            1 => {
                let types: Vec<Type> = table.columns.iter().map(|(_, of)| *of).collect();
                let query = self.query(&types, 1);
                self.tables.push(table);
                format!(
                    "CREATE TABLE {name} AS SELECT c0 AS id, c1 AS n, c2 AS title, c3 AS score, c4 AS ok FROM ({query}) AS q"
                )
            }
            _ => {
                self.tables.push(table);
                format!("CREATE TEMPORARY TABLE {name} ({TABLE_COLUMNS})")
            }
        }
    }
}
