//! Statements that an installation's users send, asked as every tenant.

use super::conversation::{Answer, Answered, Asker, Conversation};
use super::{Installation, Invariant};
use crate::error::Result;
use crate::tenant::{Lane, TenantId};

/// A text that only one tenant may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The tenant.
    pub tenant: TenantId,
    /// What nobody else is shown, in a value or in an error.
    pub text: String,
}

/// `recorded_statements`: what one tenant is answered shows neither another tenant's id
/// nor its canaries, and is what it would be answered if no other tenant had a lane. The
/// latter is told of statements that answer the same when they are asked twice.
pub struct RecordedStatements {
    statements: Vec<String>,
    tenants: Vec<TenantId>,
    canaries: Vec<Canary>,
}

impl RecordedStatements {
    /// Takes statements that read.
    ///
    /// # Errors
    /// `InvalidArgument` for one that does not, or that does not parse.
    pub fn new(
        installation: &Installation,
        statements: Vec<String>,
        canaries: Vec<Canary>,
    ) -> Result<Self> {
        for statement in &statements {
            installation.check_reads(statement)?;
        }
        Ok(RecordedStatements {
            statements,
            tenants: installation.tenants().to_vec(),
            canaries,
        })
    }

    /// What a text shows `lane` of others.
    fn leak(&self, lane: Lane, text: &str) -> Option<String> {
        let others = |tenant: &TenantId| lane != Lane::Tenant(*tenant);
        let folded = text.to_ascii_lowercase();
        let mut tenants = self.tenants.iter().filter(|tenant| others(tenant));
        let shown = tenants.find(|tenant| {
            let id = tenant.to_string();
            folded.contains(&id) || folded.contains(&id.replace('-', ""))
        });
        let mut canaries = self.canaries.iter().filter(|canary| others(&canary.tenant));
        let canary = canaries.find(|canary| text.contains(&canary.text));
        let asker = Asker::Session(lane);
        match (shown, canary) {
            (Some(tenant), _) => Some(format!("{asker} is shown {tenant}")),
            (_, Some(canary)) => Some(format!("{asker} is shown what is {}'s", canary.tenant)),
            (None, None) => None,
        }
    }

    fn leaks(&self, answered: &[Answered]) -> Option<String> {
        answered.iter().find_map(|Answered { question, answer }| {
            let lane = question.asker.lane();
            match answer {
                Ok(answer) => answer.values().find_map(|value| self.leak(lane, value)),
                Err(error) => self.leak(lane, error),
            }
        })
    }
}

impl Invariant for RecordedStatements {
    fn name(&self) -> &str {
        "recorded_statements"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        // Lane by lane: a copy is made of one at a time.
        let lanes = installation.lanes().iter();
        let each = lanes.flat_map(|lane| self.statements.iter().map(move |sql| (*lane, sql)));
        each.map(|(lane, sql)| {
            [
                Asker::Session(lane),
                Asker::Session(lane),
                Asker::Alone(lane),
            ]
            .map(|asker| asker.asks(sql))
            .into_iter()
            .collect()
        })
        .collect()
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        self.leaks(answered).or_else(|| differs(answered))
    }
}

/// Whether somebody is answered alike when it asks twice, and otherwise alone.
fn differs(answered: &[Answered]) -> Option<String> {
    let of = |asker: Asker, sql: &str| -> Vec<Result<Answer, String>> {
        let same = answered
            .iter()
            .filter(|a| a.question.asker == asker && a.question.sql == sql);
        same.map(|answered| in_order(&answered.answer)).collect()
    };
    answered.iter().find_map(|Answered { question, answer }| {
        let Asker::Alone(lane) = question.asker else {
            return None;
        };
        let twice = of(Asker::Session(lane), &question.sql);
        let [first, second] = twice.as_slice() else {
            return None;
        };
        (first == second && *first != in_order(answer)).then(|| {
            let asker = Asker::Session(lane);
            format!("{asker} is answered otherwise where no other tenant has a lane")
        })
    })
}

/// Rows in an order that no plan decides.
fn in_order(answer: &Result<Answer, String>) -> Result<Answer, String> {
    let mut answer = answer.clone()?;
    answer.rows.sort();
    Ok(answer)
}
