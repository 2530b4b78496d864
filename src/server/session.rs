//! `jammi.v1.session.SessionService`: binds a client's session to a tenant.
//!
//! Architecture invariant: [`Bindings`] is the one door to a binding, also for SQL
//! and for the options of Flight's sessions.

use std::str::FromStr;

use tonic::{Request, Response, Status, async_trait};

use super::evictions::Evictions;
use super::flight::Transactions;
use super::proto::session::session_service_server::SessionService;
use super::proto::session::{
    ClearTenantRequest, ClearTenantResponse, GetTenantRequest, GetTenantResponse, SetTenantRequest,
    SetTenantResponse, Tenant,
};
use super::status::respond;
use super::tenant::{Admitted, SessionMap};
use crate::engine::TENANT_SETTING;
use crate::error::{Error, Result};
use crate::tenant::TenantId;

/// Binds sessions. Clones share them.
#[derive(Clone)]
pub struct Bindings {
    map: SessionMap,
    transactions: Transactions,
    evictions: Evictions,
}

impl Bindings {
    /// Binds in `map` to those whom `evictions` lets in; what a session has open in
    /// `transactions` ends with its binding.
    pub(super) fn new(map: SessionMap, transactions: Transactions, evictions: Evictions) -> Self {
        Bindings {
            map,
            transactions,
            evictions,
        }
    }

    /// Binds the session of a request to `tenant` for the requests after it, or
    /// unbinds it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the request names no session,
    /// [`Error::PermissionDenied`] when its principal may not act as the tenant or
    /// nobody may, and
    /// those of [`SessionMap::bind`].
    pub async fn set(&self, admitted: &Admitted, tenant: Option<TenantId>) -> Result<()> {
        if let Some(entry) = admitted.entry() {
            entry.is(match tenant {
                Some(tenant) => format!("SET {TENANT_SETTING} = '{tenant}'"),
                None => format!("RESET {TENANT_SETTING}"),
            });
        }
        let session = admitted.require_session()?;
        if let Some(tenant) = tenant {
            admitted.require_acting_for(tenant)?;
            self.evictions.let_in(tenant).await?;
        }
        let principal = admitted.principal();
        let generation = match tenant {
            Some(tenant) => self.map.bind(principal, session, tenant).await?.generation,
            None => {
                self.map.clear(principal, session).await?;
                admitted.unbound_generation()
            }
        };
        self.transactions.rebound(principal, session, generation);
        Ok(())
    }
}

/// The service over the bindings.
#[derive(Clone)]
pub struct Sessions {
    bindings: Bindings,
}

impl Sessions {
    /// The service over `bindings`.
    pub fn new(bindings: Bindings) -> Self {
        Sessions { bindings }
    }

    async fn set(&self, request: Request<SetTenantRequest>) -> Result<SetTenantResponse> {
        let admitted = Admitted::of(&request)?;
        admitted.require_session()?;
        let tenant = requested_tenant(request.get_ref())?;
        self.bindings.set(admitted, Some(tenant)).await?;
        Ok(SetTenantResponse {
            tenant: Some(message(tenant)),
        })
    }

    async fn clear(&self, request: Request<ClearTenantRequest>) -> Result<ClearTenantResponse> {
        let admitted = Admitted::of(&request)?;
        self.bindings.set(admitted, None).await?;
        Ok(ClearTenantResponse {})
    }
}

#[async_trait]
impl SessionService for Sessions {
    async fn set_tenant(
        &self,
        request: Request<SetTenantRequest>,
    ) -> Result<Response<SetTenantResponse>, Status> {
        respond(self.set(request).await)
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let answer = Admitted::of(&request).and_then(|admitted| {
            admitted.require_session()?;
            Ok(GetTenantResponse {
                tenant: admitted.tenant().map(message),
            })
        });
        respond(answer)
    }

    async fn clear_tenant(
        &self,
        request: Request<ClearTenantRequest>,
    ) -> Result<Response<ClearTenantResponse>, Status> {
        respond(self.clear(request).await)
    }
}

/// The tenant in the request. One that is absent is not a wish to unbind.
fn requested_tenant(request: &SetTenantRequest) -> Result<TenantId> {
    match &request.tenant {
        Some(tenant) => TenantId::from_str(&tenant.id),
        None => Err(Error::InvalidArgument(
            "tenant is missing: send Tenant{id: UUID}, or call ClearTenant to unbind the session"
                .into(),
        )),
    }
}

fn message(tenant: TenantId) -> Tenant {
    Tenant {
        id: tenant.to_string(),
    }
}
