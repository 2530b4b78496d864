//! A server that is stopped at any operation on its files, by a kill, a loss of
//! power, a full disk or a disk that fails, or whose clock jumps there, in the midst
//! of a conversation of SQL: what was acknowledged is there, what was not is there
//! whole or not at all, and the conversation can go on.
//!
//! A sample of all operations is taken, of which `DISK_SEED` makes another, and
//! `DISK_STOPS=all` takes them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use futures::StreamExt;
use futures::stream;
use jammi_db::server::proto::catalog::ListTablesRequest;
use jammi_db::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use rusqlite::Connection;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::{ALICE, BOB, Client};
use crate::failing_disk::FailingDisk;
use crate::harness::{TestServer, in_session};
use crate::process::{self, Process};
use crate::writes::{columns, create_append, replace, shown};

const FAULTS: [&str; 6] = ["kill", "power", "enospc", "eio", "past", "future"];
/// How many operations of each fault are tried.
const SAMPLE: usize = 16;
/// How many stops are under way at a time.
const AT_ONCE: usize = 2;
/// How often a step is tried on a disk that fails.
const ATTEMPTS_MAX: usize = 8;
/// Longer than any stop takes.
const WATCHDOG: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
enum Who {
    Operator,
    Alice,
    Bob,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Sql(&'static str),
    /// Rows of three batches, for a table that is there or is made.
    Append,
    /// Others in the place of the table.
    Replace,
    /// Statements and a savepoint.
    Transaction,
}

const fn sql(who: Who, text: &'static str) -> (Who, Act) {
    (who, Act::Sql(text))
}

/// The conversation. Each step changes what somebody sees.
const STEPS: &[(Who, Act)] = &[
    sql(
        Who::Operator,
        "CREATE TABLE words (word VARCHAR PRIMARY KEY, n BIGINT)",
    ),
    sql(Who::Operator, "INSERT INTO words VALUES ('shared', 0)"),
    sql(
        Who::Alice,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR UNIQUE, n BIGINT)",
    ),
    sql(
        Who::Bob,
        "CREATE TABLE t AS SELECT value AS id, 'his' || value AS word FROM generate_series(1, 9)",
    ),
    sql(
        Who::Alice,
        "INSERT INTO t SELECT value, repeat('hers ', 60) || value, 0 FROM generate_series(1, 90)",
    ),
    sql(Who::Bob, "INSERT INTO words VALUES ('his', 1)"),
    sql(
        Who::Alice,
        "INSERT INTO words VALUES ('hers', 1), ('her other', 2)",
    ),
    sql(
        Who::Alice,
        "INSERT INTO t VALUES (1, 'one', 1), (100, 'hundred', 1) \
         ON CONFLICT (id) DO UPDATE SET word = excluded.word, n = 7",
    ),
    sql(Who::Alice, "CREATE INDEX t_by_n ON t (n)"),
    sql(Who::Alice, "UPDATE t SET n = id * 10 WHERE id % 2 = 0"),
    (Who::Alice, Act::Transaction),
    (Who::Bob, Act::Append),
    (Who::Alice, Act::Append),
    sql(
        Who::Alice,
        "DELETE FROM t WHERE id IN (SELECT id + 1 FROM t WHERE id < 50)",
    ),
    sql(
        Who::Alice,
        "ALTER TABLE t ADD COLUMN note VARCHAR DEFAULT 'none'",
    ),
    sql(
        Who::Alice,
        "CREATE VIEW v AS SELECT id, word FROM t WHERE id > 60",
    ),
    sql(
        Who::Operator,
        "ALTER TABLE words ADD COLUMN more BIGINT DEFAULT 5",
    ),
    sql(Who::Alice, "UPDATE words SET more = 6 WHERE word = 'hers'"),
    sql(
        Who::Bob,
        "MERGE INTO t USING words w ON t.word = w.word || 's' WHEN NOT MATCHED THEN INSERT (id, word) VALUES (50, w.word)",
    ),
    sql(Who::Alice, "DROP INDEX t_by_n"),
    sql(Who::Alice, "ALTER TABLE t DROP COLUMN n"),
    sql(Who::Bob, "TRUNCATE log"),
    (Who::Alice, Act::Replace),
    (Who::Bob, Act::Transaction),
    sql(Who::Operator, "DROP TABLE words"),
    sql(Who::Alice, "DROP TABLE log"),
    sql(Who::Operator, "CREATE TABLE words (word VARCHAR)"),
    sql(Who::Bob, "INSERT INTO words VALUES ('new')"),
    sql(Who::Alice, "DROP VIEW v"),
];

