//! One server for one artifact directory.
//!
//! A server keeps the session bindings in memory, so two of them on one
//! directory would disagree about who is bound. Lanes are safe to share:
//! processes that only use lanes take no lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::BackendError;

const FILE_NAME: &str = "server.lock";

/// Held by a server while it runs; the operating system frees it with the
/// process, however that ends.
#[derive(Debug)]
pub struct ServerLock {
    _file: File,
}

impl ServerLock {
    pub(super) fn take(artifact_dir: &Path) -> Result<Self, BackendError> {
        let path = artifact_dir.join(FILE_NAME);
        let unusable = |source| BackendError::ArtifactDir {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(ServerLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(BackendError::ServerRunning {
                path: artifact_dir.to_path_buf(),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}
