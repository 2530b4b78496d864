//! The target in this process.
//!
//! Whoever can open the directory is trusted with it, so there is no session
//! and no permission to ask for; the scope is the tenant's all the same. Rows
//! have the types that a server sends, so that output does not depend on where
//! the engine is.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::super::failure::{Failure, Outcome};
use super::{Rows, TableRecord};
use crate::catalog;
use crate::config::JammiConfig;
use crate::engine::{
    About, Engine, NameDefaults, RecordStream, Recorded, RegisterSource, SessionTransaction,
    TenantColumnChoice, TransactionControl,
};
use crate::error::{Error, Result};
use crate::server::catalog::{model_message, source_message};
use crate::server::flight::wire;
use crate::server::proto::catalog::{
    CreateTableRequest, Model, RegisterModelRequest, RegisterSourceRequest, RegisterSourceResponse,
    Source, SourceFormat, Table,
};
use crate::server::tables;
use crate::tenant::{Scope, SessionKey, TenantBinding, TenantId};

/// The engine in this process, and the tenant that statements are for.
pub struct Embedded {
    pub(super) engine: Engine,
    binding: TenantBinding,
    names: NameDefaults,
    /// What temporary tables are kept under.
    session: SessionKey,
    /// What `BEGIN` began and nothing has ended.
    transaction: Mutex<Option<SessionTransaction>>,
}

impl Embedded {
    /// Opens the directory that `config` names.
    pub async fn open(config: &JammiConfig, tenant: Option<TenantId>) -> Outcome<Self> {
        let engine = Engine::open(config)
            .await
            .map_err(|error| Failure::Connection(error.to_string()))?;
        engine.tenants().require_good(tenant).await?;
        let binding = TenantBinding::default();
        binding.set(tenant);
        Ok(Embedded {
            engine,
            binding,
            names: NameDefaults::default(),
            session: SessionKey::random(),
            transaction: Mutex::default(),
        })
    }

    /// Removes the temporary tables of the process.
    pub(super) async fn close(self) {
        // Its rows may be among what it wrote.
        drop(self.transaction.into_inner());
        self.engine.end_session(self.session).await;
        self.engine.audit().settle(Duration::ZERO).await;
        self.engine.end_counting().await;
    }

    pub(super) fn tenant(&self) -> Option<TenantId> {
        self.binding.get()
    }

    pub(super) async fn bind(&mut self, tenant: Option<TenantId>) -> Outcome {
        self.engine.tenants().require_good(tenant).await?;
        self.rebind(tenant);
        Ok(())
    }

    fn rebind(&self, tenant: Option<TenantId>) {
        if self.binding.get() != tenant {
            // As a server does, which leaves no transaction to another binding.
            self.transaction.lock().take();
            self.binding.set(tenant);
        }
    }

    pub(super) async fn query(&self, sql: &str) -> Outcome<Rows> {
        let scope = self.scope_of("sql").await?;
        let record = self.engine.record("sql", &scope).await?;
        record.statement(sql);
        let answer = self.answer(&scope, &record, sql).await;
        let stream = record.rows(answer).await?;
        let schema = wire::plain_schema(&stream.schema());
        let sent = SchemaRef::clone(&schema);
        let batches = stream
            .map_ok(move |batch| stream::iter(plain_batches(&batch, &sent)))
            .map_err(Failure::from)
            .try_flatten();
        Ok(Rows::new(schema, batches.boxed()))
    }

    /// The rows of a statement, and whether it has written.
    async fn answer(
        &self,
        scope: &Scope,
        record: &Recorded,
        sql: &str,
    ) -> Result<(RecordStream, bool)> {
        let within = self.transaction.lock().clone();
        let within = within.as_ref();
        let statement = self
            .engine
            .prepare_within(scope, &self.names, sql, within)
            .await?;
        record.planned(&statement);
        if let Some(assignment) = statement.assignment() {
            let tenant = assignment.tenant(&[])?;
            self.engine.tenants().require_good(tenant).await?;
            self.rebind(tenant);
            return Ok((assignment.answer(tenant)?, false));
        }
        if let Some(control) = statement.control() {
            self.control(scope, control, within).await?;
            return Ok((RecordStream::empty(statement.schema()), false));
        }
        let rows = self
            .engine
            .execute_within(scope, &statement, &[], within)
            .await?;
        Ok((rows, !statement.kind().reads()))
    }

