//! Non-interference of reads: two servers that differ only in Bob's rows, and
//! Alice, who asks both the same and must be answered the same: rows, schemas,
//! plans, statuses and their texts.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use jammi_db::server::proto::catalog::{RegisterSourceRequest, SourceFormat};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use crate::client::{ALICE, BOB, Client};
use crate::harness::{TestServer, in_session};

/// In Bob's rows on one server, and nowhere on the other.
const CANARY: &str = "canary-7f3a";

const CAROL: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c";

/// The tables of a world, all shared, each with rows of Alice, of Bob and of
/// everybody.
const TABLES: [&str; 8] = [
    "in_text",
    "in_view",
    "in_dictionary",
    "in_binary",
    "in_fixed",
    "in_hive",
    "in_csv",
    "in_ndjson",
];

struct Row {
    id: i64,
    tenant: Option<&'static str>,
    title: String,
    secret: i64,
}

/// Alice's two rows and the shared one; Bob's as `world` says.
fn world_rows(world: usize) -> Vec<Row> {
    let row = |id, tenant, title: &str, secret| Row {
        id,
        tenant,
        title: title.into(),
        secret,
    };
    let mut rows = vec![
        row(1, Some(ALICE), "10", 1),
        row(2, Some(ALICE), "20", 2),
        row(3, None, "30", 3),
        // Makes `title` text in files whose types are inferred.
        row(4, Some(CAROL), "carols", 4),
    ];
    if world == 0 {
        // What makes an expression fail, sorts first, and is many.
        rows.push(row(-9, Some(BOB), CANARY, 777));
        rows.extend((100..200).map(|id| row(id, Some(BOB), CANARY, i64::MAX)));
    } else {
        rows.push(row(50, Some(BOB), "50", 5));
    }
    rows
}

struct World {
    server: TestServer,
    alice: Client,
    dir: tempfile::TempDir,
}

impl World {
    async fn new(world: usize) -> World {
        let server = TestServer::start().await;
        let dir = tempfile::tempdir().unwrap();
        let rows = world_rows(world);
        let mut catalog = server.catalog().await;
        for table in TABLES {
            let location = write(dir.path(), table, &rows);
            let request = RegisterSourceRequest {
                name: table.into(),
                location,
                format: SourceFormat::Unspecified.into(),
                tenant_column: None,
            };
            let mut request = in_session("operator", request);
            request.metadata_mut().remove("jammi-session-id");
            catalog.register_source(request).await.unwrap();
        }
        // Bob's own objects, which only one of the worlds has.
        if world == 0 {
            let mut bob = Client::connect(&server, Some("bob")).await;
            bob.bind(BOB).await;
            let path = dir.path().join("bobs.csv");
            fs::write(&path, format!("id,title\n1,{CANARY}\n")).unwrap();
            let request = RegisterSourceRequest {
                name: "bobs".into(),
                location: path.to_str().unwrap().into(),
                format: SourceFormat::Unspecified.into(),
                tenant_column: None,
            };
            catalog
                .register_source(in_session("bob", request))
                .await
                .unwrap();
        }
        let mut alice = Client::connect(&server, Some("alice")).await;
        alice.bind(ALICE).await;
        World { server, alice, dir }
    }

