//! What a literal is next to a value of another type, where DataFusion would lose
//! a part of it or knows no way: numbers next to decimals, texts next to UUIDs.
//!
//! Operators are looked at while they are planned, since the type of a sum follows
//! from its parts. [`settled`] sees to the rest of a plan, none of whose types
//! it changes.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, Cast, InList, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::numbers::{self, Exact};
use super::types::{is_uuid, uuid_field};
use super::uuid;

/// Plans operators between literals and values of another type.
#[derive(Debug)]
pub(super) struct Operands;

impl ExprPlanner for Operands {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::*;
        let compares = match expr.op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq | Spaceship => true,
            Plus | Minus | Multiply | Divide | Modulo => false,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        expr.right = beside(&expr.left, expr.right, compares, schema)?;
        expr.left = beside(&expr.right, expr.left, compares, schema)?;
        Ok(PlannerResult::Original(expr))
    }
}

/// The type of `expr`, where it has one that is known. It is asked for where it
/// matters alone: telling that of a long sum takes as long as the sum is.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::Placeholder(placeholder) => {
            let field = placeholder.field.as_ref()?;
            Some(field.data_type().clone())
        }
        expr => expr.get_type(schema).ok(),
    }
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    type_of(expr, schema).is_some_and(|data_type| data_type.is_string())
}

fn yields_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    if type_of(expr, schema) != Some(DataType::FixedSizeBinary(uuid::UUID_BYTES)) {
        return false;
    }
    match expr {
        Expr::Placeholder(placeholder) => placeholder.field.as_ref().is_some_and(|f| is_uuid(f)),
        expr => expr
            .to_field(schema)
            .is_ok_and(|(_, field)| is_uuid(&field)),
    }
}

/// `expr` next to a value of another.
fn beside(other: &Expr, expr: Expr, compares: bool, schema: &DFSchema) -> Result<Expr> {
    let Some(text) = numbers::literal_text(&expr) else {
        return match compares && yields_uuid(other, schema) && is_text(&expr, schema) {
            true => uuid::of_text(expr, false),
            false => Ok(expr),
        };
    };
    let Some(mut data_type) = type_of(other, schema) else {
        return Ok(expr);
    };
    if let DataType::Dictionary(_, values) = data_type {
        data_type = *values;
    }
    // In decimals, a double beside a long number would be cut off or too large.
    let value = if data_type.is_floating() && numbers::is_long(&expr) {
        Some(numbers::value(&text, &DataType::Float64)?)
    } else if !data_type.is_decimal() {
        None
    } else if compares {
        Exact::parse(&text).and_then(|exact| exact.compared_with(&data_type))
    } else {
        Exact::parse(&text).and_then(|exact| exact.decimal(false))
    };
    Ok(match value {
        Some(value) => Expr::Literal(value, None),
        None => expr,
    })
}

/// `plan` with what is beyond operators seen to.
pub(super) fn settled(plan: LogicalPlan) -> Result<LogicalPlan> {
    let settled = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let settled = transformed(expr, &schema)?;
            Ok(settled.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(settled.data)
}

/// `expr`, over rows of `schema`, with what is beyond operators seen to.
pub(super) fn settled_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(transformed(expr, schema)?.data)
}

/// From the outside in: a cast sees the literal inside before that is a double.
fn transformed(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| match expr {
        Expr::Cast(cast) => of_cast(cast, schema),
        Expr::TryCast(cast) => of_try_cast(cast, schema),
        Expr::InList(list) => of_list(list, schema).map(Transformed::yes),
        Expr::Between(between) => of_between(between, schema).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })
}

fn of_cast(mut cast: Cast, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if is_uuid(&cast.field) {
        if let Expr::Placeholder(placeholder) = cast.expr.as_mut()
            && placeholder.field.is_none()
        {
            placeholder.field = Some(uuid_field());
            return Ok(Transformed::yes(*cast.expr));
        }
        return match is_text(&cast.expr, schema) {
            true => uuid::of_text(*cast.expr, false).map(Transformed::yes),
            false => Ok(Transformed::no(Expr::Cast(cast))),
        };
    }
    let wanted = cast.field.data_type();
    if let Some(text) = numbers::kept_text(&cast) {
        let value = numbers::value(text, wanted)?;
        return Ok(Transformed::yes(Expr::Literal(value, None)));
    }
    if let Some(text) = numbers::literal_text(&cast.expr)
        && (wanted.is_decimal() || wanted.is_floating())
    {
        let value = numbers::value(&text, wanted)?;
        *cast.expr = Expr::Literal(value, None);
        return Ok(Transformed::yes(Expr::Cast(cast)));
    }
    if wanted.is_string() && yields_uuid(&cast.expr, schema) {
        return Ok(Transformed::yes(uuid::to_text(*cast.expr, wanted)));
    }
    Ok(Transformed::no(Expr::Cast(cast)))
}

fn of_try_cast(cast: TryCast, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let wanted = cast.field.data_type();
    if is_uuid(&cast.field) && is_text(&cast.expr, schema) {
        return uuid::of_text(*cast.expr, true).map(Transformed::yes);
    }
    if wanted.is_string() && yields_uuid(&cast.expr, schema) {
        return Ok(Transformed::yes(uuid::to_text(*cast.expr, wanted)));
    }
    Ok(Transformed::no(Expr::TryCast(cast)))
}

fn of_list(mut list: InList, schema: &DFSchema) -> Result<Expr> {
    let expr = &list.expr;
    list.list = list
        .list
        .into_iter()
        .map(|item| beside(expr, item, true, schema))
        .collect::<Result<_>>()?;
    Ok(Expr::InList(list))
}

fn of_between(between: Between, schema: &DFSchema) -> Result<Expr> {
    let low = beside(&between.expr, *between.low, true, schema)?;
    let high = beside(&between.expr, *between.high, true, schema)?;
    Ok(Expr::Between(Between {
        low: Box::new(low),
        high: Box::new(high),
        ..between
    }))
}
