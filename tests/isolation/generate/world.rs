//! Worlds, and whole conversations in them.

use super::define::{NAMES, TABLE_COLUMNS, stored_columns};
use super::{Generator, Table};
use crate::conversation::{Conversation, Line, Route};
use crate::dice::Dice;
use crate::files::{ENCODINGS, LAYOUTS};

/// Conversations in which the servers differ in what is Bob's alone: his rows, how
/// many they are, and his objects.
pub fn private(seed: u64, statements: usize) -> Conversation {
    let mut generator = Generator::new(Dice::new("private", seed));
    let mut talk = Conversation::default();
    if generator.dice.percent(30) {
        talk.push("server", Route::Setting, "partitions 3");
    }
    generator.sources(&mut talk, seed);
    generator.stored_tables(&mut talk);
    generator.bobs(&mut talk);
    let mut in_transaction = false;
    for _ in 0..statements {
        let line = generator.says(&mut in_transaction);
        // What is kept of a statement is of whoever said it.
        if line.text.starts_with("SELECT") && generator.dice.percent(15) {
            let world = generator.dice.below(2);
            talk.lines
                .push(Line::new("bob", Route::Query, &line.text).only(world));
        }
        talk.lines.push(line);
        if generator.dice.percent(6) {
            let line = generator.meanwhile();
            talk.lines.push(line);
        }
    }
    talk
}

/// Everybody whose rows lie in a shared source.
const OWNERS: [&str; 4] = ["alice", "carol", "operator", "bob"];

impl Generator {
    pub fn layout(&mut self, seed: u64, place: usize) -> (&'static str, &'static str) {
        // Each in its turn, so that a few seeds have all of them.
        let turn = (seed as usize).wrapping_mul(3).wrapping_add(place);
        match LAYOUTS[turn % LAYOUTS.len()] {
            layout @ ("file" | "directory") => {
                let encodings = ENCODINGS.len() - 1;
                (
                    layout,
                    ENCODINGS[(seed as usize).wrapping_add(place) % encodings],
                )
            }
            layout => (layout, "text"),
        }
    }

    pub fn source(name: &str, encoding: &str) -> Table {
        let tenant = !encoding.contains("binary") && !matches!(encoding, "fixed" | "none");
        Table {
            sql: format!("{name}.public.{name}"),
            name: name.to_owned(),
            columns: stored_columns(),
            tenant,
            writable: false,
            own: false,
        }
    }

    /// Bob's row on one of the servers: what makes expressions fail, sorts first, or is
    /// out of all bounds.
    pub fn bobs_row(&mut self, key: i64) -> String {
        let n = ["777", "9223372036854775807", "-5", "3"][self.dice.below(4)];
        let title = ["canary", "x", "-1", "5"][self.dice.below(4)];
        let score = ["1e300", "-3.5", "0.25"][self.dice.below(3)];
        format!("[{key}, {n}, \"{title}\", {score}, true]")
    }

    /// Rows of a source, in an order in which those of different tenants lie
    /// together.
    fn file_rows(&mut self, talk: &mut Conversation, name: &str) {
        // What says the columns' types to whoever infers them, on both servers.
        let first = format!("{name} [1, 2, \"carols\", 0.5, true]");
        talk.push("carol", Route::Row, first);
        for at in 0..14 {
            let who = OWNERS[self.dice.below(3)];
            let row = self.row_of(2 + at);
            talk.push(who, Route::Row, format!("{name} {row}"));
            if self.dice.percent(30) {
                let key = [-9, 4, 5000][self.dice.below(3)] + at;
                let row = self.bobs_row(key);
                let world = self.dice.below(2);
                let line = Line::new("bob", Route::Row, format!("{name} {row}"));
                talk.lines.push(line.only(world));
            }
        }
        if self.dice.percent(25) {
            let count = [40, 700, 9000][self.dice.below(3)];
            let row = self.bobs_row(10_000);
            let world = self.dice.below(2);
            let line = Line::new("bob", Route::Row, format!("{name} x{count} {row}"));
            talk.lines.push(line.only(world));
        }
    }

