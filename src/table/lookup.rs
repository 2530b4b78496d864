//! Predicates on the columns of keys and indexes, as conditions that SQLite finds
//! rows by.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use rusqlite::types::Value;

use super::codec::{self, FloatKey, Ordering};
use super::equal::Equal;
use super::storage::column_name;
use crate::catalog::{IndexKind, TableDefinition};
use crate::error::Result;

/// The longest list of values that SQLite is asked to look up.
const VALUES_MAX: usize = 1_000;

/// A condition on one column that SQLite decides as Arrow does.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyCondition {
    column: u32,
    sql: String,
    values: Vec<Value>,
    /// Whether unique indexes find rows by it, which hold some values otherwise
    /// than columns do.
    by_key: bool,
    /// Whether it is that the column has one of some values.
    is_equality: bool,
}

/// What is looked up through an index: conditions that rows which are not found
/// by do not meet. Rows that are found may still have to be filtered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyLookup {
    conditions: Vec<KeyCondition>,
}

impl KeyLookup {
    /// The part of `filters` that an index of the table finds rows by, or `None`
    /// when there is no such part.
    pub fn new(definition: &TableDefinition, filters: &[Expr]) -> Option<Self> {
        let conditions: Vec<KeyCondition> = filters
            .iter()
            .flat_map(conjuncts)
            .filter_map(|filter| condition(definition, filter))
            .collect();
        let leads = |condition: &KeyCondition| {
            definition.indexes.iter().any(|index| {
                index.columns.first() == Some(&condition.column)
                    && (condition.by_key || index.kind == IndexKind::Plain)
            })
        };
        if !conditions.iter().any(leads) {
            return None;
        }
        let indexed = |column: u32| {
            definition
                .indexes
                .iter()
                .any(|index| index.columns.contains(&column))
        };
        let conditions = conditions
            .into_iter()
            .filter(|condition| indexed(condition.column))
            .collect();
        Some(KeyLookup { conditions })
    }

    /// The lookup of rows that meet `equal`, each of which has a value.
    pub(super) fn of_equal(definition: &TableDefinition, equal: &[Equal]) -> Result<Option<Self>> {
        let mut conditions = Vec::with_capacity(equal.len());
        for equal in equal {
            let position = definition.position(equal.column);
            let condition = match position {
                Some(at) => {
                    let data_type = definition.columns[at].field.data_type();
                    comparison((equal.column, data_type), Operator::Eq, equal.value()?)
                }
                None => None,
            };
            match condition {
                Some(condition) => conditions.push(condition),
                None => return Ok(None),
            }
        }
        Ok(Some(KeyLookup { conditions }))
    }

    /// Whether it is of whole unique keys, so that few rows are found in a lane.
    pub fn is_of_keys(&self, definition: &TableDefinition) -> bool {
        let equals = |column: &u32| {
            let mut conditions = self.conditions.iter();
            conditions.any(|on| on.column == *column && on.is_equality && on.by_key)
        };
        let mut indexes = definition.indexes.iter();
        indexes.any(|index| index.kind != IndexKind::Plain && index.columns.iter().all(equals))
    }

    /// The columns that conditions are on, by number.
    pub(super) fn columns(&self) -> impl Iterator<Item = u32> {
        self.conditions.iter().map(|condition| condition.column)
    }

    /// The conditions, to follow an AND, with parameters numbered from `first`.
    pub(super) fn sql(&self, first: usize) -> String {
        let mut next = first;
        let mut sql = String::new();
        for condition in &self.conditions {
            let mut text = condition.sql.as_str();
            sql.push_str(" AND ");
            while let Some((before, after)) = text.split_once('?') {
                sql.push_str(before);
                sql.push_str(&format!("?{next}"));
                next += 1;
                text = after;
            }
            sql.push_str(text);
        }
        sql
    }

    /// The values of the parameters.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.conditions
            .iter()
            .flat_map(|condition| &condition.values)
    }
}

fn conjuncts(filter: &Expr) -> Vec<&Expr> {
    datafusion::logical_expr::utils::split_conjunction(filter)
}

