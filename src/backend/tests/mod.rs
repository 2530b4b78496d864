//! Lanes as files: what survives, what is refused, and what two processes see
//! of each other. A second `Backend` on one directory stands for a second
//! process: it shares nothing with the first but the files.

mod backups;
mod disk;
mod failing_disk;
mod faults;
mod groups;
mod interleavings;
mod lanes;
mod processes;
mod transactions;
mod versions;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Backend, BackendError, DatabaseName, Transaction};
use crate::config::LanesConfig;
use crate::tenant::{Lane, TenantId};

pub(crate) fn alice() -> TenantId {
    TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a").unwrap()
}

pub(crate) fn bob() -> TenantId {
    TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b").unwrap()
}

/// One of many tenants.
fn tenant(number: usize) -> TenantId {
    TenantId::from_str(&format!("018f5a0e-c4c8-7e10-9c4f-{number:012x}")).unwrap()
}

fn lane_file(dir: &Path, tenant: TenantId) -> PathBuf {
    dir.join(format!("tenants/{tenant}.db"))
}

/// Where syncing costs nothing, if there is such a place.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_absent| TempDir::new().unwrap())
}

async fn open(dir: &TempDir) -> Backend {
    Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap()
}

/// Restores all that a backup holds.
fn keep_all(_restored: &Transaction<'_>) -> Result<(), BackendError> {
    Ok(())
}

/// Writes a model row for `row_tenant`, by the rules of the lane.
fn put(tx: &Transaction<'_>, row_tenant: Option<TenantId>, name: &str) -> Result<(), BackendError> {
    tx.redefines();
    put_row(tx, row_tenant, name)
}

/// As [`put`], of what redefines nothing.
fn put_row(
    tx: &Transaction<'_>,
    row_tenant: Option<TenantId>,
    name: &str,
) -> Result<(), BackendError> {
    tx.assert_tenant_matches(row_tenant)?;
    tx.connection().execute(
        "INSERT INTO models (tenant_id, name, version, uri, metadata, registered_at_ms)
         VALUES (?1, ?2, '1', 'x', '{}', 0)",
        (row_tenant.map(|tenant| tenant.to_string()), name),
    )?;
    Ok(())
}

async fn put_in(backend: &Backend, lane: Lane, name: &str) -> Result<(), BackendError> {
    let name = name.to_owned();
    backend
        .write(lane, move |tx| put(tx, lane.tenant(), &name))
        .await
}

fn names(tx: &Transaction<'_>) -> Result<Vec<String>, BackendError> {
    let mut statement = tx
        .connection()
        .prepare("SELECT name FROM models WHERE tenant_id IS ?1 ORDER BY name")?;
    let names = statement.query_map([tx.tenant_id()], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

async fn names_in(backend: &Backend, lane: Lane) -> Result<Option<Vec<String>>, BackendError> {
    backend.read(lane, names).await
}

/// Until so many wait to write the lane.
async fn waits(backend: &Backend, lane: Lane, count: usize) {
    while backend.pool.waiting(DatabaseName::Lane(lane)) != count {
        tokio::task::yield_now().await;
    }
}

/// A plain connection, as another program would open the file.
fn stranger(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}
