//! Transactions that span statements: what they see, who may write, and that
//! nothing stays behind however they end.

use std::sync::Arc;

use super::*;
use crate::backend::OpenTransaction;

async fn write(transaction: &OpenTransaction, name: &str) -> Result<(), BackendError> {
    let name = name.to_owned();
    let tenant = transaction.lane().tenant();
    transaction.write(move |tx| put(tx, tenant, &name)).await
}

async fn read(transaction: &OpenTransaction) -> Option<Vec<String>> {
    transaction.read(names).await.unwrap()
}

fn some(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, BackendError>) -> bool {
    match result {
        Err(BackendError::Conflict { .. }) => true,
        Err(BackendError::Busy { .. }) => false,
        other => panic!("neither conflict nor busy: {other:?}"),
    }
}

async fn impatient(dir: &TempDir) -> Backend {
    let config = LanesConfig {
        busy_timeout_ms: 1,
        ..LanesConfig::default()
    };
    Backend::open(dir.path(), &config).await.unwrap()
}

const LANES: fn() -> [Lane; 2] = || [Lane::Global, Lane::Tenant(alice())];

#[tokio::test]
async fn a_transaction_sees_its_first_state_and_its_own_writes() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    for lane in LANES() {
        put_in(&here, lane, "a").await.unwrap();
        let reader = here.begin(lane);
        let writer = here.begin(lane);
        assert_eq!(read(&reader).await, some(&["a"]));
        put_in(&there, lane, "b").await.unwrap();
        assert_eq!(read(&reader).await, some(&["a"]));
        // Its first use is now.
        assert_eq!(read(&writer).await, some(&["a", "b"]));

        assert!(!writer.wrote());
        write(&writer, "c").await.unwrap();
        assert!(writer.wrote());
        assert_eq!(read(&writer).await, some(&["a", "b", "c"]));
        assert_eq!(read(&reader).await, some(&["a"]));
        for backend in [&here, &there] {
            assert_eq!(names_in(backend, lane).await.unwrap(), some(&["a", "b"]));
        }
        let before = here.version(lane).unwrap();
        writer.commit().await.unwrap();
        assert_ne!(here.version(lane).unwrap(), before);
        assert_eq!(read(&reader).await, some(&["a"]));
        reader.commit().await.unwrap();
        for backend in [&here, &there] {
            let all = names_in(backend, lane).await.unwrap();
            assert_eq!(all, some(&["a", "b", "c"]));
        }
    }
}

#[tokio::test]
async fn the_first_to_write_wins() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let lane = Lane::Tenant(alice());
    put_in(&here, lane, "a").await.unwrap();
    for (number, first) in [&here, &there].into_iter().enumerate() {
        let (winner, loser) = (first.begin(lane), here.begin(lane));
        read(&winner).await;
        let seen = read(&loser).await;
        write(&winner, &format!("winner {number}")).await.unwrap();
        winner.commit().await.unwrap();
        for _again in 0..2 {
            assert!(is_conflict(write(&loser, "lost").await));
            assert!(is_conflict(loser.lock().await));
            assert_eq!(read(&loser).await, seen, "it still reads");
        }
        assert!(!loser.wrote());
        // It holds nobody up.
        put_in(&here, lane, &format!("other {number}"))
            .await
            .unwrap();
        loser.commit().await.unwrap();
        // Run again, it goes through.
        let again = here.begin(lane);
        read(&again).await;
        write(&again, &format!("again {number}")).await.unwrap();
        again.commit().await.unwrap();
    }
    assert_eq!(names_in(&there, lane).await.unwrap().unwrap().len(), 7);
}

#[tokio::test]
async fn a_conflict_says_to_run_the_transaction_again() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let transaction = backend.begin(lane);
    read(&transaction).await;
    put_in(&backend, lane, "b").await.unwrap();
    assert_eq!(
        transaction.lock().await.unwrap_err().to_string(),
        format!(
            "the lane of tenant {} changed since the transaction began: roll back and run it \
             again",
            alice()
        )
    );
}

