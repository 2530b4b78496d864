//! Files and directories as they should not be: one clear error each, and
//! nothing touched.

use std::fs;

use super::*;

/// A lane with a row, closed.
async fn written(dir: &TempDir) -> PathBuf {
    let backend = open(dir).await;
    put_in(&backend, Lane::Tenant(alice()), "a").await.unwrap();
    lane_file(dir.path(), alice())
}

/// What reading and writing alice's lane give, which must be the same.
async fn refusal(dir: &TempDir) -> BackendError {
    let backend = open(dir).await;
    let lane = Lane::Tenant(alice());
    let read = names_in(&backend, lane).await.unwrap_err();
    let write = put_in(&backend, lane, "b").await.unwrap_err();
    assert_eq!(read.to_string(), write.to_string());
    // Nobody else is concerned.
    put_in(&backend, Lane::Tenant(bob()), "b").await.unwrap();
    write
}

fn assert_names_lane_alone(error: &BackendError, dir: &TempDir) {
    let text = error.to_string();
    assert!(
        text.contains(&format!("the lane of tenant {}", alice())),
        "{text}"
    );
    assert!(!text.contains(dir.path().to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_newer_version_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir).await;
    stranger(&path)
        .execute_batch("PRAGMA user_version = 99; CREATE TABLE later (x)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = refusal(&dir).await;
    assert!(
        matches!(error, BackendError::NewerVersion { found: 99, .. }),
        "{error:?}"
    );
    assert_names_lane_alone(&error, &dir);
    assert!(error.to_string().ends_with("upgrade jammi"));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_newer_version_that_another_process_brings_is_noticed() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    stranger(&lane_file(dir.path(), alice()))
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    for error in [
        names_in(&backend, lane).await.unwrap_err(),
        put_in(&backend, lane, "b").await.unwrap_err(),
    ] {
        assert!(
            matches!(error, BackendError::NewerVersion { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_newer_system_database_stops_the_start() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    stranger(&dir.path().join("system.db"))
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    let error = Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the system database was written by a newer version")
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    let path = lane_file(dir.path(), alice());
    let text = b"this is a text file, and longer than the header of a database is: 100 bytes, \
                 which it has by now";
    for content in [&text[..], &[0xff; 5000], b"short"] {
        fs::write(&path, content).unwrap();
        let error = refusal(&dir).await;
        assert!(matches!(error, BackendError::Corrupt { .. }), "{error:?}");
        assert_names_lane_alone(&error, &dir);
        assert_eq!(fs::read(&path).unwrap(), content);
        fs::remove_file(lane_file(dir.path(), bob())).unwrap();
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    let path = lane_file(dir.path(), alice());
    stranger(&path)
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = refusal(&dir).await;
    assert!(matches!(error, BackendError::Corrupt { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_system_database_is_no_lane() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    fs::copy(dir.path().join("system.db"), lane_file(dir.path(), alice())).unwrap();
    let error = refusal(&dir).await;
    assert!(matches!(error, BackendError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn damaged_pages_are_an_error() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir).await;
    let mut bytes = fs::read(&path).unwrap();
    // The first page stays: the damage is met when the rows are read.
    bytes[4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = refusal(&dir).await;
    assert!(matches!(error, BackendError::Corrupt { .. }), "{error:?}");
    assert_names_lane_alone(&error, &dir);
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_lane_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    fs::create_dir(lane_file(dir.path(), alice())).unwrap();
    let error = refusal(&dir).await;
    assert!(matches!(error, BackendError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_is_named() {
    let dir = TempDir::new().unwrap();
    for (file, artifact_dir) in [
        ("plain", "plain"),
        ("plain", "plain/below"),
        ("a/tenants", "a"),
    ] {
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let artifact_dir = dir.path().join(artifact_dir);
        let error = Backend::open(&artifact_dir, &LanesConfig::default())
            .await
            .unwrap_err();
        assert!(
            matches!(error, BackendError::ArtifactDir { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("cannot be used"));
    }
}

/// Root may write what is read-only, so what SQLite says of such a file is
/// given to the mapping as it is.
#[test]
fn what_sqlite_says_becomes_what_to_do() {
    use crate::backend::DatabaseName;
    use crate::backend::error::Context;
    use rusqlite::ffi;

    let context = Context {
        database: DatabaseName::Lane(Lane::Tenant(alice())),
        busy_timeout_ms: 5000,
    };
    for (code, mend) in [
        (ffi::SQLITE_READONLY, "write permission"),
        (ffi::SQLITE_READONLY_DBMOVED, "write permission"),
        (ffi::SQLITE_CANTOPEN, "write permission"),
        (ffi::SQLITE_PERM, "write permission"),
        (ffi::SQLITE_FULL, "free some space"),
        (ffi::SQLITE_IOERR_SHMSIZE, "free some space"),
        (ffi::SQLITE_BUSY, "lanes.busy_timeout_ms (now 5000)"),
        (ffi::SQLITE_BUSY_SNAPSHOT, "roll back and run it again"),
        (ffi::SQLITE_CORRUPT, "restore it from a backup"),
        (ffi::SQLITE_NOTADB, "restore it from a backup"),
        (ffi::SQLITE_IOERR_FSYNC, "the log of jammi"),
        (ffi::SQLITE_CONSTRAINT, "the log of jammi"),
    ] {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let text = context.explain(failure.into()).to_string();
        assert!(text.contains(mend), "{code}: {text}");
        assert!(text.contains(&alice().to_string()), "{code}: {text}");
    }
}

#[tokio::test]
async fn a_full_database_is_full_and_usable_afterwards() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    // SQLite reports a page limit as it does a full disk.
    let full = backend
        .write(lane, move |tx| {
            tx.connection()
                .pragma_update_and_check(None, "max_page_count", 1, |_row| Ok(()))?;
            put(tx, Some(alice()), &"x".repeat(1 << 20))
        })
        .await;
    assert!(matches!(full, Err(BackendError::Full { .. })), "{full:?}");
    assert_eq!(
        names_in(&backend, lane).await.unwrap(),
        Some(vec!["a".into()])
    );
}

#[tokio::test]
async fn a_lane_that_another_program_holds_is_busy() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        busy_timeout_ms: 1,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "a").await.unwrap();
    let holder = stranger(&lane_file(dir.path(), alice()));
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = put_in(&backend, lane, "b").await.unwrap_err();
    assert!(
        matches!(
            busy,
            BackendError::Busy {
                busy_timeout_ms: 1,
                ..
            }
        ),
        "{busy:?}"
    );
    assert_eq!(
        names_in(&backend, lane).await.unwrap(),
        Some(vec!["a".into()])
    );
    holder.execute_batch("ROLLBACK").unwrap();
    put_in(&backend, lane, "b").await.unwrap();
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_new_lane_opens() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir).await);
    let path = lane_file(dir.path(), alice());
    let leftovers: [fn(&Path); 4] = [
        // The file is made and empty.
        |path| fs::write(path, "").unwrap(),
        // The header says WAL, and there is no schema.
        |path| {
            stranger(path)
                .pragma_update(None, "journal_mode", "WAL")
                .unwrap()
        },
        // A migration has begun: the file's own journal undoes it.
        |path| {
            let connection = stranger(path);
            connection
                .execute_batch("BEGIN; CREATE TABLE sources (x)")
                .unwrap();
        },
        // An empty history, as a runner that records it apart leaves.
        |path| {
            stranger(path)
                .execute_batch("PRAGMA journal_mode = WAL; PRAGMA user_version = 0")
                .unwrap()
        },
    ];
    for leave in leftovers {
        leave(&path);
        let backend = open(&dir).await;
        put_in(&backend, Lane::Tenant(alice()), "a").await.unwrap();
        drop(backend);
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn triggers_and_views_that_were_put_into_a_file_do_not_run() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir).await;
    stranger(&path)
        .execute_batch(
            "CREATE TRIGGER planted AFTER INSERT ON models BEGIN DELETE FROM models; END;
             CREATE VIEW peek AS SELECT * FROM models",
        )
        .unwrap();
    let backend = open(&dir).await;
    let lane = Lane::Tenant(alice());
    put_in(&backend, lane, "b").await.unwrap();
    let both = Some(vec!["a".into(), "b".into()]);
    assert_eq!(names_in(&backend, lane).await.unwrap(), both);
    let view = backend
        .read(lane, |tx| {
            Ok(tx
                .connection()
                .query_row("SELECT count(*) FROM peek", [], |_row| Ok(()))?)
        })
        .await;
    assert!(view.is_err());
}
