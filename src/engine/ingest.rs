//! Rows in bulk: a stream of batches into a table that is there, or is made for
//! them in the same commit.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::arrival::ParameterRows;
use super::define::{self, CreateTable, Define};
use super::lossless::Texts;
use super::names::{MUTABLE_CATALOG, PUBLIC_SCHEMA};
use super::temporary::session_of;
use super::{Engine, NameDefaults, SessionTransaction, Statement};
use crate::catalog::{CatalogSnapshot, Relation, TableDefinition};
use crate::error::{Error, Result};
use crate::tenant::Scope;

/// Where rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestTarget {
    /// The table's name, as it is: nothing is folded to lower case.
    pub table: String,
    /// Whether the table is one of the session's own. Otherwise rows are added to
    /// what the name means, and a table that is made, or gives way, is one that
    /// stays.
    pub temporary: bool,
    /// Where there is no such table.
    pub if_missing: IfMissing,
    /// Where there is one.
    pub if_exists: IfExists,
}

/// What is done where there is no table of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// It is made, with the columns of the rows.
    Create,
    /// An error.
    Fail,
}

/// What is done where there is a table of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// The rows are added to its rows.
    Append,
    /// It is dropped, and made anew with the columns of the rows.
    Replace,
    /// An error.
    Fail,
}

impl Engine {
    /// Adds `rows`, all of which have the columns of `schema`, and says how many
    /// there were. Columns are matched by name; a value that the table's type cannot
    /// hold as it is is an error. The table is made and all rows are written, or
    /// nothing is.
    ///
    /// # Errors
    /// As of [`Engine::execute`]; `NotFound` and `AlreadyExists` as `target` says.
    pub async fn ingest(
        &self,
        scope: &Scope,
        target: &IngestTarget,
        schema: &Schema,
        rows: ParameterRows,
        within: Option<&SessionTransaction>,
    ) -> Result<u64> {
        scope.require_writing()?;
        let scope = &self.scope_of_target(scope, target, within).await?;
        if (target.if_missing, target.if_exists) == (IfMissing::Fail, IfExists::Append) {
            let statement = self.insertion(scope, target, schema, within).await?;
            return self
                .execute_rows(scope, &statement, rows, Texts::Kept, within)
                .await;
        }
        let own;
        let transaction = match within {
            Some(transaction) => transaction,
            None => {
                own = self.begin(scope);
                &own
            }
        };
        let written = transaction
            .statement(self.make_and_fill(scope, target, schema, rows, transaction))
            .await;
        match (within, written) {
            (Some(_), written) => written,
            (None, Ok(count)) => self.commit(transaction).await.map(|()| count),
            (None, Err(error)) => {
                transaction.rollback().await?;
                Err(error)
            }
        }
    }

    /// The scope under which the name of `target` means it.
    async fn scope_of_target(
        &self,
        scope: &Scope,
        target: &IngestTarget,
        within: Option<&SessionTransaction>,
    ) -> Result<Scope> {
        if target.temporary {
            session_of(scope)?;
            return Ok(scope.clone());
        }
        let snapshot = self.snapshot(scope, within).await?;
        let adds = target.if_exists == IfExists::Append;
        Ok(match snapshot.temporary(&target.table) {
            Some(_) if adds => scope.clone(),
            _ => scope.without_session(),
        })
    }

