//! Transactions and single writes of one lane in every order that chance comes
//! upon, against a model: each transaction reads the state of its first use, and
//! of those that overlap the first to commit a write wins.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::backend::OpenTransaction;

/// How many transactions are open at once at most.
const PLACES: usize = 3;

type Rows = BTreeSet<u8>;

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Lock(usize),
    /// Adds the row, or takes it away if it is there; fails afterwards if told.
    Toggle(usize, u8, bool),
    Savepoint(usize, u8),
    RollbackTo(usize, u8),
    Release(usize, u8),
    /// Another transaction takes the place.
    Commit(usize),
    Rollback(usize),
    /// As another process, or this one, does without a transaction.
    Single(bool, u8),
    ReadNow(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = 0..PLACES;
    let (row, name) = (0..4_u8, 0..2_u8);
    prop::collection::vec(
        prop_oneof![
            4 => place.clone().prop_map(Step::Read),
            1 => place.clone().prop_map(Step::Lock),
            8 => (place.clone(), row.clone(), prop::bool::weighted(0.2))
                .prop_map(|(place, row, fails)| Step::Toggle(place, row, fails)),
            2 => (place.clone(), name.clone()).prop_map(|(p, n)| Step::Savepoint(p, n)),
            2 => (place.clone(), name.clone()).prop_map(|(p, n)| Step::RollbackTo(p, n)),
            1 => (place.clone(), name).prop_map(|(p, n)| Step::Release(p, n)),
            2 => place.clone().prop_map(Step::Commit),
            1 => place.prop_map(Step::Rollback),
            3 => (any::<bool>(), row).prop_map(|(there, row)| Step::Single(there, row)),
            2 => any::<bool>().prop_map(Step::ReadNow),
        ],
        1..50,
    )
}

/// What a transaction is by the model.
#[derive(Default)]
struct Modelled {
    /// The rows that it sees, and the lane's version that they come from, once
    /// it is used. `None`: the lane had no database.
    seen: Option<(Option<Rows>, Version)>,
    locked: bool,
    wrote: bool,
    savepoints: Vec<(u8, Option<Rows>)>,
}

/// The lane by the model.
#[derive(Default)]
struct Model {
    rows: Option<Rows>,
    version: Version,
}

#[derive(Clone, Copy, Default)]
struct Version {
    /// Counts the commits that changed rows.
    changes: u64,
    /// Counts also those that changed rows and changed them back, which conflict
    /// with others by what SQLite makes of them.
    writes: u64,
}

impl Version {
    fn next(&mut self, changes: bool) {
        self.changes += u64::from(changes);
        self.writes += 1;
    }
}

impl Modelled {
    fn look(&mut self, lane: &Model) {
        if self.seen.is_none() {
            self.seen = Some((lane.rows.clone(), lane.version));
        }
    }

    fn rows(&mut self) -> &mut Option<Rows> {
        &mut self.seen.as_mut().unwrap().0
    }

