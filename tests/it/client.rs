//! A Flight SQL client that sends one session's header with every call.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery, CommandStatementQuery,
    DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, IpcMessage, Ticket};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use jammi_db::server::proto::session::session_service_client::SessionServiceClient;
use jammi_db::server::proto::session::{SetTenantRequest, Tenant};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::harness::TestServer;

pub const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
pub const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

/// A client that sends one session's header with every call.
#[derive(Clone)]
pub struct Client {
    pub flight: FlightServiceClient<Channel>,
    pub sessions: SessionServiceClient<Channel>,
    session: Option<&'static str>,
    authorization: Option<String>,
    beside: Vec<(&'static str, String)>,
}

/// A client of each of two tenants, in sessions that are bound.
pub async fn alice_and_bob(server: &TestServer) -> (Client, Client) {
    let mut alice = Client::connect(server, Some("alice")).await;
    alice.bind(ALICE).await;
    let mut bob = Client::connect(server, Some("bob")).await;
    bob.bind(BOB).await;
    (alice, bob)
}

impl Client {
    pub async fn connect(server: &TestServer, session: Option<&'static str>) -> Self {
        Client::over(server.channel().await, session)
    }

    pub fn over(channel: Channel, session: Option<&'static str>) -> Self {
        Client {
            flight: FlightServiceClient::new(channel.clone()),
            sessions: SessionServiceClient::new(channel),
            session,
            authorization: None,
            beside: Vec::new(),
        }
    }

    /// The client as the holder of an API key.
    pub fn holding(self, key: &str) -> Self {
        self.sending(format!("Bearer {key}"))
    }

    /// The client with this in its metadata `authorization`.
    pub fn sending(self, authorization: String) -> Self {
        Client {
            authorization: Some(authorization),
            ..self
        }
    }

    pub fn with_session(&self, session: &'static str) -> Self {
        Client {
            session: Some(session),
            ..self.clone()
        }
    }

    /// The client with this metadata beside.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.beside.push((name, value.into()));
        self
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(session) = self.session {
            let session = MetadataValue::from_static(session);
            request.metadata_mut().insert("jammi-session-id", session);
        }
        if let Some(authorization) = &self.authorization {
            let value = authorization.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        for (name, value) in &self.beside {
            let value = value.parse().unwrap();
            request.metadata_mut().append(*name, value);
        }
        request
    }

    pub async fn bind(&mut self, tenant: &str) {
        let tenant = Some(Tenant { id: tenant.into() });
        let request = self.request(SetTenantRequest { tenant });
        self.sessions.set_tenant(request).await.unwrap();
    }

    pub async fn info(&mut self, command: &impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let request = self.request(descriptor(command));
        Ok(self.flight.get_flight_info(request).await?.into_inner())
    }

    pub async fn schema(&mut self, command: &impl ProstMessageExt) -> Result<Schema, Status> {
        let request = self.request(descriptor(command));
        let result = self.flight.get_schema(request).await?.into_inner();
        Ok(Schema::try_from(IpcMessage(result.schema)).unwrap())
    }

    pub async fn get(&mut self, ticket: Ticket) -> Result<Vec<RecordBatch>, Status> {
        let request = self.request(ticket);
        let messages = self.flight.do_get(request).await?.into_inner();
        let batches =
            FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
        batches.try_collect().await.map_err(Status::from)
    }

    /// What `command` answers, which has the schema that is announced.
    pub async fn rows(&mut self, command: &impl ProstMessageExt) -> Result<RecordBatch, Status> {
        let info = self.info(command).await?;
        assert_eq!((info.total_records, info.total_bytes), (-1, -1));
        assert_eq!(info.endpoint.len(), 1);
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let announced = self.schema(command).await?;
        // What writes is announced without columns, so that clients fetch at once.
        if !info.schema.is_empty() {
            assert_eq!(Schema::try_from(info).unwrap(), announced);
        }
        let batches = self.get(ticket).await?;
        for batch in &batches {
            assert_eq!(batch.schema().as_ref(), &announced);
        }
        Ok(arrow::compute::concat_batches(&announced.into(), &batches).unwrap())
    }

    pub async fn query(&mut self, sql: &str) -> Result<RecordBatch, Status> {
        self.rows(&statement(sql)).await
    }

    pub async fn act(&mut self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>, Status> {
        let action = Action {
            r#type: name.into(),
            body: body.into(),
        };
        let request = self.request(action);
        let results = self.flight.do_action(request).await?.into_inner();
        results.map_ok(|result| result.body).try_collect().await
    }

    pub async fn prepare(
        &mut self,
        sql: &str,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.into(),
            transaction_id: None,
        };
        let body = request.as_any().encode_to_vec();
        let results = self.act("CreatePreparedStatement", body).await?;
        let any = Any::decode(&*results[0]).unwrap();
        Ok(any.unpack().unwrap().unwrap())
    }

    pub async fn close(&mut self, handle: &Bytes) -> Result<(), Status> {
        let request = ActionClosePreparedStatementRequest {
            prepared_statement_handle: handle.clone(),
        };
        let body = request.as_any().encode_to_vec();
        self.act("ClosePreparedStatement", body).await.map(|_| ())
    }

    pub async fn put(
        &mut self,
        command: &impl ProstMessageExt,
        batch: RecordBatch,
    ) -> Result<Vec<Bytes>, Status> {
        self.put_all(command, vec![batch]).await
    }

    pub async fn put_all(
        &mut self,
        command: &impl ProstMessageExt,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<Bytes>, Status> {
        let messages = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(descriptor(command)))
            .with_schema(batches[0].schema())
            .build(stream::iter(batches.into_iter().map(Ok)));
        let messages: Vec<_> = messages.try_collect().await.unwrap();
        let request = self.request(stream::iter(messages));
        let results = self.flight.do_put(request).await?.into_inner();
        results
            .map_ok(|result| result.app_metadata)
            .try_collect()
            .await
    }

    /// Binds `batch` to a prepared statement and answers with the new handle.
    pub async fn bind_row(&mut self, handle: &Bytes, batch: RecordBatch) -> Result<Bytes, Status> {
        let results = self.put(&prepared(handle), batch).await?;
        let result = DoPutPreparedStatementResult::decode(&*results[0]).unwrap();
        Ok(result.prepared_statement_handle.unwrap())
    }
}

pub fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

pub fn statement(sql: &str) -> CommandStatementQuery {
    CommandStatementQuery {
        query: sql.into(),
        transaction_id: None,
    }
}

pub fn prepared(handle: &Bytes) -> CommandPreparedStatementQuery {
    CommandPreparedStatementQuery {
        prepared_statement_handle: handle.clone(),
    }
}
