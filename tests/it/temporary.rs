//! Temporary tables: whose they are, what they hide, and their end. Every test has
//! two sessions of one tenant, and most a second tenant.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetTables, CommandStatementIngest};
use bytes::Bytes;
use jammi_db::TenantId;
use jammi_db::config::JammiConfig;
use jammi_db::engine::{Engine, StatementKind};
use jammi_db::server::proto::catalog::{DescribeTableRequest, DropTableRequest, ListTablesRequest};
use jammi_db::server::proto::session::ClearTenantRequest;
use jammi_db::session::JammiSession;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, prepared};
use crate::harness::{TestServer, config, in_session};
use crate::matrix;
use crate::process::{JAMMI, Process, command};
use crate::tables::{refused as refuses, rows};
use crate::writes::{append, create, create_append, numbers, refused, replace};

/// A server, two sessions of Alice's, one of Bob's, and one that is bound to nobody.
struct World {
    server: TestServer,
    one: Client,
    two: Client,
    bob: Client,
    unbound: Client,
}

impl World {
    async fn new() -> World {
        World::on(TestServer::start().await).await
    }

    async fn on(server: TestServer) -> World {
        let mut world = World {
            one: Client::connect(&server, Some("alice-one")).await,
            two: Client::connect(&server, Some("alice-two")).await,
            bob: Client::connect(&server, Some("bob")).await,
            unbound: Client::connect(&server, Some("nobody")).await,
            server,
        };
        world.bind().await;
        world
    }

    async fn bind(&mut self) {
        self.one.bind(ALICE).await;
        self.two.bind(ALICE).await;
        self.bob.bind(BOB).await;
    }

    fn others(&self) -> [Client; 3] {
        [self.two.clone(), self.bob.clone(), self.unbound.clone()]
    }
}

/// What a lane's file holds of temporary tables: records, and tables of rows that
/// no record is of.
fn left_in(lane: &Path) -> (i64, i64) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = Connection::open_with_flags(lane, flags).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    let count = |sql: &str| file.query_row(sql, [], |row| row.get(0)).unwrap();
    (
        count("SELECT count(*) FROM relations WHERE session IS NOT NULL"),
        count(
            "SELECT (SELECT count(*) FROM sqlite_schema
                     WHERE type = 'table' AND name GLOB 't[0-9]*'
                         AND substr(name, 2) NOT IN (SELECT id FROM relations))
                  + (SELECT count(*) FROM table_chunks
                     WHERE stored GLOB 't[0-9]*'
                         AND substr(stored, 2) NOT IN (SELECT id FROM relations))",
        ),
    )
}

const NOTHING: (i64, i64) = (0, 0);

/// Waits until what is to be removed is.
async fn gone(lane: &Path, expected: (i64, i64)) {
    while left_in(lane).0 > expected.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(left_in(lane), expected, "{lane:?}");
}

fn lane_file(dir: &Path, tenant: &str) -> PathBuf {
    dir.join(format!("tenants/{tenant}.db"))
}

fn temporary(command: CommandStatementIngest) -> CommandStatementIngest {
    CommandStatementIngest {
        temporary: true,
        ..command
    }
}

/// What is answered, with a name put in the place of another.
fn as_if(answer: Result<RecordBatch, Status>, name: &str, instead: &str) -> String {
    match answer {
        Ok(batch) => format!("{batch:?}").replace(name, instead),
        Err(status) => {
            let text = status.message().replace(name, instead);
            format!("{:?} {text}", status.code())
        }
    }
}

#[tokio::test]
async fn a_temporary_table_does_not_exist_for_others() {
    let mut world = World::new().await;
    let created =
        "CREATE TEMPORARY TABLE secret (id INT PRIMARY KEY, word TEXT CHECK (word <> ''))";
    world.one.update(created).await.unwrap();
    for sql in [
        "INSERT INTO secret VALUES (1, 'canary')",
        "CREATE INDEX secret_index ON secret (word)",
    ] {
        world.one.update(sql).await.unwrap();
    }
    // Whatever names it is answered as for a name that nobody ever used.
    for mut other in world.others() {
        for kind in StatementKind::ALL {
            let statements = matrix::statements(kind).iter();
            for statement in statements.filter(|text| text.contains("{t}")) {
                let sql = statement.replace("{t}", "secret");
                let answer = other.query(&sql).await;
                let never = other.query(&statement.replace("{t}", "absent")).await;
                let never = as_if(never, "absent", "secret");
                assert_eq!(as_if(answer, "secret", "secret"), never, "{sql}");
                assert!(!never.contains("canary"), "{never}");
                // What was made of the name goes again.
                for name in ["secret", "absent", "renamed"] {
                    let _ = other.update(&format!("DROP TABLE {name}")).await;
                    let _ = other.update(&format!("DROP VIEW {name}")).await;
                }
            }
        }
        let rows = numbers("id", [2]);
        refused(
            other.put_counted(&append("secret"), rows.clone()).await,
            Code::NotFound,
            "table `secret` does not exist",
        );
        refused(
            other.put_counted(&temporary(append("secret")), rows).await,
            Code::NotFound,
            "temporary table `secret` does not exist",
        );
    }
    assert_eq!(
        world.one.shows("SELECT id, word FROM secret").await,
        "1|canary"
    );
}

