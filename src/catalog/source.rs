//! The record of a source: where its files are and how its rows are read.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::SchemaRef;

use crate::error::Error;
pub use crate::policy::TenantEncoding;
use crate::tenant::Lane;

/// How the files of a source are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON document that is an array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
}

impl SourceFormat {
    /// Every format, for messages and completion.
    pub const ALL: [SourceFormat; 4] = [
        SourceFormat::Parquet,
        SourceFormat::Csv,
        SourceFormat::Json,
        SourceFormat::Ndjson,
    ];

    /// The name that commands and the catalog use.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceFormat::Parquet => "parquet",
            SourceFormat::Csv => "csv",
            SourceFormat::Json => "json",
            SourceFormat::Ndjson => "ndjson",
        }
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SourceFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        SourceFormat::ALL
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "format {text:?} is not known: use parquet, csv, json or ndjson"
                ))
            })
    }
}

/// Which tenant a row of a source belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TenantColumn {
    /// Rows carry no tenant: whoever sees the source sees all of them.
    Absent,
    /// The column of this name says it; NULL is the global lane.
    Named {
        /// The column's name, spelled as in the schema.
        column: String,
        /// How the column spells a tenant.
        encoding: TenantEncoding,
    },
}

impl TenantColumn {
    /// The column's name, where there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            TenantColumn::Absent => None,
            TenantColumn::Named { column, .. } => Some(column),
        }
    }
}

/// A source whose files were looked at and whose schema is known, ready to be
/// recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSource {
    /// The name in SQL: `<name>.public.<name>`.
    pub name: String,
    /// A canonical URL of a file, a glob or a directory.
    pub location: String,
    /// How the files are encoded.
    pub format: SourceFormat,
    /// Which tenant a row belongs to.
    pub tenant_column: TenantColumn,
    /// Every column, partition columns last.
    pub schema: SchemaRef,
    /// The names of the columns that are read from directory names.
    pub partition_columns: Vec<String>,
}

/// A source as recorded in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The lane that owns the source.
    pub lane: Lane,
    /// What was recorded.
    pub definition: NewSource,
    /// When it was registered: Unix time in milliseconds.
    pub registered_at_ms: i64,
    /// When its schema was last read: Unix time in milliseconds.
    pub refreshed_at_ms: i64,
}

impl Source {
    /// The name in SQL, quoted where it must be: `inbox.public.inbox`.
    pub fn sql_name(&self) -> String {
        let name = datafusion::common::utils::quote_identifier(&self.definition.name).into_owned();
        format!("{name}.public.{name}")
    }
}
