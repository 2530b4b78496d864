//! Shared tables that are dropped, and the rows that tenants had of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jammi_db::tenant::Lane;
use rusqlite::Connection;

use super::*;
use crate::client::Client;
use crate::harness::TestServer;

const HERS: &str = "canary-of-alice";
const HIS: &str = "canary-of-bob";

fn lane_file(dir: &Path, tenant: &str) -> PathBuf {
    dir.join(format!("tenants/{tenant}.db"))
}

/// Whether the bytes of `text` are in the lane's file or in its log.
fn holds(dir: &Path, tenant: &str, text: &str) -> bool {
    let file = lane_file(dir, tenant);
    let log = file.with_extension("db-wal");
    [file, log].iter().any(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    })
}

/// Where the lane keeps rows of shared tables.
fn kept(dir: &Path, tenant: &str) -> Vec<String> {
    let lane = Connection::open(lane_file(dir, tenant)).unwrap();
    let mut names = lane
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'g[0-9]*'
             UNION SELECT stored FROM table_chunks WHERE stored GLOB 'g[0-9]*'",
        )
        .unwrap();
    let names = names.query_map([], |row| row.get(0)).unwrap();
    names.collect::<rusqlite::Result<_>>().unwrap()
}

/// Waits for the background until nothing of `text` is left.
async fn until_gone(dir: &Path, tenant: &str, text: &str) {
    while holds(dir, tenant, text) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(kept(dir, tenant), [""; 0]);
}

async fn each_has_a_row(shared: &JammiSession, alice: &JammiSession, bob: &JammiSession) {
    run(shared, &["CREATE TABLE words (word VARCHAR)"]).await;
    run(alice, &[&format!("INSERT INTO words VALUES ('{HERS}')")]).await;
    run(bob, &[&format!("INSERT INTO words VALUES ('{HIS}')")]).await;
}

/// Symptom: rows that tenants had of a shared table stayed in their files when it
/// was dropped. Cause: DROP was of the shared lane alone. Fix: every lane is swept.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_dropped_shared_table_leave_no_byte_in_any_lane() {
    let server = TestServer::start().await;
    let dir = server.dir().to_owned();
    let mut operator = Client::connect(&server, None).await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    let make = "CREATE TABLE words (word VARCHAR PRIMARY KEY, n BIGINT)";
    operator.query(make).await.unwrap();
    for (client, canary) in [(&mut alice, HERS), (&mut bob, HIS)] {
        for sql in [
            format!("INSERT INTO words SELECT '{canary}' || value, 1 FROM generate_series(1, 999)"),
            "DELETE FROM words WHERE word LIKE '%7'".to_owned(),
            format!("CREATE TABLE own AS SELECT 'own-of-{canary}' AS word"),
        ] {
            client.query(&sql).await.unwrap();
        }
    }
    // One who reads an older state keeps what is in it, for himself alone.
    let open = bob.begin().await.unwrap();
    bob.query_in("SELECT count(*) FROM own", &open)
        .await
        .unwrap();
    // In a transaction, and after a rollback that drops nothing.
    for end in ["ROLLBACK", "COMMIT"] {
        let mut session = operator.with_session("operator");
        for sql in ["BEGIN", "DROP TABLE words", end] {
            session.query(sql).await.unwrap();
        }
    }
    let own = |canary: &str| format!("own-of-{canary}");
    let words = |canary: &str| format!("{canary}1");
    until_gone(&dir, ALICE, &words(HERS)).await;
    bob.commit(&open).await.unwrap();
    until_gone(&dir, BOB, &words(HIS)).await;
    assert!(holds(&dir, ALICE, &own(HERS)) && holds(&dir, BOB, &own(HIS)));

    // A table of the same name is another table.
    operator.query(make).await.unwrap();
    for client in [&mut alice, &mut bob] {
        assert_eq!(
            client
                .query("SELECT word FROM words")
                .await
                .unwrap()
                .num_rows(),
            0
        );
        client
            .query("INSERT INTO words VALUES ('new', 1)")
            .await
            .unwrap();
        assert_eq!(
            client
                .query("SELECT word FROM words")
                .await
                .unwrap()
                .num_rows(),
            1
        );
    }
    server.stop().await;
}

/// What a process leaves that ends between the drop and the sweep.
fn drop_as_one_who_crashes(dir: &Path) {
    // As every process does that comes to use the directory.
    std::fs::write(dir.join("sessions/entered"), [7; 16]).unwrap();
    let global = Connection::open(dir.join("global.db")).unwrap();
    global
        .execute_batch(
            "BEGIN; DELETE FROM relations WHERE name = 'words'; DROP TABLE t1;
             UPDATE catalog_stamp SET stamp = random(); COMMIT",
        )
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_of_a_dropped_shared_table_is_swept_later() {
    let world = World::new().await;
    each_has_a_row(&world.shared, &world.alice, &world.bob).await;
    let dir = world.dir.path();
    drop_as_one_who_crashes(dir);

    // The first statement of a tenant sweeps its own lane, and no other.
    run(&world.alice, &["SELECT 1"]).await;
    until_gone(dir, ALICE, HERS).await;
    assert!(holds(dir, BOB, HIS));
    assert_eq!(kept(dir, BOB).len(), 1);

    // A server that starts sweeps all.
    let World {
        shared,
        alice,
        bob,
        dir,
    } = world;
    drop((shared, alice, bob));
    let dir = std::sync::Arc::new(dir);
    let server = TestServer::start_in(std::sync::Arc::clone(&dir), |_| {}).await;
    until_gone(dir.path(), BOB, HIS).await;
    server.stop().await;
}

/// Symptom: after the shared lane was restored to a state before a shared table,
/// the next shared table showed tenants their rows of that one. Cause: rows were
/// found by the table's number, which a restored lane gives again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_shared_lane_shows_no_row_of_another_table() {
    let world = World::new().await;
    let dir = world.dir.path();
    let engine = world.shared.engine();
    let lanes = engine.backend();
    run(&world.shared, &["CREATE VIEW one AS SELECT 1 AS one"]).await;
    let (before, after) = (dir.join("before"), dir.join("after"));
    lanes.backup(Lane::Global, &before).await.unwrap();
    each_has_a_row(&world.shared, &world.alice, &world.bob).await;
    lanes.backup(Lane::Global, &after).await.unwrap();

    // What the restored lane has never heard of stays, for when it is restored again.
    engine.restore(Lane::Global, &before).await.unwrap();
    for session in [&world.alice, &world.bob] {
        let gone = refused(session, "SELECT * FROM words").await;
        assert!(matches!(gone, Error::NotFound(_)), "{gone}");
    }
    engine.restore(Lane::Global, &after).await.unwrap();
    assert_eq!(rows(&world.alice, "SELECT word FROM words").await, HERS);
    assert_eq!(rows(&world.bob, "SELECT word FROM words").await, HIS);

    // The number is given again, and the old rows are nobody's.
    engine.restore(Lane::Global, &before).await.unwrap();
    run(&world.shared, &["CREATE TABLE words (word VARCHAR)"]).await;
    for (session, tenant, canary) in [(&world.alice, ALICE, HERS), (&world.bob, BOB, HIS)] {
        assert_eq!(rows(session, "SELECT word FROM words").await, "");
        until_gone(dir, tenant, canary).await;
        run(session, &["INSERT INTO words VALUES ('new')"]).await;
        assert_eq!(rows(session, "SELECT word FROM words").await, "new");
    }
}
