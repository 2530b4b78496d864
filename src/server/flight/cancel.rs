//! How a client that has the announcement of a query ends it.
//!
//! A client that reads the rows ends its query by dropping their stream. One that
//! does not, another thread or program with the FlightInfo, asks here. Invariant: it
//! is asked by a ticket that its own session was issued; what writes is not ended
//! here once it has begun to.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, Command, ProstMessageExt,
    TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint, FlightInfo,
    RenewFlightEndpointRequest, Ticket,
};
use prost::Message;

use crate::error::{Error, Result};

use super::statement::timestamp;
use super::ticket::{Content, Kind};
use super::{Caller, FlightServer, command};

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
                || self.runs().check(content.serial).is_err();
            if cancels && self.runs().cancel(content.serial) {
                self.polled.end(content.serial);
            } else {
                status = CancelStatus::NotCancellable;
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
