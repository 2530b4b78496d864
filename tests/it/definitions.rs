//! Tables that are defined without SQL: by the library and by RPC.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use jammi_db::catalog::{IndexKind, Relation};
use jammi_db::engine::NewTable;
use jammi_db::error::Error;
use jammi_db::server::proto::catalog::{
    CreateTableRequest, DescribeTableRequest, DropTableRequest, IndexKind as ProtoIndexKind, Lane,
    ListTablesRequest, Table, TableKind, UniqueConstraint,
};
use tonic::Code;

use crate::client::Client;
use crate::harness::{ALICE, BOB, TestServer, bind, in_session};
use crate::tables::{World, refused, rows, run};

/// A schema as clients send it.
pub fn schema_message(schema: &Schema) -> Vec<u8> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options)).unwrap();
    message.0.to_vec()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("Title", DataType::Utf8, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]))
}

fn new_table(name: &str) -> NewTable {
    NewTable {
        name: name.into(),
        schema: schema(),
        primary_key: vec!["id".into()],
        unique: vec![vec!["Title".into(), "at".into()], vec!["at".into()]],
        if_not_exists: false,
    }
}

fn indexes(relation: &Relation) -> Vec<(String, IndexKind, String)> {
    let table = relation.table().unwrap();
    let index = |index: &jammi_db::catalog::TableIndex| {
        let columns = table.index_columns(index).join(",");
        (index.name.clone(), index.kind, columns)
    };
    table.indexes.iter().map(index).collect()
}

#[tokio::test]
async fn a_table_made_without_sql_is_the_one_that_sql_makes() {
    let world = World::new().await;
    let made = world
        .alice
        .create_mutable_table(new_table("t"))
        .await
        .unwrap();
    run(
        &world.bob,
        &[
            "CREATE TABLE t (id BIGINT PRIMARY KEY, \"Title\" VARCHAR NOT NULL, at TIMESTAMP, \
           UNIQUE (\"Title\", at), UNIQUE (at))",
        ],
    )
    .await;
    let by_sql = world.bob.describe_table("t").await.unwrap();
    assert_eq!(made.schema(), by_sql.schema());
    assert_eq!(indexes(&made), indexes(&by_sql));
    assert_eq!(
        indexes(&made),
        [
            ("t_pkey".to_owned(), IndexKind::Primary, "id".to_owned()),
            (
                "t_Title_at_key".into(),
                IndexKind::Unique,
                "Title,at".into()
            ),
            ("t_at_key".into(), IndexKind::Unique, "at".into()),
        ]
    );
    // Registered and made: the rows have a place at once, and the next engine
    // finds both.
    assert_eq!(
        rows(
            &world.alice,
            "INSERT INTO t (id, \"Title\") VALUES (1, 'a')"
        )
        .await,
        "1"
    );
    let error = refused(
        &world.alice,
        "INSERT INTO t (id, \"Title\") VALUES (1, 'b')",
    )
    .await;
    assert!(error.to_string().contains("`t_pkey`"), "{error}");
    assert_eq!(rows(&world.bob, "SELECT count(*) FROM t").await, "0");

    let names = |listed: &[Arc<Relation>]| -> Vec<String> {
        listed.iter().map(|table| table.name.clone()).collect()
    };
    world
        .shared
        .create_mutable_table(new_table("all"))
        .await
        .unwrap();
    world
        .alice
        .create_mutable_table(new_table("hers"))
        .await
        .unwrap();
    assert_eq!(
        names(&world.alice.list_tables().await.unwrap()),
        ["all", "hers", "t"]
    );
    assert_eq!(names(&world.bob.list_tables().await.unwrap()), ["all", "t"]);
    assert_eq!(names(&world.shared.list_tables().await.unwrap()), ["all"]);

    let drop = world.bob.drop_table("all").await.unwrap_err();
    assert!(matches!(drop, Error::PermissionDenied(_)), "{drop}");
    let foreign = world.bob.drop_table("hers").await.unwrap_err();
    assert!(matches!(foreign, Error::NotFound(_)), "{foreign}");
    let missing = world.bob.drop_table("nobodys").await.unwrap_err();
    assert_eq!(
        foreign.to_string(),
        missing.to_string().replace("nobodys", "hers")
    );
    world.alice.drop_table("hers").await.unwrap();
    world.shared.drop_table("all").await.unwrap();
    assert_eq!(names(&world.alice.list_tables().await.unwrap()), ["t"]);
    run(&world.alice, &["CREATE VIEW v AS SELECT id FROM t"]).await;
    let view = world.alice.drop_table("v").await.unwrap_err().to_string();
    assert!(view.contains("DROP VIEW"), "{view}");
}

