//! The access matrix: every RPC and every kind of statement against an object of
//! the caller's own lane, of the global one, and of another tenant's.
//!
//! What the server offers and this table does not list fails the test, so that
//! a new way in cannot arrive unseen.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema};
use jammi_db::engine::StatementKind;
use jammi_db::server::method_names;
use jammi_db::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use jammi_db::server::proto::catalog::{
    CreateTableRequest, DescribeModelRequest, DescribeSourceRequest, DescribeTableRequest,
    DropModelRequest, DropSourceRequest, DropTableRequest, Lane, ListModelsRequest,
    ListSourcesRequest, ListTablesRequest, RefreshSourceRequest, RegisterModelRequest,
    RegisterSourceRequest, SourceFormat,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client};
use crate::definitions::schema_message;
use crate::harness::{TestServer, bind, bound, in_session};

/// What Alice is answered about an object of each lane.
struct Access {
    own: Code,
    global: Code,
    foreign: Code,
}

const fn access(own: Code, global: Code, foreign: Code) -> Access {
    Access {
        own,
        global,
        foreign,
    }
}

/// An RPC reads the objects of both readable lanes.
const READS: Access = access(Code::Ok, Code::Ok, Code::NotFound);
/// An RPC changes an object: what is shared is seen and not changed.
const WRITES: Access = access(Code::Ok, Code::PermissionDenied, Code::NotFound);
/// An RPC makes an object: only the own lane's names are taken.
const CREATES: Access = access(Code::AlreadyExists, Code::Ok, Code::Ok);

/// How an RPC meets a lane.
enum Row {
    /// It names an object.
    Object(Access),
    /// It lists objects: the own and the global ones are there, the foreign not.
    Lists,
    /// It says, makes or ends the binding of the caller's own session alone.
    Session,
    /// It carries a statement or command; the statements' table is below.
    Flight,
    /// It is an operator's: see `operator` and `tenants`. It is about no lane's objects.
    Operator,
    /// It says what the server is, and nothing of a lane.
    Laneless,
}

fn rpcs() -> Vec<(&'static str, Row)> {
    use Row::*;
    vec![
        ("/jammi.v1.session.SessionService/SetTenant", Session),
        ("/jammi.v1.session.SessionService/GetTenant", Session),
        ("/jammi.v1.session.SessionService/ClearTenant", Session),
        (
            "/jammi.v1.catalog.CatalogService/RegisterSource",
            Object(CREATES),
        ),
        (
            "/jammi.v1.catalog.CatalogService/DescribeSource",
            Object(READS),
        ),
        ("/jammi.v1.catalog.CatalogService/ListSources", Lists),
        (
            "/jammi.v1.catalog.CatalogService/RefreshSource",
            Object(WRITES),
        ),
        (
            "/jammi.v1.catalog.CatalogService/DropSource",
            Object(WRITES),
        ),
        (
            "/jammi.v1.catalog.CatalogService/RegisterModel",
            Object(CREATES),
        ),
        (
            "/jammi.v1.catalog.CatalogService/DescribeModel",
            Object(READS),
        ),
        ("/jammi.v1.catalog.CatalogService/ListModels", Lists),
        ("/jammi.v1.catalog.CatalogService/DropModel", Object(WRITES)),
        (
            "/jammi.v1.catalog.CatalogService/CreateTable",
            Object(CREATES),
        ),
        (
            "/jammi.v1.catalog.CatalogService/DescribeTable",
            Object(READS),
        ),
        ("/jammi.v1.catalog.CatalogService/ListTables", Lists),
        ("/jammi.v1.catalog.CatalogService/DropTable", Object(WRITES)),
        ("/jammi.v1.tenants.TenantService/CreateTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ListTenants", Operator),
        ("/jammi.v1.tenants.TenantService/DescribeTenant", Operator),
        ("/jammi.v1.tenants.TenantService/UpdateTenant", Operator),
        ("/jammi.v1.tenants.TenantService/SuspendTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ResumeTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ExportTenant", Operator),
        ("/jammi.v1.tenants.TenantService/ImportTenant", Operator),
        ("/jammi.v1.tenants.TenantService/EraseTenant", Operator),
        ("/jammi.v1.tenants.TenantService/GetUsage", Operator),
        ("/jammi.v1.operator.OperatorService/CreateKey", Operator),
        ("/jammi.v1.operator.OperatorService/ListKeys", Operator),
        ("/jammi.v1.operator.OperatorService/RotateKey", Operator),
        ("/jammi.v1.operator.OperatorService/RevokeKey", Operator),
        ("/jammi.v1.operator.OperatorService/CreateUser", Operator),
        ("/jammi.v1.operator.OperatorService/ListUsers", Operator),
        ("/jammi.v1.operator.OperatorService/SetPassword", Operator),
        ("/jammi.v1.operator.OperatorService/DropUser", Operator),
        ("/jammi.v1.operator.OperatorService/ListSessions", Operator),
        ("/jammi.v1.operator.OperatorService/EndSession", Operator),
        ("/jammi.v1.operator.OperatorService/ListQueries", Operator),
        ("/jammi.v1.operator.OperatorService/CancelQuery", Operator),
        ("/arrow.flight.protocol.FlightService/Handshake", Flight),
        ("/arrow.flight.protocol.FlightService/ListFlights", Flight),
        ("/arrow.flight.protocol.FlightService/GetFlightInfo", Flight),
        (
            "/arrow.flight.protocol.FlightService/PollFlightInfo",
            Flight,
        ),
        ("/arrow.flight.protocol.FlightService/GetSchema", Flight),
        ("/arrow.flight.protocol.FlightService/DoGet", Flight),
        ("/arrow.flight.protocol.FlightService/DoPut", Flight),
        ("/arrow.flight.protocol.FlightService/DoExchange", Flight),
        ("/arrow.flight.protocol.FlightService/DoAction", Flight),
        ("/arrow.flight.protocol.FlightService/ListActions", Flight),
        ("/grpc.health.v1.Health/Check", Laneless),
        ("/grpc.health.v1.Health/Watch", Laneless),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Laneless,
        ),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Laneless,
        ),
    ]
}

