//! The actions: preparing, closing and cancelling statements, transactions, and
//! session options.

use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{Action, ActionType};
use bytes::Bytes;
use prost::Message;

use crate::engine::substrait_versions;
use crate::error::{Error, Result};
use crate::server::tenant::Admitted;

use super::session_options::{self, CloseSessionRequest, GetSessionOptionsRequest};
use super::{Caller, FlightServer, now_ms};

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CREATE_PREPARED_SUBSTRAIT_PLAN: &str = "CreatePreparedSubstraitPlan";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const BEGIN_TRANSACTION: &str = "BeginTransaction";
const END_TRANSACTION: &str = "EndTransaction";
const BEGIN_SAVEPOINT: &str = "BeginSavepoint";
const END_SAVEPOINT: &str = "EndSavepoint";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const RENEW_FLIGHT_ENDPOINT: &str = "RenewFlightEndpoint";

/// The actions that are served, and what each does.
const SERVED: [(&str, &str); 13] = [
    (
        CREATE_PREPARED_STATEMENT,
        "Prepares a statement. ActionCreatePreparedStatementRequest -> \
         ActionCreatePreparedStatementResult",
    ),
    (
        CREATE_PREPARED_SUBSTRAIT_PLAN,
        "Prepares a plan of Substrait. ActionCreatePreparedSubstraitPlanRequest -> \
         ActionCreatePreparedStatementResult",
    ),
    (
        CLOSE_PREPARED_STATEMENT,
        "Closes a prepared statement. ActionClosePreparedStatementRequest -> nothing",
    ),
    (
        BEGIN_TRANSACTION,
        "Begins a transaction. ActionBeginTransactionRequest -> ActionBeginTransactionResult",
    ),
    (
        END_TRANSACTION,
        "Commits a transaction or rolls it back. ActionEndTransactionRequest -> nothing",
    ),
    (
        BEGIN_SAVEPOINT,
        "Sets a savepoint in a transaction. ActionBeginSavepointRequest -> \
         ActionBeginSavepointResult",
    ),
    (
        END_SAVEPOINT,
        "Releases a savepoint or rolls back to it. ActionEndSavepointRequest -> nothing",
    ),
    (
        CANCEL_FLIGHT_INFO,
        "Ends a query that this session was announced, and refuses its tickets from then on. \
         CancelFlightInfoRequest -> CancelFlightInfoResult",
    ),
    (
        CANCEL_QUERY,
        "As CancelFlightInfo, for older clients. ActionCancelQueryRequest -> \
         ActionCancelQueryResult",
    ),
    (
        RENEW_FLIGHT_ENDPOINT,
        "Gives an endpoint a ticket that is taken for as long as a new one. \
         RenewFlightEndpointRequest -> FlightEndpoint",
    ),
    (
        session_options::SET,
        "Sets the catalog and schema of bare names, and the tenant. \
         SetSessionOptionsRequest -> SetSessionOptionsResult",
    ),
    (
        session_options::GET,
        "Reads the session's options. GetSessionOptionsRequest -> GetSessionOptionsResult",
    ),
    (
        session_options::CLOSE,
        "Ends a connection's use of its session, which stays as it is for others: what the \
         connection has open of transactions is rolled back, queries that it polls end, and the \
         session's temporary tables are dropped if no other open connection made some. \
         CloseSessionRequest -> CloseSessionResult",
    ),
];

