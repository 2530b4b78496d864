//! Tenants below each other: who is below reads the rows of those above that share,
//! and nobody reads or writes anything else by it.
//!
//! ```text
//! top ── mid ── leaf
//!          └─── twin        other
//! ```

use std::fs;

use arrow_flight::sql::CommandStatementIngest;
use jammi_db::server::proto::catalog::{
    Lane, ListSourcesRequest, ListTablesRequest, RegisterModelRequest, RegisterSourceRequest,
};
use jammi_db::server::proto::tenants::{CreateTenantRequest, UpdateTenantRequest};
use tonic::{Code, Status};

use super::{Client, Office, TestServer, erase, in_session, resume, suspend};
use crate::client::{prepared, statement};
use crate::writes::{append, numbers, refused, replace};

const TOP: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8ea1";
const MID: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8ea2";
const LEAF: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8ea3";
const TWIN: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8ea4";
const OTHER: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8ea5";
/// The tenants by the names of their sessions.
const ALL: [(&str, &str); 5] = [
    ("top", TOP),
    ("mid", MID),
    ("leaf", LEAF),
    ("twin", TWIN),
    ("other", OTHER),
];

/// A server where each tenant has a table, a source and a model that are named after
/// it, and rows of a table and a source that all share; `mid` shares what it has.
struct Tree {
    server: TestServer,
    office: Office,
}

impl Tree {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let mut operator = Client::connect(&server, None).await;
        let words = "CREATE TABLE words (word VARCHAR PRIMARY KEY)";
        operator.query(words).await.unwrap();
        operator
            .query("INSERT INTO words VALUES ('everybody')")
            .await
            .unwrap();
        let mut mixed = "id,tenant_id,word\n0,,everybody\n".to_owned();
        let mut catalog = server.catalog().await;
        for (number, (name, id)) in ALL.into_iter().enumerate() {
            let mut client = Client::connect(&server, Some(name)).await;
            client.bind(id).await;
            for sql in [
                format!("CREATE TABLE of_{name} (id BIGINT PRIMARY KEY, note VARCHAR)"),
                format!("INSERT INTO of_{name} VALUES (1, 'canary of {name}')"),
                format!("CREATE VIEW view_{name} AS SELECT note FROM of_{name}"),
                format!("INSERT INTO words VALUES ('word of {name}')"),
            ] {
                client.query(&sql).await.unwrap();
            }
            let path = server.dir().join(format!("{name}.csv"));
            fs::write(&path, format!("id,note\n1,file of {name}\n")).unwrap();
            let request = RegisterSourceRequest {
                name: format!("src_{name}"),
                location: path.to_str().unwrap().into(),
                tenant_column: Some(String::new()),
                ..RegisterSourceRequest::default()
            };
            catalog
                .register_source(in_session(name, request))
                .await
                .unwrap();
            let request = RegisterModelRequest {
                name: format!("model_{name}"),
                version: "1".into(),
                uri: "s3://models/1".into(),
                metadata: String::new(),
            };
            catalog
                .register_model(in_session(name, request))
                .await
                .unwrap();
            mixed.push_str(&format!("{},{id},row of {name}\n", number + 1));
        }
        let path = server.dir().join("mixed.csv");
        fs::write(&path, mixed).unwrap();
        let request = RegisterSourceRequest {
            name: "mixed".into(),
            location: path.to_str().unwrap().into(),
            tenant_column: Some("tenant_id".into()),
            ..RegisterSourceRequest::default()
        };
        catalog
            .register_source(in_session("operator", request))
            .await
            .unwrap();
        let mut office = server.office().await;
        for (id, parent, shares) in [
            (TOP, "", false),
            (MID, TOP, true),
            (LEAF, MID, false),
            (TWIN, MID, false),
        ] {
            let request = CreateTenantRequest {
                id: id.into(),
                parent: parent.into(),
                shares,
                ..CreateTenantRequest::default()
            };
            office.create_tenant(request).await.unwrap();
        }
        Tree { server, office }
    }

    async fn client(&self, name: &'static str) -> Client {
        Client::connect(&self.server, Some(name)).await
    }

    async fn shares(&mut self, id: &str, shares: bool) {
        let request = UpdateTenantRequest {
            id: id.into(),
            shares: Some(shares),
            ..UpdateTenantRequest::default()
        };
        self.office.update_tenant(request).await.unwrap();
    }

    async fn put_below(&mut self, id: &str, parent: &str) -> Result<(), Status> {
        let request = UpdateTenantRequest {
            id: id.into(),
            parent: Some(parent.into()),
            ..UpdateTenantRequest::default()
        };
        self.office.update_tenant(request).await.map(drop)
    }
}

