//! The `relations` table of a lane: its tables and views.
//!
//! Invariant: every statement holds the lane's predicate, `tenant_id IS ?`.
//! Writes are the caller's to put into one transaction with the storage of the
//! rows, so that a table is recorded and made together.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, named_params};

use super::relation::{TableDefinition, TableDetails, ViewDefinition, ViewDetails};
use super::{Leftovers, Relation, RelationBody, TemporaryOwner, schema_ipc, stamp};
use crate::backend::{BackendError, Transaction};
use crate::tenant::Lane;

const COLUMNS: &str = "id, name, kind, schema_ipc, details, revision, created_at_ms, altered_at_ms";

/// A relation that is not recorded yet.
#[derive(Clone, Debug)]
pub(crate) struct NewRelation {
    pub lane: Lane,
    pub name: String,
    /// The session that it is for, where it is temporary.
    pub owner: Option<TemporaryOwner>,
    pub body: RelationBody,
    pub revision: i64,
    pub at_ms: i64,
}

/// Every relation of the lane that belongs to no session, or the temporary ones of
/// one, by name.
pub(crate) fn all(
    transaction: &Transaction<'_>,
    owner: Option<TemporaryOwner>,
) -> Result<Vec<Arc<Relation>>, BackendError> {
    let mut statement = transaction.connection().prepare_cached(&format!(
        "SELECT {COLUMNS} FROM relations
         WHERE tenant_id IS :tenant_id AND session IS :session ORDER BY name"
    ))?;
    let rows = statement.query_map(
        named_params! {":tenant_id": transaction.tenant_id(), ":session": text(owner)},
        StoredRow::read,
    )?;
    rows.map(|row| Ok(Arc::new(row?.decode(transaction, owner)?)))
        .collect()
}

