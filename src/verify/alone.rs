//! Copies of an installation in which one tenant is alone.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::backend::{Backend, BackendError, DatabaseName};
use crate::config::JammiConfig;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::tenant::Lane;

/// A copy at a time, in a directory that goes with this.
pub(super) struct AloneCopies {
    from: Backend,
    config: JammiConfig,
    copy: Option<(Lane, Engine, Directory)>,
}

impl AloneCopies {
    pub fn new(from: Backend, config: JammiConfig) -> Self {
        AloneCopies {
            from,
            config,
            copy: None,
        }
    }

    /// A copy in which there are this lane and the global one.
    pub async fn of(&mut self, lane: Lane) -> Result<&Engine> {
        // One of another lane goes first: it takes room.
        let copy = match self.copy.take().filter(|copy| copy.0 == lane) {
            Some(copy) => copy,
            None => self.make(lane).await?,
        };
        Ok(&self.copy.insert(copy).1)
    }

    async fn make(&self, lane: Lane) -> Result<(Lane, Engine, Directory)> {
        let directory = Directory::make().map_err(|error| {
            let message = "a copy of what is verified cannot be made in the temporary directory";
            Error::internal(message, error)
        })?;
        let mut lanes = vec![Lane::Global];
        if lane != Lane::Global {
            lanes.push(lane);
        }
        for lane in lanes {
            let to = directory.path().join(DatabaseName::Lane(lane).file());
            match self.from.backup(lane, &to).await {
                // A tenant without a lane is alone with what is shared.
                Ok(()) | Err(BackendError::NothingToBackUp { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let config = JammiConfig {
            artifact_dir: directory.path().to_owned(),
            ..self.config.clone()
        };
        let engine = Engine::open(&config).await?;
        Ok((lane, engine, directory))
    }
}

/// A directory that is removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("jammi-verify-{}", Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let directory = Directory(path);
        DirBuilder::new()
            .mode(0o700)
            .create(directory.path().join("tenants"))?;
        Ok(directory)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left there is a private copy that the system clears away.
        let _ = fs::remove_dir_all(&self.0);
    }
}
