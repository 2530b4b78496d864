//! `jammi.v1.tenants.TenantService`: tenants as the operator has them.
//!
//! Every call asks for the role of the operator, but that a tenant may describe
//! itself and read what it uses. What is done in this process beside what the
//! register says (open transactions, bindings, what is kept in memory) is done by
//! `evictions`, for the calls of others too.

use std::pin::Pin;
use std::str::FromStr;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::evictions::Evictions;
use super::proto::tenants as proto;
use super::proto::tenants::tenant_service_server::TenantService;
use super::status::{respond, to_status};
use super::tenant::Admitted;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::tenancy::{Contents, ImportOptions, Tenant, TenantChange, TenantState};
use crate::tenant::{Principal, TenantId};

/// The service over an engine.
#[derive(Clone)]
pub struct TenantOffice {
    engine: Engine,
    evictions: Evictions,
}

impl TenantOffice {
    /// The service over the tenants of `engine`.
    pub(super) fn new(engine: Engine, evictions: Evictions) -> Self {
        TenantOffice { engine, evictions }
    }

    /// The tenant that a call names, or is bound to, whom the caller may ask after.
    fn asked_after<T>(&self, request: &Request<T>, id: &str) -> Result<TenantId> {
        let admitted = Admitted::of(request)?;
        if id.is_empty() {
            return admitted.scope()?.tenant().ok_or_else(unnamed);
        }
        let asked = TenantId::from_str(id)?;
        let bound = admitted.scope().ok().and_then(|scope| scope.tenant());
        if bound != Some(asked) {
            admitted.principal().require_operator()?;
        }
        Ok(asked)
    }

    async fn export(&self, request: Request<proto::ExportTenantRequest>) -> Result<Chunks> {
        operator(&request)?;
        let id = TenantId::from_str(&request.get_ref().id)?;
        let archive = self.engine.tenants().export(id).await?;
        let chunks = archive
            .into_stream()
            .map_ok(|chunk| proto::ExportTenantResponse {
                chunk: chunk.into(),
            })
            .map_err(|error| to_status(&error));
        Ok(Box::pin(chunks))
    }

    async fn import(
        &self,
        request: Request<Streaming<proto::ImportTenantRequest>>,
    ) -> Result<proto::ImportTenantResponse> {
        operator(&request)?;
        let mut messages = request.into_inner();
        let first = messages.message().await.map_err(broken_off)?;
        let first = first.unwrap_or_default();
        let options = ImportOptions {
            replace: first.replace,
            without_shared_rows: first.without_shared_rows,
        };
        let rest = messages.map(|message| match message {
            Ok(message) => Ok(Bytes::from(message.chunk)),
            Err(status) => Err(broken_off(status)),
        });
        let chunks = futures::stream::iter([Ok(Bytes::from(first.chunk))]).chain(rest);
        import(&self.engine, chunks, options).await
    }

    async fn suspend(
        &self,
        request: Request<proto::SuspendTenantRequest>,
    ) -> Result<proto::SuspendTenantResponse> {
        operator(&request)?;
        let tenant = suspend(&self.engine, &request.get_ref().id).await?;
        self.evictions.look().await?;
        Ok(proto::SuspendTenantResponse {
            tenant: Some(tenant),
        })
    }

    async fn erase(
        &self,
        request: Request<proto::EraseTenantRequest>,
    ) -> Result<proto::EraseTenantResponse> {
        let principal = operator(&request)?.clone();
        let proto::EraseTenantRequest { id, confirm } = request.into_inner();
        let certificate = erase(&self.engine, &principal, &id, &confirm).await?;
        self.evictions.look().await?;
        Ok(proto::EraseTenantResponse { certificate })
    }
}

/// Why nothing is told of no tenant.
pub(crate) fn unnamed() -> Error {
    Error::InvalidArgument(
        "the request names no tenant, and its session is bound to none: name one".into(),
    )
}

/// Who asks, if that is the operator.
fn operator<T>(request: &Request<T>) -> Result<&Principal> {
    let principal = Admitted::of(request)?.principal();
    principal.require_operator()?;
    Ok(principal)
}

