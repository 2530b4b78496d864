//! Queries that run before their rows are fetched, for clients that poll.
//!
//! PollFlightInfo begins a query and answers soon: with the ticket, and while
//! there are no rows yet also with a descriptor to ask again by. The query runs up
//! to its first rows and waits there for its reader, with as much at hand as any
//! stream has; DoGet of its ticket reads on from there, once. One that nobody asks
//! after or fetches for `server.poll_timeout_ms`, or whose client closes its session,
//! ends, and its ticket, fetched after all, runs it anew.
//!
//! Invariant: only what reads, outside of a transaction, is begun by being polled.
//! Deliberately absent: progress as a share, before all rows are there. Whatever
//! it could be a share of, such as the size of a file, counts other tenants' rows
//! too.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow_flight::sql::{Command, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use metrics::gauge;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Result};
use crate::server::tenant::Admitted;
use crate::tenant::Scope;

use super::encode::FlightStream;
use super::statement::{bound, counted, timestamp};
use super::ticket::{Content, Kind};
use super::transactions::Party;
use super::{Caller, FlightServer, MessageStream, command, wire};

/// How long the first call waits for rows: a short query is ready with it.
const SOON: Duration = Duration::from_millis(50);

/// The queries that were begun by being polled, by the number of their ticket.
/// Clones share them.
#[derive(Clone)]
pub(super) struct Polled(Arc<Shared>);

struct Shared {
    queries: Mutex<HashMap<u64, Query>>,
    /// How many one tenant has at a time.
    tenant_max: usize,
    timeout: Duration,
}

/// A query that runs up to its first rows, or has.
struct Query {
    /// Whose it is, and what it may read.
    scope: Scope,
    /// Who began it.
    party: Party,
    info: FlightInfo,
    stage: watch::Receiver<Stage>,
    /// Its rows, from the first, until they are fetched.
    rows: Arc<Mutex<Option<Result<MessageStream>>>>,
    /// When it ends, unless its rows are being fetched.
    ends: watch::Sender<Option<Instant>>,
    /// Whether the client was told that it need not ask again.
    told: bool,
    /// Dropping it ends the query.
    _task: AbortOnDropHandle<()>,
    _counted: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// There are rows, and maybe no more than those.
    Ready {
        is_whole: bool,
    },
    Failed,
}

impl Polled {
    /// None yet. One tenant has up to `tenant_max`, each of which waits for
    /// `timeout` to be asked after or fetched.
    pub fn new(tenant_max: usize, timeout: Duration) -> Self {
        Polled(Arc::new(Shared {
            queries: Mutex::default(),
            tenant_max,
            timeout,
        }))
    }

    /// Begins `work`, which ends with the first rows and whether they are all. It is
    /// forgotten when it is `ended`.
    /// `false`: the tenant has as many queries as it may.
    fn begin(
        &self,
        serial: u64,
        (scope, party): (Scope, Party),
        info: FlightInfo,
        ended: impl Future<Output = ()> + Send + 'static,
        work: impl Future<Output = Result<(MessageStream, bool)>> + Send + 'static,
    ) -> bool {
        let mut queries = self.0.queries.lock();
        let of_tenant = queries
            .values()
            .filter(|query| query.scope.tenant() == scope.tenant());
        if of_tenant.count() >= self.0.tenant_max {
            return false;
        }
        let rows = Arc::default();
        let (staged, stage) = watch::channel(Stage::Running);
        let (ends, ending) = watch::channel(Some(self.0.later()));
        let run = run(work, Arc::clone(&rows), staged, ending);
        let forgotten = Ended(Arc::downgrade(&self.0), serial);
        let task = async move {
            let _forgotten = forgotten;
            tokio::select! {
                () = run => {}
                () = ended => {}
            }
        };
        let query = Query {
            scope,
            party,
            info,
            stage,
            rows,
            ends,
            told: false,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
            _counted: Counted::new(),
        };
        queries.insert(serial, query);
        true
    }

    /// How far the query is, as soon as it has rows or has failed, and after
    /// `patience` in any case. `None`: there is no such query any more.
    async fn ask(&self, serial: u64, patience: Duration) -> Option<(Stage, FlightInfo)> {
        let mut stage = {
            let queries = self.0.queries.lock();
            let query = queries.get(&serial)?;
            query.extend(&self.0);
            query.stage.clone()
        };
        let _ = timeout(patience, stage.wait_for(|stage| *stage != Stage::Running)).await;
        let mut queries = self.0.queries.lock();
        let query = queries.get_mut(&serial)?;
        query.extend(&self.0);
        let stage = *query.stage.borrow();
        query.told = matches!(stage, Stage::Ready { .. });
        let info = query.info.clone();
        // Nobody asks again, and the rows are with their reader already.
        if query.told && query.is_fetched() {
            queries.remove(&serial);
        }
        Some((stage, info))
    }

