//! Two tenants and the shared lane, from two processes. A second `Backend` on
//! one directory stands for a second process.

mod isolation;
mod records;
mod snapshots;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;

use super::*;
use crate::backend::tests::{alice, bob};
use crate::config::LanesConfig;
use crate::tenant::Principal;

fn as_alice() -> Scope {
    Scope::tenant_bound(Principal::trusted_network(), alice())
}

fn as_bob() -> Scope {
    Scope::tenant_bound(Principal::trusted_network(), bob())
}

fn unbound() -> Scope {
    Scope::global(Principal::trusted_network())
}

async fn catalog(dir: &TempDir) -> Catalog {
    let backend = Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap();
    Catalog::with_clock(backend, || 1_700_000_000_000)
}

fn new_source(name: &str, location: &str) -> NewSource {
    NewSource {
        name: name.into(),
        location: location.into(),
        format: SourceFormat::Parquet,
        tenant_column: TenantColumn::Named {
            column: "tenant_id".into(),
            encoding: TenantEncoding::Bytes,
        },
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("tenant_id", DataType::FixedSizeBinary(16), true),
            Field::new("day", DataType::Utf8, true),
        ])),
        partition_columns: vec!["day".into()],
    }
}

fn new_model(name: &str, version: &str) -> NewModel {
    NewModel {
        name: name.into(),
        version: version.into(),
        uri: format!("s3://models/{name}/{version}"),
        metadata: "{ \"kept\": \"as given\" }".into(),
    }
}

/// Name and location of what a scope lists.
async fn listed(catalog: &Catalog, scope: &Scope) -> Vec<(String, String)> {
    let sources = catalog.sources(scope).await.unwrap();
    sources
        .iter()
        .map(|source| {
            let definition = &source.definition;
            (definition.name.clone(), definition.location.clone())
        })
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, location)| (name.to_string(), location.to_string()))
        .collect()
}

/// The tenants that have a database.
fn databases(dir: &TempDir) -> usize {
    std::fs::read_dir(dir.path().join("tenants"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "db")
        .count()
}