fn broken_off(status: Status) -> Error {
    Error::Cancelled(format!(
        "the archive broke off: {}: send it again",
        status.message()
    ))
}

type Chunks = Pin<Box<dyn Stream<Item = Result<proto::ExportTenantResponse, Status>> + Send>>;

#[async_trait]
impl TenantService for TenantOffice {
    type ExportTenantStream = Chunks;

    async fn create_tenant(
        &self,
        request: Request<proto::CreateTenantRequest>,
    ) -> Result<Response<proto::CreateTenantResponse>, Status> {
        let answer = async {
            operator(&request)?;
            let tenant = Some(create(&self.engine, request.into_inner()).await?);
            Ok(proto::CreateTenantResponse { tenant })
        };
        respond(answer.await)
    }

    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        let answer = async {
            operator(&request)?;
            let tenants = list(&self.engine).await?;
            Ok(proto::ListTenantsResponse { tenants })
        };
        respond(answer.await)
    }

    async fn describe_tenant(
        &self,
        request: Request<proto::DescribeTenantRequest>,
    ) -> Result<Response<proto::DescribeTenantResponse>, Status> {
        let answer = async {
            let id = self.asked_after(&request, &request.get_ref().id)?;
            describe(&self.engine, id).await
        };
        respond(answer.await)
    }

    async fn update_tenant(
        &self,
        request: Request<proto::UpdateTenantRequest>,
    ) -> Result<Response<proto::UpdateTenantResponse>, Status> {
        let answer = async {
            operator(&request)?;
            let tenant = Some(update(&self.engine, request.into_inner()).await?);
            Ok(proto::UpdateTenantResponse { tenant })
        };
        respond(answer.await)
    }

    async fn suspend_tenant(
        &self,
        request: Request<proto::SuspendTenantRequest>,
    ) -> Result<Response<proto::SuspendTenantResponse>, Status> {
        respond(self.suspend(request).await)
    }

    async fn resume_tenant(
        &self,
        request: Request<proto::ResumeTenantRequest>,
    ) -> Result<Response<proto::ResumeTenantResponse>, Status> {
        let answer = async {
            operator(&request)?;
            let tenant = Some(resume(&self.engine, &request.get_ref().id).await?);
            Ok(proto::ResumeTenantResponse { tenant })
        };
        respond(answer.await)
    }

    async fn export_tenant(
        &self,
        request: Request<proto::ExportTenantRequest>,
    ) -> Result<Response<Chunks>, Status> {
        respond(self.export(request).await)
    }

    async fn import_tenant(
        &self,
        request: Request<Streaming<proto::ImportTenantRequest>>,
    ) -> Result<Response<proto::ImportTenantResponse>, Status> {
        respond(self.import(request).await)
    }

    async fn erase_tenant(
        &self,
        request: Request<proto::EraseTenantRequest>,
    ) -> Result<Response<proto::EraseTenantResponse>, Status> {
        respond(self.erase(request).await)
    }

    async fn get_usage(
        &self,
        request: Request<proto::GetUsageRequest>,
    ) -> Result<Response<proto::GetUsageResponse>, Status> {
        let answer = async {
            let id = self.asked_after(&request, &request.get_ref().id)?;
            usage(&self.engine, id).await
        };
        respond(answer.await)
    }
}

/// Registers a tenant: of its own id, where `id` is empty.
pub(crate) async fn create(
    engine: &Engine,
    request: proto::CreateTenantRequest,
) -> Result<proto::Tenant> {
    let change = TenantChange {
        name: Some(request.name),
        parent: Some(named(&request.parent)?),
        shares: Some(request.shares),
    };
    let tenant = engine.tenants().create(named(&request.id)?, change).await?;
    Ok(message(tenant))
}

/// The tenant that a text names, if it is not empty.
fn named(id: &str) -> Result<Option<TenantId>> {
    match id {
        "" => Ok(None),
        id => TenantId::from_str(id).map(Some),
    }
}

/// Every tenant.
pub(crate) async fn list(engine: &Engine) -> Result<Vec<proto::Tenant>> {
    let tenants = engine.tenants().list().await?;
    Ok(tenants.into_iter().map(message).collect())
}

