//! Queries that yield columns `c0`, `c1` and so on of types that are asked for.

use super::relation::numbered;
use super::{Column, Generator, Type};

impl Generator {
    /// A query whose rows come in an order, or as they like.
    pub fn ordered_query(&mut self, types: &[Type], depth: usize) -> String {
        let query = self.query(types, depth);
        match self.dice.below(3) {
            0 => query,
            1 => format!(
                "SELECT * FROM ({query}) AS q ORDER BY {}",
                places(types.len())
            ),
            _ => {
                let order = places(types.len());
                let (limit, offset) = (1 + self.dice.below(4), self.dice.below(3));
                format!(
                    "SELECT * FROM ({query}) AS q ORDER BY {order} LIMIT {limit} OFFSET {offset}"
                )
            }
        }
    }

    pub fn query(&mut self, types: &[Type], depth: usize) -> String {
        let shape = match depth {
            0 => self.dice.weighted(&[60, 30, 10]),
            _ => self.dice.weighted(&[32, 24, 14, 12, 10, 4, 4]),
        };
        match shape {
            0 => self.plain(types, depth),
            1 => self.grouped(types, depth),
            2 => self.windowed(types, depth),
            3 => self.combined(types, depth),
            4 => self.with(types, depth),
            5 => self.recursive(types),
            _ => self.limited(types, depth),
        }
    }

    fn plain(&mut self, types: &[Type], depth: usize) -> String {
        let (from, columns) = self.from(depth);
        let items = self.items(types, &columns);
        let distinct = if self.dice.percent(15) {
            "DISTINCT "
        } else {
            ""
        };
        let condition = self.condition(&columns);
        format!("SELECT {distinct}{items} FROM {from}{condition}")
    }

