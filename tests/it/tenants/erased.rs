//! The end of a tenant: nothing of it is left in files, in memory or in what others
//! may ask for, and a certificate says what there was.

use std::fs;
use std::path::Path;

use arrow::util::pretty::pretty_format_batches;
use jammi_db::server::proto::tenants::EraseTenantRequest;
use jammi_db::tenant::{Lane, Principal};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::Code;

use super::archives::holding;
use super::{
    ALICE, BOB, BOTH, Client, HERS, HIS, TestServer, erase, listed, resume, suspend, usage, world,
};
use crate::authentication::Guarded;
use crate::harness::{bind, bound, config};
use crate::writes::{refused, shown};

/// The certificate, whose digest is right.
fn certified(text: &str) -> Value {
    let certificate: Value = serde_json::from_str(text).unwrap();
    let digest = certificate["sha256"].as_str().unwrap();
    let signed = text.replace(&format!(",\"sha256\":\"{digest}\""), "");
    let found: String = Sha256::digest(&signed)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(found, digest, "{text}");
    certificate
}

fn lane_files(dir: &Path, tenant: &str) -> usize {
    let files = fs::read_dir(dir.join("tenants")).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(tenant)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_tenant_is_gone_and_its_id_starts_anew() {
    let (server, mut alice, mut bob) = world().await;
    let mut office = server.office().await;
    // What was read is kept in memory.
    for _again in 0..2 {
        assert_eq!(alice.notes().await, HERS);
    }
    refused(
        erase(&mut office, ALICE).await,
        Code::FailedPrecondition,
        "is not suspended",
    );
    suspend(&mut office, ALICE).await;
    let request = EraseTenantRequest {
        id: ALICE.into(),
        confirm: BOB.into(),
    };
    let unconfirmed = office.erase_tenant(request).await;
    refused(unconfirmed, Code::InvalidArgument, "confirm it");
    assert!(lane_files(server.dir(), ALICE) > 0);
    assert!(!holding(server.dir(), HERS).is_empty());

    let text = erase(&mut office, ALICE).await.unwrap();
    let certificate = certified(&text);
    assert_eq!(certificate["tenant"], ALICE);
    assert_eq!(certificate["by"], "trusted-network");
    let removed = &certificate["removed"];
    assert_eq!(removed["contents"]["tables"][0]["name"], "notes");
    assert_eq!(removed["contents"]["tables"][0]["rows"], 1);
    assert_eq!(removed["files"][0]["file"], format!("tenants/{ALICE}.db"));
    assert!(removed["files"][0]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(removed["session_bindings"], 1);
    assert!(!text.contains(HERS) && !text.contains(BOB));

    assert_eq!(lane_files(server.dir(), ALICE), 0);
    assert_eq!(holding(server.dir(), HERS), [""; 0]);
    let bob_alone: Vec<_> = listed(&mut office)
        .await
        .into_iter()
        .map(|(id, ..)| id)
        .collect();
    assert_eq!(bob_alone, [BOB]);
    // Asked again, it says the same.
    assert_eq!(erase(&mut office, ALICE).await.unwrap(), text);
    // The old session is bound to nobody.
    let mut sessions = server.sessions().await;
    assert_eq!(bound(&mut sessions, "alice").await, None);
    refused(
        alice.query("SELECT * FROM notes").await,
        Code::NotFound,
        "notes",
    );

    bind(&mut sessions, "alice", ALICE).await.unwrap();
    refused(
        alice.query("SELECT * FROM notes").await,
        Code::NotFound,
        "notes",
    );
    // Symptom: whoever had the id next read what the one before had been asking. Cause:
    // records of the audit trail stay. Fix: a tenant reads those of its own life.
    let recorded = "SELECT * FROM jammi.audit.events";
    let told = alice.query(recorded).await.unwrap();
    let told = pretty_format_batches(&[told]).unwrap().to_string();
    assert!(!told.contains("INSERT INTO notes"), "{told}");
    let mut operator = Client::connect(&server, None).await;
    let all = operator.query(recorded).await.unwrap();
    let all = pretty_format_batches(&[all]).unwrap().to_string();
    assert!(all.contains("INSERT INTO notes"), "{all}");
    alice.note("anew").await;
    assert_eq!(alice.notes().await, "anew");
    let counted = usage(&mut office, ALICE).await;
    assert_eq!((counted.rows_stored, counted.queries), (1, 4));
    assert_eq!(bob.notes().await, HIS);
    // A later life has a certificate of its own.
    suspend(&mut office, ALICE).await;
    assert_ne!(erase(&mut office, ALICE).await.unwrap(), text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_for_a_tenant_is_withdrawn_with_it() {
    let guarded = Guarded::start().await;
    let only = guarded.key("alice", &[ALICE], &[]).await;
    let both = guarded.key("both", &BOTH, &[]).await;
    let bobs = guarded.key("bob", &[BOB], &[]).await;
    guarded.client(&only, None).await.note(HERS).await;
    guarded.client(&bobs, None).await.note(HIS).await;
    let mut client = guarded.client(&both, Some("both")).await;
    client.bind(ALICE).await;

    // By the command, beside the server.
    let beside = guarded.server.beside().await;
    let id = ALICE.parse().unwrap();
    beside.tenants().suspend(id).await.unwrap();
    let by = Principal::trusted_network();
    let text = beside.tenants().erase(id, &by).await.unwrap();
    let credentials = certified(&text)["removed"]["credentials"].clone();
    assert_eq!(
        credentials["keys_revoked"],
        serde_json::json!([only.key.id])
    );
    assert_eq!(
        credentials["keys_narrowed"],
        serde_json::json!([both.key.id])
    );

    let mut revoked = guarded.client(&only, None).await;
    let answer = revoked.query("SELECT 1").await;
    refused(answer, Code::Unauthenticated, "not accepted");
    // It acts for Bob alone from now on, and for nobody in a session of hers that the
    // server has not forgotten yet.
    match client.query("SELECT note FROM notes").await {
        Ok(rows) => assert_eq!(shown(&rows), HIS),
        Err(status) => assert_eq!(status.code(), Code::PermissionDenied, "{status:?}"),
    }
    let mut of_bob = guarded.client(&both, None).await;
    assert_eq!(of_bob.notes().await, HIS);
    // Whoever has her id anew finds nothing.
    let again = guarded.key("again", &BOTH, &[]).await;
    let mut again = guarded.client(&again, Some("again")).await;
    again.bind(ALICE).await;
    refused(
        again.query("SELECT * FROM notes").await,
        Code::NotFound,
        "notes",
    );
}

/// Somebody reads the lane still: the erasure waits, gives up, and goes on when it is
/// asked for again. Nobody is served half a tenant meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_broken_off_goes_on() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = crate::client::alice_and_bob(&server).await;
    alice.note(HERS).await;
    bob.note(HIS).await;
    let mut settings = config(server.dir());
    settings.lanes.busy_timeout_ms = 500;
    let beside = jammi_db::engine::Engine::open(&settings).await.unwrap();
    let id = ALICE.parse().unwrap();

    let transaction = beside.backend().begin(Lane::Tenant(id));
    transaction.read(|_| Ok(())).await.unwrap();

    let by = Principal::trusted_network();
    beside.tenants().suspend(id).await.unwrap();
    let answer = beside.tenants().erase(id, &by).await;
    assert!(answer.unwrap_err().to_string().contains("is busy"));
    let mut office = server.office().await;
    let states: Vec<_> = listed(&mut office)
        .await
        .into_iter()
        .map(|(id, state, _)| (id, state))
        .collect();
    let erasing = jammi_db::server::proto::tenants::TenantState::Erasing;
    assert_eq!(states[0], (ALICE.to_owned(), erasing));
    refused(
        alice.query("SELECT 1").await,
        Code::PermissionDenied,
        "suspended",
    );
    let request = jammi_db::server::proto::tenants::ResumeTenantRequest { id: ALICE.into() };
    let resumed = office.resume_tenant(request).await;
    refused(resumed, Code::FailedPrecondition, "being erased");
    drop(transaction);

    // As a crash after the first file would leave it.
    fs::remove_file(server.dir().join(format!("tenants/{ALICE}.db"))).unwrap();
    // What still runs makes no new one.
    let made = beside.backend().write(Lane::Tenant(id), |_| Ok(())).await;
    assert!(made.unwrap_err().to_string().contains("being erased"));
    let text = erase(&mut office, ALICE).await.unwrap();
    let certificate = certified(&text);
    assert_eq!(certificate["removed"]["contents"]["tables"][0]["rows"], 1);
    assert_eq!(lane_files(server.dir(), ALICE), 0);
    assert_eq!(holding(server.dir(), HERS), [""; 0]);
    assert_eq!(bob.notes().await, HIS);
    let mut anew = Client::connect(&server, Some("anew")).await;
    anew.bind(ALICE).await;
    refused(
        anew.query("SELECT * FROM notes").await,
        Code::NotFound,
        "notes",
    );
    server.stop().await;
}

/// One that had nothing but a name.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_rows_is_erased_too() {
    let server = TestServer::start().await;
    let mut office = server.office().await;
    let request = jammi_db::server::proto::tenants::CreateTenantRequest {
        id: ALICE.into(),
        name: "empty".into(),
        ..Default::default()
    };
    office.create_tenant(request).await.unwrap();
    suspend(&mut office, ALICE).await;
    resume(&mut office, ALICE).await;
    suspend(&mut office, ALICE).await;
    let certificate = certified(&erase(&mut office, ALICE).await.unwrap());
    assert_eq!(certificate["removed"]["files"], serde_json::json!([]));
    assert_eq!(certificate["name"], "empty");
    assert!(listed(&mut office).await.is_empty());
    refused(
        erase(&mut office, BOB).await,
        Code::NotFound,
        "there is no tenant",
    );
    server.stop().await;
}

/// Whatever runs for the tenant meanwhile ends, and writes nothing after it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_run_while_a_tenant_is_erased_fail_cleanly() {
    let (server, alice, mut bob) = world().await;
    let mut office = server.office().await;
    let mut workers = Vec::new();
    for (number, session) in ["one", "two", "three"].into_iter().enumerate() {
        let mut client = alice.with_session(session);
        client.bind(ALICE).await;
        workers.push(tokio::spawn(async move {
            for id in (number + 1) * 1_000_000.. {
                let sql = format!("INSERT INTO notes VALUES ({id}, '{HERS}')");
                if let Err(status) = client.query(&sql).await {
                    return status;
                }
            }
            unreachable!("there are more numbers than it lasts")
        }));
    }
    while usage(&mut office, ALICE).await.rows_stored < 5 {}
    suspend(&mut office, ALICE).await;
    while let Err(status) = erase(&mut office, ALICE).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    for worker in workers {
        let status = worker.await.unwrap();
        // Refused, or told to send it again, which is refused then.
        let clean = [Code::PermissionDenied, Code::NotFound, Code::Unavailable];
        let is_clean = clean.contains(&status.code());
        assert!(is_clean, "{status:?}");
        assert!(!status.message().contains(HERS), "{status:?}");
    }
    assert_eq!(lane_files(server.dir(), ALICE), 0);
    assert_eq!(holding(server.dir(), HERS), [""; 0]);
    assert_eq!(bob.notes().await, HIS);
    server.stop().await;
}