    /// Everything that Alice can observe of a statement, with what differs
    /// between two servers by itself (paths) made equal.
    async fn observe(&mut self, sql: &str) -> String {
        let seen = match self.alice.query(sql).await {
            Ok(batch) => format!("{}\n{}", batch.schema(), sorted(&batch)),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        seen.replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

/// The rows in the order of their text: a scan promises none.
fn sorted(batch: &RecordBatch) -> String {
    let table = pretty_format_batches(std::slice::from_ref(batch))
        .unwrap()
        .to_string();
    let mut lines: Vec<&str> = table.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Writes the rows as `table` is laid out and answers its location.
fn write(dir: &Path, table: &str, rows: &[Row]) -> String {
    let path = |ending: &str| dir.join(format!("{table}.{ending}"));
    let written = match table {
        "in_csv" => {
            let mut text = "id,tenant_id,title,secret\n".to_owned();
            for row in rows {
                let tenant = row.tenant.unwrap_or_default();
                text += &format!("{},{tenant},{},{}\n", row.id, row.title, row.secret);
            }
            fs::write(path("csv"), text).unwrap();
            path("csv")
        }
        "in_ndjson" => {
            let text: String = rows
                .iter()
                .map(|row| {
                    let tenant = row.tenant.map_or("null".into(), |t| format!("\"{t}\""));
                    format!(
                        "{{\"id\":{},\"tenant_id\":{tenant},\"title\":\"{}\",\"secret\":{}}}\n",
                        row.id, row.title, row.secret
                    )
                })
                .collect();
            fs::write(path("ndjson"), text).unwrap();
            path("ndjson")
        }
        "in_hive" => {
            let root = dir.join("hive");
            for tenant in [Some(ALICE), Some(BOB), Some(CAROL), None] {
                let name = tenant.unwrap_or("__HIVE_DEFAULT_PARTITION__");
                let part = root.join(format!("tenant_id={name}"));
                fs::create_dir_all(&part).unwrap();
                let of: Vec<&Row> = rows.iter().filter(|row| row.tenant == tenant).collect();
                write_parquet(&part.join("rows.parquet"), batch(&of, None));
            }
            root
        }
        _ => {
            let tenants: Vec<Option<&str>> = rows.iter().map(|row| row.tenant).collect();
            let tenants = tenant_column(table, &tenants);
            let rows: Vec<&Row> = rows.iter().collect();
            write_parquet(&path("parquet"), batch(&rows, Some(tenants)));
            path("parquet")
        }
    };
    written.to_str().unwrap().to_owned()
}

fn tenant_column(table: &str, tenants: &[Option<&str>]) -> ArrayRef {
    let text: ArrayRef = Arc::new(StringArray::from(tenants.to_vec()));
    let bytes: Vec<Option<[u8; 16]>> = tenants
        .iter()
        .map(|tenant| tenant.map(|tenant| *Uuid::parse_str(tenant).unwrap().as_bytes()))
        .collect();
    match table {
        "in_text" => text,
        "in_view" => cast(&text, &DataType::Utf8View).unwrap(),
        "in_dictionary" => {
            let to = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
            cast(&text, &to).unwrap()
        }
        "in_binary" => Arc::new(BinaryArray::from_iter(bytes)),
        "in_fixed" => {
            let values = bytes.into_iter();
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16).unwrap())
        }
        other => panic!("table {other} has no tenant column of its own"),
    }
}

fn batch(rows: &[&Row], tenants: Option<ArrayRef>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id)));
    let titles: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.title)));
    let secrets: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.secret)));
    let mut columns = vec![("id", ids, true)];
    if let Some(tenants) = tenants {
        assert_eq!(tenants.len(), rows.len());
        columns.push(("tenant_id", tenants, true));
    }
    columns.push(("title", titles, true));
    columns.push(("secret", secrets, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Many small row groups, so that pruning has something to skip.
fn write_parquet(path: &Path, batch: RecordBatch) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Statements about one table `{t}`: every place in which an expression or a
/// relation can stand, and every way to make another lane's row be felt.
const STATEMENTS: &[&str] = &[
    // Rows and their counts.
    "SELECT id, title, secret FROM {t}",
    "SELECT * FROM {t}",
    "SELECT count(*), min(id), max(id), sum(id), avg(id) FROM {t}",
    "SELECT count(*) FROM {t} WHERE tenant_id IS NOT NULL",
    "SELECT count(DISTINCT tenant_id), approx_distinct(id), median(id) FROM {t}",
    "SELECT id FROM {t} ORDER BY id LIMIT 1",
    "SELECT id FROM {t} ORDER BY id DESC LIMIT 2 OFFSET 1",
    "SELECT id FROM {t} WHERE id = 100 OR id = -9 OR id = 50",
    "SELECT id FROM {t} WHERE id = 1 OR tenant_id IS NOT NULL",
    "SELECT id FROM {t} WHERE true OR tenant_id IS NULL",
    "SELECT id FROM {t} WHERE NOT (id < 0)",
    // Subqueries in every position.
    "SELECT (SELECT max(id) FROM {t})",
    "SELECT id, (SELECT count(*) FROM {t} b WHERE b.id >= a.id) FROM {t} a",
    "SELECT id FROM {t} WHERE id IN (SELECT id FROM {t})",
    "SELECT id FROM {t} WHERE id NOT IN (SELECT id + 1 FROM {t})",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM {t} WHERE id > 40)",
    "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM {t} WHERE id < 0)",
    "SELECT id FROM {t} WHERE id > ANY (SELECT id FROM {t})",
    "SELECT a.id FROM {t} a JOIN {t} b ON a.id = b.id AND b.id IN (SELECT id FROM {t})",
    "SELECT title, count(*) FROM {t} GROUP BY title HAVING count(*) >= (SELECT count(*) / 4 FROM {t})",
    "SELECT id FROM {t} ORDER BY (SELECT min(id) FROM {t}) + id",
    "SELECT CASE WHEN id = (SELECT max(id) FROM {t}) THEN 'last' ELSE 'not' END FROM {t}",
    "VALUES ((SELECT count(*) FROM {t}))",
    "SELECT * FROM (VALUES (1), (2)) v(n) WHERE n < (SELECT count(*) FROM {t})",
    // Relations of every kind.
    "WITH w AS (SELECT * FROM {t}) SELECT count(*) FROM w",
    "WITH T2 AS (SELECT 1 AS id) SELECT id FROM T2 UNION ALL SELECT id FROM {t}",
    "WITH RECURSIVE n AS (SELECT min(id) AS i FROM {t} UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT max(id) FROM {t})) SELECT i FROM n",
    "SELECT id FROM {t} UNION SELECT id + 100 FROM {t}",
    "SELECT id FROM {t} EXCEPT SELECT 1",
    "SELECT id FROM {t} INTERSECT SELECT id FROM {t}",
    "SELECT a.id, b.id FROM {t} a CROSS JOIN {t} b",
    "SELECT a.id, b.id FROM {t} a LEFT JOIN {t} b ON a.id = b.id + 1",
    "SELECT a.id, b.id FROM {t} a FULL JOIN {t} b ON a.id = b.secret",
    "SELECT a.id FROM {t} a LEFT SEMI JOIN {t} b ON a.id = b.id",
    "SELECT a.id FROM {t} a LEFT ANTI JOIN {t} b ON a.id = b.id + 1",
    "SELECT a.id, l.m FROM {t} a, LATERAL (SELECT max(b.id) AS m FROM {t} b WHERE b.id < a.id) l",
    "SELECT id, row_number() OVER (ORDER BY id), sum(id) OVER (), lag(title) OVER (ORDER BY id) FROM {t}",
    "SELECT title, tenant_id, count(*) FROM {t} GROUP BY GROUPING SETS ((title), (tenant_id), ())",
    "SELECT id FROM {t} QUALIFY row_number() OVER (ORDER BY id) = 1",
    "SELECT * FROM generate_series(1, (SELECT 3)) s",
    "SELECT unnest(array_agg(id)) FROM {t}",
    // What fails on Bob's rows of one world alone.
    "SELECT id FROM {t} WHERE 1 / (secret - 777) = 0",
    "SELECT id FROM {t} WHERE 1 / (secret - 777) = 0 AND id > 0 AND title <> 'x'",
    "SELECT id FROM {t} WHERE title <> 'x' AND id > 0 AND 1 / (secret - 777) < 5",
    "SELECT 1 / (secret - 777) FROM {t}",
    "SELECT id FROM {t} WHERE CAST(title AS INT) > 0",
    "SELECT sum(CAST(title AS INT)) FROM {t}",
    "SELECT id FROM {t} WHERE secret + 9223372036854775000 > 0",
    "SELECT sum(secret) FROM {t}",
    "SELECT id FROM {t} ORDER BY 1 / (secret - 777)",
    "SELECT 1 / (secret - 777), count(*) FROM {t} GROUP BY 1",
    "SELECT a.id FROM {t} a JOIN {t} b ON 1 / (b.secret - 777) = a.id - a.id",
    "SELECT arrow_cast(title, 'Int8') FROM {t}",
    "SELECT to_timestamp(title) FROM {t} WHERE id = 1",
    // What fails on Alice's own rows.
    "SELECT 1 / (secret - 1) FROM {t}",
    "SELECT CAST(title || 'x' AS INT) FROM {t} WHERE id = 1",
    // Plans.
    "EXPLAIN SELECT count(*) FROM {t} WHERE id > 2",
    "EXPLAIN VERBOSE SELECT * FROM {t} WHERE id > 2 AND title = 'x' ORDER BY id LIMIT 1",
    "EXPLAIN SELECT * FROM {t} a JOIN {t} b ON a.id = b.id",
    // Metadata.
    "DESCRIBE {t}",
    "SHOW COLUMNS FROM {t}",
];

/// Statements about no table of the list.
const OTHERS: &[&str] = &[
    "SHOW TABLES",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM information_schema.views",
    "SELECT name, tenant_id, location, tenant_column FROM jammi.catalog.sources",
    "SELECT * FROM models",
    "SELECT DISTINCT tenant, principal FROM jammi.server.queries",
    "SELECT DISTINCT tenant, principal FROM jammi.server.sessions",
    "SELECT * FROM bobs.public.bobs",
    "SELECT * FROM bobs.public.other",
    "DESCRIBE bobs.public.bobs",
    "SELECT * FROM bobs.information_schema.tables",
    "SELECT * FROM nobodys.public.nobodys",
    "EXPLAIN SELECT * FROM bobs.public.bobs",
    "SELECT id FROM IN_TEXT.Public.\"in_text\" WHERE id > 0",
    "SELECT id FROM in_text.public.\"IN_TEXT\"",
    "INSERT INTO in_text.public.in_text VALUES (1, NULL, 'x', 1)",
    "DELETE FROM in_text.public.in_text",
    "COPY in_text.public.in_text TO '/tmp/stolen.csv'",
    "CREATE EXTERNAL TABLE stolen STORED AS CSV LOCATION '/etc/passwd'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT method, statement, tables, scopes, rows, outcome FROM jammi.audit.events",
];

#[tokio::test]
async fn alice_cannot_tell_two_worlds_apart_that_differ_in_bobs_rows() {
    let (mut one, mut other) = (World::new(0).await, World::new(1).await);
    let mut differing = vec![];
    let mut answered = 0;
    let about_tables = TABLES.iter().flat_map(|table| {
        STATEMENTS
            .iter()
            .map(move |sql| sql.replace("{t}", &format!("{table}.public.{table}")))
    });
    for sql in about_tables.chain(OTHERS.iter().map(|sql| (*sql).to_owned())) {
        let (a, b) = (one.observe(&sql).await, other.observe(&sql).await);
        for leak in [CANARY, BOB, CAROL, "carols", "777,", "9223372036854775807"] {
            assert!(!a.contains(leak), "{sql}\nshows {leak}:\n{a}");
        }
        answered += usize::from(a.starts_with("Field"));
        if a != b {
            differing.push(format!("{sql}\n{a}\n{b}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
    // Most of the statements are to be answered, or nothing was compared.
    assert!(
        answered > TABLES.len() * STATEMENTS.len() / 2,
        "only {answered} statements were answered"
    );
    one.server.stop().await;
    other.server.stop().await;
}
