//! `?` and `$1` in a statement, and the values bound to them.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::fault::planning;
use super::types::{extension_of, is_uuid, type_name};
use super::uuid::{self, UUID_BYTES};
use crate::error::{Error, Result};

/// Parameters that one statement may have.
const PARAMETERS_MAX: usize = 1_000;

/// Numbers the `?` of a statement in the order of its text, so that `?` and
/// `$1` are one thing from here on. A statement uses the one or the other.
pub(super) fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut marks = 0;
    let mut numbered = false;
    for token in tokens {
        let Token::Placeholder(name) = &mut token.token else {
            continue;
        };
        if name == "?" {
            marks += 1;
            *name = format!("${marks}");
        } else {
            numbered = true;
        }
    }
    if marks > 0 && numbered {
        return Err(Error::InvalidArgument(
            "the statement mixes `?` and `$1` parameters: use one of them".into(),
        ));
    }
    Ok(())
}

/// Makes both parameters of `? || ?` text, as Postgres does: nothing else there
/// tells what they are.
pub(super) fn type_concatenations(statement: &mut ast::Statement) {
    // Nothing breaks off.
    let _ = ast::visit_expressions_mut(statement, |expr| {
        if let ast::Expr::BinaryOp {
            left,
            op: ast::BinaryOperator::StringConcat,
            right,
        } = expr
            && is_placeholder(left)
            && is_placeholder(right)
        {
            for side in [left, right] {
                let null = ast::Expr::value(ast::Value::Null);
                let parameter = std::mem::replace(&mut **side, null);
                **side = ast::Expr::Cast {
                    kind: ast::CastKind::Cast,
                    expr: Box::new(parameter),
                    data_type: ast::DataType::Varchar(None),
                    array: false,
                    format: None,
                };
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Whether a statement has parameters.
pub(super) fn has_parameters(statement: &ast::Statement) -> bool {
    let found = ast::visit_expressions(statement, |expr| match is_placeholder(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Whether an expression is a parameter by itself.
pub(super) fn is_placeholder(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Placeholder(_)),
        ast::Expr::Nested(inner) => is_placeholder(inner),
        _ => false,
    }
}

/// `error`, with what to do where a parameter's missing type is behind it.
pub(super) fn name_types(error: Error) -> Error {
    match error {
        Error::InvalidArgument(text) => Error::InvalidArgument(format!(
            "{text} (a parameter whose use does not tell its type is named one so: \
             CAST(? AS BIGINT))"
        )),
        other => other,
    }
}

/// The parameters of a plan in order, named `$1`, `$2` and so on. One whose use
/// does not tell its type is of the type that it is cast to, a number of rows in
/// LIMIT and OFFSET, else text, as in Postgres.
pub(super) fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef> {
    // Two uses that tell two types are refused here; one that tells none hides
    // what another has told.
    let names = plan.get_parameter_fields().map_err(planning)?.into_keys();
    let told = told_types(plan).map_err(planning)?;
    let limits = in_limits(plan).map_err(planning)?;
    let mut fields = vec![None; names.len()];
    for name in names {
        let number: usize = name
            .strip_prefix('$')
            .and_then(|digits| digits.parse().ok())
            .filter(|number| (1..=PARAMETERS_MAX).contains(number))
            .ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "parameter `{name}` is not served: number parameters $1 to ${PARAMETERS_MAX}"
                ))
            })?;
        let slot = fields.get_mut(number - 1).ok_or_else(|| {
            Error::InvalidArgument(format!(
                "parameter `{name}` leaves a gap: number parameters $1, $2 and so on"
            ))
        })?;
        let field = match told.get(&name) {
            Some(told) => {
                let metadata = extension_of(told.metadata());
                Field::new(name, told.data_type().clone(), true).with_metadata(metadata)
            }
            _ if limits.contains(&name) => Field::new(name, DataType::Int64, true),
            _ => Field::new(name, DataType::Utf8, true),
        };
        *slot = Some(field);
    }
    // As many names as places, each in a place of its own.
    let fields: Vec<Field> = fields.into_iter().flatten().collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The types that a plan tells of its parameters, by their names: where any use
/// tells one, else what they are cast to, unless that is several types.
fn told_types(plan: &LogicalPlan) -> datafusion::common::Result<HashMap<String, FieldRef>> {
    let mut used: HashMap<String, FieldRef> = HashMap::new();
    let mut casts: HashMap<String, Option<FieldRef>> = HashMap::new();
    let mut note = |expr: &Expr| match expr {
        Expr::Placeholder(Placeholder {
            id,
            field: Some(field),
        }) if !field.data_type().is_null() => {
            used.entry(id.clone()).or_insert_with(|| Arc::clone(field));
        }
        Expr::Cast(Cast { expr, field }) => {
            if let Expr::Placeholder(parameter) = expr.as_ref() {
                casts
                    .entry(parameter.id.clone())
                    .and_modify(|known| {
                        known.take_if(|known| known.data_type() != field.data_type());
                    })
                    .or_insert_with(|| Some(Arc::clone(field)));
            }
        }
        _ => {}
    };
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                note(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let casts = casts.into_iter();
    let mut told: HashMap<_, _> = casts
        .filter_map(|(name, field)| Some((name, field?)))
        .collect();
    told.extend(used);
    Ok(told)
}

/// The names of the parameters that say how many rows.
fn in_limits(plan: &LogicalPlan) -> datafusion::common::Result<HashSet<String>> {
    let mut names = HashSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(_) = node {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if let Expr::Placeholder(parameter) = expr {
                        names.insert(parameter.id.clone());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// The values cast to the parameters' types.
pub(super) fn typed_scalars(schema: &Schema, values: &[ScalarValue]) -> Result<Vec<ScalarValue>> {
    let fields = schema.fields();
    if fields.len() != values.len() {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        return Err(Error::InvalidArgument(format!(
            "the statement has {} parameter{} and {} value{} bound: prepare it and bind one row \
             with one column for each",
            fields.len(),
            s(fields.len()),
            values.len(),
            if values.len() == 1 { " is" } else { "s are" },
        )));
    }
    fields
        .iter()
        .zip(values)
        .enumerate()
        .map(|(at, (field, value))| {
            if let (true, Some(Some(text))) = (is_uuid(field), value.try_as_str()) {
                let bytes = uuid::parsed(text)?.to_vec();
                return Ok(ScalarValue::FixedSizeBinary(UUID_BYTES, Some(bytes)));
            }
            value.cast_to(field.data_type()).map_err(|_| {
                Error::InvalidArgument(format!(
                    "parameter ${} is to be {} and its value is {}: send another value",
                    at + 1,
                    type_name(field),
                    value.data_type()
                ))
            })
        })
        .collect()
}

/// Whether there is a parameter in `expr`.
pub(super) fn is_in(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_))))
        .unwrap_or(true)
}

/// `plan` with the type of each parameter at every place that it has.
pub(super) fn with_types(plan: LogicalPlan, schema: &Schema) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|expr| match expr {
                Expr::Placeholder(parameter) => {
                    let field = Arc::new(schema.field_with_name(&parameter.id)?.clone());
                    let typed = Placeholder::new_with_field(parameter.id, Some(field));
                    Ok(Transformed::yes(Expr::Placeholder(typed)))
                }
                other => Ok(Transformed::no(other)),
            })
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .map(|typed| typed.data)
    .map_err(planning)
}

/// NULL for every parameter: what makes the types of a result known before the
/// values are.
pub(super) fn nulls(schema: &Schema) -> Result<ParamValues> {
    let values = schema
        .fields()
        .iter()
        .map(|field| ScalarValue::try_from(field.data_type()).map_err(planning))
        .collect::<Result<Vec<_>>>()?;
    Ok(ParamValues::from(values))
}
