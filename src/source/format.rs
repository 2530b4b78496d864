//! How each format is read: one place that sets the readers' options.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::{DataFusionError, GetExt};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use futures::FutureExt;
use object_store::{ObjectMeta, ObjectStore};

use crate::catalog::SourceFormat;
use crate::error::{Error, Result};

/// Rows that are read to infer the types of a text file.
const INFER_ROWS_MAX: usize = 10_000;

/// The format and compression that a file name's ending says.
pub fn by_ending(path: &str) -> Option<(SourceFormat, CompressionTypeVariant)> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let (name, compression) = strip_compression(&name);
    let format = match name.rsplit_once('.')?.1 {
        "parquet" | "parq" | "pq" => SourceFormat::Parquet,
        "csv" => SourceFormat::Csv,
        "json" => SourceFormat::Json,
        "ndjson" | "jsonl" => SourceFormat::Ndjson,
        _ => return None,
    };
    if format == SourceFormat::Parquet && compression != CompressionTypeVariant::UNCOMPRESSED {
        return None;
    }
    Some((format, compression))
}

/// The compression that a file name's ending says.
pub fn compression_by_ending(path: &str) -> CompressionTypeVariant {
    strip_compression(&path.to_ascii_lowercase()).1
}

fn strip_compression(name: &str) -> (&str, CompressionTypeVariant) {
    for variant in [
        CompressionTypeVariant::GZIP,
        CompressionTypeVariant::BZIP2,
        CompressionTypeVariant::XZ,
        CompressionTypeVariant::ZSTD,
    ] {
        if let Some(stem) = name.strip_suffix(&FileCompressionType::from(variant).get_ext()) {
            return (stem, variant);
        }
    }
    (name, CompressionTypeVariant::UNCOMPRESSED)
}

/// The reader of `format`.
pub fn reader(format: SourceFormat, compression: CompressionTypeVariant) -> Arc<dyn FileFormat> {
    let compressed = FileCompressionType::from(compression);
    match format {
        // Plain UTF-8 columns, as in the results.
        SourceFormat::Parquet => Arc::new(ParquetFormat::default().with_force_view_types(false)),
        SourceFormat::Csv => Arc::new(
            CsvFormat::default()
                .with_has_header(true)
                // A quoted value may hold a line break, so a file is never
                // split at one.
                .with_newlines_in_values(true)
                .with_schema_infer_max_rec(INFER_ROWS_MAX)
                .with_file_compression_type(compressed),
        ),
        SourceFormat::Json | SourceFormat::Ndjson => Arc::new(
            JsonFormat::default()
                .with_newline_delimited(format == SourceFormat::Ndjson)
                .with_schema_infer_max_rec(INFER_ROWS_MAX)
                .with_file_compression_type(compressed),
        ),
    }
}

/// Reads the schema of one file. `Err` is what the reader says of a file that
/// it cannot read; a panic over a damaged file is one of these.
pub async fn infer_schema(
    session: &dyn Session,
    store: &Arc<dyn ObjectStore>,
    format: SourceFormat,
    file: &ObjectMeta,
) -> std::result::Result<SchemaRef, String> {
    let reader = reader(format, compression_by_ending(file.location.as_ref()));
    let reading = reader.infer_schema(session, store, std::slice::from_ref(file));
    // Nothing that the reader holds is used again.
    match AssertUnwindSafe(reading).catch_unwind().await {
        Ok(Ok(schema)) => Ok(schema),
        Ok(Err(error)) => Err(reader_text(&error)),
        Err(_) => Err("the reader gave up on damaged metadata".into()),
    }
}

/// What a reader says of a file, its own name in it once.
pub fn reader_text(error: &DataFusionError) -> String {
    error
        .strip_backtrace()
        .replacen("Parquet error: Parquet error: ", "Parquet error: ", 1)
}

/// The one compression of all `paths`.
pub fn common_compression<'a>(
    format: SourceFormat,
    mut paths: impl Iterator<Item = &'a str>,
) -> Result<CompressionTypeVariant> {
    if format == SourceFormat::Parquet {
        return Ok(CompressionTypeVariant::UNCOMPRESSED);
    }
    let Some(first) = paths.next().map(compression_by_ending) else {
        return Ok(CompressionTypeVariant::UNCOMPRESSED);
    };
    if paths.any(|path| compression_by_ending(path) != first) {
        return Err(Error::InvalidArgument(
            "the files are compressed in different ways: compress them alike, \
             or register them as several sources"
                .into(),
        ));
    }
    Ok(first)
}

/// The schema with which the files of a format are read so that no value of
/// a row can fail before the guard has passed the row: CSV as text.
pub fn fail_safe_schema(format: SourceFormat, file_schema: &SchemaRef) -> SchemaRef {
    match format {
        SourceFormat::Csv => Arc::new(Schema::new(
            file_schema
                .fields()
                .iter()
                .map(|field| Field::new(field.name(), DataType::Utf8, true))
                .collect::<Vec<_>>(),
        )),
        SourceFormat::Parquet | SourceFormat::Json | SourceFormat::Ndjson => {
            Arc::clone(file_schema)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_format_and_compression() {
        use CompressionTypeVariant::*;
        for (path, expected) in [
            ("a/b.parquet", Some((SourceFormat::Parquet, UNCOMPRESSED))),
            ("b.CSV", Some((SourceFormat::Csv, UNCOMPRESSED))),
            ("b.csv.gz", Some((SourceFormat::Csv, GZIP))),
            ("b.jsonl.zst", Some((SourceFormat::Ndjson, ZSTD))),
            ("b.json", Some((SourceFormat::Json, UNCOMPRESSED))),
            ("b.parquet.gz", None),
            ("README", None),
            ("dir.csv/README", None),
        ] {
            assert_eq!(by_ending(path), expected, "{path}");
        }
    }
}
