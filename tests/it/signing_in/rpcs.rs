//! Every RPC by every method of authentication with every kind of credential.

use std::collections::BTreeSet;

use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, CommandStatementUpdate, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, Ticket};
use jammi_db::server::method_names;
use prost::Message;
use tonic::{Code, Request, Status};

use super::{ABSENT, BOB, Gate, NOBODY, NOT_ACCEPTED, NOT_ONES_OWN, Sent};
use crate::authentication::answer;
use crate::client::{descriptor, statement};
use crate::doors::options::options;
use crate::harness::{TestServer, set_tenant};

const NOT_ITS_TICKET: &str = "the handle was issued before the session was bound anew, or to \
                              another session: prepare the statement again";

const NO_OPERATOR: &str = "this takes the role operator, which the credential does not have: ask \
                           the operator of the server";

/// What an RPC asks of who calls it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Nothing.
    Nothing,
    /// A credential.
    Who,
    /// A credential, and a tenant that it acts for, where there is one.
    ForWhom,
    /// A credential, and a ticket that was made for its session as that is bound.
    ItsTicket,
    /// A credential with the role of an operator, which none of these has.
    Operator,
}

fn rpcs() -> Vec<(&'static str, Asks)> {
    use Asks::*;
    vec![
        ("/jammi.v1.session.SessionService/SetTenant", ForWhom),
        ("/jammi.v1.session.SessionService/GetTenant", Who),
        ("/jammi.v1.session.SessionService/ClearTenant", Who),
        ("/jammi.v1.catalog.CatalogService/RegisterSource", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DescribeSource", ForWhom),
        ("/jammi.v1.catalog.CatalogService/ListSources", ForWhom),
        ("/jammi.v1.catalog.CatalogService/RefreshSource", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DropSource", ForWhom),
        ("/jammi.v1.catalog.CatalogService/RegisterModel", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DescribeModel", ForWhom),
        ("/jammi.v1.catalog.CatalogService/ListModels", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DropModel", ForWhom),
        ("/jammi.v1.catalog.CatalogService/CreateTable", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DescribeTable", ForWhom),
        ("/jammi.v1.catalog.CatalogService/ListTables", ForWhom),
        ("/jammi.v1.catalog.CatalogService/DropTable", ForWhom),
        ("/jammi.v1.operator.OperatorService/CreateKey", Operator),
        ("/jammi.v1.operator.OperatorService/ListKeys", Operator),
        ("/jammi.v1.operator.OperatorService/RotateKey", Operator),
        ("/jammi.v1.operator.OperatorService/RevokeKey", Operator),
        ("/jammi.v1.operator.OperatorService/CreateUser", Operator),
        ("/jammi.v1.operator.OperatorService/ListUsers", Operator),
        ("/jammi.v1.operator.OperatorService/SetPassword", Operator),
        ("/jammi.v1.operator.OperatorService/DropUser", Operator),
        ("/jammi.v1.operator.OperatorService/ListSessions", Operator),
        ("/jammi.v1.operator.OperatorService/EndSession", Operator),
        ("/jammi.v1.operator.OperatorService/ListQueries", Operator),
        ("/jammi.v1.operator.OperatorService/CancelQuery", Operator),
        ("/jammi.v1.tenants.TenantService/CreateTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ListTenants", Operator),
        // A tenant may ask after itself.
        ("/jammi.v1.tenants.TenantService/DescribeTenant", ForWhom),
        ("/jammi.v1.tenants.TenantService/UpdateTenant", Operator),
        ("/jammi.v1.tenants.TenantService/SuspendTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ResumeTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ExportTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ImportTenant", Operator),
        ("/jammi.v1.tenants.TenantService/EraseTenant", Operator),
        ("/jammi.v1.tenants.TenantService/GetUsage", ForWhom),
        ("/arrow.flight.protocol.FlightService/Handshake", Who),
        ("/arrow.flight.protocol.FlightService/ListFlights", Who),
        (
            "/arrow.flight.protocol.FlightService/GetFlightInfo",
            ForWhom,
        ),
        (
            "/arrow.flight.protocol.FlightService/PollFlightInfo",
            ForWhom,
        ),
        ("/arrow.flight.protocol.FlightService/GetSchema", ForWhom),
        ("/arrow.flight.protocol.FlightService/DoGet", ItsTicket),
        ("/arrow.flight.protocol.FlightService/DoPut", ForWhom),
        // It is not served.
        ("/arrow.flight.protocol.FlightService/DoExchange", Who),
        ("/arrow.flight.protocol.FlightService/DoAction", ForWhom),
        ("/arrow.flight.protocol.FlightService/ListActions", Who),
        ("/grpc.health.v1.Health/Check", Nothing),
        ("/grpc.health.v1.Health/Watch", Nothing),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Nothing,
        ),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Nothing,
        ),
    ]
}

/// A request that gets as far as a scope, where the RPC asks for one. Those of the
/// catalog do with an empty message.
fn message(method: &str, tenant: &str, ticket: &Ticket) -> Vec<u8> {
    let query = statement("SELECT 1");
    match method.rsplit('/').next().unwrap() {
        "SetTenant" => set_tenant(tenant).encode_to_vec(),
        "GetFlightInfo" | "PollFlightInfo" | "GetSchema" => descriptor(&query).encode_to_vec(),
        "DoGet" => ticket.encode_to_vec(),
        "DoPut" => {
            let update = CommandStatementUpdate {
                query: "DELETE FROM nothing".into(),
                transaction_id: None,
            };
            let data = FlightData::new().with_descriptor(descriptor(&update));
            data.encode_to_vec()
        }
        "DoAction" => {
            let prepare = ActionCreatePreparedStatementRequest {
                query: query.query,
                transaction_id: None,
            };
            let body = prepare.as_any().encode_to_vec();
            Action::new("CreatePreparedStatement", body).encode_to_vec()
        }
        _ => Vec::new(),
    }
}

async fn call(sent: &Sent, session: &'static str, method: &str, message: Vec<u8>) -> Status {
    let request: Request<Vec<u8>> = sent.client(Some(session)).request(message);
    answer(&sent.channel, method, request).await
}

/// A credential, by what it is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Absent,
    Bad,
    Over,
    /// Of a session that is bound to a tenant which the credential does not act for.
    OtherTenants,
    Right,
}

/// What the call is answered; none, that it is let in.
fn expected(kind: Kind, asks: Asks) -> Option<(Code, &'static str)> {
    match (asks, kind) {
        (Asks::Operator, Kind::Right | Kind::OtherTenants) => {
            Some((Code::PermissionDenied, NO_OPERATOR))
        }
        (Asks::Nothing, _) | (_, Kind::Right) => None,
        (_, Kind::Absent) => Some((Code::Unauthenticated, ABSENT)),
        (_, Kind::Bad | Kind::Over) => Some((Code::Unauthenticated, NOT_ACCEPTED)),
        (Asks::Who, Kind::OtherTenants) => None,
        (Asks::ForWhom, Kind::OtherTenants) => Some((Code::PermissionDenied, NOT_ONES_OWN)),
        (Asks::ItsTicket, Kind::OtherTenants) => Some((Code::FailedPrecondition, NOT_ITS_TICKET)),
    }
}

#[test]
fn every_rpc_has_a_row() {
    let served: BTreeSet<&str> = method_names().into_iter().collect();
    let listed: BTreeSet<&str> = rpcs().into_iter().map(|(name, _)| name).collect();
    assert_eq!(served, listed);
}

#[tokio::test]
async fn every_rpc_answers_every_credential_as_the_table_says() {
    for gate in Gate::all(|_| {}).await {
        let mut cells = vec![(Kind::Absent, &gate.absent, "s", BOB)];
        cells.extend(gate.bad.iter().map(|sent| (Kind::Bad, sent, "s", BOB)));
        cells.extend(gate.over.iter().map(|sent| (Kind::Over, sent, "s", BOB)));
        let withdrawn = &gate.withdrawn;
        cells.push((Kind::OtherTenants, &withdrawn.sent, withdrawn.session, BOB));
        for holder in &gate.holders {
            cells.push((Kind::Right, &holder.sent, "s", holder.tenant));
        }
        for (method, asks) in rpcs() {
            // It would end what the others are about.
            let is_last = |kind| kind == Kind::OtherTenants && method.ends_with("/ClearTenant");
            for (kind, sent, session, tenant) in &cells {
                let session = if is_last(*kind) { "another" } else { *session };
                let message = message(method, tenant, &withdrawn.ticket);
                let answer = call(sent, session, method, message).await;
                let cell = format!("{}: {} to {method}: {answer:?}", gate.name, sent.what);
                match expected(*kind, asks) {
                    Some((code, text)) => {
                        assert_eq!((answer.code(), answer.message()), (code, text), "{cell}");
                    }
                    None => {
                        let refusals = [
                            Code::Unauthenticated,
                            Code::PermissionDenied,
                            Code::ResourceExhausted,
                            Code::Internal,
                            Code::Unknown,
                        ];
                        assert!(!refusals.contains(&answer.code()), "{cell}");
                    }
                }
            }
        }
    }
}

/// Whoever is on a trusted network acts for any tenant, whatever is sent.
#[tokio::test]
async fn without_a_method_every_rpc_lets_everybody_in() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let absent = super::nothing(&channel);
    let (_, ticket) = super::bound_to_bob(&absent).await;
    for authorization in [None, Some("Bearer none"), Some("Basic YTpi")] {
        let sent = Sent {
            authorization: authorization.map(str::to_owned),
            ..absent.clone()
        };
        for (method, _) in rpcs() {
            let answer = call(&sent, "s", method, message(method, BOB, &ticket)).await;
            let is_refused =
                [Code::Unauthenticated, Code::PermissionDenied].contains(&answer.code());
            assert!(!is_refused, "{method}: {answer:?}");
        }
    }
}

/// By whichever door, and whether or not anybody is there.
#[tokio::test]
async fn a_tenant_that_is_not_ones_own_is_denied_in_the_same_words() {
    for gate in Gate::all(|_| {}).await {
        for holder in &gate.holders {
            let others = gate.holders.iter().map(|holder| holder.tenant);
            let others: BTreeSet<&str> = others.chain([NOBODY]).collect();
            for tenant in others.into_iter().filter(|tenant| *tenant != holder.tenant) {
                let mut client = holder.sent.client(Some("doors"));
                let mut answers = Vec::new();
                let request = client.request(set_tenant(tenant));
                answers.push(client.sessions.set_tenant(request).await.map(drop));
                for sql in [
                    format!("SET app.current_tenant_id = '{tenant}'"),
                    format!("SELECT set_config('app.current_tenant_id', '{tenant}', false)"),
                ] {
                    answers.push(client.query(&sql).await.map(drop));
                    answers.push(client.update(&sql).await.map(drop));
                }
                let option = options([("tenant", Some(tenant))]);
                answers.push(client.act("SetSessionOptions", option).await.map(drop));
                for (door, answer) in answers.into_iter().enumerate() {
                    let denied = answer.unwrap_err();
                    assert_eq!(
                        (denied.code(), denied.message()),
                        (Code::PermissionDenied, NOT_ONES_OWN),
                        "{}: {} by door {door}",
                        gate.name,
                        holder.sent.what
                    );
                }
                let asked = client.query("SHOW app.current_tenant_id").await.unwrap();
                let shown = arrow::util::pretty::pretty_format_batches(&[asked]).unwrap();
                assert!(shown.to_string().contains(holder.tenant), "{shown}");
            }
        }
    }
}
