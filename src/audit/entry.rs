//! A record of what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::writer::Queued;
use super::{Audit, BYPASS, CANCELLED, Event, OK, unwritable};
use crate::config::{AuditDurability, AuditStatements};
use crate::error::Result;
use crate::tenant::{Principal, Scope, SessionId, TenantId};

/// The longest text of a statement that is kept whole, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// How much is kept of the beginning and of the end of one that is longer.
const TEXT_PART_BYTES: usize = 24 << 10;

/// The record of one request or statement, which those who serve it fill in. Clones
/// are the same record. It is written when it is finished, or when the last clone is
/// dropped: what runs is recorded, however it ends.
#[derive(Clone)]
pub struct Entry(Arc<Open>);

struct Open {
    audit: Audit,
    started: Instant,
    rows: AtomicI64,
    bytes: AtomicI64,
    /// Whether it has written, which giving it up does not undo.
    has_written: AtomicBool,
    record: Mutex<Option<Record>>,
}

/// What is known so far, and the room for it in the queue.
struct Record {
    event: Event,
    /// None for one that is written at once beside another that has room.
    room: Option<OwnedSemaphorePermit>,
}

// The record holds a client's text: it is for the trail alone.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(..)")
    }
}

impl Entry {
    pub(super) fn new(audit: &Audit, method: &str, room: OwnedSemaphorePermit) -> Self {
        let event = Event {
            id: Uuid::now_v7().hyphenated().to_string(),
            method: method.to_owned(),
            ..Event::default()
        };
        Entry(Arc::new(Open {
            audit: audit.clone(),
            started: Instant::now(),
            rows: AtomicI64::new(0),
            bytes: AtomicI64::new(0),
            has_written: AtomicBool::new(false),
            record: Mutex::new(Some(Record {
                event,
                room: Some(room),
            })),
        }))
    }

    fn fill(&self, fill: impl FnOnce(&mut Event)) {
        if let Some(record) = self.0.record.lock().as_mut() {
            fill(&mut record.event);
        }
    }

    /// Where the request came from and what it is called.
    pub fn came(&self, request_id: Option<&str>, trace_id: Option<&str>, peer: Option<String>) {
        self.fill(|event| {
            event.request_id = request_id.map(str::to_owned);
            event.trace_id = trace_id.map(str::to_owned);
            event.peer = peer;
        });
    }

    /// Who asks.
    pub fn asks(&self, principal: &Principal) {
        self.fill(|event| {
            event.user_name = Some(principal.name().to_owned());
            event.roles = principal.roles().map(str::to_owned).collect();
        });
    }

    /// The session and the tenant that it is bound to.
    pub fn admitted(
        &self,
        principal: &Principal,
        session: Option<&SessionId>,
        tenant: Option<TenantId>,
    ) {
        let session = session.and_then(|session| {
            self.0
                .audit
                .session_hash(principal.name(), session.as_str())
        });
        self.fill(|event| {
            event.session = session;
            event.tenant_id = tenant.map(|tenant| tenant.to_string());
        });
    }

    /// The text of the statement. The first one counts.
    pub fn statement(&self, sql: &str) {
        let text = match self.0.audit.statements() {
            AuditStatements::None => return,
            AuditStatements::Masked => (self.0.audit.masking())(sql),
            AuditStatements::Full => sql.to_owned(),
        };
        self.fill(|event| {
            event.statement.get_or_insert_with(|| shortened(text));
        });
    }

    /// What the statement is, where it has no text or its literals are no secret.
    pub fn is(&self, what: String) {
        if self.0.audit.statements() != AuditStatements::None {
            self.fill(|event| event.statement = Some(what));
        }
    }

    /// The tables that the statement names, and the scope that their scans were
    /// confined to, by which policies.
    pub fn reads(&self, tables: &[String], scope: &Scope) {
        self.fill(|event| {
            event.tables = tables.to_vec();
            event.scopes = Vec::new();
            event.policies = Vec::new();
            if !tables.is_empty() {
                let lanes = scope.readable().iter();
                event.scopes = lanes.map(ToString::to_string).collect();
                let policies = scope.policies().iter();
                event.policies = policies.map(ToString::to_string).collect();
            }
        });
    }

