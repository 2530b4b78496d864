//! The rows that both databases get: ten columns that COPY and Arrow both have.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::csv::WriterBuilder;
use jammi_db::TenantId;

use crate::shared::{Outcome, mixed};

/// Rows of the tenant that is measured.
pub const ROWS: u64 = 1_000_000;
/// Other tenants of the table, and the rows that each of them has.
pub const OTHERS: u64 = 10;
pub const OTHER_ROWS: u64 = 100_000;
/// How many groups the aggregate has.
pub const CATEGORIES: u64 = 8;
/// Rows of a batch: the server's own number.
const BATCH_ROWS: u64 = 8_192;

/// The columns as both databases' SQL has them.
pub const COLUMNS: [(&str, &str, &str); 10] = [
    ("id", "BIGINT NOT NULL", "bigint NOT NULL"),
    ("category", "VARCHAR NOT NULL", "text NOT NULL"),
    ("title", "VARCHAR NOT NULL", "text NOT NULL"),
    ("quantity", "INT", "integer"),
    ("grade", "INT", "integer"),
    ("amount", "DOUBLE", "double precision"),
    ("score", "DOUBLE", "double precision"),
    ("price", "DECIMAL(12, 2)", "numeric(12, 2)"),
    ("made_at", "TIMESTAMP(6)", "timestamp"),
    ("active", "BOOLEAN", "boolean"),
];

/// A tenant, of which number 0 is the one that is measured. Its id is digits
/// alone, so that pgbench can make it from a client's number.
pub fn tenant(number: u64) -> TenantId {
    format!("{TENANT_PREFIX}{number:012}")
        .parse()
        .expect("a UUID of version 4 is a tenant")
}

/// What all tenants' ids begin with; twelve decimal digits follow.
pub const TENANT_PREFIX: &str = "00000000-0000-4000-8000-";

/// The first `rows` rows, in batches.
pub fn batches(rows: u64) -> Outcome<Vec<RecordBatch>> {
    (0..rows)
        .step_by(BATCH_ROWS as usize)
        .map(|start| batch(start, BATCH_ROWS.min(rows - start)))
        .collect()
}

fn batch(start: u64, rows: u64) -> Outcome<RecordBatch> {
    let range = start..start + rows;
    let value = |seed: u64, row: u64, below: u64| mixed(seed, row) % below;
    let int32 = |seed: u64, below: u64| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(
            range.clone().map(|row| value(seed, row, below) as i32),
        ))
    };
    let float64 = |seed: u64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(
            range
                .clone()
                .map(|row| value(seed, row, 1_000_000) as f64 / 64.0),
        ))
    };
    let price = range.clone().map(|row| value(7, row, 10_000_000).into());
    let made_at = range
        .clone()
        .map(|row| 1_700_000_000_000_000 + value(8, row, 1 << 40) as i64);
    let columns: [ArrayRef; 10] = [
        Arc::new(Int64Array::from_iter_values(
            range.clone().map(|row| row as i64),
        )),
        Arc::new(StringArray::from_iter_values(
            range
                .clone()
                .map(|row| format!("category {}", value(1, row, CATEGORIES))),
        )),
        Arc::new(StringArray::from_iter_values(
            range
                .clone()
                .map(|row| format!("title {:016x}", mixed(2, row))),
        )),
        int32(3, 1_000),
        int32(4, 1 << 31),
        float64(5),
        float64(6),
        Arc::new(Decimal128Array::from_iter_values(price).with_precision_and_scale(12, 2)?),
        Arc::new(TimestampMicrosecondArray::from_iter_values(made_at)),
        Arc::new(BooleanArray::from_iter(
            range.map(|row| Some(value(9, row, 2) == 0)),
        )),
    ];
    let names = COLUMNS.map(|(name, _, _)| name);
    Ok(RecordBatch::try_from_iter(names.into_iter().zip(columns))?)
}

/// Writes `batches` as COPY reads them.
pub fn write_csv(path: &Path, batches: &[RecordBatch]) -> Outcome {
    let file = BufWriter::new(File::create(path)?);
    let mut writer = WriterBuilder::new().with_header(false).build(file);
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(())
}
