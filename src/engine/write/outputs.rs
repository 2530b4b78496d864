//! The names of what a source yields. An INSERT takes values by their places, and the
//! planner refuses a query two of whose outputs have one name.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr};

use super::quoted;

/// Gives outputs of a source that share the name of an earlier one names of their own.
/// Others keep theirs, which ORDER BY may mean.
pub(super) fn name_apart(source: &mut SetExpr) {
    match source {
        SetExpr::Select(select) => items_apart(&mut select.projection),
        SetExpr::Query(query) => name_apart(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_apart(left);
            name_apart(right);
        }
        _ => {}
    }
}

fn items_apart(items: &mut [SelectItem]) {
    let mut names = HashSet::new();
    // It may yield any name.
    let has_wildcard = items.iter().any(|item| {
        matches!(
            item,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    });
    for (at, item) in items.iter_mut().enumerate() {
        let is_shared = match item {
            SelectItem::UnnamedExpr(expr) => !names.insert(name_of(expr)) || has_wildcard,
            SelectItem::ExprWithAlias { alias, .. } => !names.insert(alias.value.to_lowercase()),
            _ => false,
        };
        if is_shared
            && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
        {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: quoted(&format!("output {at}")),
            };
        }
    }
}

/// What the planner may call the column of an expression: more that differ have one
/// name here than there.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => name_of(inner),
        Expr::CompoundIdentifier(parts) => parts
            .last()
            .map_or_else(String::new, |last| last.value.to_lowercase()),
        Expr::Identifier(name) => name.value.to_lowercase(),
        expr => expr.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parsed_query;
    use super::*;

    #[test]
    fn outputs_of_one_name_are_told_apart() {
        for (sql, named) in [
            ("SELECT a, b FROM t", "SELECT a, b FROM t"),
            (
                "SELECT a, CAST(a AS INT) FROM t ORDER BY a",
                "SELECT a, CAST(a AS INT) AS \"output 1\" FROM t ORDER BY a",
            ),
            ("SELECT 1 AS a, 2 AS A", "SELECT 1 AS a, 2 AS \"output 1\""),
            (
                "SELECT t.a, (u.a), t.b FROM t, u",
                "SELECT t.a, (u.a) AS \"output 1\", t.b FROM t, u",
            ),
            (
                "SELECT *, a, b AS b FROM t",
                "SELECT *, a AS \"output 1\", b AS b FROM t",
            ),
            (
                "(SELECT 1, 1) UNION ALL SELECT 2, 2",
                "(SELECT 1, 1 AS \"output 1\") UNION ALL SELECT 2, 2 AS \"output 1\"",
            ),
        ] {
            let mut query = parsed_query(sql).unwrap();
            name_apart(&mut query.body);
            assert_eq!(query.to_string(), named);
        }
    }
}
