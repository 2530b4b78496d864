//! A disk that fails at every step: a child process works on lanes, on a disk
//! that ends it, or returns an error to it, at one step of what it does to its
//! files. This is done for every step. Then its lanes are opened, and hold what the child was
//! told that they hold, and nothing by halves.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::failing_disk::FailingDisk;
use super::*;

const CHILD_DIR: &str = "JAMMI_TEST_DISK_DIR";
/// How many times an act is tried on a disk that fails.
const ATTEMPTS_MAX: usize = 8;

type Names = BTreeSet<String>;

/// A row whose size is in its name, so that it is known to be whole.
fn put_sized(tx: &Transaction<'_>, name: &str) -> Result<(), BackendError> {
    // A log that is soon full, so that checkpoints are among the steps.
    tx.connection()
        .pragma_update_and_check(None, "wal_autocheckpoint", 6, |_row| Ok(()))?;
    let size: usize = name.split_once(':').unwrap().1.parse().unwrap();
    tx.assert_tenant_matches(tx.lane().tenant())?;
    tx.connection().execute(
        "INSERT INTO models (tenant_id, name, version, uri, metadata, registered_at_ms)
         VALUES (?1, ?2, '1', 'x', ?3, 0)",
        (tx.tenant_id(), name, "y".repeat(size)),
    )?;
    Ok(())
}

/// The child, which says what it is about to do and what it was told.
struct Worker {
    dir: PathBuf,
    backend: Backend,
    alices: Names,
}

impl Worker {
    async fn open(dir: &Path) -> Backend {
        for _attempt in 0..ATTEMPTS_MAX {
            match Backend::open(dir, &LanesConfig::default()).await {
                Ok(backend) => return backend,
                Err(error) => expected(&error),
            }
        }
        panic!("the disk works again");
    }

    /// Does `act` until it succeeds. Whenever it does not, nothing was done.
    async fn act(
        &mut self,
        after: Names,
        act: impl AsyncFn(&Backend, Lane) -> Result<(), BackendError>,
    ) {
        let lane = Lane::Tenant(alice());
        println!("\nmay {}", listed(&after));
        for _attempt in 0..ATTEMPTS_MAX {
            match act(&self.backend, lane).await {
                Ok(()) => {
                    println!("\nis {}", listed(&after));
                    self.alices = after;
                    return;
                }
                Err(error) => expected(&error),
            }
            assert_eq!(self.read().await, self.alices, "nothing of it is there");
        }
        panic!("the disk works again");
    }

    async fn read(&self) -> Names {
        for _attempt in 0..ATTEMPTS_MAX {
            match names_in(&self.backend, Lane::Tenant(alice())).await {
                Ok(names) => return names.unwrap_or_default().into_iter().collect(),
                Err(error) => expected(&error),
            }
        }
        panic!("the disk works again");
    }

    async fn put(&mut self, name: &'static str) {
        self.act(with(&self.alices, &[name]), async |backend, lane| {
            backend.write(lane, move |tx| put_sized(tx, name)).await
        })
        .await;
    }

