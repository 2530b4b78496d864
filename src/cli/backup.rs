//! `jammi backup` and `jammi restore`: one lane as a file.
//!
//! Both work on the databases of a directory, also beside a server that runs on
//! it: a backup does not stop its writers, and what is restored is there for its
//! next statement.

use std::path::Path;

use super::args::GlobalArgs;
use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::settings;
use super::sources::say;
use crate::backend::{Backend, BackendError, DatabaseName};
use crate::engine;
use crate::tenant::Lane;

/// `jammi backup FILE`.
pub async fn backup(global: &GlobalArgs, file: &Path) -> Outcome {
    let (backend, lane) = open(global, "backup").await?;
    let work = backend.backup(lane, file);
    Progress::start().watch(work).await.map_err(failed)?;
    let name = DatabaseName::Lane(lane);
    say(&format!("backed up {name} to {}", file.display()))
}

/// `jammi restore FILE`.
pub async fn restore(global: &GlobalArgs, file: &Path) -> Outcome {
    let (backend, lane) = open(global, "restore").await?;
    let work = engine::restore(&backend, lane, file);
    Progress::start().watch(work).await.map_err(failed)?;
    let name = DatabaseName::Lane(lane);
    say(&format!("restored {name} from {}", file.display()))
}

/// The lanes of the directory, and the one that the command is for.
async fn open(global: &GlobalArgs, command: &str) -> Outcome<(Backend, Lane)> {
    let config = settings::of_directory(global, command)?;
    let backend = Backend::open(&config.artifact_dir, &config.lanes)
        .await
        .map_err(|error| Failure::Connection(error.to_string()))?;
    let lane = global.tenant.map_or(Lane::Global, Lane::Tenant);
    Ok((backend, lane))
}

fn failed(error: BackendError) -> Failure {
    match error {
        BackendError::BackupFile { .. } => Failure::Usage(error.to_string()),
        other => Failure::Engine(other.to_string()),
    }
}
