//! `jammi keys`: the keys by which clients of a server authenticate.
//!
//! They are the installation's, and not a tenant's, so the command works on the
//! databases of a directory, also beside a server that runs on it: what is revoked is
//! refused from the server's next request on.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use chrono::Utc;

use super::args::{CreateKeyArgs, GlobalArgs, KeysCommand};
use super::failure::{Failure, Outcome};
use super::sources::show;
use super::{notice, output::Output, settings};
use crate::auth::{ApiKey, ApiKeys, IssuedKey, NewApiKey};
use crate::backend::Backend;
use crate::cli::args::OutputFormat;
use crate::tenant::ActsFor;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Runs one of the commands about keys.
pub async fn run(global: &GlobalArgs, command: KeysCommand) -> Outcome {
    let keys = open(global).await?;
    match command {
        KeysCommand::Create(args) => {
            let issued = keys.create(new_key(args)?).await?;
            tell(&issued)
        }
        KeysCommand::List(output) => {
            let keys = keys.list().await?;
            show(output, |output| output.batch(&rows(&keys)?))
        }
        KeysCommand::Rotate { id, overlap_hours } => {
            let until_ms = now_ms().saturating_add(i64::from(overlap_hours) * HOUR_MS);
            tell(&keys.rotate(&id, until_ms).await?)
        }
        KeysCommand::Revoke { id } => {
            keys.revoke(&id).await?;
            notice(format_args!("key {id} is refused from now on"));
            Ok(())
        }
    }
}

async fn open(global: &GlobalArgs) -> Outcome<ApiKeys> {
    if settings::server_url(global)?.is_some() {
        return Err(Failure::Usage(
            "keys works on the databases themselves, also beside a running server: use \
             --artifact-dir instead of --url"
                .into(),
        ));
    }
    let config = settings::load(global, None)?;
    let backend = Backend::open(&config.artifact_dir, &config.lanes)
        .await
        .map_err(|error| Failure::Connection(error.to_string()))?;
    Ok(ApiKeys::new(backend, now_ms))
}

fn new_key(args: CreateKeyArgs) -> Outcome<NewApiKey> {
    let CreateKeyArgs {
        user,
        acts_for,
        all_tenants,
        roles,
        expires_in_days,
    } = args;
    Ok(NewApiKey {
        user,
        acts_for: match all_tenants {
            true => ActsFor::All,
            false => ActsFor::only(acts_for),
        },
        roles: roles.into_iter().collect(),
        expires_at_ms: expires_in_days
            .map(|days| now_ms().saturating_add(i64::from(days) * DAY_MS)),
    })
}

/// The key's text alone on stdout, so that a script can keep it.
fn tell(issued: &IssuedKey) -> Outcome {
    let mut output = Output::stdout(OutputFormat::Table)?;
    output.line(&issued.text)?;
    output.finish()?;
    notice(format_args!(
        "key {} of {}: it is shown this once; clients send it as `authorization: Bearer KEY`, or \
         as the password of {}",
        issued.key.id, issued.key.user, issued.key.user
    ));
    Ok(())
}

fn rows(keys: &[ApiKey]) -> Outcome<RecordBatch> {
    let texts = |text: &dyn Fn(&ApiKey) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(keys.iter().map(text)))
    };
    let times = |time: &dyn Fn(&ApiKey) -> Option<i64>| -> ArrayRef {
        let times = TimestampMillisecondArray::from_iter(keys.iter().map(time));
        Arc::new(times.with_timezone("UTC"))
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("id", texts(&|key| key.id.clone()), false),
        ("user", texts(&|key| key.user.clone()), false),
        (
            "acts_for",
            texts(&|key| acts_for_text(&key.acts_for)),
            false,
        ),
        (
            "roles",
            texts(&|key| {
                let roles: Vec<&str> = key.roles.iter().map(String::as_str).collect();
                roles.join(" ")
            }),
            false,
        ),
        ("created_at", times(&|key| Some(key.created_at_ms)), false),
        ("expires_at", times(&|key| key.expires_at_ms), true),
        ("revoked_at", times(&|key| key.revoked_at_ms), true),
    ])?)
}

/// The tenants of a credential, for people.
pub(super) fn acts_for_text(acts_for: &ActsFor) -> String {
    match acts_for {
        ActsFor::All => "any tenant".to_owned(),
        ActsFor::Only(tenants) => {
            let tenants: Vec<String> = tenants.iter().map(ToString::to_string).collect();
            tenants.join(" ")
        }
    }
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}