/// What there may be.
const RELATIONS: [&str; 4] = ["words", "t", "log", "v"];

/// A client of each of two tenants, and one of none.
struct Clients {
    operator: Client,
    alice: Client,
    bob: Client,
    catalog: CatalogServiceClient<Channel>,
}

impl Clients {
    fn new(channel: Channel) -> Self {
        Clients {
            operator: Client::over(channel.clone(), None),
            alice: Client::over(channel.clone(), Some("alice")),
            bob: Client::over(channel.clone(), Some("bob")),
            catalog: CatalogServiceClient::new(channel),
        }
    }

    fn of(&mut self, who: Who) -> &mut Client {
        match who {
            Who::Operator => &mut self.operator,
            Who::Alice => &mut self.alice,
            Who::Bob => &mut self.bob,
        }
    }

    async fn run(&mut self, (who, act): (Who, Act)) -> Result<(), Status> {
        let client = self.of(who);
        match act {
            Act::Sql(sql) => client.update(sql).await.map(drop),
            Act::Append => client
                .put_all(&create_append("log"), log(0))
                .await
                .map(drop),
            Act::Replace => client.put_all(&replace("log"), log(1)).await.map(drop),
            Act::Transaction => transact(client).await,
        }
    }

    /// All that anybody sees.
    async fn seen(&mut self) -> Result<String, Status> {
        let mut seen = String::new();
        for who in [Who::Operator, Who::Alice, Who::Bob] {
            for relation in RELATIONS {
                let sql = format!("SELECT * FROM {relation}");
                match self.of(who).query(&sql).await {
                    Ok(rows) => seen.push_str(&format!("{who:?} {relation} {}\n", sorted(&rows))),
                    Err(status) if status.code() == Code::NotFound => {}
                    Err(status) => return Err(status),
                }
            }
            let request = match who {
                Who::Operator => Request::new(ListTablesRequest {}),
                Who::Alice => in_session("alice", ListTablesRequest {}),
                Who::Bob => in_session("bob", ListTablesRequest {}),
            };
            for mut table in self.catalog.list_tables(request).await?.into_inner().tables {
                (table.created_at_ms, table.altered_at_ms) = (0, 0);
                seen.push_str(&format!("{who:?} {table:?}\n"));
            }
        }
        Ok(seen)
    }

    async fn seen_at_last(&mut self, case: &str) -> String {
        for _attempt in 0..ATTEMPTS_MAX {
            match self.seen().await {
                Ok(seen) => return seen,
                Err(status) => assert_tells(None, &status, case),
            }
        }
        panic!("{case}: the disk works again");
    }
}

/// Columns and rows, whose order is of no concern.
fn sorted(rows: &RecordBatch) -> String {
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let names: Vec<&str> = names.collect();
    let mut lines: Vec<String> = (0..rows.num_rows())
        .map(|row| shown(&rows.slice(row, 1)))
        .collect();
    lines.sort();
    format!("({}) {}", names.join(","), lines.join(";"))
}

/// Three batches, which differ by where they begin.
fn log(first: i64) -> Vec<RecordBatch> {
    (first..first + 3)
        .map(|batch| {
            let ids = Int64Array::from_iter_values(batch * 300..(batch + 1) * 300);
            let texts = (0..300).map(|row| format!("{batch}/{row} {}", "x".repeat(40)));
            let texts = StringArray::from_iter_values(texts);
            columns(vec![("id", Arc::new(ids)), ("text", Arc::new(texts))])
        })
        .collect()
}

async fn transact(client: &mut Client) -> Result<(), Status> {
    let id = client.begin().await?;
    let work = async {
        let first = "INSERT INTO t (id, word) VALUES (201, 'in a transaction')";
        client.update_in(first, Some(&id)).await?;
        let savepoint = client.savepoint(&id, "s").await?;
        client.update_in("DELETE FROM t", Some(&id)).await?;
        client
            .end_savepoint(&savepoint, crate::writes::ROLL_BACK)
            .await?;
        let last = "UPDATE t SET word = 'changed' WHERE id = 3";
        client.update_in(last, Some(&id)).await
    };
    match work.await {
        Ok(_) => client.commit(&id).await,
        Err(status) => {
            // It ends by itself where this fails too.
            let _ = client.roll_back(&id).await;
            Err(status)
        }
    }
}

