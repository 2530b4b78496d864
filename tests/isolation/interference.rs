//! Non-interference: two servers that differ in what is Bob's alone, and everybody
//! else, who says the same to both and must be answered the same.

use crate::conversation::Conversation;
use crate::generate;
use crate::runs::{Budget, SHAPES, Tally, WRITES, run, run_on};
use crate::shrink::shrink;

/// Statements of one world: enough for tables to change, few enough to be replayed.
const CONVERSATION_STATEMENTS: usize = 40;

/// At least so many of a hundred statements are to succeed, or little is compared.
const SUCCEEDED_PERCENT_MIN: usize = 80;

/// Runs conversations of one seed after the other, and prints the least that is left
/// of the first that fails.
pub async fn hold(
    purpose: &str,
    statements: usize,
    talk: impl Fn(u64, usize) -> Conversation,
    shapes: &[&str],
) {
    let budget = Budget::of(purpose, statements);
    let mut tally = Tally::default();
    let mut seed = budget.first_seed;
    while tally.statements < budget.statements {
        let conversation = talk(seed, CONVERSATION_STATEMENTS);
        match run(&conversation).await {
            Ok(ran) => tally.add(ran),
            Err(failure) => {
                let itself = match run_on(&conversation, [0, 0]).await {
                    Ok(_) => "a server and itself are answered alike",
                    Err(_) => "A SERVER AND ITSELF ARE NOT ANSWERED ALIKE EITHER",
                };
                println!(
                    "{purpose}: seed {seed} fails after {tally}; {itself}.\nFirst seen as\n{failure}"
                );
                let shrunk = shrink(&conversation, failure).await;
                panic!(
                    "{purpose}: seed {seed} fails. After {} replays, for tests/isolation/regressions:\n\n{}\n{}",
                    shrunk.replays, shrunk.conversation, shrunk.failure
                );
            }
        }
        seed += 1;
    }
    println!(
        "{purpose}: {tally}, of seeds {} to {}",
        budget.first_seed,
        seed - 1
    );
    if std::env::var_os("ISOLATION_REFUSALS").is_some() {
        tally
            .refusals
            .iter()
            .for_each(|refusal| println!("{refusal}"));
    }
    assert!(
        tally.succeeded_percent() >= SUCCEEDED_PERCENT_MIN,
        "{purpose}: too few statements succeed: {tally}"
    );
    let missing: Vec<_> = shapes
        .iter()
        .filter(|shape| !tally.shapes.contains(*shape))
        .collect();
    // Few statements need not have all.
    assert!(
        missing.is_empty() || budget.statements < statements,
        "{purpose}: no statement that succeeded has {missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alice_cannot_tell_worlds_apart_that_differ_in_what_is_bobs() {
    let shapes = [&SHAPES[..], &WRITES].concat();
    hold("non-interference", 800, generate::private, &shapes).await;
}
