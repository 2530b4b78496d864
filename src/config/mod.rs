//! Settings: a flag over a `JAMMI_*` variable over the TOML file over the default.
//!
//! Architecture invariant: a setting that is not known is an error wherever it
//! comes from, and reading settings opens nothing: no port, no database.
//!
//! A variable's name is the setting's in capitals with `__` for the dot:
//! `server.listen` is `JAMMI_SERVER__LISTEN`.
//!
//! ```
//! use jammi_db::config::{ConfigSources, JammiConfig};
//!
//! let config = JammiConfig::load(ConfigSources {
//!     environment: vec![("JAMMI_SERVER__LISTEN".into(), "127.0.0.1:0".into())],
//!     ..ConfigSources::default()
//! })?;
//! assert_eq!(config.server.listen, "127.0.0.1:0");
//! # Ok::<(), jammi_db::error::Error>(())
//! ```

mod keys;
mod load;
mod validate;
pub mod watched;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use keys::COMMAND_LINE_VARIABLES;
pub use load::{ConfigSources, FlagValue, show};

use crate::auth::JwtAlgorithm;

/// Every setting of the engine and the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JammiConfig {
    /// The directory of all that is kept: one database a tenant, the shared
    /// one, and the operator's. Made when it does not exist. A relative path
    /// starts at the working directory.
    pub artifact_dir: PathBuf,
    /// The network server.
    pub server: ServerConfig,
    /// How connections are encrypted.
    pub tls: TlsConfig,
    /// The page for people.
    pub console: ConsoleConfig,
    /// Who may ask.
    pub auth: AuthConfig,
    /// Who may be a tenant, and what a session may do before it is bound to one.
    pub tenancy: TenancyConfig,
    /// The sessions that clients bind to tenants.
    pub sessions: SessionsConfig,
    /// The transactions that clients open.
    pub transactions: TransactionsConfig,
    /// The databases of the lanes.
    pub lanes: LanesConfig,
    /// Where sources may be, and how object stores are reached.
    pub sources: SourcesConfig,
    /// What a query may use.
    pub engine: EngineConfig,
    /// The audit trail.
    pub audit: AuditConfig,
    /// The log on stderr.
    pub log: LogConfig,
}

impl Default for JammiConfig {
    fn default() -> Self {
        JammiConfig {
            artifact_dir: PathBuf::from("./jammi-data"),
            server: ServerConfig::default(),
            tls: TlsConfig::default(),
            console: ConsoleConfig::default(),
            auth: AuthConfig::default(),
            tenancy: TenancyConfig::default(),
            sessions: SessionsConfig::default(),
            transactions: TransactionsConfig::default(),
            lanes: LanesConfig::default(),
            sources: SourcesConfig::default(),
            engine: EngineConfig::default(),
            audit: AuditConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// The network server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// `HOST:PORT` of gRPC, Flight SQL and gRPC-Web. Port 0 takes a free one.
    pub listen: String,
    /// `HOST:PORT` of health, readiness and metrics by plain HTTP.
    pub http_listen: String,
    /// The exact origins (`https://app.example.com`) whose pages may call by
    /// gRPC-Web. A request with any other `Origin` header is refused.
    pub allowed_origins: Vec<String>,
    /// How long running requests may take to end once the server is told to
    /// stop.
    pub drain_timeout_ms: u64,
    /// The largest message that is accepted or sent.
    pub message_bytes_max: usize,
    /// The largest header list of an HTTP/2 request.
    pub header_bytes_max: u32,
    /// How long a prepared statement or a ticket stays valid.
    pub handle_ttl_secs: u64,
    /// How many connections may be open on each port; one more is closed at
    /// once.
    pub connections_max: usize,
    /// How many requests may run at a time on one connection.
    pub connection_streams_max: u32,
    /// How long a new connection may take to send its first bytes.
    pub first_bytes_timeout_ms: u64,
    /// How long an HTTP/2 connection may be silent before it is pinged.
    pub keepalive_interval_ms: u64,
    /// How long an answer to a ping may take before the connection is dropped.
    pub keepalive_timeout_ms: u64,
    /// How long a client that sends rows may pause before its request is ended.
    pub put_timeout_ms: u64,
    /// How long a query that a client polls waits for the client's next call
    /// before it is ended.
    pub poll_timeout_ms: u64,
    /// How many queries that are polled one tenant may have at a time; further
    /// ones run when they are fetched.
    pub polled_queries_max: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            listen: "127.0.0.1:50051".into(),
            http_listen: "127.0.0.1:50052".into(),
            allowed_origins: Vec::new(),
            drain_timeout_ms: 30_000,
            message_bytes_max: 16 << 20,
            header_bytes_max: 32 << 10,
            handle_ttl_secs: 3_600,
            connections_max: 4_096,
            connection_streams_max: 256,
            first_bytes_timeout_ms: 10_000,
            keepalive_interval_ms: 30_000,
            keepalive_timeout_ms: 20_000,
            put_timeout_ms: 60_000,
            poll_timeout_ms: 60_000,
            polled_queries_max: 8,
        }
    }
}

