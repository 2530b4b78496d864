//! Where the files of a source are: a file, a directory or a glob, on the local
//! disk or in an S3-compatible store.
//!
//! The canonical text is `file://` and an absolute path, or `s3://`, a bucket
//! and a key, neither percent-encoded. A directory ends in `/`.

use std::path::{Component, Path as FsPath, PathBuf};

use datafusion::datasource::object_store::ObjectStoreUrl;
use glob::{MatchOptions, Pattern};
use object_store::path::Path;

use crate::error::{Error, Result};

/// What the server keeps in directories of its own below the artifact directory.
const OWN_DIRECTORIES: [&str; 4] = ["audit", "scratch", "sessions", "tenants"];

/// Where sources may be.
#[derive(Clone, Debug, Default)]
pub struct LocationPolicy {
    /// Canonical prefixes that locations must be below; `None` allows all.
    roots: Option<Vec<String>>,
    /// The directory that holds the lanes, whose databases are no sources.
    artifact_dir: PathBuf,
}

impl LocationPolicy {
    /// Allows locations below `roots` (paths or URLs of directories), or any
    /// where there are none.
    pub fn new(roots: Option<&[String]>, artifact_dir: &FsPath) -> Result<Self> {
        let roots = roots
            .map(|roots| roots.iter().map(|root| canonical_root(root)).collect())
            .transpose()?;
        Ok(LocationPolicy {
            roots,
            artifact_dir: artifact_dir
                .canonicalize()
                .unwrap_or_else(|_| artifact_dir.to_owned()),
        })
    }

    /// Refuses a canonical location outside the roots.
    pub fn check(&self, canonical: &str) -> Result<()> {
        let Some(roots) = &self.roots else {
            return Ok(());
        };
        if roots.iter().any(|root| canonical.starts_with(root)) {
            return Ok(());
        }
        let allowed = if roots.is_empty() {
            "none is allowed".to_owned()
        } else {
            format!("allowed are {}", roots.join(", "))
        };
        Err(Error::PermissionDenied(format!(
            "location {canonical:?} is not below a root that the operator allows ({allowed}): \
             name another, or have the setting sources.roots extended"
        )))
    }

    /// Whether a listed local file is one of the source's: a database of a lane, a copy
    /// of one, and a record of the audit trail, which are of all tenants, are not,
    /// wherever they lie.
    ///
    /// # Errors
    /// `PermissionDenied` for a file that a link takes out of the roots.
    pub fn admits_file(&self, path: &FsPath) -> Result<bool> {
        // A file that went away since it was listed is no longer one.
        let Ok(real) = path.canonicalize() else {
            return Ok(false);
        };
        if let Ok(inside) = real.strip_prefix(&self.artifact_dir) {
            let own_directory = match inside.components().next() {
                Some(Component::Normal(first)) => OWN_DIRECTORIES.iter().any(|own| first == *own),
                _ => false,
            };
            let database = inside.components().count() == 1
                && inside.to_str().is_none_or(|name| name.contains(".db"));
            if own_directory || database {
                return Ok(false);
            }
        }
        self.check(&format!("file://{}", real.display()))?;
        Ok(true)
    }
}

/// What a location names.
#[derive(Clone, Debug, PartialEq)]
pub enum LocationKind {
    /// One object.
    File,
    /// Every object below a prefix.
    Directory,
    /// The objects below a prefix whose path from there matches.
    Glob(Pattern),
}

/// A parsed location.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    canonical: String,
    store: ObjectStoreUrl,
    prefix: Path,
    kind: LocationKind,
}

