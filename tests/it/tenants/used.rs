//! What tenants use, counted apart and kept over restarts.

use jammi_db::server::proto::tenants::GetUsageRequest;
use tonic::Code;

use super::{ALICE, BOB, BOTH, HERS, HIS, TestServer, in_session, usage, world};
use crate::client::Client;
use crate::writes::refused;

#[tokio::test(flavor = "multi_thread")]
async fn queries_rows_and_storage_are_counted_for_each_and_kept() {
    let (server, mut alice, mut bob) = world().await;
    let mut office = server.office().await;
    let [before, bobs] = [
        usage(&mut office, ALICE).await,
        usage(&mut office, BOB).await,
    ];
    assert_eq!((before.rows_stored, bobs.rows_stored), (1, 1));
    assert!(before.bytes_stored > 0 && before.since_ms.is_some());
    // Making the table and filling it.
    assert_eq!((before.queries, before.rows_returned), (2, 0));

    alice
        .query("INSERT INTO notes SELECT value, 'more' FROM generate_series(2, 100)")
        .await
        .unwrap();
    for _again in 0..3 {
        alice.query("SELECT * FROM notes").await.unwrap();
    }
    let after = usage(&mut office, ALICE).await;
    assert_eq!(after.rows_stored, 100);
    assert_eq!(after.queries, before.queries + 4);
    assert_eq!(after.rows_returned, 300);
    assert!(after.running_us > before.running_us);
    // Bob's are his own.
    assert_eq!(bob.notes().await, HIS);
    let bobs_after = usage(&mut office, BOB).await;
    assert_eq!(bobs_after.queries, bobs.queries + 1);
    assert_eq!(bobs_after.rows_returned, 1);

    let dir = server.stop().await;
    let server = TestServer::start_in(dir, |_| {}).await;
    let mut office = server.office().await;
    let kept = usage(&mut office, ALICE).await;
    assert_eq!((kept.queries, kept.rows_returned), (after.queries, 300));
    assert_eq!(kept.since_ms, after.since_ms);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_what_its_own_tenant_uses() {
    let (server, mut alice, _bob) = world().await;
    let mut office = server.office().await;
    let request = in_session("alice", GetUsageRequest::default());
    let own = office.get_usage(request).await.unwrap().into_inner();
    assert_eq!((own.id.as_str(), own.rows_stored), (ALICE, 1));
    let unbound = office.get_usage(GetUsageRequest::default()).await;
    refused(unbound, Code::InvalidArgument, "names no tenant");
    assert_eq!(alice.notes().await, HERS);
    server.stop().await;
}

/// What is shared costs whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_shared_tables_are_counted_for_whoever_has_them() {
    let (server, mut alice, mut bob) = world().await;
    let mut operator = Client::connect(&server, None).await;
    operator
        .query("CREATE TABLE words (word VARCHAR)")
        .await
        .unwrap();
    alice
        .query("INSERT INTO words VALUES ('a'), ('b')")
        .await
        .unwrap();
    bob.query("INSERT INTO words VALUES ('c')").await.unwrap();
    let mut office = server.office().await;
    let stored = [3, 2];
    for (id, stored) in BOTH.into_iter().zip(stored) {
        assert_eq!(usage(&mut office, id).await.rows_stored, stored);
    }
    server.stop().await;
}
