//! Statements that write rows, each as Alice.

use super::{Column, Generator, Table, Type};
use crate::conversation::{Line, Route};

/// The columns of a table that rows are written to.
const WRITTEN: [(&str, Type); 5] = [
    ("id", Type::Integer),
    ("n", Type::Integer),
    ("title", Type::Text),
    ("score", Type::Double),
    ("ok", Type::Boolean),
];

impl Generator {
    fn target(&mut self) -> Option<Table> {
        let fits = |table: &&Table| table.writable && table.columns.len() >= WRITTEN.len();
        let targets: Vec<&Table> = self.tables.iter().filter(fits).collect();
        match targets.len() {
            0 => None,
            count => Some(targets[self.dice.below(count)].clone()),
        }
    }

    /// A key that is free, for the most part.
    fn key(&mut self) -> i64 {
        match self.dice.percent(12) {
            true => self.dice.below(20) as i64,
            false => 1000 + self.dice.below(100_000) as i64,
        }
    }

    /// The values of a row of Alice's: titles that are numbers, and numbers that are
    /// small, so that what fails on other rows does not on hers.
    pub fn row(&mut self) -> String {
        let key = self.key();
        self.row_of(key)
    }

    pub fn row_of(&mut self, key: i64) -> String {
        let n = match self.dice.percent(15) {
            true => "null".to_owned(),
            false => self.dice.below(12).to_string(),
        };
        let title = match self.dice.percent(15) {
            true => "null".to_owned(),
            false => format!("\"{}\"", self.dice.below(12)),
        };
        let score = format!(
            "{}.{}",
            self.dice.below(9),
            ["0", "25", "5"][self.dice.below(3)]
        );
        let ok = self.dice.pick(&["true", "false", "null"]);
        format!("[{key}, {n}, {title}, {score}, {ok}]")
    }

    /// The same as SQL.
    fn sql_row(&mut self) -> String {
        let row = self.row().replace('"', "'");
        row.trim_matches(|c| c == '[' || c == ']').to_owned()
    }

    /// A line that writes, if there is a table to write to.
    pub fn write(&mut self) -> Option<Line> {
        let table = self.target()?;
        self.begin(3);
        let sql = match self.dice.weighted(&[22, 12, 22, 18, 12, 1, 6, 7]) {
            0 => self.insert_values(&table),
            1 => self.insert_query(&table),
            2 => self.update(&table),
            3 => self.delete(&table),
            4 => self.merge(&table),
            5 => format!("TRUNCATE {}", table.sql),
            6 => {
                let rows: Vec<String> = (0..1 + self.dice.below(3)).map(|_| self.row()).collect();
                let text = format!("{} append [{}]", table.name, rows.join(", "));
                return Some(Line::new("alice", Route::Ingest, text));
            }
            _ => {
                let text = format!(
                    "[{}, \"{}\"] UPDATE {} SET title = $2 WHERE id = $1 OR n = $1",
                    self.dice.below(12),
                    self.dice.below(12),
                    table.sql
                );
                return Some(Line::new("alice", Route::Prepared, text));
            }
        };
        if self.dice.percent(6) && !sql.starts_with("TRUNCATE") {
            return Some(Line::new("alice", Route::Query, format!("EXPLAIN {sql}")));
        }
        let returning = sql.contains(" RETURNING ");
        let route = match returning || self.dice.percent(50) {
            true => Route::Query,
            false => Route::Update,
        };
        Some(Line::new("alice", route, sql))
    }

