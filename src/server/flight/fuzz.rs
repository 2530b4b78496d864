//! What a stranger's messages say: handles, commands, actions, and rows.

use std::time::Duration;

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginTransactionRequest, ActionCancelQueryRequest,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionEndSavepointRequest, ActionEndTransactionRequest,
};
use arrow_flight::{CancelFlightInfoRequest, FlightData, RenewFlightEndpointRequest};
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tokio::runtime::Builder;

use super::metadata::MetadataCommand;
use super::rows::Put;
use super::session_options::SetSessionOptionsRequest;
use super::ticket::{Holder, Kind, Sealer};
use super::{action, command, parameters, ticket};
use crate::error::Result;
use crate::server::proto::catalog::{CreateTableRequest, RegisterSourceRequest};
use crate::server::proto::session::SetTenantRequest;
use crate::server::tables;
use crate::tenant::{Principal, Scope, TenantId};

/// The bytes that a message and a handle may have here.
const BYTES_MAX: usize = 1 << 16;

const KINDS: [Kind; 4] = [
    Kind::Ticket,
    Kind::Prepared,
    Kind::Transaction,
    Kind::Savepoint,
];

/// Shows bytes as a handle, and as what a handle's MAC covers: whoever shows one, it opens
/// for nobody but who it was issued to.
pub fn handles(data: &[u8]) {
    let sealer = Sealer::with_key(&[7; 64], BYTES_MAX);
    let tenants = [0x9a, 0x9b].map(tenant);
    let scopes = tenants.map(|tenant| Scope::tenant_bound(Principal::trusted_network(), tenant));
    let sessions = [Some("s1"), Some("s2"), None];
    let holders = scopes.iter().flat_map(|scope| {
        sessions.map(|session| Holder {
            scope,
            session,
            generation: 5,
        })
    });
    let holders: Vec<Holder<'_>> = holders.collect();
    for shown in [Bytes::copy_from_slice(data), ticket::signed(&sealer, data)] {
        for kind in KINDS {
            let opens = |holder: &&Holder<'_>| sealer.open(holder, kind, 0, &shown).is_ok();
            assert!(holders.iter().filter(opens).count() <= 1, "{kind:?}");
            let is_ours = sealer.id(kind, &shown).is_ok();
            assert!(is_ours || !holders.iter().any(|holder| opens(&holder)));
        }
        let kinds = KINDS
            .iter()
            .filter(|kind| sealer.id(**kind, &shown).is_ok());
        assert!(kinds.count() <= 1, "it is of two kinds");
    }
}

fn tenant(last: u8) -> TenantId {
    let text = format!("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e{last:02x}");
    text.parse().expect("a UUID of version 7")
}

/// Reads bytes as the message of each call.
pub fn commands(data: &[u8]) {
    if let Ok(command) = command(data) {
        let _ = MetadataCommand::parse(command);
    }
    let name = "fuzzed";
    let _ = action::unpack::<ActionCreatePreparedStatementRequest>(name, data);
    let _ = action::unpack::<ActionClosePreparedStatementRequest>(name, data);
    let _ = action::unpack::<ActionBeginTransactionRequest>(name, data);
    let _ = action::unpack::<ActionEndTransactionRequest>(name, data);
    let _ = action::unpack::<ActionBeginSavepointRequest>(name, data);
    let _ = action::unpack::<ActionEndSavepointRequest>(name, data);
    let _ = action::unpack::<ActionCancelQueryRequest>(name, data);
    let _ = action::decode::<CancelFlightInfoRequest>(name, data);
    let _ = action::decode::<RenewFlightEndpointRequest>(name, data);
    let _ = action::decode::<SetSessionOptionsRequest>(name, data);
    let _ = SetTenantRequest::decode(data);
    let _ = RegisterSourceRequest::decode(data);
    if let Ok(request) = CreateTableRequest::decode(data) {
        let _ = tables::new_table(request);
    }
    let schema = data.to_vec();
    let _ = tables::new_table(CreateTableRequest {
        schema,
        ..CreateTableRequest::default()
    });
}

/// Reads bytes as messages of rows, which are a header and a body each, before which
/// their lengths are. What comes out is not much larger than what went in may be.
pub fn ingest(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    runtime.block_on(async {
        let timeout = Duration::from_secs(60);
        if let Ok(mut put) = Put::read(messages(data), BYTES_MAX, timeout).await {
            while let Some(Ok(batch)) = put.rows.next().await {
                // Each piece holds on to all of its message, and views to their buffers.
                assert!(batch.num_rows() <= BYTES_MAX);
                let bytes = batch.get_array_memory_size();
                let columns = batch.num_columns().max(1);
                assert!(
                    bytes <= 32 * columns * BYTES_MAX,
                    "{bytes} of {columns} columns"
                );
            }
        }
        let row = parameters::read_row(messages(data), BYTES_MAX).await;
        if let Ok(Some(row)) = row {
            assert_eq!(row.num_rows(), 1);
            if let Ok(bytes) = parameters::to_ipc(&row) {
                // What is put into a handle is read back.
                let again = parameters::from_ipc(&bytes);
                assert!(again.is_ok_and(|again| again.num_columns() == row.num_columns()));
            }
        }
    });
}

fn messages(data: &[u8]) -> impl Stream<Item = Result<FlightData>> + Send + 'static {
    let mut rest = Bytes::copy_from_slice(data);
    let mut messages = Vec::new();
    while rest.len() >= 4 {
        let lengths = [rest.get_u16_le(), rest.get_u16_le()].map(usize::from);
        let [header, body] = lengths.map(|length| rest.split_to(length.min(rest.len())));
        messages.push(Ok(FlightData {
            data_header: header,
            data_body: body,
            ..FlightData::default()
        }));
    }
    stream::iter(messages)
}