#[tokio::test]
async fn whoever_has_the_turn_keeps_it_and_others_are_told() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (impatient(&dir).await, impatient(&dir).await);
    let lane = Lane::Tenant(alice());
    put_in(&here, lane, "a").await.unwrap();
    // With and without a state that it has read before.
    for reads_first in [false, true] {
        let (holder, waiting) = (here.begin(lane), here.begin(lane));
        read(&waiting).await;
        if reads_first {
            read(&holder).await;
        }
        holder.lock().await.unwrap();
        for backend in [&here, &there] {
            assert!(!is_conflict(put_in(backend, lane, "b").await));
            assert!(!is_conflict(backend.begin(lane).lock().await));
        }
        assert!(!is_conflict(waiting.lock().await));
        // Nobody else is concerned.
        put_in(&here, Lane::Tenant(bob()), &reads_first.to_string())
            .await
            .unwrap();
        holder.rollback().await.unwrap();
        waiting.lock().await.unwrap();
        waiting.rollback().await.unwrap();
        let name = format!("c {reads_first}");
        put_in(&there, lane, &name).await.unwrap();
    }
}

#[tokio::test]
async fn turns_are_given_in_order_of_arrival() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let holder = backend.begin(lane);
    holder.lock().await.unwrap();
    let mut waiting = Vec::new();
    for number in 0..12 {
        let (backend, order) = (backend.clone(), Arc::clone(&order));
        waiting.push(tokio::spawn({
            let backend = backend.clone();
            async move {
                if number % 3 == 0 {
                    let transaction = backend.begin(lane);
                    transaction.lock().await.unwrap();
                    order.lock().push(number);
                    transaction.rollback().await.unwrap();
                } else {
                    let write = backend.write(lane, move |_tx| {
                        order.lock().push(number);
                        Ok(())
                    });
                    write.await.unwrap();
                }
            }
        }));
        waits(&backend, lane, number + 1).await;
    }
    holder.rollback().await.unwrap();
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(*order.lock(), (0..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_who_gives_up_leaves_the_line() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let holder = backend.begin(lane);
    holder.lock().await.unwrap();
    let transaction = Arc::new(backend.begin(lane));
    let lock = tokio::spawn({
        let transaction = Arc::clone(&transaction);
        async move { transaction.lock().await }
    });
    waits(&backend, lane, 1).await;
    let put = tokio::spawn({
        let backend = backend.clone();
        async move { put_in(&backend, lane, "given up").await }
    });
    waits(&backend, lane, 2).await;
    lock.abort();
    put.abort();
    waits(&backend, lane, 0).await;
    write(&holder, "b").await.unwrap();
    holder.commit().await.unwrap();
    put_in(&backend, lane, "c").await.unwrap();
    let names = names_in(&backend, lane).await.unwrap();
    assert_eq!(names, some(&["a", "b", "c"]));
    // The transaction is none the worse.
    write(&transaction, "d").await.unwrap();
}

#[tokio::test]
async fn however_a_transaction_ends_the_lane_is_free() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    for reads_first in [false, true] {
        for end in 0..6 {
            let transaction = backend.begin(lane);
            if reads_first {
                read(&transaction).await;
            }
            write(&transaction, "undone").await.unwrap();
            match end {
                0 => transaction.rollback().await.unwrap(),
                1 => drop(transaction),
                2 => std::thread::spawn(move || drop(transaction))
                    .join()
                    .unwrap(),
                3 => {
                    let task = tokio::spawn(async move {
                        transaction
                            .write(|_tx| -> Result<(), BackendError> { panic!("a defect") })
                            .await
                    });
                    assert!(task.await.unwrap_err().is_panic());
                }
                4 => {
                    // A statement that ends the transaction is a defect, and
                    // shows.
                    let lost = transaction
                        .read(|tx| Ok(tx.connection().execute_batch("ROLLBACK")?))
                        .await;
                    assert!(matches!(lost, Err(BackendError::Storage { .. })));
                    transaction.lock().await.unwrap_err();
                    transaction.read(names).await.unwrap_err();
                    transaction.savepoint("s").await.unwrap_err();
                    transaction.commit().await.unwrap_err();
                }
                _ => {
                    // Its future is dropped while it runs.
                    let (begun, has_begun) = tokio::sync::oneshot::channel();
                    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
                    let mut operation = Box::pin(transaction.write(move |tx| {
                        begun.send(()).unwrap();
                        may_go_on.recv().unwrap();
                        put(tx, Some(alice()), "midway")
                    }));
                    tokio::select! {
                        biased;
                        _ = &mut operation => panic!("it waits"),
                        begun = has_begun => begun.unwrap(),
                    }
                    drop(operation);
                    drop(transaction);
                    go_on.send(()).unwrap();
                }
            }
            let name = format!("{reads_first} {end}");
            put_in(&backend, lane, &name).await.unwrap();
            let names = names_in(&backend, lane).await.unwrap().unwrap();
            assert!(names.contains(&name));
            assert!(
                !names
                    .iter()
                    .any(|name| name == "undone" || name == "midway")
            );
        }
    }
}

