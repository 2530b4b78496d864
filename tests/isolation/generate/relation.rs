//! What stands in FROM.

use super::{Column, Generator, Table, Type};

impl Generator {
    /// A relation, its text and its columns.
    pub fn relation(&mut self, depth: usize) -> (String, Vec<Column>) {
        self.relations = self.relations.saturating_sub(1);
        let alias = self.name("a");
        let kind = self.dice.below(100);
        if depth > 0 && kind < 15 {
            let types = self.types(3);
            let query = self.query(&types, depth - 1);
            return (format!("({query}) AS {alias}"), numbered(&alias, &types));
        }
        if kind < 21 {
            return self.values(&alias);
        }
        if kind < 24 {
            let end = 1 + self.dice.below(5);
            let sql = format!("generate_series(0, {end}) AS {alias}(c0)");
            return (sql, numbered(&alias, &[Type::Integer]));
        }
        if kind < 40 && !self.ctes.is_empty() {
            let place = self.dice.below(self.ctes.len());
            let (name, types) = self.ctes[place].clone();
            return (format!("{name} AS {alias}"), numbered(&alias, &types));
        }
        self.table(&alias)
    }

    /// A table as `alias`.
    pub fn table(&mut self, alias: &str) -> (String, Vec<Column>) {
        let table = self.tables[self.dice.below(self.tables.len())].clone();
        self.named(&table, alias)
    }

    /// `table` as `alias`.
    pub fn named(&self, table: &Table, alias: &str) -> (String, Vec<Column>) {
        let mut columns: Vec<Column> = table
            .columns
            .iter()
            .map(|(name, of)| Column {
                sql: format!("{alias}.{name}"),
                of: *of,
                stored: true,
            })
            .collect();
        if table.tenant {
            columns.push(Column {
                sql: format!("{alias}.tenant_id"),
                of: Type::Text,
                stored: true,
            });
        }
        (format!("{} AS {alias}", table.sql), columns)
    }

    fn values(&mut self, alias: &str) -> (String, Vec<Column>) {
        let types = self.types(2);
        let rows: Vec<String> = (0..1 + self.dice.below(3))
            .map(|_| {
                let values: Vec<String> = types.iter().map(|of| self.literal(*of)).collect();
                format!("({})", values.join(", "))
            })
            .collect();
        let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
        let sql = format!(
            "(VALUES {}) AS {alias}({})",
            rows.join(", "),
            names.join(", ")
        );
        (sql, numbered(alias, &types))
    }

    /// Relations that are joined in every way.
    pub fn from(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (mut sql, mut columns) = self.relation(depth);
        let joins = [0, 0, 0, 1, 1, 2][self.dice.below(6)];
        for _ in 0..joins {
            if self.relations == 0 {
                break;
            }
            self.join(&mut sql, &mut columns, depth);
        }
        (sql, columns)
    }

    fn join(&mut self, sql: &mut String, columns: &mut Vec<Column>, depth: usize) {
        let kinds = [
            "JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
            "RIGHT SEMI JOIN",
            "RIGHT ANTI JOIN",
            "CROSS JOIN",
            "LATERAL",
        ];
        let kind = self.dice.pick(&kinds);
        if kind == "LATERAL" {
            let (from, inner) = self.relation(0);
            let alias = self.name("a");
            let value = self.aggregate(Type::Integer, &inner);
            let one = self.simple(Type::Integer, &inner);
            let other = self.simple(Type::Integer, columns);
            *sql += &format!(
                " CROSS JOIN LATERAL (SELECT {value} AS c0 FROM {from} WHERE {one} = {other}) AS {alias}"
            );
            columns.extend(numbered(&alias, &[Type::Integer]));
            return;
        }
        let (right, right_columns) = self.relation(depth.saturating_sub(1));
        if kind == "CROSS JOIN" {
            *sql += &format!(" CROSS JOIN {right}");
            columns.extend(right_columns);
            return;
        }
        let on = self.on(columns, &right_columns);
        *sql += &format!(" {kind} {right} ON {on}");
        match kind {
            "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => {}
            "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => *columns = right_columns,
            _ => columns.extend(right_columns),
        }
    }

    fn on(&mut self, left: &[Column], right: &[Column]) -> String {
        let of = [Type::Integer, Type::Integer, Type::Text][self.dice.below(3)];
        let one = self.simple(of, left);
        let other = self.simple(of, right);
        let sign = if self.dice.percent(85) { "=" } else { "<" };
        let mut on = format!("{one} {sign} {other}");
        if self.dice.percent(25) {
            let both: Vec<Column> = left.iter().chain(right).cloned().collect();
            let before = std::mem::replace(&mut self.subqueries, false);
            on += &format!(" AND {}", self.boolean(&both, 1));
            self.subqueries = before;
        }
        on
    }
}

/// The columns `c0`, `c1` and so on of `alias`.
pub fn numbered(alias: &str, types: &[Type]) -> Vec<Column> {
    let columns = types.iter().enumerate().map(|(at, of)| Column {
        sql: format!("{alias}.c{at}"),
        of: *of,
        stored: false,
    });
    columns.collect()
}
