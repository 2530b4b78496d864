//! The files of a location: listing them, reading the values that directory
//! names (`name=value/`) give their rows, and checking each file version once
//! against the schema of its source.

use std::path::Path as FsPath;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::catalog::Session;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use moka::sync::Cache;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::format;
use super::location::{Location, LocationKind, LocationPolicy};
use crate::catalog::{NewSource, SourceFormat};
use crate::error::{Error, Result};

/// The directory value that Hive writes for NULL.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Files that one source may have.
const FILES_MAX: usize = 1_000_000;

/// A file and the values that its directories give.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Where it is, how large, and which version.
    pub meta: ObjectMeta,
    /// The path below the location's prefix.
    pub relative: String,
    /// `name=value` directories in order; `None` is NULL.
    pub partitions: Vec<(String, Option<String>)>,
}

/// Lists the files of `location` in order of their paths. `below` narrows the
/// listing to directories under the prefix.
pub async fn list(
    store: &Arc<dyn ObjectStore>,
    location: &Location,
    policy: &LocationPolicy,
    below: Option<&[String]>,
) -> Result<Vec<SourceFile>> {
    let mut files = vec![];
    match (location.kind(), below) {
        (LocationKind::File, _) => {
            let meta = store
                .head(location.prefix())
                .await
                .map_err(|error| unreadable(location, &error))?;
            let relative = meta.location.filename().unwrap_or_default().to_owned();
            files.push(SourceFile {
                meta,
                relative,
                partitions: vec![],
            });
        }
        (_, None) => list_prefix(store, location, location.prefix(), &mut files).await?,
        (_, Some(directories)) => {
            for directory in directories {
                let prefix = Path::from(format!("{}/{directory}", location.prefix()));
                // To list what is not there takes a file system longer than to look.
                let path = format!("/{}", local(&prefix));
                if location.is_local() && matches!(std::fs::exists(path), Ok(false)) {
                    continue;
                }
                list_prefix(store, location, &prefix, &mut files).await?;
            }
        }
    }
    if location.is_local() {
        let mut admitted = Vec::with_capacity(files.len());
        for file in files {
            let path = format!("/{}", local(&file.meta.location));
            if policy.admits_file(FsPath::new(&path))? {
                admitted.push(file);
            }
        }
        files = admitted;
    }
    files.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
    Ok(files)
}

/// The file system's spelling of a path, which the store keeps percent-encoded
/// where a character is not allowed in a key.
fn local(path: &Path) -> String {
    percent_encoding::percent_decode_str(path.as_ref())
        .decode_utf8_lossy()
        .into_owned()
}

async fn list_prefix(
    store: &Arc<dyn ObjectStore>,
    location: &Location,
    prefix: &Path,
    files: &mut Vec<SourceFile>,
) -> Result<()> {
    let mut listing = store.list(Some(prefix));
    while let Some(meta) = listing
        .try_next()
        .await
        .map_err(|error| unreadable(location, &error))?
    {
        let Some(parts) = meta.location.prefix_match(location.prefix()) else {
            continue;
        };
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        let relative = parts.join("/");
        if meta.size == 0 || !location.matches(&relative) {
            continue;
        }
        let partitions = parts[..parts.len().saturating_sub(1)]
            .iter()
            .filter_map(|part| partition(part))
            .collect();
        files.push(SourceFile {
            meta,
            relative,
            partitions,
        });
        if files.len() > FILES_MAX {
            return Err(Error::ResourceExhausted(format!(
                "location {:?} has more than {FILES_MAX} files: register parts of it",
                location.canonical()
            )));
        }
    }
    Ok(())
}

fn partition(directory: &str) -> Option<(String, Option<String>)> {
    let (name, value) = directory.split_once('=')?;
    let value = percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .ok()?;
    let value = (value != HIVE_NULL).then(|| value.into_owned());
    Some((name.to_owned(), value))
}

fn unreadable(location: &Location, error: &object_store::Error) -> Error {
    tracing::warn!(location = location.canonical(), %error, "a location cannot be read");
    let what = match error {
        object_store::Error::NotFound { .. } => "names nothing: check the path or bucket",
        // A list request has no kind of error for this.
        object_store::Error::Generic { source, .. }
            if source.to_string().contains("<Code>NoSuchBucket</Code>") =>
        {
            "names nothing: check the path or bucket"
        }
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            "may not be read: check the permissions, or the server's AWS_* credentials"
        }
        _ => {
            return Error::Unavailable(format!(
                "location {:?} cannot be read: check that its store can be reached, then try again",
                location.canonical()
            ));
        }
    };
    Error::InvalidArgument(format!("location {:?} {what}", location.canonical()))
}

