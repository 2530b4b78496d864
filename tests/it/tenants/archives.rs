//! One tenant as a file: taken in elsewhere whole, or not at all.

use std::fs;
use std::path::Path;

use jammi_db::server::proto::catalog::{ListSourcesRequest, RegisterSourceRequest};
use jammi_db::server::proto::tenants::{ImportTenantRequest, TenantState};
use tonic::Code;

use super::{
    ALICE, BOB, HERS, HIS, TestServer, export, import, in_session, listed, resume, suspend, world,
};
use crate::client::{Client, alice_and_bob};
use crate::writes::refused;

fn plain() -> ImportTenantRequest {
    ImportTenantRequest::default()
}

fn replacing() -> ImportTenantRequest {
    ImportTenantRequest {
        replace: true,
        ..plain()
    }
}

/// The paths of the files below a directory that hold a text.
pub fn holding(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else {
            // Logs of databases come and go.
            let bytes = fs::read(&path).unwrap_or_default();
            let mut windows = bytes.windows(text.len());
            if windows.any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_to_another_installation_and_nobody_else() {
    let (server, mut alice, _bob) = world().await;
    let path = server.dir().join("inbox.csv");
    fs::write(&path, "id,title\n1,from a file\n").unwrap();
    let mut catalog = server.catalog().await;
    let request = RegisterSourceRequest {
        name: "inbox".into(),
        location: path.to_str().unwrap().into(),
        tenant_column: Some(String::new()),
        ..RegisterSourceRequest::default()
    };
    catalog
        .register_source(in_session("alice", request))
        .await
        .unwrap();
    alice
        .query("CREATE TEMPORARY TABLE passing (x INT)")
        .await
        .unwrap();
    let archive = export(&mut server.office().await, ALICE).await.unwrap();
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains(HERS) && !text.contains(HIS) && !text.contains(BOB));

    let elsewhere = TestServer::start().await;
    let mut office = elsewhere.office().await;
    let imported = import(&mut office, &archive, plain()).await.unwrap();
    let tenant = imported.tenant.clone().unwrap();
    assert_eq!(
        (tenant.id.as_str(), tenant.state()),
        (ALICE, TenantState::Active)
    );
    // The file is not ours to carry.
    assert!(
        imported
            .notices
            .iter()
            .any(|notice| notice.contains("inbox")),
        "{imported:?}"
    );
    let (mut alice, mut bob) = alice_and_bob(&elsewhere).await;
    assert_eq!(alice.notes().await, HERS);
    alice
        .query("INSERT INTO notes VALUES (2, 'written there')")
        .await
        .unwrap();
    let mut catalog = elsewhere.catalog().await;
    let sources = catalog
        .list_sources(in_session("alice", ListSourcesRequest {}))
        .await;
    assert_eq!(sources.unwrap().into_inner().sources.len(), 1);
    assert!(alice.query("SELECT * FROM passing").await.is_err());
    refused(
        bob.query("SELECT * FROM notes").await,
        Code::NotFound,
        "notes",
    );
    // Nothing is left of the copying.
    for server in [&server, &elsewhere] {
        let scratch = fs::read_dir(server.dir().join("scratch")).unwrap();
        assert_eq!(scratch.count(), 0);
    }
    server.stop().await;
    elsewhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_or_changed_archive_leaves_nothing() {
    let (server, ..) = world().await;
    let archive = export(&mut server.office().await, ALICE).await.unwrap();
    let elsewhere = TestServer::start().await;
    let mut office = elsewhere.office().await;
    let mut bad: Vec<Vec<u8>> = Vec::new();
    for cut in [
        0,
        1,
        14,
        15,
        18,
        19,
        100,
        archive.len() / 2,
        archive.len() - 1,
    ] {
        bad.push(archive[..cut].to_vec());
    }
    for at in [
        0,
        14,
        15,
        16,
        18,
        19,
        40,
        archive.len() / 2,
        archive.len() - 1,
    ] {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        bad.push(changed);
    }
    bad.push([archive.as_slice(), b"x"].concat());
    bad.push([archive.as_slice(), archive.as_slice()].concat());
    for bad in &bad {
        let answer = import(&mut office, bad, plain()).await;
        refused(answer, Code::DataLoss, "no archive of a tenant");
        assert!(listed(&mut office).await.is_empty());
        assert_eq!(holding(elsewhere.dir(), HERS), [""; 0]);
    }
    // And the whole one is taken after all of that.
    import(&mut office, &archive, plain()).await.unwrap();
    server.stop().await;
    elsewhere.stop().await;
}

/// A digest that is right, over what another lane holds.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_tenants_rows_is_refused() {
    use sha2::{Digest, Sha256};
    let (server, ..) = world().await;
    let archive = export(&mut server.office().await, ALICE).await.unwrap();
    let end = archive.len() - 32;
    let mut places = archive.windows(ALICE.len());
    let forged = places.position(|at| at == ALICE.as_bytes()).unwrap();
    let mut forged_archive = archive[..end].to_vec();
    forged_archive[forged..forged + BOB.len()].copy_from_slice(BOB.as_bytes());
    forged_archive.extend(Sha256::digest(&forged_archive));
    let elsewhere = TestServer::start().await;
    let mut office = elsewhere.office().await;
    let answer = import(&mut office, &forged_archive, plain()).await;
    refused(answer, Code::FailedPrecondition, "rows of another tenant");
    assert!(listed(&mut office).await.is_empty());
    server.stop().await;
    elsewhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_has_is_replaced_when_that_is_said() {
    let (server, mut alice, mut bob) = world().await;
    let mut office = server.office().await;
    let archive = export(&mut office, ALICE).await.unwrap();
    alice
        .query("UPDATE notes SET note = 'later'")
        .await
        .unwrap();
    let answer = import(&mut office, &archive, plain()).await;
    refused(answer, Code::AlreadyExists, "has something here");
    assert_eq!(alice.notes().await, "later");
    import(&mut office, &archive, replacing()).await.unwrap();
    assert_eq!(alice.notes().await, HERS);
    assert_eq!(bob.notes().await, HIS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_arrives_suspended() {
    let (server, ..) = world().await;
    let mut office = server.office().await;
    suspend(&mut office, ALICE).await;
    let archive = export(&mut office, ALICE).await.unwrap();
    let elsewhere = TestServer::start().await;
    let mut office = elsewhere.office().await;
    let imported = import(&mut office, &archive, plain()).await.unwrap();
    assert_eq!(imported.tenant.unwrap().state(), TenantState::Suspended);
    let mut sessions = elsewhere.sessions().await;
    let bound = crate::harness::bind(&mut sessions, "alice", ALICE).await;
    refused(bound, Code::PermissionDenied, "suspended");
    resume(&mut office, ALICE).await;
    let mut alice = Client::connect(&elsewhere, Some("alice")).await;
    alice.bind(ALICE).await;
    assert_eq!(alice.notes().await, HERS);
    server.stop().await;
    elsewhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_shared_tables_that_are_not_there_are_left_out_by_leave_alone() {
    let (server, mut alice, _bob) = world().await;
    let mut operator = Client::connect(&server, None).await;
    operator
        .query("CREATE TABLE words (word VARCHAR)")
        .await
        .unwrap();
    alice
        .query("INSERT INTO words VALUES ('hers')")
        .await
        .unwrap();
    let mut office = server.office().await;
    let archive = export(&mut office, ALICE).await.unwrap();
    let elsewhere = TestServer::start().await;
    let mut there = elsewhere.office().await;
    let answer = import(&mut there, &archive, plain()).await;
    refused(answer, Code::FailedPrecondition, "\"words\"");
    assert!(listed(&mut there).await.is_empty());
    let without = ImportTenantRequest {
        without_shared_rows: true,
        ..plain()
    };
    import(&mut there, &archive, without).await.unwrap();
    let mut moved = Client::connect(&elsewhere, Some("alice")).await;
    moved.bind(ALICE).await;
    assert_eq!(moved.notes().await, HERS);
    // At home they are there again.
    alice.query("DELETE FROM words").await.unwrap();
    import(&mut office, &archive, replacing()).await.unwrap();
    assert_eq!(alice.shows("SELECT word FROM words").await, "hers");
    server.stop().await;
    elsewhere.stop().await;
}
