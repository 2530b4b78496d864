//! Which values a setting takes, beyond its kind.

use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::{
    AuditConfig, AuthConfig, AuthenticationMethod, ConsoleConfig, EngineConfig, JammiConfig,
    JwtConfig, LanesConfig, LogConfig, ServerConfig, SessionsConfig, SourcesConfig, TenancyConfig,
    TlsConfig, TransactionsConfig,
};
use crate::auth::JwtAlgorithm;
use crate::error::{Error, Result};
use crate::tenant::ROLES;

/// The largest number of milliseconds or seconds that a setting takes: a
/// hundred years of seconds, well inside every clock's range.
const DURATION_MAX: u64 = 3_155_760_000;

impl JammiConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the setting and what it takes.
    pub fn validate(&self) -> Result<()> {
        if self.artifact_dir.as_os_str().is_empty() {
            return refuse("artifact_dir", "is empty", "name a directory");
        }
        self.server.validate()?;
        self.tls.validate()?;
        self.console.validate()?;
        self.console_reaches_grpc()?;
        self.auth.validate()?;
        self.mtls_has_its_files()?;
        self.tenancy.validate()?;
        self.sessions.validate()?;
        self.transactions.validate()?;
        self.lanes.validate()?;
        self.sources.validate()?;
        self.engine.validate()?;
        self.audit.validate()?;
        self.log.validate()
    }
}

impl JammiConfig {
    /// A page finds the gRPC port by the scheme that it was itself fetched by.
    fn console_reaches_grpc(&self) -> Result<()> {
        let by_scheme = self.console.enabled && self.console.grpc_url.is_none();
        match by_scheme && self.tls.is_on() != self.tls.http {
            true => refuse(
                "tls.http",
                "is off, so that the console's page cannot call the port of gRPC, which is \
                 encrypted",
                "set it to true, or set console.grpc_url",
            ),
            false => Ok(()),
        }
    }
}

impl TlsConfig {
    fn validate(&self) -> Result<()> {
        for (name, file) in [
            ("tls.certificate_file", &self.certificate_file),
            ("tls.private_key_file", &self.private_key_file),
            ("tls.client_ca_file", &self.client_ca_file),
            ("tls.client_crl_file", &self.client_crl_file),
        ] {
            if file
                .as_ref()
                .is_some_and(|file| file.as_os_str().is_empty())
            {
                return refuse(name, "is empty", "name a PEM file, or unset it");
            }
        }
        for (name, is_wrong, why, mend) in [
            (
                "tls.private_key_file",
                self.private_key_file.is_none() && self.is_on(),
                "is not set",
                "name the private key of tls.certificate_file",
            ),
            (
                "tls.certificate_file",
                !self.is_on() && self.private_key_file.is_some(),
                "is not set",
                "name the certificate of tls.private_key_file",
            ),
            (
                "tls.http",
                !self.is_on() && self.http,
                "is on",
                "set tls.certificate_file and tls.private_key_file too",
            ),
            (
                "tls.client_ca_file",
                !self.is_on() && self.client_ca_file.is_some(),
                "is set",
                "set tls.certificate_file and tls.private_key_file too",
            ),
            (
                "tls.client_crl_file",
                self.client_ca_file.is_none() && self.client_crl_file.is_some(),
                "is set",
                "set tls.client_ca_file too",
            ),
        ] {
            if is_wrong {
                return refuse(name, why, mend);
            }
        }
        Ok(())
    }
}

impl AuthConfig {
    fn validate(&self) -> Result<()> {
        let methods = &self.methods;
        let is_twice = |at: usize| methods[..at].contains(&methods[at]);
        if (0..methods.len()).any(is_twice) {
            return refuse(
                "auth.methods",
                "names a method twice",
                "name each once, in the order in which they are to be tried",
            );
        }
        for (name, failures) in [
            ("auth.failures_max", self.failures_max),
            ("auth.password.failures_max", self.password.failures_max),
        ] {
            between(name, failures.into(), 1, 1 << 20)?;
        }
        let token = self.password.token_secs;
        between("auth.password.token_secs", token, 1, DURATION_MAX)?;
        match methods.contains(&AuthenticationMethod::Jwt) {
            true => self.jwt.validate(),
            false => Ok(()),
        }
    }
}