    /// What is to come of taking the turn, which `held` says another has.
    /// `result` is what came of it, for where both are right.
    fn lock(&mut self, lane: &mut Model, held: bool, result: &Outcome) -> Outcome {
        if self.locked {
            return Outcome::Done;
        }
        if held {
            return Outcome::Busy;
        }
        let fresh = self.seen.is_none();
        // The database is made before it is known whether this conflicts, and
        // an empty one is as good as none.
        lane.rows.get_or_insert_default();
        self.look(lane);
        let (rows, version) = self.seen.as_mut().unwrap();
        let absent = rows.is_none();
        let unchanged = if absent {
            lane.rows.as_ref().is_some_and(Rows::is_empty)
        } else {
            version.changes == lane.version.changes
                && (version.writes == lane.version.writes || *result != Outcome::Conflict)
        };
        if !fresh && !unchanged {
            return Outcome::Conflict;
        }
        rows.get_or_insert_default();
        // What was absent is empty by now, in savepoints too.
        for (_name, rows) in &mut self.savepoints {
            rows.get_or_insert_with(|| lane.rows.clone().unwrap_or_default());
        }
        self.locked = true;
        Outcome::Done
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Busy,
    Conflict,
    /// As the closure does when it is told to, or savepoints that are not there.
    Refused,
}

fn outcome(result: Result<(), BackendError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(BackendError::Busy { .. }) => Outcome::Busy,
        Err(BackendError::Conflict { .. }) => Outcome::Conflict,
        Err(BackendError::NoSavepoint { .. } | BackendError::TenantMismatch { .. }) => {
            Outcome::Refused
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Does what nobody is in the way of, as often as one who has just been there
/// is not quite gone.
async fn settled(held: bool, act: impl AsyncFn() -> Result<(), BackendError>) -> Outcome {
    const ATTEMPTS_MAX: usize = 100_000;
    for _attempt in 0..ATTEMPTS_MAX {
        match outcome(act().await) {
            Outcome::Busy if !held => tokio::task::yield_now().await,
            outcome => return outcome,
        }
    }
    Outcome::Busy
}

fn toggle(rows: &mut Rows, row: u8) {
    if !rows.remove(&row) {
        rows.insert(row);
    }
}

fn toggle_in(tx: &Transaction<'_>, row: u8, fails: bool) -> Result<(), BackendError> {
    let name = row.to_string();
    let removed = tx.connection().execute(
        "DELETE FROM models WHERE name = ?1 AND tenant_id IS ?2",
        (&name, tx.tenant_id()),
    )?;
    if removed == 0 {
        put(tx, Some(alice()), &name)?;
    }
    if fails {
        return tx.assert_tenant_matches(Some(bob()));
    }
    Ok(())
}

fn rows(found: Option<Vec<String>>) -> Option<Rows> {
    found.map(|names| names.iter().map(|name| name.parse().unwrap()).collect())
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let dir = in_memory();
    // Nobody waits: whoever finds the turn taken is told at once.
    let config = LanesConfig {
        busy_timeout_ms: 0,
        ..LanesConfig::default()
    };
    let mut backends = Vec::new();
    for _process in 0..2 {
        backends.push(Backend::open(dir.path(), &config).await.unwrap());
    }
    let lane = Lane::Tenant(alice());
    let mut model = Model::default();
    // Of one process and of the other.
    let begin = |place: usize| (backends[place % 2].begin(lane), Modelled::default());
    let mut places: [_; PLACES] = std::array::from_fn(begin);
    for step in steps {
        let held = places.iter().position(|(_, model)| model.locked).is_some();
        let described = format!("{step:?}");
        match step {
            Step::Single(there, row) => {
                let backend = &backends[usize::from(there)];
                let act = async || {
                    backend
                        .write(lane, move |tx| toggle_in(tx, row, false))
                        .await
                };
                let result = settled(held, act).await;
                // The file is made before its turn comes.
                model.rows.get_or_insert_default();
                let expected = if held { Outcome::Busy } else { Outcome::Done };
                prop_assert_eq!(&result, &expected, "{}", described);
                if result == Outcome::Done {
                    toggle(model.rows.get_or_insert_default(), row);
                    model.version.next(true);
                }
            }
            Step::ReadNow(there) => {
                let found = names_in(&backends[usize::from(there)], lane).await.unwrap();
                prop_assert_eq!(rows(found), model.rows.clone());
            }
            Step::Commit(place) | Step::Rollback(place) => {
                let (transaction, modelled) = std::mem::replace(&mut places[place], begin(place));
                if matches!(step, Step::Rollback(_)) {
                    transaction.rollback().await.unwrap();
                } else {
                    transaction.commit().await.unwrap();
                    let wrote = modelled.wrote;
                    if let (true, Some((rows, _))) = (modelled.locked, modelled.seen) {
                        let changes = rows != model.rows;
                        model.rows = rows;
                        if wrote {
                            model.version.next(changes);
                        }
                    }
                }
            }
            Step::Read(place)
            | Step::Lock(place)
            | Step::Toggle(place, ..)
            | Step::Savepoint(place, _)
            | Step::RollbackTo(place, _)
            | Step::Release(place, _) => {
                let (transaction, modelled) = &mut places[place];
                let (result, expected) =
                    within(step, transaction, modelled, &mut model, held).await?;
                prop_assert_eq!(result, expected, "{}", described);
            }
        }
    }
    Ok(())
}

/// Does a step in a transaction: what comes of it, and what is to.
async fn within(
    step: Step,
    transaction: &OpenTransaction,
    modelled: &mut Modelled,
    lane: &mut Model,
    held: bool,
) -> Result<(Outcome, Outcome), TestCaseError> {
    let found = |modelled: &Modelled, name| {
        let names = modelled.savepoints.iter();
        names.clone().rposition(|(open, _)| *open == name)
    };
    Ok(match step {
        Step::Read(_) => {
            let read = transaction.read(names).await.unwrap();
            modelled.look(lane);
            prop_assert_eq!(rows(read), modelled.rows().clone());
            (Outcome::Done, Outcome::Done)
        }
        Step::Lock(_) => {
            let result = settled(held && !modelled.locked, async || transaction.lock().await).await;
            let expected = modelled.lock(lane, held, &result);
            (result, expected)
        }
        Step::Toggle(_, row, fails) => {
            let act = async || transaction.write(move |tx| toggle_in(tx, row, fails)).await;
            let result = settled(held, act).await;
            let locked = modelled.lock(lane, held, &result);
            modelled.wrote |= locked == Outcome::Done;
            let expected = match locked {
                Outcome::Done if fails => Outcome::Refused,
                Outcome::Done => {
                    toggle(modelled.rows().get_or_insert_default(), row);
                    Outcome::Done
                }
                other => other,
            };
            (result, expected)
        }
        Step::Savepoint(_, name) => {
            let result = transaction.savepoint(&name.to_string()).await;
            let rows = modelled.seen.as_ref().and_then(|(rows, _)| rows.clone());
            modelled.savepoints.push((name, rows));
            (outcome(result), Outcome::Done)
        }
        Step::RollbackTo(_, name) => {
            let result = outcome(transaction.rollback_to(&name.to_string()).await);
            let Some(index) = found(modelled, name) else {
                return Ok((result, Outcome::Refused));
            };
            modelled.savepoints.truncate(index + 1);
            let back_to = modelled.savepoints[index].1.clone();
            // Before it is used, there is nothing to go back to.
            if let (Some((rows, _)), true) = (&mut modelled.seen, modelled.locked) {
                *rows = back_to;
            }
            (result, Outcome::Done)
        }
        Step::Release(_, name) => {
            let result = outcome(transaction.release(&name.to_string()).await);
            let Some(index) = found(modelled, name) else {
                return Ok((result, Outcome::Refused));
            };
            modelled.savepoints.truncate(index);
            (result, Outcome::Done)
        }
        _ => unreachable!("the others are not within a transaction"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        // The case is in the message.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn transactions_are_as_in_the_model(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(steps))?;
    }
}