/// The id of every relation of the lane, and when it was made.
pub(crate) fn ages(transaction: &Transaction<'_>) -> Result<Vec<(i64, i64)>, BackendError> {
    let mut statement = transaction
        .connection()
        .prepare_cached("SELECT id, created_at_ms FROM relations WHERE tenant_id IS :tenant_id")?;
    let rows = statement.query_map(
        named_params! {":tenant_id": transaction.tenant_id()},
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many temporary tables a session has in the lane.
pub(crate) fn count(
    transaction: &Transaction<'_>,
    owner: TemporaryOwner,
) -> Result<usize, BackendError> {
    let count: i64 = transaction
        .connection()
        .prepare_cached(
            "SELECT count(*) FROM relations WHERE tenant_id IS :tenant_id AND session = :session",
        )?
        .query_row(
            named_params! {":tenant_id": transaction.tenant_id(), ":session": owner.text()},
            |row| row.get(0),
        )?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Forgets temporary tables of the lane and answers their ids.
pub(crate) fn take(
    transaction: &Transaction<'_>,
    which: &Leftovers,
) -> Result<Vec<i64>, BackendError> {
    stamp::renew(transaction)?;
    let mut statement = transaction.connection().prepare_cached(
        "DELETE FROM relations
         WHERE tenant_id IS :tenant_id AND session IS NOT NULL AND session GLOB :owners
         RETURNING id",
    )?;
    let ids = statement.query_map(
        named_params! {":tenant_id": transaction.tenant_id(), ":owners": which.pattern()},
        |row| row.get(0),
    )?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

fn text(owner: Option<TemporaryOwner>) -> Option<String> {
    owner.map(|owner| owner.text())
}

/// Records a relation, unless the lane or the session has the name: then `None`.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: NewRelation,
) -> Result<Option<Relation>, BackendError> {
    transaction.assert_tenant_matches(new.lane.tenant())?;
    if id_of(transaction, &new.name, new.owner)?.is_some() {
        return Ok(None);
    }
    let stored = Stored::of(&new.body)?;
    stamp::renew(transaction)?;
    transaction
        .connection()
        .prepare_cached(
            "INSERT INTO relations (tenant_id, name, session, kind, schema_ipc, details,
                 revision, created_at_ms, altered_at_ms)
             VALUES (:tenant_id, :name, :session, :kind, :schema_ipc, :details, :revision, :at_ms,
                 :at_ms)",
        )?
        .execute(named_params! {
            ":tenant_id": new.lane.tenant().map(|tenant| tenant.to_string()),
            ":name": new.name,
            ":session": text(new.owner),
            ":kind": stored.kind,
            ":schema_ipc": stored.schema_ipc,
            ":details": stored.details,
            ":revision": new.revision,
            ":at_ms": new.at_ms,
        })?;
    Ok(Some(Relation {
        id: transaction.connection().last_insert_rowid(),
        lane: new.lane,
        name: new.name,
        owner: new.owner,
        body: new.body,
        revision: new.revision,
        created_at_ms: new.at_ms,
        altered_at_ms: new.at_ms,
    }))
}

/// Gives the relation of an id another name and definition; `false` when the
/// lane has none of the id.
pub(crate) fn update(
    transaction: &Transaction<'_>,
    relation: &Relation,
) -> Result<bool, BackendError> {
    transaction.assert_tenant_matches(relation.lane.tenant())?;
    let stored = Stored::of(&relation.body)?;
    stamp::renew(transaction)?;
    let updated = transaction
        .connection()
        .prepare_cached(
            "UPDATE relations SET name = :name, kind = :kind, schema_ipc = :schema_ipc,
                 details = :details, revision = :revision, altered_at_ms = :altered_at_ms
             WHERE tenant_id IS :tenant_id AND id = :id",
        )?
        .execute(named_params! {
            ":tenant_id": transaction.tenant_id(),
            ":id": relation.id,
            ":name": relation.name,
            ":kind": stored.kind,
            ":schema_ipc": stored.schema_ipc,
            ":details": stored.details,
            ":revision": relation.revision,
            ":altered_at_ms": relation.altered_at_ms,
        })?;
    Ok(updated > 0)
}

/// Forgets the relation of an id; `false` when the lane has none of the id.
pub(crate) fn delete(transaction: &Transaction<'_>, id: i64) -> Result<bool, BackendError> {
    stamp::renew(transaction)?;
    let deleted = transaction
        .connection()
        .prepare_cached("DELETE FROM relations WHERE tenant_id IS :tenant_id AND id = :id")?
        .execute(named_params! {":tenant_id": transaction.tenant_id(), ":id": id})?;
    Ok(deleted > 0)
}

/// The revision of the relation of an id as the transaction sees it.
pub(crate) fn revision_of(
    transaction: &Transaction<'_>,
    id: i64,
) -> Result<Option<i64>, BackendError> {
    Ok(transaction
        .connection()
        .prepare_cached(
            "SELECT revision FROM relations WHERE tenant_id IS :tenant_id AND id = :id",
        )?
        .query_row(
            named_params! {":tenant_id": transaction.tenant_id(), ":id": id},
            |row| row.get(0),
        )
        .optional()?)
}

/// Whether the relation of an id is a view.
pub(crate) fn is_view(transaction: &Transaction<'_>, id: i64) -> Result<bool, BackendError> {
    let kind: Option<String> = transaction
        .connection()
        .prepare_cached("SELECT kind FROM relations WHERE tenant_id IS :tenant_id AND id = :id")?
        .query_row(
            named_params! {":tenant_id": transaction.tenant_id(), ":id": id},
            |row| row.get(0),
        )
        .optional()?;
    Ok(kind.as_deref() == Some("view"))
}

/// The id of the lane's relation of a name, or of the session's.
pub(crate) fn id_of(
    transaction: &Transaction<'_>,
    name: &str,
    owner: Option<TemporaryOwner>,
) -> Result<Option<i64>, BackendError> {
    Ok(transaction
        .connection()
        .prepare_cached(
            "SELECT id FROM relations
             WHERE tenant_id IS :tenant_id AND name = :name AND session IS :session",
        )?
        .query_row(
            named_params! {
                ":tenant_id": transaction.tenant_id(),
                ":name": name,
                ":session": text(owner),
            },
            |row| row.get(0),
        )
        .optional()?)
}

/// The columns of a body that have another form in the table.
struct Stored {
    kind: &'static str,
    schema_ipc: Vec<u8>,
    details: String,
}

impl Stored {
    fn of(body: &RelationBody) -> Result<Self, BackendError> {
        let (kind, details) = match body {
            RelationBody::Table(table) => ("table", serde_json::to_string(&table.details())),
            RelationBody::View(view) => (
                "view",
                serde_json::to_string(&ViewDetails {
                    sql: view.sql.clone(),
                    catalog: view.catalog.clone(),
                    schema: view.schema_name.clone(),
                }),
            ),
        };
        let schema = match body {
            RelationBody::Table(table) => table.schema(),
            RelationBody::View(view) => Arc::clone(&view.schema),
        };
        Ok(Stored {
            kind,
            schema_ipc: schema_ipc::encode(&schema),
            details: details.expect("numbers and text are always JSON"),
        })
    }
}

/// A row as it is in the table.
struct StoredRow {
    id: i64,
    name: String,
    kind: String,
    schema_ipc: Vec<u8>,
    details: String,
    revision: i64,
    created_at_ms: i64,
    altered_at_ms: i64,
}

impl StoredRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(StoredRow {
            id: row.get(0)?,
            name: row.get(1)?,
            kind: row.get(2)?,
            schema_ipc: row.get(3)?,
            details: row.get(4)?,
            revision: row.get(5)?,
            created_at_ms: row.get(6)?,
            altered_at_ms: row.get(7)?,
        })
    }

    fn decode(
        self,
        transaction: &Transaction<'_>,
        owner: Option<TemporaryOwner>,
    ) -> Result<Relation, BackendError> {
        let corrupt = |what: String| {
            transaction.corrupt(format!("{what} of relation {:?} cannot be read", self.name))
        };
        let schema = schema_ipc::decode(&self.schema_ipc)
            .map_err(|error| corrupt(format!("the schema ({error})")))?;
        let body = if self.kind == "view" {
            let details: ViewDetails = serde_json::from_str(&self.details)
                .map_err(|error| corrupt(format!("the query ({error})")))?;
            RelationBody::View(ViewDefinition {
                sql: details.sql,
                catalog: details.catalog,
                schema_name: details.schema,
                schema: Arc::new(schema),
            })
        } else {
            let details: TableDetails = serde_json::from_str(&self.details)
                .map_err(|error| corrupt(format!("the definition ({error})")))?;
            RelationBody::Table(
                TableDefinition::restore(&schema, details)
                    .map_err(|error| corrupt(format!("the definition ({error})")))?,
            )
        };
        Ok(Relation {
            id: self.id,
            lane: transaction.lane(),
            name: self.name,
            owner,
            body,
            revision: self.revision,
            created_at_ms: self.created_at_ms,
            altered_at_ms: self.altered_at_ms,
        })
    }
}
