//! `jammi tenants`, on a directory and through the server that runs on it.

use std::fs;

use super::{ALICE, BOB, HERS, HIS, usage, world};
use crate::cli::{jammi, on_both, targets, text};
use crate::harness::config;

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_say_the_same_on_both_targets() {
    let (server, mut alice, mut bob) = world().await;
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let [embedded, remote] = targets(&server);
    for (target, id) in [(&embedded, ALICE), (&remote, BOB)] {
        let words = ["tenants", "create", "--id", id, "A name, of theirs"];
        let made = jammi(dir, target, &words).output().await.unwrap();
        assert_eq!(text(&made.stdout), format!("{id}\n"));
        let words = ["tenants", "update", id, "--name", "Renamed"];
        let renamed = jammi(dir, target, &words).output().await.unwrap();
        assert_eq!(text(&renamed.stdout), format!("updated tenant {id}\n"));
    }
    let listed = on_both(&server, dir, &["tenants", "list", "--format", "csv"]).await;
    let listed = text(&listed.stdout);
    assert!(
        listed.contains(&format!("{ALICE},Renamed,active,")),
        "{listed}"
    );
    let shown = on_both(&server, dir, &["tenants", "describe", ALICE]).await;
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("notes") && shown.contains("Renamed"),
        "{shown}"
    );
    on_both(
        &server,
        dir,
        &["tenants", "describe", ALICE, "--format", "json"],
    )
    .await;
    on_both(&server, dir, &["--tenant", ALICE, "tenants", "describe"]).await;
    // What the server counts is written down.
    usage(&mut server.office().await, ALICE).await;
    let used = on_both(
        &server,
        dir,
        &["tenants", "usage", ALICE, "--format", "csv"],
    )
    .await;
    let used = text(&used.stdout);
    assert!(
        used.starts_with("id,rows_stored,bytes_stored,queries,"),
        "{used}"
    );
    // Neither unnamed, nor unknown.
    on_both(&server, dir, &["tenants", "usage"]).await;
    let unknown = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c";
    on_both(&server, dir, &["tenants", "describe", unknown]).await;
    on_both(
        &server,
        dir,
        &["tenants", "erase", ALICE, "--confirm", ALICE],
    )
    .await;

    for (number, target) in [&embedded, &remote].into_iter().enumerate() {
        let file = format!("{number}.tenant");
        let words = ["tenants", "export", ALICE, &file];
        let exported = jammi(dir, target, &words).output().await.unwrap();
        assert!(exported.status.success(), "{exported:?}");
        // No file is written over.
        let again = jammi(dir, target, &words).output().await.unwrap();
        assert!(!again.status.success());
        let words = ["tenants", "suspend", ALICE];
        assert!(
            jammi(dir, target, &words)
                .output()
                .await
                .unwrap()
                .status
                .success()
        );
        let query = ["--tenant", ALICE, "query", "SELECT note FROM notes"];
        let refused = on_both(&server, dir, &query).await;
        assert!(
            text(&refused.stderr).contains("is suspended"),
            "{refused:?}"
        );
        let words = ["tenants", "erase", ALICE, "--confirm", ALICE];
        let erased = jammi(dir, target, &words).output().await.unwrap();
        let certificate = text(&erased.stdout);
        assert!(certificate.contains("\"sha256\"") && !certificate.contains(HERS));
        let words = ["tenants", "import", &file];
        let imported = jammi(dir, target, &words).output().await.unwrap();
        assert_eq!(text(&imported.stdout), format!("imported tenant {ALICE}\n"));
        let again = on_both(&server, dir, &words).await;
        assert!(text(&again.stderr).contains("--replace"), "{again:?}");
        alice.bind(ALICE).await;
        assert_eq!(alice.notes().await, HERS);
    }
    // A file that is cut is no archive, wherever it is read.
    let whole = fs::read(dir.join("0.tenant")).unwrap();
    fs::write(dir.join("cut.tenant"), &whole[..whole.len() - 40]).unwrap();
    let cut = on_both(&server, dir, &["tenants", "import", "cut.tenant"]).await;
    assert!(
        text(&cut.stderr).contains("no archive of a tenant"),
        "{cut:?}"
    );
    assert_eq!(bob.notes().await, HIS);
    server.stop().await;
}

/// A directory without a server.
#[tokio::test(flavor = "multi_thread")]
async fn settings_hold_for_the_commands_on_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config(dir.path());
    drop(jammi_db::engine::Engine::open(&settings).await.unwrap());
    let target = [
        "--artifact-dir".to_owned(),
        dir.path().display().to_string(),
    ];
    let mut query = jammi(
        dir.path(),
        &target,
        &["--tenant", ALICE, "query", "SELECT 1"],
    );
    query.env("JAMMI_TENANCY__REGISTERED_ONLY", "true");
    let refused = query.output().await.unwrap();
    assert!(
        text(&refused.stderr).contains("does not act for the tenant"),
        "{refused:?}"
    );
}