    /// Does what a statement says of the transaction, in a server's words.
    async fn control(
        &self,
        scope: &Scope,
        control: &TransactionControl,
        open: Option<&SessionTransaction>,
    ) -> Result<()> {
        let Some(open) = open else {
            if *control != TransactionControl::Begin {
                return Err(Error::FailedPrecondition(
                    "no transaction is open in this session: send BEGIN first".into(),
                ));
            }
            let begun = self.engine.begin(scope);
            *self.transaction.lock() = Some(begun);
            return Ok(());
        };
        match control {
            TransactionControl::Begin => Err(Error::FailedPrecondition(
                "a transaction is open: end it first, or use SAVEPOINT inside it".into(),
            )),
            TransactionControl::Commit => {
                self.transaction.lock().take();
                open.commit().await
            }
            TransactionControl::Rollback => {
                self.transaction.lock().take();
                open.rollback().await
            }
            TransactionControl::Savepoint(name) => open.savepoint(name).await,
            TransactionControl::RollbackTo(name) => open.rollback_to(name).await,
            TransactionControl::Release(name) => open.release(name).await,
        }
    }

    pub(super) async fn tables(&self) -> Outcome<Vec<TableRecord>> {
        let scope = self.scope_of("tables").await?;
        let work = self.engine.tables(&scope);
        let about = About::Listing("tables");
        let entries = self.engine.recorded("tables", &scope, about, work).await?;
        Ok(entries
            .into_iter()
            .map(|entry| TableRecord {
                catalog: entry.catalog,
                schema: entry.schema,
                name: entry.name,
                kind: entry.kind.to_owned(),
                columns: wire::plain_schema(&entry.arrow_schema),
            })
            .collect())
    }

    pub(super) async fn stored_tables(&self) -> Outcome<Vec<Table>> {
        let scope = self.scope_of("stored_tables").await?;
        let work = tables::list(&self.engine, &scope);
        let done = self
            .engine
            .recorded("stored_tables", &scope, About::Listing("tables"), work);
        Ok(done.await?)
    }

    pub(super) async fn stored_table(&self, name: &str) -> Outcome<Table> {
        let scope = self.scope_of("stored_table").await?;
        let work = tables::describe(&self.engine, &scope, name);
        let done = self
            .engine
            .recorded("stored_table", &scope, About::Table(name), work);
        Ok(done.await?)
    }

    pub(super) async fn create_table(&self, request: CreateTableRequest) -> Outcome<Table> {
        let name = request.name.clone();
        let scope = self.scope_of("create_table").await?;
        let work = tables::create(&self.engine, &scope, request);
        let done = self
            .engine
            .recorded("create_table", &scope, About::Table(&name), work);
        Ok(done.await?)
    }

    pub(super) async fn drop_table(&self, name: &str) -> Outcome {
        let scope = self.scope_of("drop_table").await?;
        let work = self.engine.drop_table(&scope, name);
        let done = self
            .engine
            .recorded("drop_table", &scope, About::Table(name), work);
        Ok(done.await?)
    }

    pub(super) async fn sources(&self) -> Outcome<Vec<Source>> {
        let scope = self.scope_of("sources").await?;
        let work = self.engine.catalog().sources(&scope);
        let done = self
            .engine
            .recorded("sources", &scope, About::Listing("sources"), work);
        Ok(done
            .await?
            .iter()
            .map(|source| source_message(&scope, source))
            .collect())
    }

    pub(super) async fn source(&self, name: &str) -> Outcome<Source> {
        let scope = self.scope_of("source").await?;
        let work = self.engine.catalog().source(&scope, name);
        let done = self
            .engine
            .recorded("source", &scope, About::Source(name), work);
        Ok(source_message(&scope, &done.await?))
    }

