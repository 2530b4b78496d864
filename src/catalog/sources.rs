//! The `sources` table of a lane.
//!
//! Invariant: every statement holds the lane's predicate, `tenant_id IS ?`, so
//! a row of another tenant in the lane's file is neither read nor changed.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, named_params};

use super::{NewSource, Source, SourceFormat, TenantColumn, TenantEncoding, schema_ipc, stamp};
use crate::backend::{BackendError, Transaction};

/// The names of a row's columns, in the order that [`StoredRow::read`] takes.
const COLUMNS: &str = "name, location, format, tenant_column, tenant_encoding, schema_ipc, \
                       partition_columns, registered_at_ms, refreshed_at_ms";

/// Every source of the lane, by name.
pub(super) fn all(transaction: &Transaction<'_>) -> Result<Vec<Arc<Source>>, BackendError> {
    let mut statement = transaction.connection().prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sources WHERE tenant_id IS :tenant_id ORDER BY name"
    ))?;
    let rows = statement.query_map(
        named_params! {":tenant_id": transaction.tenant_id()},
        StoredRow::read,
    )?;
    rows.map(|row| Ok(Arc::new(row?.decode(transaction)?)))
        .collect()
}

/// Records a source, unless the lane has the name: then `None`.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    source: &Source,
) -> Result<Option<()>, BackendError> {
    transaction.assert_tenant_matches(source.lane.tenant())?;
    if registered_at_ms(transaction, &source.definition.name)?.is_some() {
        return Ok(None);
    }
    let stored = Stored::of(&source.definition)?;
    stamp::renew(transaction)?;
    transaction
        .connection()
        .prepare_cached(
            "INSERT INTO sources (tenant_id, name, location, format, tenant_column,
                 tenant_encoding, schema_ipc, partition_columns, registered_at_ms, refreshed_at_ms)
             VALUES (:tenant_id, :name, :location, :format, :tenant_column,
                 :tenant_encoding, :schema_ipc, :partition_columns, :registered_at_ms, :refreshed_at_ms)",
        )?
        .execute(named_params! {
            ":tenant_id": source.lane.tenant().map(|tenant| tenant.to_string()),
            ":name": source.definition.name,
            ":location": source.definition.location,
            ":format": stored.format,
            ":tenant_column": stored.tenant_column,
            ":tenant_encoding": stored.tenant_encoding,
            ":schema_ipc": stored.schema_ipc,
            ":partition_columns": stored.partition_columns,
            ":registered_at_ms": source.registered_at_ms,
            ":refreshed_at_ms": source.refreshed_at_ms,
        })?;
    Ok(Some(()))
}

/// Gives a source of the lane another definition and says when it was
/// registered; `None` when the lane has none of the name.
pub(super) fn update(
    transaction: &Transaction<'_>,
    source: &Source,
) -> Result<Option<i64>, BackendError> {
    transaction.assert_tenant_matches(source.lane.tenant())?;
    let Some(registered_at_ms) = registered_at_ms(transaction, &source.definition.name)? else {
        return Ok(None);
    };
    let stored = Stored::of(&source.definition)?;
    stamp::renew(transaction)?;
    transaction
        .connection()
        .prepare_cached(
            "UPDATE sources SET location = :location, format = :format,
                 tenant_column = :tenant_column, tenant_encoding = :tenant_encoding,
                 schema_ipc = :schema_ipc, partition_columns = :partition_columns,
                 refreshed_at_ms = :refreshed_at_ms
             WHERE tenant_id IS :tenant_id AND name = :name",
        )?
        .execute(named_params! {
            ":tenant_id": transaction.tenant_id(),
            ":name": source.definition.name,
            ":location": source.definition.location,
            ":format": stored.format,
            ":tenant_column": stored.tenant_column,
            ":tenant_encoding": stored.tenant_encoding,
            ":schema_ipc": stored.schema_ipc,
            ":partition_columns": stored.partition_columns,
            ":refreshed_at_ms": source.refreshed_at_ms,
        })?;
    Ok(Some(registered_at_ms))
}