#[tokio::test]
async fn an_operation_whose_future_is_dropped_ends_before_the_next_begins() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    let transaction = backend.begin(lane);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let mut operation = Box::pin(transaction.write(move |tx| {
        begun.send(()).unwrap();
        may_go_on.recv().unwrap();
        put(tx, Some(alice()), "a")
    }));
    tokio::select! {
        biased;
        _ = &mut operation => panic!("it waits"),
        begun = has_begun => begun.unwrap(),
    }
    drop(operation);
    go_on.send(()).unwrap();
    assert_eq!(read(&transaction).await, some(&["a"]));
    transaction.commit().await.unwrap();
    assert_eq!(names_in(&backend, lane).await.unwrap(), some(&["a"]));
}

#[tokio::test]
async fn a_write_that_fails_is_undone_alone() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    let transaction = Arc::new(backend.begin(lane));
    write(&transaction, "a").await.unwrap();
    let refused = transaction
        .write(move |tx| {
            put(tx, Some(alice()), "b")?;
            put(tx, Some(bob()), "c")
        })
        .await;
    assert!(matches!(refused, Err(BackendError::TenantMismatch { .. })));
    let panicking = tokio::spawn({
        let transaction = Arc::clone(&transaction);
        async move {
            transaction
                .write(|tx| -> Result<(), BackendError> {
                    put(tx, Some(alice()), "d")?;
                    panic!("a defect of the caller")
                })
                .await
        }
    });
    assert!(panicking.await.unwrap_err().is_panic());
    let written = transaction
        .read(move |tx| put(tx, Some(alice()), "e"))
        .await;
    assert!(matches!(written, Err(BackendError::ReadOnly { .. })));
    write(&transaction, "f").await.unwrap();
    let transaction = Arc::into_inner(transaction).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(names_in(&backend, lane).await.unwrap(), some(&["a", "f"]));
}

#[tokio::test]
async fn a_transaction_that_has_not_the_turn_cannot_write() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let transaction = backend.begin(lane);
    let written = transaction
        .read(move |tx| put(tx, Some(alice()), "b"))
        .await;
    assert!(matches!(written, Err(BackendError::ReadOnly { .. })));
    put_in(&backend, lane, "c").await.unwrap();
    // Nor can whoever reads with its connection next.
    assert!(is_conflict(transaction.lock().await));
    transaction.commit().await.unwrap();
    let written = backend
        .read(lane, move |tx| put(tx, Some(alice()), "d"))
        .await;
    assert!(matches!(written, Err(BackendError::ReadOnly { .. })));
}

#[tokio::test]
async fn a_lane_without_a_database_stays_absent_to_who_saw_it_so() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let lane = Lane::Tenant(alice());
    let transactions: Vec<_> = (0..5).map(|_| here.begin(lane)).collect();
    for transaction in &transactions {
        assert_eq!(read(transaction).await, None);
    }
    let [reader, aborted, winner, loser, last] = <[_; 5]>::try_from(transactions).unwrap();
    assert!(!lane_file(dir.path(), alice()).exists());
    // What is made and left empty is as good as absent.
    write(&aborted, "undone").await.unwrap();
    aborted.rollback().await.unwrap();
    assert_eq!(names_in(&there, lane).await.unwrap(), some(&[]));
    write(&winner, "a").await.unwrap();
    assert_eq!(read(&winner).await, some(&["a"]));
    winner.commit().await.unwrap();

    assert_eq!(read(&reader).await, None);
    assert!(is_conflict(loser.lock().await));
    assert_eq!(read(&loser).await, None);
    assert!(is_conflict(write(&last, "b").await));
    assert_eq!(names_in(&there, lane).await.unwrap(), some(&["a"]));
}