/// Where a table may be listed.
async fn listings(world: &World, client: &mut Client, session: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sql in [
        "SELECT table_type FROM information_schema.tables WHERE table_name = 'NAME'",
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'NAME'",
        "SELECT kind FROM jammi.catalog.tables WHERE name = 'NAME'",
    ] {
        found.push(client.shows(&sql.replace("NAME", name)).await);
    }
    let show = client.query("SHOW TABLES").await.unwrap();
    found.push(format!("{show:?}").contains(name).to_string());
    for include_schema in [false, true] {
        for kinds in [&[][..], &["LOCAL TEMPORARY"], &["TABLE"]] {
            let command = CommandGetTables {
                table_types: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
                include_schema,
                ..CommandGetTables::default()
            };
            let tables = client.rows(&command).await.unwrap();
            found.push(format!("{tables:?}").contains(name).to_string());
        }
    }
    let command = CommandGetPrimaryKeys {
        table: name.into(),
        ..CommandGetPrimaryKeys::default()
    };
    let keys = client.rows(&command).await.unwrap();
    found.push(keys.num_rows().to_string());
    let mut catalog = world.server.catalog().await;
    let request = in_session(session, ListTablesRequest::default());
    let tables = catalog.list_tables(request).await.unwrap().into_inner();
    let listed = tables.tables.iter().find(|table| table.name == name);
    found.push(format!("{:?}", listed.map(|table| table.temporary)));
    let request = in_session(session, DescribeTableRequest { name: name.into() });
    let described = catalog.describe_table(request).await;
    found.push(format!("{:?}", described.map(|_| ()).map_err(|s| s.code())));
    found
}

#[tokio::test]
async fn only_its_own_session_is_told_of_it() {
    let mut world = World::new().await;
    world
        .one
        .update("CREATE TEMP TABLE secret (id INT PRIMARY KEY)")
        .await
        .unwrap();
    let mut one = world.one.clone();
    assert_eq!(
        listings(&world, &mut one, "alice-one", "secret").await,
        [
            "LOCAL TEMPORARY",
            "2",
            "temporary table",
            "true",
            "true",
            "true",
            "false",
            "true",
            "true",
            "false",
            "1",
            "Some(true)",
            "Ok(())",
        ]
    );
    let sessions = ["alice-two", "bob", "nobody"];
    for (mut other, session) in world.others().into_iter().zip(sessions) {
        assert_eq!(
            listings(&world, &mut other, session, "secret").await,
            [
                "",
                "0",
                "",
                "false",
                "false",
                "false",
                "false",
                "false",
                "false",
                "false",
                "0",
                "None",
                "Err(NotFound)",
            ],
            "{session}"
        );
        let request = in_session(
            session,
            DropTableRequest {
                name: "secret".into(),
            },
        );
        let mut catalog = world.server.catalog().await;
        let dropped = catalog.drop_table(request).await;
        refused(dropped, Code::NotFound, "table `secret` does not exist");
    }
    assert_eq!(one.shows("SELECT count(*) FROM secret").await, "0");
}

#[tokio::test]
async fn its_name_wins_in_its_session_alone() {
    let mut world = World::new().await;
    for (client, whose) in [
        (&mut world.unbound, "shared"),
        (&mut world.one, "tenant"),
        (&mut world.bob, "bob"),
    ] {
        client.update("CREATE TABLE t (word TEXT)").await.unwrap();
        let insert = format!("INSERT INTO t (word) VALUES ('{whose}')");
        client.update(&insert).await.unwrap();
    }
    world
        .one
        .update("CREATE VIEW v AS SELECT word FROM t")
        .await
        .unwrap();
    let temporary = "CREATE TEMP TABLE t AS SELECT 'session' AS word";
    world.one.update(temporary).await.unwrap();
    for name in ["t", "public.t", "mutable.public.t", "\"t\"", "T"] {
        let sql = format!("SELECT word FROM {name}");
        assert_eq!(world.one.shows(&sql).await, "session", "{name}");
        assert_eq!(world.two.shows(&sql).await, "tenant", "{name}");
        assert_eq!(world.bob.shows(&sql).await, "bob", "{name}");
        assert_eq!(world.unbound.shows(&sql).await, "shared", "{name}");
    }
    // A view belongs to no session, and reads what stays.
    for client in [&mut world.one, &mut world.two] {
        assert_eq!(client.shows("SELECT word FROM v").await, "tenant");
    }
    // It is listed once, as what the name means.
    let sql = "SELECT table_type FROM information_schema.tables WHERE table_name = 't'";
    assert_eq!(world.one.shows(sql).await, "LOCAL TEMPORARY");
    assert_eq!(world.two.shows(sql).await, "BASE TABLE");
    // Writes go where reads go.
    world
        .one
        .update("UPDATE t SET word = 'mine'")
        .await
        .unwrap();
    assert_eq!(world.one.shows("SELECT word FROM t").await, "mine");
    assert_eq!(world.two.shows("SELECT word FROM t").await, "tenant");
    world
        .one
        .update("ALTER TABLE t ADD COLUMN n INT")
        .await
        .unwrap();
    refused(
        world.two.query("SELECT n FROM t").await,
        Code::InvalidArgument,
        "n",
    );
    // What is made without the word is the tenant's, and hidden until this one goes.
    refused(
        world.one.update("CREATE TABLE t (word TEXT)").await,
        Code::AlreadyExists,
        "`t` exists already",
    );
    refused(
        world.one.update(temporary).await,
        Code::AlreadyExists,
        "`t` exists already",
    );
    world.one.update("ALTER TABLE t RENAME TO u").await.unwrap();
    assert_eq!(world.one.shows("SELECT word FROM t").await, "tenant");
    world.one.update("ALTER TABLE u RENAME TO t").await.unwrap();
    world.one.update("DROP TABLE t").await.unwrap();
    assert_eq!(world.one.shows("SELECT word FROM t").await, "tenant");
    world.one.update("DROP TABLE t").await.unwrap();
    assert_eq!(world.one.shows("SELECT word FROM t").await, "shared");
    assert_eq!(world.bob.shows("SELECT word FROM t").await, "bob");
}

