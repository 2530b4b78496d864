//! One request that reads rows of tenants for whom its sender does not act, beside
//! requests that do not.

use std::fs;

use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::CommandPreparedStatementQuery;
use jammi_db::audit;
use jammi_db::tenant::{GLOBAL_WRITER, OPERATOR, SUPER_ADMIN};
use tonic::{Code, Status};

use crate::authentication::{Guarded, answer};
use crate::client::{ALICE, BOB, Client, statement};
use crate::doors::options::options;
use crate::harness::TestServer;
use crate::writes::{append, numbers};

const CAROL: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c";
const NOBODY: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8eff";

const REASON: &str = "jammi-bypass-reason";
const TENANTS: &str = "jammi-bypass-tenants";

/// A server with a table and rows of a shared one of each of three tenants, and a client of
/// each; and one who may read others' rows, and acts for nobody.
struct World {
    guarded: Guarded,
    tenants: [Client; 3],
    support: Client,
}

impl World {
    async fn new() -> Self {
        let guarded = Guarded::start().await;
        let writer = guarded.key("writer", &[], &[GLOBAL_WRITER]).await;
        let mut writer = guarded.client(&writer, None).await;
        let shared = "CREATE TABLE visits (id BIGINT PRIMARY KEY, page TEXT)";
        writer.query(shared).await.unwrap();
        let mut tenants = Vec::new();
        for (user, tenant) in [("alice", ALICE), ("bob", BOB), ("carol", CAROL)] {
            let key = guarded.key(user, &[tenant], &[]).await;
            let mut client = guarded.client(&key, Some("own")).await;
            for sql in [
                "CREATE TABLE notes (id BIGINT PRIMARY KEY, note TEXT)".to_owned(),
                format!("INSERT INTO notes VALUES (1, 'note of {user}')"),
                format!("INSERT INTO visits VALUES (1, 'page of {user}')"),
            ] {
                client.query(&sql).await.unwrap();
            }
            tenants.push(client);
        }
        let support = guarded.key("support", &[], &[SUPER_ADMIN]).await;
        let support = guarded.client(&support, Some("support")).await;
        World {
            guarded,
            tenants: tenants.try_into().ok().unwrap(),
            support,
        }
    }
}

fn bypassing(client: &Client, tenants: &str, reason: &str) -> Client {
    client.clone().with(TENANTS, tenants).with(REASON, reason)
}

async fn shown(client: &mut Client, sql: &str) -> String {
    let rows = client.query(sql).await.unwrap();
    pretty_format_batches(&[rows]).unwrap().to_string()
}

fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.err().expect("it was let in");
    (status.code(), status.message().to_owned())
}

