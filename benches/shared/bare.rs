//! What Flight costs by itself: a server that answers from memory and does
//! nothing else. It runs in a process of its own, as the measured one does.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, CommandStatementQuery, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::Outcome;
use super::wire::Server;

/// The argument by which a bench's program is told to be the bare server.
pub const BARE_SERVER: &str = "--bare-server";

/// This program, told to be the bare server over what `dir` has.
pub fn start(dir: &Path) -> Outcome<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BARE_SERVER).arg(dir);
    Server::start(command)
}

/// What the bare server knows.
#[derive(Default)]
pub struct Bare {
    /// The batches of statements.
    pub answers: HashMap<&'static str, Arc<Vec<RecordBatch>>>,
    /// Those of any other statement.
    pub any: Option<Arc<Vec<RecordBatch>>>,
    /// A statement that is not answered from memory, and the query that is run
    /// for it. What it answers is in `answers` too.
    pub decoded: Option<(&'static str, SessionContext, &'static str)>,
}

/// Serves `bare` until it is killed.
pub async fn serve(bare: Bare) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening grpc://{}", listener.local_addr()?);
    tonic::transport::Server::builder()
        .add_service(FlightServiceServer::new(bare))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

impl Bare {
    fn answer(&self, statement: &[u8]) -> Result<(SchemaRef, &Arc<Vec<RecordBatch>>), Status> {
        let statement = std::str::from_utf8(statement).unwrap_or_default();
        let batches = self.answers.get(statement).or(self.any.as_ref());
        let batches = batches.ok_or_else(|| Status::not_found("no such answer"))?;
        let schema = batches.first().map(RecordBatch::schema);
        let schema = schema.ok_or_else(|| Status::not_found("no batches"))?;
        Ok((schema, batches))
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Bare {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<ActionResult>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let descriptor = request.into_inner();
        let statement = Any::decode(descriptor.cmd.clone())
            .ok()
            .and_then(|any| any.unpack::<CommandStatementQuery>().ok().flatten())
            .ok_or_else(|| Status::invalid_argument("no statement"))?
            .query;
        let (schema, _) = self.answer(statement.as_bytes())?;
        let ticket = Ticket::new(Bytes::from(statement));
        FlightInfo::new()
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor)
            .try_with_schema(&schema)
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let (schema, batches) = self.answer(&request.get_ref().ticket)?;
        if let Some((statement, context, query)) = &self.decoded
            && request.get_ref().ticket == *statement
        {
            let frame = context.sql(query).await.map_err(failed)?;
            let rows = frame.execute_stream().await.map_err(failed)?;
            let messages = FlightDataEncoderBuilder::new()
                .with_schema(schema)
                .build(rows.map_err(|error| FlightError::ExternalError(Box::new(error))))
                .map_err(Status::from);
            return Ok(Response::new(messages.boxed()));
        }
        let batches = Arc::clone(batches);
        let batches = (0..batches.len()).map(move |index| Ok(batches[index].clone()));
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .build(stream::iter(batches))
            .map_err(Status::from);
        Ok(Response::new(messages.boxed()))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(absent())
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(absent())
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(absent())
    }

    async fn get_schema(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        Err(absent())
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        let written = DoPutUpdateResult { record_count: 1 };
        let result = PutResult {
            app_metadata: written.encode_to_vec().into(),
        };
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_action(
        &self,
        _request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        Err(absent())
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(absent())
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(absent())
    }
}

fn failed(error: DataFusionError) -> Status {
    Status::internal(error.to_string())
}

fn absent() -> Status {
    Status::unimplemented("the bare server answers GetFlightInfo, DoGet and DoPut alone")
}
