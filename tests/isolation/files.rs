//! Rows as the files of a source, in every layout and spelling of a tenant that
//! the server reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use uuid::Uuid;

/// The columns of every generated table, but for `tenant_id`.
pub const COLUMNS: [&str; 5] = ["id", "n", "title", "score", "ok"];

/// Where rows lie: in one Parquet file, in several of a directory, in directories
/// named after their tenants or after their number `n`, or in a text file.
pub const LAYOUTS: [&str; 7] = [
    "file",
    "directory",
    "hive",
    "numbered",
    "csv",
    "ndjson",
    "json",
];

/// How a Parquet file spells a tenant. `none` has no such column.
pub const ENCODINGS: [&str; 10] = [
    "text",
    "upper",
    "large",
    "view",
    "dictionary",
    "binary",
    "fixed",
    "large_binary",
    "binary_dictionary",
    "none",
];

#[derive(Clone, Debug)]
pub struct Row {
    /// `None` is everybody's.
    pub tenant: Option<&'static str>,
    /// In the order of [`COLUMNS`].
    pub values: Vec<Value>,
}

/// Rows of a Parquet row group, so that there is something to skip.
const GROUP_ROWS: usize = 3;

/// Writes `rows` of the source `name` and answers their location.
pub fn write(dir: &Path, name: &str, layout: &str, encoding: &str, rows: &[Row]) -> PathBuf {
    let root = dir.join(name);
    fs::create_dir_all(&root).unwrap();
    match layout {
        "file" => {
            let path = root.join("rows.parquet");
            write_parquet(&path, batch(rows, encoding));
            path
        }
        "directory" => {
            // Runs of three, so that files have rows of one tenant or of several.
            for (part, rows) in rows.chunks(GROUP_ROWS).enumerate() {
                write_parquet(&root.join(format!("{part}.parquet")), batch(rows, encoding));
            }
            root
        }
        "hive" => {
            let tenant = |row: &Row| row.tenant.map(str::to_owned);
            for (part, rows) in parts(&root, "tenant_id", rows, tenant) {
                write_parquet(&part, batch(&rows, "none"));
            }
            root
        }
        "numbered" => {
            let number = |row: &Row| row.values[1].as_i64().map(|n| n.to_string());
            for (part, rows) in parts(&root, COLUMNS[1], rows, number) {
                let mut batch = batch(&rows, encoding);
                batch.remove_column(1);
                write_parquet(&part, batch);
            }
            root
        }
        "csv" => {
            let path = root.join("rows.csv");
            fs::write(&path, csv(rows)).unwrap();
            path
        }
        "ndjson" | "json" => {
            let path = root.join(format!("rows.{layout}"));
            let objects: Vec<String> = rows.iter().map(object).collect();
            let text = match layout {
                "json" => format!("[{}]", objects.join(",")),
                _ => objects.join("\n"),
            };
            fs::write(&path, text).unwrap();
            path
        }
        other => panic!("no layout: {other}"),
    }
}

/// A file for each directory that `rows` have by what `column` is of them, and its rows.
fn parts(
    root: &Path,
    column: &str,
    rows: &[Row],
    value: impl Fn(&Row) -> Option<String>,
) -> Vec<(PathBuf, Vec<Row>)> {
    let mut parts = BTreeMap::<Option<String>, Vec<Row>>::new();
    for row in rows {
        parts.entry(value(row)).or_default().push(row.clone());
    }
    let part = |(value, rows): (Option<String>, Vec<Row>)| {
        let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
        let part = root.join(format!("{column}={value}"));
        fs::create_dir_all(&part).unwrap();
        (part.join("rows.parquet"), rows)
    };
    parts.into_iter().map(part).collect()
}

fn csv(rows: &[Row]) -> String {
    let mut text = format!("{},tenant_id\n", COLUMNS.join(","));
    for row in rows {
        for value in &row.values {
            match value {
                Value::Null => {}
                Value::String(value) => text.push_str(value),
                other => text.push_str(&other.to_string()),
            }
            text.push(',');
        }
        text.push_str(row.tenant.unwrap_or_default());
        text.push('\n');
    }
    text
}

fn object(row: &Row) -> String {
    let values = COLUMNS.iter().zip(&row.values);
    let mut object: serde_json::Map<String, Value> = values
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    object.insert("tenant_id".to_owned(), row.tenant.into());
    Value::Object(object).to_string()
}

/// The rows' columns of [`COLUMNS`], and `tenant_id` as `encoding` says.
pub fn batch(rows: &[Row], encoding: &str) -> RecordBatch {
    let at = |place: usize| rows.iter().map(move |row| &row.values[place]);
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        (
            "id",
            Arc::new(at(0).map(Value::as_i64).collect::<Int64Array>()),
            true,
        ),
        (
            "n",
            Arc::new(at(1).map(Value::as_i64).collect::<Int64Array>()),
            true,
        ),
        (
            "title",
            Arc::new(at(2).map(Value::as_str).collect::<StringArray>()),
            true,
        ),
        (
            "score",
            Arc::new(at(3).map(Value::as_f64).collect::<Float64Array>()),
            true,
        ),
        (
            "ok",
            Arc::new(at(4).map(Value::as_bool).collect::<BooleanArray>()),
            true,
        ),
    ];
    let encoding = encoding.strip_prefix("waived_").unwrap_or(encoding);
    if encoding != "none" {
        columns.push(("tenant_id", tenants(rows, encoding), true));
    }
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn tenants(rows: &[Row], encoding: &str) -> ArrayRef {
    let text: ArrayRef = Arc::new(rows.iter().map(|row| row.tenant).collect::<StringArray>());
    let bytes: Vec<Option<[u8; 16]>> = rows
        .iter()
        .map(|row| {
            row.tenant
                .map(|id| *Uuid::parse_str(id).unwrap().as_bytes())
        })
        .collect();
    let dictionary = |of: DataType| DataType::Dictionary(Box::new(DataType::Int16), Box::new(of));
    match encoding {
        "text" => text,
        "upper" => {
            let upper = rows.iter().map(|row| row.tenant.map(str::to_uppercase));
            Arc::new(upper.collect::<StringArray>())
        }
        "large" => cast(&text, &DataType::LargeUtf8).unwrap(),
        "view" => cast(&text, &DataType::Utf8View).unwrap(),
        "dictionary" => cast(&text, &dictionary(DataType::Utf8)).unwrap(),
        "binary" => Arc::new(BinaryArray::from_iter(bytes)),
        "large_binary" => cast(&BinaryArray::from_iter(bytes), &DataType::LargeBinary).unwrap(),
        "binary_dictionary" => cast(
            &BinaryArray::from_iter(bytes),
            &dictionary(DataType::Binary),
        )
        .unwrap(),
        "fixed" => {
            let values = bytes.into_iter();
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16).unwrap())
        }
        other => panic!("no encoding: {other}"),
    }
}

fn write_parquet(path: &Path, batch: RecordBatch) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS.max(batch.num_rows() / 20)))
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
