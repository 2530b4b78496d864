//! What the server says of itself in answer to GetSqlInfo.
//!
//! Every entry is true of what is served now. Codes beyond the standard's are
//! deliberately absent: an empty request means all, and JDBC fails on a code that
//! it does not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UnionArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType,
    SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SqlSupportsConvert,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

use crate::config::JammiConfig;
use crate::engine::substrait_versions;
use crate::error::{Error, Result};

const ARROW_VERSION: &str = "59.3.0";

/// An answer as Java reads it, which finds keys and values of maps by the names
/// that the format recommends: `arrow-flight` calls them otherwise.
pub(super) fn with_readable_maps(answer: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = readable_schema(answer.schema_ref());
    let DataType::Union(fields, _) = schema.field(1).data_type() else {
        return Err(ArrowError::SchemaError("the values are a union".into()));
    };
    let (_, type_ids, offsets, children) = answer.column(1).as_union().clone().into_parts();
    let children = children
        .iter()
        .zip(fields.iter())
        .map(|(child, (_, field))| cast(child, field.data_type()))
        .collect::<Result<_, _>>()?;
    let values = UnionArray::try_new(fields.clone(), type_ids, offsets, children)?;
    RecordBatch::try_new(
        schema.clone(),
        vec![answer.column(0).clone(), Arc::new(values)],
    )
}

/// The schema of [`with_readable_maps`].
pub(super) fn readable_schema(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    if let DataType::Union(children, mode) = fields[1].data_type() {
        let children = children
            .iter()
            .map(|(id, child)| (id, readable_map(child)))
            .collect();
        fields[1] = fields[1]
            .clone()
            .with_data_type(DataType::Union(children, *mode));
    }
    Arc::new(Schema::new(fields))
}

fn readable_map(field: &FieldRef) -> FieldRef {
    let DataType::Map(entries, sorted) = field.data_type() else {
        return field.clone();
    };
    let DataType::Struct(pair) = entries.data_type() else {
        return field.clone();
    };
    let pair: Fields = pair
        .iter()
        .zip(["key", "value"])
        .map(|(field, name)| field.as_ref().clone().with_name(name))
        .collect();
    let entries = entries
        .as_ref()
        .clone()
        .with_data_type(DataType::Struct(pair));
    let map = DataType::Map(Arc::new(entries), *sorted);
    Arc::new(field.as_ref().clone().with_data_type(map))
}

/// Everything that can be asked for.
pub(super) fn sql_info(config: &JammiConfig) -> Result<SqlInfoData> {
    let mut infos = SqlInfoDataBuilder::new();
    server(&mut infos, config);
    names(&mut infos);
    statements(&mut infos);
    limits(&mut infos, config);
    results(&mut infos);
    infos
        .build()
        .map_err(|error| Error::internal("the server information cannot be built", error))
}

fn server(infos: &mut SqlInfoDataBuilder, config: &JammiConfig) {
    let timeout_ms = config.server.handle_ttl_secs.saturating_mul(1000);
    infos.append(SqlInfo::FlightSqlServerName, "Jammi");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    infos.append(SqlInfo::FlightSqlServerReadOnly, false);
    infos.append(SqlInfo::FlightSqlServerSql, true);
    let substrait = substrait_versions();
    infos.append(SqlInfo::FlightSqlServerSubstrait, substrait.is_some());
    if let Some((oldest, newest)) = substrait {
        infos.append(SqlInfo::FlightSqlServerSubstraitMinVersion, &*oldest);
        infos.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, &*newest);
    }
    // More than none makes clients begin a transaction as they connect.
    infos.append(
        SqlInfo::FlightSqlServerTransaction,
        SqlSupportedTransaction::Savepoint as i32,
    );
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    infos.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    infos.append(
        SqlInfo::FlightSqlServerStatementTimeout,
        i32::try_from(timeout_ms).unwrap_or(i32::MAX),
    );
    let idle_ms = config.transactions.idle_timeout_secs.saturating_mul(1000);
    infos.append(
        SqlInfo::FlightSqlServerTransactionTimeout,
        i32::try_from(idle_ms).unwrap_or(i32::MAX),
    );
    infos.append(SqlInfo::SqlDdlCatalog, false);
    infos.append(SqlInfo::SqlDdlSchema, false);
    infos.append(SqlInfo::SqlDdlTable, true);
    infos.append(SqlInfo::SqlAllTablesAreSelectable, true);
    infos.append(SqlInfo::SqlTransactionsSupported, true);
    // Bigint where the standard says int32: JDBC reads no other.
    infos.append(
        SqlInfo::SqlDefaultTransactionIsolation,
        i64::from(SqlTransactionIsolationLevel::SqlTransactionSerializable as i32),
    );
    // What is asked for is given, and more.
    let isolation = mask(&[
        SqlTransactionIsolationLevel::SqlTransactionReadUncommitted as i32,
        SqlTransactionIsolationLevel::SqlTransactionReadCommitted as i32,
        SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32,
        SqlTransactionIsolationLevel::SqlTransactionSerializable as i32,
    ]);
    infos.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, isolation);
    infos.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    infos.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    infos.append(SqlInfo::SqlBatchUpdatesSupported, true);
    infos.append(SqlInfo::SqlSavepointsSupported, true);
}