/// Symptom that must not be: a plan that one session's table is in answers another
/// session's statement of the same text.
#[tokio::test]
async fn one_text_in_two_sessions_is_two_statements() {
    let mut world = World::new().await;
    world.two.update("CREATE TABLE t (a INT)").await.unwrap();
    world
        .two
        .update("INSERT INTO t (a) VALUES (0)")
        .await
        .unwrap();
    for round in 1..4 {
        // Before, in between and after, the same text means the tenant's.
        for client in [&mut world.one, &mut world.two] {
            assert_eq!(client.shows("SELECT a FROM t").await, "0");
        }
        let one = format!("CREATE TEMP TABLE t AS SELECT 'one-{round}' AS a, 1 AS b");
        let two = format!("CREATE TEMP TABLE t AS SELECT {round} AS a");
        world.one.update(&one).await.unwrap();
        world.two.update(&two).await.unwrap();
        for _again in 0..2 {
            let all = "SELECT * FROM t";
            let of_one = world.one.shows(all).await;
            assert_eq!(of_one, format!("one-{round}|1|{ALICE}"));
            assert_eq!(world.two.shows(all).await, format!("{round}|{ALICE}"));
            let first = "SELECT a FROM t";
            assert_eq!(world.one.shows(first).await, format!("one-{round}"));
            assert_eq!(world.two.shows(first).await, round.to_string());
        }
        let statement = world.one.prepare("SELECT a FROM t").await.unwrap();
        let handle = prepared(&statement.prepared_statement_handle);
        let rows = world.one.rows(&handle).await.unwrap();
        assert!(format!("{rows:?}").contains(&format!("one-{round}")));
        // A handle is its session's.
        refused(
            world.two.rows(&handle).await,
            Code::FailedPrecondition,
            "another session",
        );
        for client in [&mut world.one, &mut world.two] {
            client.update("DROP TABLE t").await.unwrap();
        }
        assert_eq!(world.one.shows("SELECT a FROM t").await, "0");
    }
}