const EVERYTHING: [&str; 5] = [
    "SELECT note FROM notes",
    "SELECT note FROM mutable.public.notes",
    "SELECT tenant_id, page FROM visits",
    "SELECT table_name FROM information_schema.tables",
    "SELECT v.page, n.note FROM visits AS v LEFT JOIN notes AS n ON v.id = n.id",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reads_the_tenants_that_it_names_and_the_next_one_does_not() {
    let mut world = World::new().await;
    let both = format!("{ALICE},{BOB}");
    let mut reader = bypassing(&world.support, &both, "ticket 7");
    let visits = shown(
        &mut reader,
        "SELECT tenant_id, page FROM visits ORDER BY page",
    )
    .await;
    assert!(
        visits.contains("page of alice") && visits.contains("page of bob"),
        "{visits}"
    );
    // A name means the object of the first tenant that has it.
    let notes = shown(&mut reader, "SELECT note FROM notes").await;
    assert!(
        notes.contains("note of alice") && !notes.contains("note of bob"),
        "{notes}"
    );
    let mut of_bob = bypassing(&world.support, BOB, "ticket 7");
    let notes = shown(&mut of_bob, "SELECT note FROM notes").await;
    assert!(
        notes.contains("note of bob") && !notes.contains("note of alice"),
        "{notes}"
    );
    for sql in EVERYTHING {
        let rows = shown(&mut reader, sql).await;
        assert!(
            !rows.contains("carol") && !rows.contains(CAROL),
            "{sql}: {rows}"
        );
    }

    // As drivers do it that prepare whatever they are given.
    let prepared = reader
        .prepare("SELECT page FROM visits ORDER BY page")
        .await
        .unwrap();
    let prepared = CommandPreparedStatementQuery {
        prepared_statement_handle: prepared.prepared_statement_handle,
    };
    assert_eq!(reader.rows(&prepared).await.unwrap().num_rows(), 2);
    let info = reader
        .info(&statement("SELECT page FROM visits"))
        .await
        .unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();

    // Nothing is left of it in the session.
    let support = &mut world.support;
    let shared = shown(support, "SELECT page FROM visits").await;
    assert!(!shared.contains("page of"), "{shared}");
    assert_eq!(
        refused(support.query("SELECT note FROM notes").await).0,
        Code::NotFound
    );
    assert!(support.get(ticket.clone()).await.is_err());
    assert!(support.info(&prepared).await.is_err());
    // Nor is a ticket of it anybody else's.
    for client in &mut world.tenants {
        assert!(client.get(ticket.clone()).await.is_err());
    }

    // Those whose rows were read see what they saw before, also meanwhile.
    let users = ["alice", "bob", "carol"];
    for _ in 0..10 {
        let [alice, bob, carol] = &mut world.tenants;
        let sql = "SELECT v.page, n.note FROM visits AS v JOIN notes AS n ON v.id = n.id";
        let (_, alice, bob, carol) = tokio::join!(
            shown(&mut reader, sql),
            shown(alice, sql),
            shown(bob, sql),
            shown(carol, sql),
        );
        for (user, rows) in users.into_iter().zip([alice, bob, carol]) {
            assert!(rows.contains(&format!("page of {user}")), "{rows}");
            for other in users.into_iter().filter(|other| *other != user) {
                assert!(!rows.contains(other), "{rows}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_reads_that_and_why_its_rows_were_read() {
    let mut world = World::new().await;
    let mut reader = bypassing(
        &world.support,
        &format!("{ALICE}, {BOB}"),
        "ticket 7: totals",
    );
    reader.query("SELECT count(*) FROM visits").await.unwrap();

    let told = "SELECT user_name, roles, bypass_reason, statement FROM jammi.audit.events \
                WHERE method = 'bypass'";
    let [alice, bob, carol] = &mut world.tenants;
    for client in [alice, bob] {
        let told = shown(client, told).await;
        assert!(
            told.contains("api-key:support") && told.contains("ticket 7: totals"),
            "{told}"
        );
        // What others' rows were asked for is not its matter.
        assert!(!told.contains("visits"), "{told}");
        let all = shown(client, "SELECT * FROM jammi.audit.events").await;
        assert!(!all.contains("SELECT count(*) FROM visits"), "{all}");
    }
    let told_carol = shown(carol, "SELECT * FROM jammi.audit.events").await;
    assert!(
        !told_carol.contains("support") && !told_carol.contains("ticket 7"),
        "{told_carol}"
    );

    let operator = world.guarded.key("ops", &[], &[OPERATOR]).await;
    let mut operator = world.guarded.client(&operator, None).await;
    let whole = "SELECT statement, scopes, policies FROM jammi.audit.events \
                 WHERE bypass_reason = 'ticket 7: totals' AND method LIKE '%/DoGet'";
    let told = shown(&mut operator, whole).await;
    let scopes = format!("[tenant {ALICE}, tenant {BOB}, global]");
    assert!(
        told.contains("SELECT count(*) FROM visits")
            && told.contains(&scopes)
            && told.contains("[bypass, shared]"),
        "{told}"
    );
    // The trail is not among what such a request reads.
    let rows = reader
        .query("SELECT * FROM jammi.audit.events")
        .await
        .unwrap();
    assert_eq!(rows.num_rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_recorded_before_the_first_row_leaves() {
    // Other records wait for a minute to be written together.
    let server = TestServer::start_with(|config| config.audit.flush_ms = 60_000).await;
    let mut reader = bypassing(
        &Client::connect(&server, None).await,
        ALICE,
        "before any row",
    );
    let many = statement("SELECT * FROM generate_series(1, 10000000)");
    let info = reader.info(&many).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let request = reader.request(ticket);
    let mut rows = reader.flight.do_get(request).await.unwrap().into_inner();
    rows.message().await.unwrap();
    let mut trail = String::new();
    for entry in fs::read_dir(audit::directory(server.dir())).unwrap() {
        trail += &String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap());
    }
    let of_it = trail.lines().filter(|line| line.contains("\"bypass\""));
    let with_reason = of_it.filter(|line| line.contains("before any row"));
    assert_eq!(with_reason.count(), 2, "{trail}");

    // Where nothing can be recorded nothing is read.
    let server = TestServer::start_with(|config| config.audit.enabled = false).await;
    let mut reader = bypassing(&Client::connect(&server, None).await, ALICE, "ticket 7");
    let (code, text) = refused(reader.query("SELECT 1").await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("audit.enabled"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_role_whether_or_not_there_is_such_a_tenant() {
    let world = World::new().await;
    let other_roles = world
        .guarded
        .key("ops", &[], &[OPERATOR, GLOBAL_WRITER])
        .await;
    let other_roles = world.guarded.client(&other_roles, Some("ops")).await;
    let [alice, _, _] = &world.tenants;
    for client in [alice, &other_roles] {
        for tenant in [ALICE, BOB, NOBODY, "nonsense"] {
            let mut client = bypassing(client, tenant, "curiosity");
            let (code, text) = refused(client.query("SELECT note FROM notes").await);
            assert_eq!(code, Code::PermissionDenied, "{text}");
            assert!(
                text.starts_with("this takes the role super-admin"),
                "{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_and_does_nothing_else() {
    let mut world = World::new().await;
    let mut reader = bypassing(&world.support, ALICE, "ticket 7");
    for sql in [
        "INSERT INTO notes VALUES (2, 'by support')",
        "INSERT INTO visits VALUES (2, 'by support')",
        "UPDATE notes SET note = 'by support'",
        "DELETE FROM notes",
        "TRUNCATE TABLE notes",
        "DROP TABLE notes",
        "CREATE TABLE others (id BIGINT PRIMARY KEY)",
        "CREATE TABLE others AS SELECT * FROM notes",
        "CREATE VIEW others AS SELECT * FROM notes",
        "CREATE TEMPORARY TABLE others (id BIGINT PRIMARY KEY)",
        "BEGIN",
        "COMMIT",
        "KILL QUERY 1",
        &format!("SET app.current_tenant_id = '{ALICE}'"),
        &format!("SELECT set_config('app.current_tenant_id', '{ALICE}', false)"),
        "RESET app.current_tenant_id",
    ] {
        for answer in [
            reader.query(sql).await.map(drop),
            reader.update(sql).await.map(drop),
            reader.prepare(sql).await.map(drop),
        ] {
            let (code, text) = refused(answer);
            assert!(
                [Code::PermissionDenied, Code::InvalidArgument].contains(&code),
                "{sql}: {code:?} {text}"
            );
        }
    }
    let option = options([("tenant", Some(ALICE))]);
    for (action, body) in [
        ("SetSessionOptions", option),
        ("BeginTransaction", Vec::new()),
    ] {
        let (code, text) = refused(reader.act(action, body).await);
        assert_eq!(code, Code::InvalidArgument, "{action}");
        assert!(text.contains("is a query by Flight SQL"), "{text}");
    }
    let rows = reader
        .put_counted(&append("notes"), numbers("id", [2]))
        .await;
    assert_eq!(refused(rows).0, Code::PermissionDenied);
    // Nor is it a part of what somebody has begun who acts for the tenant as well.
    let roles = [SUPER_ADMIN];
    let both = world.guarded.key("both", &[ALICE], &roles).await;
    let mut both = world.guarded.client(&both, Some("both")).await;
    let begun = both.begin().await.unwrap();
    let mut within = bypassing(&both, ALICE, "ticket 7");
    let (code, text) = refused(within.query_in("SELECT note FROM notes", &begun).await);
    assert_eq!(code, Code::FailedPrecondition, "{text}");
    both.roll_back(&begun).await.unwrap();

    let channel = world.guarded.server.channel().await;
    for method in [
        "/jammi.v1.session.SessionService/SetTenant",
        "/jammi.v1.catalog.CatalogService/RegisterSource",
        "/jammi.v1.catalog.CatalogService/ListTables",
        "/jammi.v1.operator.OperatorService/ListKeys",
        "/jammi.v1.tenants.TenantService/EraseTenant",
        "/arrow.flight.protocol.FlightService/PollFlightInfo",
    ] {
        let status = answer(&channel, method, reader.request(Vec::new())).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status:?}");
        assert!(
            status.message().contains("is a query by Flight SQL"),
            "{status:?}"
        );
    }
    // The session is bound to nobody still, and Alice has what she had.
    let bound = shown(&mut world.support, "SHOW app.current_tenant_id").await;
    assert!(!bound.contains(ALICE), "{bound}");
    let [alice, ..] = &mut world.tenants;
    let notes = shown(alice, "SELECT id, note FROM notes").await;
    assert!(
        notes.contains("note of alice") && !notes.contains("by support"),
        "{notes}"
    );
    assert_eq!(
        alice
            .query("SELECT * FROM visits")
            .await
            .unwrap()
            .num_rows(),
        1
    );
    assert_eq!(
        refused(alice.query("SELECT * FROM others").await).0,
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_says_is_read_or_refused() {
    let world = World::new().await;
    let support = &world.support;
    for (client, part) in [
        (
            support.clone().with(TENANTS, ALICE),
            "jammi-bypass-reason is missing",
        ),
        (
            support.clone().with(REASON, "why"),
            "jammi-bypass-tenants is missing",
        ),
        (bypassing(support, "*", "why"), "UUID"),
        (
            bypassing(support, ALICE, "a").with(REASON, "b"),
            "different values",
        ),
    ] {
        let (code, text) = refused(client.clone().query("SELECT note FROM notes").await);
        assert_eq!(code, Code::InvalidArgument, "{text}");
        assert!(text.contains(part), "{text}");
    }
}
