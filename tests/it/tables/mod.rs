//! Stored tables by SQL: definitions, writes, and what each tenant sees of them.

mod altered;
mod constraints;
mod dropped;
mod kept;
mod keys;
mod rows;

use std::str::FromStr;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use jammi_db::TenantId;
use jammi_db::config::JammiConfig;
use jammi_db::error::{BackendError, Error};
use jammi_db::session::JammiSession;
use tempfile::TempDir;

use crate::harness::{ALICE, BOB};

/// Two tenants and an unbound session on one engine.
pub struct World {
    pub shared: JammiSession,
    pub alice: JammiSession,
    pub bob: JammiSession,
    pub dir: TempDir,
}
impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JammiConfig {
            artifact_dir: dir.path().to_owned(),
            ..JammiConfig::default()
        };
        let shared = JammiSession::new(config).await.unwrap();
        let bound = |tenant| {
            JammiSession::on(shared.engine().clone())
                .with_tenant(TenantId::from_str(tenant).unwrap())
        };
        World {
            alice: bound(ALICE),
            bob: bound(BOB),
            shared,
            dir,
        }
    }
}

/// The rows of a statement: values by `|`, rows by a blank.
pub async fn rows(session: &JammiSession, sql: &str) -> String {
    let batches = match session.sql(sql).await {
        Ok(batches) => batches,
        Err(error) => panic!("{sql}: {error:?}"),
    };
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values: Vec<String> = batch
                .columns()
                .iter()
                .map(|column| {
                    let format = ArrayFormatter::try_new(column, &options).unwrap();
                    format.value(row).to_string()
                })
                .collect();
            rows.push(values.join("|"));
        }
    }
    rows.join(" ")
}

/// Runs statements that are to succeed.
pub async fn run(session: &JammiSession, statements: &[&str]) {
    for sql in statements {
        rows(session, sql).await;
    }
}

/// The error of a statement that is to fail.
pub async fn refused(session: &JammiSession, sql: &str) -> Error {
    match session.sql(sql).await {
        Ok(_) => panic!("{sql} was not refused"),
        Err(error) => error,
    }
}
