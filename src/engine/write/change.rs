//! UPDATE, DELETE and TRUNCATE as the query that yields the rows to be changed.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, Expr, FromTable, Ident, Query, SelectItem, TableFactor,
    TableWithJoins, UpdateTableFromKind,
};

use super::insert::{default_of, is_default};
use super::{
    Effect, Returning, Source, TARGET, Write, for_column, parsed_query, quoted, refuse_if,
    select_from,
};
use crate::catalog::{Relation, TableDefinition};
use crate::engine::define::folded;
use crate::engine::names::Resolver;
use crate::error::{Error, Result};
use crate::table::ROW_COLUMN;

/// UPDATE: the row numbers, and every column as it will be.
pub(super) fn update(update: ast::Update, resolver: &Resolver<'_>) -> Result<(Write, Source)> {
    let ast::Update {
        update_token: _,
        optimizer_hints,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    refuse_if(or.is_some() || !optimizer_hints.is_empty(), "UPDATE OR")?;
    refuse_if(output.is_some(), "OUTPUT")?;
    refuse_if(!order_by.is_empty(), "ORDER BY in UPDATE")?;
    refuse_if(limit.is_some(), "LIMIT in UPDATE")?;
    let target = Target::of(table, resolver)?;
    let mut write = Write::new(&target.relation, Effect::Update);
    write.returning = target.returning(returning, resolver)?;
    let definition = write.definition()?;
    let mut assigned = assigned(definition, assignments)?;
    let mut items = vec![target.item(ROW_COLUMN)];
    for column in &definition.columns {
        let name = column.field.name();
        items.push(match assigned.remove(name.as_str()) {
            Some(expr) => SelectItem::ExprWithAlias {
                expr,
                alias: quoted(name),
            },
            None => target.item(name),
        });
    }
    let from = match from {
        None => Vec::new(),
        Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => from,
    };
    let query = target.query(items, from, selection)?;
    Ok((write, Source::Change(Box::new(query))))
}

/// The new value of each assigned column.
pub(super) fn assigned(
    definition: &TableDefinition,
    assignments: Vec<Assignment>,
) -> Result<std::collections::HashMap<String, Expr>> {
    let mut assigned = std::collections::HashMap::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::Unimplemented(
                "SET of several columns at once is not served: set each by itself".into(),
            ));
        };
        let column = name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .ok_or_else(|| Error::InvalidArgument(format!("`{name}` is no column: name one")))?;
        let value = match is_default(&assignment.value) {
            true => default_of(definition, column)?,
            false => assignment.value,
        };
        let name = folded(column);
        let Some(found) = definition.column(&name) else {
            return Err(definition.no_column(&name));
        };
        let value = for_column(&found.field, value);
        if assigned.insert(name.clone(), value).is_some() {
            return Err(Error::InvalidArgument(format!(
                "column `{name}` is set twice: set it once"
            )));
        }
    }
    Ok(assigned)
}

