//! CREATE INDEX and DROP INDEX as the next definition of a table.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::create::{column_names, cut, folded};
use super::{Alter, StorageChange};
use crate::catalog::{IndexKind, Relation, RelationBody, TableDefinition};
use crate::engine::names::Resolver;
use crate::error::{Error, Result};
use crate::tenant::Lane;

/// Reads CREATE INDEX; `None` where IF NOT EXISTS finds one of the name.
pub(super) fn create(index: ast::CreateIndex, resolver: &Resolver<'_>) -> Result<Option<Alter>> {
    let ast::CreateIndex {
        name,
        table_name,
        using,
        columns,
        unique,
        concurrently: _,
        if_not_exists,
        include,
        nulls_distinct,
        with,
        predicate,
        index_options,
        alter_options,
    } = index;
    if using.is_some()
        || !include.is_empty()
        || nulls_distinct == Some(false)
        || !with.is_empty()
        || predicate.is_some()
        || !index_options.is_empty()
        || !alter_options.is_empty()
    {
        return Err(Error::Unimplemented(
            "CREATE INDEX takes a table and columns: leave the rest out".into(),
        ));
    }
    let relation = super::table_of(resolver.owned_relation(&table_name)?)?;
    if unique && relation.lane == Lane::Global && !relation.is_temporary() {
        return Err(Error::Unimplemented(format!(
            "table `{}` is shared, and the rows of every tenant would have to be looked at: say \
             UNIQUE when the table is made",
            relation.name
        )));
    }
    let columns = column_names(&columns)?;
    let name = match name {
        Some(name) => name.0.last().and_then(|part| part.as_ident()).map(folded),
        None => Some(cut(&format!("{}_{}_idx", relation.name, columns.join("_")))),
    };
    let Some(name) = name else {
        return Err(Error::InvalidArgument(
            "the index has no name: give it one".into(),
        ));
    };
    let (mut altered, mut definition) = next(&relation)?;
    if if_not_exists && definition.indexes.iter().any(|index| index.name == name) {
        return Ok(None);
    }
    // A session's indexes have names of their own, as its tables have.
    let taken = find(resolver, &name);
    if (taken.iter()).any(|other| other.is_temporary() == relation.is_temporary()) {
        return Err(Error::AlreadyExists(format!(
            "index `{name}` exists already: choose another name, or drop it first"
        )));
    }
    let kind = match unique {
        true => IndexKind::Unique,
        false => IndexKind::Plain,
    };
    definition.push_index(&name, kind, &columns)?;
    let made = definition.indexes.last().cloned();
    altered.body = RelationBody::Table(definition);
    Ok(Some(Alter {
        relation,
        altered,
        changes: made.map(StorageChange::CreateIndex).into_iter().collect(),
    }))
}

/// Reads DROP INDEX; `None` where IF EXISTS finds none.
pub(super) fn drop(
    name: &ast::ObjectName,
    if_exists: bool,
    resolver: &Resolver<'_>,
) -> Result<Option<Alter>> {
    let index = name.0.last().and_then(|part| part.as_ident()).map(folded);
    let Some(index) = index else {
        return Err(Error::InvalidArgument(format!(
            "`{name}` is no index: name one"
        )));
    };
    let mut found = meant(resolver, &index);
    let (Some(relation), true) = (found.pop(), found.is_empty()) else {
        return match (found.is_empty(), if_exists) {
            (true, true) => Ok(None),
            (true, false) => Err(Error::NotFound(format!(
                "index `{index}` does not exist: DESCRIBE and the catalog name the tables"
            ))),
            (false, _) => Err(Error::InvalidArgument(format!(
                "more than one table has an index `{index}`: drop the table, or make it again"
            ))),
        };
    };
    let (mut altered, mut definition) = next(&relation)?;
    let at = definition
        .indexes
        .iter()
        .position(|known| known.name == index)
        .ok_or_else(|| Error::internal("the index cannot be dropped", index.clone()))?;
    if definition.indexes[at].kind == IndexKind::Primary {
        return Err(Error::FailedPrecondition(format!(
            "`{index}` is the primary key of table `{}`: make a new table by CREATE TABLE AS",
            relation.name
        )));
    }
    let gone = definition.indexes.remove(at);
    altered.body = RelationBody::Table(definition);
    Ok(Some(Alter {
        relation,
        altered,
        changes: vec![StorageChange::DropIndex(gone)],
    }))
}

/// The tables that an index of the name means: the session's own that have one, else
/// those of the writable lane.
fn meant(resolver: &Resolver<'_>, index: &str) -> Vec<Arc<Relation>> {
    let mut found = find(resolver, index);
    if found.iter().any(|relation| relation.is_temporary()) {
        found.retain(|relation| relation.is_temporary());
    }
    found
}

/// The tables of the writable lane that have an index of the name.
fn find(resolver: &Resolver<'_>, index: &str) -> Vec<Arc<Relation>> {
    resolver
        .owned_relations()
        .filter(|relation| {
            relation
                .table()
                .is_some_and(|table| table.indexes.iter().any(|known| known.name == index))
        })
        .cloned()
        .collect()
}

fn next(relation: &Arc<Relation>) -> Result<(Relation, TableDefinition)> {
    let definition = relation
        .table()
        .cloned()
        .ok_or_else(|| Error::internal("the table cannot be altered", "it is a view"))?;
    Ok((relation.as_ref().clone(), definition))
}