/// What each tenant sees by every way of looking is what those in `seen` have.
async fn check(tree: &Tree, name: &'static str, seen: &[&str]) {
    let mut client = tree.client(name).await;
    let mut catalog = tree.server.catalog().await;
    let tables = catalog
        .list_tables(in_session(name, ListTablesRequest {}))
        .await;
    let tables = tables.unwrap().into_inner().tables;
    let sources = catalog
        .list_sources(in_session(name, ListSourcesRequest {}))
        .await;
    let sources = sources.unwrap().into_inner().sources;
    for (of, id) in ALL {
        let lane = match (of == name, seen.contains(&of)) {
            (true, _) => Some(Lane::Tenant),
            (false, true) => Some(Lane::Above),
            (false, false) => None,
        };
        let listed = tables.iter().find(|table| table.name == format!("of_{of}"));
        assert_eq!(
            listed.map(|table| table.lane()),
            lane,
            "{name} lists tables of {of}"
        );
        let listed = sources
            .iter()
            .find(|source| source.name == format!("src_{of}"));
        assert_eq!(
            listed.map(|source| source.lane()),
            lane,
            "{name} lists sources of {of}"
        );
        for (sql, canary) in [
            (
                format!("SELECT note FROM of_{of}"),
                format!("canary of {of}"),
            ),
            (
                format!("SELECT note FROM view_{of}"),
                format!("canary of {of}"),
            ),
            (
                format!("SELECT note FROM src_{of}.public.src_{of}"),
                format!("file of {of}"),
            ),
            (format!("SELECT tenant_id FROM of_{of}"), id.to_owned()),
        ] {
            match lane {
                Some(_) => assert_eq!(client.shows(&sql).await, canary, "{name}: {sql}"),
                None => {
                    let status = client.query(&sql).await.unwrap_err();
                    assert_eq!(status.code(), Code::NotFound, "{name}: {sql}: {status:?}");
                    let missing = client.query(&sql.replace(of, "none")).await.unwrap_err();
                    let alike = missing.message().replace("none", of);
                    assert_eq!(status.message(), alike, "{name}: {sql}");
                }
            }
        }
    }
    for (sql, of_each) in [
        ("SELECT word FROM words", "word of "),
        ("SELECT word FROM mixed.public.mixed", "row of "),
    ] {
        let mut expected: Vec<String> = seen.iter().map(|of| format!("{of_each}{of}")).collect();
        expected.push("everybody".into());
        expected.sort();
        let found = client.shows(&format!("{sql} ORDER BY word")).await;
        assert_eq!(found, expected.join(" "), "{name}: {sql}");
        let count = format!("SELECT count(*) FROM ({sql})");
        assert_eq!(
            client.shows(&count).await,
            expected.len().to_string(),
            "{name}: {sql}"
        );
    }
    let mut models: Vec<String> = seen.iter().map(|of| format!("model_{of}")).collect();
    models.sort();
    let found = client.shows("SELECT name FROM models ORDER BY name").await;
    assert_eq!(found, models.join(" "), "{name}");
    for sql in [
        "EXPLAIN VERBOSE SELECT * FROM words",
        "EXPLAIN ANALYZE SELECT * FROM mixed.public.mixed",
        "SELECT * FROM jammi.catalog.tables",
        "SELECT * FROM information_schema.columns",
        "SHOW TABLES",
    ] {
        let shown = client.shows(sql).await;
        for (of, id) in ALL {
            let is_there = shown.contains(id) || shown.contains(&format!("of_{of}"));
            assert!(
                !is_there || seen.contains(&of),
                "{name} sees {of}: {sql}: {shown}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_below_read_what_those_above_share_and_nothing_else() {
    let mut tree = Tree::new().await;
    for (name, seen) in [
        ("leaf", &["leaf", "mid"][..]),
        ("twin", &["twin", "mid"][..]),
        ("mid", &["mid"][..]),
        ("top", &["top"][..]),
        ("other", &["other"][..]),
    ] {
        check(&tree, name, seen).await;
    }
    // Past one that does not share.
    tree.shares(MID, false).await;
    tree.shares(TOP, true).await;
    check(&tree, "leaf", &["leaf", "top"]).await;
    check(&tree, "mid", &["mid", "top"]).await;
    tree.shares(MID, true).await;
    check(&tree, "leaf", &["leaf", "mid", "top"]).await;
    // Whoever is suspended is read by nobody.
    suspend(&mut tree.office, MID).await;
    check(&tree, "leaf", &["leaf", "top"]).await;
    resume(&mut tree.office, MID).await;
    // Elsewhere, and nowhere.
    tree.put_below(LEAF, TOP).await.unwrap();
    check(&tree, "leaf", &["leaf", "top"]).await;
    tree.put_below(LEAF, "").await.unwrap();
    check(&tree, "leaf", &["leaf"]).await;
    check(&tree, "other", &["other"]).await;
    tree.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_mean_the_own_then_the_nearest_then_what_everybody_shares() {
    let mut tree = Tree::new().await;
    tree.shares(TOP, true).await;
    let mut operator = Client::connect(&tree.server, None).await;
    let mut leaf = tree.client("leaf").await;
    let made = |of: &str| format!("CREATE TABLE same AS SELECT 'same of {of}' AS note");
    operator.query(&made("everybody")).await.unwrap();
    let same = "SELECT note FROM same";
    assert_eq!(leaf.shows(same).await, "same of everybody");
    for name in ["top", "mid", "leaf"] {
        tree.client(name).await.query(&made(name)).await.unwrap();
        assert_eq!(leaf.shows(same).await, format!("same of {name}"));
    }
    for (name, next) in [("leaf", "mid"), ("mid", "top"), ("top", "everybody")] {
        tree.client(name)
            .await
            .query("DROP TABLE same")
            .await
            .unwrap();
        assert_eq!(leaf.shows(same).await, format!("same of {next}"));
    }
    tree.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_above_are_read_and_never_written() {
    let tree = Tree::new().await;
    let mut leaf = tree.client("leaf").await;
    let mut mid = tree.client("mid").await;
    let denied = "is shared by a tenant above";
    for sql in [
        "INSERT INTO of_mid VALUES (2, 'forged')",
        "UPDATE of_mid SET note = 'forged'",
        "DELETE FROM of_mid",
        "DELETE FROM of_mid WHERE 1 = 0",
        "TRUNCATE of_mid",
        "MERGE INTO of_mid USING (SELECT 1 AS id) s ON of_mid.id = s.id WHEN MATCHED THEN DELETE",
        "ALTER TABLE of_mid ADD COLUMN forged INT",
        "DROP TABLE of_mid",
        "DROP VIEW view_mid",
        "CREATE INDEX forged ON of_mid (note)",
    ] {
        refused(leaf.query(sql).await, Code::PermissionDenied, denied);
    }
    let rows = numbers("id", [2]);
    let ingested = leaf.put(&append("of_mid"), rows.clone()).await;
    refused(ingested, Code::PermissionDenied, denied);
    // Of what everybody shares it writes its own rows alone.
    for (sql, count) in [
        ("UPDATE words SET word = word || '!'", "1"),
        ("DELETE FROM words WHERE word LIKE '%mid%'", "0"),
        ("DELETE FROM words", "1"),
        ("INSERT INTO words SELECT word FROM words", "2"),
        (
            "MERGE INTO words USING (SELECT 'word of mid' AS w) s ON words.word = s.w \
             WHEN MATCHED THEN DELETE",
            "1",
        ),
    ] {
        assert_eq!(leaf.shows(sql).await, count, "{sql}");
    }
    leaf.query("TRUNCATE words").await.unwrap();
    let forged = format!("INSERT INTO words (word, tenant_id) VALUES ('forged', '{MID}')");
    assert_eq!(
        leaf.query(&forged).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        leaf.shows("SELECT word FROM words ORDER BY word").await,
        "everybody word of mid"
    );
    // A table of the name is the own one from then on.
    let replaced: CommandStatementIngest = replace("of_mid");
    leaf.put(&replaced, rows).await.unwrap();
    assert_eq!(leaf.shows("SELECT id FROM of_mid").await, "2");
    assert_eq!(
        mid.shows("SELECT id, note FROM of_mid").await,
        "1|canary of mid"
    );
    assert_eq!(
        mid.shows("SELECT note FROM view_mid").await,
        "canary of mid"
    );
    let words = mid.shows("SELECT word FROM words ORDER BY word").await;
    assert_eq!(words, "everybody word of mid");
    // Nor are its sources and models the leaf's to drop.
    let mut catalog = tree.server.catalog().await;
    let drop_source = jammi_db::server::proto::catalog::DropSourceRequest {
        name: "src_mid".into(),
    };
    let dropped = catalog.drop_source(in_session("leaf", drop_source)).await;
    refused(dropped, Code::PermissionDenied, denied);
    let drop_model = jammi_db::server::proto::catalog::DropModelRequest {
        name: "model_mid".into(),
        version: "1".into(),
    };
    let dropped = catalog.drop_model(in_session("leaf", drop_model)).await;
    refused(dropped, Code::PermissionDenied, denied);
    tree.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_before_the_tree_changed_is_not_used_after() {
    let mut tree = Tree::new().await;
    let mut leaf = tree.client("leaf").await;
    let sql = "SELECT note FROM of_mid";
    let words = "SELECT word FROM words ORDER BY word";
    let handle = leaf.prepare(sql).await.unwrap().prepared_statement_handle;
    let of_words = leaf.prepare(words).await.unwrap().prepared_statement_handle;
    let info = leaf.info(&statement(sql)).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let transaction = leaf.begin().await.unwrap();
    assert_eq!(
        leaf.query_in(sql, &transaction).await.unwrap(),
        "canary of mid"
    );
    // Twice, so that what is kept in memory is used.
    for _again in 0..2 {
        assert_eq!(leaf.shows(sql).await, "canary of mid");
        assert_eq!(
            leaf.shows(words).await,
            "everybody word of leaf word of mid"
        );
    }

    tree.shares(MID, false).await;
    refused(leaf.query(sql).await, Code::NotFound, "of_mid");
    refused(leaf.get(ticket).await, Code::NotFound, "of_mid");
    refused(
        leaf.info(&prepared(&handle)).await,
        Code::NotFound,
        "of_mid",
    );
    let answer = leaf.query_in(sql, &transaction).await;
    let status = answer.unwrap_err();
    assert!(!status.message().contains("canary"), "{status:?}");
    assert_eq!(leaf.shows(words).await, "everybody word of leaf");
    let rows = leaf.rows(&prepared(&of_words)).await.unwrap();
    assert_eq!(crate::writes::shown(&rows), "everybody word of leaf");
    tree.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_and_trees_that_are_too_deep_are_refused() {
    let mut tree = Tree::new().await;
    for (id, parent) in [(TOP, TOP), (TOP, MID), (TOP, LEAF), (MID, LEAF)] {
        let answer = tree.put_below(id, parent).await;
        refused(answer, Code::InvalidArgument, "or below it");
    }
    refused(
        tree.put_below(LEAF, OTHER).await,
        Code::NotFound,
        "there is no tenant",
    );
    // Eight levels are the most.
    let mut last = LEAF.to_owned();
    for level in 4..=8 {
        let request = CreateTenantRequest {
            parent: last.clone(),
            ..CreateTenantRequest::default()
        };
        let made = tree
            .office
            .create_tenant(request)
            .await
            .unwrap()
            .into_inner();
        last = made.tenant.unwrap().id;
        assert!(level <= 8);
    }
    let request = CreateTenantRequest {
        id: OTHER.into(),
        parent: last,
        ..CreateTenantRequest::default()
    };
    let made = tree.office.create_tenant(request).await;
    refused(made, Code::InvalidArgument, "tenancy.depth_max");
    let request = CreateTenantRequest {
        id: OTHER.into(),
        ..CreateTenantRequest::default()
    };
    tree.office.create_tenant(request).await.unwrap();
    let answer = tree.put_below(TOP, OTHER).await;
    refused(answer, Code::InvalidArgument, "tenancy.depth_max");
    // Who is above others stays.
    suspend(&mut tree.office, MID).await;
    let erased = erase(&mut tree.office, MID).await;
    refused(erased, Code::FailedPrecondition, "is below tenant");
    tree.server.stop().await;
}
