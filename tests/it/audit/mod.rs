//! The audit trail at the wire: what is in it and who may read it.

mod chain;
mod requests;

use std::fs;
use std::path::Path;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use jammi_db::audit;
use jammi_db::auth::{ApiKeys, IssuedKey, NewApiKey};
use jammi_db::backend::Backend;
use jammi_db::config::{AuthenticationMethod, LanesConfig};
use jammi_db::engine::TENANT_SETTING;
use jammi_db::tenant::{ActsFor, GLOBAL_WRITER, OPERATOR};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{ALICE, BOB, Client, alice_and_bob};
use crate::harness::{TestServer, set_tenant};

/// Rows as text.
fn texts(rows: &RecordBatch) -> Vec<Vec<String>> {
    let text = |row, column: &ArrayRef| array_value_to_string(column, row).unwrap();
    (0..rows.num_rows())
        .map(|row| {
            rows.columns()
                .iter()
                .map(|column| text(row, column))
                .collect()
        })
        .collect()
}

/// The columns of the records for which `condition` holds, in their order.
async fn events(client: &mut Client, columns: &str, condition: &str) -> Vec<Vec<String>> {
    let sql = format!(
        "SELECT {columns} FROM jammi.audit.events WHERE {condition} \
         AND statement NOT LIKE '%audit%'"
    );
    texts(&client.query(&sql).await.unwrap())
}

/// All that is in the files of a trail.
fn files(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(audit::directory(dir)).unwrap() {
        all.push_str(&String::from_utf8_lossy(
            &fs::read(entry.unwrap().path()).unwrap(),
        ));
    }
    all
}

/// The faults of a trail that is at rest.
fn faults(dir: &Path) -> Vec<audit::Fault> {
    audit::verify(&audit::directory(dir), None, None)
        .unwrap()
        .faults
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_reads_what_it_did_itself_and_nothing_of_others() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) = alice_and_bob(&server).await;
    for (client, name) in [(&mut alice, "hers"), (&mut bob, "canary")] {
        for sql in [
            format!("CREATE TABLE {name} (id INT PRIMARY KEY, word TEXT)"),
            format!("INSERT INTO {name} VALUES (1, 'secret {name}'), (2, 'b'), (3, 'c')"),
            format!("SELECT word FROM {name} WHERE word <> 'secret {name}' -- {name}_comment"),
        ] {
            client.query(&sql).await.unwrap();
        }
    }
    let columns = "method, statement, tables, scopes, rows, outcome";
    let condition = "method LIKE '%/DoGet' AND statement IS NOT NULL";
    let told = events(&mut alice, columns, condition).await;
    let scopes = format!("[tenant {ALICE}, global]");
    let expected = [
        ("CREATE TABLE hers (id INT PRIMARY KEY, word TEXT)", "0"),
        ("INSERT INTO hers VALUES (?, ?), (?, ?), (?, ?)", "3"),
        ("SELECT word FROM hers WHERE word <> ?", "2"),
    ]
    .map(|(sql, rows)| {
        let method = "/arrow.flight.protocol.FlightService/DoGet";
        [
            "".to_owned() + method,
            sql.into(),
            "[mutable.public.hers]".into(),
        ]
        .into_iter()
        .chain([scopes.clone(), rows.into(), "OK".into()])
        .collect::<Vec<_>>()
    });
    assert_eq!(told, expected);

    // Nothing of Bob's, by whichever way she asks.
    for sql in [
        "SELECT * FROM jammi.audit.events",
        "SELECT * FROM jammi.audit.events WHERE tenant_id IS NULL OR tenant_id IS NOT NULL",
        "SELECT DISTINCT tenant_id FROM jammi.audit.events",
        "SELECT e.* FROM jammi.audit.events AS e, (SELECT 1) AS one",
    ] {
        for row in texts(&alice.query(sql).await.unwrap()) {
            let row = row.join("|");
            assert!(
                !row.contains("canary") && !row.contains(BOB),
                "{sql}: {row}"
            );
            assert!(row.contains(ALICE), "{sql}: {row}");
        }
    }
    let with_canary = "SELECT count(*) FROM jammi.audit.events WHERE statement LIKE '%canary%'";
    let counted = "SELECT count(*) FROM jammi.audit.events";
    let before = texts(&alice.query(with_canary).await.unwrap());
    bob.query("SELECT * FROM canary").await.unwrap();
    let after = texts(&alice.query(with_canary).await.unwrap());
    // What she asks about it is all that there is of it: three records a question.
    let number = |rows: &Vec<Vec<String>>| rows[0][0].parse::<u64>().unwrap();
    assert_eq!((number(&before), number(&after)), (0, 0));
    assert!(number(&texts(&alice.query(counted).await.unwrap())) > 10);

    // Whoever runs the installation, bound to nobody, reads all of it.
    let mut nobody = Client::connect(&server, None).await;
    let whose = "DISTINCT coalesce(tenant_id, 'none')";
    let mut tenants: Vec<String> = events(&mut nobody, whose, "true").await.concat();
    tenants.sort();
    assert_eq!(tenants, [ALICE, BOB, "none"]);

    let dir = server.stop().await;
    let all = files(dir.path());
    for value in [
        "secret hers",
        "secret canary",
        "_comment",
        "alice\"",
        "bob\"",
    ] {
        assert!(!all.contains(value), "{value}");
    }
    assert_eq!(faults(dir.path()), []);
}

