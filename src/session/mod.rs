//! The embedding API: the engine behind a binding to one tenant.
//!
//! Every call makes the scope of its statement from the binding as it is then;
//! a running statement keeps the scope that it started with.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use tokio::runtime::Handle;

use crate::catalog::{Model, NewModel, Relation, Source};
use crate::config::JammiConfig;
use crate::engine::{
    About, Engine, NameDefaults, NewTable, RecordStream, RegisterSource, Registered,
};
use crate::error::Result;
use crate::tenant::{Principal, Scope, SessionKey, TenantBinding, TenantId};

/// A session on an engine in this process. Clones are the same session; temporary
/// tables are a session's own.
///
/// ```
/// use std::str::FromStr;
/// use jammi_db::TenantId;
/// use jammi_db::config::JammiConfig;
/// use jammi_db::session::JammiSession;
///
/// # #[tokio::main]
/// # async fn main() -> jammi_db::error::Result<()> {
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// let config = JammiConfig {
///     artifact_dir: dir.path().to_owned(),
///     ..JammiConfig::default()
/// };
/// let alice = TenantId::from_str("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a")?;
/// let session = JammiSession::new(config).await?.with_tenant(alice);
/// let batches = session.sql("SELECT count(*) AS sources FROM sources").await?;
/// assert_eq!(batches[0].num_rows(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct JammiSession {
    engine: Engine,
    binding: TenantBinding,
    names: NameDefaults,
    own: Arc<OwnTables>,
}

/// The temporary tables of a session and its clones, which go with the last of them.
struct OwnTables {
    engine: Engine,
    key: SessionKey,
}

impl Drop for OwnTables {
    fn drop(&mut self) {
        if self.engine.catalog().temporary().life(self.key).is_none() {
            return;
        }
        // Without a runtime, whoever opens the directory next removes them.
        if let Ok(runtime) = Handle::try_current() {
            let (engine, key) = (self.engine.clone(), self.key);
            runtime.spawn(async move { engine.end_session(key).await });
        }
    }
}

impl JammiSession {
    /// Opens the artifact directory of `config`, creating it where it is not
    /// there. The session is bound to no tenant: it reads and writes what is
    /// shared.
    pub async fn new(config: JammiConfig) -> Result<Self> {
        Ok(JammiSession::on(Engine::open(&config).await?))
    }

    /// A session of its own, unbound, on an open engine.
    pub fn on(engine: Engine) -> Self {
        JammiSession {
            own: Arc::new(OwnTables {
                engine: engine.clone(),
                key: SessionKey::random(),
            }),
            engine,
            binding: TenantBinding::default(),
            names: NameDefaults::default(),
        }
    }

    /// The session bound to `tenant`.
    #[must_use]
    pub fn with_tenant(self, tenant: TenantId) -> Self {
        self.bind_tenant(&tenant);
        self
    }

    /// Binds the session, and every clone of it, to `tenant` from the next
    /// statement on.
    pub fn bind_tenant(&self, tenant: &TenantId) {
        self.binding.set(Some(*tenant));
    }

    /// Unbinds the session and every clone of it from the next statement on.
    pub fn unbind_tenant(&self) {
        self.binding.set(None);
    }

    /// The tenant that the next statement is for.
    pub fn tenant(&self) -> Option<TenantId> {
        self.binding.get()
    }

    /// The scope of a statement that starts now.
    ///
    /// # Errors
    /// `PermissionDenied` for a tenant who may not be used.
    pub async fn scope(&self) -> Result<Scope> {
        let (tenants, bound) = (self.engine.tenants(), self.binding.get());
        let scope = tenants.scope(Principal::trusted_network(), bound).await?;
        Ok(scope.in_session(Some(self.own.key)))
    }

    async fn scope_of(&self, method: &str) -> Result<Scope> {
        let (tenant, session) = (self.binding.get(), self.own.key);
        self.engine.scope_of(method, tenant, session).await
    }

    /// The engine below the session.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Removes the temporary tables of the session and of its clones, as dropping the
    /// last of them does a moment later, and writes down what was counted of tenants.
    pub async fn close(self) {
        self.engine.end_session(self.own.key).await;
        self.engine.end_counting().await;
    }

