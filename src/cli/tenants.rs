//! `jammi tenants`: the tenants of an installation, for whoever runs it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt64Array,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::args::{GlobalArgs, OutputArgs, OutputFormat, TenantsCommand};
use super::catalog_rows::{NamedColumns, sheet_of};
use super::failure::{Failure, Outcome};
use super::notice;
use super::progress::Progress;
use super::sources::{say, show};
use super::target::Target;
use crate::error::Error;
use crate::server::proto::tenants::{
    Contents, CreateTenantRequest, DescribeTenantResponse, EraseTenantRequest, GetUsageResponse,
    Tenant, TenantState, UpdateTenantRequest,
};
use crate::tenancy::ImportOptions;
use crate::tenant::TenantId;

/// What is read of a file at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The tenant that a command works as: the operator's work is nobody's.
pub fn bound(global: &GlobalArgs, command: &TenantsCommand) -> Option<TenantId> {
    match command {
        TenantsCommand::Describe { id: None, .. } | TenantsCommand::Usage { id: None, .. } => {
            global.tenant
        }
        _ => None,
    }
}

/// Runs one of the commands about tenants.
pub async fn run(target: &Target, command: TenantsCommand) -> Outcome {
    match command {
        TenantsCommand::Create {
            name,
            id,
            parent,
            shares,
        } => {
            let text = |id: Option<TenantId>| id.map(|id| id.to_string()).unwrap_or_default();
            let request = CreateTenantRequest {
                id: text(id),
                name,
                parent: text(parent),
                shares,
            };
            let tenant = target.create_tenant(request).await?;
            // Alone, so that a script can keep it.
            say(&tenant.id)
        }
        TenantsCommand::List(output) => {
            let tenants = target.list_tenants().await?;
            show(output, |output| output.batch(&rows(facts(&tenants))?))
        }
        TenantsCommand::Describe { id, output } => {
            let described = target.describe_tenant(id).await?;
            describe(output, described)
        }
        TenantsCommand::Update {
            id,
            name,
            parent,
            no_parent,
            shares,
        } => {
            let request = UpdateTenantRequest {
                id: id.to_string(),
                name,
                parent: match no_parent {
                    true => Some(String::new()),
                    false => parent.map(|parent| parent.to_string()),
                },
                shares,
            };
            let tenant = target.update_tenant(request).await?;
            say(&format!("updated tenant {}", tenant.id))
        }
        TenantsCommand::Suspend { id } => {
            let tenant = target.suspend_tenant(id).await?;
            say(&format!("tenant {} is suspended", tenant.id))
        }
        TenantsCommand::Resume { id } => {
            let tenant = target.resume_tenant(id).await?;
            say(&format!("tenant {} may be used", tenant.id))
        }
        TenantsCommand::Export { id, file } => {
            let work = export(target, id, &file);
            Progress::start().watch(work).await?;
            say(&format!("exported tenant {id} to {}", file.display()))
        }
        TenantsCommand::Import {
            file,
            replace,
            without_shared_rows,
        } => {
            let options = ImportOptions {
                replace,
                without_shared_rows,
            };
            let work = import(target, &file, options);
            let tenant = Progress::start().watch(work).await?;
            say(&format!("imported tenant {tenant}"))
        }
        TenantsCommand::Erase { id, confirm } => {
            let request = EraseTenantRequest {
                id: id.to_string(),
                confirm: confirm.to_string(),
            };
            let work = target.erase_tenant(request);
            let certificate = Progress::start().watch(work).await?;
            say(&certificate)
        }
        TenantsCommand::Usage { id, output } => {
            let usage = target.tenant_usage(id).await?;
            show_facts(output, used(&usage), None)
        }
    }
}

/// Writes the archive to a new file, of which nothing stays if it fails.
async fn export(target: &Target, id: TenantId, file: &Path) -> Outcome {
    let unusable = |error: io::Error| {
        Failure::Usage(format!(
            "file {} cannot be written ({error}): name another",
            file.display()
        ))
    };
    let mut chunks = target.export_tenant(id).await?;
    let mut options = File::options();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut written = options.open(file).await.map_err(unusable)?;
    let copied = async {
        while let Some(chunk) = chunks.try_next().await? {
            written.write_all(&chunk).await.map_err(unusable)?;
        }
        written.flush().await.map_err(unusable)?;
        written.sync_all().await.map_err(unusable)
    };
    let copied = copied.await;
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(file).await;
    }
    copied
}

async fn import(target: &Target, file: &Path, options: ImportOptions) -> Outcome<String> {
    let opened = File::open(file).await.map_err(|error| {
        Failure::Usage(format!(
            "file {} cannot be read ({error}): name another",
            file.display()
        ))
    })?;
    let imported = target.import_tenant(chunks_of(opened), options).await?;
    for text in &imported.notices {
        notice(text);
    }
    let tenant = imported.tenant.unwrap_or_default();
    if tenant.state() == TenantState::Suspended {
        notice(format_args!(
            "it is suspended: let it be used with `jammi tenants resume {}`",
            tenant.id
        ));
    }
    Ok(tenant.id)
}

