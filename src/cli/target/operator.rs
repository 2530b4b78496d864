//! What runs an installation: keys and users, also on a directory, and the sessions
//! and queries of a server.

use super::{Embedded, Remote, Target, each, present};
use crate::cli::failure::{Failure, Outcome};
use crate::server::credentials::Credentials;
use crate::server::proto::operator::{
    CancelQueryRequest, CreateKeyRequest, CreateKeyResponse, CreateUserRequest, DropUserRequest,
    EndSessionRequest, Key, ListKeysRequest, ListQueriesRequest, ListQueriesResponse,
    ListSessionsRequest, ListSessionsResponse, ListUsersRequest, RevokeKeyRequest,
    RotateKeyRequest, RotateKeyResponse, SetPasswordRequest, User,
};

impl Target {
    /// Makes an API key.
    pub async fn create_key(&self, request: CreateKeyRequest) -> Outcome<CreateKeyResponse> {
        each!(self.create_key(request))
    }

    /// Every API key, in the order in which they were made.
    pub async fn keys(&self) -> Outcome<Vec<Key>> {
        each!(self.keys())
    }

    /// Makes another API key in place of one.
    pub async fn rotate_key(&self, request: RotateKeyRequest) -> Outcome<RotateKeyResponse> {
        each!(self.rotate_key(request))
    }

    /// Has an API key refused.
    pub async fn revoke_key(&self, id: &str) -> Outcome {
        each!(self.revoke_key(id))
    }

    /// Makes a user.
    pub async fn create_user(&self, request: CreateUserRequest) -> Outcome {
        each!(self.create_user(request))
    }

    /// Every user, in the order in which they were made.
    pub async fn users(&self) -> Outcome<Vec<User>> {
        each!(self.users())
    }

    /// Gives a user another password.
    pub async fn set_password(&self, request: SetPasswordRequest) -> Outcome {
        each!(self.set_password(request))
    }

    /// Has a user refused.
    pub async fn drop_user(&self, name: &str) -> Outcome {
        each!(self.drop_user(name))
    }

    /// The sessions of the server, those that were used last first.
    pub async fn sessions(&self, limit: u32) -> Outcome<ListSessionsResponse> {
        let request = ListSessionsRequest { limit };
        let mut operator = self.server("sessions")?.operator();
        Ok(operator.list_sessions(request).await?.into_inner())
    }

    /// Ends a session of the server.
    pub async fn end_session(&self, id: u64) -> Outcome {
        let request = EndSessionRequest { id };
        let mut operator = self.server("sessions")?.operator();
        operator.end_session(request).await?;
        Ok(())
    }

    /// The statements that the server runs, those that began first first.
    pub async fn queries(&self, limit: u32) -> Outcome<ListQueriesResponse> {
        let request = ListQueriesRequest { limit };
        let mut operator = self.server("queries")?.operator();
        Ok(operator.list_queries(request).await?.into_inner())
    }

    /// Ends a statement that the server runs.
    pub async fn cancel_query(&self, id: u64) -> Outcome {
        let request = CancelQueryRequest { id };
        let mut operator = self.server("queries")?.operator();
        operator.cancel_query(request).await?;
        Ok(())
    }

    /// The server, which alone has `what`.
    fn server(&self, what: &str) -> Outcome<&Remote> {
        match self {
            Target::Remote(target) => Ok(target),
            Target::Embedded(_) => Err(Failure::Usage(format!(
                "{what} are those of a running server, which a directory does not tell of: name \
                 it by --url"
            ))),
        }
    }
}

impl Embedded {
    fn credentials(&self) -> Credentials {
        Credentials::new(self.engine.backend())
    }

    async fn create_key(&self, request: CreateKeyRequest) -> Outcome<CreateKeyResponse> {
        Ok(self.credentials().create_key(request).await?)
    }

    async fn keys(&self) -> Outcome<Vec<Key>> {
        Ok(self.credentials().keys().await?)
    }

    async fn rotate_key(&self, request: RotateKeyRequest) -> Outcome<RotateKeyResponse> {
        Ok(self.credentials().rotate_key(request).await?)
    }

    async fn revoke_key(&self, id: &str) -> Outcome {
        Ok(self.credentials().revoke_key(id).await?)
    }

    async fn create_user(&self, request: CreateUserRequest) -> Outcome {
        Ok(self.credentials().create_user(request).await?)
    }

    async fn users(&self) -> Outcome<Vec<User>> {
        Ok(self.credentials().users().await?)
    }

    async fn set_password(&self, request: SetPasswordRequest) -> Outcome {
        Ok(self.credentials().set_password(request).await?)
    }

    async fn drop_user(&self, name: &str) -> Outcome {
        Ok(self.credentials().drop_user(name).await?)
    }
}

impl Remote {
    async fn create_key(&self, request: CreateKeyRequest) -> Outcome<CreateKeyResponse> {
        let mut operator = self.operator();
        let response = operator.create_key(request).await?.into_inner();
        present(response.text.as_ref(), "key")?;
        Ok(response)
    }

    async fn keys(&self) -> Outcome<Vec<Key>> {
        let mut operator = self.operator();
        let response = operator.list_keys(ListKeysRequest {}).await?;
        Ok(response.into_inner().keys)
    }

    async fn rotate_key(&self, request: RotateKeyRequest) -> Outcome<RotateKeyResponse> {
        let mut operator = self.operator();
        let response = operator.rotate_key(request).await?.into_inner();
        present(response.text.as_ref(), "key")?;
        Ok(response)
    }

    async fn revoke_key(&self, id: &str) -> Outcome {
        let mut operator = self.operator();
        operator
            .revoke_key(RevokeKeyRequest { id: id.into() })
            .await?;
        Ok(())
    }

    async fn create_user(&self, request: CreateUserRequest) -> Outcome {
        self.operator().create_user(request).await?;
        Ok(())
    }

    async fn users(&self) -> Outcome<Vec<User>> {
        let mut operator = self.operator();
        let response = operator.list_users(ListUsersRequest {}).await?;
        Ok(response.into_inner().users)
    }

    async fn set_password(&self, request: SetPasswordRequest) -> Outcome {
        self.operator().set_password(request).await?;
        Ok(())
    }

    async fn drop_user(&self, name: &str) -> Outcome {
        let mut operator = self.operator();
        operator
            .drop_user(DropUserRequest { name: name.into() })
            .await?;
        Ok(())
    }
}
