//! Backing up and restoring lanes that are in use.

use std::fs;

use super::*;

const OWN: fn() -> Lane = || Lane::Tenant(alice());

fn some(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

/// A backup of a lane that holds `names`.
async fn backup_of(dir: &TempDir, lane: Lane, names: &[&str]) -> PathBuf {
    let other = TempDir::new().unwrap();
    let backend = open(&other).await;
    for name in names {
        put_in(&backend, lane, name).await.unwrap();
    }
    let to = dir
        .path()
        .join(format!("{lane}-{}.backup", names.join("-")));
    backend.backup(lane, &to).await.unwrap();
    to
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_backed_up_is_restored() {
    for lane in [Lane::Global, OWN()] {
        let (dir, backups) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (here, there) = (open(&dir).await, open(&dir).await);
        let to = backups.path().join("a backup %20?#");
        if lane == OWN() {
            let nothing = here.backup(lane, &to).await.unwrap_err();
            assert!(matches!(nothing, BackendError::NothingToBackUp { .. }));
            assert!(!lane_file(dir.path(), alice()).exists());
        }
        put_in(&here, lane, "a").await.unwrap();
        put_in(&there, lane, "b").await.unwrap();
        here.backup(lane, &to).await.unwrap();
        assert_eq!(files_in(backups.path()), ["a backup %20?#"], "one file");
        let content = fs::read(&to).unwrap();

        put_in(&there, lane, "c").await.unwrap();
        let before = [here.version(lane).unwrap(), there.version(lane).unwrap()];
        here.restore(lane, &to, keep_all).await.unwrap();
        for (backend, before) in [&here, &there].into_iter().zip(before) {
            assert_ne!(backend.version(lane).unwrap(), before);
            assert_eq!(names_in(backend, lane).await.unwrap(), some(&["a", "b"]));
        }
        for (backend, name) in [(&there, "d"), (&here, "e")] {
            put_in(backend, lane, name).await.unwrap();
        }
        let all = some(&["a", "b", "d", "e"]);
        assert_eq!(names_in(&open(&dir).await, lane).await.unwrap(), all);

        // Into a directory that has not the lane.
        let (elsewhere, other) = (TempDir::new().unwrap(), Lane::Tenant(bob()));
        let backend = open(&elsewhere).await;
        put_in(&backend, other, "bob's").await.unwrap();
        backend.restore(lane, &to, keep_all).await.unwrap();
        assert_eq!(names_in(&backend, lane).await.unwrap(), some(&["a", "b"]));
        assert_eq!(names_in(&backend, other).await.unwrap(), some(&["bob's"]));
        assert_eq!(fs::read(&to).unwrap(), content);
        assert_eq!(files_in(backups.path()), ["a backup %20?#"]);
    }
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    put_in(&backend, OWN(), "a").await.unwrap();
    let there = dir.path().join("there");
    for content in ["", "something"] {
        fs::write(&there, content).unwrap();
        let error = backend.backup(OWN(), &there).await.unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(fs::read_to_string(&there).unwrap(), content);
    }
    for unusable in ["", "no/such/directory/file", "."] {
        let to = dir.path().join(unusable);
        let error = backend.backup(OWN(), &to).await.unwrap_err();
        assert!(matches!(error, BackendError::BackupFile { .. }));
    }
    // What a crash has left of an earlier one is not in the way.
    fs::write(dir.path().join("new.partial"), "leftover").unwrap();
    backend
        .backup(OWN(), &dir.path().join("new"))
        .await
        .unwrap();
    assert!(!dir.path().join("new.partial").exists());
}

#[tokio::test]
async fn a_file_that_is_not_of_the_lane_is_refused() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    let (bobs, global) = (Lane::Tenant(bob()), Lane::Global);
    put_in(&backend, OWN(), "kept").await.unwrap();
    put_in(&backend, global, "kept").await.unwrap();

    let good = backup_of(&dir, OWN(), &["a", "b"]).await;
    let changed = |name: &str, sql: &str| {
        let path = dir.path().join(name);
        fs::copy(&good, &path).unwrap();
        stranger(&path).execute_batch(sql).unwrap();
        path
    };
    let damaged = changed("damaged", "");
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    fs::write(&damaged, bytes).unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "not a database at all").unwrap();
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let foreign_row = |tenant: &str| {
        changed(
            &format!("foreign {}", tenant.len()),
            &format!(
                "CREATE TABLE t1 (_row INTEGER PRIMARY KEY, tenant_id BLOB);
                      INSERT INTO t1 VALUES (1, {tenant})"
            ),
        )
    };
    let hex = bob().to_string().replace('-', "");
    let cases = [
        (OWN(), backup_of(&dir, bobs, &["x"]).await, "another tenant"),
        (
            OWN(),
            backup_of(&dir, global, &["y"]).await,
            "another tenant",
        ),
        (global, good.clone(), "another tenant"),
        (OWN(), foreign_row(&format!("x'{hex}'")), "another tenant"),
        (OWN(), foreign_row("NULL"), "another tenant"),
        (
            OWN(),
            foreign_row(&format!("'{}'", bob())),
            "another tenant",
        ),
        (OWN(), damaged, "damaged"),
        (OWN(), text, "damaged"),
        (OWN(), empty, "damaged"),
        (OWN(), dir.path().join("system.db"), "damaged"),
        (
            OWN(),
            changed("newer", "PRAGMA user_version = 99"),
            "upgrade jammi",
        ),
        (
            OWN(),
            changed("table", "CREATE TABLE x (y)"),
            "no lane does",
        ),
        (
            OWN(),
            changed("view", "CREATE VIEW x AS SELECT 1"),
            "no lane does",
        ),
        (
            OWN(),
            changed(
                "trigger",
                "CREATE TRIGGER x AFTER INSERT ON models BEGIN DELETE FROM models; END",
            ),
            "no lane does",
        ),
        (
            OWN(),
            changed("pages", "PRAGMA page_size = 8192; VACUUM"),
            "no lane does",
        ),
    ];
    let files = files_in(&dir.path().join("tenants"));
    for (lane, from, reason) in cases {
        let before = backend.version(lane).unwrap();
        let error = backend.restore(lane, &from, keep_all).await.unwrap_err();
        assert!(
            matches!(error, BackendError::BackupRefused { .. }),
            "{from:?}: {error:?}"
        );
        assert!(error.to_string().contains(reason), "{from:?}: {error}");
        assert!(!error.to_string().contains(dir.path().to_str().unwrap()));
        assert_eq!(backend.version(lane).unwrap(), before, "{from:?}");
        assert_eq!(names_in(&backend, lane).await.unwrap(), some(&["kept"]));
        assert_eq!(files_in(&dir.path().join("tenants")), files);
    }
    for missing in ["no such file", "tenants"] {
        let from = dir.path().join(missing);
        let error = backend.restore(OWN(), &from, keep_all).await.unwrap_err();
        assert!(
            matches!(error, BackendError::BackupFile { .. }),
            "{error:?}"
        );
    }
    // The lane's own rows are, in either encoding.
    let hex = alice().to_string().replace('-', "");
    let own = foreign_row(&format!("x'{hex}' /* own */"));
    backend.restore(OWN(), &own, keep_all).await.unwrap();
    assert_eq!(names_in(&backend, OWN()).await.unwrap(), some(&["a", "b"]));
}

