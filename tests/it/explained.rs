//! What `EXPLAIN` shows of the guard: for whom it is, and what is held above it.

use arrow::array::{Array, AsArray};

use crate::client::{ALICE, BOB, Client};
use crate::harness::TestServer;

/// The guards' lines of the physical plan.
async fn guards(client: &mut Client, sql: &str) -> Vec<String> {
    let batch = client.query(sql).await.unwrap();
    let plans = batch.column(1).as_string::<i32>();
    let plans = (0..plans.len())
        .map(|row| plans.value(row))
        .collect::<Vec<_>>();
    let lines = plans.iter().flat_map(|plan| plan.lines());
    let guards = lines.filter_map(|line| line.trim_start().strip_prefix("GuardExec: "));
    guards.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_what_is_held_above_the_guard_and_why() {
    let server = TestServer::start().await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    let mut shared = Client::connect(&server, None).await;
    let files = tempfile::tempdir().unwrap();
    let inbox = files.path().join("inbox.csv");
    let rows = format!("id,n,title,tenant_id\n1,1,x,{ALICE}\n2,777,canary,{BOB}\n3,1,all,\n");
    std::fs::write(&inbox, rows).unwrap();
    let mut catalog = server.catalog().await;
    let request = jammi_db::server::proto::catalog::RegisterSourceRequest {
        name: "inbox".into(),
        location: inbox.display().to_string(),
        ..Default::default()
    };
    catalog.register_source(request).await.unwrap();
    let made = "CREATE TABLE notes (id BIGINT PRIMARY KEY, n BIGINT, title VARCHAR)";
    shared.query(made).await.unwrap();
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    bob.query("INSERT INTO notes (id, n, title) VALUES (2, 777, 'canary')")
        .await
        .unwrap();

    for (condition, held) in [
        ("id > 2 AND title = 'x' AND n IN (1, 2)", None),
        ("n BETWEEN 1 AND 2 OR title IS NULL", None),
        (
            "1 / (n - 777) = 0",
            Some("1 / (n - 777) = 0 (arithmetic can fail)"),
        ),
        ("CAST(title AS INT) > 0", Some("(a cast can fail)")),
        ("upper(title) = 'X'", Some("(a function can fail)")),
        (
            "id > 2 AND random() < 0.5",
            Some("random() < 0.5 (it may answer differently each time)"),
        ),
        (
            "title LIKE '%a_b%'",
            Some("(it is not known to succeed on every row)"),
        ),
        (
            "id > 2 AND n + 1 > 2 AND -id < 0",
            Some("n + 1 > 2 (arithmetic can fail), "),
        ),
    ] {
        // What fails on a row is not run on it.
        let explains = match condition.contains("777") || condition.contains("CAST") {
            true => &["EXPLAIN"][..],
            false => &["EXPLAIN", "EXPLAIN ANALYZE"],
        };
        for table in ["inbox.public.inbox", "notes"] {
            for explain in explains {
                let sql = format!("{explain} SELECT id FROM {table} WHERE {condition}");
                for (client, tenant, other) in [(&mut alice, ALICE, BOB), (&mut bob, BOB, ALICE)] {
                    let guards = guards(client, &sql).await;
                    let [guard] = guards.as_slice() else {
                        panic!("{sql}: {guards:?}")
                    };
                    assert!(
                        guard.contains(&format!("lanes=[{tenant}, global]")),
                        "{guard}"
                    );
                    for leak in [other, "canary"] {
                        assert!(!guard.contains(leak), "{guard}");
                    }
                    match held {
                        None => assert!(!guard.contains("held above"), "{sql}: {guard}"),
                        Some(held) => {
                            let (_, told) = guard.split_once("held above=[").expect(guard);
                            assert!(told.contains(held), "{sql}: {told}");
                            // What may run below is not among them.
                            assert!(!told.contains("id > 2"), "{told}");
                        }
                    }
                }
            }
        }
    }
    // Each of several guards tells its own.
    let joined = "EXPLAIN SELECT a.id FROM notes a JOIN inbox.public.inbox b ON a.id = b.id \
                  WHERE 1 / (a.n - 777) = 0";
    let guards = guards(&mut alice, joined).await;
    assert_eq!(guards.len(), 2, "{guards:?}");
    for guard in &guards {
        let is_of_notes = guard.contains("table=mutable.public.notes");
        assert_eq!(guard.contains("held above"), is_of_notes, "{guard}");
    }
    server.stop().await;
}
