//! What clients say of the tenant by SQL text and by session option. Both go
//! through [`crate::server::session::Bindings`], as SetTenant does.

use arrow_flight::FlightData;
use datafusion::common::ScalarValue;
use futures::Stream;

use crate::engine::{Assignment, RecordStream};
use crate::error::Result;
use crate::server::tenant::Admitted;

use super::session_options::{
    SetSessionOptionsError, SetSessionOptionsRequest, SetSessionOptionsResult, TENANT, tenant_of,
};
use super::ticket::Content;
use super::{Caller, FlightServer, now_ms, parameters};

impl FlightServer {
    /// Refuses a statement of a caller who has no scope, unless all that it does is
    /// to bind the session.
    pub(super) fn admit_statement(&self, caller: &Caller, sql: &str) -> Result<()> {
        if caller.admitted.has_scope() || self.engine.only_binds(sql) {
            return Ok(());
        }
        caller.admitted.scope().map(drop)
    }

    /// Binds the caller's session as a statement says whose parameters are `values`.
    pub(super) async fn assign(
        &self,
        caller: &Caller,
        assignment: &Assignment,
        values: &[ScalarValue],
    ) -> Result<RecordStream> {
        let tenant = assignment.tenant(values)?;
        self.bindings.set(&caller.admitted, tenant).await?;
        assignment.answer(tenant)
    }

    /// `content` with the row of `messages` bound, if there is one.
    pub(super) async fn with_row<S>(&self, mut content: Content, messages: S) -> Result<Content>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        if let Some(row) = parameters::read_row(messages, self.handle_bytes_max).await? {
            content.parameters = Some(parameters::to_ipc(&row)?);
        }
        Ok(content)
    }

    /// Sets the options that are right and answers which are not.
    pub(super) async fn set_session_options(
        &self,
        admitted: &Admitted,
        mut request: SetSessionOptionsRequest,
    ) -> Result<SetSessionOptionsResult> {
        let tenant = request.session_options.remove(TENANT).map(tenant_of);
        let mut result = self.names.set(admitted, request, now_ms())?;
        match tenant {
            None => {}
            Some(Ok(tenant)) => self.bindings.set(admitted, tenant).await?,
            Some(Err(error)) => {
                let value = error as i32;
                let error = SetSessionOptionsError { value };
                result.errors.insert(TENANT.to_owned(), error);
            }
        }
        Ok(result)
    }
}