    /// Some write at once, and share a commit or not.
    async fn put_together(&mut self, names: [&'static str; 4]) {
        let lane = Lane::Tenant(alice());
        let mut tasks = Vec::new();
        for name in names {
            println!("\nadding {name}");
            let backend = self.backend.clone();
            tasks.push(tokio::spawn(async move {
                for _attempt in 0..ATTEMPTS_MAX {
                    match backend.write(lane, move |tx| put_sized(tx, name)).await {
                        Ok(()) => return println!("\nadded {name}"),
                        Err(error) => expected(&error),
                    }
                }
                panic!("the disk works again");
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        self.alices = with(&self.alices, &names);
        assert_eq!(self.read().await, self.alices);
    }

    async fn transact(&mut self) {
        let after = with(&self.alices, &["t1:5000", "t3:10"]);
        self.act(after, async |backend, lane| {
            let transaction = backend.begin(lane);
            transaction.read(names).await?;
            let write = |name: &'static str| transaction.write(move |tx| put_sized(tx, name));
            write("t1:5000").await?;
            transaction.savepoint("s").await?;
            write("t2:30000").await?;
            transaction.rollback_to("s").await?;
            write("t3:10").await?;
            transaction.commit().await
        })
        .await;
        self.act(self.alices.clone(), async |backend, lane| {
            let transaction = backend.begin(lane);
            transaction
                .write(|tx| put_sized(tx, "undone:60000"))
                .await?;
            transaction.rollback().await
        })
        .await;
    }

    async fn back_up_and_restore(&mut self) {
        let (to, before) = (self.dir.join(BACKUP), self.alices.clone());
        println!("\nbacking up {}", listed(&before));
        self.act(before.clone(), async |backend, lane| {
            backend.backup(lane, &to).await
        })
        .await;
        println!("\nbacked up");
        self.put("gone:100").await;
        self.act(before, async |backend, lane| {
            backend.restore(lane, &to, keep_all).await
        })
        .await;
    }
}

const BACKUP: &str = "backup.db";

/// What a disk that is full, or fails, may be called.
fn expected(error: &BackendError) {
    assert!(
        matches!(
            error,
            BackendError::Full { .. }
                | BackendError::Storage { .. }
                | BackendError::BackupFile { .. }
        ),
        "{error:?}"
    );
    println!("\nfailed: {error}");
}

fn with(names: &Names, more: &[&str]) -> Names {
    let more = more.iter().map(|name| (*name).to_owned());
    names.iter().cloned().chain(more).collect()
}

fn listed(names: &Names) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",")
}

#[tokio::test]
async fn child_works_on_a_failing_disk() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let mut worker = Worker {
        backend: Worker::open(&dir).await,
        dir,
        alices: Names::new(),
    };
    worker.put("a1:10").await;
    worker.put("a2:9000").await;
    worker.transact().await;
    worker
        .put_together(["g1:10", "g2:5000", "g3:10", "g4:10"])
        .await;
    worker.back_up_and_restore().await;
    // Closed and opened again.
    drop(worker.backend);
    worker.backend = Worker::open(&worker.dir).await;
    worker.put("a3:10").await;
    println!("\nend");
}

/// Runs the child, and gives what it said.
fn run(disk: &FailingDisk, dir: &Path, fault: &str, step: usize) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    disk.under(&mut child, fault, step, &dir.join("count"));
    child
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("backend::tests::disk::child_works_on_a_failing_disk")
        .env(CHILD_DIR, dir.join("artifacts"))
        .output()
        .unwrap()
}

/// What alice's lane may hold, by what the child said.
struct Told {
    is: Names,
    may: Option<Names>,
    adding: Names,
    backup: Option<Names>,
    backed_up: bool,
    ended: bool,
}

impl Told {
    fn new(said: &str) -> Self {
        let names = |list: &str| -> Names {
            let names = list.split(',').filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        let mut told = Told {
            is: Names::new(),
            may: None,
            adding: Names::new(),
            backup: None,
            backed_up: false,
            ended: false,
        };
        for line in said.lines() {
            if let Some(list) = line.strip_prefix("may ") {
                told.may = Some(names(list));
            } else if let Some(list) = line.strip_prefix("is ") {
                (told.is, told.may) = (names(list), None);
            } else if let Some(name) = line.strip_prefix("adding ") {
                told.adding.insert(name.to_owned());
            } else if let Some(name) = line.strip_prefix("added ") {
                told.adding.remove(name);
                told.is.insert(name.to_owned());
            } else if let Some(list) = line.strip_prefix("backing up ") {
                told.backup = Some(names(list));
            } else if line == "backed up" {
                told.backed_up = true;
            } else if line == "end" {
                told.ended = true;
            }
        }
        told
    }

    fn allows(&self, found: &Names) -> bool {
        let all: Names = self.is.union(&self.adding).cloned().collect();
        Some(found) == self.may.as_ref() || found.is_superset(&self.is) && found.is_subset(&all)
    }
}

/// Opens what the child has left.
async fn check(dir: &Path, told: &Told, case: &str) {
    let artifacts = dir.join("artifacts");
    let lane = Lane::Tenant(alice());
    let backend = Backend::open(&artifacts, &LanesConfig::default())
        .await
        .unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let read = names_in(&backend, lane).await;
    let found = read.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let found: Names = found.unwrap_or_default().into_iter().collect();
    assert!(told.allows(&found), "{case}: {found:?} of {:?}", told.is);
    backend
        .write(lane, |tx| put_sized(tx, "later:20000"))
        .await
        .unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let lane_file = stranger(&lane_file(&artifacts, alice()));
    let sound: String = lane_file
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok", "{case}");
    let halves: i64 = lane_file
        .query_row(
            "SELECT count(*) FROM models
             WHERE length(metadata) <> CAST(substr(name, instr(name, ':') + 1) AS INTEGER)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(halves, 0, "{case}");

    // A backup is there whole, or it is empty or not there.
    let backup = artifacts.join(BACKUP);
    let size = fs::metadata(&backup).map_or(0, |file| file.len());
    assert!(size > 0 || !told.backed_up, "{case}");
    if size > 0 {
        backend.restore(lane, &backup, keep_all).await.unwrap();
        let restored = names_in(&backend, lane).await.unwrap().unwrap();
        let restored = restored.into_iter().collect();
        assert_eq!(Some(restored), told.backup, "{case}");
    }
}

/// The disk, and how many steps the child takes where nothing fails.
fn build(dir: &Path) -> (FailingDisk, usize) {
    let disk = FailingDisk::build(dir);
    prepare(dir, dir);
    let output = run(&disk, dir, "", 0);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && Told::new(&said).ended, "{said}");
    let steps = fs::read_to_string(dir.join("count")).unwrap();
    (disk, steps.parse().unwrap())
}

/// Puts the databases that belong to no tenant into the child's directory. They
/// are made as the lane is that the child makes.
fn prepare(shared: &Path, dir: &Path) {
    let (ready, artifacts) = (shared.join("ready"), dir.join("artifacts"));
    if !ready.exists() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let opened = Backend::open(&ready, &LanesConfig::default()).await;
            drop(opened.unwrap());
        });
    }
    fs::create_dir(&artifacts).unwrap();
    for name in ["global.db", "system.db"] {
        fs::copy(ready.join(name), artifacts.join(name)).unwrap();
    }
}