    fn returning(&mut self) -> &'static str {
        match self.dice.below(5) {
            0 => " RETURNING *",
            1 => " RETURNING id, n + 1 AS more",
            _ => "",
        }
    }

    fn insert_values(&mut self, table: &Table) -> String {
        let rows: Vec<String> = (0..1 + self.dice.below(3))
            .map(|_| format!("({})", self.sql_row()))
            .collect();
        let conflict = match self.dice.below(6) {
            0 => " ON CONFLICT DO NOTHING",
            1 => " ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE excluded.id > 3",
            _ => "",
        };
        format!(
            "INSERT INTO {} (id, n, title, score, ok) VALUES {}{conflict}{}",
            table.sql,
            rows.join(", "),
            self.returning()
        )
    }

    fn insert_query(&mut self, table: &Table) -> String {
        let alias = self.name("a");
        let (from, columns) = self.table(&alias);
        let shift = 200_000 + 1000 * self.dice.below(500);
        let key = match columns.iter().find(|column| column.sql.ends_with(".id")) {
            Some(column) => format!("{} + {shift}", column.sql),
            None => shift.to_string(),
        };
        let n = self.simple(Type::Integer, &columns);
        let score = self.simple(Type::Double, &columns);
        let condition = self.boolean(&columns, 1);
        format!(
            "INSERT INTO {} (id, n, score) SELECT {key}, {n}, {score} FROM {from} WHERE {condition} ON CONFLICT DO NOTHING{}",
            table.sql,
            self.returning()
        )
    }

    /// The columns of a target, by its own name.
    fn columns_of(&self, table: &Table) -> Vec<Column> {
        let columns = WRITTEN.iter().map(|(name, of)| Column {
            sql: format!("{}.{name}", table.name),
            of: *of,
            stored: true,
        });
        columns.collect()
    }

    fn update(&mut self, table: &Table) -> String {
        let columns = self.columns_of(table);
        let (name, of) = WRITTEN[1 + self.dice.below(4)];
        let value = match name {
            // So that titles stay numbers, and numbers small.
            "title" => format!("'{}'", self.dice.below(12)),
            "n" => format!("({}) % 12", self.simple(Type::Integer, &columns)),
            _ => self.expression(of, &columns, 1),
        };
        let condition = self.expression(Type::Boolean, &columns, 2);
        if self.dice.percent(20) {
            let alias = self.name("a");
            let (from, other) = self.table(&alias);
            let joined = self.simple(Type::Integer, &other);
            return format!(
                "UPDATE {} SET {name} = {value} FROM {from} WHERE {}.id = {joined} AND {condition}",
                table.sql, table.name
            );
        }
        format!(
            "UPDATE {} SET {name} = {value} WHERE {condition}{}",
            table.sql,
            self.returning()
        )
    }

    fn delete(&mut self, table: &Table) -> String {
        let columns = self.columns_of(table);
        let condition = self.expression(Type::Boolean, &columns, 2);
        // Few rows go, so that some stay for what comes after.
        let few = format!("{}.id % 5 = {}", table.name, self.dice.below(5));
        format!(
            "DELETE FROM {} WHERE {condition} AND {few}{}",
            table.sql,
            self.returning()
        )
    }

    fn merge(&mut self, table: &Table) -> String {
        let shift = 900_000 + self.dice.below(90_000);
        let name = &table.name;
        let alias = self.name("a");
        let (from, columns) = self.table(&alias);
        let id = self.simple(Type::Integer, &columns);
        let n = self.simple(Type::Integer, &columns);
        let matched = match self.dice.below(3) {
            0 => "DELETE",
            1 => "UPDATE SET n = s.n % 12",
            _ => "UPDATE SET score = 0.25, ok = NOT ok",
        };
        let more = match self.dice.below(4) {
            0 => format!(" WHEN NOT MATCHED BY SOURCE AND {name}.n = 3 THEN UPDATE SET n = 4"),
            1 => format!(
                " WHEN NOT MATCHED AND s.id > 3 THEN INSERT (id, n) VALUES (s.id + {shift}, s.n)"
            ),
            _ => String::new(),
        };
        format!(
            "MERGE INTO {} USING (SELECT {id} AS id, max({n}) AS n FROM {from} WHERE {id} IS NOT NULL GROUP BY {id}) AS s ON {name}.id = s.id WHEN MATCHED AND s.n > 2 THEN {matched}{more}",
            table.sql
        )
    }
}
