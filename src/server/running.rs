//! The statements that run, whichever call sent them, and how one is ended that its
//! client does not end by leaving.
//!
//! Invariant: whoever waits for a statement that was ended is told so, and who did it;
//! what commits is not ended, so that its outcome is always known.
//!
//! A statement's number is random: numbers in a row would tell how many others there
//! are. There are as many entries as statements are being served, which
//! `server.connections_max`, `server.connection_streams_max` and
//! `server.polled_queries_max` bound, and each keeps so much of its text.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use metrics::gauge;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use uuid::Uuid;

use super::status::to_status;
use super::tenant::{Admitted, Clock};
use crate::engine::{Progress, masked};
use crate::error::{Error, Result};
use crate::tenant::{Principal, Scope, SessionId, SessionKey, TenantId};

/// Tickets of ended statements that are remembered, to be refused. Of the oldest
/// one a client may start the statement again.
const ENDED_MAX: u64 = 100_000;
/// Bytes that are kept of a statement's text, to be shown.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// The statements that run. Clones share them.
#[derive(Clone)]
pub struct Runs(Arc<Shared>);

struct Shared {
    running: DashMap<u64, Arc<Running>>,
    ended: Cache<u64, EndedBy>,
    clock: Arc<dyn Clock>,
}

/// Who has ended a statement that went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its session, by what announced it.
    Client,
    /// Its principal, by `KILL`.
    Principal,
    /// Whoever runs the server.
    Operator,
}

impl EndedBy {
    /// What is told to whoever waits for the statement.
    pub fn error(self) -> Error {
        Error::Cancelled(
            match self {
                EndedBy::Client => "the query was cancelled by its client: send it again",
                EndedBy::Principal => {
                    "the statement was ended by a KILL of its own principal: send it again"
                }
                EndedBy::Operator => {
                    "the statement was ended by an operator of the server: ask them before it is \
                     sent again"
                }
            }
            .into(),
        )
    }
}

