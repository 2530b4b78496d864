//! The sample of `jammi serve --sample`: notes of three tenants in one file, a
//! table of currencies that all of them share, and a first program to run.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::catalog::SourceFormat;
use crate::config::JammiConfig;
use crate::engine::{Engine, RegisterSource, TenantColumnChoice};
use crate::error::{Error, Result};
use crate::tenant::{Principal, Scope};

/// Alice, Bob and Carol: the tenants of the sample.
pub const TENANTS: [(&str, &str); 3] = [
    ("Alice", "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a"),
    ("Bob", "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b"),
    ("Carol", "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c"),
];

/// A Python program that binds two sessions and shows what each of them sees.
const PROGRAM: &str = include_str!("sample.py");

/// What the program makes its gRPC calls from.
const SESSION_PROTO: &str = include_str!("../../proto/jammi/v1/session/session.proto");

/// Where the sample's files are kept.
pub fn dir(config: &JammiConfig) -> PathBuf {
    config.artifact_dir.join("sample")
}

/// Writes the sample's files and registers them as shared sources, those that
/// are not there yet.
pub async fn load(engine: &Engine, dir: &Path) -> Result<()> {
    let unwritten = |error: &dyn std::fmt::Display| {
        Error::InvalidArgument(format!(
            "the sample cannot be written to {}: {error}: make the directory writable, \
             or leave --sample out",
            dir.display()
        ))
    };
    fs::create_dir_all(dir).map_err(|error| unwritten(&error))?;
    let scope = Scope::global(Principal::trusted_network());
    let present = engine.catalog().snapshot(&scope).await?;
    for (name, rows) in [("notes", notes()), ("currencies", currencies())] {
        let rows = rows.map_err(|error| unwritten(&error))?;
        let path = dir.join(format!("{name}.parquet"));
        if present.source(name).is_some() {
            continue;
        }
        write(&path, &rows).map_err(|error| unwritten(&error))?;
        let request = RegisterSource {
            name: name.into(),
            location: path.to_string_lossy().into_owned(),
            format: Some(SourceFormat::Parquet),
            tenant_column: TenantColumnChoice::Infer,
        };
        engine.register_source(&scope, request).await?;
    }
    let proto_dir = dir.join("proto/jammi/v1/session");
    fs::create_dir_all(&proto_dir).map_err(|error| unwritten(&error))?;
    fs::write(proto_dir.join("session.proto"), SESSION_PROTO).map_err(|error| unwritten(&error))
}

/// How to try the sample from Python, with a server that listens at `grpc`: a
/// program that runs as it is printed, from any directory.
pub fn first_session(dir: &Path, grpc: SocketAddr) -> String {
    // A wildcard address is one to listen at, not one to connect to.
    let host = match grpc.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        ip if ip.is_ipv6() => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let proto = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let proto = proto.join("proto").to_string_lossy().into_owned();
    // A JSON string is a Python string.
    let proto = serde_json::Value::from(proto).to_string();
    let program = PROGRAM
        .replace("\"PROTO\"", &proto)
        .replace("HOST:PORT", &format!("{host}:{}", grpc.port()));
    format!(
        "the sample is loaded; to try it, paste this into Python, after\n  \
         pip install adbc-driver-flightsql pyarrow grpcio grpcio-tools\n\n{program}"
    )
}

fn write(path: &Path, rows: &RecordBatch) -> parquet::errors::Result<()> {
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), None)?;
    writer.write(rows)?;
    writer.close()?;
    Ok(())
}

/// Three notes of each tenant, and one that is everybody's.
fn notes() -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let mut tenants = vec![None];
    let mut titles = vec!["Welcome to Jammi".to_owned()];
    for (name, tenant) in TENANTS {
        for title in ["groceries", "ideas", "plan"] {
            tenants.push(Some(tenant));
            titles.push(format!("{name}'s {title}"));
        }
    }
    let ids = 1..=i64::try_from(titles.len()).unwrap_or(i64::MAX);
    RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef,
        ),
        ("tenant_id", Arc::new(StringArray::from(tenants))),
        ("title", Arc::new(StringArray::from(titles))),
    ])
}

fn currencies() -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    RecordBatch::try_from_iter([
        (
            "code",
            Arc::new(StringArray::from(vec!["CHF", "EUR", "JPY", "USD"])) as ArrayRef,
        ),
        (
            "per_euro",
            Arc::new(Float64Array::from(vec![0.95, 1.0, 162.0, 1.08])),
        ),
    ])
}