/// Statements of each kind, about table `{t}` where the kind names a table.
pub fn statements(kind: StatementKind) -> &'static [&'static str] {
    match kind {
        StatementKind::Query => &[
            "SELECT * FROM {t}",
            "SELECT (SELECT count(*) FROM {t})",
            "WITH w AS (SELECT * FROM {t}) SELECT * FROM w",
        ],
        StatementKind::Explain => &[
            "EXPLAIN SELECT * FROM {t}",
            "EXPLAIN VERBOSE SELECT * FROM {t}",
            "EXPLAIN ANALYZE SELECT * FROM {t}",
        ],
        StatementKind::Describe => &["DESCRIBE {t}"],
        StatementKind::ShowColumns => &["SHOW COLUMNS FROM {t}"],
        StatementKind::ShowTables => &["SHOW TABLES"],
        StatementKind::ShowFunctions => &["SHOW FUNCTIONS"],
        StatementKind::Insert => &[
            "INSERT INTO {t} (id) VALUES (7)",
            "INSERT INTO {t} (id) SELECT 7",
        ],
        StatementKind::Update => &["UPDATE {t} SET word = 'changed'"],
        StatementKind::Delete => &["DELETE FROM {t}", "DELETE FROM {t} WHERE id = 1"],
        StatementKind::Truncate => &["TRUNCATE {t}"],
        StatementKind::CreateTable => &[
            "CREATE TABLE {t} (id INT)",
            "CREATE TABLE {t} AS SELECT 1 AS id",
        ],
        StatementKind::DropTable => &["DROP TABLE {t}"],
        StatementKind::Merge => &[
            "MERGE INTO {t} USING (SELECT 1 AS id) s ON {t}.id = s.id WHEN MATCHED THEN DELETE \
             WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        ],
        StatementKind::AlterTable => &[
            "ALTER TABLE {t} ADD COLUMN added INT DEFAULT 3",
            "ALTER TABLE {t} RENAME TO renamed",
        ],
        StatementKind::CreateIndex => &["CREATE INDEX {t}_by_word ON {t} (word)"],
        StatementKind::DropIndex => &["DROP INDEX {t}_index"],
        StatementKind::CreateView => &["CREATE VIEW {t} AS SELECT 1 AS one"],
        StatementKind::DropView => &["DROP VIEW {t}_view"],
        // About no table.
        StatementKind::Transaction => &[],
        StatementKind::Set => &[
            "SET app.current_tenant_id = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b'",
            "RESET app.current_tenant_id",
            "SELECT set_config('app.current_tenant_id', '', false)",
        ],
        StatementKind::ShowSetting => &["SHOW app.current_tenant_id"],
        // About no table: see `operator`.
        StatementKind::Kill => &["KILL QUERY 4711", "KILL CONNECTION 4711"],
    }
}

/// What Alice is answered when a statement that is no query names a stored table
/// of each lane.
fn table_access(kind: StatementKind) -> Access {
    match kind {
        // She has rows of her own in a table that is shared.
        StatementKind::Insert
        | StatementKind::Update
        | StatementKind::Delete
        | StatementKind::Merge
        | StatementKind::Truncate => READS,
        StatementKind::CreateTable | StatementKind::CreateView => CREATES,
        // The index of a shared table is not looked for.
        StatementKind::DropIndex => access(Code::Ok, Code::NotFound, Code::NotFound),
        StatementKind::DropTable
        | StatementKind::AlterTable
        | StatementKind::CreateIndex
        | StatementKind::DropView => WRITES,
        StatementKind::Query
        | StatementKind::Explain
        | StatementKind::Describe
        | StatementKind::ShowColumns
        | StatementKind::ShowTables
        | StatementKind::ShowFunctions
        | StatementKind::ShowSetting
        | StatementKind::Set
        | StatementKind::Kill
        | StatementKind::Transaction => READS,
    }
}

/// A server with a source, a model and a table in each lane: `own_*` is Alice's,
/// `global_*` shared, `foreign_*` Bob's.
struct World {
    server: TestServer,
    catalog: CatalogServiceClient<Channel>,
}

const LANES: [(&str, &str); 3] = [("own", "alice"), ("global", "operator"), ("foreign", "bob")];

impl World {
    async fn new() -> World {
        let server = TestServer::start().await;
        let mut sessions = server.sessions().await;
        bind(&mut sessions, "alice", ALICE).await.unwrap();
        bind(&mut sessions, "bob", BOB).await.unwrap();
        let mut catalog = server.catalog().await;
        for (lane, session) in LANES {
            let path = server.dir().join(format!("{lane}.csv"));
            fs::write(&path, format!("id,lane\n1,{lane}-row\n")).unwrap();
            let request = register_source(&format!("{lane}_source"), &path);
            catalog
                .register_source(in_session(session, request))
                .await
                .unwrap();
            let request = register_model(&format!("{lane}_model"));
            catalog
                .register_model(in_session(session, request))
                .await
                .unwrap();
            let request = create_table(&format!("{lane}_table"));
            catalog
                .create_table(in_session(session, request))
                .await
                .unwrap();
        }
        World { server, catalog }
    }

    /// What Alice is answered when she calls `method` about the object of `lane`.
    async fn call(&mut self, method: &str, lane: &str) -> Result<(), Status> {
        let source = format!("{lane}_source");
        let model = format!("{lane}_model");
        let table = format!("{lane}_table");
        let version = "1".to_owned();
        let catalog = &mut self.catalog;
        match method.rsplit('/').next().unwrap() {
            "RegisterSource" => {
                let path = self.server.dir().join("own.csv");
                let request = in_session("alice", register_source(&source, &path));
                catalog.register_source(request).await.map(drop)
            }
            "DescribeSource" => {
                let request = DescribeSourceRequest { name: source };
                catalog
                    .describe_source(in_session("alice", request))
                    .await
                    .map(drop)
            }
            "RefreshSource" => {
                let request = RefreshSourceRequest { name: source };
                catalog
                    .refresh_source(in_session("alice", request))
                    .await
                    .map(drop)
            }
            "DropSource" => {
                let request = DropSourceRequest { name: source };
                catalog
                    .drop_source(in_session("alice", request))
                    .await
                    .map(drop)
            }
            "RegisterModel" => {
                let request = in_session("alice", register_model(&model));
                catalog.register_model(request).await.map(drop)
            }
            "DescribeModel" => {
                let request = DescribeModelRequest {
                    name: model,
                    version,
                };
                catalog
                    .describe_model(in_session("alice", request))
                    .await
                    .map(drop)
            }
            "DropModel" => {
                let request = DropModelRequest {
                    name: model,
                    version,
                };
                catalog
                    .drop_model(in_session("alice", request))
                    .await
                    .map(drop)
            }
            "CreateTable" => {
                let request = in_session("alice", create_table(&table));
                catalog.create_table(request).await.map(drop)
            }
            "DescribeTable" => {
                let request = in_session("alice", DescribeTableRequest { name: table });
                catalog.describe_table(request).await.map(drop)
            }
            "DropTable" => {
                let request = in_session("alice", DropTableRequest { name: table });
                catalog.drop_table(request).await.map(drop)
            }
            other => panic!("{other} names no object"),
        }
    }
}

fn register_source(name: &str, path: &Path) -> RegisterSourceRequest {
    RegisterSourceRequest {
        name: name.into(),
        location: path.to_str().unwrap().into(),
        format: SourceFormat::Unspecified.into(),
        tenant_column: None,
    }
}

fn register_model(name: &str) -> RegisterModelRequest {
    RegisterModelRequest {
        name: name.into(),
        version: "1".into(),
        uri: "s3://models/1".into(),
        metadata: String::new(),
    }
}

fn create_table(name: &str) -> CreateTableRequest {
    CreateTableRequest {
        name: name.into(),
        schema: schema_message(&Schema::new(vec![Field::new("id", DataType::Int64, false)])),
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        if_not_exists: false,
    }
}

fn code<T>(answer: &Result<T, Status>) -> Code {
    answer.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

#[test]
fn every_rpc_that_is_served_has_a_row() {
    let served: BTreeSet<String> = method_names().iter().map(|name| name.to_string()).collect();
    let listed: BTreeSet<String> = rpcs().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(served, listed);
}

#[tokio::test]
async fn rpcs_that_name_an_object_meet_each_lane_as_the_table_says() {
    for (method, row) in rpcs() {
        let Row::Object(expected) = row else {
            continue;
        };
        // A world of its own for each, since some of the calls change it.
        for (lane, expected) in [
            ("own", expected.own),
            ("global", expected.global),
            ("foreign", expected.foreign),
        ] {
            let mut world = World::new().await;
            let answer = world.call(method, lane).await;
            assert_eq!(code(&answer), expected, "{method} of {lane}: {answer:?}");
            if expected == Code::NotFound {
                let missing = world.call(method, "missing").await.unwrap_err();
                let foreign = answer.unwrap_err();
                let alike = missing.message().replace("missing_", "foreign_");
                assert_eq!(foreign.message(), alike, "{method}");
            }
            // Whatever Alice did, Bob's objects and the shared ones are as they were.
            let mut catalog = world.catalog;
            for (name, session) in [("foreign_source", "bob"), ("global_source", "operator")] {
                let request = DescribeSourceRequest { name: name.into() };
                let answer = catalog.describe_source(in_session(session, request)).await;
                let source = answer.unwrap().into_inner().source.unwrap();
                assert_eq!(source.columns.len(), 2, "{method}");
            }
            for (name, session) in [("foreign_table", "bob"), ("global_table", "operator")] {
                let request = DescribeTableRequest { name: name.into() };
                let answer = catalog.describe_table(in_session(session, request)).await;
                let table = answer.unwrap().into_inner().table.unwrap();
                assert_eq!(
                    (table.columns.len(), table.indexes.len()),
                    (2, 1),
                    "{method}"
                );
            }
            world.server.stop().await;
        }
    }
}

#[tokio::test]
async fn rpcs_that_list_leave_the_foreign_lane_out() {
    let mut world = World::new().await;
    for (session, own) in [("alice", "own"), ("bob", "foreign")] {
        let request = in_session(session, ListSourcesRequest {});
        let sources = world
            .catalog
            .list_sources(request)
            .await
            .unwrap()
            .into_inner()
            .sources;
        let names: Vec<(String, Lane)> = sources
            .iter()
            .map(|source| (source.name.clone(), source.lane()))
            .collect();
        let mut expected = vec![
            (format!("{own}_source"), Lane::Tenant),
            ("global_source".to_owned(), Lane::Global),
        ];
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(names, expected);

        let request = in_session(
            session,
            ListModelsRequest {
                name: String::new(),
            },
        );
        let models = world
            .catalog
            .list_models(request)
            .await
            .unwrap()
            .into_inner()
            .models;
        let names: BTreeSet<&str> = models.iter().map(|model| model.name.as_str()).collect();
        let expected = format!("{own}_model");
        assert_eq!(names, BTreeSet::from(["global_model", expected.as_str()]));

        let request = in_session(session, ListTablesRequest {});
        let tables = world.catalog.list_tables(request).await.unwrap();
        let tables = tables.into_inner().tables;
        let names: BTreeSet<(&str, Lane)> = tables
            .iter()
            .map(|table| (table.name.as_str(), table.lane()))
            .collect();
        let expected = format!("{own}_table");
        assert_eq!(
            names,
            BTreeSet::from([
                ("global_table", Lane::Global),
                (expected.as_str(), Lane::Tenant)
            ])
        );
    }
    world.server.stop().await;
}

#[tokio::test]
async fn rpcs_of_a_session_touch_that_session_alone() {
    let world = World::new().await;
    let mut sessions = world.server.sessions().await;
    bind(&mut sessions, "alice", BOB).await.unwrap();
    assert_eq!(bound(&mut sessions, "bob").await.as_deref(), Some(BOB));
    let clear = jammi_db::server::proto::session::ClearTenantRequest {};
    sessions
        .clear_tenant(in_session("alice", clear))
        .await
        .unwrap();
    assert_eq!(bound(&mut sessions, "alice").await, None);
    assert_eq!(bound(&mut sessions, "bob").await.as_deref(), Some(BOB));
    world.server.stop().await;
}

#[tokio::test]
async fn statements_of_a_session_touch_that_session_alone() {
    let world = World::new().await;
    let mut sessions = world.server.sessions().await;
    let mut alice = Client::connect(&world.server, Some("alice")).await;
    for sql in statements(StatementKind::Set) {
        bind(&mut sessions, "alice", ALICE).await.unwrap();
        alice.query(sql).await.unwrap();
        let tenant = sql.contains(BOB).then_some(BOB);
        assert_eq!(
            bound(&mut sessions, "alice").await.as_deref(),
            tenant,
            "{sql}"
        );
        assert_eq!(bound(&mut sessions, "bob").await.as_deref(), Some(BOB));
        assert_eq!(bound(&mut sessions, "operator").await, None);
    }
    world.server.stop().await;
}

#[tokio::test]
async fn statements_of_every_kind_meet_each_lane_as_an_own_or_a_missing_table() {
    let world = World::new().await;
    let mut alice = Client::connect(&world.server, Some("alice")).await;
    for kind in StatementKind::ALL.into_iter().filter(|kind| kind.reads()) {
        for sql in statements(kind) {
            if !sql.contains("{t}") {
                let rows = alice.query(sql).await.unwrap();
                assert!(!format!("{rows:?}").contains("foreign"), "{sql}");
                continue;
            }
            let about =
                |lane: &str| sql.replace("{t}", &format!("{lane}_source.public.{lane}_source"));
            for lane in ["own", "global"] {
                let answer = alice.query(&about(lane)).await;
                assert_eq!(code(&answer), Code::Ok, "{}: {answer:?}", about(lane));
            }
            let foreign = alice.query(&about("foreign")).await.unwrap_err();
            let missing = alice.query(&about("missing")).await.unwrap_err();
            assert_eq!(foreign.code(), Code::NotFound, "{sql}: {foreign:?}");
            assert_eq!(
                foreign.message(),
                missing.message().replace("missing", "foreign"),
                "{sql}"
            );
        }
    }
    world.server.stop().await;
}

/// Stored tables, of which Bob's and the shared rows stay as they are whatever
/// Alice sends.
#[tokio::test]
async fn statements_about_stored_tables_meet_each_lane_as_the_table_says() {
    let server = TestServer::start().await;
    let mut sessions = server.sessions().await;
    bind(&mut sessions, "alice", ALICE).await.unwrap();
    bind(&mut sessions, "bob", BOB).await.unwrap();
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    let mut operator = Client::connect(&server, None).await;
    for kind in StatementKind::ALL {
        let expected = table_access(kind);
        for (number, sql) in statements(kind).iter().enumerate() {
            let name = |lane: &str| format!("{lane}_{kind:?}_{number}").to_lowercase();
            let about = |lane: &str| sql.replace("{t}", &name(lane));
            for (lane, owner) in [
                ("own", &mut alice),
                ("global", &mut operator),
                ("foreign", &mut bob),
            ] {
                let table = name(lane);
                for made in [
                    format!("CREATE TABLE {table} (id INT, word TEXT)"),
                    format!("INSERT INTO {table} VALUES (1, '{lane}')"),
                    format!("CREATE INDEX {table}_index ON {table} (id)"),
                    format!("CREATE VIEW {table}_view AS SELECT * FROM {table}"),
                ] {
                    owner.query(&made).await.unwrap();
                }
            }
            for (lane, expected) in [
                ("own", expected.own),
                ("global", expected.global),
                ("foreign", expected.foreign),
            ] {
                if !sql.contains("{t}") {
                    continue;
                }
                let answer = alice.query(&about(lane)).await;
                assert_eq!(code(&answer), expected, "{}: {answer:?}", about(lane));
                if expected == Code::NotFound {
                    let missing = alice.query(&about("missing")).await.unwrap_err();
                    let alike = missing.message().replace("missing", lane);
                    assert_eq!(answer.unwrap_err().message(), alike, "{sql}");
                }
            }
            for (lane, owner) in [("global", &mut operator), ("foreign", &mut bob)] {
                let kept = format!("SELECT id, word FROM {}", name(lane));
                let rows = format!("{:?}", owner.query(&kept).await.unwrap());
                assert!(
                    rows.contains(lane) && !rows.contains("changed"),
                    "{sql}: {rows}"
                );
            }
        }
    }
    server.stop().await;
}