    fn sources(&mut self, talk: &mut Conversation, seed: u64) {
        for place in 0..3 {
            let name = format!("s{}", place + 1);
            let (layout, encoding) = self.layout(seed, place);
            let who = if place == 2 && self.dice.percent(50) {
                "alice"
            } else {
                "operator"
            };
            self.file_rows(talk, &name);
            talk.push(who, Route::Source, format!("{name} {layout} {encoding}"));
            self.tables.push(Generator::source(&name, encoding));
            // What is remembered of a file is of whoever read it.
            if who == "operator" && self.dice.percent(40) {
                talk.lines
                    .push(Generator::bob_reads(&name).only(seed as usize % 2));
            }
        }
        if self.dice.percent(50) {
            for key in 1..5 {
                let row = self.row_of(key);
                talk.push("alice", Route::Row, format!("mine {row}"));
            }
            talk.push("alice", Route::Source, "mine file none");
            self.tables.push(Generator::source("mine", "none"));
        }
    }

    pub fn bob_reads(name: &str) -> Line {
        let sql = format!("SELECT count(id), max(n) FROM {name}.public.{name}");
        Line::new("bob", Route::Query, sql)
    }

    fn stored_tables(&mut self, talk: &mut Conversation) {
        let owners = [("t1", "operator"), ("t2", "operator"), ("u1", "alice")];
        for (name, who) in owners {
            let more = self
                .dice
                .pick(&["", ", UNIQUE (n, id)", ", CHECK (id > -100)"]);
            talk.push(
                who,
                Route::Query,
                format!("CREATE TABLE {name} ({TABLE_COLUMNS}{more})"),
            );
            if self.dice.percent(50) {
                let sql = format!("CREATE INDEX {name}_by_title ON {name} (title)");
                talk.push(who, Route::Query, sql);
            }
            for writer in OWNERS {
                if who == "alice" && writer != "alice" {
                    continue;
                }
                for at in 0..2 + self.dice.below(4) as i64 {
                    let (row, world) = match writer {
                        "bob" => (self.bobs_row(at), Some(self.dice.below(2))),
                        // Keys of several lanes may be the same.
                        _ => (self.row_of(at), None),
                    };
                    let row = row.replace('"', "'");
                    let values = row.trim_matches(|c| c == '[' || c == ']');
                    let sql =
                        format!("INSERT INTO {name} (id, n, title, score, ok) VALUES ({values})");
                    let line = Line::new(writer, Route::Query, sql);
                    talk.lines.push(Line { world, ..line });
                }
            }
            self.tables.push(Table {
                sql: name.to_owned(),
                name: name.to_owned(),
                columns: stored_columns(),
                tenant: true,
                writable: true,
                own: who == "alice",
            });
        }
        for (name, who) in [("v1", "operator"), ("v2", "alice")] {
            let of = self.tables[self.dice.below(2)].sql.clone();
            let condition = self
                .dice
                .pick(&["", " WHERE n IS NOT NULL", " WHERE id > 2"]);
            let sql = format!(
                "CREATE VIEW {name} AS SELECT id, n, title, score, ok FROM {of}{condition}"
            );
            talk.push(who, Route::Query, sql);
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

    /// What only Bob has, on one of the servers.
    fn bobs(&mut self, talk: &mut Conversation) {
        let mut says = |generator: &mut Generator, route, text: String| {
            let world = generator.dice.below(2);
            talk.lines.push(Line::new("bob", route, text).only(world));
        };
        for name in NAMES {
            let columns = self
                .dice
                .pick(&[TABLE_COLUMNS, "id INT, canary VARCHAR NOT NULL"]);
            match self.dice.below(5) {
                0 => says(
                    self,
                    Route::Query,
                    format!("CREATE TABLE {name} ({columns})"),
                ),
                1 => says(
                    self,
                    Route::Query,
                    format!("CREATE TEMPORARY TABLE {name} ({columns})"),
                ),
                2 => says(
                    self,
                    Route::Query,
                    format!("CREATE VIEW {name} AS SELECT * FROM t1"),
                ),
                3 => says(self, Route::Call, format!("register_model {name} 1")),
                _ => {}
            }
        }
        if self.dice.percent(60) {
            let source = self.dice.pick(&["bobs", "s1", "mine", "notes"]);
            let (name, layout) = (source, self.dice.pick(&["csv", "file"]));
            let row = format!("{name}_bobs [1, 777, \"canary\", 0.5, true]");
            let world = self.dice.below(2);
            // Kept apart from the rows of a shared source of the name.
            let rows = Line::new("bob", Route::Row, row.replace("_bobs", ""));
            talk.lines.push(rows.only(world));
            let text = format!("{name} {layout} text");
            talk.lines
                .push(Line::new("bob", Route::Source, text).only(world));
        }
        if self.dice.percent(40) {
            let mut says = |text: &str| {
                let line = Line::new("bob", Route::Query, text);
                talk.lines.push(line.only(0));
            };
            says("BEGIN");
            says("INSERT INTO t1 (id, n, title) VALUES (70, 777, 'canary')");
            says("DELETE FROM t2");
        }
    }

    /// What Bob does between two statements of Alice's, on one of the servers.
    fn meanwhile(&mut self) -> Line {
        let key = 100 + self.dice.below(5000) as i64;
        let row = self.bobs_row(key).replace('"', "'");
        let values = row.trim_matches(|c| c == '[' || c == ']').to_owned();
        let text = match self.dice.below(6) {
            0 => "DELETE FROM t1 WHERE id % 2 = 0".to_owned(),
            1 => "UPDATE t2 SET n = 777, title = 'canary'".to_owned(),
            2 => "ROLLBACK".to_owned(),
            3 => format!("CREATE TABLE fresh{key} ({TABLE_COLUMNS})"),
            4 => "CREATE INDEX secret_by_n ON secret (n)".to_owned(),
            _ => format!("INSERT INTO t1 (id, n, title, score, ok) VALUES ({values})"),
        };
        let world = self.dice.below(2);
        Line::new("bob", Route::Query, text).only(world)
    }

    /// One line of Alice's.
    fn says(&mut self, in_transaction: &mut bool) -> Line {
        let query = |sql: String| Line::new("alice", Route::Query, sql);
        match self.dice.weighted(&[46, 20, 7, 10, 6, 4, 5, 2]) {
            0 => query(self.reads()),
            1 => match self.write() {
                Some(line) => line,
                None => query(self.reads()),
            },
            2 => query(self.define()),
            3 => self.ask(),
            4 => {
                let sql = self.reads();
                query(format!(
                    "EXPLAIN {}{sql}",
                    self.dice.pick(&["", "VERBOSE ", "ANALYZE "])
                ))
            }
            5 => {
                let ended = self.dice.pick(&["COMMIT", "ROLLBACK"]);
                *in_transaction = !*in_transaction;
                query(if *in_transaction { "BEGIN" } else { ended }.to_owned())
            }
            6 => {
                let table = self.tables[self.dice.below(self.tables.len())].sql.clone();
                let (key, title) = (self.dice.below(12), self.dice.below(12));
                let sql = format!(
                    "[{key}, \"{title}\"] SELECT id, n + $1 AS more FROM {table} WHERE n >= $1 OR title <> $2"
                );
                Line::new("alice", Route::Prepared, sql)
            }
            // Another session of hers, and nobody's.
            _ => {
                let who = self.dice.pick(&["alice2", "operator"]);
                Line::new(
                    who,
                    Route::Query,
                    "SELECT count(*), sum(n % 100), max(id) FROM t1",
                )
            }
        }
    }
}