fn chunks_of(file: File) -> BoxStream<'static, Result<Bytes, Error>> {
    let chunks = stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut part = (&mut file).take(CHUNK_BYTES as u64);
        let read = part
            .read_to_end(&mut chunk)
            .await
            .map_err(|error| Error::internal("the archive cannot be read", error))?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    chunks.boxed()
}

fn describe(output: OutputArgs, described: DescribeTenantResponse) -> Outcome {
    let tenant = described.tenant.unwrap_or_default();
    let contents = described.contents.unwrap_or_default();
    let mut columns = facts(&[tenant]);
    columns.extend(counts(&contents));
    show_facts(output, columns, Some(&contents))
}

/// For people, a fact a line, and what else there is below; for programs, one row.
fn show_facts(output: OutputArgs, facts: NamedColumns, contents: Option<&Contents>) -> Outcome {
    show(output, |output| {
        if output.format() != OutputFormat::Table {
            return output.batch(&rows(facts)?);
        }
        output.batch(&sheet_of(&facts)?)?;
        match contents {
            Some(contents) if !contents.tables.is_empty() => output.batch(&tables(contents)?),
            _ => Ok(()),
        }
    })
}

fn rows(columns: NamedColumns) -> Outcome<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn facts(tenants: &[Tenant]) -> NamedColumns {
    let texts = |text: &dyn Fn(&Tenant) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(tenants.iter().map(text)))
    };
    let times = |time: &dyn Fn(&Tenant) -> Option<i64>| -> ArrayRef {
        let times = TimestampMillisecondArray::from_iter(tenants.iter().map(time));
        Arc::new(times.with_timezone("UTC"))
    };
    let shares: Vec<bool> = tenants.iter().map(|tenant| tenant.shares).collect();
    vec![
        ("id", texts(&|tenant| tenant.id.clone())),
        ("name", texts(&|tenant| tenant.name.clone())),
        ("state", texts(&|tenant| state(tenant).to_owned())),
        ("parent", texts(&|tenant| tenant.parent.clone())),
        ("shares", Arc::new(BooleanArray::from(shares))),
        ("created_at", times(&|tenant| tenant.created_at_ms)),
        ("state_at", times(&|tenant| tenant.state_at_ms)),
    ]
}

fn state(tenant: &Tenant) -> &'static str {
    match (tenant.state(), tenant.created_at_ms) {
        (TenantState::Active | TenantState::Unspecified, None) => "unregistered",
        (TenantState::Active | TenantState::Unspecified, Some(_)) => "active",
        (TenantState::Suspended, _) => "suspended",
        (TenantState::Erasing, _) => "erasing",
    }
}

fn counts(contents: &Contents) -> NamedColumns {
    let count = |count: usize| -> ArrayRef { Arc::new(Int64Array::from(vec![count as i64])) };
    let rows: u64 = contents.tables.iter().map(|table| table.rows).sum();
    vec![
        ("tables", count(contents.tables.len())),
        ("rows", Arc::new(UInt64Array::from(vec![rows]))),
        ("views", count(contents.views.len())),
        ("sources", count(contents.sources.len())),
        ("models", count(contents.models.len())),
    ]
}

fn tables(contents: &Contents) -> Outcome<RecordBatch> {
    let tables = &contents.tables;
    let names = StringArray::from_iter_values(tables.iter().map(|table| &table.name));
    let shared: Vec<bool> = tables.iter().map(|table| table.shared).collect();
    let counts = UInt64Array::from_iter_values(tables.iter().map(|table| table.rows));
    rows(vec![
        ("table", Arc::new(names)),
        ("shared", Arc::new(BooleanArray::from(shared))),
        ("rows", Arc::new(counts)),
    ])
}

fn used(usage: &GetUsageResponse) -> NamedColumns {
    let number = |number: u64| -> ArrayRef { Arc::new(UInt64Array::from(vec![number])) };
    let seconds = usage.running_us as f64 / 1e6;
    let since = TimestampMillisecondArray::from(vec![usage.since_ms]).with_timezone("UTC");
    vec![
        ("id", Arc::new(StringArray::from(vec![usage.id.clone()]))),
        ("rows_stored", number(usage.rows_stored)),
        ("bytes_stored", number(usage.bytes_stored)),
        ("queries", number(usage.queries)),
        ("rows_returned", number(usage.rows_returned)),
        (
            "running_seconds",
            Arc::new(Float64Array::from(vec![seconds])),
        ),
        ("since", Arc::new(since)),
    ]
}
