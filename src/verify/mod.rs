//! Whether an installation keeps its promises: invariants, checked on its own tables,
//! sources and statements.
//!
//! An [`Invariant`] asks [`Question`]s of an [`Installation`], as a tenant or of a lane's
//! file, and says what is wrong with the answers. [`verify`] asks them, and of a
//! conversation that is objected to leaves what it takes for the objection: as few
//! questions as there can be. [`standard`] are those that every installation has to keep;
//! a program adds its own:
//!
//! ```
//! use jammi_db::config::JammiConfig;
//! use jammi_db::session::JammiSession;
//! use jammi_db::tenant::Lane;
//! use jammi_db::verify::{Answered, Asker, Conversation, Installation, Invariant};
//! use jammi_db::verify::{standard, verify};
//!
//! /// Nobody has more than a thousand notes.
//! struct FewNotes;
//!
//! impl Invariant for FewNotes {
//!     fn name(&self) -> &str {
//!         "few_notes"
//!     }
//!
//!     fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
//!         let asks = |lane: &Lane| Asker::Session(*lane).asks("SELECT count(*) FROM notes");
//!         vec![installation.lanes().iter().map(asks).collect()]
//!     }
//!
//!     fn objection(&self, answered: &[Answered]) -> Option<String> {
//!         answered.iter().find_map(|Answered { question, answer }| {
//!             let count: u64 = answer.as_ref().ok()?.single()?.parse().ok()?;
//!             (count > 1000).then(|| format!("{} has {count} notes", question.asker))
//!         })
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> jammi_db::error::Result<()> {
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! # let config = JammiConfig {
//! #     artifact_dir: dir.path().to_owned(),
//! #     ..JammiConfig::default()
//! # };
//! # let alice = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a".parse()?;
//! # let session = JammiSession::new(config.clone()).await?.with_tenant(alice);
//! session.sql("CREATE TABLE notes AS SELECT value FROM generate_series(1, 1001)").await?;
//! let installation = Installation::open(&config, &[]).await?;
//! let mut invariants = standard();
//! invariants.push(Box::new(FewNotes));
//! let report = verify(&installation, &invariants).await;
//! let broken: Vec<&str> = report.broken().map(|checked| checked.invariant.as_str()).collect();
//! assert_eq!(broken, ["few_notes"]);
//! // Of all that was asked, what it takes.
//! let violation = &report.checked.last().expect("it was checked").violations[0];
//! assert_eq!(
//!     violation.conversation.to_string(),
//!     "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a> SELECT count(*) FROM notes\n"
//! );
//! # Ok(())
//! # }
//! ```
//!
//! Architecture invariant: nothing here writes rows or definitions. A question that would
//! is refused.

mod alone;
mod conversation;
mod installation;
mod recorded;
mod shrink;
mod standard;

pub use conversation::{Answer, Answered, Asker, Conversation, Question};
pub use installation::Installation;
pub use recorded::{Canary, RecordedStatements};
pub use standard::standard;

/// Violations of one invariant that are looked for: of a damage that is everywhere, a
/// few say enough.
const VIOLATIONS_MAX: usize = 10;

/// Something that has to hold of an installation.
pub trait Invariant: Send + Sync {
    /// What it is called, as in `no_cross_tenant_data`.
    fn name(&self) -> &str;

    /// What to ask. Each conversation is answered and judged by itself, and its answers
    /// are in memory together.
    fn conversations(&self, installation: &Installation) -> Vec<Conversation>;

    /// What is wrong with the answers to a conversation, or to a part of one; `None`
    /// where they are as they have to be. Of the same answers it says the same.
    fn objection(&self, answered: &[Answered]) -> Option<String>;
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// An entry for each invariant, in order.
    pub checked: Vec<Checked>,
}

impl Report {
    /// The invariants that do not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Checked> {
        let all = self.checked.iter();
        all.filter(|checked| !checked.violations.is_empty())
    }

    /// Whether every invariant holds.
    pub fn holds(&self) -> bool {
        self.broken().next().is_none()
    }
}

/// What was found of one invariant.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its name.
    pub invariant: String,
    /// How many questions were asked for it.
    pub asked: usize,
    /// How many of them were answered with an error.
    pub refused: usize,
    /// How it is broken, at most ten times.
    pub violations: Vec<Violation>,
}

/// One way in which an invariant does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub objection: String,
    /// The fewest questions that show it.
    pub conversation: Conversation,
}

/// Checks `invariants` one after the other.
pub async fn verify(installation: &Installation, invariants: &[Box<dyn Invariant>]) -> Report {
    let mut report = Report::default();
    for invariant in invariants {
        let checked = check(installation, invariant.as_ref()).await;
        report.checked.push(checked);
    }
    report
}

async fn check(installation: &Installation, invariant: &dyn Invariant) -> Checked {
    let mut checked = Checked {
        invariant: invariant.name().to_owned(),
        asked: 0,
        refused: 0,
        violations: Vec::new(),
    };
    for conversation in invariant.conversations(installation) {
        let mut answered = installation.answers(conversation).await;
        checked.asked += answered.len();
        checked.refused += answered.iter().filter(|a| a.answer.is_err()).count();
        while checked.violations.len() < VIOLATIONS_MAX
            && let Some(objection) = invariant.objection(&answered)
        {
            let fails = |part: &[Answered]| invariant.objection(part).is_some();
            let (kept, rest) = shrink::split(answered, fails);
            let objection = invariant.objection(&kept).unwrap_or(objection);
            let is_of_answers = !kept.is_empty();
            let conversation = kept.into_iter().map(|answered| answered.question);
            checked.violations.push(Violation {
                objection,
                conversation: conversation.collect(),
            });
            answered = rest;
            if !is_of_answers {
                break;
            }
        }
    }
    checked
}
