//! How Arrow types are told to ODBC and JDBC: their SQL names, sizes and codes,
//! for GetXdbcTypeInfo and for the columns of GetTables.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

use crate::engine::{LOCAL_TEMPORARY, MUTABLE_CATALOG, TableEntry, type_name};
use crate::error::{Error, Result};

use super::wire;

const MICROSECOND_DIGITS: i32 = 6;
const NANOSECOND_DIGITS: i32 = 9;

/// The types that results can have, by their SQL names.
pub(super) fn type_info() -> Result<XdbcTypeInfoData> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for info in numbers().into_iter().chain(texts()).chain(times()) {
        builder.append(info);
    }
    builder
        .build()
        .map_err(|error| Error::internal("the type information cannot be built", error))
}

/// The schema of `table` as GetTables tells it: the types that are sent, and for
/// each column what clients ask of it.
pub(super) fn table_schema(table: &TableEntry) -> Schema {
    let plain = wire::plain_schema(&table.arrow_schema);
    let fields = plain.fields().iter();
    let described: Vec<Field> = fields.map(|field| described(table, field)).collect();
    Schema::new_with_metadata(described, plain.metadata().clone())
}

fn described(table: &TableEntry, field: &Field) -> Field {
    let data_type = field.data_type();
    let mut metadata = field.metadata().clone();
    let mut tell = |key: &str, value: String| {
        metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    };
    tell("CATALOG_NAME", table.catalog.clone());
    tell("DB_SCHEMA_NAME", table.schema.clone());
    // What the clients of Go, Java and C++ look for instead.
    tell("SCHEMA_NAME", table.schema.clone());
    tell("TABLE_NAME", table.name.clone());
    let name = match type_name(field) {
        own if matches!(own.as_str(), "UUID" | "JSON") => own,
        _ => sql_name(data_type),
    };
    tell("TYPE_NAME", name);
    let (precision, scale) = size(data_type);
    if let Some(precision) = precision {
        tell("PRECISION", precision.to_string());
    }
    if let Some(scale) = scale {
        tell("SCALE", scale.to_string());
    }
    let flag = |set: bool| String::from(if set { "1" } else { "0" });
    tell("IS_AUTO_INCREMENT", flag(false));
    tell("IS_CASE_SENSITIVE", flag(data_type.is_string()));
    let is_stored =
        table.catalog == MUTABLE_CATALOG && matches!(table.kind, "TABLE" | LOCAL_TEMPORARY);
    tell("IS_READ_ONLY", flag(!is_stored));
    tell("IS_SEARCHABLE", flag(true));
    field.clone().with_metadata(metadata)
}

/// The name of `data_type` in SQL, or Arrow's own where SQL has none.
fn sql_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => "DECIMAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY",
        DataType::FixedSizeBinary(_) => "BINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(_, _)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(_, _) => "MAP",
        DataType::Dictionary(_, values) => return sql_name(values),
        DataType::RunEndEncoded(_, values) => return sql_name(values.data_type()),
        DataType::Union(_, _) => return data_type.to_string(),
    };
    name.to_owned()
}

/// Precision and scale: decimal digits of numbers, characters of times.
fn size(data_type: &DataType) -> (Option<i32>, Option<i32>) {
    match data_type {
        DataType::Boolean => (Some(1), None),
        DataType::Int8 | DataType::UInt8 => (Some(3), Some(0)),
        DataType::Int16 | DataType::UInt16 => (Some(5), Some(0)),
        DataType::Int32 | DataType::UInt32 => (Some(10), Some(0)),
        DataType::Int64 => (Some(19), Some(0)),
        DataType::UInt64 => (Some(20), Some(0)),
        DataType::Float16 => (Some(3), None),
        DataType::Float32 => (Some(7), None),
        DataType::Float64 => (Some(15), None),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            (Some(i32::from(*precision)), Some(i32::from(*scale)))
        }
        DataType::FixedSizeBinary(bytes) => (Some(*bytes), None),
        DataType::Date32 | DataType::Date64 => (Some("2000-01-01".len() as i32), None),
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let digits = fraction_digits(unit);
            (Some(with_fraction("00:00:00", digits)), Some(digits))
        }
        DataType::Timestamp(unit, _) => {
            let digits = fraction_digits(unit);
            (
                Some(with_fraction("2000-01-01 00:00:00", digits)),
                Some(digits),
            )
        }
        _ => (None, None),
    }
}

