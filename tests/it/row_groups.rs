//! Row groups of sources that are read again come from memory, and answer as their
//! files do: for each tenant, for each version of a file, however much is kept.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type};
use arrow::util::pretty::pretty_format_batches;
use jammi_db::TenantId;
use jammi_db::config::JammiConfig;
use jammi_db::engine::{RegisterSource, TenantColumnChoice};
use jammi_db::session::JammiSession;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::engine::{A, B};
use super::pruning::Server;

const GROUP_ROWS: usize = 700;
const SECRET: &str = "bobs-secret";

/// Rows `from..to` of `tenant`, of which every column says whose they are.
fn rows(tenant: Option<&str>, from: i64, to: i64) -> RecordBatch {
    let word = match tenant {
        Some(A) => "alices",
        Some(B) => SECRET,
        _ => "shared",
    };
    let ids = || from..to;
    let texts = || ids().map(|id| (id % 7 != 0).then(|| format!("{word} {}", id * 7919)));
    let nested = Arc::new(Field::new("n", DataType::Int64, true));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(ids()))),
        (
            "tenant_id",
            Arc::new(ids().map(|_| tenant).collect::<StringArray>()),
        ),
        ("text", Arc::new(texts().collect::<StringArray>())),
        (
            "kind",
            Arc::new(
                ids()
                    .map(|id| format!("{word} {}", id % 5))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<DictionaryArray<Int16Type>>(),
            ),
        ),
        (
            "flag",
            Arc::new(ids().map(|id| Some(id % 3 == 0)).collect::<BooleanArray>()),
        ),
        (
            "real",
            Arc::new(Float64Array::from_iter_values(
                ids().map(|id| id as f64 / 8.0),
            )),
        ),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter_values(ids().map(|id| i128::from(id) * 101))
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter_values(ids().map(|id| id as i32))),
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from_iter_values(ids()).with_timezone("UTC")),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                ids().map(|id| Some((0..id % 4).map(|at| Some(at as i32)))),
            )),
        ),
        (
            "pair",
            Arc::new(StructArray::from(vec![(
                nested,
                Arc::new(Int64Array::from_iter_values(ids())) as ArrayRef,
            )])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn write(path: &Path, batches: &[RecordBatch]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(150)
        .build();
    // Under another name at first, as whoever replaces a file that is read does.
    let making = path.with_extension("making");
    let file = fs::File::create(&making).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    fs::rename(making, path).unwrap();
}

/// One file of shared, Alice's and Bob's rows, whose row groups hold those of two, and
/// the same rows in a directory for each.
fn write_files(dir: &Path, from: i64) {
    let tenants = [(None, 1_000), (Some(A), 5_000), (Some(B), 4_000)];
    let parts = tenants.map(|(tenant, count)| rows(tenant, from, from + count));
    write(&dir.join("sorted.parquet"), &parts);
    for ((tenant, _), part) in tenants.iter().zip(parts) {
        let tenant = tenant.unwrap_or("__HIVE_DEFAULT_PARTITION__");
        let mut part = part;
        part.remove_column(1);
        let dir = dir.join(format!("hive/tenant_id={tenant}/region=eu"));
        write(&dir.join("part.parquet"), &[part]);
    }
}

/// An engine that keeps up to so many bytes of row groups.
struct Engine {
    alice: JammiSession,
    bob: JammiSession,
    _artifacts: TempDir,
}

impl Engine {
    async fn keeping(source_cache_bytes: u64, files: &Path) -> Self {
        let artifacts = tempfile::tempdir().unwrap();
        let mut config = JammiConfig {
            artifact_dir: artifacts.path().to_owned(),
            ..JammiConfig::default()
        };
        config.engine.source_cache_bytes = source_cache_bytes;
        config.engine.batch_rows = 400;
        let shared = JammiSession::new(config).await.unwrap();
        for (name, location) in [("sorted", "sorted.parquet"), ("hive", "hive")] {
            let request = RegisterSource {
                name: name.into(),
                location: files.join(location).to_str().unwrap().into(),
                format: None,
                tenant_column: TenantColumnChoice::Infer,
            };
            shared.register_source(request).await.unwrap();
        }
        let bound = |tenant| {
            JammiSession::on(shared.engine().clone())
                .with_tenant(TenantId::from_str(tenant).unwrap())
        };
        Engine {
            alice: bound(A),
            bob: bound(B),
            _artifacts: artifacts,
        }
    }
}

/// The rows of a query in one order.
async fn sorted_rows(session: &JammiSession, sql: &str) -> Vec<String> {
    let batches = session.sql(sql).await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_row_groups_changes_no_answer() {
    let files = tempfile::tempdir().unwrap();
    write_files(files.path(), 0);
    let nothing = Engine::keeping(0, files.path()).await;
    let kept = [
        // Some of the columns of some row groups.
        Engine::keeping(100 << 10, files.path()).await,
        Engine::keeping(64 << 20, files.path()).await,
    ];
    let queries = |source: &str| {
        [
            "* from T",
            "text from T",
            "kind, id, id as again from T",
            "count(*), count(tenant_id), min(text), max(kind), sum(real), max(at) from T",
            "tenant_id, count(*), sum(price) from T group by tenant_id",
            "count(*) from T a join T b on a.id = b.id and a.tenant_id = b.tenant_id",
            "pair.n, list, day, flag from T",
            "count(*) from (select * from T limit 500)",
            "* from T where id = 17",
            "* from T order by id desc, tenant_id limit 30",
        ]
        .map(|sql| {
            format!(
                "select {}",
                sql.replace('T', &format!("{source}.public.{source}"))
            )
        })
    };
    // A second version of the files is read as soon as it is there.
    for from in [0, 100_000] {
        write_files(files.path(), from);
        for sql in ["sorted", "hive"].iter().flat_map(|source| queries(source)) {
            let alices = sorted_rows(&nothing.alice, &sql).await;
            let bobs = sorted_rows(&nothing.bob, &sql).await;
            assert!(!alices.iter().any(|row| row.contains(SECRET)), "{sql}");
            assert!(!bobs.iter().any(|row| row.contains("alices")), "{sql}");
            for engine in &kept {
                for round in 1..=2 {
                    assert_eq!(
                        sorted_rows(&engine.alice, &sql).await,
                        alices,
                        "{round}: {sql}"
                    );
                    assert_eq!(sorted_rows(&engine.bob, &sql).await, bobs, "{round}: {sql}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_one_tenant_has_read_is_read_for_another_anew() {
    const MISSES: &str = "jammi_row_group_cache_total{outcome=\"miss\"}";
    const HITS: &str = "jammi_row_group_cache_total{outcome=\"hit\"}";
    const BYTES: &str = "jammi_scan_bytes_total";
    let dir = tempfile::tempdir().unwrap();
    // Row groups that have rows of one tenant alone.
    let parts = [(A, 3), (B, 2)]
        .map(|(tenant, groups)| rows(Some(tenant), 0, (groups * GROUP_ROWS) as i64));
    let sorted = dir.path().join("sorted.parquet");
    write(&sorted, &parts);
    let server = Server::start(dir.path());
    server.command(
        None,
        &["sources", "add", "sorted", sorted.to_str().unwrap()],
    );
    let count = |tenant, expected: usize| {
        let sql = "select count(*), max(text) from sorted.public.sorted";
        let counted = server.command(Some(tenant), &["query", "--format", "csv", sql]);
        let last = counted.lines().last().unwrap().to_owned();
        assert!(last.starts_with(&format!("{expected},")), "{counted}");
        assert_eq!(last.contains(SECRET), tenant == B, "{counted}");
    };
    let grown = async |tenant, expected, metric| {
        let before = server.metric(metric).await;
        count(tenant, expected);
        server.metric(metric).await - before
    };
    assert_eq!(grown(A, 3 * GROUP_ROWS, MISSES).await, 3);
    assert_eq!(grown(A, 3 * GROUP_ROWS, HITS).await, 3);
    assert_eq!(grown(A, 3 * GROUP_ROWS, BYTES).await, 0);
    assert_eq!(grown(B, 2 * GROUP_ROWS, MISSES).await, 2);
    assert_eq!(grown(B, 2 * GROUP_ROWS, BYTES).await, 0);
    // The same number of rows of the same length.
    let parts = parts.map(|part| part.slice(1, part.num_rows() - 1));
    write(&sorted, &parts);
    assert!(grown(A, 3 * GROUP_ROWS - 1, BYTES).await > 0);
    assert_eq!(grown(A, 3 * GROUP_ROWS - 1, BYTES).await, 0);
}
