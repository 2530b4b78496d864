//! Which predicates may run below the guard: those that cannot fail and have
//! no effect on any row, of whichever lane.

use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// Whether evaluating `expr` on any row yields a value, never an error.
///
/// The list is of what is known to be so: columns and literals, comparisons of
/// these, tests for NULL and truth, lists of literals, and their conjunctions,
/// disjunctions and negations. Arithmetic, casts and function calls are not on
/// it, and neither is anything that is not listed.
pub(super) fn is_total(expr: &Expr) -> bool {
    match expr {
        // A parameter's place is taken by a literal before a plan runs.
        Expr::Column(_) | Expr::Literal(..) | Expr::Placeholder(_) => true,
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => is_total(inner),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            (compares(*op) || connects(*op)) && is_total(left) && is_total(right)
        }
        Expr::Between(between) => {
            is_total(&between.expr) && is_total(&between.low) && is_total(&between.high)
        }
        Expr::InList(list) => {
            is_total(&list.expr)
                && list
                    .list
                    .iter()
                    .all(|item| matches!(item, Expr::Literal(..) | Expr::Placeholder(_)))
        }
        _ => false,
    }
}

/// Whether an operator connects two conditions.
pub(super) fn connects(op: Operator) -> bool {
    matches!(op, Operator::And | Operator::Or)
}

/// Whether an operator compares two values of a type.
pub(super) fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    #[test]
    fn what_may_fail_stays_above_the_guard() {
        for (expr, expected) in [
            (col("a").eq(lit(1)), true),
            (col("a").in_list(vec![lit(1), lit(2)], true), true),
            (
                col("a").between(lit(1), lit(2)).and(col("b").is_null()),
                true,
            ),
            ((lit(1) / col("a")).eq(lit(0)), false),
            ((col("a") + lit(1)).eq(lit(0)), false),
            (cast(col("a"), DataType::Int64).eq(lit(0)), false),
            (
                col("a").eq(lit(1)).or((lit(1) / col("a")).eq(lit(0))),
                false,
            ),
            (col("a").in_list(vec![lit(1) / col("b")], false), false),
            (col("a").like(lit("x%")), false),
        ] {
            assert_eq!(is_total(&expr), expected, "{expr}");
        }
    }
}
