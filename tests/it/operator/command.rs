//! The same by the command line.

use std::process::Output;

use jammi_db::tenant::OPERATOR;

use super::{ENDLESS, MASKED, World};
use crate::cli::{jammi, targets, text};
use crate::client::{ALICE, BOB, statement};
use crate::writes::refused;

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_and_ends_through_a_server() {
    let world = World::new().await;
    let files = tempfile::tempdir().unwrap();
    let [directory, remote] = targets(&world.guarded.server);
    let run = async |target: &[String], key: &str, arguments: &[&str]| -> Output {
        let mut command = jammi(files.path(), target, arguments);
        // Of a tenant that the operator does not act for.
        command.env("JAMMI_API_KEY", key).env("JAMMI_TENANT", BOB);
        command.output().await.unwrap()
    };
    let ops = world.guarded.key("ops", &[], &[OPERATOR]).await.text;
    let alices = world.guarded.key("alice", &[ALICE], &[]).await.text;

    // Keys are the same by either target.
    let made = run(
        &remote,
        &ops,
        &["keys", "create", "by-rpc", "--acts-for", ALICE],
    )
    .await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let key = text(&made.stdout).trim().to_owned();
    let answer = run(&remote, &key, &["query", "--tenant", ALICE, "SELECT 1"]).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let list = ["keys", "list", "--format", "csv"];
    let listed = run(&remote, &ops, &list).await;
    let local = run(&directory, "", &list).await;
    assert_eq!(text(&listed.stdout), text(&local.stdout));
    assert!(text(&listed.stdout).contains("by-rpc"));
    let secret = key.rsplit('_').next().unwrap();
    for said in [&listed.stdout, &listed.stderr, &made.stderr] {
        assert!(!text(said).contains(secret));
    }
    let id = key.split('_').nth(1).unwrap();
    let next = run(&remote, &ops, &["keys", "rotate", id]).await;
    let next = text(&next.stdout).trim().to_owned();
    let id = next.split('_').nth(1).unwrap();
    let revoked = run(&remote, &ops, &["keys", "revoke", id]).await;
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    for gone in [&key, &next] {
        let answer = run(&remote, gone, &["query", "SELECT 1"]).await;
        assert!(text(&answer.stderr).contains("not accepted"));
    }

    // Queries and sessions are a server's.
    let running = {
        let mut alice = world.alice.clone();
        tokio::spawn(async move {
            let info = alice.info(&statement(ENDLESS)).await?;
            alice.get(info.endpoint[0].ticket.clone().unwrap()).await
        })
    };
    let query = world
        .operator
        .until_runs(|query| query.tenant == ALICE && query.state == "running")
        .await;
    let listed = run(&remote, &ops, &["queries", "list", "--format", "csv"]).await;
    let listed = text(&listed.stdout);
    assert!(listed.contains(&query.id.to_string()), "{listed}");
    assert!(
        listed.contains(MASKED) && !listed.contains("canary"),
        "{listed}"
    );
    let id = query.id.to_string();
    let cancelled = run(&remote, &ops, &["queries", "cancel", &id]).await;
    assert_eq!(text(&cancelled.stdout), format!("cancelled query {id}\n"));
    refused(
        running.await.unwrap(),
        tonic::Code::Cancelled,
        "by an operator",
    );
    let listed = run(&remote, &ops, &["sessions", "list", "--format", "csv"]).await;
    let listed = text(&listed.stdout);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let id = query.session.unwrap().to_string();
    let ended = run(&remote, &ops, &["sessions", "end", &id]).await;
    assert_eq!(text(&ended.stdout), format!("ended session {id}\n"));
    assert_eq!(world.operator.sessions().await.len(), 1);

    for (arguments, part) in [
        (
            &["queries", "list"][..],
            "queries are those of a running server",
        ),
        (
            &["queries", "cancel", "1"][..],
            "queries are those of a running server",
        ),
        (
            &["sessions", "list"][..],
            "sessions are those of a running server",
        ),
        (
            &["sessions", "end", "1"][..],
            "sessions are those of a running server",
        ),
    ] {
        let local = run(&directory, "", arguments).await;
        assert_eq!(local.status.code(), Some(2), "{arguments:?}");
        assert!(text(&local.stderr).contains(part), "{arguments:?}");
        let denied = run(&remote, &alices, arguments).await;
        assert_eq!(denied.status.code(), Some(1), "{arguments:?}");
        assert!(text(&denied.stderr).contains("the role operator"));
    }
    // SQL about a server, in a process that is none.
    for sql in [
        "SELECT * FROM jammi.server.queries",
        "SELECT * FROM jammi.server.sessions",
        "KILL QUERY 1",
    ] {
        let local = run(&directory, "", &["query", sql]).await;
        assert_eq!(local.status.code(), Some(1), "{sql}");
        assert!(text(&local.stderr).contains("running server"), "{sql}");
    }
}
