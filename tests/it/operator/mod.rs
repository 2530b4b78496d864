//! The operator's hand at the wire: keys and users, sessions and queries, by RPC, by
//! SQL and by the command line, with two tenants who see nothing of each other by it.

mod command;
mod credentials;
mod queries;
mod sessions;

use jammi_db::server::proto::operator::operator_service_client::OperatorServiceClient;
use jammi_db::server::proto::operator::{
    CancelQueryRequest, EndSessionRequest, ListQueriesRequest, ListSessionsRequest, Query, Session,
};
use jammi_db::tenant::OPERATOR;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::authentication::{Guarded, bearer};
use crate::client::{ALICE, BOB, Client};
use crate::heavy::LOOK_INTERVAL;

/// Runs until somebody ends it, and says a value that nobody is to be shown.
const ENDLESS: &str = "SELECT count(*), 'canary-5e0c' FROM generate_series(1, 1000000) a, \
                       generate_series(1, 1000000) b WHERE a.value + b.value = -4711";
/// How it is listed.
const MASKED: &str = "SELECT count(*), ? FROM generate_series(?, ?) a, generate_series(?, ?) b \
                      WHERE a.value + b.value = -?";

/// A server that asks for keys, a client of each of two tenants, and an operator who
/// acts for none.
struct World {
    guarded: Guarded,
    alice: Client,
    bob: Client,
    operator: Operator,
}

/// Calls as an operator.
#[derive(Clone)]
struct Operator {
    service: OperatorServiceClient<Channel>,
    key: String,
}

impl World {
    async fn new() -> World {
        World::on(Guarded::start().await).await
    }

    async fn on(guarded: Guarded) -> World {
        let alices = guarded.key("alice", &[ALICE], &[]).await;
        let bobs = guarded.key("bob", &[BOB], &[]).await;
        let operators = guarded.key("ops", &[], &[OPERATOR]).await;
        let channel = guarded.server.channel().await;
        let mut alice = guarded.client(&alices, Some("alice")).await;
        alice.bind(ALICE).await;
        let mut bob = guarded.client(&bobs, Some("bob")).await;
        bob.bind(BOB).await;
        World {
            alice,
            bob,
            operator: Operator {
                service: OperatorServiceClient::new(channel),
                key: operators.text,
            },
            guarded,
        }
    }
}

impl Operator {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = bearer(&self.key).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    async fn queries(&self) -> Vec<Query> {
        let request = self.request(ListQueriesRequest::default());
        let answer = self.service.clone().list_queries(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.total, answer.queries.len() as u64);
        answer.queries
    }

    async fn sessions(&self) -> Vec<Session> {
        let request = self.request(ListSessionsRequest::default());
        let answer = self.service.clone().list_sessions(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.total, answer.sessions.len() as u64);
        answer.sessions
    }

    /// The one statement that `which` holds of, as soon as it runs.
    async fn until_runs(&self, which: impl Fn(&Query) -> bool) -> Query {
        loop {
            let mut found = self.queries().await;
            found.retain(|query| which(query));
            if let Some(query) = found.pop() {
                assert!(found.is_empty(), "{found:?}");
                return query;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until nothing runs.
    async fn until_none_runs(&self) {
        while !self.queries().await.is_empty() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn cancel(&self, id: u64) -> Result<(), Status> {
        let request = self.request(CancelQueryRequest { id });
        self.service.clone().cancel_query(request).await.map(drop)
    }

    async fn end(&self, id: u64) -> Result<(), Status> {
        let request = self.request(EndSessionRequest { id });
        self.service.clone().end_session(request).await.map(drop)
    }
}
