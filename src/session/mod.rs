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
use crate::engine::{Engine, NameDefaults, NewTable, RecordStream, RegisterSource, Registered};
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
        let scope = self.scope().await?;
        let statement = self.engine.prepare(&scope, &self.names, sql).await?;
        if let Some(assignment) = statement.assignment() {
            let tenant = assignment.tenant(parameters)?;
            self.engine.tenants().require_good(tenant).await?;
            self.binding.set(tenant);
            return assignment.answer(tenant);
        }
        self.engine.execute(&scope, &statement, parameters).await
    }

    /// Registers files as a table of the bound tenant, or as a shared one.
    pub async fn register_source(&self, request: RegisterSource) -> Result<Registered> {
        self.engine
            .register_source(&self.scope().await?, request)
            .await
    }

    /// The sources that the next statement sees, by name.
    pub async fn list_sources(&self) -> Result<Vec<Arc<Source>>> {
        self.engine.catalog().sources(&self.scope().await?).await
    }

    /// One source that the next statement sees.
    pub async fn describe_source(&self, name: &str) -> Result<Arc<Source>> {
        self.engine
            .catalog()
            .source(&self.scope().await?, name)
            .await
    }

    /// Reads a source's schema again.
    pub async fn refresh_source(&self, name: &str) -> Result<Arc<Source>> {
        self.engine.refresh_source(&self.scope().await?, name).await
    }

    /// Forgets a source. Its files stay where they are.
    pub async fn drop_source(&self, name: &str) -> Result<()> {
        self.engine
            .catalog()
            .drop_source(&self.scope().await?, name)
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
        self.engine.create_table(&self.scope().await?, new).await
    }

    /// The tables and views that the next statement sees, by name. Sources are
    /// not among them.
    pub async fn list_tables(&self) -> Result<Vec<Arc<Relation>>> {
        self.engine.stored_tables(&self.scope().await?).await
    }

    /// One table or view that the next statement sees.
    pub async fn describe_table(&self, name: &str) -> Result<Arc<Relation>> {
        self.engine.describe_table(&self.scope().await?, name).await
    }

    /// Forgets a table and its rows.
    pub async fn drop_table(&self, name: &str) -> Result<()> {
        self.engine.drop_table(&self.scope().await?, name).await
    }

    /// Records a model of the bound tenant, or a shared one.
    pub async fn register_model(&self, model: NewModel) -> Result<Model> {
        self.engine
            .catalog()
            .register_model(&self.scope().await?, model)
            .await
    }

    /// The models that the next statement sees.
    pub async fn list_models(&self) -> Result<Vec<Model>> {
        self.engine
            .catalog()
            .models(&self.scope().await?, None)
            .await
    }

    /// Forgets one version of a model.
    pub async fn drop_model(&self, name: &str, version: &str) -> Result<()> {
        self.engine
            .catalog()
            .drop_model(&self.scope().await?, name, version)
            .await
    }
}
