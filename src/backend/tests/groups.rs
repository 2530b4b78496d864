//! Writes that share a commit: they share nothing else.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::*;

/// What a write in the line does.
#[derive(Clone, Copy, Debug)]
enum Does {
    Writes,
    WritesAndFails,
    WritesAndPanics,
    /// SQLite gives the transaction up.
    EndsTheTransaction,
}

fn write(
    backend: &Backend,
    lane: Lane,
    number: usize,
    does: Does,
) -> JoinHandle<Result<usize, BackendError>> {
    let backend = backend.clone();
    tokio::spawn(async move {
        let f = move |tx: &Transaction<'_>| {
            put(tx, lane.tenant(), &format!("{number:03}"))?;
            match does {
                Does::Writes => Ok(number),
                Does::WritesAndFails => Err(tx.assert_tenant_matches(Some(bob())).unwrap_err()),
                Does::WritesAndPanics => panic!("a defect of the caller"),
                Does::EndsTheTransaction => {
                    tx.connection().execute_batch("ROLLBACK")?;
                    Ok(number)
                }
            }
        };
        backend.write(lane, f).await
    })
}

/// Counts the commits of the lane, as another process sees them.
fn commits(watching: &Connection) -> i64 {
    watching
        .pragma_query_value(None, "data_version", |row| row.get(0))
        .unwrap()
}

/// Runs writes that all wait in line when the first begins, and gives the
/// handles of their tasks and how often was committed.
async fn together(
    backend: &Backend,
    lane: Lane,
    work: &[Does],
) -> (Vec<JoinHandle<Result<usize, BackendError>>>, i64) {
    let holder = backend.begin(lane);
    holder.lock().await.unwrap();
    let path = match lane {
        Lane::Tenant(tenant) => lane_file(backend.artifact_dir(), tenant),
        Lane::Global => backend.artifact_dir().join("global.db"),
    };
    let watching = stranger(&path);
    let before = commits(&watching);
    let mut tasks = Vec::new();
    for (number, does) in work.iter().enumerate() {
        tasks.push(write(backend, lane, number, *does));
        waits(backend, lane, number + 1).await;
    }
    holder.rollback().await.unwrap();
    while !tasks.iter().all(JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    (tasks, commits(&watching) - before)
}

#[tokio::test]
async fn writes_that_wait_share_a_commit_and_nothing_else() {
    use Does::*;
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let cases: [(&[Does], bool); 6] = [
        (&[Writes; 20], true),
        (
            &[Writes, WritesAndFails, Writes, WritesAndPanics, Writes],
            true,
        ),
        (&[Writes, Writes, WritesAndFails], true),
        // The first is in no savepoint.
        (&[WritesAndFails, Writes, Writes], true),
        (&[WritesAndPanics, WritesAndFails, Writes, Writes], true),
        (&[WritesAndFails], false),
    ];
    for (number, (work, commits_once)) in cases.into_iter().enumerate() {
        let lane = Lane::Tenant(tenant(number));
        let (tasks, commits) = together(&backend, lane, work).await;
        // SQLite counts changes as another sees them when it looks.
        assert_eq!(commits > 0, commits_once, "{work:?}");
        let mut expected = Vec::new();
        for (number, (task, does)) in tasks.into_iter().zip(work).enumerate() {
            let result = task.await;
            match does {
                Writes => {
                    assert_eq!(result.unwrap().unwrap(), number);
                    expected.push(format!("{number:03}"));
                }
                WritesAndFails => assert!(matches!(
                    result.unwrap(),
                    Err(BackendError::TenantMismatch { .. })
                )),
                WritesAndPanics => assert!(result.unwrap_err().is_panic()),
                EndsTheTransaction => unreachable!(),
            }
        }
        let names = names_in(&backend, lane).await.unwrap();
        assert_eq!(names, Some(expected), "{work:?}");
    }
}

#[tokio::test]
async fn a_transaction_that_sqlite_gives_up_is_acknowledged_to_nobody() {
    use Does::*;
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    for (number, work) in [
        &[Writes, Writes, EndsTheTransaction, Writes, Writes][..],
        &[EndsTheTransaction, Writes],
    ]
    .into_iter()
    .enumerate()
    {
        let lane = Lane::Tenant(tenant(number));
        let (tasks, _commits) = together(&backend, lane, work).await;
        let mut acknowledged = Vec::new();
        for (number, task) in tasks.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(_) => acknowledged.push(format!("{number:03}")),
                Err(error) => assert!(matches!(error, BackendError::Storage { .. })),
            }
        }
        assert!(acknowledged.len() < work.len());
        let names = names_in(&backend, lane).await.unwrap();
        assert_eq!(names, Some(acknowledged));
        put_in(&backend, lane, "later").await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_waits_for_few() {
    const WRITES: i64 = 600;
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    let holder = backend.begin(lane);
    holder.lock().await.unwrap();
    let count = |connection: &Connection| {
        connection.query_row("SELECT count(*) FROM models", [], |row| {
            row.get::<_, i64>(0)
        })
    };
    let outside = Arc::new(Mutex::new(stranger(&lane_file(dir.path(), alice()))));
    let mut tasks = Vec::new();
    for number in 0..WRITES {
        let (backend, outside) = (backend.clone(), Arc::clone(&outside));
        tasks.push(tokio::spawn(async move {
            let write = backend.write(lane, move |tx| {
                put(tx, Some(alice()), &number.to_string())?;
                Ok(count(tx.connection())? - count(&outside.lock())?)
            });
            write.await.unwrap()
        }));
    }
    waits(&backend, lane, WRITES as usize).await;
    holder.rollback().await.unwrap();
    for task in tasks {
        let uncommitted = task.await.unwrap();
        assert!(uncommitted <= 256, "{uncommitted}");
    }
    assert_eq!(count(&outside.lock()).unwrap(), WRITES);
}

/// A task that is told runs only after the commit, also when it was not the one
/// that led the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_write_is_read_by_whoever_comes_next() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let lane = Lane::Tenant(alice());
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (here, there) = (here.clone(), there.clone());
        tasks.push(tokio::spawn(async move {
            for number in 0..10 {
                let name = format!("{task}-{number}");
                put_in(&here, lane, &name).await.unwrap();
                for backend in [&here, &there] {
                    let names = names_in(backend, lane).await.unwrap().unwrap();
                    assert!(names.contains(&name));
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