/// One tenant, and what it has.
pub(crate) async fn describe(
    engine: &Engine,
    id: TenantId,
) -> Result<proto::DescribeTenantResponse> {
    let tenants = engine.tenants();
    let tenant = tenants.find(id).await?;
    let contents = tenants.contents(id).await?;
    Ok(proto::DescribeTenantResponse {
        tenant: Some(message(tenant)),
        contents: Some(contents_message(contents)),
    })
}

/// Changes what is registered of a tenant.
pub(crate) async fn update(
    engine: &Engine,
    request: proto::UpdateTenantRequest,
) -> Result<proto::Tenant> {
    let id = TenantId::from_str(&request.id)?;
    let change = TenantChange {
        name: request.name,
        parent: request.parent.as_deref().map(named).transpose()?,
        shares: request.shares,
    };
    Ok(message(engine.tenants().update(id, change).await?))
}

/// Has a tenant's requests refused.
pub(crate) async fn suspend(engine: &Engine, id: &str) -> Result<proto::Tenant> {
    let id = TenantId::from_str(id)?;
    Ok(message(engine.tenants().suspend(id).await?))
}

/// Lets a tenant be used again.
pub(crate) async fn resume(engine: &Engine, id: &str) -> Result<proto::Tenant> {
    let id = TenantId::from_str(id)?;
    Ok(message(engine.tenants().resume(id).await?))
}

/// Takes in an archive.
pub(crate) async fn import(
    engine: &Engine,
    chunks: impl Stream<Item = Result<Bytes>> + Unpin + Send,
    options: ImportOptions,
) -> Result<proto::ImportTenantResponse> {
    let imported = engine.tenants().import(chunks, options).await?;
    Ok(proto::ImportTenantResponse {
        tenant: Some(message(imported.tenant)),
        notices: imported.notices,
    })
}

/// Removes all that is kept of a tenant.
pub(crate) async fn erase(
    engine: &Engine,
    by: &Principal,
    id: &str,
    confirm: &str,
) -> Result<String> {
    let id = TenantId::from_str(id)?;
    if TenantId::from_str(confirm).ok() != Some(id) {
        return Err(Error::InvalidArgument(format!(
            "to erase a tenant removes all that it has for good: confirm it with the id {id}"
        )));
    }
    let certificate = engine.tenants().erase(id, by).await?;
    engine.forget_cached();
    Ok(certificate)
}

/// What a tenant stores and has asked for.
pub(crate) async fn usage(engine: &Engine, id: TenantId) -> Result<proto::GetUsageResponse> {
    let tenants = engine.tenants();
    tenants.find(id).await?;
    let contents = tenants.contents(id).await?;
    let used = tenants.usage().of(id).await?;
    Ok(proto::GetUsageResponse {
        id: id.to_string(),
        rows_stored: contents.rows(),
        bytes_stored: engine.backend().lane_bytes(id).await?,
        queries: used.queries,
        rows_returned: used.rows,
        running_us: used.running_us,
        since_ms: used.since_ms,
    })
}

fn message(tenant: Tenant) -> proto::Tenant {
    let state = match tenant.state {
        TenantState::Active => proto::TenantState::Active,
        TenantState::Suspended => proto::TenantState::Suspended,
        TenantState::Erasing => proto::TenantState::Erasing,
    };
    proto::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name,
        state: state.into(),
        created_at_ms: tenant.created_at_ms,
        state_at_ms: tenant.state_at_ms,
        parent: tenant
            .parent
            .map(|parent| parent.to_string())
            .unwrap_or_default(),
        shares: tenant.shares,
    }
}

fn contents_message(contents: Contents) -> proto::Contents {
    let tables = contents.tables.into_iter().map(|table| proto::TableRows {
        name: table.name,
        shared: table.shared,
        rows: table.rows,
    });
    let sources = contents.sources.into_iter().map(|source| source.name);
    proto::Contents {
        tables: tables.collect(),
        views: contents.views,
        sources: sources.collect(),
        models: contents.models,
    }
}