/// What a client is told of a disk that is full or fails: what happened, and
/// nothing of others.
fn assert_tells(who: Option<Who>, status: &Status, case: &str) {
    let text = status.message();
    let code = status.code();
    assert!(
        matches!(
            code,
            Code::ResourceExhausted | Code::Internal | Code::Unavailable | Code::Aborted
        ),
        "{case}: {status:?}"
    );
    let about = [
        "the lane of tenant",
        "the global lane",
        "the system database",
    ];
    assert!(
        about.iter().any(|about| text.contains(about)),
        "{case}: {status:?}"
    );
    let what = [
        "is full",
        "log of jammi",
        "send the request again",
        "run it again",
    ];
    assert!(
        what.iter().any(|what| text.contains(what)),
        "{case}: {status:?}"
    );
    for (tenant, others) in [
        (ALICE, matches!(who, Some(Who::Bob | Who::Operator))),
        (BOB, matches!(who, Some(Who::Alice | Who::Operator))),
    ] {
        assert!(!(others && text.contains(tenant)), "{case}: {status:?}");
    }
    for path in [".db", "/dev/shm", "/tmp"] {
        assert!(!text.contains(path), "{case}: {status:?}");
    }
}

/// Where syncing costs nothing, if there is such a place.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_absent| TempDir::new().unwrap())
}

/// Where everything starts from, and what is seen after each step.
struct Model {
    ready: Arc<TempDir>,
    disk: FailingDisk,
    states: Vec<String>,
    /// How many steps a server ended in, and how many it refused.
    cut_off: AtomicUsize,
    refused: AtomicUsize,
}

impl Model {
    async fn new() -> Self {
        let server = TestServer::start_in(Arc::new(in_memory()), |_| {}).await;
        let mut clients = Clients::new(server.channel().await);
        clients.alice.bind(ALICE).await;
        clients.bob.bind(BOB).await;
        let ready = server.stop().await;
        let mut model = Model {
            disk: FailingDisk::build(ready.path()),
            ready,
            states: Vec::new(),
            cut_off: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        };
        let server = TestServer::start_in(Arc::new(model.copy()), |_| {}).await;
        let mut clients = Clients::new(server.channel().await);
        model.states.push(clients.seen().await.unwrap());
        for step in STEPS {
            let done = clients.run(*step).await;
            done.unwrap_or_else(|status| panic!("{step:?}: {status:?}"));
            let seen = clients.seen().await.unwrap();
            assert_ne!(
                Some(&seen),
                model.states.last(),
                "{step:?} is not to be seen"
            );
            model.states.push(seen);
        }
        let dir = server.stop().await;
        assert_storage_agrees(dir.path(), "the model");
        model
    }

    /// A directory in which nothing was said yet.
    fn copy(&self) -> TempDir {
        let dir = in_memory();
        for name in ["global.db", "system.db"] {
            fs::copy(self.ready.path().join(name), dir.path().join(name)).unwrap();
        }
        dir
    }

    async fn start(&self, dir: &Path, fault: &str, step: usize) -> Result<Process, String> {
        let mut command = process::command(dir);
        // The lane of one tenant is closed when another's is opened, so that the
        // log is brought to the file every now and then.
        command.env("JAMMI_LANES__OPEN_MAX", "1");
        command.env("JAMMI_LOG__FILTER", "error");
        // It writes when it comes to it, so that an operation would be another each time.
        command.env("JAMMI_AUDIT__ENABLED", "false");
        self.disk
            .under(command.as_std_mut(), fault, step, &dir.join("count"));
        Process::try_start(&mut command).await
    }

    /// How many operations the conversation takes.
    async fn operations(&self) -> usize {
        let dir = self.copy();
        let process = self.start(dir.path(), "", 0).await.unwrap();
        let mut clients = Clients::new(process.channel().await);
        for step in STEPS {
            clients.run(*step).await.unwrap();
        }
        process.signal("-TERM").await;
        assert_eq!(process.end().await.0, Some(0));
        let count = fs::read_to_string(dir.path().join("count")).unwrap();
        count.parse().unwrap()
    }

