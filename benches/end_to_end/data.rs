//! The files that are measured, made once from a seed and kept.
//!
//! A tenant's rows depend on the tenant and the row alone, so that one tenant
//! has the same rows in every file, however many others there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use jammi_db::TenantId;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::shared::{Outcome, mixed};

/// Rows of one tenant wherever tenants share a source.
pub const TENANT_ROWS: u64 = 10_000;
/// Tenants of the larger shared source, and of the smaller one.
pub const MANY_TENANTS: u64 = 1_000;
pub const FEW_TENANTS: u64 = 100;
/// Rows of the source that one tenant owns whole.
pub const WHOLE_ROWS: u64 = 10_000_000;

/// Part of the directory's name: another layout of the files is another
/// directory.
const LAYOUT: &str = "jammi-bench-1";
const KINDS: [&str; 8] = [
    "alert", "call", "invoice", "letter", "note", "order", "task", "visit",
];
const BATCH_ROWS: u64 = 10_000;

/// Where the files are.
pub struct Data {
    dir: PathBuf,
}

impl Data {
    /// The files below `parent`, made if they are not there yet.
    pub fn open(parent: &Path) -> Outcome<Data> {
        let dir = parent.join(LAYOUT);
        if !dir.is_dir() {
            let making = parent.join(format!("{LAYOUT}-making"));
            let _ = fs::remove_dir_all(&making);
            fs::create_dir_all(&making)?;
            eprintln!("making the data in {} (once)", dir.display());
            make(&making)?;
            fs::rename(&making, &dir)?;
        }
        Ok(Data { dir })
    }

    /// The tenant's rows in a file of their own.
    pub fn own(&self) -> PathBuf {
        self.dir.join("own.parquet")
    }

    /// One file with the rows of `tenants` tenants, sorted by tenant.
    pub fn sorted(&self, tenants: u64) -> PathBuf {
        self.dir.join(format!("sorted-{tenants}.parquet"))
    }

    /// A directory for each of `tenants` tenants.
    pub fn hive(&self, tenants: u64) -> PathBuf {
        self.dir.join(format!("hive-{tenants}"))
    }

    /// One file of ten million rows that are all the tenant's.
    pub fn whole(&self) -> PathBuf {
        self.dir.join("whole.parquet")
    }
}

/// The tenant that is measured: the same one among few and among many.
pub fn tenant() -> Tenant {
    Tenant::at(MANY_TENANTS / 2, MANY_TENANTS)
}

/// A tenant of the data.
#[derive(Clone, Copy)]
pub struct Tenant(u32);

impl Tenant {
    /// The `index`th of `tenants` in the order of their ids.
    fn at(index: u64, tenants: u64) -> Tenant {
        Tenant(u32::try_from((index << 32) / tenants).expect("the index is below the count"))
    }

    /// The tenant's id.
    pub fn id(self) -> TenantId {
        let rest = mixed(u64::from(self.0), 0).to_be_bytes();
        let mut bytes = [0x5a; 16];
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        bytes[8..].copy_from_slice(&rest);
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        uuid.to_string()
            .parse()
            .expect("a version 4 UUID is a tenant")
    }

    /// The `id` column of the tenant's `row`th row.
    pub fn row_id(self, row: u64) -> i64 {
        (i64::from(self.0) << 24) + row as i64
    }

    /// Rows of the tenant, from the `start`th on.
    fn rows(self, start: u64, rows: u64) -> Outcome<RecordBatch> {
        let seed = u64::from(self.0);
        let range = start..start + rows;
        let id = self.id().to_string();
        let columns: [(&str, ArrayRef); 6] = [
            (
                "id",
                Arc::new(Int64Array::from_iter_values(
                    range.clone().map(|row| self.row_id(row)),
                )),
            ),
            (
                "tenant_id",
                Arc::new(StringArray::from_iter_values(range.clone().map(|_| &id))),
            ),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from_iter_values(
                    range
                        .clone()
                        .map(|row| 1_700_000_000_000_000 + (mixed(seed, row) % (1 << 40)) as i64),
                )),
            ),
            (
                "kind",
                Arc::new(StringArray::from_iter_values(
                    range
                        .clone()
                        .map(|row| KINDS[(mixed(seed, row) % 8) as usize]),
                )),
            ),
            (
                "amount",
                Arc::new(Float64Array::from_iter_values(
                    range
                        .clone()
                        .map(|row| (mixed(seed, row + 1) % 1_000_000) as f64 / 100.0),
                )),
            ),
            (
                "title",
                Arc::new(StringArray::from_iter_values(
                    range.map(|row| format!("title {:016x}", mixed(seed, row + 2))),
                )),
            ),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}

fn make(dir: &Path) -> Outcome {
    let data = Data {
        dir: dir.to_path_buf(),
    };
    write(&data.own(), [tenant().rows(0, TENANT_ROWS)])?;
    let batches =
        (0..WHOLE_ROWS / BATCH_ROWS).map(|batch| tenant().rows(batch * BATCH_ROWS, BATCH_ROWS));
    write(&data.whole(), batches)?;
    for tenants in [FEW_TENANTS, MANY_TENANTS] {
        let every = (0..tenants).map(|index| Tenant::at(index, tenants));
        let batches = every.clone().map(|tenant| tenant.rows(0, TENANT_ROWS));
        write(&data.sorted(tenants), batches)?;
        for tenant in every {
            let directory = data
                .hive(tenants)
                .join(format!("tenant_id={}", tenant.id()));
            fs::create_dir_all(&directory)?;
            let mut rows = tenant.rows(0, TENANT_ROWS)?;
            rows.remove_column(1);
            write(&directory.join("part-0.parquet"), [Ok(rows)])?;
        }
    }
    Ok(())
}

/// Writes a file with the writer's own row groups and pages, compressed as most
/// writers do.
fn write(path: &Path, batches: impl IntoIterator<Item = Outcome<RecordBatch>>) -> Outcome {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut batches = batches.into_iter();
    let first = batches.next().ok_or("a file has rows")??;
    let schema: SchemaRef = first.schema();
    let mut writer = ArrowWriter::try_new(fs::File::create(path)?, schema, Some(properties))?;
    writer.write(&first)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
