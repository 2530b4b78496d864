//! Snapshots: that they are never old, and change with what is seen alone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_snapshot_follows_every_process() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (catalog(&dir).await, catalog(&dir).await);
    assert_eq!(listed(&here, &as_alice()).await, pairs(&[]));
    let mut versions = vec![here.snapshot(&as_alice()).await.unwrap().version()];
    for (scope, name) in [(as_alice(), "a"), (unbound(), "b"), (as_alice(), "c")] {
        there
            .register_source(&scope, new_source(name, "file:///x"))
            .await
            .unwrap();
        let snapshot = here.snapshot(&as_alice()).await.unwrap();
        assert!(snapshot.source(name).is_some(), "{name}");
        assert!(!versions.contains(&snapshot.version()));
        versions.push(snapshot.version());
    }
    there.drop_source(&as_alice(), "c").await.unwrap();
    assert!(here.source(&as_alice(), "c").await.is_err());
}

#[tokio::test]
async fn a_version_changes_with_what_is_seen_alone() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    catalog
        .register_source(&as_alice(), new_source("inbox", "file:///x"))
        .await
        .unwrap();
    let first = catalog.snapshot(&as_alice()).await.unwrap();
    // Another tenant's source, and something else in the own lane.
    catalog
        .register_source(&as_bob(), new_source("inbox", "file:///x"))
        .await
        .unwrap();
    catalog
        .register_model(&as_alice(), new_model("bert", "1"))
        .await
        .unwrap();
    let second = catalog.snapshot(&as_alice()).await.unwrap();
    assert_eq!(first.version(), second.version());
    assert!(Arc::ptr_eq(
        first.source("inbox").unwrap(),
        second.source("inbox").unwrap()
    ));
    let bobs = catalog.snapshot(&as_bob()).await.unwrap();
    assert_ne!(bobs.version(), first.version());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_of_many_at_once_are_their_own() {
    let dir = TempDir::new().unwrap();
    let config = LanesConfig {
        open_max: 1,
        busy_timeout_ms: 120_000,
        ..LanesConfig::default()
    };
    let backend = Backend::open(dir.path(), &config).await.unwrap();
    let catalog = Catalog::new(backend);
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..20 {
        for (scope, whose) in [(as_alice(), "alice"), (as_bob(), "bob")] {
            let catalog = catalog.clone();
            tasks.spawn(async move {
                let name = format!("{whose}_{round}");
                catalog
                    .register_source(&scope, new_source(&name, whose))
                    .await
                    .unwrap();
                let snapshot = catalog.snapshot(&scope).await.unwrap();
                assert!(snapshot.source(&name).is_some());
                assert!(
                    snapshot
                        .sources()
                        .all(|source| source.definition.location == whose)
                );
            });
        }
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    for scope in [as_alice(), as_bob()] {
        assert_eq!(catalog.sources(&scope).await.unwrap().len(), 20);
    }
}

/// One step of a history of two tenants and the shared lane.
#[derive(Clone, Debug)]
enum Step {
    Register { who: usize, name: usize },
    Drop { who: usize, name: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    (any::<bool>(), 0..3usize, 0..3usize).prop_map(|(register, who, name)| {
        if register {
            Step::Register { who, name }
        } else {
            Step::Drop { who, name }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the history, each scope sees what a map for each lane says.
    #[test]
    fn any_history_ends_as_the_model_says(steps in prop::collection::vec(any_step(), 1..24)) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let processes = [catalog(&dir).await, catalog(&dir).await];
            let scopes = [as_alice(), as_bob(), unbound()];
            let mut lanes = [const { BTreeMap::new() }; 3];
            for (index, step) in steps.into_iter().enumerate() {
                let catalog = &processes[index % 2];
                match step {
                    Step::Register { who, name } => {
                        let location = format!("file:///{index}");
                        let result = catalog
                            .register_source(&scopes[who], new_source(NAMES[name], &location))
                            .await;
                        let taken = lanes[who].contains_key(NAMES[name]);
                        prop_assert_eq!(result.is_err(), taken);
                        lanes[who].entry(NAMES[name]).or_insert(location);
                    }
                    Step::Drop { who, name } => {
                        let result = catalog.drop_source(&scopes[who], NAMES[name]).await;
                        prop_assert_eq!(result.is_ok(), lanes[who].remove(NAMES[name]).is_some());
                    }
                }
                for (who, scope) in scopes.iter().enumerate() {
                    let mut expected = lanes[2].clone();
                    expected.extend(lanes[who].clone());
                    let expected: Vec<_> = expected
                        .into_iter()
                        .map(|(name, location)| (name.to_owned(), location))
                        .collect();
                    prop_assert_eq!(listed(&processes[(index + 1) % 2], scope).await, expected);
                }
            }
            Ok(())
        })?;
    }
}

/// Symptom of a stamp that counts: a lane that is restored and changed once more had
/// the stamp that it had before, and whoever had looked then saw what was gone.
#[tokio::test]
async fn a_restored_lane_shows_what_the_backup_holds_and_what_came_after() {
    let dir = TempDir::new().unwrap();
    let (here, there) = (catalog(&dir).await, catalog(&dir).await);
    let backend = Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap();
    let register = async |name: &str| {
        here.register_source(&as_alice(), new_source(name, "file:///x"))
            .await
            .unwrap();
    };
    let names = async || {
        let listed = listed(&there, &as_alice()).await;
        listed.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    here.register_source(&as_bob(), new_source("bobs", "file:///y"))
        .await
        .unwrap();
    register("kept").await;
    let lane = as_alice().writable();
    let backup = dir.path().join("backup");
    backend.backup(lane, &backup).await.unwrap();
    register("lost").await;
    assert_eq!(names().await, ["kept", "lost"]);
    backend.restore(lane, &backup, |_| Ok(())).await.unwrap();
    assert_eq!(names().await, ["kept"]);
    register("new").await;
    assert_eq!(names().await, ["kept", "new"]);
}

/// Everything that writes the catalog of a lane renews its stamp, and nothing else.
#[tokio::test]
async fn the_stamp_of_a_lane_changes_with_its_catalog_alone() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    let scope = as_alice();
    catalog
        .register_source(&scope, new_source("a", "file:///a"))
        .await
        .unwrap();
    let backend = Backend::open(dir.path(), &LanesConfig::default())
        .await
        .unwrap();
    let stamp = async || {
        let read = backend.read(scope.writable(), stamp::read).await.unwrap();
        read.unwrap()
    };
    let mut stamps = vec![stamp().await];
    for (model, changes) in [("bert", true), ("ernie", false)] {
        catalog
            .register_model(&scope, new_model(model, "1"))
            .await
            .unwrap();
        if changes {
            catalog
                .refresh_source(&scope, new_source("a", "file:///b"))
                .await
                .unwrap();
        }
        let is_new = !stamps.contains(&stamp().await);
        assert_eq!(is_new, changes);
        stamps.push(stamp().await);
    }
    catalog.drop_source(&scope, "a").await.unwrap();
    assert!(!stamps.contains(&stamp().await));
}