    /// Which of the states that may be after `done` steps this is.
    fn steps_in(&self, seen: &str, done: usize, case: &str) -> usize {
        let may_be = &self.states[done..=(done + 1).min(STEPS.len())];
        if let Some(more) = may_be.iter().position(|state| state == seen) {
            return done + more;
        }
        let expected: BTreeSet<&str> = may_be.iter().flat_map(|state| state.lines()).collect();
        let seen: BTreeSet<&str> = seen.lines().collect();
        panic!(
            "{case}: after {done} steps, before {:?}: {:#?} instead of {:#?}",
            STEPS.get(done),
            seen.difference(&expected),
            expected.difference(&seen)
        );
    }

    /// Talks to a server that is stopped at an operation, and says how many
    /// steps were acknowledged.
    async fn talk(&self, dir: &Path, fault: &str, at: usize, case: &str) -> usize {
        let ends = matches!(fault, "kill" | "power");
        let process = match self.start(dir, fault, at).await {
            Ok(process) => process,
            Err(said) => {
                assert!(ends || said.contains("database"), "{case}: {said}");
                return 0;
            }
        };
        let mut clients = Clients::new(process.channel().await);
        let mut done = 0;
        let mut attempts = 0;
        while done < STEPS.len() {
            let Err(status) = clients.run(STEPS[done]).await else {
                (done, attempts) = (done + 1, 0);
                continue;
            };
            if ends {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
                break;
            }
            // A clock that jumps keeps nobody from anything.
            assert!(!matches!(fault, "past" | "future"), "{case}: {status:?}");
            self.refused.fetch_add(1, Ordering::Relaxed);
            assert_tells(Some(STEPS[done].0), &status, case);
            let seen = clients.seen_at_last(case).await;
            done = self.steps_in(&seen, done, case);
            attempts += 1;
            assert!(attempts < ATTEMPTS_MAX, "{case}: {status:?}");
        }
        if done == STEPS.len() {
            process.signal("-TERM").await;
        }
        let (code, _, said) = process.end().await;
        // None: killed, which may be as late as when it ends.
        assert!(
            code == Some(0) || ends && code.is_none(),
            "{case}: {code:?} {said}"
        );
        done
    }

    /// Stops a server at an operation, and looks what is there.
    async fn stop_at(&self, fault: &str, at: usize) {
        let case = format!("{fault} at operation {at}");
        let dir = self.copy();
        let done = self.talk(dir.path(), fault, at, &case).await;
        for lane in lanes(dir.path()) {
            assert_copy_sound(&lane, &case);
        }

        // What is there, and the rest of the conversation.
        let server = TestServer::start_in(Arc::new(dir), |_| {}).await;
        let mut clients = Clients::new(server.channel().await);
        let seen = clients
            .seen()
            .await
            .unwrap_or_else(|status| panic!("{case}: {status:?}"));
        for step in &STEPS[self.steps_in(&seen, done, &case)..] {
            let done = clients.run(*step).await;
            done.unwrap_or_else(|status| panic!("{case}: {step:?}: {status:?}"));
        }
        assert_eq!(
            Some(&clients.seen().await.unwrap()),
            self.states.last(),
            "{case}"
        );
        while !leftovers(server.dir()).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let dir = server.stop().await;
        assert_storage_agrees(dir.path(), &case);
    }
}

fn lanes(dir: &Path) -> Vec<std::path::PathBuf> {
    let tenants = [ALICE, BOB].map(|tenant| dir.join(format!("tenants/{tenant}.db")));
    let all = tenants.into_iter().chain([dir.join("global.db")]);
    all.filter(|path| path.exists()).collect()
}

/// Looks at a copy of what nobody has open, as a reader of the file itself would
/// bring its log home.
fn assert_copy_sound(lane: &Path, case: &str) {
    let copies = in_memory();
    let copy = copies.path().join("lane.db");
    fs::copy(lane, &copy).unwrap();
    let log = lane.with_extension("db-wal");
    if log.exists() {
        fs::copy(log, copies.path().join("lane.db-wal")).unwrap();
    }
    assert_sound(&Connection::open(copy).unwrap(), case);
}

