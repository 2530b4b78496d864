//! New values of columns, in the statement: a text for a UUID, and a number for a
//! decimal, are said to be one.
//!
//! The planner converts values to their columns' types too late for these: it has
//! read the number as a double by then, and knows no UUID in a text.

use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query, SelectItem,
    SetExpr, UnaryOperator, Value,
};

use super::{parsed_query, quoted};
use crate::catalog::{TableColumn, TableDefinition};
use crate::engine::define::folded;
use crate::engine::names::Resolver;
use crate::engine::params::is_placeholder;
use crate::engine::types::is_uuid;
use crate::error::Result;

/// `value` as a new value of the column.
pub(in crate::engine) fn for_column(field: &Field, value: Expr) -> Expr {
    match sql_type(field) {
        // Parameters have the column's type.
        Some(ast::DataType::Uuid) if !is_placeholder(&value) => cast(value, ast::DataType::Uuid),
        Some(ast::DataType::Decimal(info)) => numbers_in(value, &ast::DataType::Decimal(info)),
        _ => value,
    }
}

/// The source of an INSERT into these columns, with its values as they need be.
pub(super) fn for_columns(
    definition: &TableDefinition,
    columns: &[ObjectName],
    source: &mut Query,
    resolver: &Resolver<'_>,
) -> Result<()> {
    let columns: Vec<Option<&TableColumn>> = columns
        .iter()
        .map(|name| definition.column(&folded(name.0.last()?.as_ident()?)))
        .collect();
    let mut fields = columns.iter().flatten().map(|column| &column.field);
    if !fields.any(|field| sql_type(field).is_some()) {
        return Ok(());
    }
    let fit = |value: &mut Expr, column: &TableColumn| {
        let given = std::mem::replace(value, Expr::value(Value::Null));
        *value = for_column(&column.field, given);
    };
    match source.body.as_mut() {
        SetExpr::Values(values) => {
            for row in &mut values.rows {
                for (value, column) in row.content.iter_mut().zip(&columns) {
                    if let Some(column) = column {
                        fit(value, column);
                    }
                }
            }
            return Ok(());
        }
        SetExpr::Select(select) => {
            for (item, column) in select.projection.iter_mut().zip(&columns) {
                match (item, column) {
                    (SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..), _) => break,
                    (
                        SelectItem::UnnamedExpr(value)
                        | SelectItem::ExprWithAlias { expr: value, .. },
                        Some(column),
                    ) if is_number(value) => fit(value, column),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    read_uuids(&columns, source, resolver)
}

/// Wraps a query that yields texts for columns of UUIDs in one that reads them.
fn read_uuids(
    columns: &[Option<&TableColumn>],
    source: &mut Query,
    resolver: &Resolver<'_>,
) -> Result<()> {
    let is_uuid = |column: &Option<&TableColumn>| column.is_some_and(|c| is_uuid(&c.field));
    if !columns.iter().any(is_uuid) {
        return Ok(());
    }
    let types = resolver.types_of(source)?;
    let reads = |at: usize| {
        columns.get(at).is_some_and(is_uuid) && types.get(at).is_some_and(DataType::is_string)
    };
    if !(0..types.len()).any(reads) {
        return Ok(());
    }
    let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
    let mut wrapped = parsed_query(&format!(
        "SELECT 1 FROM (SELECT 1) AS a({})",
        names.join(", ")
    ))?;
    if let SetExpr::Select(select) = wrapped.body.as_mut() {
        let items = names.iter().enumerate().map(|(at, name)| {
            let value = Expr::Identifier(quoted(name));
            SelectItem::UnnamedExpr(match reads(at) {
                true => cast(value, ast::DataType::Uuid),
                false => value,
            })
        });
        select.projection = items.collect();
        for from in &mut select.from {
            if let ast::TableFactor::Derived { subquery, .. } = &mut from.relation {
                std::mem::swap(subquery.as_mut(), source);
            }
        }
    }
    *source = wrapped;
    Ok(())
}

/// The type that values of a column are said to be of, where they are.
fn sql_type(field: &Field) -> Option<ast::DataType> {
    if is_uuid(field) {
        return Some(ast::DataType::Uuid);
    }
    match field.data_type() {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            let (precision, scale) = (u64::from(*precision), i64::from(*scale));
            let info = ast::ExactNumberInfo::PrecisionAndScale(precision, scale);
            Some(ast::DataType::Decimal(info))
        }
        _ => None,
    }
}

/// `value` with numbers that may be what it yields cast to a type.
fn numbers_in(value: Expr, to: &ast::DataType) -> Expr {
    let within = |value: &mut Expr| {
        let inner = std::mem::replace(value, Expr::value(Value::Null));
        *value = numbers_in(inner, to);
    };
    match value {
        number if is_number(&number) => cast(number, to.clone()),
        Expr::Nested(mut inner) => {
            within(&mut inner);
            Expr::Nested(inner)
        }
        Expr::Case {
            case_token,
            end_token,
            operand,
            mut conditions,
            mut else_result,
        } => {
            conditions
                .iter_mut()
                .for_each(|when| within(&mut when.result));
            else_result.iter_mut().for_each(|result| within(result));
            Expr::Case {
                case_token,
                end_token,
                operand,
                conditions,
                else_result,
            }
        }
        Expr::Function(mut call) if call.name.to_string().eq_ignore_ascii_case("coalesce") => {
            if let FunctionArguments::List(list) = &mut call.args {
                for arg in &mut list.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg {
                        within(arg);
                    }
                }
            }
            Expr::Function(call)
        }
        other => other,
    }
}

fn is_number(value: &Expr) -> bool {
    match value {
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        Expr::UnaryOp {
            op: UnaryOperator::Minus | UnaryOperator::Plus,
            expr,
        } => is_number(expr),
        _ => false,
    }
}

fn cast(value: Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(value),
        data_type,
        array: false,
        format: None,
    }
}
