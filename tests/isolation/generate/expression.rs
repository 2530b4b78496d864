//! Expressions of a type over the columns that are there.

use super::{Column, Generator, Type};

impl Generator {
    fn column(&mut self, of: Type, columns: &[Column]) -> Option<String> {
        let fitting: Vec<&Column> = columns.iter().filter(|column| column.of == of).collect();
        match fitting.len() {
            0 => None,
            count => Some(fitting[self.dice.below(count)].sql.clone()),
        }
    }

    pub fn literal(&mut self, of: Type) -> String {
        match of {
            Type::Integer => match self.dice.below(8) {
                0 => "777".into(),
                1 => "NULL::BIGINT".into(),
                _ => self.dice.below(12).to_string(),
            },
            Type::Text => match self.dice.below(8) {
                0 => "'canary'".into(),
                1 => "NULL::VARCHAR".into(),
                2 => "''".into(),
                _ => format!("'{}'", self.dice.below(12)),
            },
            Type::Double => match self.dice.below(6) {
                0 => "NULL::DOUBLE".into(),
                _ => format!("{}.25::DOUBLE", self.dice.below(12)),
            },
            Type::Boolean => self.dice.pick(&["true", "false", "NULL::BOOLEAN"]).into(),
        }
    }

    /// A column, or a literal.
    pub fn simple(&mut self, of: Type, columns: &[Column]) -> String {
        let column = match self.dice.percent(85) {
            true => self.column(of, columns),
            false => None,
        };
        column.unwrap_or_else(|| self.literal(of))
    }

    pub fn expression(&mut self, of: Type, columns: &[Column], depth: usize) -> String {
        if depth == 0 || self.dice.percent(25) {
            return self.simple(of, columns);
        }
        if self.dice.percent(14) {
            return self.choice(of, columns, depth - 1);
        }
        if self.subqueries && self.relations > 0 && self.dice.percent(12) {
            return self.scalar_subquery(of, columns);
        }
        match of {
            Type::Integer => self.integer(columns, depth - 1),
            Type::Text => self.text(columns, depth - 1),
            Type::Double => self.double(columns, depth - 1),
            Type::Boolean => self.boolean(columns, depth - 1),
        }
    }

    /// CASE, COALESCE or NULLIF.
    fn choice(&mut self, of: Type, columns: &[Column], depth: usize) -> String {
        let one = self.expression(of, columns, depth);
        let other = self.expression(of, columns, depth);
        match self.dice.below(3) {
            0 => format!("coalesce({one}, {other})"),
            1 => format!("nullif({one}, {other})"),
            _ => {
                let when = self.expression(Type::Boolean, columns, depth);
                format!("CASE WHEN {when} THEN {one} ELSE {other} END")
            }
        }
    }

    fn integer(&mut self, columns: &[Column], depth: usize) -> String {
        if self.traps
            && self.dice.percent(15)
            && let Some(trap) = self.trap(columns)
        {
            return trap;
        }
        match self.dice.below(7) {
            0 => format!("length({})", self.expression(Type::Text, columns, depth)),
            1 => format!("-({})", self.expression(Type::Integer, columns, depth)),
            2 => format!("abs({})", self.expression(Type::Integer, columns, depth)),
            3 => format!("({}) % 7", self.expression(Type::Integer, columns, depth)),
            4 => format!(
                "CAST({} AS INT)",
                self.expression(Type::Boolean, columns, depth)
            ),
            place => {
                let one = self.expression(Type::Integer, columns, depth);
                let other = self.simple(Type::Integer, columns);
                // Factors stay small, so that products do not grow beyond a number.
                let sign = if place == 5 { "+" } else { "-" };
                format!("({one} {sign} {other})")
            }
        }
    }

    /// What fails on a row that Bob has on one of the servers, or on one of Alice's
    /// with little luck: her titles are numbers, and her numbers are small.
    fn trap(&mut self, columns: &[Column]) -> Option<String> {
        let stored: Vec<&Column> = columns
            .iter()
            .filter(|column| column.stored && matches!(column.of, Type::Integer | Type::Text))
            .collect();
        if stored.is_empty() {
            return None;
        }
        let column = stored[self.dice.below(stored.len())];
        let sql = &column.sql;
        if sql.ends_with("tenant_id") || sql.ends_with("word") {
            return None;
        }
        Some(match (column.of, self.dice.below(4)) {
            (Type::Text, 0) => format!("arrow_cast({sql}, 'Int16')"),
            (Type::Text, _) => format!("CAST({sql} AS BIGINT)"),
            (_, 0) => format!("({sql} + 9223372036854770000)"),
            (_, 1) => format!("arrow_cast({sql}, 'Int16')"),
            _ => format!("(1 / ({sql} - 777))"),
        })
    }

    fn text(&mut self, columns: &[Column], depth: usize) -> String {
        let text = self.expression(Type::Text, columns, depth);
        match self.dice.below(6) {
            0 => format!("upper({text})"),
            1 => format!("substr({text}, 2, 3)"),
            2 => format!("({text} || {})", self.simple(Type::Text, columns)),
            3 => format!("replace({text}, '1', '-')"),
            4 => format!("CAST({} AS VARCHAR)", self.simple(Type::Integer, columns)),
            _ => format!(
                "concat({text}, '+', {})",
                self.simple(Type::Integer, columns)
            ),
        }
    }

