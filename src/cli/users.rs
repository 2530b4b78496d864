//! `jammi users`: the users of a server who sign in by passwords of their own.
//!
//! As with keys, the command works on the databases of a directory, also beside a
//! server that runs on it, or through the server.

use std::io::{self, BufRead};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};

use super::args::{NewUserArgs, UsersCommand};
use super::failure::Outcome;
use super::keys::{acts_for_message, acts_for_text};
use super::sources::show;
use super::target::Target;
use super::{notice, settings};
use crate::server::proto::operator::{CreateUserRequest, Secret, SetPasswordRequest, User};

/// Runs one of the commands about users.
pub async fn run(target: &Target, command: UsersCommand) -> Outcome {
    match command {
        UsersCommand::Create(args) => {
            let name = args.name.clone();
            target.create_user(new_user(args, password()?)).await?;
            notice(format_args!("user {name} may sign in"));
        }
        UsersCommand::List(output) => {
            let users = target.users().await?;
            show(output, |output| output.batch(&rows(&users)?))?;
        }
        UsersCommand::Passwd { name } => {
            let request = SetPasswordRequest {
                name: name.clone(),
                password: Some(password()?),
            };
            target.set_password(request).await?;
            notice(format_args!(
                "user {name} has another password: the old one is refused from now on"
            ));
        }
        UsersCommand::Drop { name } => {
            target.drop_user(&name).await?;
            notice(format_args!("user {name} is refused from now on"));
        }
    }
    Ok(())
}

/// The first line of stdin, which a terminal does not show.
fn password() -> Outcome<Secret> {
    if let Some(text) = settings::typed_password()? {
        return Ok(Secret { text });
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(settings::unread_password)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let text = line.strip_suffix('\r').unwrap_or(line).to_owned();
    Ok(Secret { text })
}

fn new_user(args: NewUserArgs, password: Secret) -> CreateUserRequest {
    CreateUserRequest {
        name: args.name,
        acts_for: Some(acts_for_message(args.all_tenants, &args.acts_for)),
        roles: args.roles,
        password: Some(password),
    }
}

fn rows(users: &[User]) -> Outcome<RecordBatch> {
    let texts = |text: &dyn Fn(&User) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(users.iter().map(text)))
    };
    let times = |time: &dyn Fn(&User) -> i64| -> ArrayRef {
        let times = TimestampMillisecondArray::from_iter_values(users.iter().map(time));
        Arc::new(times.with_timezone("UTC"))
    };
    Ok(RecordBatch::try_from_iter([
        ("user", texts(&|user| user.name.clone())),
        (
            "acts_for",
            texts(&|user| acts_for_text(user.acts_for.as_ref())),
        ),
        ("roles", texts(&|user| user.roles.join(" "))),
        ("created_at", times(&|user| user.created_at_ms)),
        ("password_changed_at", times(&|user| user.changed_at_ms)),
    ])?)
}
