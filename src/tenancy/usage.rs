//! What tenants ask for: queries, rows and running time, counted in memory and
//! written down in batches, so that a query costs no disk.
//!
//! Invariant: what was counted before a tenant was erased is not written down after
//! that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::counter;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, Transaction};

use crate::backend::{Backend, BackendError};
use crate::catalog::Clock;
use crate::error::Result;
use crate::tenant::TenantId;

/// How many tenants are counted at a time, between two flushes: queries of more are
/// counted by a metric alone.
const TENANTS_MAX: usize = 100_000;

/// Counts what tenants ask for. Clones share the counts.
#[derive(Clone)]
pub struct Usage(Arc<Shared>);

struct Shared {
    backend: Backend,
    now_ms: Clock,
    counts: Mutex<HashMap<TenantId, Counts>>,
    /// Had by whoever writes counts down, so that all are once that is had.
    flushing: tokio::sync::Mutex<()>,
}

/// What is not written down yet of a tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    queries: u64,
    rows: u64,
    running_us: u64,
    /// Unix time in milliseconds of the first of it.
    since_ms: i64,
}

/// What a tenant has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// Statements that ran.
    pub queries: u64,
    /// Rows that they answered. What a write changes is not among them.
    pub rows: u64,
    /// How long they ran, until their last row was fetched, in microseconds.
    pub running_us: u64,
    /// Unix time in milliseconds from which on it is counted, if anything was.
    pub since_ms: Option<i64>,
}

impl Usage {
    /// Counts that are kept in the system database of `backend`.
    pub fn new(backend: Backend, now_ms: Clock) -> Self {
        Usage(Arc::new(Shared {
            backend,
            now_ms,
            counts: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
        }))
    }

    /// A statement of `tenant` that runs from now on; nothing of one that is bound to
    /// no tenant.
    pub fn begin(&self, tenant: Option<TenantId>) -> Option<Meter> {
        Some(Meter {
            usage: self.clone(),
            tenant: tenant?,
            began: Instant::now(),
            rows: 0,
        })
    }

    fn add(&self, tenant: TenantId, counts: Counts) {
        let mut all = self.0.counts.lock();
        if all.len() >= TENANTS_MAX && !all.contains_key(&tenant) {
            counter!("jammi_usage_uncounted_total").increment(counts.queries);
            return;
        }
        all.entry(tenant).or_default().add(counts);
    }

    /// Writes down what was counted.
    ///
    /// # Errors
    /// The storage's. The counts are kept for the next time.
    pub async fn flush(&self) -> Result<()> {
        let _flushing = self.0.flushing.lock().await;
        let counted = std::mem::take(&mut *self.0.counts.lock());
        if counted.is_empty() {
            return Ok(());
        }
        let kept = counted.clone();
        let written = self
            .0
            .backend
            .system_write(move |system| {
                for (tenant, counts) in &counted {
                    write_down(system, *tenant, counts)?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = written {
            for (tenant, counts) in kept {
                self.add(tenant, counts);
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// What a tenant has asked for until now.
    ///
    /// # Errors
    /// The storage's.
    pub async fn of(&self, tenant: TenantId) -> Result<TenantUsage> {
        self.flush().await?;
        let usage = self
            .0
            .backend
            .system_read(move |system| Ok(read(system, tenant)?))
            .await?;
        Ok(usage)
    }
}

/// What is written down of a tenant.
pub(super) fn read(system: &Transaction<'_>, tenant: TenantId) -> rusqlite::Result<TenantUsage> {
    let found = system
        .prepare_cached(
            "SELECT queries, rows, running_us, since_ms FROM tenant_usage WHERE tenant_id = ?1",
        )?
        .query_row([tenant.to_string()], |row| {
            Ok(TenantUsage {
                queries: row.get::<_, i64>(0)?.unsigned_abs(),
                rows: row.get::<_, i64>(1)?.unsigned_abs(),
                running_us: row.get::<_, i64>(2)?.unsigned_abs(),
                since_ms: Some(row.get(3)?),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn write_down(
    system: &Transaction<'_>,
    tenant: TenantId,
    counts: &Counts,
) -> Result<(), BackendError> {
    system
        .prepare_cached(
            "INSERT INTO tenant_usage (tenant_id, queries, rows, running_us, since_ms)
             SELECT ?1, ?2, ?3, ?4, ?5
             WHERE NOT EXISTS (SELECT 1 FROM erasures WHERE tenant_id = ?1 AND began_at_ms >= ?5)
             ON CONFLICT (tenant_id) DO UPDATE SET
                 queries = queries + excluded.queries,
                 rows = rows + excluded.rows,
                 running_us = running_us + excluded.running_us",
        )?
        .execute((
            tenant.to_string(),
            stored(counts.queries),
            stored(counts.rows),
            stored(counts.running_us),
            counts.since_ms,
        ))?;
    Ok(())
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.since_ms = match self.queries {
            0 => other.since_ms,
            _ => self.since_ms.min(other.since_ms),
        };
        self.queries = self.queries.saturating_add(other.queries);
        self.rows = self.rows.saturating_add(other.rows);
        self.running_us = self.running_us.saturating_add(other.running_us);
    }
}

/// A statement that runs. It is counted when this is dropped.
pub struct Meter {
    usage: Usage,
    tenant: TenantId,
    began: Instant,
    rows: u64,
}

impl Meter {
    /// Counts rows that it answered.
    pub fn add_rows(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(rows as u64);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let running_us = self.began.elapsed().as_micros();
        let counts = Counts {
            queries: 1,
            rows: self.rows,
            running_us: u64::try_from(running_us).unwrap_or(u64::MAX),
            since_ms: (self.usage.0.now_ms)(),
        };
        self.usage.add(self.tenant, counts);
    }
}
