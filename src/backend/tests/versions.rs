//! Versions: that they change with every commit that redefines something, and never
//! come back.

use super::*;
use crate::backend::LaneVersion;

/// Opens the lane, so that it has a version that can be compared.
async fn opened(backend: &Backend, lane: Lane) -> LaneVersion {
    let (version, ()) = backend
        .read_versioned(lane, |_tx| Ok(()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(backend.version(lane).unwrap(), version);
    version
}

#[tokio::test]
async fn a_version_changes_with_a_commit_of_whomever() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    for (round, lane) in [Lane::Global, Lane::Tenant(alice())]
        .into_iter()
        .enumerate()
    {
        put_in(&here, lane, "a").await.unwrap();
        let first = opened(&here, lane).await;

        put_in(&here, lane, "b").await.unwrap();
        let second = here.version(lane).unwrap();
        assert_ne!(second, first, "own commit");

        put_in(&there, lane, "c").await.unwrap();
        let third = here.version(lane).unwrap();
        assert_ne!(third, second, "another process's commit");

        let other = Lane::Tenant(bob());
        put_in(&here, other, &round.to_string()).await.unwrap();
        names_in(&here, lane).await.unwrap();
        assert_eq!(here.version(lane).unwrap(), third, "no commit to this lane");
    }
}

async fn put_row_in(backend: &Backend, lane: Lane, name: &str) {
    let name = name.to_owned();
    backend
        .write(lane, move |tx| put_row(tx, lane.tenant(), &name))
        .await
        .unwrap();
}

#[tokio::test]
async fn rows_of_a_process_that_is_alone_do_not_change_the_version() {
    let dir = TempDir::new().unwrap();
    let (backend, lane) = (open(&dir).await, Lane::Tenant(alice()));
    put_in(&backend, lane, "a").await.unwrap();
    let first = opened(&backend, lane).await;
    put_row_in(&backend, lane, "b").await;
    assert_eq!(backend.version(lane).unwrap(), first);

    // In a transaction that spans statements too.
    let transaction = backend.begin(lane);
    let row = transaction.write(|tx| put_row(tx, Some(alice()), "c"));
    row.await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(backend.version(lane).unwrap(), first);
    let transaction = backend.begin(lane);
    let redefined = transaction.write(|tx| put(tx, Some(alice()), "d"));
    redefined.await.unwrap();
    assert_eq!(backend.version(lane).unwrap(), first, "not committed");
    transaction.commit().await.unwrap();
    let second = backend.version(lane).unwrap();
    assert_ne!(second, first);

    let all = names_in(&backend, lane).await.unwrap();
    assert_eq!(all.unwrap(), ["a", "b", "c", "d"]);
    assert_eq!(backend.version(lane).unwrap(), second);
}

/// Symptom that must not be: a server goes by what it knew before a command came to
/// its directory.
#[tokio::test]
async fn one_who_comes_later_is_seen_from_its_first_commit_on() {
    let dir = TempDir::new().unwrap();
    let (here, lane) = (open(&dir).await, Lane::Tenant(alice()));
    put_in(&here, lane, "a").await.unwrap();
    opened(&here, lane).await;
    for round in 0..20 {
        put_row_in(&here, lane, &format!("here {round}")).await;
        let before = here.version(lane).unwrap();
        let there = open(&dir).await;
        put_in(&there, lane, &format!("there {round}"))
            .await
            .unwrap();
        let after = here.version(lane).unwrap();
        assert_ne!(after, before, "{round}");
        put_in(&there, lane, &format!("again {round}"))
            .await
            .unwrap();
        assert_ne!(here.version(lane).unwrap(), after, "{round}");
        // Of the rounds some find it gone at once, and some not yet.
        if round % 2 == 0 {
            put_in(&here, lane, &format!("both {round}")).await.unwrap();
        }
        drop(there);
    }
}

#[tokio::test]
async fn runs_are_told_by_their_locks_and_the_mark_by_its_name() {
    let dir = TempDir::new().unwrap();
    let sessions = dir.path().join("sessions");
    let here = open(&dir).await;
    let alone = here.incarnation.alone();
    assert!(alone.is_some());
    assert_eq!(here.incarnation.alone(), alone);

    // One that was killed.
    let killed = sessions.join(format!("{}.lock", uuid::Uuid::new_v4().simple()));
    std::fs::write(&killed, "").unwrap();
    drop(open(&dir).await);
    assert_ne!(here.incarnation.alone(), alone, "another came");
    assert!(here.incarnation.alone().is_some(), "and went");
    assert!(!killed.exists());

    // One that lives.
    let there = open(&dir).await;
    assert_eq!(here.incarnation.alone(), None);
    assert_eq!(there.incarnation.alone(), None);
    drop(there);

    std::fs::remove_file(sessions.join("entered")).unwrap();
    assert_eq!(
        here.incarnation.alone(),
        None,
        "nobody could be seen to come"
    );
}

#[tokio::test]
async fn a_rolled_back_write_does_not_change_the_version() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let version = opened(&backend, lane).await;
    backend
        .write(lane, |tx| {
            put(tx, Some(alice()), "b")?;
            put(tx, Some(bob()), "c")
        })
        .await
        .unwrap_err();
    assert_eq!(backend.version(lane).unwrap(), version);
}

