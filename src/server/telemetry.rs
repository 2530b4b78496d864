//! The log and the metrics of the process.
//!
//! Both are the process's, so they are set up once: a program that embeds the
//! server and has its own keeps them.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
use crate::error::{Error, Result};

/// How often the metrics are tidied.
pub(super) const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The upper bounds of the histograms of times.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0,
];

/// Sends the log to stderr.
///
/// # Errors
/// [`Error::InvalidArgument`] for a filter that cannot be read.
pub fn log_to_stderr(config: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| {
        Error::InvalidArgument(format!(
            "setting `log.filter` is {:?} ({error}): write a level or directives",
            config.filter
        ))
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails where the embedding program has a log of its own.
    let _ = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
    };
    Ok(())
}

/// The metrics in Prometheus' text format; none where the embedding program
/// records them elsewhere.
pub(super) fn metrics() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .ok()?;
        describe();
        Some(handle)
    };
    HANDLE.get_or_init(install).as_ref()
}

fn describe() {
    for (name, text) in [
        ("jammi_connections", "Open connections, by port"),
        (
            "jammi_queries_polled",
            "Queries that run, or wait for their reader, because they were polled",
        ),
        (
            "jammi_queries_running",
            "Statements that run, from their admission to the end of their rows",
        ),
        (
            "jammi_queries_waiting",
            "Statements that wait for their turn to run",
        ),
        ("jammi_requests_active", "Requests that are running"),
        (
            "jammi_sessions_bound",
            "Sessions that are bound to a tenant",
        ),
        (
            "jammi_sessions_temporary",
            "Sessions that have temporary tables",
        ),
        ("jammi_transactions", "Transactions that clients have open"),
    ] {
        describe_gauge!(name, text);
    }
    for (name, text) in [
        (
            "jammi_audit_failures_total",
            "Writes of the audit trail that failed",
        ),
        (
            "jammi_audit_records_total",
            "Records written to the audit trail",
        ),
        (
            "jammi_connections_refused_total",
            "Connections closed at once because of server.connections_max",
        ),
        ("jammi_panics_total", "Requests that were ended by a panic"),
        (
            "jammi_requests_total",
            "Ended requests, by method and status",
        ),
        (
            "jammi_row_group_cache_total",
            "Row groups of Parquet files that scans looked for in memory, by whether they were there",
        ),
        (
            "jammi_scan_bytes_total",
            "Bytes of Parquet files that scans read",
        ),
        (
            "jammi_scan_files_total",
            "Files that scans listed, by whether they were read or skipped",
        ),
        (
            "jammi_scan_row_groups_total",
            "Row groups of Parquet files of several tenants, by whether they were read or skipped",
        ),
        (
            "jammi_transactions_ended_total",
            "Ended transactions, by how they ended",
        ),
        ("jammi_session_binds_total", "Bindings of sessions made"),
        (
            "jammi_session_expiries_total",
            "Bindings forgotten for being idle",
        ),
        (
            "jammi_authentication_failures_total",
            "Requests without a credential that is accepted",
        ),
        (
            "jammi_tls_handshakes_failed_total",
            "Connections that were not encrypted, by port and reason",
        ),
        (
            "jammi_usage_uncounted_total",
            "Statements that were not counted for their tenants, of whom too many had some",
        ),
        (
            "jammi_session_refusals_total",
            "Bindings refused because of sessions.max",
        ),
    ] {
        describe_counter!(name, text);
    }
    describe_histogram!(
        "jammi_request_seconds",
        Unit::Seconds,
        "How long requests took, by method"
    );
    describe_histogram!(
        "jammi_query_wait_seconds",
        Unit::Seconds,
        "How long statements waited for their turn, of those that did"
    );
}
