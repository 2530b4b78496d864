//! Versions: that they change with every commit, and never come back.

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
