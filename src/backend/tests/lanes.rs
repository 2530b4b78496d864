//! Reading and writing lanes, many at once.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn lanes_are_files_of_their_owner_alone() {
    let dir = TempDir::new().unwrap();
    let artifact_dir = dir.path().join("new/deep");
    let backend = Backend::open(&artifact_dir, &LanesConfig::default())
        .await
        .unwrap();
    put_in(&backend, Lane::Tenant(alice()), "a").await.unwrap();

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&artifact_dir), 0o700);
    assert_eq!(mode(&artifact_dir.join("tenants")), 0o700);
    let alices = lane_file(&artifact_dir, alice());
    for file in [
        artifact_dir.join("system.db"),
        artifact_dir.join("global.db"),
        alices.with_extension("db-wal"),
        alices,
    ] {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn a_lane_is_made_by_its_first_write_and_by_nothing_else() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let (own, other) = (Lane::Tenant(alice()), Lane::Tenant(bob()));

    assert_eq!(names_in(&backend, own).await.unwrap(), None);
    backend.version(own).unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path().join("tenants"))
            .unwrap()
            .count(),
        0
    );

    put_in(&backend, own, "a").await.unwrap();
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["a".into()])
    );
    assert_eq!(names_in(&backend, other).await.unwrap(), None);
    assert_eq!(
        names_in(&backend, Lane::Global).await.unwrap(),
        Some(vec![])
    );
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    for name in ["a", "b"] {
        let backend = open(&dir).await;
        put_in(&backend, Lane::Tenant(alice()), name).await.unwrap();
    }
    let names = names_in(&open(&dir).await, Lane::Tenant(alice())).await;
    assert_eq!(names.unwrap(), Some(vec!["a".into(), "b".into()]));
}

#[tokio::test]
async fn every_connection_syncs_each_commit() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let settings = backend
        .write(Lane::Tenant(alice()), |tx| {
            [
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "trusted_schema",
                "busy_timeout",
            ]
            .into_iter()
            .map(|name| {
                Ok(tx.connection().pragma_query_value(None, name, |row| {
                    row.get::<_, rusqlite::types::Value>(0)
                })?)
            })
            .collect::<Result<Vec<_>, BackendError>>()
        })
        .await
        .unwrap();
    let expected: Vec<rusqlite::types::Value> = vec![
        "wal".to_owned().into(),
        2.into(),
        1.into(),
        0.into(),
        5000.into(),
    ];
    assert_eq!(settings, expected);
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let own = Lane::Tenant(alice());
    put_in(&backend, own, "kept").await.unwrap();

    let refused = backend
        .write(own, |tx| {
            put(tx, Some(alice()), "first")?;
            // A defect of the caller: the row of another tenant.
            put(tx, Some(bob()), "second")
        })
        .await;
    assert!(matches!(
        refused,
        Err(BackendError::TenantMismatch { lane }) if lane == own
    ));
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["kept".into()])
    );
}

#[tokio::test]
async fn a_row_must_be_of_the_transactions_lane() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    for (lane, row, ok) in [
        (Lane::Global, None, true),
        (Lane::Global, Some(alice()), false),
        (Lane::Tenant(alice()), Some(alice()), true),
        (Lane::Tenant(alice()), Some(bob()), false),
        (Lane::Tenant(alice()), None, false),
    ] {
        let result = backend
            .write(lane, move |tx| tx.assert_tenant_matches(row))
            .await;
        assert_eq!(result.is_ok(), ok, "{row:?} into {lane}");
    }
}

#[tokio::test]
async fn a_panic_in_a_transaction_rolls_back_and_frees_the_lane() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let own = Lane::Tenant(alice());
    let panicking = tokio::spawn({
        let backend = backend.clone();
        async move {
            backend
                .write(own, move |tx| -> Result<(), BackendError> {
                    put(tx, own.tenant(), "lost")?;
                    panic!("a defect of the caller")
                })
                .await
        }
    });
    assert!(panicking.await.unwrap_err().is_panic());
    put_in(&backend, own, "kept").await.unwrap();
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["kept".into()])
    );
}

