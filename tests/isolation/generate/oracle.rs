//! Conversations about a shared server and a dedicated one, and about queries that
//! must yield the same rows.

use super::define::stored_columns;
use super::{Column, Generator, Table, Type};
use crate::conversation::{Conversation, Line, Route};
use crate::dice::Dice;

/// One server is shared, and the other is a dedicated one: it holds Alice's rows and
/// everybody's, in files in which no tenant is looked at.
pub fn shared(seed: u64, statements: usize) -> Conversation {
    let mut generator = Generator::new(Dice::new("shared", seed));
    let mut talk = Conversation::default();
    talk.push("server", Route::Setting, "dedicated true");
    if generator.dice.percent(30) {
        talk.push("server", Route::Setting, "partitions 3");
    }
    generator.dedicated(&mut talk, seed);
    for at in 0..statements {
        let line = match at % 8 {
            0..=3 => Line::new("alice", Route::Query, generator.reads()),
            4..=6 => generator.partitioned(),
            _ => generator.of_lanes(),
        };
        talk.lines.push(line);
    }
    talk
}

/// Whose rows there are.
const OWNERS: [&str; 4] = ["alice", "operator", "carol", "bob"];

impl Generator {
    fn dedicated(&mut self, talk: &mut Conversation, seed: u64) {
        for place in 0..3 {
            let name = format!("s{}", place + 1);
            let (layout, encoding) = self.layout(seed, place);
            // What says the columns' types to whoever infers them.
            let first = format!("{name} [1, 2, \"carols\", 0.5, true]");
            talk.push("carol", Route::Row, first);
            self.rows_of_all(talk, &name);
            talk.push(
                "operator",
                Route::Source,
                format!("{name} {layout} {encoding}"),
            );
            talk.lines.push(Generator::bob_reads(&name).only(0));
            self.tables.push(Generator::source(&name, encoding));
        }
        for (name, owner) in [("t1", "operator"), ("t2", "operator"), ("u1", "alice")] {
            self.rows_of_all(talk, name);
            if owner == "alice" {
                let others = |line: &Line| line.text.starts_with("u1") && line.who != "alice";
                talk.lines.retain(|line| !others(line));
            }
            talk.push(owner, Route::Source, format!("{name} stored text"));
            if self.dice.percent(50) {
                let sql = format!("CREATE INDEX {name}_by_n ON {name} (n)");
                talk.lines.push(Line::new(owner, Route::Query, sql).only(0));
            }
            self.tables.push(Table {
                sql: name.to_owned(),
                name: name.to_owned(),
                columns: stored_columns(),
                tenant: true,
                writable: false,
                own: false,
            });
        }
        for (name, condition) in [("v1", ""), ("v2", " WHERE n IS NOT NULL")] {
            let of = self.tables[self.dice.below(5)].sql.clone();
            let sql = format!(
                "CREATE VIEW {name} AS SELECT id, n, title, score, ok FROM {of}{condition}"
            );
            talk.push("operator", Route::Query, sql);
            self.tables.push(Table {
                sql: name.to_owned(),
                name: name.to_owned(),
                columns: stored_columns(),
                tenant: false,
                writable: false,
                own: false,
            });
        }
    }

    fn rows_of_all(&mut self, talk: &mut Conversation, name: &str) {
        for key in 2..18 {
            let who = OWNERS[self.dice.below(4)];
            let row = match who {
                "alice" | "operator" => self.row_of(key),
                _ => self.others_row(key),
            };
            talk.push(who, Route::Row, format!("{name} {row}"));
            // A key that several tenants have.
            if self.dice.percent(30) {
                let row = self.others_row(key);
                talk.push(
                    if who == "bob" { "carol" } else { "bob" },
                    Route::Row,
                    format!("{name} {row}"),
                );
            }
        }
    }

    fn others_row(&mut self, key: i64) -> String {
        match self.dice.percent(10) {
            true => self.bobs_row(key),
            false => {
                let row = self.row_of(key);
                // What fails on the rows of others alone.
                row.replacen(", 5,", ", 777,", 1)
                    .replacen("\"5\"", "\"canary\"", 1)
            }
        }
    }

