//! Makes a conversation that fails small: fewer lines, then shorter statements.
//!
//! Lines are left out in runs that get shorter, as in delta debugging (Zeller and
//! Hildebrandt, 2002). Statements are parsed and lose their parts one at a time.
//! Whatever still fails is kept, if answers of the same kind differ.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Query, SetExpr, Statement, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::conversation::{Conversation, Route};
use crate::runs::{Failure, run};

/// How often a conversation is played at most to make it small.
const REPLAYS_MAX: usize = 200;

pub struct Shrunk {
    pub conversation: Conversation,
    pub failure: Box<Failure>,
    pub replays: usize,
}

/// The least that is found of `conversation`, which failed as `failure` says.
pub async fn shrink(conversation: &Conversation, failure: Box<Failure>) -> Shrunk {
    let mut shrunk = Shrunk {
        conversation: conversation.clone(),
        failure,
        replays: 0,
    };
    shrunk.cut();
    // A line that goes makes parts of others needless, and a part makes lines so.
    loop {
        let before = shrunk.conversation.clone();
        shrunk.drop_lines().await;
        shrunk.shorten().await;
        if shrunk.conversation == before {
            return shrunk;
        }
    }
}

impl Shrunk {
    /// Leaves out what is said after the failure.
    fn cut(&mut self) {
        self.conversation.lines.truncate(self.failure.place + 1);
    }