/// Whether an action ends a session or binds it anew, which a session of a tenant who
/// may not be used may do still.
pub(super) fn leaves(action: &Action) -> bool {
    [session_options::SET, session_options::CLOSE].contains(&action.r#type.as_str())
}

/// Whether an action prepares a statement, or lets one go.
pub(super) fn prepares(action: &Action) -> bool {
    [
        CREATE_PREPARED_STATEMENT,
        CREATE_PREPARED_SUBSTRAIT_PLAN,
        CLOSE_PREPARED_STATEMENT,
    ]
    .contains(&action.r#type.as_str())
}

/// What ListActions answers.
pub(super) fn served() -> impl Iterator<Item = ActionType> {
    let served = SERVED.into_iter().filter(|(name, _)| {
        *name != CREATE_PREPARED_SUBSTRAIT_PLAN || substrait_versions().is_some()
    });
    served.map(|(name, description)| ActionType {
        r#type: name.to_owned(),
        description: description.to_owned(),
    })
}

impl FlightServer {
    /// The caller of `action` in a new session, if the action can give one: it keeps
    /// nothing there, or what has to be shown again in the session.
    pub(super) fn with_session(&self, admitted: Admitted, action: &Action) -> Admitted {
        let gives = match action.r#type.as_str() {
            _ if admitted.session().is_some() => false,
            session_options::GET => true,
            CREATE_PREPARED_STATEMENT => unpack::<ActionCreatePreparedStatementRequest>(
                CREATE_PREPARED_STATEMENT,
                &action.body,
            )
            .is_ok_and(|request| self.engine.only_binds(&request.query)),
            _ => false,
        };
        match gives {
            true => admitted.in_new_session(),
            false => admitted,
        }
    }

    /// Does `action` and answers with the body of its result, if it has one.
    pub(super) async fn act(&self, admitted: Admitted, action: Action) -> Result<Option<Bytes>> {
        let name = action.r#type.as_str();
        match name {
            CREATE_PREPARED_STATEMENT => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit_text(admitted);
                let result = self.create_prepared(&caller, request).await?;
                Ok(Some(result.as_any().encode_to_vec().into()))
            }
            CREATE_PREPARED_SUBSTRAIT_PLAN => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.create_prepared_plan(&caller, request).await?;
                Ok(Some(result.as_any().encode_to_vec().into()))
            }
            CLOSE_PREPARED_STATEMENT => {
                self.close_prepared(&unpack(name, &action.body)?)?;
                Ok(None)
            }
            session_options::SET => {
                let request = decode(name, &action.body)?;
                let result = self.set_session_options(&admitted, request).await?;
                Ok(Some(result.encode_to_vec().into()))
            }
            session_options::GET => {
                let GetSessionOptionsRequest {} = decode(name, &action.body)?;
                let names = self.names.get(&admitted, now_ms());
                let result = session_options::describe(&names, admitted.tenant());
                Ok(Some(result.encode_to_vec().into()))
            }
            session_options::CLOSE => {
                let CloseSessionRequest {} = decode(name, &action.body)?;
                self.close_session(&admitted).await;
                Ok(Some(session_options::closed().encode_to_vec().into()))
            }
            BEGIN_TRANSACTION => {
                let ActionBeginTransactionRequest {} = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.begin_transaction(&caller)?;
                Ok(Some(result.as_any().encode_to_vec().into()))
            }
            END_TRANSACTION => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                self.end_transaction(&caller, request).await?;
                Ok(None)
            }
            BEGIN_SAVEPOINT => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.begin_savepoint(&caller, request).await?;
                Ok(Some(result.as_any().encode_to_vec().into()))
            }
            END_SAVEPOINT => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                self.end_savepoint(&caller, request).await?;
                Ok(None)
            }
            CANCEL_FLIGHT_INFO => {
                let request = decode(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.cancel_flight_info(&caller, request)?;
                Ok(Some(result.encode_to_vec().into()))
            }
            CANCEL_QUERY => {
                let request = unpack(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.cancel_query(&caller, &request)?;
                Ok(Some(result.as_any().encode_to_vec().into()))
            }
            RENEW_FLIGHT_ENDPOINT => {
                let request = decode(name, &action.body)?;
                let caller = Caller::admit(admitted)?;
                let result = self.renew_endpoint(&caller, request)?;
                Ok(Some(result.encode_to_vec().into()))
            }
            _ => Err(Error::Unimplemented(format!(
                "action {name:?} is not served: ListActions tells which are"
            ))),
        }
    }
}

/// The request of a Flight SQL action, which comes wrapped.
pub(super) fn unpack<M: ProstMessageExt>(action: &str, body: &[u8]) -> Result<M> {
    let any = Any::decode(body).map_err(|error| malformed(action, &error))?;
    match any.unpack() {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(Error::InvalidArgument(format!(
            "action {action} takes a {}, not a {:?}",
            M::type_url(),
            any.type_url
        ))),
        Err(error) => Err(malformed(action, &error)),
    }
}

/// The request of a Flight action, which comes as it is.
pub(super) fn decode<M: Message + Default>(action: &str, body: &[u8]) -> Result<M> {
    M::decode(body).map_err(|error| malformed(action, &error))
}

fn malformed(action: &str, error: &dyn std::fmt::Display) -> Error {
    Error::InvalidArgument(format!("the body of action {action} is malformed: {error}"))
}
