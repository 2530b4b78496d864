//! `jammi.v1.operator.OperatorService`: keys, users, sessions and queries over gRPC.
//!
//! Only translates. Invariant: nothing is looked up, and nothing of a request is said
//! to be wrong, before its principal is known to be an operator.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::credentials::Credentials;
use super::operations::{Operations, Reach};
use super::proto::operator as proto;
use super::proto::operator::operator_service_server::OperatorService;
use super::status::respond;
use super::tenant::Admitted;
use crate::engine::{OpenSession, RunningQuery};
use crate::error::{Error, Result};
use crate::tenant::TenantId;

/// What a listing answers where its request does not say, and what it may say.
const LISTED: u32 = 1_000;
const LISTED_MAX: u32 = 10_000;

/// The service of one server.
#[derive(Clone)]
pub struct Operators {
    credentials: Credentials,
    operations: Arc<Operations>,
}

impl Operators {
    /// The service of a server that does `operations`.
    pub fn new(operations: Arc<Operations>) -> Self {
        Operators {
            credentials: Credentials::new(operations.engine.backend()),
            operations,
        }
    }

    /// The credentials, for an operator.
    fn credentials<T>(&self, request: &Request<T>) -> Result<&Credentials> {
        Admitted::of(request)?.principal().require_operator()?;
        Ok(&self.credentials)
    }