    /// The rows of a query that was polled, once they are there; `None` where
    /// they are not to be had from here, or are not what `scope` reads now.
    pub async fn fetch(&self, serial: u64, scope: &Scope) -> Option<Result<MessageStream>> {
        let (mut stage, rows) = {
            let queries = self.0.queries.lock();
            let query = queries.get(&serial)?;
            if query.is_fetched() || query.scope != *scope {
                return None;
            }
            // It ends with its reader from here on.
            query.ends.send_replace(None);
            (query.stage.clone(), Arc::clone(&query.rows))
        };
        let reader = Ended(Arc::downgrade(&self.0), serial);
        let _ = stage.wait_for(|stage| *stage != Stage::Running).await;
        let rows = rows.lock().take();
        let mut queries = self.0.queries.lock();
        if let Some(query) = queries.get_mut(&serial) {
            match query.told || rows.as_ref().is_none_or(Result::is_err) {
                true => {
                    queries.remove(&serial);
                }
                // Its client may ask once more.
                false => query.extend(&self.0),
            }
        }
        drop(queries);
        reader.keep();
        rows
    }

    /// Ends what `party` has begun, and nobody waits to read.
    pub fn closed(&self, party: &Party) {
        let mut queries = self.0.queries.lock();
        let ended =
            queries.extract_if(|_, query| query.party.is(party) && query.ends.borrow().is_some());
        let ended: Vec<(u64, Query)> = ended.collect();
        drop(queries);
        // What they have at hand is dropped without the lock.
        drop(ended);
    }

    /// Ends a query.
    pub fn end(&self, serial: u64) {
        self.0.end(serial);
    }
}

impl Shared {
    fn later(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn end(&self, serial: u64) {
        let ended = self.queries.lock().remove(&serial);
        // What it has at hand is dropped without the lock.
        drop(ended);
    }
}

impl Query {
    fn extend(&self, shared: &Shared) {
        // Not of one whose reader waits for its rows.
        self.ends.send_if_modified(|ends| {
            let waits = ends.is_some() || self.is_fetched();
            if waits {
                *ends = Some(shared.later());
            }
            waits
        });
    }

    /// Whether its rows are with their reader.
    fn is_fetched(&self) -> bool {
        *self.stage.borrow() != Stage::Running && self.rows.lock().is_none()
    }
}

/// Ends a query as it is dropped, unless it is to be kept.
struct Ended(Weak<Shared>, u64);

impl Ended {
    fn keep(mut self) {
        self.0 = Weak::new();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end(self.1);
        }
    }
}

/// A query in the metrics.
struct Counted;

impl Counted {
    fn new() -> Self {
        gauge!("jammi_queries_polled").increment(1.0);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("jammi_queries_polled").decrement(1.0);
    }
}

/// Runs a query up to its first rows, and keeps them until it `ends`.
async fn run(
    work: impl Future<Output = Result<(MessageStream, bool)>>,
    rows: Arc<Mutex<Option<Result<MessageStream>>>>,
    staged: watch::Sender<Stage>,
    mut ends: watch::Receiver<Option<Instant>>,
) {
    let done = tokio::select! {
        done = work => done,
        () = over(&mut ends) => return,
    };
    let (stage, done) = match done {
        Ok((messages, is_whole)) => (Stage::Ready { is_whole }, Ok(messages)),
        Err(error) => (Stage::Failed, Err(error)),
    };
    *rows.lock() = Some(done);
    staged.send_replace(stage);
    over(&mut ends).await;
}