    /// Has it recorded for each of `tenants` that the request reads rows of theirs for
    /// `reason`, whomever it acts for, and completes when that is on the disk, whatever
    /// the durability of other records. The request's own record says the reason too,
    /// and belongs to no tenant: its statement may be about others.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::error::Error::Unavailable) where it cannot be written.
    pub async fn bypasses(&self, tenants: &[TenantId], reason: &str) -> Result<()> {
        self.fill(|event| {
            event.tenant_id = None;
            event.bypass_reason = Some(reason.to_owned());
        });
        let asked = self.0.record.lock().as_ref().map(|open| open.event.clone());
        let asked = asked.ok_or_else(unwritable)?;
        let told: Vec<Written> = tenants
            .iter()
            .map(|tenant| {
                let event = Event {
                    id: Uuid::now_v7().hyphenated().to_string(),
                    time: self.0.audit.now_us(),
                    tenant_id: Some(tenant.to_string()),
                    method: BYPASS.to_owned(),
                    outcome: OK.to_owned(),
                    ..asked.clone()
                };
                let (told, written) = oneshot::channel();
                self.0.audit.push(Queued {
                    event,
                    told: Some(told),
                    // The request that waits for them has room: to wait for more of it
                    // here could be to wait for others who do the same.
                    room: None,
                });
                written
            })
            .collect();
        for written in told {
            if !written.await.unwrap_or(false) {
                return Err(unwritable());
            }
        }
        Ok(())
    }

    /// Rows were answered or written.
    pub fn add_rows(&self, rows: u64) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// The statement has written what it writes: if its answer is not taken, it has done
    /// so all the same.
    pub fn note_written(&self) {
        self.0.has_written.store(true, Ordering::Relaxed);
    }

    /// Bytes were sent.
    pub fn add_bytes(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Has the record written, as one of what ended with `outcome`. The first call
    /// counts. What is answered completes when the record is on the disk, or cannot be;
    /// there is nothing to wait for where that is not promised before the answer.
    pub fn finish(&self, outcome: &str) -> Option<Written> {
        let told = match self.0.audit.durability() {
            AuditDurability::Batched => None,
            AuditDurability::BeforeAnswer => Some(oneshot::channel()),
        };
        let (told, written) = told.unzip();
        self.0.finish(outcome, told).then_some(written)?
    }
}

/// Completes with whether a record is on the disk.
pub type Written = oneshot::Receiver<bool>;

impl Open {
    /// `false`: it was finished before.
    fn finish(&self, outcome: &str, told: Option<oneshot::Sender<bool>>) -> bool {
        let Some(Record { mut event, room }) = self.record.lock().take() else {
            return false;
        };
        event.time = self.audit.now_us();
        event.rows = self.rows.load(Ordering::Relaxed);
        event.bytes = self.bytes.load(Ordering::Relaxed);
        event.duration_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let outcome = match self.has_written.load(Ordering::Relaxed) {
            true if outcome == CANCELLED => OK,
            _ => outcome,
        };
        event.outcome = outcome.to_owned();
        self.audit.push(Queued { event, told, room });
        true
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.finish(CANCELLED, None);
    }
}

/// `text`, without its middle where it is long.
fn shortened(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let head = text.floor_char_boundary(TEXT_PART_BYTES);
    let tail = text.ceil_char_boundary(text.len() - TEXT_PART_BYTES);
    let left_out = tail - head;
    format!(
        "{} ... ({left_out} bytes) ... {}",
        &text[..head],
        &text[tail..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(shortened("short".into()), "short");
        let long = format!("first {} last", "\u{e9}".repeat(TEXT_BYTES_MAX));
        let kept = shortened(long);
        assert!(kept.starts_with("first ") && kept.ends_with(" last"));
        assert!(kept.len() < TEXT_BYTES_MAX);
    }
}
