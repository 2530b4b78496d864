//! Where commands work: on the databases of a directory, or through a server.
//!
//! Both speak in the messages of `CatalogService` and `OperatorService` and in Arrow,
//! so that a command is written once and prints the same for both.
//!
//! Architecture invariant: nothing above this module knows which of the two it
//! talks to.

mod embedded;
mod operator;
mod remote;
mod tenants;
mod url;

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use futures::stream::BoxStream;
use tonic::transport::ClientTlsConfig;

pub use self::embedded::Embedded;
pub use self::remote::Remote;
pub use self::url::ServerUrl;

use super::failure::{Failure, Outcome};
use super::settings::Credential;
use crate::config::JammiConfig;
use crate::server::proto::catalog::{
    CreateTableRequest, Model, RegisterModelRequest, RegisterSourceRequest, RegisterSourceResponse,
    Source, Table,
};
use crate::tenant::TenantId;

/// Whose rows one query reads beside those of a tenant that is bound, and why.
#[derive(Clone, Debug)]
pub struct Bypass {
    /// The tenants.
    pub tenants: Vec<TenantId>,
    /// What is recorded.
    pub reason: String,
}

/// Where commands work.
pub enum Target {
    /// The engine in this process.
    Embedded(Box<Embedded>),
    /// The engine behind a server.
    Remote(Box<Remote>),
}

/// A table that the target's scope sees.
#[derive(Clone, Debug)]
pub struct TableRecord {
    /// The catalog that it is in.
    pub catalog: String,
    /// The schema that it is in.
    pub schema: String,
    /// Its own name.
    pub name: String,
    /// `TABLE`, `LOCAL TEMPORARY`, `VIEW` or `SYSTEM TABLE`.
    pub kind: String,
    /// Its columns.
    pub columns: SchemaRef,
}

/// The rows of a statement, as they come. Dropping it stops the work.
pub struct Rows {
    schema: SchemaRef,
    batches: BoxStream<'static, Outcome<RecordBatch>>,
}

impl Rows {
    /// Rows of `schema`.
    pub fn new(schema: SchemaRef, batches: BoxStream<'static, Outcome<RecordBatch>>) -> Self {
        Rows { schema, batches }
    }

    /// The columns, known before the first row.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

impl Stream for Rows {
    type Item = Outcome<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

/// Passes a call on to whichever target there is.
macro_rules! each {
    ($self:ident . $method:ident ( $($argument:expr),* )) => {
        match $self {
            Target::Embedded(target) => target.$method($($argument),*).await,
            Target::Remote(target) => target.$method($($argument),*).await,
        }
    };
}

use each;

impl Target {
    /// Opens the directory that `config` names.
    pub async fn embedded(config: &JammiConfig, tenant: Option<TenantId>) -> Outcome<Self> {
        let target = Embedded::open(config, tenant).await?;
        Ok(Target::Embedded(Box::new(target)))
    }

    /// Connects to a server, in a session of its own, by `credential` if there is one
    /// and by `tls` where `url` says so.
    pub async fn remote(
        url: &ServerUrl,
        tenant: Option<TenantId>,
        credential: Option<&Credential>,
        tls: ClientTlsConfig,
    ) -> Outcome<Self> {
        let target = Remote::connect(url, tenant, credential, tls).await?;
        Ok(Target::Remote(Box::new(target)))
    }

    /// The tenant that statements are for.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Target::Embedded(target) => target.tenant(),
            Target::Remote(target) => target.tenant(),
        }
    }

    /// Works for another tenant from here on, or for none.
    pub async fn bind(&mut self, tenant: Option<TenantId>) -> Outcome {
        each!(self.bind(tenant))
    }

    /// Starts one statement.
    pub async fn query(&self, sql: &str) -> Outcome<Rows> {
        each!(self.query(sql))
    }

    /// Starts one query that reads what `bypass` says.
    pub async fn query_bypassing(&self, sql: &str, bypass: &Bypass) -> Outcome<Rows> {
        match self {
            Target::Embedded(_) => Err(Failure::Usage(
                "--bypass is for a query through a server: name it with --url, or work as the \
                 tenant with --tenant"
                    .into(),
            )),
            Target::Remote(target) => target.query_bypassing(sql, bypass).await,
        }
    }

    /// Every table that is visible, with its columns.
    pub async fn tables(&self) -> Outcome<Vec<TableRecord>> {
        each!(self.tables())
    }

    /// Every stored table and view that is visible, by name.
    pub async fn stored_tables(&self) -> Outcome<Vec<Table>> {
        each!(self.stored_tables())
    }

    /// One stored table or view.
    pub async fn stored_table(&self, name: &str) -> Outcome<Table> {
        each!(self.stored_table(name))
    }

    /// Makes a table.
    pub async fn create_table(&self, request: CreateTableRequest) -> Outcome<Table> {
        each!(self.create_table(request))
    }

    /// Forgets a table and its rows.
    pub async fn drop_table(&self, name: &str) -> Outcome {
        each!(self.drop_table(name))
    }

    /// Every source that is visible, by name.
    pub async fn sources(&self) -> Outcome<Vec<Source>> {
        each!(self.sources())
    }

    /// One source.
    pub async fn source(&self, name: &str) -> Outcome<Source> {
        each!(self.source(name))
    }

    /// Registers files as a source.
    pub async fn register_source(
        &self,
        request: RegisterSourceRequest,
    ) -> Outcome<RegisterSourceResponse> {
        each!(self.register_source(request))
    }

    /// Reads the schema of a source's files again.
    pub async fn refresh_source(&self, name: &str) -> Outcome<Source> {
        each!(self.refresh_source(name))
    }

    /// Forgets a source.
    pub async fn drop_source(&self, name: &str) -> Outcome {
        each!(self.drop_source(name))
    }

    /// Every version of every model that is visible, or of the one named.
    pub async fn models(&self, name: Option<&str>) -> Outcome<Vec<Model>> {
        each!(self.models(name))
    }

    /// One version of a model; without `version`, the one registered last.
    pub async fn model(&self, name: &str, version: Option<&str>) -> Outcome<Model> {
        each!(self.model(name, version))
    }

    /// Records a version of a model.
    pub async fn register_model(&self, request: RegisterModelRequest) -> Outcome<Model> {
        each!(self.register_model(request))
    }

    /// Forgets a version of a model.
    pub async fn drop_model(&self, name: &str, version: &str) -> Outcome {
        each!(self.drop_model(name, version))
    }

    /// Leaves nothing behind at the target, as far as it still answers.
    pub async fn close(self) {
        match self {
            Target::Embedded(target) => target.close().await,
            Target::Remote(target) => target.close().await,
        }
    }
}

/// A message's field that a server always sets.
fn present<T>(field: Option<T>, what: &str) -> Outcome<T> {
    field.ok_or_else(|| unreadable(&format!("no {what} in it")))
}

fn unreadable(why: &str) -> Failure {
    Failure::Engine(format!("the server's answer cannot be read: {why}"))
}