#[tokio::test]
async fn a_lane_without_a_database_has_one_version_until_anyone_makes_it() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let lane = Lane::Tenant(alice());
    assert_eq!(here.version(lane).unwrap(), LaneVersion::ABSENT);
    assert_eq!(here.version(lane).unwrap(), LaneVersion::ABSENT);
    put_in(&there, lane, "a").await.unwrap();
    assert_ne!(here.version(lane).unwrap(), LaneVersion::ABSENT);
    assert_eq!(names_in(&here, lane).await.unwrap(), Some(vec!["a".into()]));
}

#[tokio::test]
async fn closing_and_opening_a_lane_never_repeats_a_version() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 1,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let mut seen = vec![opened(&backend, lane).await];
    for number in 0..3 {
        // Takes the only place.
        put_in(&backend, Lane::Tenant(bob()), &number.to_string())
            .await
            .unwrap();
        let closed = backend.version(lane).unwrap();
        let reopened = opened(&backend, lane).await;
        for version in [closed, reopened] {
            assert!(!seen.contains(&version));
            seen.push(version);
        }
    }
}

#[tokio::test]
async fn an_erased_lane_is_absent_and_a_restored_one_is_read() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "old").await.unwrap();
    let version = opened(&backend, lane).await;

    let path = lane_file(dir.path(), alice());
    let erase = || {
        for ending in ["db", "db-wal", "db-shm"] {
            let _ = std::fs::remove_file(path.with_extension(ending));
        }
    };
    erase();
    assert_eq!(backend.version(lane).unwrap(), LaneVersion::ABSENT);
    assert_eq!(names_in(&backend, lane).await.unwrap(), None);

    // Another lane's file, complete, in its place; what it holds is not alice's.
    put_in(&backend, Lane::Tenant(bob()), "bobs").await.unwrap();
    let copy = path.with_extension("copy");
    stranger(&lane_file(dir.path(), bob()))
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    std::fs::rename(&copy, &path).unwrap();
    assert_ne!(backend.version(lane).unwrap(), version);
    assert_eq!(names_in(&backend, lane).await.unwrap(), Some(vec![]));

    // Replaced while open.
    put_in(&backend, lane, "new").await.unwrap();
    let version = opened(&backend, lane).await;
    erase();
    let again = open(&dir).await;
    put_in(&again, lane, "newest").await.unwrap();
    assert_ne!(backend.version(lane).unwrap(), version);
    assert_eq!(
        names_in(&backend, lane).await.unwrap(),
        Some(vec!["newest".into()])
    );
}

#[tokio::test]
async fn a_write_to_a_file_that_lost_its_path_is_not_acknowledged() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let path = lane_file(dir.path(), alice());
    let lost = backend
        .write(lane, move |tx| {
            put(tx, Some(alice()), "b")?;
            for ending in ["db", "db-wal", "db-shm"] {
                let _ = std::fs::remove_file(path.with_extension(ending));
            }
            Ok(())
        })
        .await;
    assert!(
        matches!(lost, Err(BackendError::Replaced { .. })),
        "{lost:?}"
    );
    assert_eq!(names_in(&backend, lane).await.unwrap(), None);
}
