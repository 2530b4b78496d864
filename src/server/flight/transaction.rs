//! Transactions by action and by SQL text.
//!
//! A transaction that an action began is used by what names it; one that `BEGIN`
//! began is its session's, and used by all that names none.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionResult,
    ActionEndSavepointRequest, ActionEndTransactionRequest, EndTransaction,
};
use bytes::Bytes;
use futures::FutureExt;

use crate::engine::{RecordStream, Statement, TransactionControl, first_word, may_assign};
use crate::error::{Error, Result};
use crate::server::tenant::SESSION_HEADER;

use super::statement::bound;
use super::ticket::{Content, Kind};
use super::transactions::{Open, Party, missing};
use super::{Caller, FlightServer};

/// `ActionEndSavepointRequest.EndSavepoint`, which arrow-flight keeps to itself.
const RELEASE_SAVEPOINT: i32 = 1;
const ROLLBACK_SAVEPOINT: i32 = 2;

impl FlightServer {
    /// Begins a transaction and answers with its id.
    pub(super) fn begin_transaction(
        &self,
        caller: &Caller,
    ) -> Result<ActionBeginTransactionResult> {
        let serial = self.bound_parameters.next_serial();
        let id = Content {
            serial,
            ..Content::default()
        };
        let transaction_id = self
            .sealer
            .seal(&caller.holder(), Kind::Transaction, id, u64::MAX)?;
        let transaction = self.engine.begin(&caller.scope);
        self.transactions
            .begin(caller.party(), serial, transaction, false)?;
        Ok(ActionBeginTransactionResult { transaction_id })
    }