/// The columns that the directories of `files` give, all files alike: integers
/// where every value is one, else text.
pub fn partition_fields(files: &[SourceFile]) -> Result<Vec<Field>> {
    let Some(first) = files.first() else {
        return Ok(vec![]);
    };
    let names: Vec<&str> = first
        .partitions
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for file in files {
        check_partitions(file, &names)?;
    }
    Ok(names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let integers = files
                .iter()
                .filter_map(|file| file.partitions[index].1.as_deref())
                .all(|value| value.parse::<i64>().is_ok_and(|n| n.to_string() == value));
            Field::new(*name, partition_type(integers), true)
        })
        .collect())
}

/// A partition value repeats for a whole file, so text is kept as a dictionary.
fn partition_type(integers: bool) -> DataType {
    if integers {
        DataType::Int64
    } else {
        DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
    }
}

/// Refuses a file whose directories are not the columns `names`: its rows would
/// read as NULL there.
pub fn check_partitions<S: AsRef<str>>(file: &SourceFile, names: &[S]) -> Result<()> {
    let same = file.partitions.len() == names.len()
        && file
            .partitions
            .iter()
            .zip(names)
            .all(|((name, _), expected)| name == expected.as_ref());
    if same {
        return Ok(());
    }
    let expected: Vec<String> = names
        .iter()
        .map(|name| format!("{}=.../", name.as_ref()))
        .collect();
    Err(Error::DataLoss(format!(
        "a file is not in a directory of the form `{}` as the others are: move or remove it",
        expected.concat()
    )))
}

/// The value of a partition column, or an error where the directory's name is
/// not of the column's type.
pub fn partition_value(value: Option<&str>, data_type: &DataType) -> Result<ScalarValue> {
    let text = ScalarValue::Utf8(value.map(str::to_owned));
    text.cast_to(data_type).map_err(|_| {
        Error::DataLoss(format!(
            "a partition directory's value is no {data_type}: refresh the source"
        ))
    })
}

/// Remembers which file versions agree with the schema that their source was
/// registered with.
#[derive(Clone, Debug)]
pub struct FileChecks(Cache<FileVersion, ()>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileVersion {
    store: String,
    path: String,
    modified_ns: Option<i64>,
    size: u64,
    e_tag: Option<String>,
    /// The definition that the file was checked against.
    columns: Vec<String>,
    format: SourceFormat,
}

/// File versions that are remembered.
const CHECKED_MAX: u64 = 100_000;

impl Default for FileChecks {
    fn default() -> Self {
        FileChecks(Cache::new(CHECKED_MAX))
    }
}

impl FileChecks {
    /// Refuses a file that would be misread: one without the tenant column,
    /// whose rows would otherwise read as shared, or a CSV file whose header is
    /// not the registered one, whose values would land in other columns.
    pub async fn check(
        &self,
        session: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        location: &Location,
        source: &NewSource,
        file: &SourceFile,
    ) -> Result<()> {
        let columns = required_columns(source);
        if columns.is_empty() {
            return Ok(());
        }
        let version = FileVersion {
            store: location.store().as_str().to_owned(),
            path: file.meta.location.to_string(),
            modified_ns: file.meta.last_modified.timestamp_nanos_opt(),
            size: file.meta.size,
            e_tag: file.meta.e_tag.clone(),
            columns,
            format: source.format,
        };
        if self.0.contains_key(&version) {
            return Ok(());
        }
        let schema = format::infer_schema(session, store, source.format, &file.meta)
            .await
            .map_err(|error| {
                tracing::warn!(source = source.name, file = file.relative, %error, "a file cannot be read");
                Error::DataLoss(format!(
                    "source `{}` has a file that cannot be read as {}: mend or remove it, \
                     then refresh the source",
                    source.name, source.format
                ))
            })?;
        let found: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let agrees = if source.format == SourceFormat::Csv {
            found == version.columns
        } else {
            version.columns.iter().all(|c| found.contains(&c.as_str()))
        };
        if !agrees {
            tracing::warn!(
                source = source.name,
                file = file.relative,
                "a file has other columns"
            );
            return Err(Error::DataLoss(format!(
                "source `{}` has a file with other columns than it was registered with \
                 (expected {}): mend or remove the file, or refresh the source",
                source.name,
                version.columns.join(", ")
            )));
        }
        self.0.insert(version, ());
        Ok(())
    }
}

/// The columns that a file must have: CSV is read by position, so all of them
/// in order; elsewhere the tenant column, where it is in the files.
fn required_columns(source: &NewSource) -> Vec<String> {
    let in_file = |name: &str| !source.partition_columns.iter().any(|p| p == name);
    match source.format {
        SourceFormat::Csv => source
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .filter(|name| in_file(name))
            .collect(),
        _ => source
            .tenant_column
            .name()
            .filter(|name| in_file(name))
            .map(str::to_owned)
            .into_iter()
            .collect(),
    }
}
