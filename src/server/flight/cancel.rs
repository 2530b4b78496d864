//! Queries that run, and how a client that has the announcement of one ends it.
//!
//! A client that reads the rows ends its query by dropping their stream. One that
//! does not, another thread or program with the FlightInfo, asks here. Invariant:
//! nobody ends a query but by a ticket that its own session was issued; what
//! writes is not ended once it has begun to, so that its outcome is always known.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, Command, ProstMessageExt,
    TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightEndpoint,
    FlightInfo, RenewFlightEndpointRequest, Ticket,
};
use futures::{FutureExt, Stream, StreamExt};
use metrics::gauge;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::error::{Error, Result};
use crate::server::status::to_status;

use super::statement::timestamp;
use super::ticket::{Content, Kind};
use super::{Caller, FlightServer, MessageStream, command};

/// Tickets of cancelled queries that are remembered, to be refused. Of the oldest
/// one a client may start the query again.
const CANCELLED_MAX: u64 = 100_000;

/// The queries that run, by the number of their ticket. Clones share them.
#[derive(Clone)]
pub(super) struct Runs(Arc<Shared>);

struct Shared {
    running: Mutex<HashMap<u64, Running>>,
    cancelled: Cache<u64, ()>,
}

struct Running {
    token: CancellationToken,
    /// Streams of the one ticket.
    streams: usize,
}

impl Runs {
    /// None yet. A ticket lives for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Runs(Arc::new(Shared {
            running: Mutex::default(),
            cancelled: Cache::builder()
                .max_capacity(CANCELLED_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(ttl)
                .build(),
        }))
    }

    /// Starts the query of the ticket with this number.
    pub fn start(&self, serial: u64) -> Result<Run> {
        let mut running = self.0.running.lock();
        self.check(serial)?;
        let one = running.entry(serial).or_insert_with(|| {
            gauge!("jammi_queries_running").increment(1.0);
            Running {
                token: CancellationToken::new(),
                streams: 0,
            }
        });
        one.streams += 1;
        Ok(Run {
            runs: self.clone(),
            serial,
            cancelled: Box::pin(one.token.clone().cancelled_owned()),
        })
    }

    /// Whether the query of the ticket was cancelled.
    pub fn check(&self, serial: u64) -> Result<()> {
        match self.0.cancelled.contains_key(&serial) {
            true => Err(was_cancelled()),
            false => Ok(()),
        }
    }

    fn cancel(&self, serial: u64) {
        let running = self.0.running.lock();
        self.0.cancelled.insert(serial, ());
        if let Some(one) = running.get(&serial) {
            one.token.cancel();
        }
    }
}

fn was_cancelled() -> Error {
    Error::Cancelled("the query was cancelled by its client: send it again".into())
}

/// A query that runs. Dropping it says that it does not any more.
pub(super) struct Run {
    runs: Runs,
    serial: u64,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Run {
    /// Does `work` until the query is cancelled.
    pub async fn until_cancelled<T>(
        &mut self,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = &mut self.cancelled => Err(was_cancelled()),
            done = work => done,
        }
    }

    /// `messages` until the query is cancelled.
    pub fn stream(self, messages: MessageStream) -> MessageStream {
        Box::pin(Messages {
            run: self,
            messages: Some(messages),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.runs.0.running.lock();
        if let Some(one) = running.get_mut(&self.serial) {
            one.streams -= 1;
            if one.streams == 0 {
                running.remove(&self.serial);
                gauge!("jammi_queries_running").decrement(1.0);
            }
        }
    }
}

/// The messages of a query that can be cancelled.
struct Messages {
    run: Run,
    /// None once it was cancelled.
    messages: Option<MessageStream>,
}

impl Stream for Messages {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Messages { run, messages } = &mut *self;
        let Some(inner) = messages else {
            return Poll::Ready(None);
        };
        if run.cancelled.poll_unpin(cx).is_ready() {
            // The work stops with its stream.
            *messages = None;
            return Poll::Ready(Some(Err(to_status(&was_cancelled()))));
        }
        inner.poll_next_unpin(cx)
    }
}

impl FlightServer {
    /// Ends the query that was announced, wherever its rows are being read.
    pub(super) fn cancel_flight_info(
        &self,
        caller: &Caller,
        request: CancelFlightInfoRequest,
    ) -> Result<CancelFlightInfoResult> {
        let info = request.info.ok_or_else(nothing_to_cancel)?;
        let mut result = CancelFlightInfoResult::default();
        result.set_status(self.cancel_announced(caller, &info)?);
        Ok(result)
    }

