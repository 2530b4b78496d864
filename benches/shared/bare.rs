//! What Flight costs by itself: a server that answers from memory and does
//! nothing else. It runs in a process of its own, as the measured one does.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, CommandStatementQuery};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::data::Data;
use crate::shared::Outcome;
use crate::shared::wire::Server;
use crate::{BARE_SERVER, SELECT_DECODED, SELECT_ONE, SELECT_SERIES, SELECT_WHOLE};

/// This program, told to be the bare server.
pub fn start(data_dir: &Path) -> Outcome<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BARE_SERVER).arg(data_dir);
    Server::start(command)
}

/// Serves the answers to the statements that are compared, until it is killed.
pub async fn serve(data_dir: &Path) -> Outcome {
    let data = Data::open(data_dir)?;
    let config = SessionConfig::new().with_batch_size(8_192);
    let mut config = config.with_collect_statistics(false);
    config
        .options_mut()
        .execution
        .parquet
        .schema_force_view_types = false;
    let context = SessionContext::new_with_config(config);
    let whole = data.whole();
    let whole = whole.to_str().ok_or("the path is text")?;
    let options = ParquetReadOptions::default();
    context.register_parquet("whole", whole, options).await?;
    let one = RecordBatch::try_from_iter([(
        "Int64(1)",
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )])?;
    let mut answers = HashMap::from([(SELECT_ONE, Arc::new(vec![one]))]);
    for (statement, same) in [(SELECT_SERIES, SELECT_SERIES), (SELECT_WHOLE, DECODE)] {
        let batches = context.sql(same).await?.collect().await?;
        answers.insert(statement, Arc::new(batches));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening grpc://{}", listener.local_addr()?);
    tonic::transport::Server::builder()
        .add_service(FlightServiceServer::new(Bare { answers, context }))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

const DECODE: &str = "select * from whole";

struct Bare {
    answers: HashMap<&'static str, Arc<Vec<RecordBatch>>>,
    context: SessionContext,
}

impl Bare {
    fn answer(&self, statement: &[u8]) -> Result<(SchemaRef, &Arc<Vec<RecordBatch>>), Status> {
        let statement = match std::str::from_utf8(statement).unwrap_or_default() {
            SELECT_DECODED => SELECT_WHOLE,
            other => other,
        };
        let batches = self.answers.get(statement);
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
        if request.get_ref().ticket == SELECT_DECODED {
            let frame = self.context.sql(DECODE).await.map_err(failed)?;
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
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        Err(absent())
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
    Status::unimplemented("the bare server answers GetFlightInfo and DoGet alone")
}