impl Location {
    /// Parses what a user wrote and checks it against `policy`. Local paths are
    /// made absolute and their links followed.
    pub fn parse(text: &str, policy: &LocationPolicy) -> Result<Self> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Error::InvalidArgument(format!(
                "location {text:?} is empty or has control characters: \
                 give a path, or a file:// or s3:// URL"
            )));
        }
        let canonical = match text.split_once("://") {
            Some(("s3", rest)) => canonical_s3(rest)?,
            Some(("file", rest)) => {
                let path = percent_encoding::percent_decode_str(rest)
                    .decode_utf8()
                    .map_err(|_| {
                        Error::InvalidArgument(format!("location {text:?} is not UTF-8"))
                    })?;
                if !path.starts_with('/') {
                    return Err(Error::InvalidArgument(format!(
                        "location {text:?} names a host: write file:/// and an absolute path"
                    )));
                }
                canonical_local(&path)?
            }
            Some((scheme, _)) => {
                return Err(Error::InvalidArgument(format!(
                    "location scheme {scheme:?} is not served: \
                     give a path, or a file:// or s3:// URL"
                )));
            }
            None => canonical_local(text)?,
        };
        policy.check(&canonical)?;
        Location::from_canonical(&canonical)
    }

    /// Reads the text that [`Location::canonical`] gave.
    pub fn from_canonical(canonical: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::InvalidArgument(format!("location {canonical:?} {why}: register it again"))
        };
        let (scheme, rest) = canonical
            .split_once("://")
            .ok_or_else(|| refuse("has no scheme"))?;
        let (store, path) = match scheme {
            "file" => (ObjectStoreUrl::local_filesystem(), rest),
            "s3" => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let store = ObjectStoreUrl::parse(format!("s3://{bucket}"))
                    .map_err(|_| refuse("has a malformed bucket"))?;
                (store, key)
            }
            _ => return Err(refuse("has an unknown scheme")),
        };
        let (base, pattern) = split_glob(path);
        let kind = match pattern {
            Some(pattern) => LocationKind::Glob(Pattern::new(pattern).map_err(|error| {
                Error::InvalidArgument(format!(
                    "location {canonical:?} is a malformed glob ({}): mend it",
                    error.msg
                ))
            })?),
            None if path.is_empty() || path.ends_with('/') => LocationKind::Directory,
            None => LocationKind::File,
        };
        Ok(Location {
            canonical: canonical.to_owned(),
            store,
            prefix: Path::from(base),
            kind,
        })
    }

    /// The same location taken for a directory.
    pub fn into_directory(self) -> Result<Self> {
        Location::from_canonical(&format!("{}/", self.canonical))
    }

    /// The text that is kept in the catalog.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The store that holds the files.
    pub fn store(&self) -> &ObjectStoreUrl {
        &self.store
    }

    /// Whether the files are on the local disk.
    pub fn is_local(&self) -> bool {
        self.canonical.starts_with("file://")
    }

    /// The object, or what every object's path starts with.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// What the location names.
    pub fn kind(&self) -> &LocationKind {
        &self.kind
    }

    /// Whether an object at `relative` (its path from the prefix) belongs.
    pub fn matches(&self, relative: &str) -> bool {
        match &self.kind {
            LocationKind::File => true,
            LocationKind::Directory => !relative
                .split('/')
                .any(|part| part.starts_with('.') || part.starts_with('_')),
            LocationKind::Glob(pattern) => pattern.matches_with(
                relative,
                MatchOptions {
                    case_sensitive: true,
                    require_literal_separator: true,
                    require_literal_leading_dot: true,
                },
            ),
        }
    }
}

/// Splits before the first path segment with a glob character.
fn split_glob(path: &str) -> (&str, Option<&str>) {
    let Some(at) = path.find(['*', '?', '[']) else {
        return (path, None);
    };
    let start = path[..at].rfind('/').map_or(0, |slash| slash + 1);
    (&path[..start], Some(&path[start..]))
}

fn canonical_root(root: &str) -> Result<String> {
    let mut canonical = match root.split_once("://") {
        Some(("s3", rest)) => canonical_s3(rest)?,
        Some(("file", rest)) => canonical_local(rest)?,
        Some((scheme, _)) => {
            return Err(Error::InvalidArgument(format!(
                "setting sources.roots has scheme {scheme:?}: give paths, file:// or s3:// URLs"
            )));
        }
        None => canonical_local(root)?,
    };
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    Ok(canonical)
}

fn canonical_s3(rest: &str) -> Result<String> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let valid_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
        });
    if !valid_bucket {
        return Err(Error::InvalidArgument(format!(
            "bucket {bucket:?} is not an S3 bucket's name: write s3://BUCKET/KEY"
        )));
    }
    if key.split('/').any(|part| part == ".." || part == ".") {
        return Err(Error::InvalidArgument(format!(
            "location \"s3://{rest}\" has a `.` or `..` part: write the key in full"
        )));
    }
    Ok(format!("s3://{bucket}/{key}"))
}

