//! Processes that are killed, and processes that may open few files. Each child
//! is this test program, told by the environment what to do.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// The artifact directory that a child works on.
const CHILD_DIR: &str = "JAMMI_TEST_CHILD_DIR";

fn child_dir() -> Option<OsString> {
    std::env::var_os(CHILD_DIR)
}

/// A command that runs one test of this file as a child.
fn child(program: &[&str], test: &str, dir: &Path) -> Command {
    let mut words = program.iter().map(OsString::from).collect::<Vec<_>>();
    words.push(std::env::current_exe().unwrap().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("backend::tests::processes::{test}"))
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped());
    command
}

/// The child: claims the directory, then writes a row into alice's lane and one
/// into a new tenant's, says so, and goes on until it is killed.
#[tokio::test]
async fn child_writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    let backend = Backend::open(Path::new(&dir), &LanesConfig::default())
        .await
        .unwrap();
    let _lock = backend.lock_for_server().unwrap();
    for number in 0.. {
        put_in(&backend, Lane::Tenant(alice()), &number.to_string())
            .await
            .unwrap();
        put_in(&backend, Lane::Tenant(tenant(number)), "row")
            .await
            .unwrap();
        println!("\nwritten {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    for enough in [1, 10, 40] {
        let dir = TempDir::new().unwrap();
        let backend = open(&dir).await;
        let mut child = child(&[], "child_writes_until_killed", dir.path())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut written = lines.by_ref().filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("written ")?.parse::<usize>().ok()
        });
        assert_eq!(written.by_ref().take(enough).last(), Some(enough - 1));
        let refused = backend.lock_for_server();
        assert!(matches!(refused, Err(BackendError::ServerRunning { .. })));
        child.kill().unwrap();
        let last = written.last().unwrap_or(enough - 1);
        child.wait().unwrap();

        backend.lock_for_server().unwrap();
        // A process that was there all the time, and one that comes after.
        for (process, backend) in [("old", backend), ("new", open(&dir).await)] {
            let rows = names_in(&backend, Lane::Tenant(alice()))
                .await
                .unwrap()
                .unwrap();
            for number in 0..=last {
                assert!(rows.contains(&number.to_string()), "{number} of {rows:?}");
                let lane = Lane::Tenant(tenant(number));
                let row = names_in(&backend, lane).await.unwrap();
                assert_eq!(row, Some(vec!["row".into()]), "{number}");
            }
            // What was being written is there whole or not at all, and the lane
            // that was being made opens.
            assert!(rows.len() <= last + 2);
            let begun = Lane::Tenant(tenant(last + 1));
            names_in(&backend, begun).await.unwrap();
            put_in(&backend, begun, process).await.unwrap();
        }
    }
}

/// The child: writes into more lanes than it has files for.
#[tokio::test]
async fn child_uses_many_lanes() {
    let Some(dir) = child_dir() else { return };
    let backend = Backend::open(Path::new(&dir), &LanesConfig::default())
        .await
        .unwrap();
    for round in 0..2 {
        for number in 0..50 {
            let lane = Lane::Tenant(tenant(number));
            put_in(&backend, lane, &round.to_string()).await.unwrap();
            assert_eq!(
                names_in(&backend, lane).await.unwrap().unwrap().len(),
                round + 1
            );
        }
    }
    println!("\nwritten all");
}

#[test]
fn lanes_are_closed_when_files_run_out() {
    let dir = TempDir::new().unwrap();
    let limited = ["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""];
    let output = child(&limited, "child_uses_many_lanes", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("written all"),
        "{text}"
    );
}