    /// What each lane yields of a table is together what all rows yield: of queries
    /// that look at one row at a time.
    fn of_lanes(&mut self) -> Line {
        self.begin(0);
        let types = self.types(3);
        // The own table of Alice is nobody else's.
        let shared: Vec<Table> = self.tables.iter().take(5).cloned().collect();
        let table = shared[self.dice.below(shared.len())].clone();
        let (traps, subqueries) = (self.traps, self.subqueries);
        (self.traps, self.subqueries) = (false, false);
        let mut query = self.linear(&table, &types);
        if self.dice.percent(30) {
            query += &format!(" UNION ALL {}", self.linear(&table, &types));
        }
        (self.traps, self.subqueries) = (traps, subqueries);
        let name = &table.name;
        let all = query.replace(
            &format!("FROM {} AS", table.sql),
            &format!("FROM {name}_all.public.{name}_all AS"),
        );
        Line::new("everybody", Route::Lanes, format!("{query} == {all}")).only(0)
    }

    fn linear(&mut self, table: &Table, types: &[Type]) -> String {
        let alias = self.name("a");
        let (from, columns) = self.named(table, &alias);
        let items = self.items(types, &columns);
        let condition = self.condition(&columns);
        format!("SELECT {items} FROM {from}{condition}")
    }

    /// A query, and the same in three parts: where a condition is true, where it is
    /// false, and where it is NULL (ternary logic partitioning, Rigger and Su, 2020);
    /// or a condition that is optimized, and one that is only evaluated (NoREC).
    fn partitioned(&mut self) -> Line {
        self.begin(3);
        let traps = std::mem::replace(&mut self.traps, false);
        let lists = std::mem::replace(&mut self.lists, false);
        let (from, columns) = match self.dice.percent(40) {
            true => {
                let types = self.types(3);
                let query = self.query(&types, 2);
                let alias = self.name("a");
                (
                    format!("({query}) AS {alias}"),
                    super::relation::numbered(&alias, &types),
                )
            }
            false => self.from(1),
        };
        let text = match self.dice.below(6) {
            0 | 1 => self.three_parts(&from, &columns, "", "UNION ALL"),
            2 => self.three_parts(&from, &columns, "DISTINCT ", "UNION"),
            3 => self.three_sums(&from, &columns),
            4 => self.three_groups(&from, &columns),
            _ => self.evaluated(&from, &columns),
        };
        (self.traps, self.lists) = (traps, lists);
        Line::new("alice", Route::Same, text)
    }

    fn three_parts(
        &mut self,
        from: &str,
        columns: &[Column],
        distinct: &str,
        union: &str,
    ) -> String {
        let types = self.types(3);
        let items = self.items(&types, columns);
        let condition = self.boolean(columns, 2);
        let whole = format!("SELECT {distinct}{items} FROM {from}");
        let parts = thirds(&condition).map(|part| format!("{whole} WHERE {part}"));
        format!("{whole} == {}", parts.join(&format!(" {union} ")))
    }

    fn three_sums(&mut self, from: &str, columns: &[Column]) -> String {
        let (integer, text, double) = (
            self.simple(Type::Integer, columns),
            self.simple(Type::Text, columns),
            self.simple(Type::Double, columns),
        );
        let condition = self.boolean(columns, 2);
        let whole = format!(
            "SELECT count(*) AS c0, sum({integer}) AS c1, min({text}) AS c2, max({double}) AS c3, sum({double}) AS c4 FROM {from}"
        );
        let parts = thirds(&condition).map(|part| format!("{whole} WHERE {part}"));
        format!(
            "{whole} == SELECT sum(c0), sum(c1), min(c2), max(c3), sum(c4) FROM ({}) AS parts",
            parts.join(" UNION ALL ")
        )
    }

    fn three_groups(&mut self, from: &str, columns: &[Column]) -> String {
        let key = columns[self.dice.below(columns.len())].sql.clone();
        let value = self.simple(Type::Integer, columns);
        let limit = self.dice.below(12);
        let whole = format!(
            "SELECT {key} AS c0, count(*) AS c1, max({value}) AS c2 FROM {from} GROUP BY {key}"
        );
        let parts =
            thirds(&format!("max({value}) > {limit}")).map(|part| format!("{whole} HAVING {part}"));
        format!("{whole} == {}", parts.join(" UNION ALL "))
    }

    fn evaluated(&mut self, from: &str, columns: &[Column]) -> String {
        let before = std::mem::replace(&mut self.subqueries, false);
        let condition = self.boolean(columns, 2);
        self.subqueries = before;
        format!(
            "SELECT count(*) FROM {from} WHERE {condition} == SELECT coalesce(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) FROM {from}"
        )
    }
}

/// Where a condition is true, false and NULL.
fn thirds(condition: &str) -> [String; 3] {
    [
        format!("({condition})"),
        format!("NOT ({condition})"),
        format!("({condition}) IS NULL"),
    ]
}