    async fn snapshot(
        &self,
        scope: &Scope,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<CatalogSnapshot>> {
        match within {
            Some(transaction) if transaction.has_defined() => {
                let own = transaction.own();
                self.catalog().snapshot_within(scope, own).await
            }
            _ => self.catalog().snapshot(scope).await,
        }
    }

    async fn make_and_fill(
        &self,
        scope: &Scope,
        target: &IngestTarget,
        schema: &Schema,
        rows: ParameterRows,
        transaction: &SessionTransaction,
    ) -> Result<u64> {
        // Before anything is read: nobody else then changes what there is.
        transaction.own().lock().await?;
        self.make(scope, target, schema, transaction).await?;
        let statement = self
            .insertion(scope, target, schema, Some(transaction))
            .await?;
        self.execute_rows(scope, &statement, rows, Texts::Kept, Some(transaction))
            .await
    }

    /// Brings about the table that rows are added to.
    async fn make(
        &self,
        scope: &Scope,
        target: &IngestTarget,
        schema: &Schema,
        transaction: &SessionTransaction,
    ) -> Result<()> {
        let catalog = self.catalog();
        let snapshot = catalog.snapshot_within(scope, transaction.own()).await?;
        let found = target.meant(&snapshot);
        // A table of the tenant's own may have the name of a shared one.
        let own = found.filter(|relation| relation.lane == scope.writable());
        match (own, target.if_exists) {
            (_, IfExists::Append) if found.is_some() => return Ok(()),
            (None, _) | (Some(_), IfExists::Append) => {}
            (Some(_), IfExists::Fail) => {
                return Err(Error::AlreadyExists(format!(
                    "table or view `{}` exists already: choose another name, drop it first, or \
                     append to it",
                    target.table
                )));
            }
            (Some(relation), IfExists::Replace) => {
                if relation.table().is_none() {
                    return Err(Error::InvalidArgument(format!(
                        "`{}` is a view: drop it first",
                        target.table
                    )));
                }
                let drop = Define::Drop(vec![Arc::clone(relation)]);
                define::run(self, scope, &drop, &[], Some(transaction)).await?;
            }
        }
        if own.is_none() && target.if_missing == IfMissing::Fail {
            return Err(missing(target));
        }
        let create = Define::CreateTable(Box::new(CreateTable {
            name: target.table.clone(),
            temporary: target.temporary,
            definition: TableDefinition::new(&target.table, define::columns_of(schema)?)?,
            if_not_exists: false,
            rows: None,
        }));
        define::run(self, scope, &create, &[], Some(transaction)).await
    }

    /// The statement that adds one row.
    async fn insertion(
        &self,
        scope: &Scope,
        target: &IngestTarget,
        schema: &Schema,
        within: Option<&SessionTransaction>,
    ) -> Result<Arc<Statement>> {
        let snapshot = self.snapshot(scope, within).await?;
        check_columns(&snapshot, target, schema)?;
        let names: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| always_quoted(field.name()))
            .collect();
        let values: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT INTO {MUTABLE_CATALOG}.{PUBLIC_SCHEMA}.{} ({}) VALUES ({})",
            always_quoted(&target.table),
            names.join(", "),
            values.join(", ")
        );
        let statement = self
            .prepare_within(scope, &NameDefaults::default(), &sql, within)
            .await?;
        // It may have been dropped since, and the name mean another.
        if target.temporary && !statement.writes_temporary() {
            return Err(missing(target));
        }
        Ok(statement)
    }
}

impl IngestTarget {
    /// The table that there is, of the kind that is meant.
    fn meant<'a>(&self, snapshot: &'a CatalogSnapshot) -> Option<&'a Arc<Relation>> {
        match self.temporary {
            true => snapshot.temporary(&self.table),
            false => snapshot.relation(&self.table),
        }
    }
}

/// Refuses columns that the table does not have, and tables that there are not.
fn check_columns(snapshot: &CatalogSnapshot, target: &IngestTarget, schema: &Schema) -> Result<()> {
    let Some(relation) = target.meant(snapshot) else {
        return Err(missing(target));
    };
    let Some(definition) = relation.table() else {
        return Err(Error::Unimplemented(format!(
            "view `{}` cannot be written to: write to the tables that it reads",
            target.table
        )));
    };
    let mut seen = HashSet::new();
    for field in schema.fields() {
        if definition.column(field.name()).is_none() {
            return Err(definition.no_column(field.name()));
        }
        if !seen.insert(field.name()) {
            return Err(Error::InvalidArgument(format!(
                "column `{}` comes twice: send it once",
                field.name()
            )));
        }
    }
    if seen.is_empty() {
        return Err(Error::InvalidArgument(
            "the rows have no columns: send at least one".into(),
        ));
    }
    Ok(())
}

fn missing(target: &IngestTarget) -> Error {
    let kind = match target.temporary {
        true => "temporary table",
        false => "table",
    };
    Error::NotFound(format!(
        "{kind} `{}` does not exist: list the tables with SHOW TABLES",
        target.table
    ))
}

fn always_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
