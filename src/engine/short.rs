//! Statements that are so short that the way to a plan thread and back would
//! take longer than they do: those that write rows of values, that read rows by
//! their whole keys, and that read no table at all. They are planned and run by
//! the thread that asks for them.
//!
//! That is a thread which serves others too, so what it is given is bounded
//! here: by the text, by the operators of a plan, and by how many threads may
//! wait for a disk at a time. A function is never among it: some compute for
//! minutes.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use futures::future::CatchUnwind;
use futures::{FutureExt, Stream};

use super::fault::planning;
use super::guard::ScopedTable;
use super::params;
use super::reading::reads_keys;
use super::total::{compares, connects};
use crate::backend::while_thread_blocks;
use crate::catalog::{CatalogSnapshot, RelationBody};
use crate::error::{Error, Result};

/// Bytes of a text that is looked at by whoever asks for it.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// Expressions of a short statement, and how deep they nest.
const EXPRS_MAX: usize = 256;
const DEPTH_MAX: usize = 32;

/// Whether a statement is short to plan: it binds the session, or it names one table,
/// which is no view, and computes next to nothing.
pub(super) fn is_short_to_plan(statement: &ast::Statement, snapshot: &CatalogSnapshot) -> bool {
    let query = match statement {
        ast::Statement::Query(query) => query,
        ast::Statement::Insert(insert) => match &insert.source {
            Some(query) => query,
            None => return false,
        },
        ast::Statement::Set(_) | ast::Statement::Reset(_) => return true,
        _ => return false,
    };
    if !matches!(
        *query.body,
        ast::SetExpr::Select(_) | ast::SetExpr::Values(_)
    ) {
        return false;
    }
    let mut measure = Measure {
        snapshot,
        queries: 0,
        tables: 0,
        exprs: 0,
        depth: 0,
    };
    statement.visit(&mut measure).is_continue()
}

/// Adds up what a statement asks for, until that is too much.
struct Measure<'a> {
    snapshot: &'a CatalogSnapshot,
    queries: usize,
    tables: usize,
    exprs: usize,
    depth: usize,
}

fn go_on_if(short: bool) -> ControlFlow<()> {
    match short {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    }
}