    pub(super) async fn register_source(
        &self,
        request: RegisterSourceRequest,
    ) -> Outcome<RegisterSourceResponse> {
        let request = RegisterSource {
            format: source_format(request.format()),
            name: request.name,
            location: request.location,
            tenant_column: match request.tenant_column {
                None => TenantColumnChoice::Infer,
                Some(column) if column.is_empty() => TenantColumnChoice::Waived,
                Some(column) => TenantColumnChoice::Named(column),
            },
        };
        let (scope, name) = (
            self.scope_of("register_source").await?,
            request.name.clone(),
        );
        let work = self.engine.register_source(&scope, request);
        let about = About::Source(&name);
        let done = self.engine.recorded("register_source", &scope, about, work);
        let registered = done.await?;
        Ok(RegisterSourceResponse {
            source: Some(source_message(&scope, &registered.source)),
            notices: registered.notices,
        })
    }

    pub(super) async fn refresh_source(&self, name: &str) -> Outcome<Source> {
        let scope = self.scope_of("refresh_source").await?;
        let work = self.engine.refresh_source(&scope, name);
        let done = self
            .engine
            .recorded("refresh_source", &scope, About::Source(name), work);
        Ok(source_message(&scope, &done.await?))
    }

    pub(super) async fn drop_source(&self, name: &str) -> Outcome {
        let scope = self.scope_of("drop_source").await?;
        let work = self.engine.catalog().drop_source(&scope, name);
        let done = self
            .engine
            .recorded("drop_source", &scope, About::Source(name), work);
        Ok(done.await?)
    }

    pub(super) async fn models(&self, name: Option<&str>) -> Outcome<Vec<Model>> {
        let scope = self.scope_of("models").await?;
        let work = self.engine.catalog().models(&scope, name);
        let done = self
            .engine
            .recorded("models", &scope, About::Listing("models"), work);
        Ok(done
            .await?
            .into_iter()
            .map(|model| model_message(&scope, model))
            .collect())
    }

    pub(super) async fn model(&self, name: &str, version: Option<&str>) -> Outcome<Model> {
        let scope = self.scope_of("model").await?;
        let work = self.engine.catalog().model(&scope, name, version);
        let done = self
            .engine
            .recorded("model", &scope, About::Listing("models"), work);
        Ok(model_message(&scope, done.await?))
    }

    pub(super) async fn register_model(&self, request: RegisterModelRequest) -> Outcome<Model> {
        let model = catalog::NewModel {
            name: request.name,
            version: request.version,
            uri: request.uri,
            metadata: if request.metadata.is_empty() {
                "{}".to_owned()
            } else {
                request.metadata
            },
        };
        let scope = self.scope_of("register_model").await?;
        let work = self.engine.catalog().register_model(&scope, model);
        let about = About::Listing("models");
        let done = self.engine.recorded("register_model", &scope, about, work);
        Ok(model_message(&scope, done.await?))
    }

    pub(super) async fn drop_model(&self, name: &str, version: &str) -> Outcome {
        let scope = self.scope_of("drop_model").await?;
        let work = self.engine.catalog().drop_model(&scope, name, version);
        let done = self
            .engine
            .recorded("drop_model", &scope, About::Listing("models"), work);
        Ok(done.await?)
    }

    async fn scope_of(&self, method: &str) -> Result<Scope> {
        let tenant = self.binding.get();
        self.engine.scope_of(method, tenant, self.session).await
    }
}

/// `batch` as a server would send it, in parts where a few long values repeat
/// so often that all of them spelled out would be too much at once.
fn plain_batches(batch: &RecordBatch, schema: &SchemaRef) -> Vec<Outcome<RecordBatch>> {
    if batch.schema_ref() == schema {
        return vec![Ok(batch.clone())];
    }
    let rows = batch.num_rows();
    let parts = wire::expanded_bytes(batch).div_ceil(wire::EXPANDED_BYTES_MAX);
    let part_rows = rows.div_ceil(parts.max(1)).max(1);
    (0..rows)
        .step_by(part_rows)
        .map(|from| batch.slice(from, part_rows.min(rows - from)))
        .map(|part| wire::plain_batch(&part, schema).map_err(Failure::from))
        .collect()
}

fn source_format(format: SourceFormat) -> Option<catalog::SourceFormat> {
    match format {
        SourceFormat::Unspecified => None,
        SourceFormat::Parquet => Some(catalog::SourceFormat::Parquet),
        SourceFormat::Csv => Some(catalog::SourceFormat::Csv),
        SourceFormat::Json => Some(catalog::SourceFormat::Json),
        SourceFormat::Ndjson => Some(catalog::SourceFormat::Ndjson),
    }
}