#[tokio::test]
async fn an_older_backup_is_brought_up_to_date() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    put_in(&backend, OWN(), "gone").await.unwrap();
    let old = dir.path().join("old");
    let application_id = i32::from_be_bytes(*b"JmLn");
    stranger(&old)
        .execute_batch(&format!("PRAGMA application_id = {application_id}"))
        .unwrap();
    let content = fs::read(&old).unwrap();
    backend.restore(OWN(), &old, keep_all).await.unwrap();
    assert_eq!(names_in(&backend, OWN()).await.unwrap(), some(&[]));
    put_in(&backend, OWN(), "a").await.unwrap();
    assert_eq!(fs::read(&old).unwrap(), content);
}

/// A lane's own files, copied as they are, are a backup too.
#[tokio::test]
async fn a_copy_with_its_log_is_restored() {
    let dir = TempDir::new().unwrap();
    let backend = open(&dir).await;
    put_in(&backend, OWN(), "a").await.unwrap();
    for ending in ["", "-wal"] {
        let name = |path: PathBuf| format!("{}{ending}", path.to_str().unwrap());
        let from = name(lane_file(dir.path(), alice()));
        fs::copy(from, name(dir.path().join("copy"))).unwrap();
    }
    put_in(&backend, OWN(), "b").await.unwrap();
    let copy = dir.path().join("copy");
    backend.restore(OWN(), &copy, keep_all).await.unwrap();
    assert_eq!(names_in(&backend, OWN()).await.unwrap(), some(&["a"]));
}

