//! The target behind a server: `CatalogService` for what there is, Flight SQL
//! for rows, `OperatorService` for what runs it, and a session of its own for the tenant.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, FlightInfo, IpcMessage, Ticket};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use super::super::failure::{Failure, Outcome, root_cause};
use super::super::settings::Credential;
use super::{Bypass, Rows, ServerUrl, TableRecord, present, unreadable};
use crate::engine::may_assign;
use crate::server::bypass::{REASON_HEADER, TENANTS_HEADER};
use crate::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use crate::server::proto::catalog::{
    CreateTableRequest, DescribeModelRequest, DescribeSourceRequest, DescribeTableRequest,
    DropModelRequest, DropSourceRequest, DropTableRequest, ListModelsRequest, ListSourcesRequest,
    ListTablesRequest, Model, RefreshSourceRequest, RegisterModelRequest, RegisterSourceRequest,
    RegisterSourceResponse, Source, Table,
};
use crate::server::proto::operator::operator_service_client::OperatorServiceClient;
use crate::server::proto::session::session_service_client::SessionServiceClient;
use crate::server::proto::session::{
    ClearTenantRequest, GetTenantRequest, SetTenantRequest, Tenant,
};
use crate::server::proto::tenants::tenant_service_client::TenantServiceClient;
use crate::tenant::TenantId;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long leaving may take when the server does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after which a silent connection is asked whether it is alive.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The largest message taken from a server.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

pub(super) type Wire = InterceptedService<Channel, Metadata>;

/// A connection to a server, and the tenant that its session is bound to.
pub struct Remote {
    sessions: SessionServiceClient<Wire>,
    catalog: CatalogServiceClient<Wire>,
    operator: OperatorServiceClient<Wire>,
    flight: FlightServiceClient<Wire>,
    tenants: TenantServiceClient<Wire>,
    tenant: Mutex<Option<TenantId>>,
}

