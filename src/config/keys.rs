//! The names and kinds of the settings, and how one is read from text.
//!
//! Invariant: [`KEYS`] lists every field of `JammiConfig`, so a name that is
//! not in it is not a setting; a test holds the two together.

use figment::value::Value;

use crate::error::{Error, Result};

/// `JAMMI_*` variables that belong to the command line and are no settings.
pub const COMMAND_LINE_VARIABLES: &[&str] = &[
    "JAMMI_API_KEY",
    "JAMMI_CA_FILE",
    "JAMMI_CLIENT_CERTIFICATE_FILE",
    "JAMMI_CLIENT_PRIVATE_KEY_FILE",
    "JAMMI_CONFIG",
    "JAMMI_HISTORY",
    "JAMMI_PASSWORD_FILE",
    "JAMMI_TENANT",
    "JAMMI_URL",
    "JAMMI_USER",
];

/// What all variables of ours start with.
pub(super) const VARIABLE_PREFIX: &str = "JAMMI_";

/// What a setting's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    List,
}

impl Kind {
    /// What to write instead of a value of another kind.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Number => "a whole number that is not negative",
            Kind::Switch => "true or false",
            Kind::List => "a list of texts",
        }
    }
}

/// A setting.
#[derive(Debug)]
pub(super) struct Key {
    /// The dotted name.
    pub path: &'static str,
    pub kind: Kind,
}

impl Key {
    /// The setting named `path`.
    pub(super) fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The setting that the variable `name` is for.
    pub(super) fn of_variable(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.variable() == name)
    }

    /// `JAMMI_SERVER__LISTEN` for `server.listen`.
    pub(super) fn variable(&self) -> String {
        let name = self.path.to_ascii_uppercase().replace('.', "__");
        format!("{VARIABLE_PREFIX}{name}")
    }

    /// The value that `text`, from a variable or a flag called `origin`, says.
    pub(super) fn parse(&self, text: &str, origin: &str) -> Result<Value> {
        let refuse = || {
            Error::InvalidArgument(format!(
                "{origin} is {text:?}: setting `{}` takes {}",
                self.path,
                self.kind.expected()
            ))
        };
        match self.kind {
            Kind::Text => Ok(Value::from(text)),
            Kind::Number => {
                let digits = text.replace('_', "");
                digits.parse::<u64>().map(Value::from).map_err(|_| refuse())
            }
            Kind::Switch => match text {
                "true" | "1" | "on" | "yes" => Ok(Value::from(true)),
                "false" | "0" | "off" | "no" => Ok(Value::from(false)),
                _ => Err(refuse()),
            },
            Kind::List => parse_list(text).ok_or_else(refuse),
        }
    }
}

/// A TOML array of strings, or its items alone, separated by commas.
fn parse_list(text: &str) -> Option<Value> {
    let items: Vec<String> = if text.trim_start().starts_with('[') {
        let table: toml::Table = toml::from_str(&format!("items = {text}")).ok()?;
        let array = table.get("items")?.as_array()?;
        array
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()?
    } else {
        text.split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    };
    Value::serialize(items).ok()
}

