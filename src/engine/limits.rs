//! How large a plan the text of a statement may ask for: the text's length does
//! not bound it.
//!
//! Plans are walked, and dropped, by recursion, so that a chain of operators
//! takes as much stack as it has members. A `WITH` that reads another one twice
//! doubles the plan, and `CUBE` doubles it with each column. The parser bounds
//! brackets itself.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::config::EngineConfig;
use crate::error::{Error, Result};

/// Grouping sets of one GROUP BY, as a power of two.
const GROUPING_SETS_LOG2_MAX: u32 = 10;

/// The settings that bound a statement, apart from its length.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    operators_max: usize,
    tables_max: usize,
    list_items_max: usize,
}

impl Limits {
    pub(super) fn new(config: &EngineConfig) -> Self {
        Limits {
            operators_max: config.operators_max,
            tables_max: config.tables_max,
            list_items_max: config.list_items_max,
        }
    }

    /// Refuses chains that would nest too deep once they are parsed: of
    /// operators, casts, subscripts, joins or set operations, up to a comma or
    /// within one pair of brackets.
    pub(super) fn check_tokens(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        let mut chains = vec![0_usize];
        for token in tokens {
            match &token.token {
                Token::LParen => chains.push(0),
                Token::LBracket => {
                    self.lengthen(&mut chains)?;
                    chains.push(0);
                }
                Token::RParen | Token::RBracket if chains.len() > 1 => {
                    chains.pop();
                }
                Token::Comma => {
                    if let Some(chain) = chains.last_mut() {
                        *chain = 0;
                    }
                }
                token if lengthens(token) => self.lengthen(&mut chains)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses a statement that reads more tables than it may, those that are read
    /// by its views among them.
    pub(super) fn check_tables(&self, tables: usize) -> Result<()> {
        if tables <= self.tables_max {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "the statement and its views read more tables than the setting engine.tables_max \
             allows, {}: read fewer",
            self.tables_max
        )))
    }

    /// Refuses a list of more values than one may have.
    pub(super) fn check_list(&self, items: usize) -> Result<()> {
        if items <= self.list_items_max {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "a list of {items} items is longer than the setting engine.list_items_max allows, {}: \
             join with VALUES or with a source instead",
            self.list_items_max
        )))
    }

    fn lengthen(&self, chains: &mut [usize]) -> Result<()> {
        if let Some(chain) = chains.last_mut() {
            *chain += 1;
            if *chain > self.operators_max {
                return Err(Error::InvalidArgument(format!(
                    "the statement chains more operators and keywords than the setting \
                     engine.operators_max allows, {}: write OR chains as IN (...), unions as \
                     VALUES, or split the statement",
                    self.operators_max
                )));
            }
        }
        Ok(())
    }

    /// Refuses a statement that reads too many tables, lists too many values or
    /// groups in too many ways.
    pub(super) fn check_statement(&self, statement: &ast::Statement) -> Result<()> {
        let mut measure = Measure {
            limits: self,
            queries: vec![Query::default()],
            named: Vec::new(),
            tables: HashMap::new(),
        };
        match statement.visit(&mut measure) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(text) => Err(Error::InvalidArgument(text)),
        }
    }
}

/// Whether a token makes an expression, or a chain of set operations, deeper.
/// What is not known to be harmless does.
fn lengthens(token: &Token) -> bool {
    match token {
        Token::Word(word) => !matches!(
            word.keyword,
            Keyword::NoKeyword
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE
                | Keyword::AS
                | Keyword::NULL
                | Keyword::TRUE
                | Keyword::FALSE
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Placeholder(_)
        | Token::Period
        | Token::RParen
        | Token::RBracket
        | Token::EOF => false,
        _ => true,
    }
}

/// Adds up what a statement asks for, each use of a `WITH` as often as it is
/// read.
struct Measure<'a> {
    limits: &'a Limits,
    queries: Vec<Query>,
    /// The queries of `WITH` items that are ahead.
    named: Vec<(*const ast::Query, String)>,
    /// How many tables each of the items reads. Of two with one name the larger
    /// counts, wherever which one is meant.
    tables: HashMap<String, usize>,
}

#[derive(Default)]
struct Query {
    name: Option<String>,
    tables: usize,
    grouping_sets_log2: u32,
}