fn names(infos: &mut SqlInfoDataBuilder) {
    let lower = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32;
    // They are kept as written and compared so, which the standard has no word for.
    let quoted = SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32;
    infos.append(SqlInfo::SqlIdentifierCase, lower);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    infos.append(SqlInfo::SqlQuotedIdentifierCase, quoted);
    infos.append(SqlInfo::SqlSearchStringEscape, "\\");
    infos.append(SqlInfo::SqlExtraNameCharacters, "");
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlProcedureTerm, "procedure");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::SqlCatalogAtStart, true);
    infos.append(SqlInfo::SqlKeywords, KEYWORDS);
    infos.append(SqlInfo::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    infos.append(SqlInfo::SqlStringFunctions, STRING_FUNCTIONS);
    infos.append(SqlInfo::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    infos.append(SqlInfo::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
}

fn statements(infos: &mut SqlInfoDataBuilder) {
    let nulls = SqlNullOrdering::SqlNullsSortedHigh as i32;
    infos.append(SqlInfo::SqlNullOrdering, nulls);
    for supported in [
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        infos.append(supported, true);
    }
    for absent in [
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ] {
        infos.append(absent, false);
    }
    let group_by = [
        SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
        SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
    ];
    infos.append(SqlInfo::SqlSupportedGroupBy, mask(&group_by));
    let grammar = [
        SupportedSqlGrammar::SqlMinimumGrammar as i32,
        SupportedSqlGrammar::SqlCoreGrammar as i32,
    ];
    infos.append(SqlInfo::SqlSupportedGrammar, mask(&grammar));
    // Entry level asks for GRANT, which is not served.
    infos.append(SqlInfo::SqlAnsi92SupportedLevel, 0);
    let joins = [
        SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
        SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
    ];
    infos.append(SqlInfo::SqlOuterJoinsSupportLevel, mask(&joins));
    infos.append(SqlInfo::SqlSchemasSupportedActions, 0);
    infos.append(SqlInfo::SqlCatalogsSupportedActions, 0);
    infos.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
        SqlSupportedSubqueries::SqlSubqueriesInQuantifieds as i32,
    ];
    infos.append(SqlInfo::SqlSupportedSubqueries, mask(&subqueries));
    let unions = [
        SqlSupportedUnions::SqlUnion as i32,
        SqlSupportedUnions::SqlUnionAll as i32,
    ];
    infos.append(SqlInfo::SqlSupportedUnions, mask(&unions));
    infos.append(SqlInfo::SqlSupportsConvert, conversions());
}

/// Zero is *no limit, or none that is known*.
fn limits(infos: &mut SqlInfoDataBuilder, config: &JammiConfig) {
    let statement_bytes_max = config.engine.statement_bytes_max;
    infos.append(
        SqlInfo::SqlMaxStatementLength,
        i64::try_from(statement_bytes_max).unwrap_or(0),
    );
    for unlimited in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        infos.append(unlimited, 0_i64);
    }
    infos.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, false);
}

fn results(infos: &mut SqlInfoDataBuilder) {
    let forward = mask(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]);
    let read_only =
        mask(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    infos.append(SqlInfo::SqlSupportedResultSetTypes, forward);
    infos.append(
        SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly,
        read_only,
    );
    for absent in [
        SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
    ] {
        infos.append(absent, 0);
    }
}

/// The bits of an enumeration's values.
fn mask(values: &[i32]) -> i32 {
    values.iter().fold(0, |mask, value| mask | 1 << value)
}