fn canonical_local(text: &str) -> Result<String> {
    let absolute = std::path::absolute(text).map_err(|error| {
        Error::InvalidArgument(format!("location {text:?} cannot be read: {error}"))
    })?;
    let absolute = absolute.to_str().ok_or_else(|| {
        Error::InvalidArgument(format!("location {text:?} is not UTF-8: rename it"))
    })?;
    let (base, pattern) = split_glob(absolute);
    let real = FsPath::new(base).canonicalize().map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "names no file or directory: check the path",
            std::io::ErrorKind::PermissionDenied => "may not be read: check its permissions",
            _ => "cannot be read: check the path",
        };
        Error::InvalidArgument(format!("location {text:?} {what}"))
    })?;
    let mut canonical = format!("file://{}", real.display());
    if let Some(pattern) = pattern {
        if pattern.split('/').any(|part| part == "..") {
            return Err(Error::InvalidArgument(format!(
                "location {text:?} has a `..` behind a glob: write the path without it"
            )));
        }
        if !canonical.ends_with('/') {
            canonical.push('/');
        }
        canonical.push_str(pattern);
    } else if real.is_dir() && !canonical.ends_with('/') {
        canonical.push('/');
    }
    Ok(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_split_at_their_first_segment() {
        for (path, base, pattern) in [
            ("/data/a.parquet", "/data/a.parquet", None),
            ("/data/*.parquet", "/data/", Some("*.parquet")),
            ("/data/y=*/m=1/x?.csv", "/data/", Some("y=*/m=1/x?.csv")),
            ("*.csv", "", Some("*.csv")),
        ] {
            assert_eq!(split_glob(path), (base, pattern));
        }
    }

    #[test]
    fn locations_are_refused_with_their_mend() {
        let policy = LocationPolicy::default();
        for (text, says) in [
            ("", "is empty"),
            ("http://169.254.169.254/latest", "is not served"),
            ("s3://Up/x", "bucket"),
            ("s3://bucket/a/../b", "`..`"),
            ("file://host/x", "names a host"),
            ("/no/such/file.parquet", "names no file or directory"),
        ] {
            let error = Location::parse(text, &policy).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_link_out_of_the_roots_is_followed_before_the_check() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(dir.path().join("secret.csv"), "a\n1\n").unwrap();
        std::fs::write(root.join("open.csv"), "a\n1\n").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret.csv"), root.join("link.csv")).unwrap();
        let roots = [root.to_str().unwrap().to_owned()];
        let policy = LocationPolicy::new(Some(&roots), &dir.path().join("artifacts")).unwrap();
        let parse = |name: &str| Location::parse(root.join(name).to_str().unwrap(), &policy);
        assert!(parse("open.csv").is_ok());
        for name in ["link.csv", "../secret.csv"] {
            let error = parse(name).unwrap_err();
            assert!(
                matches!(error, Error::PermissionDenied(_)),
                "{name}: {error}"
            );
        }
        assert!(policy.admits_file(&root.join("open.csv")).unwrap());
        assert!(policy.admits_file(&root.join("link.csv")).is_err());
    }

    #[test]
    fn the_servers_own_files_are_no_files_of_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let own = [
            "global.db",
            "system.db-wal",
            "tenants/x.csv",
            "sessions/entered",
            "audit/00000001.jsonl",
            // A tenant's database on its way in or out.
            "scratch/x.csv",
        ];
        for name in own
            .into_iter()
            .chain(["rows.csv", "sample/tenants/rows.csv"])
        {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(
            dir.path().join("audit/00000001.jsonl"),
            dir.path().join("link.jsonl"),
        )
        .unwrap();

        let policy = LocationPolicy::new(None, dir.path()).unwrap();
        for name in own.into_iter().chain(["link.jsonl"]) {
            assert!(
                !policy.admits_file(&dir.path().join(name)).unwrap(),
                "{name}"
            );
        }
        for name in ["rows.csv", "sample/tenants/rows.csv"] {
            assert!(
                policy.admits_file(&dir.path().join(name)).unwrap(),
                "{name}"
            );
        }
    }
}
