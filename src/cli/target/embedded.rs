//! The target in this process.
//!
//! Whoever can open the directory is trusted with it, so there is no session
//! and no permission to ask for; the scope is the tenant's all the same. Rows
//! have the types that a server sends, so that output does not depend on where
//! the engine is.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::super::failure::{Failure, Outcome};
use super::{Rows, TableRecord};
use crate::catalog;
use crate::config::JammiConfig;
use crate::engine::{
    Engine, NameDefaults, RegisterSource, SessionTransaction, TenantColumnChoice,
    TransactionControl,
};
use crate::error::{Error, Result};
use crate::server::catalog::{model_message, source_message};
use crate::server::flight::wire;
use crate::server::proto::catalog::{
    CreateTableRequest, Model, RegisterModelRequest, RegisterSourceRequest, RegisterSourceResponse,
    Source, SourceFormat, Table,
};
use crate::server::tables;
use crate::tenant::{Principal, Scope, SessionKey, TenantBinding, TenantId};

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
    }

    pub(super) fn tenant(&self) -> Option<TenantId> {
        self.binding.get()
    }

    pub(super) async fn bind(&mut self, tenant: Option<TenantId>) -> Outcome {
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
        let scope = self.scope();
        let within = self.transaction.lock().clone();
        let within = within.as_ref();
        let statement = self
            .engine
            .prepare_within(&scope, &self.names, sql, within)
            .await?;
        if let Some(assignment) = statement.assignment() {
            let tenant = assignment.tenant(&[])?;
            self.rebind(tenant);
            let answer = assignment.answer(tenant)?;
            let schema = answer.schema();
            return Ok(Rows::new(schema, answer.map_err(Failure::from).boxed()));
        }
        if let Some(control) = statement.control() {
            self.control(control, within).await?;
            return Ok(Rows::new(statement.schema(), stream::empty().boxed()));
        }
        let stream = self
            .engine
            .execute_within(&scope, &statement, &[], within)
            .await?;
        let schema = wire::plain_schema(&stream.schema());
        let sent = SchemaRef::clone(&schema);
        let batches = stream
            .map_ok(move |batch| stream::iter(plain_batches(&batch, &sent)))
            .map_err(Failure::from)
            .try_flatten();
        Ok(Rows::new(schema, batches.boxed()))
    }

    /// Does what a statement says of the transaction, in a server's words.
    async fn control(
        &self,
        control: &TransactionControl,
        open: Option<&SessionTransaction>,
    ) -> Result<()> {
        let Some(open) = open else {
            if *control != TransactionControl::Begin {
                return Err(Error::FailedPrecondition(
                    "no transaction is open in this session: send BEGIN first".into(),
                ));
            }
            let begun = self.engine.begin(&self.scope());
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
        let entries = self.engine.tables(&self.scope()).await?;
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
        Ok(tables::list(&self.engine, &self.scope()).await?)
    }

    pub(super) async fn stored_table(&self, name: &str) -> Outcome<Table> {
        Ok(tables::describe(&self.engine, &self.scope(), name).await?)
    }

    pub(super) async fn create_table(&self, request: CreateTableRequest) -> Outcome<Table> {
        Ok(tables::create(&self.engine, &self.scope(), request).await?)
    }

    pub(super) async fn drop_table(&self, name: &str) -> Outcome {
        Ok(self.engine.drop_table(&self.scope(), name).await?)
    }

    pub(super) async fn sources(&self) -> Outcome<Vec<Source>> {
        let sources = self.engine.catalog().sources(&self.scope()).await?;
        Ok(sources.iter().map(source_message).collect())
    }

    pub(super) async fn source(&self, name: &str) -> Outcome<Source> {
        let source = self.engine.catalog().source(&self.scope(), name).await?;
        Ok(source_message(&source))
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
        let registered = self.engine.register_source(&self.scope(), request).await?;
        Ok(RegisterSourceResponse {
            source: Some(source_message(&registered.source)),
            notices: registered.notices,
        })
    }

    pub(super) async fn refresh_source(&self, name: &str) -> Outcome<Source> {
        let source = self.engine.refresh_source(&self.scope(), name).await?;
        Ok(source_message(&source))
    }

    pub(super) async fn drop_source(&self, name: &str) -> Outcome {
        let scope = self.scope();
        Ok(self.engine.catalog().drop_source(&scope, name).await?)
    }

    pub(super) async fn models(&self, name: Option<&str>) -> Outcome<Vec<Model>> {
        let models = self.engine.catalog().models(&self.scope(), name).await?;
        Ok(models.into_iter().map(model_message).collect())
    }

    pub(super) async fn model(&self, name: &str, version: Option<&str>) -> Outcome<Model> {
        let scope = self.scope();
        let model = self.engine.catalog().model(&scope, name, version).await?;
        Ok(model_message(model))
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
        let scope = self.scope();
        let model = self.engine.catalog().register_model(&scope, model).await?;
        Ok(model_message(model))
    }

    pub(super) async fn drop_model(&self, name: &str, version: &str) -> Outcome {
        let scope = self.scope();
        Ok(self
            .engine
            .catalog()
            .drop_model(&scope, name, version)
            .await?)
    }

    fn scope(&self) -> Scope {
        self.binding
            .scope(Principal::trusted_network())
            .in_session(Some(self.session))
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