impl Measure<'_> {
    fn add_tables(&mut self, count: usize) -> ControlFlow<String> {
        let Some(query) = self.queries.last_mut() else {
            return ControlFlow::Continue(());
        };
        query.tables = query.tables.saturating_add(count);
        if query.tables > self.limits.tables_max {
            return ControlFlow::Break(format!(
                "the statement reads more tables than the setting engine.tables_max allows, {}, \
                 a WITH query counted as often as it is read: read fewer, or split the statement",
                self.limits.tables_max
            ));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Measure<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<String> {
        let at = self
            .named
            .iter()
            .position(|(named, _)| std::ptr::eq(*named, query));
        let name = at.map(|at| self.named.swap_remove(at).1);
        if let Some(with) = &query.with {
            for item in &with.cte_tables {
                let name = item.alias.name.value.to_lowercase();
                self.named.push((&*item.query as *const _, name));
            }
        }
        self.queries.push(Query {
            name,
            ..Query::default()
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<String> {
        let Some(query) = self.queries.pop() else {
            return ControlFlow::Continue(());
        };
        // A query without a table is a table of one row.
        let tables = query.tables.max(1);
        match query.name {
            Some(name) => {
                let most = self.tables.entry(name).or_default();
                *most = tables.max(*most);
                ControlFlow::Continue(())
            }
            None => self.add_tables(tables),
        }
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<String> {
        let known = match name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => {
                self.tables.get(&name.value.to_lowercase()).copied()
            }
            _ => None,
        };
        self.add_tables(known.unwrap_or(1))
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<String> {
        let sets_log2 = match expr {
            ast::Expr::InList { list, .. } => {
                return match self.limits.check_list(list.len()) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error.to_string()),
                };
            }
            ast::Expr::Cube(sets) => u32::try_from(sets.len()).unwrap_or(u32::MAX),
            ast::Expr::Rollup(sets) | ast::Expr::GroupingSets(sets) => log2_above(sets.len()),
            _ => return ControlFlow::Continue(()),
        };
        if let Some(query) = self.queries.last_mut() {
            query.grouping_sets_log2 = query.grouping_sets_log2.saturating_add(sets_log2);
            if query.grouping_sets_log2 > GROUPING_SETS_LOG2_MAX {
                return ControlFlow::Break(format!(
                    "GROUP BY asks for more than {} grouping sets: name those that are wanted in \
                     GROUPING SETS",
                    1_u32 << GROUPING_SETS_LOG2_MAX
                ));
            }
        }
        ControlFlow::Continue(())
    }
}

/// The exponent of the power of two that is greater.
fn log2_above(count: usize) -> u32 {
    usize::BITS - count.leading_zeros()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn check(sql: &str) -> Result<()> {
        let limits = Limits {
            operators_max: 20,
            tables_max: 16,
            list_items_max: 4,
        };
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
        limits.check_tokens(&tokens.unwrap())?;
        let statement = Parser::parse_sql(&GenericDialect {}, sql)
            .unwrap()
            .remove(0);
        limits.check_statement(&statement)
    }

    #[test]
    fn what_makes_a_plan_deep_or_wide_is_bounded() {
        let doubled = |times: usize| {
            let items: String = (1..=times)
                .map(|at| format!(", a{at} AS (SELECT x.i FROM a{0} x, a{0} y)", at - 1))
                .collect();
            format!("WITH a0 AS (SELECT 1 i){items} SELECT * FROM A{times}")
        };
        let repeated = |text: &str, times: usize| text.repeat(times);
        for (sql, says) in [
            (format!("SELECT 1{}", repeated(" + 1", 19)), ""),
            (format!("SELECT 1{}", repeated(" + 1", 20)), "operators_max"),
            (
                format!("SELECT 1{}", repeated("::int", 20)),
                "operators_max",
            ),
            (format!("SELECT a{}", repeated("[1]", 20)), "operators_max"),
            (
                format!("SELECT a{}", repeated(" IS NULL", 20)),
                "operators_max",
            ),
            (
                format!("SELECT 1{}", repeated(" UNION SELECT 1", 20)),
                "operators_max",
            ),
            (format!("SELECT 1{}", repeated(", 1 + 1", 40)), ""),
            (
                format!("SELECT f({})", repeated("(a + 1) * 1, ", 40) + "1"),
                "",
            ),
            (
                format!("SELECT CASE {} END", repeated("WHEN a THEN 'x' ", 40)),
                "",
            ),
            (format!("SELECT 1 FROM t{}", repeated(", t", 15)), ""),
            (
                format!("SELECT 1 FROM t{}", repeated(", t", 16)),
                "tables_max",
            ),
            (doubled(4), ""),
            (doubled(5), "tables_max"),
            (doubled(60), "tables_max"),
            ("SELECT 1 WHERE 1 IN (1, 2, 3, 4)".into(), ""),
            (
                "SELECT 1 WHERE 1 IN (1, 2, 3, 4, 5)".into(),
                "list_items_max",
            ),
            ("SELECT 1 FROM t GROUP BY CUBE (a, b, c)".into(), ""),
            (
                "SELECT 1 FROM t GROUP BY CUBE (a, b, c, d, e, f), CUBE (g, h, i, j, k)".into(),
                "grouping sets",
            ),
        ] {
            match check(&sql) {
                Ok(()) => assert_eq!(says, "", "{sql}"),
                Err(error) => {
                    assert!(!says.is_empty(), "{sql}: {error}");
                    assert!(error.to_string().contains(says), "{sql}: {error}");
                }
            }
        }
    }
}