#[tokio::test]
async fn a_read_cannot_write() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let own = Lane::Tenant(alice());
    put_in(&backend, own, "a").await.unwrap();
    let written = backend
        .read(own, move |tx| put(tx, own.tenant(), "b"))
        .await;
    assert!(
        matches!(written, Err(BackendError::ReadOnly { .. })),
        "{written:?}"
    );
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["a".into()])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_write_stops_neither_readers_nor_other_lanes() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let (own, other) = (Lane::Tenant(alice()), Lane::Tenant(bob()));
    put_in(&backend, own, "a").await.unwrap();

    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let long = tokio::spawn({
        let backend = backend.clone();
        async move {
            backend
                .write(own, move |tx| {
                    put(tx, own.tenant(), "b")?;
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok(())
                })
                .await
        }
    });
    has_begun.await.unwrap();
    put_in(&backend, other, "b").await.unwrap();
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["a".into()])
    );
    backend.version(own).unwrap();
    go_on.send(()).unwrap();
    long.await.unwrap().unwrap();
    let both = Some(vec!["a".into(), "b".into()]);
    assert_eq!(names_in(&backend, own).await.unwrap(), both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lane_made_by_many_at_once_is_made_once() {
    let dir = TempDir::new().unwrap();
    const PROCESSES: usize = 4;
    const WRITERS: usize = 4;
    let start = Arc::new(Barrier::new(PROCESSES * WRITERS));
    let mut tasks = JoinSet::new();
    for process in 0..PROCESSES {
        let backend = open(&dir).await;
        for writer in 0..WRITERS {
            let (backend, start) = (backend.clone(), Arc::clone(&start));
            tasks.spawn(async move {
                start.wait().await;
                put_in(
                    &backend,
                    Lane::Tenant(alice()),
                    &format!("{process}-{writer}"),
                )
                .await
            });
        }
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    let names = names_in(&open(&dir).await, Lane::Tenant(alice())).await;
    assert_eq!(names.unwrap().unwrap().len(), PROCESSES * WRITERS);
    let migrations: i64 = stranger(&lane_file(dir.path(), alice()))
        .query_row("SELECT count(*) FROM refinery_schema_history", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(migrations, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tenants_share_few_places() {
    const TENANTS: usize = 50;
    const ROUNDS: usize = 4;
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 2,
        busy_timeout_ms: 120_000,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..TENANTS {
        for round in 0..ROUNDS {
            let backend = backend.clone();
            tasks.spawn(async move {
                let lane = Lane::Tenant(tenant(number));
                put_in(&backend, lane, &format!("{number}-{round}")).await?;
                assert!(backend.pool.tenants_open() <= 2);
                backend.version(lane)?;
                names_in(&backend, lane).await
            });
        }
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(backend.pool.tenants_open() <= 2);
    for number in 0..TENANTS {
        let names = names_in(&backend, Lane::Tenant(tenant(number)))
            .await
            .unwrap();
        let expected: Vec<_> = (0..ROUNDS)
            .map(|round| format!("{number}-{round}"))
            .collect();
        assert_eq!(names, Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lane_in_use_is_not_closed_for_another() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 1,
        busy_timeout_ms: 0,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let (own, other) = (Lane::Tenant(alice()), Lane::Tenant(bob()));
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let user = tokio::spawn({
        let backend = backend.clone();
        async move {
            backend
                .write(own, move |tx| {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    put(tx, own.tenant(), "a")
                })
                .await
        }
    });
    has_begun.await.unwrap();
    let refused = put_in(&backend, other, "b").await.unwrap_err();
    assert!(
        matches!(refused, BackendError::LanesExhausted { open_max: 1 }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("lanes.open_max"));
    // Neither of those that belong to no tenant takes a place.
    assert_eq!(
        names_in(&backend, Lane::Global).await.unwrap(),
        Some(vec![])
    );
    backend.system_read(|_tx| Ok(())).await.unwrap();
    go_on.send(()).unwrap();
    user.await.unwrap().unwrap();
    put_in(&backend, other, "b").await.unwrap();
    assert_eq!(
        names_in(&backend, own).await.unwrap(),
        Some(vec!["a".into()])
    );
}

#[tokio::test]
async fn the_lane_that_was_used_longest_ago_is_closed() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 2,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let lanes: Vec<_> = (0..3).map(|number| Lane::Tenant(tenant(number))).collect();
    put_in(&backend, lanes[0], "a").await.unwrap();
    put_in(&backend, lanes[1], "a").await.unwrap();
    let first = backend.version(lanes[0]).unwrap();
    put_in(&backend, lanes[2], "a").await.unwrap();
    assert_eq!(backend.version(lanes[0]).unwrap(), first, "still open");
    let closed = backend.version(lanes[1]).unwrap();
    assert_ne!(backend.version(lanes[1]).unwrap(), closed, "closed");
}

#[tokio::test]
async fn bindings_have_a_table() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    backend
        .system_write(|tx| {
            tx.execute(
                "INSERT INTO session_bindings VALUES ('p', 's', ?1, 1, 2)",
                [alice().to_string()],
            )?;
            Ok(())
        })
        .await
        .unwrap();
    let tenant: String = open(&dir)
        .await
        .system_read(|tx| {
            Ok(
                tx.query_row("SELECT tenant_id FROM session_bindings", [], |row| {
                    row.get(0)
                })?,
            )
        })
        .await
        .unwrap();
    assert_eq!(tenant, alice().to_string());
}

#[tokio::test]
async fn one_server_has_a_directory() {
    let dir = TempDir::new().unwrap();
    let (first, second) = (open(&dir).await, open(&dir).await);
    let lock = first.lock_for_server().unwrap();
    let refused = second.lock_for_server().unwrap_err();
    assert!(
        matches!(refused, BackendError::ServerRunning { .. }),
        "{refused:?}"
    );
    // The lanes stay open to both.
    put_in(&second, Lane::Global, "a").await.unwrap();
    drop(lock);
    second.lock_for_server().unwrap();
}