    /// Runs a statement and collects its rows.
    ///
    /// # Errors
    /// As [`Engine::prepare`] and [`Engine::execute`]; and whatever a row meets
    /// on the way, such as a division by zero.
    pub async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.sql_stream(sql).await?.try_collect().await
    }

    /// Runs a statement and yields its rows as they are made. Dropping the
    /// stream stops the work.
    pub async fn sql_stream(&self, sql: &str) -> Result<RecordStream> {
        self.sql_with(sql, &[]).await
    }

    /// Runs a statement with the values of `?`, or of `$1`, `$2` and so on. `SET
    /// app.current_tenant_id = '<uuid>'` does what [`JammiSession::bind_tenant`] does.
    pub async fn sql_with(&self, sql: &str, parameters: &[ScalarValue]) -> Result<RecordStream> {
        let scope = self.scope_of("sql").await?;
        let record = self.engine.record("sql", &scope).await?;
        record.statement(sql);
        let answer = async {
            let statement = self.engine.prepare(&scope, &self.names, sql).await?;
            record.planned(&statement);
            if let Some(assignment) = statement.assignment() {
                let tenant = assignment.tenant(parameters)?;
                self.engine.tenants().require_good(tenant).await?;
                self.binding.set(tenant);
                return Ok((assignment.answer(tenant)?, false));
            }
            let rows = self.engine.execute(&scope, &statement, parameters).await?;
            Ok((rows, !statement.kind().reads()))
        };
        let answer = answer.await;
        record.rows(answer).await
    }

    /// Registers files as a table of the bound tenant, or as a shared one.
    pub async fn register_source(&self, request: RegisterSource) -> Result<Registered> {
        let name = request.name.clone();
        let scope = self.scope_of("register_source").await?;
        let work = self.engine.register_source(&scope, request);
        self.engine
            .recorded("register_source", &scope, About::Source(&name), work)
            .await
    }

    /// The sources that the next statement sees, by name.
    pub async fn list_sources(&self) -> Result<Vec<Arc<Source>>> {
        let scope = self.scope_of("list_sources").await?;
        let work = self.engine.catalog().sources(&scope);
        self.engine
            .recorded("list_sources", &scope, About::Listing("sources"), work)
            .await
    }

    /// One source that the next statement sees.
    pub async fn describe_source(&self, name: &str) -> Result<Arc<Source>> {
        let scope = self.scope_of("describe_source").await?;
        let work = self.engine.catalog().source(&scope, name);
        self.engine
            .recorded("describe_source", &scope, About::Source(name), work)
            .await
    }

    /// Reads a source's schema again.
    pub async fn refresh_source(&self, name: &str) -> Result<Arc<Source>> {
        let scope = self.scope_of("refresh_source").await?;
        let work = self.engine.refresh_source(&scope, name);
        self.engine
            .recorded("refresh_source", &scope, About::Source(name), work)
            .await
    }

    /// Forgets a source. Its files stay where they are.
    pub async fn drop_source(&self, name: &str) -> Result<()> {
        let scope = self.scope_of("drop_source").await?;
        let work = self.engine.catalog().drop_source(&scope, name);
        self.engine
            .recorded("drop_source", &scope, About::Source(name), work)
            .await
    }

    /// Makes a table of the bound tenant, or a shared one of which every tenant
    /// has rows of its own. It is written to with SQL.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use jammi_db::config::JammiConfig;
    /// use jammi_db::engine::NewTable;
    /// use jammi_db::session::JammiSession;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> jammi_db::error::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// # let config = JammiConfig {
    /// #     artifact_dir: dir.path().to_owned(),
    /// #     ..JammiConfig::default()
    /// # };
    /// # let session = JammiSession::new(config).await?;
    /// let table = session
    ///     .create_mutable_table(NewTable {
    ///         name: "notes".into(),
    ///         schema: Arc::new(Schema::new(vec![
    ///             Field::new("id", DataType::Int64, false),
    ///             Field::new("title", DataType::Utf8, true),
    ///         ])),
    ///         primary_key: vec!["id".into()],
    ///         unique: Vec::new(),
    ///         if_not_exists: false,
    ///     })
    ///     .await?;
    /// assert_eq!(table.schema().field(2).name(), "tenant_id");
    /// session.sql("INSERT INTO notes (id, title) VALUES (1, 'first')").await?;
    /// assert_eq!(session.sql("SELECT * FROM notes").await?[0].num_rows(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::create_table`].
    pub async fn create_mutable_table(&self, new: NewTable) -> Result<Arc<Relation>> {
        let name = new.name.clone();
        let scope = self.scope_of("create_mutable_table").await?;
        let work = self.engine.create_table(&scope, new);
        self.engine
            .recorded("create_mutable_table", &scope, About::Table(&name), work)
            .await
    }

    /// The tables and views that the next statement sees, by name. Sources are
    /// not among them.
    pub async fn list_tables(&self) -> Result<Vec<Arc<Relation>>> {
        let scope = self.scope_of("list_tables").await?;
        let work = self.engine.stored_tables(&scope);
        self.engine
            .recorded("list_tables", &scope, About::Listing("tables"), work)
            .await
    }

    /// One table or view that the next statement sees.
    pub async fn describe_table(&self, name: &str) -> Result<Arc<Relation>> {
        let scope = self.scope_of("describe_table").await?;
        let work = self.engine.describe_table(&scope, name);
        self.engine
            .recorded("describe_table", &scope, About::Table(name), work)
            .await
    }

    /// Forgets a table and its rows.
    pub async fn drop_table(&self, name: &str) -> Result<()> {
        let scope = self.scope_of("drop_table").await?;
        let work = self.engine.drop_table(&scope, name);
        self.engine
            .recorded("drop_table", &scope, About::Table(name), work)
            .await
    }

    /// Records a model of the bound tenant, or a shared one.
    pub async fn register_model(&self, model: NewModel) -> Result<Model> {
        let scope = self.scope_of("register_model").await?;
        let work = self.engine.catalog().register_model(&scope, model);
        self.engine
            .recorded("register_model", &scope, About::Listing("models"), work)
            .await
    }

    /// The models that the next statement sees.
    pub async fn list_models(&self) -> Result<Vec<Model>> {
        let scope = self.scope_of("list_models").await?;
        let work = self.engine.catalog().models(&scope, None);
        self.engine
            .recorded("list_models", &scope, About::Listing("models"), work)
            .await
    }

    /// Forgets one version of a model.
    pub async fn drop_model(&self, name: &str, version: &str) -> Result<()> {
        let scope = self.scope_of("drop_model").await?;
        let work = self.engine.catalog().drop_model(&scope, name, version);
        self.engine
            .recorded("drop_model", &scope, About::Listing("models"), work)
            .await
    }
}