impl Remote {
    /// Connects, in a new session that is bound to `tenant`, by `credential` if there
    /// is one and by `tls` where `url` says so.
    pub async fn connect(
        url: &ServerUrl,
        tenant: Option<TenantId>,
        credential: Option<&Credential>,
        tls: ClientTlsConfig,
    ) -> Outcome<Self> {
        let unreachable = |cause: String| {
            Failure::Connection(format!(
                "cannot connect to {url}: {cause}: check the address and that the server runs"
            ))
        };
        let mut endpoint =
            Endpoint::from_shared(url.http()).map_err(|error| unreachable(root_cause(&error)))?;
        if url.is_encrypted() {
            let tls = tls.timeout(CONNECT_TIMEOUT);
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|error| unreachable(root_cause(&error)))?;
        }
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|error| unreachable(root_cause(&error)))?;
        let wire = InterceptedService::new(channel, Metadata::new(Uuid::new_v4(), credential)?);
        let mut remote = Remote {
            sessions: SessionServiceClient::new(wire.clone()),
            catalog: CatalogServiceClient::new(wire.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            tenants: TenantServiceClient::new(wire.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            operator: OperatorServiceClient::new(wire.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            flight: FlightServiceClient::new(wire).max_decoding_message_size(MESSAGE_BYTES_MAX),
            tenant: Mutex::default(),
        };
        if tenant.is_some() {
            remote.bind(tenant).await?;
        }
        Ok(remote)
    }

    pub(super) fn tenant(&self) -> Option<TenantId> {
        *self.tenant.lock()
    }

    pub(super) async fn bind(&mut self, tenant: Option<TenantId>) -> Outcome {
        match self.set_or_clear(tenant).await {
            Ok(()) => {
                *self.tenant.lock() = tenant;
                Ok(())
            }
            Err(status) => {
                // The answer may be lost and the binding made all the same.
                self.learn_tenant().await;
                Err(status.into())
            }
        }
    }

    async fn set_or_clear(&mut self, tenant: Option<TenantId>) -> Result<(), Status> {
        match tenant {
            Some(id) => {
                let tenant = Some(Tenant { id: id.to_string() });
                let request = SetTenantRequest { tenant };
                self.sessions.set_tenant(request).await.map(|_| ())
            }
            None => {
                let request = ClearTenantRequest {};
                self.sessions.clear_tenant(request).await.map(|_| ())
            }
        }
    }

    /// Asks the server for whom statements run, as far as it answers.
    async fn learn_tenant(&self) {
        let mut sessions = self.sessions.clone();
        if let Ok(answer) = sessions.get_tenant(GetTenantRequest {}).await {
            let tenant = answer.into_inner().tenant;
            *self.tenant.lock() = tenant.and_then(|tenant| tenant.id.parse().ok());
        }
    }

    pub(super) async fn query(&self, sql: &str) -> Outcome<Rows> {
        let mut client = self.flight_sql();
        let info = client.execute(sql.to_owned(), None).await?;
        let rows = rows(client, info).await;
        if may_assign(sql) {
            // What binds has bound once its rows are there.
            self.learn_tenant().await;
        }
        rows
    }

    pub(super) async fn query_bypassing(&self, sql: &str, bypass: &Bypass) -> Outcome<Rows> {
        let tenants: Vec<String> = bypass.tenants.iter().map(TenantId::to_string).collect();
        let mut client = self.flight_sql();
        client.set_header(TENANTS_HEADER, tenants.join(","));
        client.set_header(REASON_HEADER, bypass.reason.as_str());
        let info = client.execute(sql.to_owned(), None).await?;
        rows(client, info).await
    }

    pub(super) async fn tables(&self) -> Outcome<Vec<TableRecord>> {
        let mut client = self.flight_sql();
        let request = CommandGetTables {
            include_schema: true,
            ..Default::default()
        };
        let info = client.get_tables(request).await?;
        let mut rows = rows(client, info).await?;
        let mut tables = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            tables.extend(table_records(&batch)?);
        }
        Ok(tables)
    }

    pub(super) async fn stored_tables(&self) -> Outcome<Vec<Table>> {
        let response = self.catalog().list_tables(ListTablesRequest {}).await?;
        Ok(response.into_inner().tables)
    }

    pub(super) async fn stored_table(&self, name: &str) -> Outcome<Table> {
        let name = name.to_owned();
        let request = DescribeTableRequest { name };
        let response = self.catalog().describe_table(request).await?;
        present(response.into_inner().table, "table")
    }

    pub(super) async fn create_table(&self, request: CreateTableRequest) -> Outcome<Table> {
        let response = self.catalog().create_table(request).await?;
        present(response.into_inner().table, "table")
    }

    pub(super) async fn drop_table(&self, name: &str) -> Outcome {
        let name = name.to_owned();
        self.catalog().drop_table(DropTableRequest { name }).await?;
        Ok(())
    }

    pub(super) async fn sources(&self) -> Outcome<Vec<Source>> {
        let response = self.catalog().list_sources(ListSourcesRequest {}).await?;
        Ok(response.into_inner().sources)
    }

    pub(super) async fn source(&self, name: &str) -> Outcome<Source> {
        let name = name.to_owned();
        let request = DescribeSourceRequest { name };
        let response = self.catalog().describe_source(request).await?;
        present(response.into_inner().source, "source")
    }

    pub(super) async fn register_source(
        &self,
        request: RegisterSourceRequest,
    ) -> Outcome<RegisterSourceResponse> {
        let response = self.catalog().register_source(request).await?;
        Ok(response.into_inner())
    }

    pub(super) async fn refresh_source(&self, name: &str) -> Outcome<Source> {
        let name = name.to_owned();
        let request = RefreshSourceRequest { name };
        let response = self.catalog().refresh_source(request).await?;
        present(response.into_inner().source, "source")
    }

    pub(super) async fn drop_source(&self, name: &str) -> Outcome {
        let name = name.to_owned();
        self.catalog()
            .drop_source(DropSourceRequest { name })
            .await?;
        Ok(())
    }

    pub(super) async fn models(&self, name: Option<&str>) -> Outcome<Vec<Model>> {
        let name = name.unwrap_or_default().to_owned();
        let response = self
            .catalog()
            .list_models(ListModelsRequest { name })
            .await?;
        Ok(response.into_inner().models)
    }

    pub(super) async fn model(&self, name: &str, version: Option<&str>) -> Outcome<Model> {
        let request = DescribeModelRequest {
            name: name.to_owned(),
            version: version.unwrap_or_default().to_owned(),
        };
        let response = self.catalog().describe_model(request).await?;
        present(response.into_inner().model, "model")
    }

    pub(super) async fn register_model(&self, request: RegisterModelRequest) -> Outcome<Model> {
        let response = self.catalog().register_model(request).await?;
        present(response.into_inner().model, "model")
    }

    pub(super) async fn drop_model(&self, name: &str, version: &str) -> Outcome {
        let request = DropModelRequest {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        self.catalog().drop_model(request).await?;
        Ok(())
    }

    /// Removes the session's temporary tables and its binding, which the server
    /// would otherwise keep until they expire. A server that does not answer is left
    /// alone.
    pub(super) async fn close(mut self) {
        let close = Action {
            r#type: "CloseSession".into(),
            body: Bytes::new(),
        };
        let leave = async {
            let _ = self.flight.do_action(close).await;
            if self.tenant().is_some() {
                let _ = self.sessions.clear_tenant(ClearTenantRequest {}).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, leave).await;
    }

    /// A handle of its own for one call: clients are cheap to clone, and calls
    /// need theirs exclusively.
    fn catalog(&self) -> CatalogServiceClient<Wire> {
        self.catalog.clone()
    }

    pub(super) fn tenants(&self) -> TenantServiceClient<Wire> {
        self.tenants.clone()
    }

    /// As [`Remote::catalog`].
    pub(super) fn operator(&self) -> OperatorServiceClient<Wire> {
        self.operator.clone()
    }

    fn flight_sql(&self) -> FlightSqlServiceClient<Wire> {
        FlightSqlServiceClient::new_from_inner(self.flight.clone())
    }
}

/// Puts the session's id and the credential on every call.
#[derive(Clone)]
pub(super) struct Metadata {
    session: MetadataValue<Ascii>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Metadata {
    fn new(session: Uuid, credential: Option<&Credential>) -> Outcome<Self> {
        let session = MetadataValue::try_from(session.to_string());
        let authorization = credential.map(Credential::authorization).transpose()?;
        Ok(Metadata {
            session: session.expect("a UUID's text is ASCII"),
            authorization,
        })
    }
}

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let session = self.session.clone();
        let metadata = request.metadata_mut();
        metadata.insert("jammi-session-id", session);
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// The rows behind `info`, its endpoints one after the other.
async fn rows(mut client: FlightSqlServiceClient<Wire>, info: FlightInfo) -> Outcome<Rows> {
    let declared = info.clone().try_decode_schema();
    let mut tickets: VecDeque<Ticket> = info
        .endpoint
        .into_iter()
        .filter_map(|endpoint| endpoint.ticket)
        .collect();
    let Some(first) = tickets.pop_front() else {
        let schema = declared.unwrap_or_else(|_| Schema::empty());
        return Ok(Rows::new(Arc::new(schema), stream::empty().boxed()));
    };
    let mut batches = client.do_get(first).await?;
    // The stream says how its columns are really encoded, before its first row.
    let head = batches.next().await.transpose()?;
    let schema = match (batches.schema(), declared) {
        (Some(schema), _) => SchemaRef::clone(schema),
        (None, Ok(schema)) => Arc::new(schema),
        (None, Err(error)) => return Err(error.into()),
    };
    let tail = batches
        .map_err(Failure::from)
        .chain(remaining(client, tickets));
    let head = stream::iter(head.map(Ok));
    Ok(Rows::new(schema, head.chain(tail).boxed()))
}

/// The rows of the endpoints after the first.
fn remaining(
    client: FlightSqlServiceClient<Wire>,
    tickets: VecDeque<Ticket>,
) -> impl futures::Stream<Item = Outcome<RecordBatch>> + Send {
    stream::try_unfold((client, tickets), |(mut client, mut tickets)| async move {
        let Some(ticket) = tickets.pop_front() else {
            return Ok::<_, Failure>(None);
        };
        let batches: FlightRecordBatchStream = client.do_get(ticket).await?;
        Ok(Some((batches.map_err(Failure::from), (client, tickets))))
    })
    .try_flatten()
}

/// Reads the answer to GetTables, whose columns the protocol fixes.
fn table_records(batch: &RecordBatch) -> Outcome<Vec<TableRecord>> {
    let text = |name: &str| -> Outcome<&StringArray> {
        batch
            .column_by_name(name)
            .and_then(|column| column.as_string_opt::<i32>())
            .ok_or_else(|| unreadable(&format!("table listing without {name}")))
    };
    let catalogs = text("catalog_name")?;
    let schemas = text("db_schema_name")?;
    let names = text("table_name")?;
    let kinds = text("table_type")?;
    let columns = batch
        .column_by_name("table_schema")
        .and_then(|column| column.as_binary_opt::<i32>())
        .ok_or_else(|| unreadable("table listing without table_schema"))?;
    let or_empty = |array: &StringArray, row: usize| match array.is_null(row) {
        true => String::new(),
        false => array.value(row).to_owned(),
    };
    (0..batch.num_rows())
        .map(|row| {
            let message = IpcMessage(columns.value(row).to_vec().into());
            Ok(TableRecord {
                catalog: or_empty(catalogs, row),
                schema: or_empty(schemas, row),
                name: or_empty(names, row),
                kind: or_empty(kinds, row),
                columns: Arc::new(Schema::try_from(message)?),
            })
        })
        .collect()
}