fn fraction_digits(unit: &TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => MICROSECOND_DIGITS,
        TimeUnit::Nanosecond => NANOSECOND_DIGITS,
    }
}

fn with_fraction(whole: &str, digits: i32) -> i32 {
    // The point counts too.
    whole.len() as i32 + if digits > 0 { digits + 1 } else { 0 }
}

fn info(name: &str, code: XdbcDataType, column_size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type: code,
        column_size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: code,
        ..XdbcTypeInfo::default()
    }
}

fn numbers() -> Vec<XdbcTypeInfo> {
    let of = |data_type: DataType, code: XdbcDataType| {
        let (precision, _) = size(&data_type);
        let exact = data_type.is_integer();
        XdbcTypeInfo {
            unsigned_attribute: Some(data_type.is_unsigned_integer()),
            auto_increment: Some(false),
            minimum_scale: exact.then_some(0),
            maximum_scale: exact.then_some(0),
            num_prec_radix: Some(10),
            ..info(&sql_name(&data_type), code, precision)
        }
    };
    vec![
        info("BOOLEAN", XdbcDataType::XdbcBit, Some(1)),
        of(DataType::Int8, XdbcDataType::XdbcTinyint),
        of(DataType::UInt8, XdbcDataType::XdbcTinyint),
        of(DataType::Int16, XdbcDataType::XdbcSmallint),
        of(DataType::UInt16, XdbcDataType::XdbcSmallint),
        of(DataType::Int32, XdbcDataType::XdbcInteger),
        of(DataType::UInt32, XdbcDataType::XdbcInteger),
        of(DataType::Int64, XdbcDataType::XdbcBigint),
        of(DataType::UInt64, XdbcDataType::XdbcBigint),
        of(DataType::Float32, XdbcDataType::XdbcReal),
        of(DataType::Float64, XdbcDataType::XdbcDouble),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            minimum_scale: Some(0),
            maximum_scale: Some(76),
            ..of(DataType::Decimal256(76, 0), XdbcDataType::XdbcDecimal)
        },
    ]
}

fn texts() -> Vec<XdbcTypeInfo> {
    let quoted = |prefix: &str, info: XdbcTypeInfo| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..info
    };
    let varchar = quoted(
        "'",
        info("VARCHAR", XdbcDataType::XdbcVarchar, Some(i32::MAX)),
    );
    vec![
        XdbcTypeInfo {
            case_sensitive: true,
            ..varchar
        },
        quoted(
            "X'",
            info("VARBINARY", XdbcDataType::XdbcVarbinary, Some(i32::MAX)),
        ),
        quoted(
            "X'",
            info("BINARY", XdbcDataType::XdbcBinary, Some(i32::MAX)),
        ),
    ]
}