impl JammiConfig {
    /// Clients' certificates are asked for by TLS.
    fn mtls_has_its_files(&self) -> Result<()> {
        if !self.auth.methods.contains(&AuthenticationMethod::Mtls) {
            return Ok(());
        }
        for (name, is_set, mend) in [
            (
                "tls.client_ca_file",
                self.tls.client_ca_file.is_some(),
                "name the roots of clients' certificates",
            ),
            (
                "auth.mtls.clients_file",
                self.auth.mtls.clients_file.is_some(),
                "name the file that says who holds which certificate",
            ),
        ] {
            if !is_set {
                return refuse(name, "is not set, and auth.methods names mtls", mend);
            }
        }
        Ok(())
    }
}

impl JwtConfig {
    fn validate(&self) -> Result<()> {
        let needed = [
            (
                "auth.jwt.issuer",
                self.issuer.as_deref().is_none_or(str::is_empty),
                "name whose tokens are accepted, as their claim `iss` does",
            ),
            (
                "auth.jwt.audiences",
                self.audiences.is_empty() || self.audiences.contains(&String::new()),
                "name what tokens for this server have in their claim `aud`",
            ),
            (
                "auth.jwt.algorithms",
                self.algorithms.is_empty(),
                "name how tokens are signed, as in RS256 or ES256",
            ),
            (
                "auth.jwt.user_claim",
                self.user_claim.is_empty(),
                "name a claim, such as sub",
            ),
            (
                "auth.jwt.tenants_claim",
                self.tenants_claim.is_empty(),
                "name a claim, such as tenants",
            ),
            (
                "auth.jwt.roles_claim",
                self.roles_claim.is_empty(),
                "name a claim, such as roles",
            ),
        ];
        for (name, is_missing, mend) in needed {
            if is_missing {
                return refuse(name, "is empty, and auth.methods names jwt", mend);
            }
        }
        let by_secret = |one: &JwtAlgorithm| one.secret_bytes_min().is_some();
        if self.algorithms.iter().any(by_secret) && !self.algorithms.iter().all(by_secret) {
            return refuse(
                "auth.jwt.algorithms",
                "mixes secrets with public keys",
                "name either algorithms of secrets (HS256, ...) or of public keys (RS256, ...)",
            );
        }
        match (&self.keys_file, &self.keys_url) {
            (Some(_), None) => {}
            (None, Some(url)) => self.validate_url(url)?,
            _ => {
                return refuse(
                    "auth.jwt.keys_file",
                    "and `auth.jwt.keys_url` are both set, or neither is",
                    "set one of them",
                );
            }
        }
        for role in &self.roles {
            if !ROLES.contains(&role.as_str()) {
                return refuse(
                    "auth.jwt.roles",
                    &format!("holds {role:?}"),
                    &format!("choose of {}", ROLES.join(", ")),
                );
            }
        }
        let day = 86_400;
        between("auth.jwt.leeway_secs", self.leeway_secs, 0, 600)?;
        between("auth.jwt.keys_retry_secs", self.keys_retry_secs, 1, day)?;
        let refresh = self.keys_refresh_secs;
        between("auth.jwt.keys_refresh_secs", refresh, 1, day)?;
        let stale = self.keys_stale_secs;
        between("auth.jwt.keys_stale_secs", stale, refresh, 30 * day)
    }

