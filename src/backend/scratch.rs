//! Files that are there while something is copied in or out, and gone with whoever
//! made them: `<artifact_dir>/scratch/<run>.<number>`.
//!
//! What a run of a process has left is removed by the next that makes one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{Backend, BackendError, blocking, incarnation};

const DIRECTORY: &str = "scratch";

/// The name of a file that is removed with this. Nothing is there at first.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed as what a run has left.
        let _ = fs::remove_file(&self.0);
    }
}

impl Backend {
    /// A name for a file of this run.
    pub async fn scratch(&self) -> Result<Scratch, BackendError> {
        let (artifact_dir, own) = (self.artifact_dir().to_path_buf(), self.incarnation());
        blocking(move || {
            let directory = artifact_dir.join(DIRECTORY);
            let unusable = |source| BackendError::ArtifactDir {
                path: directory.clone(),
                source,
            };
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(&directory);
            made.map_err(unusable)?;
            remove_left(&artifact_dir, &directory, own)?;
            let (own, number) = (own.simple(), Uuid::new_v4().simple());
            Ok(Scratch(directory.join(format!("{own}.{number}"))))
        })
        .await
    }
}

/// Removes the files of runs that are over.
fn remove_left(artifact_dir: &Path, directory: &Path, own: Uuid) -> Result<(), BackendError> {
    let unusable = |source| BackendError::ArtifactDir {
        path: directory.to_path_buf(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        let run = path.file_stem().and_then(|stem| stem.to_str());
        let run = run.and_then(|run| Uuid::try_parse(run.split('.').next()?).ok());
        let is_left = match run {
            Some(run) => run != own && incarnation::is_over(artifact_dir, run)?,
            None => false,
        };
        if is_left {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unusable(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