fn condition(definition: &TableDefinition, filter: &Expr) -> Option<KeyCondition> {
    match filter {
        // What the optimizer makes of a short list of values.
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let (left, right) = (condition(definition, left)?, condition(definition, right)?);
            (left.column == right.column).then(|| KeyCondition {
                column: left.column,
                sql: format!("(({}) OR ({}))", left.sql, right.sql),
                values: [left.values, right.values].concat(),
                by_key: left.by_key && right.by_key,
                is_equality: left.is_equality && right.is_equality,
            })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let Some(column) = column_of(definition, left) {
                comparison(column, *op, literal_of(right)?)
            } else {
                let column = column_of(definition, right)?;
                comparison(column, op.swap()?, literal_of(left)?)
            }
        }
        Expr::Between(between) if !between.negated => {
            let column = column_of(definition, &between.expr)?;
            let (low, _) = bounds(column, literal_of(&between.low)?, Ordering::Total)?;
            let (_, high) = bounds(column, literal_of(&between.high)?, Ordering::Total)?;
            Some(KeyCondition {
                column: column.0,
                sql: format!("{} BETWEEN ? AND ?", column_name(column.0)),
                values: vec![low, high],
                by_key: FloatKey::of(column.1).is_none(),
                is_equality: false,
            })
        }
        Expr::InList(list) if !list.negated && list.list.len() <= VALUES_MAX => {
            let column = column_of(definition, &list.expr)?;
            let mut values = Vec::with_capacity(list.list.len());
            for item in &list.list {
                let (low, high) = bounds(column, literal_of(item)?, Ordering::Equality)?;
                if low != high {
                    values.push(high);
                }
                values.push(low);
            }
            let marks = vec!["?"; values.len()].join(", ");
            let condition = KeyCondition {
                column: column.0,
                sql: format!("{} IN ({marks})", column_name(column.0)),
                values,
                by_key: true,
                is_equality: true,
            };
            Some(found_by_key(column, condition))
        }
        _ => None,
    }
}

/// A comparison with a value, of which the stored forms lie between two bounds.
fn comparison(
    column: (u32, &DataType),
    op: Operator,
    literal: &ScalarValue,
) -> Option<KeyCondition> {
    let needs = match op {
        Operator::Eq => Ordering::Equality,
        _ => Ordering::Total,
    };
    let (low, high) = bounds(column, literal, needs)?;
    let name = column_name(column.0);
    let (sql, values) = match op {
        Operator::Eq if low == high => (format!("{name} = ?"), vec![low]),
        Operator::Eq => (format!("{name} BETWEEN ? AND ?"), vec![low, high]),
        Operator::Lt => (format!("{name} < ?"), vec![low]),
        Operator::LtEq => (format!("{name} <= ?"), vec![high]),
        Operator::Gt => (format!("{name} > ?"), vec![high]),
        Operator::GtEq => (format!("{name} >= ?"), vec![low]),
        _ => return None,
    };
    let condition = KeyCondition {
        column: column.0,
        sql,
        values,
        by_key: op == Operator::Eq || FloatKey::of(column.1).is_none(),
        is_equality: op == Operator::Eq,
    };
    Some(match op {
        Operator::Eq => found_by_key(column, condition),
        _ => condition,
    })
}

/// A condition on what the column equals, with the same about what keys have of it.
fn found_by_key(
    (number, data_type): (u32, &DataType),
    mut condition: KeyCondition,
) -> KeyCondition {
    let Some(key) = FloatKey::of(data_type) else {
        return condition;
    };
    let mut forms: Vec<Value> = Vec::with_capacity(condition.values.len());
    for value in &condition.values {
        let form = key.form(value.clone());
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    let marks = vec!["?"; forms.len()].join(", ");
    let of_key = key.sql(&column_name(number));
    condition.sql = match forms.len() {
        1 => format!("{} AND {of_key} = ?", condition.sql),
        _ => format!("{} AND {of_key} IN ({marks})", condition.sql),
    };
    condition.values.extend(forms);
    condition
}

pub(super) fn column_of<'a>(
    definition: &'a TableDefinition,
    expr: &Expr,
) -> Option<(u32, &'a DataType)> {
    let Expr::Column(column) = expr else {
        return None;
    };
    let column = definition.column(&column.name)?;
    (column.number != 0).then(|| (column.number, column.field.data_type()))
}

fn literal_of(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// The least and the greatest stored form of what equals `value` in a column,
/// where SQLite's comparison of stored forms is good enough for `needs`. `None`
/// for NULL, which nothing equals, and for a value of another type.
fn bounds(
    (_, data_type): (u32, &DataType),
    value: &ScalarValue,
    needs: Ordering,
) -> Option<(Value, Value)> {
    let enough = match codec::ordering(data_type) {
        Ordering::Total => true,
        Ordering::Equality => needs == Ordering::Equality,
        Ordering::None => false,
    };
    if !enough {
        return None;
    }
    let logical = match data_type {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let value = match value {
        ScalarValue::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    if value.data_type() != *logical {
        return None;
    }
    let array = value.to_array().ok()?;
    codec::encode_bounds(array.as_ref(), 0).ok().flatten()
}