#[tokio::test]
async fn statements_on_tables_work_on_it() {
    let mut world = World::new().await;
    let one = &mut world.one;
    one.update("CREATE TABLE kept (id INT, word TEXT)")
        .await
        .unwrap();
    one.update("INSERT INTO kept (id, word) VALUES (1, 'k'), (9, 'z')")
        .await
        .unwrap();
    for (sql, count) in [
        (
            "CREATE TEMPORARY TABLE IF NOT EXISTS t (id INT PRIMARY KEY, word TEXT DEFAULT 'd', \
             n INT CHECK (n > 0)) ON COMMIT PRESERVE ROWS",
            0,
        ),
        ("CREATE TEMPORARY TABLE IF NOT EXISTS t (other INT)", 0),
        ("INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 3)", 3),
        ("UPDATE t SET word = 'u' WHERE id = 2", 1),
        ("DELETE FROM t WHERE id = 3", 1),
        (
            "INSERT INTO t (id, n) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = 7",
            1,
        ),
        (
            "MERGE INTO t USING kept k ON t.id = k.id WHEN MATCHED THEN UPDATE SET word = k.word \
             WHEN NOT MATCHED THEN INSERT (id, word) VALUES (k.id, k.word)",
            2,
        ),
        ("CREATE UNIQUE INDEX t_word ON t (word)", 0),
        ("ALTER TABLE t ADD COLUMN added INT DEFAULT 4", 0),
        ("ALTER TABLE t RENAME COLUMN word TO text", 0),
    ] {
        assert_eq!(one.update(sql).await.unwrap(), count, "{sql}");
    }
    assert_eq!(
        one.shows("SELECT id, text, n, added FROM t ORDER BY id")
            .await,
        "1|k|7|4 2|u|2|4 9|z||4"
    );
    let joined = "SELECT k.id FROM kept k JOIN t USING (id) WHERE t.text = k.word ORDER BY 1";
    assert_eq!(one.shows(joined).await, "1 9");
    for (sql, code, text) in [
        (
            "INSERT INTO t (id) VALUES (1)",
            Code::AlreadyExists,
            "id = 1",
        ),
        ("UPDATE t SET n = -1", Code::InvalidArgument, "t_n_check"),
        ("UPDATE t SET text = 'same'", Code::AlreadyExists, "same"),
        (
            "INSERT INTO t (id, tenant_id) VALUES (5, '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b')",
            Code::PermissionDenied,
            "another tenant",
        ),
    ] {
        refused(one.update(sql).await, code, text);
    }
    let returned = "DELETE FROM t WHERE id = 9 RETURNING id, text";
    assert_eq!(one.shows(returned).await, "9|z");
    let explained = one.shows("EXPLAIN SELECT * FROM t WHERE id = 1").await;
    assert!(!explained.contains("alice-one"), "{explained}");
    one.update("DROP INDEX t_word").await.unwrap();
    assert_eq!(one.update("TRUNCATE t").await.unwrap(), 2);
    one.update("DROP TABLE t").await.unwrap();
    one.update("CREATE LOCAL TEMPORARY TABLE t AS SELECT * FROM kept")
        .await
        .unwrap();
    assert_eq!(one.shows("SELECT count(*) FROM t").await, "2");
    for sql in [
        "CREATE GLOBAL TEMPORARY TABLE g (id INT)",
        "CREATE TEMPORARY TABLE g (id INT) ON COMMIT DROP",
        "CREATE TEMPORARY VIEW g AS SELECT 1 AS one",
        "DISCARD TEMP",
    ] {
        let answer = one.update(sql).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{sql}");
    }
}

