//! Types that SQL has a name for and the planner none, or another: UUID, JSON,
//! timestamps with a zone, and bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;

use super::numbers::number_field;
use super::uuid::UUID_BYTES;

/// The key of Arrow's extension types in a field's metadata, and their names
/// (<https://arrow.apache.org/docs/format/CanonicalExtensions.html>).
const EXTENSION: &str = "ARROW:extension:name";
const EXTENSION_PREFIX: &str = "ARROW:extension:";
const UUID: &str = "arrow.uuid";
const JSON: &str = "arrow.json";

/// The zone of `TIMESTAMP WITH TIME ZONE`, whose values are instants.
const ZONE: &str = "UTC";

/// Plans `UUID` as 16 bytes and `JSON` as text, each with Arrow's extension name.
#[derive(Debug)]
pub(super) struct ExtensionTypes;

impl TypePlanner for ExtensionTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        Ok(match sql_type {
            ast::DataType::Uuid => Some(uuid_field()),
            ast::DataType::JSON | ast::DataType::JSONB => Some(extension(DataType::Utf8, JSON)),
            ast::DataType::Timestamp(
                precision,
                ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz,
            ) => unit(*precision).map(|unit| plain(DataType::Timestamp(unit, Some(ZONE.into())))),
            ast::DataType::Binary(None)
            | ast::DataType::Varbinary(None)
            | ast::DataType::Blob(None) => Some(plain(DataType::Binary)),
            ast::DataType::Custom(..) => number_field(sql_type).map(Arc::new),
            _ => None,
        })
    }
}

/// The unit of a timestamp of so many digits after the second.
fn unit(precision: Option<u64>) -> Option<TimeUnit> {
    match precision {
        Some(0) => Some(TimeUnit::Second),
        Some(3) => Some(TimeUnit::Millisecond),
        Some(6) => Some(TimeUnit::Microsecond),
        None | Some(9) => Some(TimeUnit::Nanosecond),
        Some(_) => None,
    }
}

fn plain(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("", data_type, true))
}

fn extension(data_type: DataType, name: &str) -> FieldRef {
    let metadata = HashMap::from([(EXTENSION.to_owned(), name.to_owned())]);
    Arc::new(Field::new("", data_type, true).with_metadata(metadata))
}

/// The part of a field's metadata that belongs to its type.
pub(super) fn extension_of(metadata: &HashMap<String, String>) -> HashMap<String, String> {
    let kept = metadata
        .iter()
        .filter(|(key, _)| key.starts_with(EXTENSION_PREFIX));
    kept.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A UUID, which may be NULL.
pub(super) fn uuid_field() -> FieldRef {
    extension(DataType::FixedSizeBinary(UUID_BYTES), UUID)
}

/// Whether the column holds UUIDs.
pub(super) fn is_uuid(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(UUID_BYTES) && has_extension(field, UUID)
}

/// Whether the column holds JSON text.
pub(super) fn is_json(field: &Field) -> bool {
    field.data_type().is_string() && has_extension(field, JSON)
}

fn has_extension(field: &Field, name: &str) -> bool {
    field
        .metadata()
        .get(EXTENSION)
        .is_some_and(|known| known == name)
}

/// What users call the type of a column: Arrow's name of it, and `UUID` and `JSON`
/// for those.
pub fn type_name(field: &Field) -> String {
    if is_uuid(field) {
        return "UUID".to_owned();
    }
    if is_json(field) {
        return "JSON".to_owned();
    }
    field.data_type().to_string()
}