    /// Keeps `smaller` if it fails too.
    async fn try_out(&mut self, smaller: Conversation) -> bool {
        if self.replays >= REPLAYS_MAX {
            return false;
        }
        self.replays += 1;
        match run(&smaller).await {
            Err(failure) if failure.kind() == self.failure.kind() => {
                self.conversation = smaller;
                self.failure = failure;
                self.cut();
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    async fn drop_lines(&mut self) {
        let mut length = self.conversation.lines.len() / 2;
        while length > 0 {
            let mut end = self.conversation.lines.len();
            while end > 0 {
                let start = end.saturating_sub(length);
                let mut smaller = self.conversation.clone();
                let mut place = 0;
                smaller.lines.retain(|line| {
                    let goes = (start..end).contains(&place) && line.route != Route::Setting;
                    place += 1;
                    !goes
                });
                if smaller != self.conversation {
                    self.try_out(smaller).await;
                }
                end = start.min(self.conversation.lines.len());
            }
            length /= 2;
        }
    }

    /// Takes parts out of statements, the last one first.
    async fn shorten(&mut self) {
        let mut place = self.conversation.lines.len();
        while place > 0 {
            place -= 1;
            let mut part = 0;
            while let Some(line) = self.conversation.lines.get(place) {
                let Some((before, sql)) = line.statement() else {
                    break;
                };
                let Some(shorter) = without_part(sql, part) else {
                    break;
                };
                let shorter = format!("{before}{shorter}");
                let mut smaller = self.conversation.clone();
                smaller.lines[place].text = shorter;
                // What is now at the place of a part that went is another one.
                if !self.try_out(smaller).await {
                    part += 1;
                }
            }
        }
    }
}

/// The statement without its part of this number, or `None` when it has no such
/// part. A part whose loss changes nothing is skipped.
fn without_part(sql: &str, mut part: usize) -> Option<String> {
    loop {
        let mut statements = Parser::parse_sql(&GenericDialect {}, sql).ok()?;
        let before = statements.first()?.to_string();
        let mut cutter = Cutter { left: part };
        match statements.visit(&mut cutter) {
            ControlFlow::Break(()) => {}
            ControlFlow::Continue(()) => return None,
        }
        let after = statements.first()?.to_string();
        if after.len() < before.len() {
            return Some(after);
        }
        part += 1;
    }
}

/// Takes out the part that comes after so many others.
struct Cutter {
    left: usize,
}

impl Cutter {
    /// Whether the next part is the one.
    fn is_due(&mut self) -> bool {
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return true,
        };
        false
    }

    /// Takes the next part away, where there is one.
    fn take<T: Default + PartialEq>(&mut self, part: &mut T) -> ControlFlow<()> {
        if *part != T::default() && self.is_due() {
            *part = T::default();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn take_item<T>(&mut self, items: &mut Vec<T>, least: usize) -> ControlFlow<()> {
        if items.len() > least {
            for at in 0..items.len() {
                if self.is_due() {
                    items.remove(at);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Cutter {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<()> {
        match statement {
            Statement::Update(update) => {
                self.take(&mut update.returning)?;
                self.take(&mut update.selection)?;
                self.take_item(&mut update.assignments, 1)
            }
            Statement::Delete(delete) => {
                self.take(&mut delete.returning)?;
                self.take(&mut delete.selection)
            }
            Statement::Insert(insert) => {
                self.take(&mut insert.returning)?;
                self.take(&mut insert.on)
            }
            Statement::Merge(merge) => self.take_item(&mut merge.clauses, 1),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.take(&mut query.with)?;
        self.take(&mut query.limit_clause)?;
        self.take(&mut query.order_by)?;
        match query.body.as_mut() {
            SetExpr::SetOperation { left, right, .. } => {
                if self.is_due() {
                    let left = std::mem::replace(left.as_mut(), placeholder());
                    *query.body = left;
                    return ControlFlow::Break(());
                }
                if self.is_due() {
                    let right = std::mem::replace(right.as_mut(), placeholder());
                    *query.body = right;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }
            SetExpr::Select(select) => {
                self.take(&mut select.selection)?;
                self.take(&mut select.having)?;
                self.take(&mut select.qualify)?;
                self.take(&mut select.distinct)?;
                for from in &mut select.from {
                    self.take_item(&mut from.joins, 0)?;
                }
                self.take_item(&mut select.projection, 1)
            }
            SetExpr::Values(values) => self.take_item(&mut values.rows, 1),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let parts: Vec<Expr> = match expr {
            Expr::BinaryOp { left, right, .. } => vec![*left.clone(), *right.clone()],
            Expr::UnaryOp { expr, .. }
            | Expr::Nested(expr)
            | Expr::Cast { expr, .. }
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr)
            | Expr::InList { expr, .. }
            | Expr::InSubquery { expr, .. }
            | Expr::Between { expr, .. } => vec![*expr.clone()],
            Expr::Case { conditions, .. } => {
                conditions.iter().map(|when| when.result.clone()).collect()
            }
            _ => Vec::new(),
        };
        let literals = ["1", "true", "'1'"];
        let literals = literals.into_iter().filter_map(|text| {
            let parser = Parser::new(&GenericDialect {}).try_with_sql(text);
            parser.and_then(|mut parser| parser.parse_expr()).ok()
        });
        if matches!(expr, Expr::Value(value) if !matches!(value.value, Value::SingleQuotedString(_)))
        {
            return ControlFlow::Continue(());
        }
        for part in parts.into_iter().chain(literals) {
            if self.is_due() {
                *expr = part;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

/// What is put where a part is moved away from, and dropped with it.
fn placeholder() -> SetExpr {
    SetExpr::Values(datafusion::sql::sqlparser::ast::Values {
        explicit_row: false,
        value_keyword: false,
        rows: Vec::new(),
    })
}

#[test]
fn a_statement_loses_its_parts_one_by_one() {
    let sql = "SELECT a, b FROM t JOIN u ON t.a = u.a WHERE a > 1 ORDER BY a LIMIT 1";
    let mut shorter = Vec::new();
    for part in 0.. {
        match without_part(sql, part) {
            Some(text) => shorter.push(text),
            None => break,
        }
    }
    for wanted in [
        "SELECT a, b FROM t JOIN u ON t.a = u.a WHERE a > 1 ORDER BY a",
        "SELECT a, b FROM t JOIN u ON t.a = u.a ORDER BY a LIMIT 1",
        "SELECT a, b FROM t WHERE a > 1 ORDER BY a LIMIT 1",
        "SELECT b FROM t JOIN u ON t.a = u.a WHERE a > 1 ORDER BY a LIMIT 1",
        "SELECT a, b FROM t JOIN u ON t.a = u.a WHERE a ORDER BY a LIMIT 1",
    ] {
        assert!(shorter.iter().any(|text| text == wanted), "{shorter:#?}");
    }
}