/// The settings that share a table with `path`, for an error's mend.
pub(super) fn siblings(path: &str) -> String {
    let table = path.rsplit_once('.').map_or("", |(table, _)| table);
    let in_table = |key: &&Key| key.path.rsplit_once('.').map_or("", |(table, _)| table) == table;
    let mut names: Vec<&str> = KEYS.iter().filter(in_table).map(|key| key.path).collect();
    if names.is_empty() {
        names = KEYS.iter().map(|key| key.path).collect();
    }
    names.join(", ")
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// Every setting, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key("artifact_dir", Kind::Text),
    key("server.listen", Kind::Text),
    key("server.http_listen", Kind::Text),
    key("server.allowed_origins", Kind::List),
    key("server.drain_timeout_ms", Kind::Number),
    key("server.message_bytes_max", Kind::Number),
    key("server.header_bytes_max", Kind::Number),
    key("server.handle_ttl_secs", Kind::Number),
    key("server.connections_max", Kind::Number),
    key("server.connection_streams_max", Kind::Number),
    key("server.first_bytes_timeout_ms", Kind::Number),
    key("server.keepalive_interval_ms", Kind::Number),
    key("server.keepalive_timeout_ms", Kind::Number),
    key("server.put_timeout_ms", Kind::Number),
    key("server.poll_timeout_ms", Kind::Number),
    key("server.polled_queries_max", Kind::Number),
    key("tls.certificate_file", Kind::Text),
    key("tls.private_key_file", Kind::Text),
    key("tls.http", Kind::Switch),
    key("tls.client_ca_file", Kind::Text),
    key("tls.client_crl_file", Kind::Text),
    key("console.enabled", Kind::Switch),
    key("console.grpc_url", Kind::Text),
    key("auth.methods", Kind::List),
    key("auth.failures_max", Kind::Number),
    key("auth.jwt.issuer", Kind::Text),
    key("auth.jwt.audiences", Kind::List),
    key("auth.jwt.algorithms", Kind::List),
    key("auth.jwt.keys_file", Kind::Text),
    key("auth.jwt.keys_url", Kind::Text),
    key("auth.jwt.keys_refresh_secs", Kind::Number),
    key("auth.jwt.keys_stale_secs", Kind::Number),
    key("auth.jwt.keys_retry_secs", Kind::Number),
    key("auth.jwt.leeway_secs", Kind::Number),
    key("auth.jwt.user_claim", Kind::Text),
    key("auth.jwt.tenants_claim", Kind::Text),
    key("auth.jwt.all_tenants", Kind::Switch),
    key("auth.jwt.roles_claim", Kind::Text),
    key("auth.jwt.roles", Kind::List),
    key("auth.jwt.attribute_claims", Kind::List),
    key("auth.mtls.clients_file", Kind::Text),
    key("auth.password.failures_max", Kind::Number),
    key("auth.password.token_secs", Kind::Number),
    key("tenancy.anonymous_reads", Kind::Switch),
    key("tenancy.registered_only", Kind::Switch),
    key("tenancy.depth_max", Kind::Number),
    key("sessions.max", Kind::Number),
    key("sessions.idle_timeout_secs", Kind::Number),
    key("sessions.temporary_tables_max", Kind::Number),
    key("transactions.max", Kind::Number),
    key("transactions.session_max", Kind::Number),
    key("transactions.idle_timeout_secs", Kind::Number),
    key("lanes.open_max", Kind::Number),
    key("lanes.busy_timeout_ms", Kind::Number),
    key("lanes.transactions_max", Kind::Number),
    key("lanes.tenant_transactions_max", Kind::Number),
    key("lanes.savepoints_max", Kind::Number),
    key("lanes.reads_max", Kind::Number),
    key("lanes.writers_waiting_max", Kind::Number),
    key("sources.roots", Kind::List),
    key("sources.s3_endpoint", Kind::Text),
    key("sources.s3_region", Kind::Text),
    key("sources.s3_allow_http", Kind::Switch),
    key("engine.memory_bytes", Kind::Number),
    key("engine.tenant_memory_bytes", Kind::Number),
    key("engine.spill_dir", Kind::Text),
    key("engine.spill_bytes_max", Kind::Number),
    key("engine.tenant_spill_bytes_max", Kind::Number),
    key("engine.target_partitions", Kind::Number),
    key("engine.threads", Kind::Number),
    key("engine.tenant_threads_max", Kind::Number),
    key("engine.queries_max", Kind::Number),
    key("engine.tenant_queries_max", Kind::Number),
    key("engine.tenant_queries_waiting_max", Kind::Number),
    key("engine.queue_timeout_ms", Kind::Number),
    key("engine.statement_timeout_ms", Kind::Number),
    key("engine.batch_rows", Kind::Number),
    key("engine.statement_bytes_max", Kind::Number),
    key("engine.operators_max", Kind::Number),
    key("engine.tables_max", Kind::Number),
    key("engine.list_items_max", Kind::Number),
    key("engine.plan_cache_entries", Kind::Number),
    key("engine.table_cache_bytes", Kind::Number),
    key("engine.source_cache_bytes", Kind::Number),
    key("audit.enabled", Kind::Switch),
    key("audit.durability", Kind::Text),
    key("audit.flush_ms", Kind::Number),
    key("audit.statements", Kind::Text),
    key("audit.queue_max", Kind::Number),
    key("audit.checkpoint_secs", Kind::Number),
    key("audit.segment_bytes", Kind::Number),
    key("audit.retention_days", Kind::Number),
    key("log.format", Kind::Text),
    key("log.filter", Kind::Text),
];
