//! `jammi.v1.catalog.CatalogService`: sources, models and tables over gRPC.
//!
//! Only translates: what a caller may see and do is decided below, by the
//! scope that the request was admitted with.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::proto::catalog as proto;
use super::proto::catalog::catalog_service_server::CatalogService;
use super::status::respond;
use super::tables;
use super::tenant::Admitted;
use crate::catalog::{Model, NewModel, Source, SourceFormat};
use crate::engine::{About, Engine, RegisterSource, TenantColumnChoice, type_name};
use crate::error::{Error, Result};
use crate::tenant::{Lane, Scope};

/// The service over an engine.
#[derive(Clone)]
pub struct Catalogs {
    engine: Engine,
    registration: SourceRegistration,
}

/// Whether clients may register sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRegistration {
    /// Below the roots that the engine enforces.
    Allowed,
    /// No: no roots are set, and the server can be reached from elsewhere.
    Refused,
}

impl Catalogs {
    /// Serves the catalog of `engine`.
    pub fn new(engine: Engine, registration: SourceRegistration) -> Self {
        Catalogs {
            engine,
            registration,
        }
    }

    async fn register_source_of(
        &self,
        request: Request<proto::RegisterSourceRequest>,
    ) -> Result<proto::RegisterSourceResponse> {
        let about = About::Source(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        if self.registration == SourceRegistration::Refused {
            return Err(Error::PermissionDenied(
                "sources cannot be registered over the network: the operator sets sources.roots to \
                 the directories and URLs that they may be below, or registers them on the machine \
                 itself with jammi --artifact-dir"
                    .into(),
            ));
        }
        let request = request.into_inner();
        let format = format_of(request.format)?;
        let tenant_column = match request.tenant_column {
            None => TenantColumnChoice::Infer,
            Some(name) if name.is_empty() => TenantColumnChoice::Waived,
            Some(name) => TenantColumnChoice::Named(name),
        };
        let register = RegisterSource {
            name: request.name,
            location: request.location,
            format,
            tenant_column,
        };
        let registered = self.engine.register_source(&scope, register).await?;
        Ok(proto::RegisterSourceResponse {
            source: Some(source_message(&scope, &registered.source)),
            notices: registered.notices,
        })
    }

    async fn describe_source_of(
        &self,
        request: Request<proto::DescribeSourceRequest>,
    ) -> Result<proto::DescribeSourceResponse> {
        let about = About::Source(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let name = &request.get_ref().name;
        let source = self.engine.catalog().source(&scope, name).await?;
        Ok(proto::DescribeSourceResponse {
            source: Some(source_message(&scope, &source)),
        })
    }

    async fn list_sources_of(
        &self,
        request: Request<proto::ListSourcesRequest>,
    ) -> Result<proto::ListSourcesResponse> {
        let about = About::Listing("sources");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let sources = self.engine.catalog().sources(&scope).await?;
        Ok(proto::ListSourcesResponse {
            sources: sources
                .iter()
                .map(|source| source_message(&scope, source))
                .collect(),
        })
    }

    async fn refresh_source_of(
        &self,
        request: Request<proto::RefreshSourceRequest>,
    ) -> Result<proto::RefreshSourceResponse> {
        let about = About::Source(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let name = &request.get_ref().name;
        let source = self.engine.refresh_source(&scope, name).await?;
        Ok(proto::RefreshSourceResponse {
            source: Some(source_message(&scope, &source)),
        })
    }

    async fn drop_source_of(
        &self,
        request: Request<proto::DropSourceRequest>,
    ) -> Result<proto::DropSourceResponse> {
        let about = About::Source(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let name = &request.get_ref().name;
        self.engine.catalog().drop_source(&scope, name).await?;
        Ok(proto::DropSourceResponse {})
    }

    async fn register_model_of(
        &self,
        request: Request<proto::RegisterModelRequest>,
    ) -> Result<proto::RegisterModelResponse> {
        let about = About::Listing("models");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let request = request.into_inner();
        let metadata = match request.metadata {
            empty if empty.is_empty() => "{}".to_owned(),
            metadata => metadata,
        };
        let new = NewModel {
            name: request.name,
            version: request.version,
            uri: request.uri,
            metadata,
        };
        let model = self.engine.catalog().register_model(&scope, new).await?;
        Ok(proto::RegisterModelResponse {
            model: Some(model_message(&scope, model)),
        })
    }

    async fn describe_model_of(
        &self,
        request: Request<proto::DescribeModelRequest>,
    ) -> Result<proto::DescribeModelResponse> {
        let about = About::Listing("models");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let proto::DescribeModelRequest { name, version } = request.get_ref();
        let version = given(version);
        let model = self.engine.catalog().model(&scope, name, version).await?;
        Ok(proto::DescribeModelResponse {
            model: Some(model_message(&scope, model)),
        })
    }

    async fn list_models_of(
        &self,
        request: Request<proto::ListModelsRequest>,
    ) -> Result<proto::ListModelsResponse> {
        let about = About::Listing("models");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let name = given(&request.get_ref().name);
        let models = self.engine.catalog().models(&scope, name).await?;
        Ok(proto::ListModelsResponse {
            models: models
                .into_iter()
                .map(|model| model_message(&scope, model))
                .collect(),
        })
    }

    async fn drop_model_of(
        &self,
        request: Request<proto::DropModelRequest>,
    ) -> Result<proto::DropModelResponse> {
        let about = About::Listing("models");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let proto::DropModelRequest { name, version } = request.get_ref();
        let catalog = self.engine.catalog();
        catalog.drop_model(&scope, name, version).await?;
        Ok(proto::DropModelResponse {})
    }

    async fn create_table_of(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<proto::CreateTableResponse> {
        let about = About::Table(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let table = tables::create(&self.engine, &scope, request.into_inner()).await?;
        Ok(proto::CreateTableResponse { table: Some(table) })
    }

    async fn describe_table_of(
        &self,
        request: Request<proto::DescribeTableRequest>,
    ) -> Result<proto::DescribeTableResponse> {
        let about = About::Table(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let table = tables::describe(&self.engine, &scope, &request.get_ref().name).await?;
        Ok(proto::DescribeTableResponse { table: Some(table) })
    }

    async fn list_tables_of(
        &self,
        request: Request<proto::ListTablesRequest>,
    ) -> Result<proto::ListTablesResponse> {
        let about = About::Listing("tables");
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let tables = tables::list(&self.engine, &scope).await?;
        Ok(proto::ListTablesResponse { tables })
    }

    async fn drop_table_of(
        &self,
        request: Request<proto::DropTableRequest>,
    ) -> Result<proto::DropTableResponse> {
        let about = About::Table(&request.get_ref().name);
        let scope = Admitted::of(&request)?.scope_for(about)?;
        let name = &request.get_ref().name;
        self.engine.drop_table(&scope, name).await?;
        Ok(proto::DropTableResponse {})
    }
}

#[async_trait]
impl CatalogService for Catalogs {
    async fn register_source(
        &self,
        request: Request<proto::RegisterSourceRequest>,
    ) -> Result<Response<proto::RegisterSourceResponse>, Status> {
        respond(self.register_source_of(request).await)
    }

    async fn describe_source(
        &self,
        request: Request<proto::DescribeSourceRequest>,
    ) -> Result<Response<proto::DescribeSourceResponse>, Status> {
        respond(self.describe_source_of(request).await)
    }

    async fn list_sources(
        &self,
        request: Request<proto::ListSourcesRequest>,
    ) -> Result<Response<proto::ListSourcesResponse>, Status> {
        respond(self.list_sources_of(request).await)
    }

    async fn refresh_source(
        &self,
        request: Request<proto::RefreshSourceRequest>,
    ) -> Result<Response<proto::RefreshSourceResponse>, Status> {
        respond(self.refresh_source_of(request).await)
    }

    async fn drop_source(
        &self,
        request: Request<proto::DropSourceRequest>,
    ) -> Result<Response<proto::DropSourceResponse>, Status> {
        respond(self.drop_source_of(request).await)
    }

    async fn register_model(
        &self,
        request: Request<proto::RegisterModelRequest>,
    ) -> Result<Response<proto::RegisterModelResponse>, Status> {
        respond(self.register_model_of(request).await)
    }

    async fn describe_model(
        &self,
        request: Request<proto::DescribeModelRequest>,
    ) -> Result<Response<proto::DescribeModelResponse>, Status> {
        respond(self.describe_model_of(request).await)
    }

    async fn list_models(
        &self,
        request: Request<proto::ListModelsRequest>,
    ) -> Result<Response<proto::ListModelsResponse>, Status> {
        respond(self.list_models_of(request).await)
    }

    async fn drop_model(
        &self,
        request: Request<proto::DropModelRequest>,
    ) -> Result<Response<proto::DropModelResponse>, Status> {
        respond(self.drop_model_of(request).await)
    }

    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::CreateTableResponse>, Status> {
        respond(self.create_table_of(request).await)
    }

    async fn describe_table(
        &self,
        request: Request<proto::DescribeTableRequest>,
    ) -> Result<Response<proto::DescribeTableResponse>, Status> {
        respond(self.describe_table_of(request).await)
    }

    async fn list_tables(
        &self,
        request: Request<proto::ListTablesRequest>,
    ) -> Result<Response<proto::ListTablesResponse>, Status> {
        respond(self.list_tables_of(request).await)
    }

    async fn drop_table(
        &self,
        request: Request<proto::DropTableRequest>,
    ) -> Result<Response<proto::DropTableResponse>, Status> {
        respond(self.drop_table_of(request).await)
    }
}

/// A text field of a message, where empty means absent.
fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The format asked for; none when it is to be read from the files' names.
fn format_of(number: i32) -> Result<Option<SourceFormat>> {
    let format = proto::SourceFormat::try_from(number).map_err(|_| {
        Error::InvalidArgument(format!(
            "format {number} is not known: use parquet, csv, json or ndjson, or leave it out"
        ))
    })?;
    Ok(match format {
        proto::SourceFormat::Unspecified => None,
        proto::SourceFormat::Parquet => Some(SourceFormat::Parquet),
        proto::SourceFormat::Csv => Some(SourceFormat::Csv),
        proto::SourceFormat::Json => Some(SourceFormat::Json),
        proto::SourceFormat::Ndjson => Some(SourceFormat::Ndjson),
    })
}

/// A source as clients see it.
pub(crate) fn source_message(scope: &Scope, source: &Arc<Source>) -> proto::Source {
    let definition = &source.definition;
    let format = match definition.format {
        SourceFormat::Parquet => proto::SourceFormat::Parquet,
        SourceFormat::Csv => proto::SourceFormat::Csv,
        SourceFormat::Json => proto::SourceFormat::Json,
        SourceFormat::Ndjson => proto::SourceFormat::Ndjson,
    };
    let columns = definition
        .schema
        .fields()
        .iter()
        .map(|field| proto::Column {
            name: field.name().clone(),
            r#type: type_name(field),
            nullable: field.is_nullable(),
            partition: definition.partition_columns.contains(field.name()),
            default_sql: None,
        });
    proto::Source {
        name: definition.name.clone(),
        lane: lane(scope, source.lane).into(),
        location: definition.location.clone(),
        format: format.into(),
        tenant_column: definition.tenant_column.name().unwrap_or_default().into(),
        columns: columns.collect(),
        registered_at_ms: source.registered_at_ms,
        refreshed_at_ms: source.refreshed_at_ms,
        sql_name: source.sql_name(),
    }
}

/// A model as clients see it.
pub(crate) fn model_message(scope: &Scope, model: Model) -> proto::Model {
    proto::Model {
        name: model.definition.name,
        version: model.definition.version,
        lane: lane(scope, model.lane).into(),
        uri: model.definition.uri,
        metadata: model.definition.metadata,
        registered_at_ms: model.registered_at_ms,
    }
}

/// Whose an object is, for the caller.
pub(super) fn lane(scope: &Scope, lane: Lane) -> proto::Lane {
    match lane {
        Lane::Global => proto::Lane::Global,
        own if own == scope.writable() => proto::Lane::Tenant,
        Lane::Tenant(_) => proto::Lane::Above,
    }
}