impl Visitor for Measure<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        self.queries += 1;
        go_on_if(self.queries == 1)
    }

    fn pre_visit_table_factor(&mut self, table: &ast::TableFactor) -> ControlFlow<()> {
        go_on_if(matches!(table, ast::TableFactor::Table { args: None, .. }))
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<()> {
        self.tables += 1;
        let last = name.0.last().and_then(ast::ObjectNamePart::as_ident);
        go_on_if(self.tables == 1 && last.is_some_and(|name| is_plain(self.snapshot, name)))
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        self.exprs += 1;
        self.depth += 1;
        let few = self.exprs <= EXPRS_MAX && self.depth <= DEPTH_MAX;
        go_on_if(few && is_short_expr(expr))
    }

    fn post_visit_expr(&mut self, _: &ast::Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// Whether the name is not that of a view, nor of a table whose definition computes
/// something for new rows.
fn is_plain(snapshot: &CatalogSnapshot, name: &ast::Ident) -> bool {
    let relation = match name.quote_style {
        Some(_) => snapshot.relation(&name.value),
        None => snapshot.relation(&name.value.to_ascii_lowercase()),
    };
    match relation.map(|relation| &relation.body) {
        Some(RelationBody::Table(table)) => {
            table.checks.is_empty() && table.columns.iter().all(|column| column.default.is_none())
        }
        Some(RelationBody::View(_)) => false,
        // A source, or nothing.
        None => true,
    }
}

fn is_short_expr(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Identifier(_)
        | ast::Expr::CompoundIdentifier(_)
        | ast::Expr::Value(_)
        | ast::Expr::TypedString(_)
        | ast::Expr::Nested(_)
        | ast::Expr::IsNull(_)
        | ast::Expr::IsNotNull(_)
        | ast::Expr::Between { .. }
        | ast::Expr::InList { .. } => true,
        ast::Expr::UnaryOp { op, .. } => matches!(
            op,
            ast::UnaryOperator::Plus | ast::UnaryOperator::Minus | ast::UnaryOperator::Not
        ),
        ast::Expr::BinaryOp { op, .. } => matches!(
            op,
            ast::BinaryOperator::Plus
                | ast::BinaryOperator::Minus
                | ast::BinaryOperator::Multiply
                | ast::BinaryOperator::Gt
                | ast::BinaryOperator::Lt
                | ast::BinaryOperator::GtEq
                | ast::BinaryOperator::LtEq
                | ast::BinaryOperator::Eq
                | ast::BinaryOperator::NotEq
                | ast::BinaryOperator::And
                | ast::BinaryOperator::Or
        ),
        _ => false,
    }
}

/// Whether an optimized plan is short to run once its rows are found by key: it
/// does no more to a row than to compare and to choose columns.
pub(super) fn is_simple(plan: &LogicalPlan) -> Result<bool> {
    let mut left = EXPRS_MAX;
    let mut simple = true;
    plan.apply(|node| {
        simple &= is_of_one_input(node);
        node.apply_expressions(|expr| {
            simple &= is_simple_expr(expr, &mut left);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match simple {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })
    .map_err(planning)?;
    Ok(simple)
}

/// Whether a plan only chooses rows and columns of one table, or of none, without
/// a subquery.
pub(super) fn has_one_input(plan: &LogicalPlan) -> Result<bool> {
    let mut has = true;
    plan.apply_with_subqueries(|node| {
        has &= is_of_one_input(node);
        Ok(match has {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })
    .map_err(planning)?;
    Ok(has)
}

fn is_of_one_input(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::TableScan(_)
    )
}

/// Whether `expr` is one of those, and of no more expressions than are `left`.
fn is_simple_expr(expr: &Expr, left: &mut usize) -> bool {
    let Some(fewer) = left.checked_sub(1) else {
        return false;
    };
    *left = fewer;
    match expr {
        Expr::Column(_) | Expr::Literal(..) | Expr::Placeholder(_) => true,
        Expr::Alias(alias) => is_simple_expr(&alias.expr, left),
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
            is_simple_expr(inner, left)
        }
        Expr::BinaryExpr(BinaryExpr {
            left: first,
            op,
            right,
        }) => {
            let adds = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
            (adds || compares(*op) || connects(*op))
                && is_simple_expr(first, left)
                && is_simple_expr(right, left)
        }
        Expr::Between(between) => [&between.expr, &between.low, &between.high]
            .into_iter()
            .all(|expr| is_simple_expr(expr, left)),
        Expr::InList(list) => {
            is_simple_expr(&list.expr, left)
                && list.list.iter().all(|expr| is_simple_expr(expr, left))
        }
        _ => false,
    }
}

/// Whether a simple plan reads few rows: none, or those of whole keys.
pub(super) fn reads_few(plan: &LogicalPlan) -> Result<bool> {
    let mut scans = false;
    plan.apply(|node| {
        scans |= matches!(node, LogicalPlan::TableScan(_));
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(planning)?;
    Ok(!scans || reads_keys(plan)?)
}

/// Whether a simple plan is of one scan by a whole key, and of nothing else that
/// depends on the values of parameters.
pub(super) fn is_of_key(plan: &LogicalPlan) -> Result<bool> {
    let mut scans = 0;
    let mut keeps = true;
    plan.apply(|node| {
        keeps &= match node {
            LogicalPlan::TableScan(scan) => {
                scans += 1;
                let provider = source_as_provider(&scan.source)?;
                let table = provider.downcast_ref::<ScopedTable>();
                table.is_some_and(|table| table.keeps_to(&scan.filters))
            }
            LogicalPlan::Projection(projection) => !projection.expr.iter().any(params::is_in),
            LogicalPlan::SubqueryAlias(_) => true,
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(planning)?;
    Ok(keeps && scans == 1)
}

/// Threads of callers that may wait for a disk at a time, of those that serve
/// others too.
#[derive(Debug)]
pub(super) struct Places(AtomicUsize);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Places(AtomicUsize::new(count))
    }

    fn take(&self) -> Option<Taken<'_>> {
        let taken = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| {
                free.checked_sub(1)
            });
        taken.is_ok().then_some(Taken(self))
    }
}

struct Taken<'a>(&'a Places);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Release);
    }
}

/// Polls short work, whose polls may wait for a disk where there is a place for it.
pub(super) struct Here<T> {
    places: Arc<Places>,
    inner: T,
}

impl<T: Unpin> Here<T> {
    pub(super) fn new(places: &Arc<Places>, inner: T) -> Self {
        Here {
            places: Arc::clone(places),
            inner,
        }
    }

    fn poll_inner<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let inner = Pin::new(&mut self.inner);
        match self.places.take() {
            Some(_taken) => while_thread_blocks(|| poll(inner, cx)),
            None => poll(inner, cx),
        }
    }
}

impl<F: Future + Unpin> Future for Here<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_inner(cx, |inner, cx| inner.poll(cx))
    }
}

impl<S: Stream + Unpin> Stream for Here<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_inner(cx, |inner, cx| inner.poll_next(cx))
    }
}

/// Runs `work` on the thread that asks for it. A panic is an error, as it is where
/// work has a task of its own.
pub(super) async fn run_here<T>(
    places: &Arc<Places>,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let caught: CatchUnwind<_> = AssertUnwindSafe(Box::pin(work)).catch_unwind();
    let done = Here::new(places, caught).await;
    done.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// The error of short work that panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("it does not say why").to_owned();
    tracing::error!(text, "a short statement panicked");
    Error::internal(
        "the statement failed inside the engine: see the server's log under this request's id",
        text,
    )
}