/// Runs the child once for each step at which the disk may fail, two at a time.
fn at_every_step(fault: &str, check_exit: impl Fn(ExitStatus, &Told) -> bool + Sync) {
    let shared = in_memory();
    let (disk, steps) = build(shared.path());
    assert!(steps > 200, "{steps} steps");
    // Which writes share a commit differs from run to run.
    let steps = steps + steps / 20;
    let next = AtomicUsize::new(1);
    std::thread::scope(|scope| {
        for _worker in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                loop {
                    let step = next.fetch_add(1, Ordering::Relaxed);
                    if step > steps {
                        return;
                    }
                    let dir = in_memory();
                    prepare(shared.path(), dir.path());
                    let output = run(&disk, dir.path(), fault, step);
                    let said = String::from_utf8_lossy(&output.stdout);
                    let told = Told::new(&said);
                    let case = format!("{fault} at step {step} of {steps}");
                    assert!(
                        check_exit(output.status, &told),
                        "{case}: {said}{}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                    runtime.block_on(check(dir.path(), &told, &case));
                }
            });
        }
    });
}

/// How many steps there are differs a little, by which writes share a commit.
fn ends_early(status: ExitStatus, told: &Told) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9) || status.success() && told.ended
}

fn goes_on(status: ExitStatus, told: &Told) -> bool {
    status.success() && told.ended
}

#[test]
fn a_process_that_is_killed_at_any_step_loses_nothing() {
    at_every_step("kill", ends_early);
}

#[test]
fn a_loss_of_power_at_any_step_loses_nothing() {
    at_every_step("power", ends_early);
}

#[test]
fn a_disk_that_is_full_at_any_step_loses_nothing_and_is_told_of() {
    at_every_step("enospc", goes_on);
}

#[test]
fn a_disk_that_fails_at_any_step_loses_nothing_and_is_told_of() {
    at_every_step("eio", goes_on);
}