#[tokio::test]
async fn a_transaction_spans_it_and_tables_that_stay() {
    let mut world = World::new().await;
    let one = &mut world.one;
    one.update("CREATE TABLE kept (id INT)").await.unwrap();
    let id = one.begin().await.unwrap();
    for sql in [
        "CREATE TEMP TABLE t (id INT)",
        "INSERT INTO t (id) VALUES (1)",
        "INSERT INTO kept (id) SELECT id FROM t",
    ] {
        one.update_in(sql, Some(&id)).await.unwrap();
    }
    let savepoint = one.savepoint(&id, "s").await.unwrap();
    one.update_in("INSERT INTO t (id) VALUES (2)", Some(&id))
        .await
        .unwrap();
    one.update_in("CREATE TEMP TABLE more (id INT)", Some(&id))
        .await
        .unwrap();
    one.end_savepoint(&savepoint, crate::writes::ROLL_BACK)
        .await
        .unwrap();
    let both = "SELECT (SELECT count(*) FROM t) AS t, (SELECT count(*) FROM kept) AS kept";
    assert_eq!(one.query_in(both, &id).await.unwrap(), "1|1");
    let within = one.query_in("SELECT * FROM more", &id).await;
    refused(within, Code::NotFound, "more");
    // Not even its session sees it before it is committed.
    refused(one.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    one.roll_back(&id).await.unwrap();
    refused(one.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    assert_eq!(one.shows("SELECT count(*) FROM kept").await, "0");

    let id = one.begin().await.unwrap();
    one.update_in("CREATE TEMP TABLE t AS SELECT 5 AS id", Some(&id))
        .await
        .unwrap();
    one.update_in("INSERT INTO kept (id) SELECT id FROM t", Some(&id))
        .await
        .unwrap();
    one.commit(&id).await.unwrap();
    assert_eq!(one.shows(both).await, "1|1");
    refused(world.two.query(both).await, Code::NotFound, "`t`");
    assert_eq!(world.two.shows("SELECT id FROM kept").await, "5");
}

#[tokio::test]
async fn a_view_that_stays_is_not_made_of_it() {
    let mut world = World::new().await;
    let one = &mut world.one;
    one.update("CREATE TEMP TABLE scratch (id INT)")
        .await
        .unwrap();
    for sql in [
        "CREATE VIEW v AS SELECT * FROM scratch",
        "CREATE OR REPLACE VIEW v AS SELECT 1 AS a WHERE EXISTS (SELECT 1 FROM scratch)",
        "CREATE VIEW v (a) AS WITH w AS (SELECT id FROM mutable.public.scratch) SELECT * FROM w",
    ] {
        refused(
            one.update(sql).await,
            Code::InvalidArgument,
            "view `v` would outlive `scratch`, which is a temporary table",
        );
    }
    // The name in it is the view's own.
    one.update("CREATE VIEW v AS WITH scratch AS (SELECT 1 AS a) SELECT a FROM scratch")
        .await
        .unwrap();
    assert_eq!(world.two.shows("SELECT a FROM v").await, "1");
}

#[tokio::test]
async fn a_request_without_a_session_is_told_to_name_one() {
    let server = TestServer::start().await;
    let mut nameless = Client::connect(&server, None).await;
    for sql in [
        "CREATE TEMPORARY TABLE t (id INT)",
        "CREATE TEMP TABLE t AS SELECT 1 AS id",
    ] {
        let answer = nameless.update(sql).await;
        refused(answer, Code::InvalidArgument, "send jammi-session-id");
        let answer = nameless.query(sql).await;
        refused(answer, Code::InvalidArgument, "send jammi-session-id");
    }
    for command in [create("t"), append("t"), replace("t"), create_append("t")] {
        let command = temporary(command);
        let answer = nameless.put_counted(&command, numbers("id", [1])).await;
        refused(answer, Code::InvalidArgument, "send jammi-session-id");
    }
}

#[tokio::test]
async fn an_unbound_session_has_its_own_too() {
    let mut world = World::new().await;
    let mut unbound = world.unbound.clone();
    for sql in [
        "CREATE TEMP TABLE t (id INT)",
        "INSERT INTO t (id) VALUES (1)",
        "CREATE UNIQUE INDEX t_id ON t (id)",
    ] {
        unbound.update(sql).await.unwrap();
    }
    assert_eq!(unbound.shows("SELECT id FROM t").await, "1");
    // What is shared is seen by every tenant, and this is not shared.
    let elsewhere = unbound.with_session("nobody-else");
    for mut other in [world.one.clone(), world.bob.clone(), elsewhere] {
        refused(other.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    }
    unbound.act("CloseSession", Bytes::new()).await.unwrap();
    refused(
        unbound.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    assert_eq!(left_in(&world.server.dir().join("global.db")), NOTHING);
    world.unbound = unbound;
}

#[tokio::test]
async fn rebinding_hides_it_and_binding_back_shows_it() {
    let mut world = World::new().await;
    let mut one = world.one.clone();
    let secret = async |client: &mut Client, word: &str| {
        let sql = format!("CREATE TEMP TABLE t AS SELECT '{word}' AS word");
        client.update(&sql).await.unwrap();
    };
    secret(&mut one, "alice").await;
    one.bind(BOB).await;
    refused(one.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    secret(&mut one, "bob").await;
    assert_eq!(one.shows("SELECT word FROM t").await, "bob");
    refused(
        world.bob.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    one.sessions
        .clear_tenant(in_session("alice-one", ClearTenantRequest {}))
        .await
        .unwrap();
    refused(one.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    secret(&mut one, "nobody").await;
    // Bound again, it sees neither what it has elsewhere nor what it has in no lane.
    one.bind(ALICE).await;
    assert_eq!(one.shows("SELECT word FROM t").await, "alice");
    refused(
        world.two.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    // Closing ends them all.
    one.act("CloseSession", Bytes::new()).await.unwrap();
    for file in [
        world.server.dir().join("global.db"),
        lane_file(world.server.dir(), ALICE),
        lane_file(world.server.dir(), BOB),
    ] {
        assert_eq!(left_in(&file), NOTHING, "{file:?}");
    }
    world.one = one;
}

#[tokio::test]
async fn closing_the_session_drops_it() {
    let mut world = World::new().await;
    let file = lane_file(world.server.dir(), ALICE);
    for client in [&mut world.one, &mut world.two] {
        client.update("CREATE TEMP TABLE t (id INT)").await.unwrap();
        let insert = "INSERT INTO t (id) VALUES (1), (2)";
        client.update(insert).await.unwrap();
    }
    assert_eq!(left_in(&file), (2, 0));
    world.one.act("CloseSession", Bytes::new()).await.unwrap();
    assert_eq!(left_in(&file), (1, 0));
    refused(
        world.one.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    // The other session of the tenant is another one.
    assert_eq!(world.two.shows("SELECT count(*) FROM t").await, "2");
    // The id is good for another life.
    world
        .one
        .update("CREATE TEMP TABLE t (other INT)")
        .await
        .unwrap();
    assert_eq!(world.one.shows("SELECT count(other) FROM t").await, "0");
    world.one.act("CloseSession", Bytes::new()).await.unwrap();
    world.two.act("CloseSession", Bytes::new()).await.unwrap();
    assert_eq!(left_in(&file), NOTHING);
}

#[tokio::test]
async fn closing_one_of_its_connections_leaves_what_another_made() {
    let mut world = World::new().await;
    let mut sibling = Client::connect(&world.server, Some("alice-one")).await;
    world
        .one
        .update("CREATE TEMP TABLE t (id INT)")
        .await
        .unwrap();
    // As every driver does for each of its connections.
    sibling.act("CloseSession", Bytes::new()).await.unwrap();
    assert_eq!(sibling.shows("SELECT count(*) FROM t").await, "0");
    sibling
        .update("CREATE TEMP TABLE u (id INT)")
        .await
        .unwrap();
    world.one.act("CloseSession", Bytes::new()).await.unwrap();
    for table in ["t", "u"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(world.one.shows(&sql).await, "0", "{table}");
    }
    sibling.act("CloseSession", Bytes::new()).await.unwrap();
    assert_eq!(left_in(&lane_file(world.server.dir(), ALICE)), NOTHING);
}

#[tokio::test]
async fn closing_the_session_ends_its_transaction_and_what_that_made() {
    let mut world = World::new().await;
    let one = &mut world.one;
    one.update("BEGIN").await.unwrap();
    one.update("CREATE TEMP TABLE t (id INT)").await.unwrap();
    one.act("CloseSession", Bytes::new()).await.unwrap();
    refused(one.query("SELECT * FROM t").await, Code::NotFound, "`t`");
    assert_eq!(left_in(&lane_file(world.server.dir(), ALICE)), NOTHING);
}

#[tokio::test]
async fn an_idle_session_loses_it() {
    let server = TestServer::start_with(|config| config.sessions.idle_timeout_secs = 1).await;
    let mut world = World::on(server).await;
    let file = lane_file(world.server.dir(), ALICE);
    world
        .one
        .update("CREATE TEMP TABLE t (id INT)")
        .await
        .unwrap();
    world
        .two
        .update("CREATE TEMP TABLE t (id INT)")
        .await
        .unwrap();
    // While one is in use it stays, and the other's goes.
    while left_in(&file).0 == 2 {
        assert_eq!(world.two.shows("SELECT count(*) FROM t").await, "0");
    }
    assert_eq!(left_in(&file), (1, 0));
    assert_eq!(world.two.shows("SELECT count(*) FROM t").await, "0");
    world.one.bind(ALICE).await;
    refused(
        world.one.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
}

#[tokio::test]
async fn what_a_killed_server_left_is_gone_at_its_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(&mut command(dir.path())).await;
    for (session, tenant) in [("alice", ALICE), ("bob", BOB)] {
        let mut client = Client::over(server.channel().await, Some(session));
        client.bind(tenant).await;
        for sql in [
            "CREATE TABLE kept AS SELECT 1 AS id",
            "CREATE TEMP TABLE t AS SELECT 'canary' AS word",
            "BEGIN",
            "CREATE TEMP TABLE u AS SELECT 'canary' AS word",
        ] {
            client.query(sql).await.unwrap();
        }
    }
    let mut unbound = Client::over(server.channel().await, Some("nobody"));
    unbound.query("CREATE TEMP TABLE t (id INT)").await.unwrap();
    server.child.kill().await.unwrap();
    let files = [
        lane_file(dir.path(), ALICE),
        lane_file(dir.path(), BOB),
        dir.path().join("global.db"),
    ];
    for file in &files {
        assert_eq!(left_in(file), (1, 0));
    }

    let server = Process::start(&mut command(dir.path())).await;
    // Bindings survive, and what was the session's alone does not.
    for session in ["alice", "bob"] {
        let mut client = Client::over(server.channel().await, Some(session));
        for table in ["t", "u"] {
            let sql = format!("SELECT * FROM {table}");
            refused(client.query(&sql).await, Code::NotFound, table);
        }
        assert_eq!(client.shows("SELECT id FROM kept").await, "1");
    }
    for file in &files {
        gone(file, NOTHING).await;
    }
    for session in ["alice", "bob"] {
        let mut client = Client::over(server.channel().await, Some(session));
        client.query("CREATE TEMP TABLE t (id INT)").await.unwrap();
        assert_eq!(client.shows("SELECT count(*) FROM t").await, "0");
    }
    let files = std::fs::read_dir(dir.path().join("sessions")).unwrap();
    let is_lock = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".lock");
    let names = files.map(|file| file.unwrap().file_name());
    assert_eq!(names.filter(is_lock).count(), 1);
    server.signal("-TERM").await;
    assert_eq!(server.end().await.0, Some(0));
}

/// Symptom that must not be: a command beside a server takes the tables of the
/// server's sessions for leftovers.
#[tokio::test]
async fn a_process_leaves_the_tables_of_another_that_lives() {
    let mut world = World::new().await;
    world
        .one
        .update("CREATE TEMP TABLE t (id INT)")
        .await
        .unwrap();
    let file = lane_file(world.server.dir(), ALICE);
    let query = async |sql: &str| {
        let mut jammi = Command::new(JAMMI);
        jammi.current_dir(world.server.dir());
        jammi.args(["--artifact-dir", ".", "--tenant", ALICE]);
        jammi.args(["query", "--format", "csv", sql]);
        let ended = jammi.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&ended.stdout), text(&ended.stderr))
    };
    let (_, error) = query("SELECT * FROM t").await;
    assert!(error.contains("`t` does not exist"), "{error}");
    // It has a session of its own, as long as it runs.
    let script = "CREATE TEMP TABLE t AS SELECT 3 AS own; SELECT own FROM t";
    assert_eq!(query(script).await.0, "own\n3\n");
    assert_eq!(left_in(&file), (1, 0));
    assert_eq!(world.one.shows("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_session_has_only_so_many() {
    let limited = |config: &mut JammiConfig| config.sessions.temporary_tables_max = 2;
    let mut world = World::on(TestServer::start_with(limited).await).await;
    for client in [&mut world.one, &mut world.two] {
        for table in ["a", "b"] {
            let sql = format!("CREATE TEMP TABLE {table} (id INT)");
            client.update(&sql).await.unwrap();
        }
        let more = "CREATE TEMP TABLE c (id INT)";
        let text = "sessions.temporary_tables_max";
        refused(client.update(more).await, Code::ResourceExhausted, text);
        let ingested = temporary(create("c"));
        let answer = client.put_counted(&ingested, numbers("id", [1])).await;
        refused(answer, Code::ResourceExhausted, text);
        // Those that stay are not counted, and one that exists is no further one.
        client
            .update("CREATE TABLE IF NOT EXISTS kept (id INT)")
            .await
            .unwrap();
        client
            .update("CREATE TEMP TABLE IF NOT EXISTS a (id INT)")
            .await
            .unwrap();
        client.update("DROP TABLE a").await.unwrap();
        client.update(more).await.unwrap();
    }
    // The binding is the limit's too.
    world.one.bind(BOB).await;
    world
        .one
        .update("CREATE TEMP TABLE a (id INT)")
        .await
        .unwrap();
}

/// A session costs a client nothing, and one that is bound to nobody is not among
/// those that `sessions.max` counts otherwise.
#[tokio::test]
async fn only_so_many_sessions_have_any() {
    let limited = |config: &mut JammiConfig| config.sessions.max = 2;
    let server = TestServer::start_with(limited).await;
    let mut first = Client::connect(&server, Some("first")).await;
    let mut second = first.with_session("second");
    let mut third = first.with_session("third");
    let create = "CREATE TEMP TABLE t (id INT)";
    first.update(create).await.unwrap();
    second.update(create).await.unwrap();
    let answer = third.update(create).await;
    refused(answer, Code::ResourceExhausted, "sessions.max");
    first.update("CREATE TEMP TABLE u (id INT)").await.unwrap();
    second.act("CloseSession", Bytes::new()).await.unwrap();
    third.update(create).await.unwrap();
}

/// A command ends its session, and takes along what it made.
#[tokio::test]
async fn a_command_leaves_none_at_the_server() {
    let mut world = World::new().await;
    let mut jammi = Command::new(JAMMI);
    let url = format!("grpc://{}", world.server.grpc);
    jammi.args(["--url", &url, "--tenant", ALICE]);
    let script = "CREATE TEMP TABLE t AS SELECT 3 AS own; SELECT own FROM t";
    let ended = jammi.args(["query", "--format", "csv", script]).output();
    assert_eq!(ended.await.unwrap().stdout, b"own\n3\n");
    refused(
        world.one.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    assert_eq!(left_in(&lane_file(world.server.dir(), ALICE)), NOTHING);
}

#[tokio::test]
async fn rows_are_ingested_into_it_in_every_mode() {
    let mut world = World::new().await;
    let batch = || numbers("id", [1, 2]);
    world.one.put_counted(&create("t"), batch()).await.unwrap();
    let count = "SELECT count(*) FROM t";
    // Of one name, the flag says which is meant.
    refused(
        world
            .one
            .put_counted(&temporary(append("t")), batch())
            .await,
        Code::NotFound,
        "temporary table `t` does not exist",
    );
    for (command, rows) in [
        (create("t"), "2"),
        (append("t"), "4"),
        (create_append("t"), "6"),
        (replace("t"), "2"),
    ] {
        let command = temporary(command);
        let written = world.one.put_counted(&command, batch()).await.unwrap();
        assert_eq!(written, 2);
        assert_eq!(world.one.shows(count).await, rows, "{command:?}");
        assert_eq!(world.two.shows(count).await, "2", "{command:?}");
    }
    refused(
        world
            .one
            .put_counted(&temporary(create("t")), batch())
            .await,
        Code::AlreadyExists,
        "`t` exists already",
    );
    // Without it rows go where the name leads, and what is made is made to stay.
    world.one.put_counted(&append("t"), batch()).await.unwrap();
    assert_eq!(world.one.shows(count).await, "4");
    assert_eq!(world.two.shows(count).await, "2");
    world
        .one
        .put_counted(&replace("t"), numbers("id", [7]))
        .await
        .unwrap();
    assert_eq!(world.one.shows(count).await, "4");
    assert_eq!(world.two.shows("SELECT id FROM t").await, "7");
    refused(
        world.one.put_counted(&create("t"), batch()).await,
        Code::AlreadyExists,
        "`t` exists already",
    );
    // In a transaction too, and in the modes that make tables.
    let id = world.one.begin().await.unwrap();
    for command in [temporary(create("u")), temporary(append("u")), create("u")] {
        let command = CommandStatementIngest {
            transaction_id: Some(id.clone()),
            ..command
        };
        world.one.put_counted(&command, batch()).await.unwrap();
    }
    world.one.commit(&id).await.unwrap();
    let count = "SELECT count(*) FROM u";
    assert_eq!(world.one.shows(count).await, "4");
    assert_eq!(world.two.shows(count).await, "2");
    refused(world.bob.query(count).await, Code::NotFound, "`u`");
}

#[tokio::test]
async fn a_backup_restores_none() {
    let mut world = World::new().await;
    let file = lane_file(world.server.dir(), ALICE);
    world
        .one
        .update("CREATE TABLE kept AS SELECT 1 AS id")
        .await
        .unwrap();
    world
        .one
        .update("CREATE TEMP TABLE t AS SELECT 'canary' AS word")
        .await
        .unwrap();
    let jammi = async |arguments: &[&str]| {
        let mut jammi = Command::new(JAMMI);
        jammi.current_dir(world.server.dir());
        jammi.args(["--artifact-dir", ".", "--tenant", ALICE]);
        let ended = jammi.args(arguments).output().await.unwrap();
        assert!(ended.status.success(), "{ended:?}");
    };
    jammi(&["backup", "alice.backup"]).await;
    jammi(&["restore", "alice.backup"]).await;
    // Neither for the session that had it nor in the file.
    refused(
        world.one.query("SELECT * FROM t").await,
        Code::NotFound,
        "`t`",
    );
    assert_eq!(left_in(&file), NOTHING);
    assert_eq!(world.one.shows("SELECT id FROM kept").await, "1");
    world
        .one
        .update("CREATE TEMP TABLE t (id INT)")
        .await
        .unwrap();
    assert_eq!(world.one.shows("SELECT count(*) FROM t").await, "0");
}

fn embedded(engine: &Engine, tenant: &str) -> JammiSession {
    JammiSession::on(engine.clone()).with_tenant(TenantId::from_str(tenant).unwrap())
}

#[tokio::test]
async fn a_session_of_the_library_has_its_own() {
    let dir = Arc::new(TempDir::new().unwrap());
    let engine = Engine::open(&config(dir.path())).await.unwrap();
    let (one, two) = (embedded(&engine, ALICE), embedded(&engine, ALICE));
    let bob = embedded(&engine, BOB);
    rows(&one, "CREATE TEMP TABLE t AS SELECT 1 AS id").await;
    rows(&two, "CREATE TEMP TABLE t AS SELECT 2 AS id").await;
    // A clone is the same session.
    let clone = one.clone();
    assert_eq!(rows(&clone, "SELECT id FROM t").await, "1");
    assert_eq!(rows(&two, "SELECT id FROM t").await, "2");
    let error = refuses(&bob, "SELECT * FROM t").await.to_string();
    assert!(error.contains("does not exist"), "{error}");
    let tables = one.list_tables().await.unwrap();
    assert_eq!(tables.len(), 1);
    assert!(tables[0].is_temporary());

    let file = lane_file(dir.path(), ALICE);
    drop(one);
    assert_eq!(rows(&clone, "SELECT id FROM t").await, "1");
    // The last of them takes it along.
    drop(clone);
    gone(&file, (1, 0)).await;
    assert_eq!(rows(&two, "SELECT id FROM t").await, "2");
    two.close().await;
    assert_eq!(left_in(&file), NOTHING);
}

/// Another engine on the directory stands for another process.
#[tokio::test]
async fn what_an_engine_left_is_removed_by_the_next() {
    let dir = TempDir::new().unwrap();
    let file = lane_file(dir.path(), ALICE);
    let first = Engine::open(&config(dir.path())).await.unwrap();
    let session = embedded(&first, ALICE);
    rows(&session, "CREATE TEMP TABLE t AS SELECT 1 AS id").await;
    let second = Engine::open(&config(dir.path())).await.unwrap();
    let other = embedded(&second, ALICE);
    refuses(&other, "SELECT * FROM t").await;
    assert_eq!(rows(&session, "SELECT id FROM t").await, "1");
    rows(&other, "CREATE TEMP TABLE t AS SELECT 2 AS id").await;
    assert_eq!(left_in(&file), (2, 0));

    // The session outlives its engine by nothing.
    let first = std::thread::spawn(move || drop((session, first)));
    first.join().unwrap();
    let third = Engine::open(&config(dir.path())).await.unwrap();
    gone(&file, (1, 0)).await;
    assert_eq!(rows(&other, "SELECT id FROM t").await, "2");
    refuses(&embedded(&third, ALICE), "SELECT * FROM t").await;
}
