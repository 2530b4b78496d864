//! Files that settings name and that are read again when they change.
//!
//! Invariant: what holds is what was read last without an error: files that become
//! wrong while the server runs are logged once, and change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use crate::error::{Error, Result};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The largest file that is read: far beyond any bundle of certificates.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFile {
    /// The setting that names it.
    pub setting: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl SettingFile {
    /// An error of what is in the file.
    pub fn wrong(&self, why: &str, mend: &str) -> Error {
        let path = self.path.display();
        Error::InvalidArgument(format!("{path} ({}) {why}: {mend}", self.setting))
    }

    fn read(&self) -> Result<Vec<u8>> {
        let read = |path: &Path| -> std::io::Result<Vec<u8>> {
            let bytes = std::fs::metadata(path)?.len();
            match bytes > FILE_BYTES_MAX {
                true => Err(std::io::Error::other(format!("it has {bytes} bytes"))),
                false => std::fs::read(path),
            }
        };
        read(&self.path)
            .map_err(|error| self.wrong(&format!("cannot be read ({error})"), "name another file"))
    }
}

/// Makes something of the contents of files.
type Make<T> = dyn Fn(&[Vec<u8>]) -> Result<T> + Send + Sync;

/// What is made of the contents of files, in the order in which they are named.
pub struct Watched<T> {
    files: Vec<SettingFile>,
    make: Box<Make<T>>,
    current: RwLock<Arc<T>>,
    /// The digest of what was looked at last, or the error of reading it.
    seen: Mutex<Result<[u8; 32], String>>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads `files` and makes of them what holds from now on.
    ///
    /// # Errors
    /// A file that cannot be read, and whatever `make` refuses.
    pub fn open(
        files: Vec<SettingFile>,
        make: impl Fn(&[Vec<u8>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let contents = read(&files)?;
        let current = make(&contents)?;
        Ok(Arc::new(Watched {
            seen: Mutex::new(Ok(digest(&contents))),
            files,
            make: Box::new(make),
            current: RwLock::new(Arc::new(current)),
        }))
    }

    /// What holds now.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }
}

/// Something that is read again when it changes.
pub trait Reload: Send + Sync {
    /// Reads it again if it has changed.
    fn look(&self);
}

impl<T: Send + Sync + 'static> Reload for Watched<T> {
    fn look(&self) {
        let read = read(&self.files);
        let found = read.as_ref().map(|contents| digest(contents));
        let found = found.map_err(ToString::to_string);
        {
            let mut seen = self.seen.lock();
            if *seen == found {
                return;
            }
            *seen = found;
        }
        let settings: Vec<_> = self.files.iter().map(|file| file.setting).collect();
        match read.and_then(|contents| (self.make)(&contents)) {
            Ok(new) => {
                *self.current.write() = Arc::new(new);
                tracing::info!(?settings, "files were read again");
            }
            Err(error) => {
                tracing::error!(%error, "files have changed, and what they held holds on")
            }
        }
    }
}

/// Looks at `reloads` for as long as it is polled.
pub async fn watch(reloads: Vec<Arc<dyn Reload>>) {
    let reloads = Arc::new(reloads);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !reloads.is_empty() {
        looks.tick().await;
        let reloads = Arc::clone(&reloads);
        let look = move || reloads.iter().for_each(|reload| reload.look());
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "files were not looked at");
        }
    }
}

fn read(files: &[SettingFile]) -> Result<Vec<Vec<u8>>> {
    files.iter().map(SettingFile::read).collect()
}

fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in contents {
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_right_last_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let file = SettingFile {
            setting: "a.number",
            path: path.clone(),
        };
        let make = {
            let file = file.clone();
            move |contents: &[Vec<u8>]| {
                let text = String::from_utf8_lossy(&contents[0]);
                let number = text.parse::<u32>();
                number.map_err(|_| file.wrong("holds no number", "write one"))
            }
        };
        let missing = Watched::open(vec![file.clone()], make.clone());
        let error = missing.err().unwrap().to_string();
        assert!(
            error.contains("a.number") && error.contains("cannot be read"),
            "{error}"
        );
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(vec![file], make).unwrap();
        for (text, expected) in [
            (Some("2"), 2),
            (Some("two"), 2),
            (None, 2),
            (Some("2"), 2),
            (Some("3"), 3),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            watched.look();
            assert_eq!(*watched.current(), expected, "{text:?}");
        }
    }
}