fn times() -> Vec<XdbcTypeInfo> {
    let of = |name: &str, example: &DataType, code, subcode| {
        let (column_size, digits) = size(example);
        XdbcTypeInfo {
            literal_prefix: Some(format!("{name} '")),
            literal_suffix: Some("'".to_owned()),
            minimum_scale: digits.map(|_| 0),
            maximum_scale: digits,
            sql_data_type: XdbcDataType::XdbcDatetime,
            datetime_subcode: Some(subcode),
            ..info(name, code, column_size)
        }
    };
    let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
    vec![
        // One is the code of a date here, whatever the enumeration calls it.
        of(
            "DATE",
            &DataType::Date32,
            XdbcDataType::XdbcDate,
            XdbcDatetimeSubcode::XdbcSubcodeYear,
        ),
        of(
            "TIME",
            &DataType::Time64(TimeUnit::Nanosecond),
            XdbcDataType::XdbcTime,
            XdbcDatetimeSubcode::XdbcSubcodeTime,
        ),
        of(
            "TIMESTAMP",
            &timestamp,
            XdbcDataType::XdbcTimestamp,
            XdbcDatetimeSubcode::XdbcSubcodeTimestamp,
        ),
        of(
            "TIMESTAMP WITH TIME ZONE",
            &timestamp,
            XdbcDataType::XdbcTimestamp,
            XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone,
        ),
        XdbcTypeInfo {
            literal_prefix: Some("INTERVAL '".to_owned()),
            literal_suffix: Some("'".to_owned()),
            ..info("INTERVAL", XdbcDataType::XdbcInterval, None)
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn columns_say_what_clients_ask() {
        let fields = vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, true)
                .with_metadata(HashMap::from([("own".into(), "kept".into())])),
            Field::new("price", DataType::Decimal128(10, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ];
        let table = TableEntry {
            catalog: "inbox".into(),
            schema: "public".into(),
            name: "mail".into(),
            kind: "TABLE",
            arrow_schema: Arc::new(Schema::new(fields)),
            tenant_column: None,
        };
        let schema = table_schema(&table);
        let told = |column: usize, key: &str| {
            let metadata = schema.field(column).metadata();
            metadata.get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned()
        };
        assert_eq!(told(0, "CATALOG_NAME").unwrap(), "inbox");
        assert_eq!(told(0, "DB_SCHEMA_NAME").unwrap(), "public");
        assert_eq!(told(0, "SCHEMA_NAME").unwrap(), "public");
        assert_eq!(told(0, "TABLE_NAME").unwrap(), "mail");
        assert_eq!(told(0, "TYPE_NAME").unwrap(), "BIGINT");
        assert_eq!(told(0, "PRECISION").unwrap(), "19");
        assert_eq!(told(0, "IS_CASE_SENSITIVE").unwrap(), "0");
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8);
        assert_eq!(schema.field(1).metadata()["own"], "kept");
        assert_eq!(told(1, "IS_CASE_SENSITIVE").unwrap(), "1");
        assert_eq!(told(1, "PRECISION"), None);
        assert_eq!(told(2, "SCALE").unwrap(), "2");
        assert_eq!(told(3, "PRECISION").unwrap(), "26");
    }

    /// Symptom: the columns of a session's own temporary tables were told to be read
    /// only.
    #[test]
    fn columns_of_what_can_be_written_say_so() {
        for (catalog, kind, read_only) in [
            ("mutable", "TABLE", "0"),
            ("mutable", LOCAL_TEMPORARY, "0"),
            ("mutable", "VIEW", "1"),
            ("inbox", "TABLE", "1"),
            ("jammi", "SYSTEM TABLE", "1"),
        ] {
            let table = TableEntry {
                catalog: catalog.into(),
                schema: "public".into(),
                name: "t".into(),
                kind,
                tenant_column: None,
                arrow_schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
            };
            let schema = table_schema(&table);
            let metadata = schema.field(0).metadata();
            let told = |key: &str| metadata[&format!("ARROW:FLIGHT:SQL:{key}")].as_str();
            assert_eq!(told("IS_READ_ONLY"), read_only, "{catalog} {kind}");
            assert_eq!(told("IS_SEARCHABLE"), "1");
            assert_eq!(told("IS_AUTO_INCREMENT"), "0");
        }
    }

    #[test]
    fn type_information_can_be_narrowed() {
        let infos = type_info().unwrap();
        let all = infos.record_batch(None).unwrap();
        assert_eq!(all.num_rows(), 20);
        let bigints = infos
            .record_batch(Some(XdbcDataType::XdbcBigint as i32))
            .unwrap();
        let names = bigints.column(0).as_string::<i32>();
        assert_eq!(
            (names.value(0), names.value(1)),
            ("BIGINT", "BIGINT UNSIGNED")
        );
        assert_eq!(infos.record_batch(Some(12345)).unwrap().num_rows(), 0);
    }
}