#[tokio::test]
async fn savepoints_are_those_of_sql() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    for (number, reads_first) in [false, true].into_iter().enumerate() {
        let lane = Lane::Tenant(tenant(number));
        put_in(&backend, lane, "0").await.unwrap();
        let transaction = backend.begin(lane);
        if reads_first {
            read(&transaction).await;
        }
        // Before there is anything to undo.
        transaction.savepoint("outer").await.unwrap();
        write(&transaction, "1").await.unwrap();
        transaction.savepoint("s").await.unwrap();
        write(&transaction, "2").await.unwrap();
        transaction.savepoint("s").await.unwrap();
        write(&transaction, "3").await.unwrap();
        transaction.rollback_to("s").await.unwrap();
        assert_eq!(read(&transaction).await, some(&["0", "1", "2"]));
        // It stays open, as often as need be.
        write(&transaction, "4").await.unwrap();
        transaction.rollback_to("s").await.unwrap();
        transaction.release("s").await.unwrap();
        assert_eq!(read(&transaction).await, some(&["0", "1", "2"]));
        // Now the outer one of that name.
        transaction.rollback_to("s").await.unwrap();
        assert_eq!(read(&transaction).await, some(&["0", "1"]));
        // Names are what they are.
        for name in ["S", "t", "s0", "\"s\"; COMMIT", ""] {
            for result in [
                transaction.rollback_to(name).await,
                transaction.release(name).await,
            ] {
                let error = result.unwrap_err();
                assert!(matches!(error, BackendError::NoSavepoint { .. }));
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("savepoint `{name}`"))
                );
            }
            transaction.savepoint(name).await.unwrap();
            transaction.release(name).await.unwrap();
        }
        transaction.savepoint("inner").await.unwrap();
        transaction.release("s").await.unwrap();
        transaction.rollback_to("inner").await.unwrap_err();
        write(&transaction, "5").await.unwrap();
        transaction.rollback_to("outer").await.unwrap();
        write(&transaction, "6").await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(names_in(&backend, lane).await.unwrap(), some(&["0", "6"]));
    }
}

#[tokio::test]
async fn savepoints_are_not_without_end() {
    let dir = TempDir::new().unwrap();
    let transaction = open(&dir).await.begin(Lane::Global);
    let refused = loop {
        if let Err(error) = transaction.savepoint("s").await {
            break error;
        }
    };
    assert!(matches!(refused, BackendError::SavepointsExhausted { .. }));
    write(&transaction, "a").await.unwrap();
    transaction.release("s").await.unwrap();
    transaction.savepoint("s").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_read_in_one_transaction() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    let transaction = Arc::new(backend.begin(lane));
    write(&transaction, "a").await.unwrap();
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let transaction = Arc::clone(&transaction);
            tokio::spawn(async move { read(&transaction).await })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), some(&["a"]));
    }
}

#[tokio::test]
async fn a_lane_with_an_open_transaction_is_not_closed() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 1,
        busy_timeout_ms: 1,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let transaction = backend.begin(lane);
    read(&transaction).await;
    let refused = put_in(&backend, Lane::Tenant(bob()), "b").await;
    assert!(matches!(refused, Err(BackendError::LanesExhausted { .. })));
    transaction.commit().await.unwrap();
    put_in(&backend, Lane::Tenant(bob()), "b").await.unwrap();
}

#[tokio::test]
async fn a_commit_to_a_file_that_lost_its_path_is_not_acknowledged() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let (writer, reader) = (backend.begin(lane), backend.begin(lane));
    write(&writer, "b").await.unwrap();
    read(&reader).await;
    for ending in ["db", "db-wal", "db-shm"] {
        let _ = std::fs::remove_file(lane_file(dir.path(), alice()).with_extension(ending));
    }
    for lost in [writer.commit().await, reader.lock().await] {
        assert!(matches!(lost, Err(BackendError::Replaced { .. })));
    }
    assert_eq!(read(&reader).await, some(&["a"]));
    assert_eq!(names_in(&backend, lane).await.unwrap(), None);
}

#[tokio::test]
async fn a_newer_version_is_noticed_by_transactions() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let before = backend.begin(lane);
    read(&before).await;
    stranger(&lane_file(dir.path(), alice()))
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    assert!(is_conflict(before.lock().await));
    let newer = |error| matches!(error, BackendError::NewerVersion { .. });
    assert!(newer(backend.begin(lane).read(names).await.unwrap_err()));
    assert!(newer(backend.begin(lane).lock().await.unwrap_err()));
}
