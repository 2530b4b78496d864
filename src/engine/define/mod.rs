//! Statements that change what tables there are.
//!
//! A definition and the storage of its rows change in one transaction of the lane
//! that owns them. `create` reads CREATE TABLE, `alter` ALTER TABLE, `index` CREATE
//! and DROP INDEX, `view` CREATE VIEW; `schema` makes tables without SQL.

mod alter;
mod create;
mod index;
mod schema;
mod view;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;

use super::Engine;
use super::context::Planner;
use super::names::Resolver;
use super::reading::Reading;
use super::transaction::SessionTransaction;
use super::write::{Ingest, RowChecks, Write};
use crate::backend::{BackendError, Transaction};
use crate::catalog::relations::{self, NewRelation};
use crate::catalog::{Relation, RelationBody, TableDefinition, TableIndex, ViewDefinition, shown};
use crate::error::{Error, Result};
use crate::table;
use crate::tenant::{Lane, Scope};

pub(super) use create::folded;
pub use schema::NewTable;
pub(super) use schema::columns_of;

/// A change of what tables there are.
#[derive(Debug)]
pub(super) enum Define {
    /// CREATE TABLE.
    CreateTable(Box<CreateTable>),
    /// CREATE VIEW.
    CreateView(Box<CreateView>),
    /// ALTER TABLE, CREATE INDEX and DROP INDEX.
    Alter(Box<Alter>),
    /// DROP TABLE and DROP VIEW of one or more.
    Drop(Vec<Arc<Relation>>),
    /// IF EXISTS found nothing, or IF NOT EXISTS something.
    Nothing,
}

/// A table that is to be made.
#[derive(Debug)]
pub(super) struct CreateTable {
    pub name: String,
    /// Whether it is the session's alone.
    pub temporary: bool,
    pub definition: TableDefinition,
    /// Whether an existing table of the name is left as it is.
    pub if_not_exists: bool,
    /// The rows that it is made with.
    pub rows: Option<Arc<Reading>>,
}

/// A view that is to be made.
#[derive(Debug)]
pub(super) struct CreateView {
    pub name: String,
    pub definition: ViewDefinition,
    /// Whether an existing view of the name gives way.
    pub or_replace: bool,
    /// Whether an existing relation of the name is left as it is.
    pub if_not_exists: bool,
}

/// The next definition of a table.
#[derive(Clone, Debug)]
pub(super) struct Alter {
    /// The table as it was when the statement was planned.
    pub relation: Arc<Relation>,
    /// What it becomes.
    pub altered: Relation,
    /// What has to be done to the rows.
    pub changes: Vec<StorageChange>,
}

/// What a new definition means for the rows that are there.
#[derive(Clone, Debug)]
pub(super) enum StorageChange {
    /// They have one more column, with a value for all of them.
    AddColumn { number: u32, filler: Option<String> },
    /// They lose a column.
    DropColumn { number: u32 },
    /// They are found by one more index.
    CreateIndex(TableIndex),
    /// They are no longer found by an index.
    DropIndex(TableIndex),
}

impl Define {
    pub fn plan(
        statement: ast::Statement,
        scope: &Scope,
        planner: &Planner,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let altered = |alter: Option<Alter>| match alter {
            Some(alter) => Define::Alter(Box::new(alter)),
            None => Define::Nothing,
        };
        match statement {
            ast::Statement::CreateTable(create) => {
                let create = create::plan(create, scope, planner, resolver)?;
                Ok(Define::CreateTable(Box::new(create)))
            }
            ast::Statement::CreateView(create) => {
                let create = view::plan(create, scope, planner, resolver)?;
                Ok(Define::CreateView(Box::new(create)))
            }
            ast::Statement::AlterTable(alter) => alter::plan(alter, resolver).map(altered),
            ast::Statement::CreateIndex(create) => index::create(create, resolver).map(altered),
            ast::Statement::Drop {
                object_type,
                if_exists,
                names,
                cascade,
                restrict: _,
                purge,
                temporary,
                table,
            } => {
                if cascade || purge || temporary || table.is_some() {
                    return Err(Error::Unimplemented(format!(
                        "DROP {object_type} takes names and IF EXISTS: leave the rest out"
                    )));
                }
                drop_objects(object_type, if_exists, &names, resolver)
            }
            other => Err(Error::internal(
                "the statement cannot be planned",
                format!("{other} defines nothing"),
            )),
        }
    }

    /// Whether it makes a table that belongs to the session.
    pub fn makes_temporary(&self) -> bool {
        matches!(self, Define::CreateTable(create) if create.temporary)
    }

