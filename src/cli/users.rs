//! `jammi users`: the users of a server who sign in by passwords of their own.
//!
//! As with keys, the command works on the databases of a directory, also beside a
//! server that runs on it.

use std::io::{self, BufRead};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use chrono::Utc;

use super::args::{GlobalArgs, NewUserArgs, UsersCommand};
use super::failure::{Failure, Outcome};
use super::keys::acts_for_text;
use super::sources::show;
use super::{notice, settings};
use crate::auth::{NewUser, User, Users};
use crate::backend::Backend;
use crate::tenant::ActsFor;

/// Runs one of the commands about users.
pub async fn run(global: &GlobalArgs, command: UsersCommand) -> Outcome {
    let config = settings::of_directory(global, "users")?;
    let backend = Backend::open(&config.artifact_dir, &config.lanes)
        .await
        .map_err(|error| Failure::Connection(error.to_string()))?;
    let users = Users::new(backend, || Utc::now().timestamp_millis());
    match command {
        UsersCommand::Create(args) => {
            let name = args.name.clone();
            users.create(new_user(args), &password()?).await?;
            notice(format_args!("user {name} may sign in"));
        }
        UsersCommand::List(output) => {
            let users = users.list().await?;
            show(output, |output| output.batch(&rows(&users)?))?;
        }
        UsersCommand::Passwd { name } => {
            users.set_password(&name, &password()?).await?;
            notice(format_args!(
                "user {name} has another password: the old one is refused from now on"
            ));
        }
        UsersCommand::Drop { name } => {
            users.drop_user(&name).await?;
            notice(format_args!("user {name} is refused from now on"));
        }
    }
    Ok(())
}

/// The first line of stdin, which a terminal does not show.
fn password() -> Outcome<String> {
    if let Some(typed) = settings::typed_password()? {
        return Ok(typed);
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(settings::unread_password)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn new_user(args: NewUserArgs) -> NewUser {
    NewUser {
        name: args.name,
        acts_for: match args.all_tenants {
            true => ActsFor::All,
            false => ActsFor::only(args.acts_for),
        },
        roles: args.roles.into_iter().collect(),
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
    let roles = |user: &User| {
        let roles: Vec<&str> = user.roles.iter().map(String::as_str).collect();
        roles.join(" ")
    };
    Ok(RecordBatch::try_from_iter([
        ("user", texts(&|user| user.name.clone())),
        ("acts_for", texts(&|user| acts_for_text(&user.acts_for))),
        ("roles", texts(&roles)),
        ("created_at", times(&|user| user.created_at_ms)),
        ("password_changed_at", times(&|user| user.changed_at_ms)),
    ])?)
}