/// How connections are encrypted. The files are PEM, and are read again when they
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its root, in this order.
    /// Unset, connections are not encrypted.
    pub certificate_file: Option<PathBuf>,
    /// The private key of the certificate.
    pub private_key_file: Option<PathBuf>,
    /// Whether the port of `server.http_listen` is encrypted too.
    pub http: bool,
    /// The roots of clients' certificates. Unset, clients are asked for none.
    pub client_ca_file: Option<PathBuf>,
    /// Which clients' certificates are revoked.
    pub client_crl_file: Option<PathBuf>,
}

impl TlsConfig {
    /// Whether connections are encrypted.
    pub fn is_on(&self) -> bool {
        self.certificate_file.is_some()
    }
}

/// The console: a page for people, on the port of `server.http_listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Whether it is served. Its own origins may then call by gRPC-Web beside
    /// those in `server.allowed_origins`.
    pub enabled: bool,
    /// Where browsers find the gRPC port, as `scheme://host[:port]`, where that is not
    /// the page's own host with the number of `server.listen`: behind a proxy.
    pub grpc_url: Option<String>,
}

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// What a request is authenticated by, in this order. With none, whoever
    /// reaches the server may act as any tenant.
    pub methods: Vec<AuthenticationMethod>,
    /// How many credentials that are not accepted a peer may send in a minute.
    pub failures_max: u32,
    /// Tokens of an issuer, where `methods` has `jwt`.
    pub jwt: JwtConfig,
    /// Clients' certificates, where `methods` has `mtls`.
    pub mtls: MtlsConfig,
    /// Users' passwords, where `methods` has `password`.
    pub password: PasswordConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            methods: Vec::new(),
            failures_max: 100,
            jwt: JwtConfig::default(),
            mtls: MtlsConfig::default(),
            password: PasswordConfig::default(),
        }
    }
}

/// What a request is authenticated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticationMethod {
    /// Keys that `jammi keys` makes.
    ApiKey,
    /// Tokens that an issuer signs.
    Jwt,
    /// Certificates of clients, by mutual TLS.
    Mtls,
    /// Passwords of users that `jammi users` makes.
    Password,
}

/// JSON Web Tokens of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// What the claim `iss` has to be.
    pub issuer: Option<String>,
    /// One of which the claim `aud` has to be or to hold.
    pub audiences: Vec<String>,
    /// How tokens may be signed.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The file of the keys: a secret, public keys in PEM, or a JWK set. It is read
    /// again when it changes.
    pub keys_file: Option<PathBuf>,
    /// The URL of the keys, a JWK set.
    pub keys_url: Option<String>,
    /// How long keys of the URL are used before they are fetched again.
    pub keys_refresh_secs: u64,
    /// How long they are used when they cannot be fetched again.
    pub keys_stale_secs: u64,
    /// The shortest time between two fetches, whatever keys tokens name.
    pub keys_retry_secs: u64,
    /// How far the clocks of the issuer and the server may be apart.
    pub leeway_secs: u64,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim of the tenants that the user may act as: one or a list.
    pub tenants_claim: String,
    /// Whether `*` in that claim is any tenant.
    pub all_tenants: bool,
    /// The claim of the user's roles: one or a list.
    pub roles_claim: String,
    /// The roles that are taken from that claim; others are passed over.
    pub roles: Vec<String>,
    /// The claims that become attributes of the principal.
    pub attribute_claims: Vec<String>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        JwtConfig {
            issuer: None,
            audiences: Vec::new(),
            algorithms: Vec::new(),
            keys_file: None,
            keys_url: None,
            keys_refresh_secs: 300,
            keys_stale_secs: 3_600,
            keys_retry_secs: 10,
            leeway_secs: 30,
            user_claim: "sub".into(),
            tenants_claim: "tenants".into(),
            all_tenants: false,
            roles_claim: "roles".into(),
            roles: Vec::new(),
            attribute_claims: Vec::new(),
        }
    }
}

