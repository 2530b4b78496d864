//! Statements that differ in values alone.
//!
//! A client that writes values into its texts sends a new text for each, of which
//! only the values are new. So a text's values are taken out of where they are
//! compared with columns, what is left is planned once with parameters in their
//! place, and the text is that plan with its values bound.
//!
//! Invariant: a value is taken out only where the literal and the parameter mean the
//! same: one that is not of the parameter's type as it stands there is planned with
//! its text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;

use super::params;
use super::types::is_uuid;
use super::uuid::{self, UUID_BYTES};

/// Values that are taken out of one statement at most.
const VALUES_MAX: usize = 16;

/// A query without the values that its columns are to equal.
pub(super) struct Lifted {
    /// The query, with `$1`, `$2` and so on for the values.
    pub shape: ast::Statement,
    values: Vec<Literal>,
}

/// A literal as a text has it.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Integer(i64),
    Text(String),
}

impl Lifted {
    /// Takes the values out of `statement`, if it is a query that has any and has no
    /// parameters of its own.
    pub fn of(statement: &ast::Statement) -> Option<Self> {
        let mut shape = match statement {
            ast::Statement::Query(query) if filter_of(query).is_some() => statement.clone(),
            _ => return None,
        };
        if params::has_parameters(&shape) {
            return None;
        }
        let ast::Statement::Query(query) = &mut shape else {
            return None;
        };
        let ast::SetExpr::Select(select) = query.body.as_mut() else {
            return None;
        };
        let mut values = Vec::new();
        take_out(select.selection.as_mut()?, &mut values);
        (!values.is_empty()).then_some(Lifted { shape, values })
    }

    /// The values as those of the parameters, if each is one.
    pub fn values(&self, parameters: &Schema) -> Option<Vec<ScalarValue>> {
        if parameters.fields().len() != self.values.len() {
            return None;
        }
        let fields = parameters.fields().iter();
        fields
            .zip(&self.values)
            .map(|(field, literal)| literal.value_of(field))
            .collect()
    }
}