    async fn create_key_of(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<proto::CreateKeyResponse> {
        let credentials = self.credentials(&request)?;
        credentials.create_key(request.into_inner()).await
    }

    async fn list_keys_of(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<proto::ListKeysResponse> {
        let keys = self.credentials(&request)?.keys().await?;
        Ok(proto::ListKeysResponse { keys })
    }

    async fn rotate_key_of(
        &self,
        request: Request<proto::RotateKeyRequest>,
    ) -> Result<proto::RotateKeyResponse> {
        let credentials = self.credentials(&request)?;
        credentials.rotate_key(request.into_inner()).await
    }

    async fn revoke_key_of(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<proto::RevokeKeyResponse> {
        let credentials = self.credentials(&request)?;
        credentials.revoke_key(&request.get_ref().id).await?;
        Ok(proto::RevokeKeyResponse {})
    }

    async fn create_user_of(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<proto::CreateUserResponse> {
        let credentials = self.credentials(&request)?;
        credentials.create_user(request.into_inner()).await?;
        Ok(proto::CreateUserResponse {})
    }

    async fn list_users_of(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<proto::ListUsersResponse> {
        let users = self.credentials(&request)?.users().await?;
        Ok(proto::ListUsersResponse { users })
    }

    async fn set_password_of(
        &self,
        request: Request<proto::SetPasswordRequest>,
    ) -> Result<proto::SetPasswordResponse> {
        let credentials = self.credentials(&request)?;
        credentials.set_password(request.into_inner()).await?;
        Ok(proto::SetPasswordResponse {})
    }

    async fn drop_user_of(
        &self,
        request: Request<proto::DropUserRequest>,
    ) -> Result<proto::DropUserResponse> {
        let credentials = self.credentials(&request)?;
        credentials.drop_user(&request.get_ref().name).await?;
        Ok(proto::DropUserResponse {})
    }

    fn list_sessions_of(
        &self,
        request: &Request<proto::ListSessionsRequest>,
    ) -> Result<proto::ListSessionsResponse> {
        let reach = Reach::of_operator(Admitted::of(request)?.principal())?;
        let limit = limit(request.get_ref().limit)?;
        let mut sessions = self.operations.sessions(reach);
        sessions.sort_by_key(|session| std::cmp::Reverse((session.used_at_ms, session.id)));
        Ok(proto::ListSessionsResponse {
            total: sessions.len() as u64,
            sessions: sessions
                .into_iter()
                .take(limit)
                .map(session_message)
                .collect(),
        })
    }

    async fn end_session_of(
        &self,
        request: Request<proto::EndSessionRequest>,
    ) -> Result<proto::EndSessionResponse> {
        let reach = Reach::of_operator(Admitted::of(&request)?.principal())?;
        let id = request.get_ref().id;
        self.operations.end_session(reach, id).await?;
        Ok(proto::EndSessionResponse {})
    }

    fn list_queries_of(
        &self,
        request: &Request<proto::ListQueriesRequest>,
    ) -> Result<proto::ListQueriesResponse> {
        let reach = Reach::of_operator(Admitted::of(request)?.principal())?;
        let limit = limit(request.get_ref().limit)?;
        let mut queries = self.operations.queries(reach);
        queries.sort_by_key(|query| (query.began_at_ms, query.id));
        Ok(proto::ListQueriesResponse {
            total: queries.len() as u64,
            queries: queries.into_iter().take(limit).map(query_message).collect(),
        })
    }

    fn cancel_query_of(
        &self,
        request: &Request<proto::CancelQueryRequest>,
    ) -> Result<proto::CancelQueryResponse> {
        let reach = Reach::of_operator(Admitted::of(request)?.principal())?;
        self.operations.end_query(reach, request.get_ref().id)?;
        Ok(proto::CancelQueryResponse {})
    }
}

#[async_trait]
impl OperatorService for Operators {
    async fn create_key(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<Response<proto::CreateKeyResponse>, Status> {
        respond(self.create_key_of(request).await)
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        respond(self.list_keys_of(request).await)
    }

    async fn rotate_key(
        &self,
        request: Request<proto::RotateKeyRequest>,
    ) -> Result<Response<proto::RotateKeyResponse>, Status> {
        respond(self.rotate_key_of(request).await)
    }

    async fn revoke_key(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<Response<proto::RevokeKeyResponse>, Status> {
        respond(self.revoke_key_of(request).await)
    }

    async fn create_user(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<Response<proto::CreateUserResponse>, Status> {
        respond(self.create_user_of(request).await)
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        respond(self.list_users_of(request).await)
    }

    async fn set_password(
        &self,
        request: Request<proto::SetPasswordRequest>,
    ) -> Result<Response<proto::SetPasswordResponse>, Status> {
        respond(self.set_password_of(request).await)
    }

    async fn drop_user(
        &self,
        request: Request<proto::DropUserRequest>,
    ) -> Result<Response<proto::DropUserResponse>, Status> {
        respond(self.drop_user_of(request).await)
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        respond(self.list_sessions_of(&request))
    }

    async fn end_session(
        &self,
        request: Request<proto::EndSessionRequest>,
    ) -> Result<Response<proto::EndSessionResponse>, Status> {
        respond(self.end_session_of(request).await)
    }

    async fn list_queries(
        &self,
        request: Request<proto::ListQueriesRequest>,
    ) -> Result<Response<proto::ListQueriesResponse>, Status> {
        respond(self.list_queries_of(&request))
    }

    async fn cancel_query(
        &self,
        request: Request<proto::CancelQueryRequest>,
    ) -> Result<Response<proto::CancelQueryResponse>, Status> {
        respond(self.cancel_query_of(&request))
    }
}

fn tenant_text(tenant: Option<TenantId>) -> String {
    tenant.map(|tenant| tenant.to_string()).unwrap_or_default()
}

fn session_message(session: OpenSession) -> proto::Session {
    proto::Session {
        id: session.id,
        tenant: tenant_text(session.tenant),
        principal: session.principal,
        queries: session.queries,
        transactions: session.transactions,
        has_temporary_tables: session.has_temporary_tables,
        used_at_ms: session.used_at_ms,
    }
}

fn query_message(query: RunningQuery) -> proto::Query {
    proto::Query {
        id: query.id,
        session: query.session,
        tenant: tenant_text(query.tenant),
        principal: query.principal,
        kind: query.kind.into(),
        state: query.state.into(),
        statement: query.statement,
        rows: query.rows,
        began_at_ms: query.began_at_ms,
    }
}

fn limit(asked: u32) -> Result<usize> {
    let limit = match asked {
        0 => LISTED,
        1..=LISTED_MAX => asked,
        _ => {
            return Err(Error::InvalidArgument(format!(
                "limit is {asked}: ask for {LISTED_MAX} at most"
            )));
        }
    };
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}