/// Certificates of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtlsConfig {
    /// The TOML file that says who each certificate's holder is. It is read again when
    /// it changes.
    pub clients_file: Option<PathBuf>,
}

/// Users' passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// How many wrong passwords a peer may send in a minute for one user.
    pub failures_max: u32,
    /// How long the token is good that a handshake answers.
    pub token_secs: u64,
}

impl Default for PasswordConfig {
    fn default() -> Self {
        PasswordConfig {
            failures_max: 10,
            token_secs: 3_600,
        }
    }
}

/// Who may be a tenant, and what a session may do before it is bound to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenancyConfig {
    /// Whether a request that is bound to no tenant reads and writes the
    /// shared rows. When it is off, such a request is an error.
    pub anonymous_reads: bool,
    /// Whether a tenant has to be registered to be used.
    pub registered_only: bool,
    /// How many levels of tenants there may be, one below the other.
    pub depth_max: usize,
}

impl Default for TenancyConfig {
    fn default() -> Self {
        TenancyConfig {
            anonymous_reads: true,
            registered_only: false,
            depth_max: 8,
        }
    }
}

/// The sessions that clients bind to tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// How many sessions may be bound at a time.
    pub max: usize,
    /// How long a session may go unused before its binding is forgotten and its
    /// temporary tables are dropped.
    pub idle_timeout_secs: u64,
    /// How many temporary tables a session may have in a tenant, or among what is
    /// shared.
    pub temporary_tables_max: usize,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        SessionsConfig {
            max: 100_000,
            idle_timeout_secs: 86_400,
            temporary_tables_max: 256,
        }
    }
}

/// The transactions that clients open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransactionsConfig {
    /// How many may be open at a time.
    pub max: usize,
    /// How many of them may be one session's.
    pub session_max: usize,
    /// How long one in which something was read or written may go unused before
    /// it is rolled back.
    pub idle_timeout_secs: u64,
}

impl Default for TransactionsConfig {
    fn default() -> Self {
        TransactionsConfig {
            max: 4_096,
            session_max: 64,
            idle_timeout_secs: 300,
        }
    }
}

/// The databases of the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanesConfig {
    /// How many lanes' databases are open at a time; the least recently used
    /// one is closed for one more.
    pub open_max: usize,
    /// How long a transaction waits for another process that writes the same
    /// lane.
    pub busy_timeout_ms: u64,
    /// How many statements that read and transactions are open on one lane at a
    /// time. A tenant that has none on a lane gets its first beyond this.
    pub transactions_max: usize,
    /// How many of them may be one tenant's, where the lane is not its own.
    pub tenant_transactions_max: usize,
    /// How many savepoints a transaction may have open.
    pub savepoints_max: usize,
    /// How many short reads, such as those of the catalog, one lane does at a
    /// time.
    pub reads_max: usize,
    /// How many may wait to write one lane.
    pub writers_waiting_max: usize,
}

impl Default for LanesConfig {
    fn default() -> Self {
        LanesConfig {
            open_max: 256,
            busy_timeout_ms: 5_000,
            transactions_max: 64,
            tenant_transactions_max: 16,
            savepoints_max: 1_000,
            reads_max: 4,
            writers_waiting_max: 16_384,
        }
    }
}

/// Where sources may be, and how object stores are reached.
///
/// Credentials of object stores come from the `AWS_*` variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourcesConfig {
    /// The directories and URLs below which sources may be registered. Unset,
    /// they may be anywhere, except that a server that listens beyond loopback
    /// then registers none.
    pub roots: Option<Vec<String>>,
    /// The URL of an S3-compatible store other than Amazon's.
    pub s3_endpoint: Option<String>,
    /// The region of the S3 buckets.
    pub s3_region: Option<String>,
    /// Whether `s3_endpoint` may be plain HTTP.
    pub s3_allow_http: bool,
}