/// A server that asks for keys, and those who make them.
async fn guarded() -> (TestServer, ApiKeys) {
    let server = TestServer::start_with(|config| {
        config.auth.methods = vec![AuthenticationMethod::ApiKey];
    })
    .await;
    let backend = Backend::open(server.dir(), &LanesConfig::default()).await;
    (server, ApiKeys::new(backend.unwrap(), || 1_700_000_000_000))
}

async fn key(keys: &ApiKeys, user: &str, acts_for: ActsFor, roles: &[&str]) -> IssuedKey {
    let new = NewApiKey {
        user: user.into(),
        acts_for,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        expires_at_ms: None,
    };
    keys.create(new).await.unwrap()
}

#[tokio::test]
async fn what_is_refused_is_recorded_and_no_secret_is() {
    let (server, keys) = guarded().await;
    let alices = key(&keys, "alice", ActsFor::only([ALICE.parse().unwrap()]), &[]).await;
    let operators = key(&keys, "olga", ActsFor::only([]), &[OPERATOR]).await;
    let nobodys = key(&keys, "nora", ActsFor::only([]), &[GLOBAL_WRITER]).await;
    let channel = server.channel().await;
    let client = |key: &IssuedKey| Client::over(channel.clone(), None).holding(&key.text);

    // Nobody who is known, with a credential that is not.
    let mut stranger = Client::over(channel.clone(), Some("strangers-session"))
        .sending("Bearer jammi_0123456789ab_canary".into());
    stranger.query("SELECT 'unseen'").await.unwrap_err();
    let mut absent = Client::over(channel.clone(), None);
    absent.query("SELECT 1").await.unwrap_err();
    // A tenant that is not the principal's, statements that are none, and a table that
    // is not there.
    let mut alice = client(&alices).with_session("alices-session");
    let request = alice.request(set_tenant(BOB));
    let denied = alice.sessions.set_tenant(request).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    for sql in [
        "SELEC 'typo_canary'",
        "SELECT 'open_canary",
        "SELECT * FROM absent",
    ] {
        alice.query(sql).await.unwrap_err();
    }
    alice.query("SELECT 1").await.unwrap();
    // Health and reflection belong to nobody.
    let mut health = HealthClient::new(channel.clone());
    health.check(HealthCheckRequest::default()).await.unwrap();

    let mut operator = client(&operators);
    let columns = "method, coalesce(user_name, ''), coalesce(tenant_id, ''), \
                   coalesce(statement, ''), outcome";
    let all = format!("SELECT {columns} FROM jammi.audit.events ORDER BY time, id");
    let all = texts(&operator.query(&all).await.unwrap());
    let info = "/arrow.flight.protocol.FlightService/GetFlightInfo";
    let set = "/jammi.v1.session.SessionService/SetTenant";
    let bobs = format!("SET {TENANT_SETTING} = '{BOB}'");
    let expected: [[&str; 5]; 7] = [
        [info, "", "", "", "UNAUTHENTICATED"],
        [info, "", "", "", "UNAUTHENTICATED"],
        [set, "api-key:alice", ALICE, &bobs, "PERMISSION_DENIED"],
        [info, "api-key:alice", ALICE, "SELEC ?", "INVALID_ARGUMENT"],
        [
            info,
            "api-key:alice",
            ALICE,
            "SELECT ...",
            "INVALID_ARGUMENT",
        ],
        [
            info,
            "api-key:alice",
            ALICE,
            "SELECT * FROM absent",
            "NOT_FOUND",
        ],
        [info, "api-key:alice", ALICE, "SELECT ?", "OK"],
    ];
    assert_eq!(all[..expected.len()], expected);
    assert!(!all.iter().any(|row| row[0].contains("grpc")), "{all:?}");

    // She sees hers; who is bound to nobody and does not run the installation sees none.
    let hers = alice
        .query("SELECT DISTINCT user_name FROM jammi.audit.events")
        .await;
    assert_eq!(texts(&hers.unwrap()), [["api-key:alice"]]);
    let none = client(&nobodys)
        .query("SELECT * FROM jammi.audit.events")
        .await;
    assert_eq!(none.unwrap().num_rows(), 0);

    let sessions = "SELECT DISTINCT session, peer IS NOT NULL, request_id IS NOT NULL \
                    FROM jammi.audit.events WHERE user_name = 'api-key:alice'";
    let sessions = texts(&operator.query(sessions).await.unwrap());
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!((sessions[0][0].len(), &*sessions[0][1]), (32, "true"));

    let dir = server.stop().await;
    let all = files(dir.path());
    let secrets = [&alices, &operators, &nobodys].map(|key| key.text.as_str());
    let canaries = ["canary", "unseen", "alices-session", "strangers-session"];
    for secret in secrets.into_iter().chain(canaries) {
        assert!(!all.contains(secret), "{secret}");
    }
}