    pub fn items(&mut self, types: &[Type], columns: &[Column]) -> String {
        let items: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(at, of)| format!("{} AS c{at}", self.expression(*of, columns, 2)))
            .collect();
        items.join(", ")
    }

    pub fn condition(&mut self, columns: &[Column]) -> String {
        match self.dice.percent(65) {
            true => format!(" WHERE {}", self.expression(Type::Boolean, columns, 2)),
            false => String::new(),
        }
    }

    fn grouped(&mut self, types: &[Type], depth: usize) -> String {
        let (from, columns) = self.from(depth);
        let condition = self.condition(&columns);
        // Keys are whole columns, which stand for themselves among the items.
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..self.dice.below(3) {
            let column = &columns[self.dice.below(columns.len())];
            if keys.iter().all(|key| key.sql != column.sql) {
                keys.push(column.clone());
            }
        }
        let items: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(at, of)| {
                let key = keys.iter().find(|key| key.of == *of).cloned();
                match key.filter(|_| self.dice.percent(60)) {
                    Some(key) => format!("{} AS c{at}", key.sql),
                    None => format!("{} AS c{at}", self.aggregate(*of, &columns)),
                }
            })
            .collect();
        let names: Vec<&str> = keys.iter().map(|key| key.sql.as_str()).collect();
        let list = names.join(", ");
        let by = match (names.len(), self.dice.below(6)) {
            (0, _) => String::new(),
            (2, 0) => format!(" GROUP BY ROLLUP ({list})"),
            (2, 1) => format!(" GROUP BY CUBE ({list})"),
            (2, 2) => format!(" GROUP BY GROUPING SETS (({list}), ({}), ())", names[0]),
            _ => format!(" GROUP BY {list}"),
        };
        let having = match self.dice.percent(25) {
            true => format!(" HAVING {} >= 1", self.aggregate(Type::Integer, &columns)),
            false => String::new(),
        };
        format!(
            "SELECT {} FROM {from}{condition}{by}{having}",
            items.join(", ")
        )
    }

    fn windowed(&mut self, types: &[Type], depth: usize) -> String {
        let (from, columns) = self.from(depth.saturating_sub(1));
        let condition = self.condition(&columns);
        let all: Vec<&str> = columns.iter().map(|column| column.sql.as_str()).collect();
        let all = all.join(", ");
        let mut ranked = false;
        let items: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(at, of)| {
                if *of == Type::Boolean || self.dice.percent(30) {
                    return format!("{} AS c{at}", self.simple(*of, &columns));
                }
                ranked = true;
                format!("{} AS c{at}", self.window(*of, &columns, &all))
            })
            .collect();
        let qualify = match ranked && self.dice.percent(15) {
            true => format!(" QUALIFY row_number() OVER (ORDER BY {all}) <= 3"),
            false => String::new(),
        };
        format!(
            "SELECT {} FROM {from}{condition}{qualify}",
            items.join(", ")
        )
    }

    /// A window function over an order of all columns, which leaves no ties but
    /// between equal rows.
    fn window(&mut self, of: Type, columns: &[Column], all: &str) -> String {
        let value = self.simple(of, columns);
        let call = match (of, self.dice.below(6)) {
            (Type::Integer, 0) => "row_number()".to_owned(),
            (Type::Integer, 1) => "dense_rank()".to_owned(),
            (Type::Integer, 2) => "CAST(ntile(3)".to_owned(),
            (Type::Integer | Type::Double, 3) => format!("sum({value})"),
            (_, 4) => format!("lag({value})"),
            (_, 5) => format!("first_value({value})"),
            _ => format!("max({value})"),
        };
        let by = match self.dice.percent(50) {
            true => {
                let column = &columns[self.dice.below(columns.len())];
                format!("PARTITION BY {} ", column.sql)
            }
            false => String::new(),
        };
        let frame = match call.starts_with("sum") || call.starts_with("max") {
            true => self.dice.pick(&[
                "",
                " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
                " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            ]),
            false => "",
        };
        let over = format!("{call} OVER ({by}ORDER BY {all}{frame})");
        match (of, call.starts_with("CAST")) {
            (_, true) => format!("{over} AS BIGINT)"),
            (Type::Integer, false) => format!("CAST({over} AS BIGINT)"),
            _ => over,
        }
    }

    fn combined(&mut self, types: &[Type], depth: usize) -> String {
        let left = self.plain(types, depth - 1);
        let right = match self.dice.percent(50) {
            true => self.grouped(types, depth - 1),
            false => self.plain(types, depth - 1),
        };
        let operators = [
            "UNION",
            "UNION ALL",
            "EXCEPT",
            "EXCEPT ALL",
            "INTERSECT",
            "INTERSECT ALL",
        ];
        format!("{left} {} {right}", self.dice.pick(&operators))
    }

    /// WITH, whose name may be that of a table.
    fn with(&mut self, types: &[Type], depth: usize) -> String {
        let inner_types = self.types(3);
        let inner = self.query(&inner_types, depth - 1);
        let name = match self.dice.percent(30) {
            true => {
                let table = &self.tables[self.dice.below(self.tables.len())];
                table.name.clone()
            }
            false => self.name("w"),
        };
        self.ctes.push((name.clone(), inner_types));
        // A table of the name is hidden while the statement is made.
        let hidden: Vec<_> = self
            .tables
            .extract_if(.., |table| table.sql == name)
            .collect();
        let query = match self.tables.is_empty() {
            true => self.limited(types, 0),
            false => self.query(types, depth - 1),
        };
        self.tables.extend(hidden);
        self.ctes.pop();
        format!("WITH {name} AS ({inner}) {query}")
    }

    fn recursive(&mut self, types: &[Type]) -> String {
        let name = self.name("r");
        let alias = self.name("a");
        let (from, columns) = self.table(&alias);
        let first = self.aggregate(Type::Integer, &columns);
        let end = 2 + self.dice.below(6);
        let recursion = match self.dice.percent(50) {
            true => format!("SELECT c0 + 1 FROM {name} WHERE c0 < {end}"),
            false => {
                let next = self.name("a");
                let (joined, columns) = self.table(&next);
                let column = self.simple(Type::Integer, &columns);
                format!(
                    "SELECT {name}.c0 + 1 FROM {name} JOIN {joined} ON {column} = {name}.c0 WHERE {name}.c0 < {end}"
                )
            }
        };
        let outer = numbered(&name, &[Type::Integer]);
        let items = self.items(types, &outer);
        format!(
            "WITH RECURSIVE {name}(c0) AS (SELECT CAST({first} AS BIGINT) % 8 FROM {from} UNION ALL {recursion}) SELECT {items} FROM {name}"
        )
    }

    /// The first rows of an order.
    fn limited(&mut self, types: &[Type], depth: usize) -> String {
        let query = self.plain(types, depth.saturating_sub(1));
        let alias = self.name("a");
        let limit = 1 + self.dice.below(4);
        let order = self.dice.pick(&["", " DESC"]);
        let rest = match types.len() {
            1 => String::new(),
            count => {
                let rest: Vec<String> = (2..=count).map(|place| place.to_string()).collect();
                format!(", {}", rest.join(", "))
            }
        };
        format!("SELECT * FROM ({query}) AS {alias} ORDER BY 1{order}{rest} LIMIT {limit}")
    }
}

/// `1, 2` and so on.
fn places(count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|place| place.to_string()).collect();
    places.join(", ")
}