/// What a query may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The memory of all running queries together; beyond it they spill.
    pub memory_bytes: usize,
    /// How much of it one tenant's queries may have, where others leave it; half
    /// when unset. Several tenants have less each, so that some is always left.
    pub tenant_memory_bytes: Option<usize>,
    /// Where queries spill; the system's temporary directory when unset.
    pub spill_dir: Option<PathBuf>,
    /// The bytes of all spills together.
    pub spill_bytes_max: u64,
    /// How much of it one tenant's queries may have, as of memory; half when unset.
    pub tenant_spill_bytes_max: Option<u64>,
    /// How many partitions a query runs in; one a core when unset.
    pub target_partitions: Option<usize>,
    /// How many threads plan and run statements; 16 a core when unset.
    pub threads: Option<usize>,
    /// How many of them one tenant has at a time; 4 a core when unset. More
    /// statements wait for their turn.
    pub tenant_threads_max: Option<usize>,
    /// How many statements run at a time; further ones wait, and tenants are served
    /// in turns. Short ones are not counted, nor are those in transactions.
    pub queries_max: usize,
    /// How many of them may be one tenant's.
    pub tenant_queries_max: usize,
    /// How many statements of one tenant may wait.
    pub tenant_queries_waiting_max: usize,
    /// How long a statement waits for its turn.
    pub queue_timeout_ms: u64,
    /// How long a statement may take, from when it runs until its last row is
    /// fetched; 0 is for ever.
    pub statement_timeout_ms: u64,
    /// The rows of a record batch.
    pub batch_rows: usize,
    /// The longest SQL text or plan that is accepted.
    pub statement_bytes_max: usize,
    /// The most operators and keywords that follow each other in a statement
    /// without a comma or a bracket: each makes its plan deeper.
    pub operators_max: usize,
    /// The most tables that a statement reads, a `WITH` query counted as often
    /// as it is read.
    pub tables_max: usize,
    /// The most items of an `IN (...)`.
    pub list_items_max: usize,
    /// How many planned statements are kept.
    pub plan_cache_entries: u64,
    /// The memory that keeps decoded columns of stored tables, in bytes.
    pub table_cache_bytes: u64,
    /// The memory that keeps decoded columns of Parquet sources, in bytes.
    pub source_cache_bytes: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            memory_bytes: 1 << 30,
            tenant_memory_bytes: None,
            spill_dir: None,
            spill_bytes_max: 100 << 30,
            tenant_spill_bytes_max: None,
            target_partitions: None,
            threads: None,
            tenant_threads_max: None,
            queries_max: 256,
            tenant_queries_max: 32,
            tenant_queries_waiting_max: 1_024,
            queue_timeout_ms: 60_000,
            statement_timeout_ms: 0,
            batch_rows: 8_192,
            statement_bytes_max: 1 << 20,
            operators_max: 2_000,
            tables_max: 500,
            list_items_max: 100_000,
            plan_cache_entries: 1_024,
            table_cache_bytes: 256 << 20,
            source_cache_bytes: 1 << 30,
        }
    }
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether statements and requests are recorded. While they are, none runs that
    /// cannot be.
    pub enabled: bool,
    /// When a record is on the disk.
    pub durability: AuditDurability,
    /// How long a record may wait for others to be written with.
    pub flush_ms: u64,
    /// What is recorded of a statement's text.
    pub statements: AuditStatements,
    /// How many records may be under way, those of running requests among them;
    /// further requests wait.
    pub queue_max: usize,
    /// How long records may go without a signed checkpoint.
    pub checkpoint_secs: u64,
    /// The size from which a segment is followed by another.
    pub segment_bytes: u64,
    /// How long segments are kept; 0 is for ever.
    pub retention_days: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        AuditConfig {
            enabled: true,
            durability: AuditDurability::Batched,
            flush_ms: 100,
            statements: AuditStatements::Masked,
            queue_max: 8_192,
            checkpoint_secs: 5,
            segment_bytes: 64 << 20,
            retention_days: 0,
        }
    }
}

/// When an audit record is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditDurability {
    /// `audit.flush_ms` after the request was answered, at the latest.
    #[default]
    Batched,
    /// Before the request is answered to its end.
    BeforeAnswer,
}

/// What an audit record holds of a statement's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditStatements {
    /// The text with `?` in place of its literals.
    #[default]
    Masked,
    /// The text as it was sent.
    Full,
    /// Nothing.
    None,
}

/// The log on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line is written.
    pub format: LogFormat,
    /// What is written: a level, or directives such as `info,jammi_db=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            format: LogFormat::Text,
            filter: "info".into(),
        }
    }
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}