    /// What is fetched decides who is who: nobody may change it on its way.
    fn validate_url(&self, url: &str) -> Result<()> {
        let parsed = Url::parse(url).ok();
        let is_loopback = |url: &Url| match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            _ => false,
        };
        let is_safe = parsed.is_some_and(|url| {
            url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url))
        });
        if !is_safe {
            return refuse(
                "auth.jwt.keys_url",
                "is no URL of https",
                "write it as https://HOST/PATH; plain http is for addresses of loopback alone",
            );
        }
        if self
            .algorithms
            .iter()
            .any(|one| one.secret_bytes_min().is_some())
        {
            return refuse(
                "auth.jwt.keys_url",
                "is set, and auth.jwt.algorithms names one of secrets",
                "keep secrets in auth.jwt.keys_file",
            );
        }
        Ok(())
    }
}

impl ConsoleConfig {
    fn validate(&self) -> Result<()> {
        match &self.grpc_url {
            Some(url) if !is_origin(url) => refuse(
                "console.grpc_url",
                &format!("is {url:?}"),
                "name a scheme, a host and a port in lower case without a path, as in \
                 https://grpc.example.com or http://localhost:8080",
            ),
            _ => Ok(()),
        }
    }
}

impl ServerConfig {
    fn validate(&self) -> Result<()> {
        address("server.listen", &self.listen)?;
        address("server.http_listen", &self.http_listen)?;
        if self.listen == self.http_listen && !self.listen.ends_with(":0") {
            return refuse(
                "server.http_listen",
                &format!("is {:?}, as server.listen is", self.http_listen),
                "choose another port",
            );
        }
        for origin in &self.allowed_origins {
            origin_is_exact(origin)?;
        }
        let message = self.message_bytes_max as u64;
        between("server.message_bytes_max", message, 64 << 10, (2 << 30) - 1)?;
        let header = u64::from(self.header_bytes_max);
        between("server.header_bytes_max", header, 4 << 10, 1 << 20)?;
        between(
            "server.handle_ttl_secs",
            self.handle_ttl_secs,
            1,
            DURATION_MAX,
        )?;
        between(
            "server.drain_timeout_ms",
            self.drain_timeout_ms,
            0,
            DURATION_MAX,
        )?;
        let connections = self.connections_max as u64;
        between("server.connections_max", connections, 1, 1 << 20)?;
        let streams = u64::from(self.connection_streams_max);
        between("server.connection_streams_max", streams, 1, 1 << 20)?;
        for (name, value) in [
            ("server.first_bytes_timeout_ms", self.first_bytes_timeout_ms),
            ("server.keepalive_interval_ms", self.keepalive_interval_ms),
            ("server.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("server.put_timeout_ms", self.put_timeout_ms),
            ("server.poll_timeout_ms", self.poll_timeout_ms),
        ] {
            between(name, value, 1, DURATION_MAX)?;
        }
        let polled = self.polled_queries_max as u64;
        between("server.polled_queries_max", polled, 0, 1 << 20)?;
        Ok(())
    }
}

impl TenancyConfig {
    fn validate(&self) -> Result<()> {
        between("tenancy.depth_max", self.depth_max as u64, 1, 64)
    }
}

impl SessionsConfig {
    fn validate(&self) -> Result<()> {
        between("sessions.max", self.max as u64, 1, 100_000_000)?;
        let idle = self.idle_timeout_secs;
        between("sessions.idle_timeout_secs", idle, 1, DURATION_MAX)?;
        let tables = self.temporary_tables_max as u64;
        between("sessions.temporary_tables_max", tables, 0, 1 << 20)
    }
}

impl TransactionsConfig {
    fn validate(&self) -> Result<()> {
        between("transactions.max", self.max as u64, 1, 1 << 20)?;
        let session_max = self.session_max as u64;
        between("transactions.session_max", session_max, 1, 1 << 20)?;
        let idle = self.idle_timeout_secs;
        between("transactions.idle_timeout_secs", idle, 1, DURATION_MAX)
    }
}

impl LanesConfig {
    fn validate(&self) -> Result<()> {
        between("lanes.open_max", self.open_max as u64, 1, 1 << 20)?;
        // SQLite takes a C int.
        let busy = self.busy_timeout_ms;
        between("lanes.busy_timeout_ms", busy, 0, i32::MAX as u64)?;
        for (name, value) in [
            ("lanes.transactions_max", self.transactions_max),
            (
                "lanes.tenant_transactions_max",
                self.tenant_transactions_max,
            ),
            ("lanes.savepoints_max", self.savepoints_max),
            ("lanes.reads_max", self.reads_max),
            ("lanes.writers_waiting_max", self.writers_waiting_max),
        ] {
            between(name, value as u64, 1, 1 << 20)?;
        }
        Ok(())
    }
}

impl SourcesConfig {
    fn validate(&self) -> Result<()> {
        for root in self.roots.iter().flatten() {
            if !root.starts_with('/') && Url::parse(root).is_err() {
                return refuse(
                    "sources.roots",
                    &format!("holds {root:?}"),
                    "write absolute directories such as /data, or URLs such as s3://bucket/path",
                );
            }
        }
        if let Some(endpoint) = &self.s3_endpoint {
            match Url::parse(endpoint).as_ref().map(Url::scheme) {
                Ok("https") => {}
                Ok("http") if self.s3_allow_http => {}
                Ok("http") => {
                    return refuse(
                        "sources.s3_endpoint",
                        "is plain HTTP",
                        "use https, or set sources.s3_allow_http = true",
                    );
                }
                _ => {
                    return refuse(
                        "sources.s3_endpoint",
                        "is not an http or https URL",
                        "write it as https://HOST:PORT",
                    );
                }
            }
        }
        if self.s3_region.as_deref() == Some("") {
            return refuse(
                "sources.s3_region",
                "is empty",
                "name a region, or unset it",
            );
        }
        Ok(())
    }
}

impl EngineConfig {
    fn validate(&self) -> Result<()> {
        let whole = u64::MAX >> 1;
        between(
            "engine.memory_bytes",
            self.memory_bytes as u64,
            16 << 20,
            whole,
        )?;
        if let Some(tenant) = self.tenant_memory_bytes {
            let (tenant, all) = (tenant as u64, self.memory_bytes as u64);
            between("engine.tenant_memory_bytes", tenant, 1 << 20, all)?;
        }
        between("engine.spill_bytes_max", self.spill_bytes_max, 0, whole)?;
        if let Some(tenant) = self.tenant_spill_bytes_max {
            let all = self.spill_bytes_max;
            between("engine.tenant_spill_bytes_max", tenant, 0, all)?;
        }
        for (name, value, min) in [
            ("engine.queries_max", self.queries_max, 1),
            ("engine.tenant_queries_max", self.tenant_queries_max, 1),
            (
                "engine.tenant_queries_waiting_max",
                self.tenant_queries_waiting_max,
                0,
            ),
        ] {
            between(name, value as u64, min, 1 << 20)?;
        }
        let queue = self.queue_timeout_ms;
        between("engine.queue_timeout_ms", queue, 0, DURATION_MAX)?;
        let timeout = self.statement_timeout_ms;
        between("engine.statement_timeout_ms", timeout, 0, DURATION_MAX)?;
        between("engine.batch_rows", self.batch_rows as u64, 1, 1 << 20)?;
        let statement = self.statement_bytes_max as u64;
        between("engine.statement_bytes_max", statement, 64, 1 << 30)?;
        // What the stack of a plan thread holds.
        let operators = self.operators_max as u64;
        between("engine.operators_max", operators, 16, 10_000)?;
        between("engine.tables_max", self.tables_max as u64, 1, 2_000)?;
        let items = self.list_items_max as u64;
        between("engine.list_items_max", items, 1, 1 << 30)?;
        for (name, value) in [
            ("engine.target_partitions", self.target_partitions),
            ("engine.threads", self.threads),
            ("engine.tenant_threads_max", self.tenant_threads_max),
        ] {
            if let Some(value) = value {
                between(name, value as u64, 1, 4_096)?;
            }
        }
        if self
            .spill_dir
            .as_ref()
            .is_some_and(|dir| dir.as_os_str().is_empty())
        {
            return refuse(
                "engine.spill_dir",
                "is empty",
                "name a directory, or unset it",
            );
        }
        between("engine.table_cache_bytes", self.table_cache_bytes, 0, whole)?;
        between(
            "engine.source_cache_bytes",
            self.source_cache_bytes,
            0,
            whole,
        )?;
        between(
            "engine.plan_cache_entries",
            self.plan_cache_entries,
            0,
            1 << 30,
        )
    }
}

impl AuditConfig {
    fn validate(&self) -> Result<()> {
        between("audit.flush_ms", self.flush_ms, 1, 60_000)?;
        let queue = self.queue_max as u64;
        between("audit.queue_max", queue, 1, 1 << 20)?;
        between("audit.checkpoint_secs", self.checkpoint_secs, 1, 86_400)?;
        let segment = self.segment_bytes;
        between("audit.segment_bytes", segment, 4 << 10, 1 << 40)?;
        between("audit.retention_days", self.retention_days, 0, 36_500)
    }
}

impl LogConfig {
    fn validate(&self) -> Result<()> {
        match EnvFilter::try_new(&self.filter) {
            Ok(_) => Ok(()),
            Err(error) => refuse(
                "log.filter",
                &format!("is {:?} ({error})", self.filter),
                "write a level (error, warn, info, debug, trace) or directives such as \
                 info,jammi_db=debug",
            ),
        }
    }
}

fn refuse<T>(name: &str, why: &str, mend: &str) -> Result<T> {
    Err(Error::InvalidArgument(format!(
        "setting `{name}` {why}: {mend}"
    )))
}

fn between(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    refuse(name, &format!("is {value}"), &format!("use {min} to {max}"))
}

/// `HOST:PORT`, where an IPv6 host is in brackets.
fn address(name: &str, text: &str) -> Result<()> {
    let port_is_number =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_plain = !host.is_empty() && !host.contains(':');
        let host_is_v6 = host.starts_with('[') && host.ends_with(']');
        (host_is_plain || host_is_v6) && port_is_number(port)
    });
    if valid {
        return Ok(());
    }
    refuse(
        name,
        &format!("is {text:?}"),
        "write HOST:PORT, as in 127.0.0.1:50051 or [::1]:50051",
    )
}

