//! Plays conversations on two servers, and says what differs.

use std::collections::BTreeSet;
use std::fmt;

use crate::ask::UNEQUAL;
use crate::conversation::{Conversation, Line, WORLDS};
use crate::observed::Observed;
use crate::play::play;

/// What queries are made of: words that are to be in a statement that succeeds, or
/// a generator has stopped to make them.
pub const SHAPES: [&str; 38] = [
    " JOIN ",
    " LEFT JOIN ",
    " RIGHT JOIN ",
    " FULL JOIN ",
    " LEFT SEMI JOIN ",
    " LEFT ANTI JOIN ",
    " RIGHT SEMI JOIN ",
    " RIGHT ANTI JOIN ",
    " CROSS JOIN ",
    " LATERAL ",
    " UNION SELECT ",
    " UNION ALL ",
    " EXCEPT SELECT ",
    " EXCEPT ALL ",
    " INTERSECT SELECT ",
    " INTERSECT ALL ",
    " OVER (",
    "QUALIFY ",
    "ROLLUP ",
    "CUBE ",
    "GROUPING SETS ",
    "HAVING ",
    "SELECT DISTINCT ",
    "WITH RECURSIVE ",
    "WITH ",
    "EXISTS (",
    " IN (SELECT ",
    "> ANY (",
    "(SELECT ",
    "FILTER (",
    "(VALUES ",
    "LIMIT ",
    "CASE WHEN ",
    "string_agg(",
    "median(",
    "count(DISTINCT ",
    "row_number()",
    "lag(",
];

/// What else Alice says.
pub const WRITES: [&str; 20] = [
    "INSERT INTO ",
    "UPDATE ",
    "DELETE FROM ",
    "MERGE INTO ",
    "RETURNING ",
    "ON CONFLICT ",
    "CREATE TABLE ",
    "CREATE TEMPORARY TABLE ",
    "CREATE INDEX ",
    "CREATE VIEW ",
    "ALTER TABLE ",
    "DROP TABLE ",
    "EXPLAIN SELECT ",
    "EXPLAIN VERBOSE ",
    "EXPLAIN ANALYZE ",
    "BEGIN",
    "ROLLBACK",
    "SHOW TABLES",
    "information_schema.",
    "DESCRIBE ",
];

/// A line whose answers differ where they must not.
#[derive(Debug)]
pub struct Failure {
    pub place: usize,
    line: Line,
    answers: [Option<Observed>; 2],
}

impl Failure {
    /// What kind of answers differ: a smaller conversation that fails in another way
    /// is another failure.
    pub fn kind(&self) -> String {
        let kinds = self.answers.iter().map(|answer| match answer {
            None => "nothing".to_owned(),
            Some(Observed::Rows { .. }) => "rows".to_owned(),
            Some(Observed::Text(_)) => "text".to_owned(),
            Some(Observed::Refused { code, .. }) => code.clone(),
        });
        format!("{:?} {:?}", self.line.route, kinds.collect::<Vec<_>>())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.line)?;
        for (answer, world) in self.answers.iter().zip(WORLDS) {
            match answer {
                Some(answer) => write!(f, " {world}:\n{answer}")?,
                None => writeln!(f, " {world}: nothing")?,
            }
        }
        Ok(())
    }
}

/// What was compared of conversations.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub statements: usize,
    pub refused: usize,
    /// Which of [`SHAPES`] a statement that succeeded has.
    pub shapes: BTreeSet<&'static str>,
    /// What was refused, where that is asked for.
    pub refusals: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.statements += other.statements;
        self.refused += other.refused;
        self.shapes.extend(other.shapes);
        self.refusals.extend(other.refusals);
    }

    pub fn succeeded_percent(&self) -> usize {
        (self.statements - self.refused) * 100 / self.statements.max(1)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            statements,
            refused,
            ..
        } = self;
        write!(
            f,
            "{statements} statements, each on two servers: {} succeeded ({} %), {refused} refused alike",
            statements - refused,
            self.succeeded_percent()
        )
    }
}

/// Plays `conversation` on both servers at a time.
pub async fn run(conversation: &Conversation) -> Result<Tally, Box<Failure>> {
    run_on(conversation, [0, 1]).await
}

/// Plays `conversation` on two servers that hear what `worlds` say.
pub async fn run_on(
    conversation: &Conversation,
    worlds: [usize; 2],
) -> Result<Tally, Box<Failure>> {
    let dedicated = conversation.settings().dedicated;
    let [one, other] = worlds.map(|world| {
        let conversation = conversation.clone();
        tokio::spawn(async move { play(&conversation, world).await })
    });
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    let mut tally = Tally::default();
    let answers = one.into_iter().zip(other).enumerate();
    for ((place, (one, other)), line) in answers.zip(&conversation.lines) {
        if !line.is_compared() {
            continue;
        }
        let answers = [one, other].map(|answer| match dedicated {
            true => answer.map(Observed::without_ways),
            false => answer,
        });
        let unequal = |answer: &Option<Observed>| matches!(answer, Some(Observed::Text(text)) if text.starts_with(UNEQUAL));
        let differ = line.world.is_none() && answers[0] != answers[1];
        if differ || answers.iter().any(unequal) {
            return Err(Box::new(Failure {
                place,
                line: line.clone(),
                answers,
            }));
        }
        // What is said before, to make the world, is compared and not counted.
        if !line.who.starts_with("alice") && line.who != "everybody" {
            continue;
        }
        tally.statements += 1;
        if let Some(refusal) = answers.iter().flatten().find(|answer| answer.is_refused()) {
            tally.refused += 1;
            tally.refusals.push(format!("{line}\n{refusal}"));
        } else {
            let said = SHAPES
                .iter()
                .chain(&WRITES)
                .filter(|shape| line.text.contains(**shape));
            tally.shapes.extend(said);
        }
    }
    Ok(tally)
}

/// How many seeds the harness tries, and which: a bounded number of fixed ones,
/// or those of a longer run (`make isolation`).
pub struct Budget {
    pub first_seed: u64,
    /// At least so many statements are compared.
    pub statements: usize,
}

impl Budget {
    pub fn of(purpose: &str, statements: usize) -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| {
            let value = read(name)?;
            let number = value.parse::<u64>();
            Some(number.unwrap_or_else(|_| panic!("{name}={value} is no number")))
        };
        let budget = Budget {
            first_seed: number("ISOLATION_SEED").unwrap_or(1),
            statements: number("ISOLATION_STATEMENTS").map_or(statements, |n| n as usize),
        };
        println!(
            "{purpose}: from seed {} on, {} statements",
            budget.first_seed, budget.statements
        );
        budget
    }
}