/// DELETE: the row numbers.
pub(super) fn delete(delete: ast::Delete, resolver: &Resolver<'_>) -> Result<(Write, Source)> {
    let ast::Delete {
        delete_token: _,
        optimizer_hints,
        tables,
        from,
        using,
        selection,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    refuse_if(!optimizer_hints.is_empty(), "an optimizer hint")?;
    refuse_if(!tables.is_empty(), "DELETE of several tables")?;
    refuse_if(output.is_some(), "OUTPUT")?;
    let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = from;
    let (Some(table), true) = (from.pop(), from.is_empty()) else {
        return Err(Error::Unimplemented(
            "DELETE from several tables is not served: name one, and the others with USING".into(),
        ));
    };
    let target = Target::of(table, resolver)?;
    let mut write = Write::new(&target.relation, Effect::Delete);
    write.returning = target.returning(returning, resolver)?;
    let mut items = vec![target.item(ROW_COLUMN)];
    if write.returning.is_some() {
        let columns = &write.definition()?.columns;
        items.extend(
            columns
                .iter()
                .map(|column| target.item(column.field.name())),
        );
    }
    let mut query = target.query(items, using.unwrap_or_default(), selection)?;
    if !order_by.is_empty() || limit.is_some() {
        let clauses = order_and_limit(order_by, limit)?;
        query.order_by = clauses.order_by;
        query.limit_clause = clauses.limit_clause;
    }
    Ok((write, Source::Change(Box::new(query))))
}

/// A query with these clauses, to take them from.
fn order_and_limit(order_by: Vec<ast::OrderByExpr>, limit: Option<Expr>) -> Result<Query> {
    let mut query = parsed_query("SELECT 1 ORDER BY 1 LIMIT 1")?;
    match (&mut query.order_by, order_by.is_empty()) {
        (order, true) => *order = None,
        (Some(order), false) => order.kind = ast::OrderByKind::Expressions(order_by),
        (None, false) => {}
    }
    match (&mut query.limit_clause, limit) {
        (Some(ast::LimitClause::LimitOffset { limit: slot, .. }), limit) => *slot = limit,
        (clause, None) => *clause = None,
        (_, Some(_)) => {}
    }
    Ok(query)
}

/// TRUNCATE.
pub(super) fn truncate(
    truncate: ast::Truncate,
    resolver: &Resolver<'_>,
) -> Result<(Write, Source)> {
    let ast::Truncate {
        mut table_names,
        partitions,
        table: _,
        if_exists,
        identity,
        cascade,
        on_cluster,
    } = truncate;
    refuse_if(if_exists, "IF EXISTS in TRUNCATE")?;
    refuse_if(
        partitions.is_some() || identity.is_some() || cascade.is_some() || on_cluster.is_some(),
        "TRUNCATE with more than a table's name",
    )?;
    let (Some(table), true) = (table_names.pop(), table_names.is_empty()) else {
        return Err(Error::Unimplemented(
            "TRUNCATE of several tables is not served: name one".into(),
        ));
    };
    let relation = resolver.writable_table(&table.name)?;
    Ok((Write::new(&relation, Effect::Truncate), Source::Nothing))
}

/// The table that is written to, and what the statement calls it.
pub(super) struct Target {
    pub relation: Arc<Relation>,
    pub alias: Ident,
}

impl Target {
    fn of(table: TableWithJoins, resolver: &Resolver<'_>) -> Result<Self> {
        refuse_if(
            !table.joins.is_empty(),
            "a join of the table that is written to",
        )?;
        Target::named(&table.relation, resolver)
    }

    pub fn named(table: &TableFactor, resolver: &Resolver<'_>) -> Result<Self> {
        let TableFactor::Table { name, alias, .. } = table else {
            return Err(Error::Unimplemented(format!(
                "`{table}` cannot be written to: name a table"
            )));
        };
        let relation = resolver.writable_table(name)?;
        let alias = match alias {
            Some(alias) if alias.columns.is_empty() => quoted(&folded(&alias.name)),
            Some(_) => {
                return Err(Error::Unimplemented(
                    "an alias with columns is not served here: leave the columns out".into(),
                ));
            }
            None => quoted(&relation.name),
        };
        Ok(Target { relation, alias })
    }

    pub fn returning(
        &self,
        items: Option<Vec<SelectItem>>,
        resolver: &Resolver<'_>,
    ) -> Result<Option<Returning>> {
        let Some(items) = items else { return Ok(None) };
        let definition = self
            .relation
            .table()
            .ok_or_else(|| Error::internal("the statement cannot be planned", "no table"))?;
        Returning::plan(items, &self.relation, definition, &self.alias, resolver).map(Some)
    }

    /// A column of the table under its own name.
    pub fn item(&self, column: &str) -> SelectItem {
        SelectItem::ExprWithAlias {
            expr: Expr::CompoundIdentifier(vec![self.alias.clone(), quoted(column)]),
            alias: quoted(column),
        }
    }

    /// `SELECT items FROM target, from WHERE selection`.
    fn query(
        &self,
        items: Vec<SelectItem>,
        from: Vec<TableWithJoins>,
        selection: Option<Expr>,
    ) -> Result<Query> {
        select_from(TARGET, &self.alias, items, from, selection)
    }
}