/// Forgets a source of the lane; `false` when the lane has none of the name.
pub(super) fn delete(transaction: &Transaction<'_>, name: &str) -> Result<bool, BackendError> {
    stamp::renew(transaction)?;
    let deleted = transaction
        .connection()
        .prepare_cached("DELETE FROM sources WHERE tenant_id IS :tenant_id AND name = :name")?
        .execute(named_params! {":tenant_id": transaction.tenant_id(), ":name": name})?;
    Ok(deleted > 0)
}

fn registered_at_ms(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<Option<i64>, BackendError> {
    Ok(transaction
        .connection()
        .prepare_cached(
            "SELECT registered_at_ms FROM sources WHERE tenant_id IS :tenant_id AND name = :name",
        )?
        .query_row(
            named_params! {":tenant_id": transaction.tenant_id(), ":name": name},
            |row| row.get(0),
        )
        .optional()?)
}

/// The columns of a definition that have another form in the table.
struct Stored<'a> {
    format: &'static str,
    tenant_column: Option<&'a str>,
    tenant_encoding: Option<&'static str>,
    schema_ipc: Vec<u8>,
    partition_columns: String,
}

impl<'a> Stored<'a> {
    fn of(definition: &'a NewSource) -> Result<Self, BackendError> {
        let (tenant_column, tenant_encoding) = match &definition.tenant_column {
            TenantColumn::Absent => (None, None),
            TenantColumn::Named { column, encoding } => {
                (Some(column.as_str()), Some(encoding_name(*encoding)))
            }
        };
        Ok(Stored {
            format: definition.format.as_str(),
            tenant_column,
            tenant_encoding,
            schema_ipc: schema_ipc::encode(&definition.schema),
            partition_columns: serde_json::Value::from(definition.partition_columns.clone())
                .to_string(),
        })
    }
}

/// A row as it is in the table.
struct StoredRow {
    name: String,
    location: String,
    format: String,
    tenant_column: Option<String>,
    tenant_encoding: Option<String>,
    schema_ipc: Vec<u8>,
    partition_columns: String,
    registered_at_ms: i64,
    refreshed_at_ms: i64,
}

impl StoredRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(StoredRow {
            name: row.get(0)?,
            location: row.get(1)?,
            format: row.get(2)?,
            tenant_column: row.get(3)?,
            tenant_encoding: row.get(4)?,
            schema_ipc: row.get(5)?,
            partition_columns: row.get(6)?,
            registered_at_ms: row.get(7)?,
            refreshed_at_ms: row.get(8)?,
        })
    }

    fn decode(self, transaction: &Transaction<'_>) -> Result<Source, BackendError> {
        let corrupt = |what: String| {
            transaction.corrupt(format!("{what} of source {:?} cannot be read", self.name))
        };
        let format: SourceFormat = self
            .format
            .parse()
            .map_err(|error| corrupt(format!("the format ({error})")))?;
        let tenant_column = match (self.tenant_column, self.tenant_encoding) {
            (None, None) => TenantColumn::Absent,
            (Some(column), Some(encoding)) => TenantColumn::Named {
                column,
                encoding: parse_encoding(&encoding)
                    .ok_or_else(|| corrupt("the tenant encoding".into()))?,
            },
            _ => return Err(corrupt("the tenant column".into())),
        };
        let schema = schema_ipc::decode(&self.schema_ipc)
            .map_err(|error| corrupt(format!("the schema ({error})")))?;
        let partition_columns = serde_json::from_str(&self.partition_columns)
            .map_err(|error| corrupt(format!("the partition columns ({error})")))?;
        Ok(Source {
            lane: transaction.lane(),
            definition: NewSource {
                name: self.name,
                location: self.location,
                format,
                tenant_column,
                schema: Arc::new(schema),
                partition_columns,
            },
            registered_at_ms: self.registered_at_ms,
            refreshed_at_ms: self.refreshed_at_ms,
        })
    }
}

fn encoding_name(encoding: TenantEncoding) -> &'static str {
    match encoding {
        TenantEncoding::Text => "text",
        TenantEncoding::Bytes => "bytes",
    }
}

fn parse_encoding(text: &str) -> Option<TenantEncoding> {
    [TenantEncoding::Text, TenantEncoding::Bytes]
        .into_iter()
        .find(|encoding| encoding_name(*encoding) == text)
}
