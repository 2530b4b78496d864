//! `jammi sessions`: what a running server keeps of its clients' sessions.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};

use super::args::SessionsCommand;
use super::failure::Outcome;
use super::notice;
use super::sources::{say, show};
use super::target::Target;
use crate::server::proto::operator::Session;

/// Runs one of the commands about sessions.
pub async fn run(target: &Target, command: SessionsCommand) -> Outcome {
    match command {
        SessionsCommand::List(args) => {
            let listed = target.sessions(args.limit).await?;
            show(args.output, |output| output.batch(&rows(&listed.sessions)?))?;
            tell_more(listed.sessions.len(), listed.total);
            Ok(())
        }
        SessionsCommand::End { id } => {
            target.end_session(id).await?;
            say(&format!("ended session {id}"))
        }
    }
}

/// Says that there are more than are listed.
pub(super) fn tell_more(listed: usize, total: u64) {
    if (listed as u64) < total {
        notice(format_args!(
            "{listed} of {total} are listed: ask for more with --limit"
        ));
    }
}

fn rows(sessions: &[Session]) -> Outcome<RecordBatch> {
    let numbers = |number: &dyn Fn(&Session) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(sessions.iter().map(number)))
    };
    let texts = |text: &dyn Fn(&Session) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(sessions.iter().map(text)))
    };
    let tables = sessions
        .iter()
        .map(|session| Some(session.has_temporary_tables));
    let used = sessions.iter().map(|session| session.used_at_ms);
    let used = TimestampMillisecondArray::from_iter(used).with_timezone("UTC");
    let tenant = |session: &Session| Some(session.tenant.clone()).filter(|text| !text.is_empty());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("id", numbers(&|session| session.id), false),
        ("tenant", texts(&tenant), true),
        (
            "principal",
            texts(&|session| Some(session.principal.clone())),
            false,
        ),
        ("queries", numbers(&|session| session.queries), false),
        (
            "transactions",
            numbers(&|session| session.transactions),
            false,
        ),
        (
            "has_temporary_tables",
            Arc::new(BooleanArray::from_iter(tables)) as ArrayRef,
            false,
        ),
        ("used_at", Arc::new(used) as ArrayRef, true),
    ])?)
}
