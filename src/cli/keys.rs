//! `jammi keys`: the keys by which clients of a server authenticate.
//!
//! They are the installation's, and not a tenant's. On the databases of a directory the
//! command works beside a server too: what is revoked is refused from the server's next
//! request on.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use chrono::Utc;

use super::args::{CreateKeyArgs, KeysCommand, OutputFormat};
use super::failure::Outcome;
use super::notice;
use super::output::Output;
use super::sources::show;
use super::target::Target;
use crate::server::proto::operator::{ActsFor, CreateKeyRequest, Key, RotateKeyRequest, Secret};
use crate::tenant::TenantId;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Runs one of the commands about keys.
pub async fn run(target: &Target, command: KeysCommand) -> Outcome {
    match command {
        KeysCommand::Create(args) => {
            let made = target.create_key(new_key(args)).await?;
            tell(
                &made.key.unwrap_or_default(),
                &made.text.unwrap_or_default(),
            )
        }
        KeysCommand::List(output) => {
            let keys = target.keys().await?;
            show(output, |output| output.batch(&rows(&keys)?))
        }
        KeysCommand::Rotate { id, overlap_hours } => {
            let overlap_ms = i64::from(overlap_hours) * HOUR_MS;
            // Without an overlap by the clock of whoever refuses it.
            let old_until_ms = (overlap_ms > 0).then(|| now_ms().saturating_add(overlap_ms));
            let request = RotateKeyRequest { id, old_until_ms };
            let made = target.rotate_key(request).await?;
            tell(
                &made.key.unwrap_or_default(),
                &made.text.unwrap_or_default(),
            )
        }
        KeysCommand::Revoke { id } => {
            target.revoke_key(&id).await?;
            notice(format_args!("key {id} is refused from now on"));
            Ok(())
        }
    }
}

fn new_key(args: CreateKeyArgs) -> CreateKeyRequest {
    let CreateKeyArgs {
        user,
        acts_for,
        all_tenants,
        roles,
        expires_in_days,
    } = args;
    CreateKeyRequest {
        user,
        acts_for: Some(acts_for_message(all_tenants, &acts_for)),
        roles,
        expires_at_ms: expires_in_days
            .map(|days| now_ms().saturating_add(i64::from(days) * DAY_MS)),
    }
}

/// The key's text alone on stdout, so that a script can keep it.
fn tell(key: &Key, text: &Secret) -> Outcome {
    let mut output = Output::stdout(OutputFormat::Table)?;
    output.line(&text.text)?;
    output.finish()?;
    notice(format_args!(
        "key {} of {}: it is shown this once; clients send it as `authorization: Bearer KEY`, or \
         as the password of {}",
        key.id, key.user, key.user
    ));
    Ok(())
}

fn rows(keys: &[Key]) -> Outcome<RecordBatch> {
    let texts = |text: &dyn Fn(&Key) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(keys.iter().map(text)))
    };
    let times = |time: &dyn Fn(&Key) -> Option<i64>| -> ArrayRef {
        let times = TimestampMillisecondArray::from_iter(keys.iter().map(time));
        Arc::new(times.with_timezone("UTC"))
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("id", texts(&|key| key.id.clone()), false),
        ("user", texts(&|key| key.user.clone()), false),
        (
            "acts_for",
            texts(&|key| acts_for_text(key.acts_for.as_ref())),
            false,
        ),
        ("roles", texts(&|key| key.roles.join(" ")), false),
        ("created_at", times(&|key| Some(key.created_at_ms)), false),
        ("expires_at", times(&|key| key.expires_at_ms), true),
        ("revoked_at", times(&|key| key.revoked_at_ms), true),
    ])?)
}

/// The tenants of a credential that is to be made.
pub(super) fn acts_for_message(all: bool, tenants: &[TenantId]) -> ActsFor {
    ActsFor {
        all,
        tenants: tenants.iter().map(ToString::to_string).collect(),
    }
}

/// The tenants of a credential, for people.
pub(super) fn acts_for_text(acts_for: Option<&ActsFor>) -> String {
    match acts_for {
        Some(acts_for) if acts_for.all => "any tenant".to_owned(),
        Some(acts_for) => acts_for.tenants.join(" "),
        None => String::new(),
    }
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}