/// What is sent to be run.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// A statement's text.
    Sql(&'a str),
    /// A plan of Substrait.
    Plan,
    /// Rows for a table.
    Ingest(&'a str),
}

/// A statement that runs.
pub struct Running {
    number: u64,
    /// The number of the ticket that it runs for.
    serial: Option<u64>,
    principal: Principal,
    tenant: Option<TenantId>,
    session: Option<(SessionId, SessionKey)>,
    kind: &'static str,
    /// As it was sent, but for what is too long.
    text: Box<str>,
    began_at_ms: i64,
    progress: Arc<Progress>,
    ended: Mutex<Option<EndedBy>>,
    token: CancellationToken,
}

impl Running {
    /// What it is called.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Who sent it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The tenant that it is for.
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// The session that it was sent in.
    pub fn session(&self) -> Option<&(SessionId, SessionKey)> {
        self.session.as_ref()
    }

    /// `sql`, `substrait` or `ingest`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its text without values.
    pub fn statement(&self) -> String {
        match self.kind {
            SQL => masked(&self.text),
            _ => self.text.to_string(),
        }
    }

    /// Unix time in milliseconds.
    pub fn began_at_ms(&self) -> i64 {
        self.began_at_ms
    }

    /// How far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Ends it. `false`: it commits.
    fn end(&self, by: EndedBy) -> bool {
        let mut ended = self.ended.lock();
        if !self.progress.end() {
            return false;
        }
        ended.get_or_insert(by);
        drop(ended);
        self.token.cancel();
        true
    }
}

const SQL: &str = "sql";

impl Runs {
    /// None yet. A ticket lives for `ttl`.
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Runs(Arc::new(Shared {
            running: DashMap::new(),
            ended: Cache::builder()
                .max_capacity(ENDED_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(ttl)
                .build(),
            clock,
        }))
    }

    /// Starts a statement of a request that was admitted as `admitted`, for the ticket
    /// of this number if it is for one.
    ///
    /// # Errors
    /// `Cancelled` where the ticket's statement was ended, or the session since the
    /// request was admitted.
    pub fn start(
        &self,
        admitted: &Admitted,
        scope: &Scope,
        sent: Sent<'_>,
        serial: Option<u64>,
    ) -> Result<Run> {
        let (kind, text) = match sent {
            Sent::Sql(text) => (SQL, text),
            Sent::Plan => ("substrait", ""),
            Sent::Ingest(table) => ("ingest", table),
        };
        let number = loop {
            let (_, random) = Uuid::new_v4().as_u64_pair();
            // The others say which kind of UUID it is.
            let number = random & (u64::MAX >> 2);
            if !self.0.running.contains_key(&number) {
                break number;
            }
        };
        let token = CancellationToken::new();
        let running = Arc::new(Running {
            number,
            serial,
            principal: scope.principal().clone(),
            tenant: scope.tenant(),
            session: admitted.session().cloned().zip(scope.session()),
            kind,
            text: text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into(),
            began_at_ms: self.0.clock.now_ms(),
            progress: Arc::default(),
            ended: Mutex::default(),
            token: token.clone(),
        });
        let run = Run {
            runs: self.clone(),
            running: Arc::clone(&running),
            token: Box::pin(token.cancelled_owned()),
        };
        match self.0.running.entry(number) {
            Entry::Vacant(place) => drop(place.insert(running)),
            // One in 2^62, if the same was drawn twice at once.
            Entry::Occupied(_) => {
                return Err(Error::Unavailable(
                    "the statement has no number: send it again".into(),
                ));
            }
        }
        gauge!("jammi_queries_running").increment(1.0);
        // After it is there to be ended: whoever ends it has noted that before.
        if let Some(serial) = serial {
            self.check(serial)?;
        }
        admitted.require_unended()?;
        Ok(run)
    }

    /// Whether the statement of the ticket was ended.
    pub fn check(&self, serial: u64) -> Result<()> {
        match self.0.ended.get(&serial) {
            Some(by) => Err(by.error()),
            None => Ok(()),
        }
    }

    /// Ends the statement of a ticket, and refuses the ticket from now on. `false`: it
    /// commits.
    pub fn cancel(&self, serial: u64) -> bool {
        self.0.ended.insert(serial, EndedBy::Client);
        let mut ends = true;
        for running in self.list(|one| one.serial == Some(serial)) {
            ends &= running.end(EndedBy::Client);
        }
        ends
    }

    /// The statement of a number.
    pub fn get(&self, number: u64) -> Option<Arc<Running>> {
        Some(Arc::clone(&*self.0.running.get(&number)?))
    }

    /// The statements that `which` holds of.
    pub fn list(&self, which: impl Fn(&Running) -> bool) -> Vec<Arc<Running>> {
        let running = self.0.running.iter().filter(|one| which(one));
        running.map(|one| Arc::clone(&*one)).collect()
    }

    /// Ends a statement, and refuses its ticket from now on. `false`: it commits.
    pub fn end(&self, running: &Running, by: EndedBy) -> bool {
        if !running.end(by) {
            return false;
        }
        if let Some(serial) = running.serial {
            self.0.ended.insert(serial, by);
        }
        true
    }
}

/// A statement that runs, with whoever waits for it. Dropping it says that it does not
/// any more.
pub struct Run {
    runs: Runs,
    running: Arc<Running>,
    token: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Run {
    /// How far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.running.progress
    }

    /// Completes when it is ended.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.running.token.clone().cancelled_owned()
    }

    /// Does `work` until the statement is ended. What a statement does is a large future,
    /// which callers do not hold inside of theirs.
    ///
    /// # Errors
    /// Those of `work`, and `Cancelled`.
    pub async fn until_ended<T>(&mut self, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        let done = tokio::select! {
            biased;
            () = &mut self.token => return Err(self.error()),
            done = work => done,
        };
        let ended = *self.running.ended.lock();
        match ended {
            // Which the work may have noticed first.
            Some(by) if done.is_err() => Err(by.error()),
            _ => done,
        }
    }

    /// `messages` until the statement is ended.
    pub fn stream<T>(self, messages: Messages<T>) -> Messages<T>
    where
        T: Send + 'static,
    {
        Box::pin(UntilEnded {
            run: self,
            messages: Some(messages),
        })
    }

    fn error(&self) -> Error {
        let ended = *self.running.ended.lock();
        ended.unwrap_or(EndedBy::Client).error()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let number = self.running.number;
        let own = |_: &u64, one: &Arc<Running>| Arc::ptr_eq(one, &self.running);
        if self.runs.0.running.remove_if(&number, own).is_some() {
            gauge!("jammi_queries_running").decrement(1.0);
        }
    }
}

/// What a call answers with.
pub type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The messages of a statement that can be ended.
struct UntilEnded<T> {
    run: Run,
    /// None once it was ended.
    messages: Option<Messages<T>>,
}

impl<T> Stream for UntilEnded<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let UntilEnded { run, messages } = &mut *self;
        let Some(inner) = messages else {
            return Poll::Ready(None);
        };
        if run.token.poll_unpin(cx).is_ready() {
            // The work stops with its stream.
            *messages = None;
            return Poll::Ready(Some(Err(to_status(&run.error()))));
        }
        inner.poll_next_unpin(cx)
    }
}