/// What CAST takes to what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as To;
    let numbers = [
        To::SqlConvertBigint,
        To::SqlConvertBit,
        To::SqlConvertDecimal,
        To::SqlConvertFloat,
        To::SqlConvertInteger,
        To::SqlConvertNumeric,
        To::SqlConvertReal,
        To::SqlConvertSmallint,
        To::SqlConvertTinyint,
    ];
    let texts = [To::SqlConvertChar, To::SqlConvertVarchar];
    let times = [
        To::SqlConvertDate,
        To::SqlConvertTime,
        To::SqlConvertTimestamp,
    ];
    let codes = |groups: &[&[To]]| -> Vec<i32> {
        let all = groups.iter().flat_map(|group| group.iter());
        all.map(|to| *to as i32).collect()
    };
    let of_number = codes(&[&numbers, &texts]);
    let of_text = codes(&[&numbers, &texts, &times, &[To::SqlConvertVarbinary]]);
    let mut conversions = BTreeMap::new();
    for number in numbers {
        conversions.insert(number as i32, of_number.clone());
    }
    for text in texts {
        conversions.insert(text as i32, of_text.clone());
    }
    let dates = [To::SqlConvertDate, To::SqlConvertTimestamp];
    conversions.insert(To::SqlConvertDate as i32, codes(&[&dates, &texts]));
    conversions.insert(To::SqlConvertTimestamp as i32, codes(&[&times, &texts]));
    conversions.insert(
        To::SqlConvertTime as i32,
        codes(&[&[To::SqlConvertTime], &texts]),
    );
    conversions
}

/// Keywords that are not SQL:2003's own.
const KEYWORDS: &[&str] = &[
    "ANALYZE", "ANTI", "EXCLUDE", "EXPLAIN", "ILIKE", "LIMIT", "OFFSET", "QUALIFY", "REPLACE",
    "SEMI", "SHOW", "VERBOSE",
];
const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
];
const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "char_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "length",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "position",
    "regexp_count",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "trim",
    "upper",
    "uuid",
];
const SYSTEM_FUNCTIONS: &[&str] = &[
    "arrow_cast",
    "arrow_typeof",
    "coalesce",
    "nullif",
    "nvl",
    "version",
];
const DATETIME_FUNCTIONS: &[&str] = &[
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::{Int32Type, UInt32Type};
    use arrow_flight::sql::CommandGetSqlInfo;

    use super::*;

    fn infos() -> SqlInfoData {
        sql_info(&JammiConfig::default()).unwrap()
    }

    #[test]
    fn the_schema_is_the_standard_s() {
        let schema = infos().schema();
        let told: Vec<_> = schema
            .fields()
            .iter()
            .map(|f| (f.name().as_str(), f.is_nullable()))
            .collect();
        assert_eq!(told, [("info_name", false), ("value", false)]);
        assert_eq!(schema.field(0).data_type(), &DataType::UInt32);
        let DataType::Union(children, _) = schema.field(1).data_type() else {
            panic!("the value is a union");
        };
        let children: Vec<_> = children
            .iter()
            .map(|(id, field)| (id, field.name().as_str()))
            .collect();
        assert_eq!(
            children,
            [
                (0, "string_value"),
                (1, "bool_value"),
                (2, "bigint_value"),
                (3, "int32_bitmask"),
                (4, "string_list"),
                (5, "int32_to_int32_list_map"),
            ]
        );
    }

    #[test]
    fn an_empty_request_is_for_every_standard_code() {
        let all = CommandGetSqlInfo::default()
            .into_builder(&infos())
            .build()
            .unwrap();
        let codes = all.column(0).as_primitive::<UInt32Type>().values().to_vec();
        assert!(
            codes
                .iter()
                .all(|code| SqlInfo::try_from(*code as i32).is_ok())
        );
        for code in (0..=576).filter(|code| SqlInfo::try_from(*code).is_ok()) {
            // The versions of Substrait, where that is not served.
            let absent = [6, 7].contains(&code) && substrait_versions().is_none();
            assert_eq!(codes.contains(&(code as u32)), !absent, "{code}");
        }
    }

    #[test]
    fn maps_have_keys_and_values_that_java_finds() {
        let command = CommandGetSqlInfo {
            info: vec![SqlInfo::SqlSupportsConvert as u32],
        };
        let answer = command.into_builder(&infos()).build().unwrap();
        let answer = with_readable_maps(&answer).unwrap();
        assert_eq!(answer.schema(), readable_schema(&infos().schema()));
        let conversions = answer.column(1).as_union().value(0);
        let entries = conversions.as_map().entries();
        assert_eq!(entries.column_names(), ["key", "value"]);
        let keys = entries.column(0).as_primitive::<Int32Type>();
        assert!(
            keys.values()
                .contains(&(SqlSupportsConvert::SqlConvertVarchar as i32))
        );
    }

    #[test]
    fn unknown_codes_are_left_out_and_savepoints_are_promised() {
        let command = CommandGetSqlInfo {
            info: vec![8, 10_000],
        };
        let some = command.into_builder(&infos()).build().unwrap();
        assert_eq!(some.num_rows(), 1);
        let value = some.column(1).as_union().value(0);
        let savepoints = SqlSupportedTransaction::Savepoint as i32;
        assert_eq!(value.as_primitive::<Int32Type>().value(0), savepoints);
        assert_eq!(value.len(), 1);
    }
}