/// Whether a text is `scheme://host[:port]` as a browser sends it in `Origin`.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && !text.contains('*')
            && url.origin().ascii_serialization() == text
    })
}

fn origin_is_exact(text: &str) -> Result<()> {
    if is_origin(text) {
        return Ok(());
    }
    refuse(
        "server.allowed_origins",
        &format!("holds {text:?}"),
        "list exact origins in lower case without a path, as in https://app.example.com or \
         http://localhost:5173; there is no wildcard",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        for (text, ok) in [
            ("https://app.example.com", true),
            ("http://localhost:5173", true),
            ("http://[::1]:8080", true),
            ("*", false),
            ("https://*.example.com", false),
            ("null", false),
            ("", false),
            ("https://app.example.com/", false),
            ("https://app.example.com/path", false),
            ("https://App.example.com", false),
            ("https://app.example.com:443", false),
            ("app.example.com", false),
            ("file:///tmp", false),
        ] {
            assert_eq!(origin_is_exact(text).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (text, ok) in [
            ("127.0.0.1:50051", true),
            ("[::1]:0", true),
            ("localhost:1", true),
            ("0.0.0.0:65535", true),
            ("::1:50051", false),
            ("127.0.0.1", false),
            ("127.0.0.1:65536", false),
            ("127.0.0.1:+1", false),
            ("127.0.0.1:", false),
            (":50051", false),
            ("", false),
        ] {
            assert_eq!(address("server.listen", text).is_ok(), ok, "{text:?}");
        }
    }

    fn by_tokens() -> JammiConfig {
        let mut config = JammiConfig::default();
        config.auth.methods = vec![AuthenticationMethod::Jwt];
        config.auth.jwt = JwtConfig {
            issuer: Some("https://issuer.example.com".into()),
            audiences: vec!["jammi".into()],
            algorithms: vec![JwtAlgorithm::ES256],
            keys_file: Some("keys.json".into()),
            ..JwtConfig::default()
        };
        config
    }

    #[test]
    fn a_value_out_of_range_names_its_setting() {
        type Change = fn(&mut JammiConfig);
        let cases: [(&str, Change); 29] = [
            ("artifact_dir", |c| c.artifact_dir = "".into()),
            ("server.listen", |c| c.server.listen = "50051".into()),
            ("server.http_listen", |c| {
                c.server.http_listen = c.server.listen.clone()
            }),
            ("server.allowed_origins", |c| {
                c.server.allowed_origins = vec!["*".into()]
            }),
            ("console.grpc_url", |c| {
                c.console.grpc_url = Some("https://db.example.com/grpc".into())
            }),
            ("tls.private_key_file", |c| {
                c.tls.certificate_file = Some("server.pem".into())
            }),
            ("tls.certificate_file", |c| {
                c.tls.private_key_file = Some("server.key".into())
            }),
            ("tls.http", |c| c.tls.http = true),
            ("tls.client_ca_file", |c| {
                c.tls.client_ca_file = Some("ca.pem".into())
            }),
            ("auth.methods", |c| {
                c.auth.methods = vec![AuthenticationMethod::Jwt; 2]
            }),
            ("tls.client_ca_file", |c| {
                c.auth.methods = vec![AuthenticationMethod::Mtls]
            }),
            ("auth.jwt.issuer", |c| {
                c.auth.methods = vec![AuthenticationMethod::Jwt]
            }),
            ("auth.jwt.algorithms", |c| {
                *c = by_tokens();
                c.auth.jwt.algorithms.push(JwtAlgorithm::HS256)
            }),
            ("auth.jwt.keys_file", |c| {
                *c = by_tokens();
                c.auth.jwt.keys_file = None
            }),
            ("auth.jwt.keys_url", |c| {
                *c = by_tokens();
                c.auth.jwt.keys_file = None;
                c.auth.jwt.keys_url = Some("http://issuer.example.com/keys".into())
            }),
            ("auth.failures_max", |c| c.auth.failures_max = 0),
            ("auth.password.failures_max", |c| {
                c.auth.password.failures_max = 0
            }),
            ("auth.jwt.roles", |c| {
                *c = by_tokens();
                c.auth.jwt.roles = vec!["root".into()]
            }),
            ("server.message_bytes_max", |c| {
                c.server.message_bytes_max = 1
            }),
            ("sessions.idle_timeout_secs", |c| {
                c.sessions.idle_timeout_secs = 0
            }),
            ("lanes.open_max", |c| c.lanes.open_max = 0),
            ("lanes.tenant_transactions_max", |c| {
                c.lanes.tenant_transactions_max = 0
            }),
            ("sources.roots", |c| {
                c.sources.roots = Some(vec!["data".into()])
            }),
            ("sources.s3_endpoint", |c| {
                c.sources.s3_endpoint = Some("http://127.0.0.1:9000".into())
            }),
            ("engine.memory_bytes", |c| c.engine.memory_bytes = 0),
            ("engine.tenant_memory_bytes", |c| {
                c.engine.tenant_memory_bytes = Some(c.engine.memory_bytes + 1)
            }),
            ("engine.tenant_spill_bytes_max", |c| {
                c.engine.tenant_spill_bytes_max = Some(c.engine.spill_bytes_max + 1)
            }),
            ("engine.target_partitions", |c| {
                c.engine.target_partitions = Some(0)
            }),
            ("log.filter", |c| c.log.filter = "jammi_db=loud".into()),
        ];
        assert!(JammiConfig::default().validate().is_ok());
        assert!(by_tokens().validate().is_ok());
        for (name, change) in cases {
            let mut config = JammiConfig::default();
            change(&mut config);
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(&format!("`{name}`")), "{name}: {text}");
        }
    }
}
