//! `jammi queries`: the statements that a running server runs.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};

use super::args::QueriesCommand;
use super::failure::Outcome;
use super::sessions::tell_more;
use super::sources::{say, show};
use super::target::Target;
use crate::server::proto::operator::Query;

/// Runs one of the commands about queries.
pub async fn run(target: &Target, command: QueriesCommand) -> Outcome {
    match command {
        QueriesCommand::List(args) => {
            let listed = target.queries(args.limit).await?;
            show(args.output, |output| output.batch(&rows(&listed.queries)?))?;
            tell_more(listed.queries.len(), listed.total);
            Ok(())
        }
        QueriesCommand::Cancel { id } => {
            target.cancel_query(id).await?;
            say(&format!("cancelled query {id}"))
        }
    }
}

fn rows(queries: &[Query]) -> Outcome<RecordBatch> {
    let numbers = |number: &dyn Fn(&Query) -> Option<u64>| -> ArrayRef {
        Arc::new(UInt64Array::from_iter(queries.iter().map(number)))
    };
    let texts = |text: &dyn Fn(&Query) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(queries.iter().map(text)))
    };
    let began = queries.iter().map(|query| query.began_at_ms);
    let began = TimestampMillisecondArray::from_iter_values(began).with_timezone("UTC");
    let tenant = |query: &Query| Some(query.tenant.clone()).filter(|text| !text.is_empty());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("id", numbers(&|query| Some(query.id)), false),
        ("session", numbers(&|query| query.session), true),
        ("tenant", texts(&tenant), true),
        (
            "principal",
            texts(&|query| Some(query.principal.clone())),
            false,
        ),
        ("kind", texts(&|query| Some(query.kind.clone())), false),
        ("state", texts(&|query| Some(query.state.clone())), false),
        (
            "statement",
            texts(&|query| Some(query.statement.clone())),
            false,
        ),
        ("rows", numbers(&|query| Some(query.rows)), false),
        ("began_at", Arc::new(began) as ArrayRef, false),
    ])?)
}
