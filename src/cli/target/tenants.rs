//! Tenants, as a target has them.

use std::future::ready;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::super::failure::{Failure, Outcome};
use super::{Embedded, Remote, Target, each, present};
use crate::error::Error;
use crate::server::proto::tenants::{
    CreateTenantRequest, DescribeTenantRequest, DescribeTenantResponse, EraseTenantRequest,
    ExportTenantRequest, GetUsageRequest, GetUsageResponse, ImportTenantRequest,
    ImportTenantResponse, ListTenantsRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant,
    UpdateTenantRequest,
};
use crate::server::tenants;
use crate::tenancy::ImportOptions;
use crate::tenant::{Principal, TenantId};

/// The bytes of an archive, as they come.
pub type Chunks = BoxStream<'static, Outcome<Bytes>>;

impl Target {
    /// Registers a tenant.
    pub async fn create_tenant(&self, request: CreateTenantRequest) -> Outcome<Tenant> {
        each!(self.create_tenant(request))
    }

    /// Every tenant.
    pub async fn list_tenants(&self) -> Outcome<Vec<Tenant>> {
        each!(self.list_tenants())
    }

    /// A tenant, or the one that is bound, and what it has.
    pub async fn describe_tenant(&self, id: Option<TenantId>) -> Outcome<DescribeTenantResponse> {
        each!(self.describe_tenant(id))
    }

    /// Changes what is registered of a tenant.
    pub async fn update_tenant(&self, request: UpdateTenantRequest) -> Outcome<Tenant> {
        each!(self.update_tenant(request))
    }

    /// Has a tenant's requests refused.
    pub async fn suspend_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        each!(self.suspend_tenant(id))
    }

    /// Lets a tenant be used again.
    pub async fn resume_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        each!(self.resume_tenant(id))
    }

    /// One state of a tenant.
    pub async fn export_tenant(&self, id: TenantId) -> Outcome<Chunks> {
        each!(self.export_tenant(id))
    }

    /// Takes in an archive. What it cannot be read for is found in it as an error.
    pub async fn import_tenant(
        &self,
        chunks: BoxStream<'static, Result<Bytes, Error>>,
        options: ImportOptions,
    ) -> Outcome<ImportTenantResponse> {
        each!(self.import_tenant(chunks, options))
    }

    /// Removes all that is kept of a tenant.
    pub async fn erase_tenant(&self, request: EraseTenantRequest) -> Outcome<String> {
        each!(self.erase_tenant(request))
    }

    /// What a tenant, or the one that is bound, stores and has asked for.
    pub async fn tenant_usage(&self, id: Option<TenantId>) -> Outcome<GetUsageResponse> {
        each!(self.tenant_usage(id))
    }
}

impl Embedded {
    async fn create_tenant(&self, request: CreateTenantRequest) -> Outcome<Tenant> {
        Ok(tenants::create(&self.engine, request).await?)
    }

    async fn list_tenants(&self) -> Outcome<Vec<Tenant>> {
        Ok(tenants::list(&self.engine).await?)
    }

    async fn describe_tenant(&self, id: Option<TenantId>) -> Outcome<DescribeTenantResponse> {
        Ok(tenants::describe(&self.engine, self.named(id)?).await?)
    }

    async fn update_tenant(&self, request: UpdateTenantRequest) -> Outcome<Tenant> {
        Ok(tenants::update(&self.engine, request).await?)
    }

    async fn suspend_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        Ok(tenants::suspend(&self.engine, &id.to_string()).await?)
    }

    async fn resume_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        Ok(tenants::resume(&self.engine, &id.to_string()).await?)
    }

    async fn export_tenant(&self, id: TenantId) -> Outcome<Chunks> {
        let archive = self.engine.tenants().export(id).await?;
        Ok(archive.into_stream().map_err(Failure::from).boxed())
    }

    async fn import_tenant(
        &self,
        chunks: BoxStream<'static, Result<Bytes, Error>>,
        options: ImportOptions,
    ) -> Outcome<ImportTenantResponse> {
        Ok(tenants::import(&self.engine, chunks, options).await?)
    }

    async fn erase_tenant(&self, request: EraseTenantRequest) -> Outcome<String> {
        let EraseTenantRequest { id, confirm } = request;
        let by = Principal::trusted_network();
        Ok(tenants::erase(&self.engine, &by, &id, &confirm).await?)
    }

    async fn tenant_usage(&self, id: Option<TenantId>) -> Outcome<GetUsageResponse> {
        Ok(tenants::usage(&self.engine, self.named(id)?).await?)
    }

    fn named(&self, id: Option<TenantId>) -> Outcome<TenantId> {
        id.or_else(|| self.tenant())
            .ok_or_else(|| tenants::unnamed().into())
    }
}

impl Remote {
    async fn create_tenant(&self, request: CreateTenantRequest) -> Outcome<Tenant> {
        let response = self.tenants().create_tenant(request).await?;
        present(response.into_inner().tenant, "tenant")
    }

    async fn list_tenants(&self) -> Outcome<Vec<Tenant>> {
        let response = self.tenants().list_tenants(ListTenantsRequest {}).await?;
        Ok(response.into_inner().tenants)
    }

    async fn describe_tenant(&self, id: Option<TenantId>) -> Outcome<DescribeTenantResponse> {
        let request = DescribeTenantRequest { id: text(id) };
        Ok(self.tenants().describe_tenant(request).await?.into_inner())
    }

    async fn update_tenant(&self, request: UpdateTenantRequest) -> Outcome<Tenant> {
        let response = self.tenants().update_tenant(request).await?;
        present(response.into_inner().tenant, "tenant")
    }

    async fn suspend_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        let request = SuspendTenantRequest { id: id.to_string() };
        let response = self.tenants().suspend_tenant(request).await?;
        present(response.into_inner().tenant, "tenant")
    }

    async fn resume_tenant(&self, id: TenantId) -> Outcome<Tenant> {
        let request = ResumeTenantRequest { id: id.to_string() };
        let response = self.tenants().resume_tenant(request).await?;
        present(response.into_inner().tenant, "tenant")
    }

    async fn export_tenant(&self, id: TenantId) -> Outcome<Chunks> {
        let request = ExportTenantRequest { id: id.to_string() };
        let messages = self.tenants().export_tenant(request).await?.into_inner();
        let chunks = messages.map_ok(|message| Bytes::from(message.chunk));
        Ok(chunks.map_err(Failure::from).boxed())
    }

    async fn import_tenant(
        &self,
        chunks: BoxStream<'static, Result<Bytes, Error>>,
        options: ImportOptions,
    ) -> Outcome<ImportTenantResponse> {
        // A file that breaks off is not a whole archive, as the server finds.
        let messages = chunks
            .scan((), |(), chunk| ready(chunk.ok()))
            .map(move |chunk| ImportTenantRequest {
                chunk: chunk.into(),
                replace: options.replace,
                without_shared_rows: options.without_shared_rows,
            });
        let response = self.tenants().import_tenant(messages).await?;
        Ok(response.into_inner())
    }

    async fn erase_tenant(&self, request: EraseTenantRequest) -> Outcome<String> {
        let response = self.tenants().erase_tenant(request).await?;
        Ok(response.into_inner().certificate)
    }

    async fn tenant_usage(&self, id: Option<TenantId>) -> Outcome<GetUsageResponse> {
        let request = GetUsageRequest { id: text(id) };
        Ok(self.tenants().get_usage(request).await?.into_inner())
    }
}

fn text(id: Option<TenantId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