    /// The types of the statement's parameters.
    pub fn parameters(&self) -> SchemaRef {
        let rows = match self {
            Define::CreateTable(create) => create.rows.as_ref(),
            Define::CreateView(_) | Define::Alter(_) | Define::Drop(_) | Define::Nothing => None,
        };
        rows.map_or_else(
            || Arc::new(Schema::empty()),
            |rows| Arc::clone(rows.parameters()),
        )
    }
}

fn drop_objects(
    object_type: ast::ObjectType,
    if_exists: bool,
    names: &[ast::ObjectName],
    resolver: &Resolver<'_>,
) -> Result<Define> {
    if object_type == ast::ObjectType::Index {
        let [name] = names else {
            return Err(Error::Unimplemented(
                "DROP INDEX of several is not served: drop one at a time".into(),
            ));
        };
        return Ok(match index::drop(name, if_exists, resolver)? {
            Some(alter) => Define::Alter(Box::new(alter)),
            None => Define::Nothing,
        });
    }
    let mut dropped = Vec::with_capacity(names.len());
    for name in names {
        match resolver.owned_relation(name) {
            Ok(relation) if object_type == ast::ObjectType::View => {
                dropped.push(view_of(relation)?);
            }
            Ok(relation) => dropped.push(table_of(relation)?),
            Err(Error::NotFound(_)) if if_exists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Define::Drop(dropped))
}

fn table_of(relation: Arc<Relation>) -> Result<Arc<Relation>> {
    match relation.body {
        RelationBody::Table(_) => Ok(relation),
        RelationBody::View(_) => Err(Error::InvalidArgument(format!(
            "`{}` is a view and not a table: there are CREATE OR REPLACE VIEW and DROP VIEW",
            relation.name
        ))),
    }
}

fn view_of(relation: Arc<Relation>) -> Result<Arc<Relation>> {
    match relation.body {
        RelationBody::View(_) => Ok(relation),
        RelationBody::Table(_) => Err(Error::InvalidArgument(format!(
            "`{}` is a table and not a view: use DROP TABLE",
            relation.name
        ))),
    }
}

/// Runs a definition.
pub(super) async fn run(
    engine: &Engine,
    scope: &Scope,
    define: &Define,
    parameters: &[ScalarValue],
    within: Option<&SessionTransaction>,
) -> Result<()> {
    scope.require_writing()?;
    match define {
        Define::Nothing => Ok(()),
        Define::CreateTable(create) => match &create.rows {
            None => {
                create_table(engine, scope, create, within).await?;
                Ok(())
            }
            Some(rows) => create_filled(engine, scope, create, rows, parameters, within).await,
        },
        Define::CreateView(create) => create_view(engine, scope, create, within).await,
        Define::Alter(alter) => {
            let alter = alter.clone();
            let (revision, now_ms) = (table::new_stamp(), engine.catalog().now_ms());
            in_lane(engine, scope, within, move |lane| {
                alter::apply(lane, &alter, revision, now_ms)
            })
            .await
        }
        Define::Drop(dropped) => {
            let dropped = dropped.clone();
            if let Some(transaction) = within {
                transaction.drops();
            }
            in_lane(engine, scope, within, move |lane| {
                for relation in &dropped {
                    if !relations::delete(lane, relation.id)? {
                        return Err(BackendError::refused(missing(&relation.name)));
                    }
                    if relation.table().is_some() {
                        table::drop(lane, relation)?;
                    }
                }
                Ok(())
            })
            .await?;
            if within.is_none() && scope.writable() == Lane::Global {
                engine.sweep_dropped_tables();
            }
            Ok(())
        }
    }
}

async fn create_view(
    engine: &Engine,
    scope: &Scope,
    create: &CreateView,
    within: Option<&SessionTransaction>,
) -> Result<()> {
    let new = NewRelation {
        lane: scope.writable(),
        name: create.name.clone(),
        owner: None,
        body: RelationBody::View(create.definition.clone()),
        revision: table::new_stamp(),
        at_ms: engine.catalog().now_ms(),
    };
    let (or_replace, if_not_exists) = (create.or_replace, create.if_not_exists);
    in_lane(engine, scope, within, move |lane| {
        let name = new.name.clone();
        if or_replace && let Some(id) = relations::id_of(lane, &name, None)? {
            if !relations::is_view(lane, id)? {
                return Err(BackendError::refused(Error::InvalidArgument(format!(
                    "`{name}` is a table and not a view: choose another name, or drop it first"
                ))));
            }
            relations::delete(lane, id)?;
        }
        match relations::insert(lane, new)? {
            Some(_) => Ok(()),
            None if if_not_exists => Ok(()),
            None => Err(taken(&name)),
        }
    })
    .await
}

/// The error for a name that means nothing to the scope.
fn missing(name: &str) -> Error {
    Error::NotFound(format!(
        "table {} does not exist: list the tables with SHOW TABLES",
        shown(name)
    ))
}

/// The error for a name that a relation of the lane has.
fn taken(name: &str) -> BackendError {
    BackendError::refused(Error::AlreadyExists(format!(
        "table or view `{name}` exists already: choose another name, drop it first, or say IF NOT \
         EXISTS"
    )))
}

/// Makes a table; `None` when there is one of the name and that is as good.
async fn create_table(
    engine: &Engine,
    scope: &Scope,
    create: &CreateTable,
    within: Option<&SessionTransaction>,
) -> Result<Option<Relation>> {
    let claim = match create.temporary {
        true => Some(engine.claim_temporary(scope).await?),
        false => None,
    };
    let new = NewRelation {
        lane: scope.writable(),
        name: create.name.clone(),
        owner: claim.as_ref().map(|claim| claim.owner),
        body: RelationBody::Table(create.definition.clone()),
        revision: table::new_stamp(),
        at_ms: engine.catalog().now_ms(),
    };
    let (definition, if_not_exists) = (create.definition.clone(), create.if_not_exists);
    in_lane(engine, scope, within, move |lane| {
        let name = new.name.clone();
        let is_new = relations::id_of(lane, &name, new.owner)?.is_none();
        if let Some(claim) = claim.filter(|_| is_new) {
            claim.check(lane)?;
        }
        match relations::insert(lane, new)? {
            Some(relation) => {
                table::create(lane, &relation, &definition)?;
                Ok(Some(relation))
            }
            None if if_not_exists => Ok(None),
            None => Err(taken(&name)),
        }
    })
    .await
}

/// Makes a table and its rows together.
async fn create_filled(
    engine: &Engine,
    scope: &Scope,
    create: &CreateTable,
    rows: &Arc<Reading>,
    parameters: &[ScalarValue],
    within: Option<&SessionTransaction>,
) -> Result<()> {
    let own;
    let transaction = match within {
        Some(transaction) => transaction,
        None => {
            own = SessionTransaction::new(engine.backend(), scope);
            &own
        }
    };
    let made = transaction
        .statement(fill(engine, scope, create, rows, parameters, transaction))
        .await;
    match (within, made) {
        (Some(_), made) => made,
        (None, Ok(())) => engine.commit(transaction).await,
        (None, Err(error)) => {
            transaction.rollback().await?;
            Err(error)
        }
    }
}

async fn fill(
    engine: &Engine,
    scope: &Scope,
    create: &CreateTable,
    rows: &Arc<Reading>,
    parameters: &[ScalarValue],
    transaction: &SessionTransaction,
) -> Result<()> {
    // The lane's state is read after the table is made, so that the query does not
    // read an older one than the table is written to.
    let Some(relation) = create_table(engine, scope, create, Some(transaction)).await? else {
        return Ok(());
    };
    let relation = Arc::new(relation);
    let write = Arc::new(Write::insert(&relation));
    let checks = RowChecks::without_conditions(&relation, &create.definition);
    let checks = Arc::new(checks);
    let tenant = create.definition.position(0);
    let mut made = engine
        .run_reading(rows, parameters, transaction.reads())
        .await?;
    let mut ingest = Ingest::new(engine, scope, &write, &checks, Some(transaction))?;
    while let Some(batch) = made.next().await {
        let batch = batch?;
        let mut columns = batch.columns().to_vec();
        if let Some(at) = tenant
            && columns.len() < create.definition.columns.len()
        {
            columns.insert(at, super::write::stamped(scope, batch.num_rows()));
        }
        ingest.push(columns, batch.num_rows()).await?;
    }
    ingest.finish().await?;
    Ok(())
}

/// Runs `work` on the writable lane, in the caller's transaction or in one of its
/// own.
async fn in_lane<T: Send + 'static>(
    engine: &Engine,
    scope: &Scope,
    within: Option<&SessionTransaction>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, BackendError> + Send + 'static,
) -> Result<T> {
    Ok(match within {
        Some(transaction) => {
            transaction.defines();
            transaction.own().write(work).await?
        }
        None => {
            let own = engine.clone();
            let work = move |lane: &Transaction<'_>| {
                own.commits().map_err(BackendError::refused)?;
                work(lane)
            };
            engine.backend().write(scope.writable(), work).await?
        }
    })
}
