//! The calls of Flight, each taken apart and handed on.
//!
//! The service is our own and not the blanket one that arrow-flight has for its
//! `FlightSqlService`, which refuses GetSchema and PollFlightInfo and lists
//! actions that are not served.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use futures::stream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{AuthenticationError, Credentials};
use crate::error::Error;
use crate::server::authenticate::GivenToken;
use crate::server::bypass::no_query;
use crate::server::status::to_status;
use crate::server::tenant::Admitted;

use super::{Answers, FlightServer, MessageStream, action, deadline, statement};

#[tonic::async_trait]
impl FlightService for FlightServer {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = MessageStream;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<ActionResult>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = MessageStream;

    /// Gives a client that has sent a user and a password the token to go on with.
    /// Where nothing authenticates every credential is as good as none, and clients
    /// that send one wait for a token all the same, and fail without it.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let credentials = Credentials::new(request.metadata().as_ref(), None);
        let token = match request.extensions().get::<GivenToken>() {
            Some(GivenToken(given)) => Some(given.clone()),
            None => credentials
                .token()
                .map_err(|error| Status::unauthenticated(error.to_string()))?,
        };
        let token = match token {
            Some(token) => MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Status::unauthenticated(AuthenticationError::Refused.to_string()))?,
            None => MetadataValue::from_static("Bearer none"),
        };
        let mut response = Response::new(one(HandshakeResponse::default()));
        response.metadata_mut().insert("authorization", token);
        Ok(response)
    }

    /// Results exist by command alone, so there are none to list.
    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (admitted, descriptor) = take_apart(request)?;
        let info = self.flight_info(admitted, descriptor).await;
        info.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let (admitted, descriptor) = take_apart(request)?;
        let info = self.poll(admitted, descriptor).await;
        info.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let (admitted, descriptor) = take_apart(request)?;
        let schema = self.schema(admitted, &descriptor).await;
        let message = schema.and_then(|schema| statement::schema_message(&schema));
        let schema = message.map_err(|error| to_status(&error))?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let deadline = deadline::of(request.metadata());
        let (admitted, ticket) = take_apart(request)?;
        let rows = self.rows(admitted, &ticket).await;
        let rows = rows.map(|rows| Response::new(deadline::until(deadline, rows)));
        rows.map_err(|error| to_status(&error))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let (admitted, messages) = take_apart(request)?;
        let result = self.put(admitted, messages).await;
        let app_metadata = result.map_err(|error| to_status(&error))?;
        Ok(Response::new(one(PutResult { app_metadata })))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let (admitted, action) = admitted(request)?;
        if admitted.is_bypass() && !action::prepares(&action) {
            return Err(to_status(&no_query()));
        }
        if !action::leaves(&action) {
            admitted
                .require_standing()
                .map_err(|error| to_status(&error))?;
        }
        let admitted = self.with_session(admitted, &action);
        let cookie = admitted.new_cookie();
        let body = self.act(admitted, action).await;
        let body = body.map_err(|error| to_status(&error))?;
        let results = stream::iter(body.map(|body| Ok(ActionResult { body })));
        let mut response: Response<Self::DoActionStream> = Response::new(Box::pin(results));
        if let Some(cookie) = cookie {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = stream::iter(action::served().map(Ok));
        Ok(Response::new(Box::pin(actions)))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let error = Error::Unimplemented("DoExchange is not served: use DoGet".into());
        Err(to_status(&error))
    }
}

/// The admission and the message of `request`, whose tenant may be used.
fn take_apart<T>(request: Request<T>) -> Result<(Admitted, T), Status> {
    let (admitted, message) = admitted(request)?;
    admitted
        .require_standing()
        .map_err(|error| to_status(&error))?;
    Ok((admitted, message))
}

/// The admission and the message of `request`, whoever its tenant is.
fn admitted<T>(request: Request<T>) -> Result<(Admitted, T), Status> {
    let admitted = Admitted::of(&request).map_err(|error| to_status(&error))?;
    Ok((admitted.clone(), request.into_inner()))
}

fn one<T: Send + 'static>(answer: T) -> Answers<T> {
    Box::pin(stream::iter([Ok(answer)]))
}