fn assert_sound(lane: &Connection, case: &str) {
    let sound: String = lane
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok", "{case}: {:?}", lane.path());
}

fn texts(lane: &Connection, sql: &str) -> BTreeSet<String> {
    let mut statement = lane.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

const STORED: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '[gt][0-9]*'";

/// Where tenants keep rows of shared tables that there are.
fn shared(dir: &Path) -> BTreeSet<String> {
    let global = Connection::open(dir.join("global.db")).unwrap();
    let sql = "SELECT printf('g%d_%x', id, created_at_ms) FROM relations WHERE kind = 'table'";
    texts(&global, sql)
}

/// Rows of shared tables that there are no more.
fn leftovers(dir: &Path) -> BTreeSet<String> {
    let shared = shared(dir);
    let mut leftovers = BTreeSet::new();
    for lane in lanes(dir) {
        let stored = texts(&Connection::open(lane).unwrap(), STORED);
        leftovers.extend(stored.into_iter().filter(|name| name.starts_with('g')));
    }
    leftovers.retain(|name| !shared.contains(name));
    leftovers
}

/// Every lane has the rows of the tables that its catalog says, and no others.
fn assert_storage_agrees(dir: &Path, case: &str) {
    let shared = shared(dir);
    for path in lanes(dir) {
        // A server that has stopped may be closing it still.
        let lane = Connection::open(&path).unwrap();
        assert_sound(&lane, case);
        let mut expected = texts(
            &lane,
            "SELECT 't' || id FROM relations WHERE kind = 'table'",
        );
        let stored = texts(&lane, STORED);
        if !path.ends_with("global.db") {
            expected.extend(shared.intersection(&stored).cloned());
        }
        assert_eq!(stored, expected, "{case}: {path:?}");
        let chunks = texts(&lane, "SELECT DISTINCT stored FROM table_chunks");
        assert!(
            chunks.is_subset(&stored),
            "{case}: {chunks:?} of {stored:?}"
        );
        for name in stored {
            let sql = format!(
                "SELECT (SELECT count(*) FROM {name}),
                        (SELECT coalesce(sum(rows), 0) FROM table_chunks WHERE stored = '{name}')"
            );
            let counts: (i64, i64) = lane
                .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap();
            assert_eq!(counts.0, counts.1, "{case}: {name} of {path:?}");
        }
    }
}

/// Numbers that look like chance (SplitMix64).
fn chance(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

/// An operation out of each part of the conversation, or all of them.
fn operations_of(fault: usize, operations: usize) -> Vec<usize> {
    if std::env::var("DISK_STOPS").as_deref() == Ok("all") {
        return (1..=operations).collect();
    }
    let seed = std::env::var("DISK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0);
    (0..SAMPLE)
        .map(|part| {
            let (from, to) = (part * operations / SAMPLE, (part + 1) * operations / SAMPLE);
            let number = chance(seed << 32 | (fault * SAMPLE + part) as u64);
            1 + from + number as usize % (to - from)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_operation_on_files_leaves_every_step_whole_or_undone() {
    let model = Model::new().await;
    let operations = model.operations().await;
    assert!(operations > 300, "{operations} operations");
    let stops = AtomicUsize::new(0);
    let cases = FAULTS.iter().enumerate().flat_map(|(number, fault)| {
        let operations = operations_of(number, operations);
        operations.into_iter().map(move |at| (*fault, at))
    });
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, |(fault, at)| {
            let (model, stops) = (&model, &stops);
            async move {
                let stop = tokio::time::timeout(WATCHDOG, model.stop_at(fault, at));
                stop.await
                    .unwrap_or_else(|_| panic!("{fault} at operation {at} takes for ever"));
                stops.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
    let stops = stops.into_inner();
    let (cut_off, refused) = (model.cut_off.into_inner(), model.refused.into_inner());
    assert!(stops >= FAULTS.len() * SAMPLE, "{stops} stops");
    assert!(
        cut_off >= SAMPLE && refused >= SAMPLE / 2,
        "{cut_off}, {refused}"
    );
    // For whoever runs it with `--nocapture`.
    eprintln!(
        "{stops} stops at {operations} operations: {cut_off} steps cut off, {refused} refused"
    );
}