#[tokio::test]
async fn what_cannot_be_a_table_is_refused_by_name() {
    let world = World::new().await;
    let alice = &world.alice;
    alice
        .create_mutable_table(new_table("taken"))
        .await
        .unwrap();
    let of = |field: Field| NewTable {
        schema: Arc::new(Schema::new(vec![field])),
        primary_key: Vec::new(),
        unique: Vec::new(),
        ..new_table("t")
    };
    for (new, says) in [
        (new_table("taken"), "exists already"),
        (new_table(""), "1 to 63 bytes"),
        (new_table(&"x".repeat(64)), "1 to 63 bytes"),
        (
            NewTable {
                primary_key: vec!["nothing".into()],
                ..new_table("t")
            },
            "`nothing`",
        ),
        (
            NewTable {
                unique: vec![Vec::new()],
                ..new_table("t")
            },
            "has no columns",
        ),
        (
            NewTable {
                unique: vec![vec!["at".into()], vec!["at".into()]],
                ..new_table("t")
            },
            "`t_at_key` already",
        ),
        (
            NewTable {
                primary_key: vec!["tenant_id".into()],
                ..new_table("t")
            },
            "leave `tenant_id` out",
        ),
        (
            of(Field::new("n", DataType::Null, true)),
            "column `n` cannot be stored",
        ),
        (
            NewTable {
                schema: Arc::new(Schema::new(vec![
                    Field::new("tenant_id", DataType::Int64, true),
                    Field::new("n", DataType::Int64, true),
                ])),
                ..of(Field::new("n", DataType::Int64, true))
            },
            "VARCHAR",
        ),
        (
            of(Field::new("tenant_id", DataType::Utf8, true)),
            "no columns",
        ),
        (
            of(Field::new("_jammi_row", DataType::Utf8, true)),
            "reserved",
        ),
    ] {
        let error = alice
            .create_mutable_table(new)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    let kept = alice
        .create_mutable_table(NewTable {
            schema: Arc::new(Schema::new(vec![Field::new("other", DataType::Int8, true)])),
            primary_key: Vec::new(),
            unique: Vec::new(),
            if_not_exists: true,
            ..new_table("taken")
        })
        .await
        .unwrap();
    assert_eq!(kept.schema().field(0).name(), "id");
    assert_eq!(alice.list_tables().await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_fields_metadata_the_extension_type_is_kept() {
    let world = World::new().await;
    let metadata = [
        ("ARROW:extension:name", "arrow.json"),
        ("PARQUET:field_id", "7"),
    ];
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let tenants = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let new = NewTable {
        schema: Arc::new(Schema::new_with_metadata(
            vec![
                Field::new("tenant_id", tenants, false),
                Field::new("doc", DataType::Utf8, true).with_metadata(metadata),
            ],
            HashMap::from([("pandas".to_owned(), "{}".to_owned())]),
        )),
        primary_key: Vec::new(),
        unique: Vec::new(),
        ..new_table("docs")
    };
    let made = world.alice.create_mutable_table(new).await.unwrap();
    let schema = made.schema();
    assert!(schema.metadata().is_empty());
    assert_eq!(
        schema.field(0),
        &Field::new("tenant_id", DataType::Utf8, true)
    );
    let keys: Vec<&String> = schema.field(1).metadata().keys().collect();
    assert_eq!(keys, ["ARROW:extension:name"]);
    let error = refused(&world.alice, "INSERT INTO docs (doc) VALUES ('{')").await;
    assert!(error.to_string().contains("JSON"), "{error}");
    run(&world.alice, &["INSERT INTO docs (doc) VALUES ('{}')"]).await;
}

#[tokio::test]
async fn instants_and_bytes_have_the_types_that_sql_says() {
    let world = World::new().await;
    let alice = &world.alice;
    run(
        alice,
        &[
            "CREATE TABLE t (at TIMESTAMPTZ(3), day TIMESTAMP, raw BLOB)",
            "INSERT INTO t (at, day, raw) VALUES \
             ('2026-01-02T03:04:05+02:00', '2026-01-02T03:04:05', x'00ff')",
        ],
    )
    .await;
    let schema = alice.describe_table("t").await.unwrap().schema();
    let types: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| field.data_type().to_string())
        .collect();
    assert_eq!(
        types[..3],
        ["Timestamp(ms, \"UTC\")", "Timestamp(ns)", "Binary"]
    );
    assert_eq!(
        rows(
            alice,
            "SELECT at, day, raw FROM t WHERE at < TIMESTAMPTZ '2026-01-02T01:04:06Z'"
        )
        .await,
        "2026-01-02T01:04:05Z|2026-01-02T03:04:05|00ff"
    );
}

fn create(name: &str) -> CreateTableRequest {
    CreateTableRequest {
        name: name.into(),
        schema: schema_message(&schema()),
        primary_key: vec!["id".into()],
        unique: vec![UniqueConstraint {
            columns: vec!["Title".into(), "at".into()],
        }],
        if_not_exists: false,
    }
}

fn described(table: &Table) -> Vec<(&str, &str, bool, Option<&str>)> {
    let columns = table.columns.iter();
    columns
        .map(|column| {
            let default = column.default_sql.as_deref();
            (
                column.name.as_str(),
                column.r#type.as_str(),
                column.nullable,
                default,
            )
        })
        .collect()
}

#[tokio::test]
async fn tables_are_made_described_and_dropped_by_rpc() {
    let server = TestServer::start().await;
    let mut sessions = server.sessions().await;
    bind(&mut sessions, "alice", ALICE).await.unwrap();
    bind(&mut sessions, "bob", BOB).await.unwrap();
    let mut catalog = server.catalog().await;
    let answer = catalog.create_table(in_session("alice", create("t"))).await;
    let made = answer.unwrap().into_inner().table.unwrap();
    assert_eq!(
        (made.name.as_str(), made.lane(), made.kind()),
        ("t", Lane::Tenant, TableKind::Table)
    );
    assert_eq!(made.sql_name, "mutable.public.t");
    assert!(made.created_at_ms > 0 && made.created_at_ms == made.altered_at_ms);
    assert_eq!(
        described(&made),
        [
            ("id", "Int64", false, None),
            ("Title", "Utf8", false, None),
            ("at", "Timestamp(ns)", true, None),
            ("tenant_id", "Utf8", true, None),
        ]
    );
    let keys: Vec<_> = made
        .indexes
        .iter()
        .map(|index| (index.name.as_str(), index.kind(), index.columns.join(",")))
        .collect();
    assert_eq!(
        keys,
        [
            ("t_pkey", ProtoIndexKind::PrimaryKey, "id".to_owned()),
            ("t_Title_at_key", ProtoIndexKind::Unique, "Title,at".into()),
        ]
    );

    // Bob has another of the name, of SQL, and a view over it.
    let mut bob = Client::connect(&server, Some("bob")).await;
    for sql in [
        "CREATE TABLE t (n INT DEFAULT 1 + 1 CHECK (n > 0))",
        "CREATE INDEX by_n ON t (n)",
        "CREATE VIEW v AS SELECT n FROM t",
    ] {
        bob.query(sql).await.unwrap();
    }
    let request = in_session("bob", ListTablesRequest {});
    let tables = catalog.list_tables(request).await.unwrap();
    let tables = tables.into_inner().tables;
    let [table, view] = tables.as_slice() else {
        panic!("{tables:?}");
    };
    assert_eq!(described(table)[0], ("n", "Int32", true, Some("1 + 1")));
    assert_eq!(table.indexes[0].name, "by_n");
    assert_eq!(table.indexes[0].kind(), ProtoIndexKind::Plain);
    let check = &table.checks[0];
    assert_eq!(
        (check.name.as_str(), check.sql.as_str()),
        ("t_n_check", "n > 0")
    );
    assert_eq!(
        (view.kind(), view.query.as_str()),
        (TableKind::View, "SELECT n FROM t")
    );
    let again = DescribeTableRequest { name: "t".into() };
    let again = catalog.describe_table(in_session("bob", again)).await;
    assert_eq!(again.unwrap().into_inner().table.as_ref(), Some(table));

    // Alice's rows go with her table; Bob's stay.
    let mut alice = Client::connect(&server, Some("alice")).await;
    let insert = "INSERT INTO t (id, \"Title\") VALUES (1, 'x')";
    alice.query(insert).await.unwrap();
    bob.query("INSERT INTO t VALUES (7)").await.unwrap();
    let drop = DropTableRequest { name: "t".into() };
    catalog.drop_table(in_session("alice", drop)).await.unwrap();
    let gone = alice.query("SELECT * FROM t").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(bob.query("SELECT n FROM t").await.unwrap().num_rows(), 1);
    catalog
        .create_table(in_session("alice", create("t")))
        .await
        .unwrap();
    let empty = alice.query("SELECT * FROM t").await.unwrap();
    assert_eq!(empty.num_rows(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_makes_no_table_says_why() {
    let server = TestServer::start_with(|config| config.tenancy.anonymous_reads = false).await;
    let mut sessions = server.sessions().await;
    bind(&mut sessions, "alice", ALICE).await.unwrap();
    let mut catalog = server.catalog().await;
    let mut cut = create("t");
    cut.schema.truncate(cut.schema.len() / 2);
    for (session, request, code, says) in [
        (
            "alice",
            CreateTableRequest {
                schema: Vec::new(),
                ..create("t")
            },
            Code::InvalidArgument,
            "pyarrow.Schema.serialize()",
        ),
        (
            "alice",
            cut,
            Code::InvalidArgument,
            "pyarrow.Schema.serialize()",
        ),
        (
            "alice",
            CreateTableRequest {
                schema: schema_message(&Schema::empty()),
                ..create("t")
            },
            Code::InvalidArgument,
            "has no columns",
        ),
        (
            "nobody",
            create("t"),
            Code::FailedPrecondition,
            "no tenant is bound",
        ),
    ] {
        let refused = catalog.create_table(in_session(session, request)).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
    }
    let request = in_session("alice", ListTablesRequest {});
    let tables = catalog.list_tables(request).await.unwrap().into_inner();
    assert!(tables.tables.is_empty());
    server.stop().await;
}