    fn double(&mut self, columns: &[Column], depth: usize) -> String {
        match self.dice.below(3) {
            0 => format!(
                "CAST({} AS DOUBLE)",
                self.expression(Type::Integer, columns, depth)
            ),
            1 => format!("abs({})", self.expression(Type::Double, columns, depth)),
            _ => {
                let one = self.expression(Type::Double, columns, depth);
                format!("({one} + {})", self.simple(Type::Double, columns))
            }
        }
    }

    pub fn boolean(&mut self, columns: &[Column], depth: usize) -> String {
        if self.subqueries && self.relations > 0 && self.dice.percent(15) {
            return self.membership(columns);
        }
        match self.dice.below(10) {
            0 => format!("NOT ({})", self.expression(Type::Boolean, columns, depth)),
            1 | 2 => {
                let one = self.expression(Type::Boolean, columns, depth);
                let other = self.expression(Type::Boolean, columns, depth);
                format!("({one} {} {other})", self.dice.pick(&["AND", "OR"]))
            }
            3 => {
                let of = [Type::Integer, Type::Text, Type::Double][self.dice.below(3)];
                let value = self.expression(of, columns, depth);
                format!("({value}) IS {}NULL", self.dice.pick(&["", "NOT "]))
            }
            4 => {
                let value = self.expression(Type::Text, columns, depth);
                format!(
                    "{value} LIKE '{}'",
                    self.dice.pick(&["1%", "%a%", "_", "%"])
                )
            }
            5 => {
                let value = self.expression(Type::Integer, columns, depth);
                let not = self.dice.pick(&["", "NOT "]);
                format!(
                    "{value} {not}IN (1, {}, 777)",
                    self.simple(Type::Integer, columns)
                )
            }
            6 => {
                let value = self.expression(Type::Integer, columns, depth);
                format!(
                    "{value} BETWEEN 1 AND {}",
                    self.simple(Type::Integer, columns)
                )
            }
            _ => {
                let of =
                    [Type::Integer, Type::Integer, Type::Text, Type::Double][self.dice.below(4)];
                let one = self.expression(of, columns, depth);
                let other = self.simple(of, columns);
                let signs = [
                    "=",
                    "<>",
                    "<",
                    ">=",
                    "IS DISTINCT FROM",
                    "IS NOT DISTINCT FROM",
                ];
                format!("({one} {} {other})", self.dice.pick(&signs))
            }
        }
    }

    /// A subquery of one row: an aggregate, of everything or of what belongs to a
    /// row outside.
    fn scalar_subquery(&mut self, of: Type, columns: &[Column]) -> String {
        let (from, inner) = self.relation(0);
        let value = self.aggregate(of, &inner);
        let condition = self.correlation(&inner, columns);
        format!("(SELECT {value} FROM {from}{condition})")
    }

    /// WHERE of a subquery: an equality with a column outside, or a condition inside.
    fn correlation(&mut self, inner: &[Column], outer: &[Column]) -> String {
        if self.dice.percent(35)
            && let (Some(one), Some(other)) = (
                self.column(Type::Integer, inner),
                self.column(Type::Integer, outer),
            )
        {
            return format!(" WHERE {one} = {other}");
        }
        let before = std::mem::replace(&mut self.subqueries, false);
        let condition = self.expression(Type::Boolean, inner, 1);
        self.subqueries = before;
        format!(" WHERE {condition}")
    }

    /// EXISTS, IN or ANY.
    fn membership(&mut self, columns: &[Column]) -> String {
        let (from, inner) = self.relation(0);
        let condition = self.correlation(&inner, columns);
        let not = self.dice.pick(&["", "NOT "]);
        let value = self.simple(Type::Integer, columns);
        let found = self.simple(Type::Integer, &inner);
        match self.dice.below(if self.lists { 3 } else { 1 }) {
            0 => format!("{not}EXISTS (SELECT 1 FROM {from}{condition})"),
            1 => format!("{value} {not}IN (SELECT {found} FROM {from})"),
            _ => format!("{value} > ANY (SELECT {found} FROM {from})"),
        }
    }

    /// An aggregate that is the same in whichever order its rows come.
    pub fn aggregate(&mut self, of: Type, columns: &[Column]) -> String {
        let before = std::mem::replace(&mut self.subqueries, false);
        let mut argument = |of| self.expression(of, columns, 1);
        let (integer, text, double, boolean) = (
            argument(Type::Integer),
            argument(Type::Text),
            argument(Type::Double),
            argument(Type::Boolean),
        );
        self.subqueries = before;
        let call = match of {
            Type::Integer => match self.dice.below(8) {
                0 => "count(*)".to_owned(),
                1 => format!("count(DISTINCT {text})"),
                2 => format!("count({boolean})"),
                3 => format!("sum({integer})"),
                4 => format!("bit_xor({integer})"),
                5 => format!("sum(DISTINCT {integer})"),
                6 => format!("min({integer})"),
                _ => format!("max({integer})"),
            },
            Type::Text => match self.dice.below(4) {
                0 => format!("min({text})"),
                1 => format!("max({text})"),
                2 => format!("array_to_string(array_agg({integer} ORDER BY {integer}), ',')"),
                _ => format!("string_agg({text}, ',' ORDER BY {text})"),
            },
            Type::Double => match self.dice.below(4) {
                0 => format!("sum({double})"),
                1 => format!("avg({integer})"),
                2 => format!("median({double})"),
                _ => format!("max({double})"),
            },
            Type::Boolean => match self.dice.below(2) {
                0 => format!("bool_or({boolean})"),
                _ => format!("bool_and({boolean})"),
            },
        };
        match self.dice.percent(12) && !call.starts_with("array") {
            true => format!("{call} FILTER (WHERE {boolean})"),
            false => call,
        }
    }
}