#[tokio::test]
async fn a_damaged_lane_is_restored() {
    let backups = TempDir::new().unwrap();
    let backup = backup_of(&backups, OWN(), &["a", "b"]).await;
    let damage: [fn(&Path); 5] = [
        |path| fs::write(path, "a text file").unwrap(),
        |path| fs::write(path, [0xff; 100_000]).unwrap(),
        |path| fs::write(path, "").unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[4096..].fill(0xa5);
            fs::write(path, bytes).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            let other = stranger(path);
            other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        },
    ];
    for (number, damage) in damage.into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        put_in(&open(&dir).await, OWN(), "gone").await.unwrap();
        damage(&lane_file(dir.path(), alice()));
        let (here, there) = (open(&dir).await, open(&dir).await);
        here.restore(OWN(), &backup, keep_all).await.unwrap();
        put_in(&there, OWN(), "c").await.unwrap();
        for backend in [&here, &there, &open(&dir).await] {
            let names = names_in(backend, OWN()).await.unwrap();
            assert_eq!(names, some(&["a", "b", "c"]), "{number}");
        }
    }
}

#[tokio::test]
async fn transactions_keep_what_they_saw_before_a_restore() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let backup = backup_of(&dir, OWN(), &["restored"]).await;
    put_in(&here, OWN(), "old").await.unwrap();
    let (reader, writer) = (here.begin(OWN()), here.begin(OWN()));
    let theirs = there.begin(OWN());
    for transaction in [&reader, &theirs] {
        assert_eq!(transaction.read(names).await.unwrap(), some(&["old"]));
    }
    let put = |tx: &Transaction<'_>| super::put(tx, Some(alice()), "written");
    writer.write(put).await.unwrap();
    // It waits for the turn.
    let restore = tokio::spawn({
        let here = here.clone();
        async move { here.restore(OWN(), &backup, keep_all).await }
    });
    waits(&here, OWN(), 1).await;
    writer.commit().await.unwrap();
    restore.await.unwrap().unwrap();

    for transaction in [&reader, &theirs] {
        assert_eq!(transaction.read(names).await.unwrap(), some(&["old"]));
        let conflict = transaction.write(put).await.unwrap_err();
        assert!(matches!(conflict, BackendError::Conflict { .. }));
    }
    for backend in [&here, &there] {
        let names = names_in(backend, OWN()).await.unwrap();
        assert_eq!(names, some(&["restored"]));
    }
}

/// Each row is written with its successor in one transaction, so every state of
/// the lane has an even number of rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lanes_are_in_use_while_they_are_backed_up_and_restored() {
    const ROUNDS: usize = 5;
    let dir = TempDir::new().unwrap();
    let (here, there) = (open(&dir).await, open(&dir).await);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let both = here.write(OWN(), |tx| {
        put(tx, Some(alice()), "x")?;
        put(tx, Some(alice()), "y")
    });
    both.await.unwrap();
    let mut writers = Vec::new();
    for (number, backend) in [&here, &there].into_iter().enumerate() {
        for tenant in [alice(), bob()] {
            let (backend, stop) = (backend.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                let lane = Lane::Tenant(tenant);
                let mut written = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = format!("{number}-{written}");
                    let write = backend.write(lane, move |tx| {
                        put(tx, Some(tenant), &format!("{name} a"))?;
                        put(tx, Some(tenant), &format!("{name} b"))
                    });
                    write.await.unwrap();
                    written += 1;
                    let names = names_in(&backend, lane).await.unwrap().unwrap();
                    assert_eq!(names.len() % 2, 0);
                }
                written
            }));
        }
    }
    for round in 0..ROUNDS {
        let to = dir.path().join(format!("{round}"));
        here.backup(OWN(), &to).await.unwrap();
        let rows: i64 = stranger(&to)
            .query_row("SELECT count(*) FROM models", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows % 2, 0);
        there.restore(OWN(), &to, keep_all).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    // Bob's lane lost nothing by it.
    let bobs = names_in(&here, Lane::Tenant(bob())).await.unwrap().unwrap();
    assert_eq!(bobs.len(), 2 * (written[1] + written[3]));
}