    /// Commits or rolls back.
    pub(super) async fn end_transaction(
        &self,
        caller: &Caller,
        request: ActionEndTransactionRequest,
    ) -> Result<()> {
        let commits = match request.action() {
            EndTransaction::Commit => true,
            EndTransaction::Rollback => false,
            EndTransaction::Unspecified => {
                return Err(Error::InvalidArgument(
                    "the action says neither commit nor rollback: say one".into(),
                ));
            }
        };
        let id = &request.transaction_id;
        match self.open_named(caller, id) {
            Ok(open) => self.transactions.end(&open, commits).await,
            // What was the session's and is gone is rolled back: clients go on from
            // here to begin another.
            Err(_)
                if !commits
                    && self
                        .sealer
                        .open_of_session(&caller.holder(), Kind::Transaction, id)
                        .is_some() =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sets a savepoint and answers with its id.
    pub(super) async fn begin_savepoint(
        &self,
        caller: &Caller,
        request: ActionBeginSavepointRequest,
    ) -> Result<ActionBeginSavepointResult> {
        let open = self.open_named(caller, &request.transaction_id)?;
        let serial = self.bound_parameters.next_serial();
        let savepoint = Content {
            // One that no other savepoint has, since an id means one of them.
            sql: format!("{serial} {}", request.name),
            serial,
            transaction: Some(open.serial()),
            ..Content::default()
        };
        let running = self.transactions.enter(&open).await?;
        let set = running.transaction().savepoint(&savepoint.sql).await;
        running.finish();
        set?;
        let savepoint_id =
            self.sealer
                .seal(&caller.holder(), Kind::Savepoint, savepoint, u64::MAX)?;
        Ok(ActionBeginSavepointResult { savepoint_id })
    }

    /// Releases a savepoint, or rolls back to it.
    pub(super) async fn end_savepoint(
        &self,
        caller: &Caller,
        request: ActionEndSavepointRequest,
    ) -> Result<()> {
        let unknown =
            || Error::NotFound("the savepoint does not exist, or has ended: begin another".into());
        let holder = caller.holder();
        let opened = self
            .sealer
            .open(
                &holder,
                Kind::Savepoint,
                caller.now_ms,
                &request.savepoint_id,
            )
            .map_err(|_| unknown())?;
        let serial = opened.content.transaction.ok_or_else(unknown)?;
        let open = self.transactions.named(&caller.party(), serial)?;
        let running = self.transactions.enter(&open).await?;
        let name = &opened.content.sql;
        let ended = match request.action {
            RELEASE_SAVEPOINT => running.transaction().release(name).await,
            ROLLBACK_SAVEPOINT => running.transaction().rollback_to(name).await,
            _ => Err(Error::InvalidArgument(
                "the action says neither release nor rollback: say one".into(),
            )),
        };
        running.finish();
        ended.map_err(|error| match error {
            Error::Backend(crate::error::BackendError::NoSavepoint { .. }) => unknown(),
            other => other,
        })
    }

    /// The number of the transaction that `id` names, if it names one.
    pub(super) fn named_transaction(
        &self,
        caller: &Caller,
        id: Option<&Bytes>,
    ) -> Result<Option<u64>> {
        match id {
            Some(id) if !id.is_empty() => Ok(Some(self.open_named(caller, id)?.serial())),
            _ => Ok(None),
        }
    }

    fn open_named(&self, caller: &Caller, id: &Bytes) -> Result<Arc<Open>> {
        let opened = self
            .sealer
            .open(&caller.holder(), Kind::Transaction, caller.now_ms, id)
            .map_err(|_| missing())?;
        self.transactions
            .named(&caller.party(), opened.content.serial)
    }

    /// The transaction that `content` runs in: the one that it names, else the
    /// session's.
    pub(super) fn transaction_of(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Option<Arc<Open>>> {
        match content.transaction {
            Some(serial) => self.transactions.named(&caller.party(), serial).map(Some),
            None => Ok(self.transactions.of_session(&caller.party())),
        }
    }

    /// Lets a prepared statement whose transaction has ended run in the one that
    /// its connection has begun since: drivers keep statements across commits.
    pub(super) fn succeed(&self, caller: &Caller, content: &mut Content) -> Result<()> {
        let Some(serial) = content.transaction else {
            return Ok(());
        };
        let party = caller.party();
        if self.transactions.named(&party, serial).is_ok() {
            return Ok(());
        }
        match self.transactions.of_connection(&party)? {
            Some(open) => {
                content.transaction = Some(open.serial());
                Ok(())
            }
            None => Err(Error::FailedPrecondition(
                "the transaction of the prepared statement has ended: prepare the statement again"
                    .into(),
            )),
        }
    }

    /// The plan of `content`, also where the transaction that it is about has
    /// ended. It is among the statements that run for as long as it is planned.
    pub(super) async fn prepare_or_control(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Arc<Statement>> {
        let mut run = self.begin(caller, content, None)?;
        let planning = self.plan_or_control(caller, content);
        run.until_ended(planning.boxed()).await
    }

    /// As [`FlightServer::prepare_or_control`], of a statement that is among those that
    /// run.
    pub(super) async fn plan_or_control(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Arc<Statement>> {
        match self.control_of(caller, content).await? {
            Some(statement) => Ok(statement),
            None => self.prepare(caller, content).await,
        }
    }

    /// The statement, if it is about the session's transaction or its binding, or ends
    /// what runs.
    pub(super) async fn control_of(
        &self,
        caller: &Caller,
        content: &Content,
    ) -> Result<Option<Arc<Statement>>> {
        if !may_control(&content.sql) && !may_assign(&content.sql) {
            return Ok(None);
        }
        let statement = self.prepare_within(caller, content, None).await;
        Ok(statement.ok().filter(|statement| {
            statement.control().is_some()
                || statement.assignment().is_some()
                || statement.kill().is_some()
        }))
    }

    /// Does what a statement says of the session's transaction or of its binding, or of
    /// what is to be ended.
    pub(super) async fn control(
        &self,
        caller: &Caller,
        content: &Content,
        statement: &Statement,
    ) -> Result<RecordStream> {
        if let Some(assignment) = statement.assignment() {
            let values = bound(statement, content)?;
            return self.assign(caller, assignment, &values).await;
        }
        let done = RecordStream::empty(statement.schema());
        if let Some(kill) = statement.kill() {
            self.operations.kill(&caller.scope, kill).await?;
            return Ok(done);
        }
        let Some(control) = statement.control() else {
            return Ok(done);
        };
        let open = self.transaction_of(caller, content)?;
        let (name, open) = match (control, open) {
            (TransactionControl::Begin, None) => {
                self.begin_by_text(caller)?;
                return Ok(done);
            }
            (TransactionControl::Begin, Some(_)) => {
                return Err(Error::FailedPrecondition(
                    "a transaction is open: end it first, or use SAVEPOINT inside it".into(),
                ));
            }
            (_, None) => {
                require_session(caller)?;
                return Err(Error::FailedPrecondition(
                    "no transaction is open in this session: send BEGIN first".into(),
                ));
            }
            (TransactionControl::Commit | TransactionControl::Rollback, Some(open)) => {
                if !open.is_by_text() {
                    return Err(Error::FailedPrecondition(
                        "the transaction was begun by BeginTransaction: end it by EndTransaction, \
                         which is commit() and rollback() of a driver"
                            .into(),
                    ));
                }
                let commits = *control == TransactionControl::Commit;
                self.transactions.end(&open, commits).await?;
                return Ok(done);
            }
            (
                TransactionControl::Savepoint(name)
                | TransactionControl::RollbackTo(name)
                | TransactionControl::Release(name),
                Some(open),
            ) => (name, open),
        };
        let running = self.transactions.enter(&open).await?;
        let transaction = running.transaction();
        let ended = match control {
            TransactionControl::Savepoint(_) => transaction.savepoint(name).await,
            TransactionControl::RollbackTo(_) => transaction.rollback_to(name).await,
            TransactionControl::Release(_) => transaction.release(name).await,
            // Done above.
            TransactionControl::Begin
            | TransactionControl::Commit
            | TransactionControl::Rollback => Ok(()),
        };
        running.finish();
        ended.map(|()| done)
    }

    fn begin_by_text(&self, caller: &Caller) -> Result<()> {
        require_session(caller)?;
        let serial = self.bound_parameters.next_serial();
        let transaction = self.engine.begin(&caller.scope);
        self.transactions
            .begin(caller.party(), serial, transaction, true)
    }
}

impl Caller {
    /// Whose transactions the call may use.
    pub(super) fn party(&self) -> Party {
        Party::of(&self.admitted)
    }
}

fn require_session(caller: &Caller) -> Result<()> {
    match caller.admitted.session() {
        Some(_) => Ok(()),
        None => Err(Error::InvalidArgument(format!(
            "a transaction by SQL text belongs to a session and the request names none: send \
             {SESSION_HEADER}, or use the actions BeginTransaction and EndTransaction"
        ))),
    }
}

/// Whether a text may be about a transaction, or end what runs: what is not is planned once, in its
/// transaction.
fn may_control(sql: &str) -> bool {
    const WORDS: [&str; 8] = [
        "BEGIN",
        "START",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "KILL",
    ];
    let text = first_word(sql);
    // A comment may hide the first word.
    text.starts_with("--")
        || text.starts_with("/*")
        || WORDS.iter().any(|word| {
            text.get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        })
}