/// Whether a literal can be the value of each parameter.
pub(super) fn takes_literals(parameters: &Schema) -> bool {
    let takes = |field: &Arc<Field>| {
        let data_type = field.data_type();
        is_uuid(field) || data_type.is_integer() || is_text(data_type)
    };
    parameters.fields().iter().all(takes)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn filter_of(query: &ast::Query) -> Option<&ast::Expr> {
    match query.body.as_ref() {
        ast::SetExpr::Select(select) => select.selection.as_ref(),
        _ => None,
    }
}

/// Puts parameters in the place of what columns are to equal in every row that
/// passes `filter`.
fn take_out(filter: &mut ast::Expr, values: &mut Vec<Literal>) {
    match filter {
        ast::Expr::Nested(inner) => take_out(inner, values),
        ast::Expr::BinaryOp {
            left,
            op: ast::BinaryOperator::And,
            right,
        } => {
            take_out(left, values);
            take_out(right, values);
        }
        ast::Expr::BinaryOp {
            left,
            op: ast::BinaryOperator::Eq,
            right,
        } => {
            let value = match (is_column(left), is_column(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return,
            };
            if values.len() < VALUES_MAX
                && let Some(literal) = Literal::of(value)
            {
                values.push(literal);
                let name = format!("${}", values.len());
                **value = ast::Expr::value(ast::Value::Placeholder(name));
            }
        }
        _ => {}
    }
}

fn is_column(expr: &ast::Expr) -> bool {
    matches!(
        expr,
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)
    )
}

impl Literal {
    fn of(expr: &ast::Expr) -> Option<Self> {
        match expr {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, false) => digits.parse().ok().map(Literal::Integer),
                ast::Value::SingleQuotedString(text) => Some(Literal::Text(text.clone())),
                _ => None,
            },
            ast::Expr::UnaryOp {
                op: ast::UnaryOperator::Minus,
                expr,
            } => match Literal::of(expr)? {
                Literal::Integer(number) => Some(Literal::Integer(-number)),
                Literal::Text(_) => None,
            },
            _ => None,
        }
    }

    /// The literal as a value of the parameter, if it is one.
    fn value_of(&self, field: &Field) -> Option<ScalarValue> {
        let data_type = field.data_type();
        match self {
            Literal::Text(text) if is_uuid(field) => {
                let bytes = uuid::parsed(text).ok()?.to_vec();
                Some(ScalarValue::FixedSizeBinary(UUID_BYTES, Some(bytes)))
            }
            Literal::Text(text) if is_text(data_type) => {
                let value = ScalarValue::Utf8(Some(text.clone()));
                value.cast_to(data_type).ok()
            }
            Literal::Integer(number) if data_type.is_integer() => {
                ScalarValue::Int64(Some(*number)).cast_to(data_type).ok()
            }
            Literal::Text(_) | Literal::Integer(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::statement::parse_one;
    use super::*;

    /// The shape of a text, and its values as those of parameters of some types.
    fn lifted(sql: &str, types: &[DataType]) -> Option<(String, Option<Vec<ScalarValue>>)> {
        let lifted = Lifted::of(&parse_one(sql).expect("the text parses"))?;
        let fields = types.iter().enumerate();
        let fields = fields
            .map(|(at, data_type)| Field::new(format!("${}", at + 1), data_type.clone(), true));
        let values = lifted.values(&Schema::new(fields.collect::<Vec<_>>()));
        Some((lifted.shape.to_string(), values))
    }

    #[test]
    fn values_that_columns_equal_are_taken_out() {
        let (shape, values) = lifted(
            "SELECT a, 1 FROM t WHERE id = 5 AND (b > 2 AND 'x' = t.c) AND d = -7 LIMIT 3",
            &[DataType::Int32, DataType::Utf8View, DataType::Int64],
        )
        .expect("it has values");
        assert_eq!(
            shape,
            "SELECT a, 1 FROM t WHERE id = $1 AND (b > 2 AND $2 = t.c) AND d = $3 LIMIT 3"
        );
        let expected = vec![
            ScalarValue::Int32(Some(5)),
            ScalarValue::Utf8View(Some("x".into())),
            ScalarValue::Int64(Some(-7)),
        ];
        assert_eq!(values, Some(expected));
    }

    #[test]
    fn a_literal_of_another_type_than_the_parameter_is_no_value_of_it() {
        for (literal, data_type) in [
            ("300", DataType::Int8),
            ("-1", DataType::UInt64),
            ("5", DataType::Utf8),
            ("'5'", DataType::Int64),
            ("5", DataType::Float64),
            ("'2020-01-01'", DataType::Date32),
        ] {
            let sql = format!("SELECT * FROM t WHERE a = {literal}");
            let (_, values) = lifted(&sql, &[data_type]).expect("it has a value");
            assert_eq!(values, None, "{sql}");
        }
    }

    #[test]
    fn what_is_no_plain_value_of_a_column_stays() {
        for sql in [
            "SELECT * FROM t",
            "SELECT * FROM t WHERE id = $1",
            "SELECT * FROM t WHERE id = $1 AND b = 5",
            "SELECT * FROM t WHERE id = 5 OR id = 6",
            "SELECT * FROM t WHERE NOT id = 5",
            "SELECT * FROM t WHERE id = 1.5",
            "SELECT * FROM t WHERE id = 99999999999999999999",
            "SELECT * FROM t WHERE id = NULL",
            "SELECT * FROM t WHERE id = DATE '2020-01-01'",
            "SELECT * FROM t WHERE id + 1 = 5",
            "SELECT * FROM t WHERE 5 = 5",
            "SELECT * FROM t WHERE id < 5",
            "EXPLAIN SELECT * FROM t WHERE id = 5",
            "DELETE FROM t WHERE id = 5",
        ] {
            assert!(lifted(sql, &[]).is_none(), "{sql}");
        }
    }
}