/// Waits until a query's time is over.
async fn over(ends: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *ends.borrow_and_update();
        let changed = match at {
            Some(at) => tokio::select! {
                () = sleep_until(at) => return,
                changed = ends.changed() => changed,
            },
            None => ends.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl FlightServer {
    /// Announces what `descriptor` asks for, and begins it where it is a query.
    pub(super) async fn poll(
        &self,
        admitted: Admitted,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo> {
        let begun = match command(&descriptor.cmd)? {
            Command::TicketStatementQuery(ticket) => {
                let caller = Caller::admit(admitted)?;
                return self.poll_again(&caller, &ticket).await;
            }
            Command::CommandStatementQuery(_)
            | Command::CommandStatementSubstraitPlan(_)
            | Command::CommandPreparedStatementQuery(_) => Some(Caller::admit(admitted.clone())?),
            _ => None,
        };
        let info = self.flight_info(admitted, descriptor).await?;
        let Some(caller) = begun else {
            return Ok(complete(info, Some(1.0)));
        };
        let Some(serial) = self.begin_polled(&caller, &info).await? else {
            return Ok(complete(info, None));
        };
        self.polled_info(&caller, serial, SOON).await
    }

    /// Answers when the query of `ticket` has rows.
    async fn poll_again(&self, caller: &Caller, ticket: &TicketStatementQuery) -> Result<PollInfo> {
        let handle = &ticket.statement_handle;
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Ticket, caller.now_ms, handle)?;
        caller.note(&opened.content);
        // Often enough that the answer's time is not up before the next call.
        let patience = self.polled.0.timeout / 2;
        self.polled_info(caller, opened.content.serial, patience)
            .await
    }

    async fn polled_info(
        &self,
        caller: &Caller,
        serial: u64,
        patience: Duration,
    ) -> Result<PollInfo> {
        let Some((stage, info)) = self.polled.ask(serial, patience).await else {
            self.runs().check(serial)?;
            return Err(Error::FailedPrecondition(
                "the query has ended, since nobody asked after it for longer than \
                 server.poll_timeout_ms, or its session was closed: send it again"
                    .into(),
            ));
        };
        match stage {
            Stage::Ready { is_whole } => Ok(complete(info, is_whole.then_some(1.0))),
            Stage::Failed => match self.polled.fetch(serial, &caller.scope).await {
                Some(Err(error)) => Err(error),
                // Whoever fetched it was told why.
                Some(Ok(_)) | None => Ok(complete(info, None)),
            },
            Stage::Running => {
                let ticket = info.endpoint.first().and_then(|first| first.ticket.clone());
                let ticket = ticket.unwrap_or_default().ticket;
                let timeout_ms = self.polled.0.timeout.as_millis();
                let timeout_ms = u64::try_from(timeout_ms).unwrap_or(u64::MAX);
                let now_ms = super::now_ms().max(caller.now_ms);
                Ok(PollInfo {
                    info: Some(info),
                    // Which names the query, and is sealed for its session.
                    flight_descriptor: Some(FlightDescriptor::new_cmd(ticket)),
                    progress: None,
                    expiration_time: Some(timestamp(now_ms.saturating_add(timeout_ms))),
                })
            }
        }
    }

    /// Begins the query that was announced in `info` and answers with its number;
    /// `None` where it runs when it is fetched.
    async fn begin_polled(&self, caller: &Caller, info: &FlightInfo) -> Result<Option<u64>> {
        let Some(endpoint) = info.endpoint.first() else {
            return Ok(None);
        };
        let content: Content = self.content_of_ticket(caller, endpoint)?;
        if content.writes || self.transaction_of(caller, &content)?.is_some() {
            return Ok(None);
        }
        let statement = self.prepare_within(caller, &content, None).await?;
        let values = bound(&statement, &content)?;
        let mut run = self.begin(caller, &content, Some(content.serial))?;
        let progress = Arc::clone(run.progress());
        let (engine, scope) = (self.engine.following(&progress), caller.scope.clone());
        let message_bytes_max = self.message_bytes_max;
        let ended = run.ended();
        let work = async move {
            let first_rows = async {
                let mut rows = engine.execute(&scope, &statement, &values).await?;
                let actual = rows.schema();
                let sent = wire::announced_schema(&statement.schema(), &actual);
                let first = rows.try_next().await?;
                let is_whole = rows.is_whole();
                let rows = stream::iter(first.map(Ok)).chain(rows);
                let rows = counted(rows, &progress);
                let messages = FlightStream::new(rows, &actual, sent, message_bytes_max);
                Ok((Box::pin(messages) as MessageStream, is_whole))
            };
            let (messages, is_whole) = run.until_ended(first_rows.boxed()).await?;
            Ok((run.stream(messages), is_whole))
        };
        let serial = content.serial;
        let whose = (caller.scope.clone(), caller.party());
        let begun = self.polled.begin(serial, whose, info.clone(), ended, work);
        Ok(begun.then_some(serial))
    }
}

/// The answer after which nobody asks again.
fn complete(info: FlightInfo, progress: Option<f64>) -> PollInfo {
    PollInfo {
        info: Some(info),
        progress,
        ..PollInfo::default()
    }
}