    /// As [`Self::cancel_flight_info`], as clients of older versions ask for it.
    pub(super) fn cancel_query(
        &self,
        caller: &Caller,
        request: &ActionCancelQueryRequest,
    ) -> Result<ActionCancelQueryResult> {
        let info = FlightInfo::decode(&*request.info).map_err(|error| {
            Error::InvalidArgument(format!(
                "the flight info to be cancelled is malformed: {error}"
            ))
        })?;
        let status = self.cancel_announced(caller, &info)?;
        // The two enumerations have the same values.
        let result = status as i32;
        Ok(ActionCancelQueryResult { result })
    }

    fn cancel_announced(&self, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus> {
        if info.endpoint.is_empty() {
            return Err(nothing_to_cancel());
        }
        // Every ticket is looked at before anything is cancelled.
        let contents = info.endpoint.iter();
        let contents = contents.map(|endpoint| self.content_of_ticket(caller, endpoint));
        let mut status = CancelStatus::Cancelled;
        for content in contents.collect::<Result<Vec<_>>>()? {
            // What writes has its ticket until it begins to.
            let cancels = !content.writes
                || self.unused_tickets.remove(&content.serial).is_some()
                || self.runs.check(content.serial).is_err();
            match cancels {
                true => {
                    self.runs.cancel(content.serial);
                    self.polled.end(content.serial);
                }
                false => status = CancelStatus::NotCancellable,
            }
        }
        Ok(status)
    }

    /// The endpoint with a ticket that is taken for as long as a new one.
    pub(super) fn renew_endpoint(
        &self,
        caller: &Caller,
        request: RenewFlightEndpointRequest,
    ) -> Result<FlightEndpoint> {
        let mut endpoint = request.endpoint.ok_or_else(|| {
            Error::InvalidArgument(
                "the request has no endpoint: send one that GetFlightInfo has answered".into(),
            )
        })?;
        let content = self.content_of_ticket(caller, &endpoint)?;
        if self.unused_tickets.contains_key(&content.serial) {
            self.unused_tickets.insert(content.serial, ());
        }
        let expires_ms = self.expiry_ms(caller.now_ms);
        let statement_handle =
            self.sealer
                .seal(&caller.holder(), Kind::Ticket, content, expires_ms)?;
        let ticket = TicketStatementQuery { statement_handle };
        endpoint.ticket = Some(Ticket::new(ticket.as_any().encode_to_vec()));
        endpoint.expiration_time = Some(timestamp(expires_ms));
        Ok(endpoint)
    }

    /// The query that an endpoint's ticket stands for.
    pub(super) fn content_of_ticket(
        &self,
        caller: &Caller,
        endpoint: &FlightEndpoint,
    ) -> Result<Content> {
        let ticket = endpoint.ticket.as_ref().ok_or_else(|| {
            Error::InvalidArgument(
                "an endpoint has no ticket: send the flight info as GetFlightInfo answered it"
                    .into(),
            )
        })?;
        let Command::TicketStatementQuery(ticket) = command(&ticket.ticket)? else {
            return Err(Error::InvalidArgument(
                "the ticket is not that of a query: only queries are cancelled and renewed".into(),
            ));
        };
        let handle = &ticket.statement_handle;
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Ticket, caller.now_ms, handle)?;
        Ok(opened.content)
    }
}

fn nothing_to_cancel() -> Error {
    Error::InvalidArgument(
        "the request names no query: send the flight info that GetFlightInfo answered".into(),
    )
}
