//! What every request passes: admission, its audit record, planning for a scope, and
//! the mask over each batch. Each name holds the target, where there is one.

// A bench that cannot go on stops, and prints what it measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use jammi_db::TenantId;
use jammi_db::audit::OK;
use jammi_db::config::{JammiConfig, SessionsConfig};
use jammi_db::engine::{Engine, NameDefaults, RegisterSource, TenantColumnChoice};
use jammi_db::policy::LanePredicate;
use jammi_db::server::tenant::{
    SessionKeys, SessionMap, SystemBindings, SystemClock, TenantInterceptor,
};
use jammi_db::tenant::{Principal, Scope, SessionId};
use parquet::arrow::ArrowWriter;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;

const OWN: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
const OTHER: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";
/// Sessions that are bound beside the one that is looked up.
const SESSIONS: usize = 10_000;
/// Rows of a batch, and of the source that statements are planned over.
const ROWS: usize = 8_192;

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the text is well formed")
}

fn scope() -> Scope {
    Scope::tenant_bound(Principal::trusted_network(), parsed(OWN))
}

fn open(runtime: &Runtime, dir: &Path) -> Engine {
    let config = JammiConfig {
        artifact_dir: dir.join("artifacts"),
        ..JammiConfig::default()
    };
    let engine = runtime.block_on(Engine::open(&config));
    engine.expect("the directory is new")
}

fn session_lookup(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::tempdir().expect("a directory can be made");
    let engine = open(&runtime, dir.path());
    let principal = Principal::trusted_network();
    let map = runtime.block_on(async {
        let map = SessionMap::open(
            Arc::new(SystemBindings::new(engine.backend().clone())),
            &SessionsConfig::default(),
            Arc::new(SystemClock),
        )
        .await
        .expect("there are no bindings yet");
        let bound = (0..SESSIONS).map(|index| {
            let (map, principal) = (map.clone(), principal.clone());
            let session: SessionId = parsed(&format!("session-{index}"));
            async move { map.bind(&principal, &session, parsed(OWN)).await }
        });
        for bound in futures::future::join_all(bound).await {
            bound.expect("the sessions are below their limit");
        }
        map
    });

    let session: SessionId = parsed("session-77");
    criterion.bench_function("session lookup (target < 1 us)", |bencher| {
        bencher.iter(|| map.binding(&principal, black_box(&session)));
    });
    let keys = SessionKeys::new(
        engine.catalog().temporary().clone(),
        Duration::from_secs(60),
        Arc::new(SystemClock),
    );
    let interceptor = TenantInterceptor::new(map, keys, true);
    let mut metadata = MetadataMap::new();
    metadata.insert("jammi-session-id", parsed("session-77"));
    criterion.bench_function("admission by header (target < 1 us)", |bencher| {
        bencher.iter(|| interceptor.admit(&principal, black_box(&metadata)));
    });
}

/// What a request does for its record, and, where it waits for room, what the writer
/// does.
fn audit_record(criterion: &mut Criterion) {
    const SQL: &str = "SELECT id, title FROM notes.public.notes WHERE id = 77 AND title <> 'x'";
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::tempdir().expect("a directory can be made");
    let engine = open(&runtime, dir.path());
    let (scope, session) = (scope(), parsed::<SessionId>("session-77"));
    let audit = engine.audit();
    audit.open().expect("the directory is new");
    let tables = ["notes.public.notes".to_owned()];
    let record = async || {
        let entry = audit
            .begin("/arrow.flight.protocol.FlightService/DoGet")
            .await;
        let entry = entry.expect("the disk has room").expect("records are made");
        entry.came(Some("a request"), None, Some("127.0.0.1:50000".to_owned()));
        entry.asks(scope.principal());
        entry.admitted(scope.principal(), Some(&session), scope.tenant());
        entry.statement(black_box(SQL));
        entry.reads(&tables, &scope);
        entry.add_rows(1);
        entry.finish(OK);
    };
    criterion.bench_function("an audit record (target < 50 us)", |bencher| {
        bencher.to_async(&runtime).iter(|| async { record().await });
    });
}

/// A source whose rows are the tenant's, and the same file in DataFusion.
fn planned_over(runtime: &Runtime, dir: &Path) -> (Engine, SessionContext) {
    let path = dir.join("notes.parquet");
    let rows = RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(0..ROWS as i64)) as ArrayRef,
        ),
        ("tenant_id", Arc::new(StringArray::from(vec![OWN; ROWS]))),
        ("title", Arc::new(StringArray::from(vec!["title"; ROWS]))),
    ])
    .expect("the columns are of one length");
    let file = std::fs::File::create(&path).expect("the directory is new");
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("the types are plain");
    writer.write(&rows).expect("the disk has room");
    writer.close().expect("the disk has room");

    let engine = open(runtime, dir);
    let path = path.to_str().expect("the path is text").to_owned();
    let context = SessionContext::new();
    runtime.block_on(async {
        let options = ParquetReadOptions::default();
        let registered = context.register_parquet("t", &path, options).await;
        registered.expect("the file was just written");
        let request = RegisterSource {
            name: "notes".into(),
            location: path.clone(),
            format: None,
            tenant_column: TenantColumnChoice::Infer,
        };
        let registered = engine.register_source(&scope(), request).await;
        registered.expect("the file was just written");
    });
    (engine, context)
}

/// The cost of scoping is the difference between the two of a pair.
fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads can be started");
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (engine, context) = planned_over(&runtime, dir.path());
    let (scope, names) = (scope(), NameDefaults::default());
    let ours = |id: u64| format!("select id, title from notes.public.notes where id = {id}");
    let by_hand = |id: u64| {
        format!(
            "select id, title from t \
             where id = {id} and (tenant_id = '{OWN}' or tenant_id is null)"
        )
    };
    let prepare = async |sql: String| {
        let statement = engine.prepare(&scope, &names, &sql).await;
        statement.expect("the statement is well formed")
    };
    let start = async |sql: String| {
        let statement = prepare(sql).await;
        let rows = engine.execute(&scope, &statement, &[]).await;
        drop(rows.expect("the file is readable"));
    };
    let optimize = async |sql: String| {
        let frame = context.sql(&sql).await;
        let plan = frame
            .expect("the statement is well formed")
            .into_optimized_plan();
        plan.expect("the statement is well formed")
    };
    let start_by_hand = async |sql: String| {
        let frame = context
            .sql(&sql)
            .await
            .expect("the statement is well formed");
        let plan = frame
            .create_physical_plan()
            .await
            .expect("the file is readable");
        drop(execute_stream(plan, context.task_ctx()).expect("the file is readable"));
    };

    let mut group = criterion.benchmark_group("to a logical plan (target: DataFusion + 100 us)");
    let mut fresh = 0..;
    let mut next = || fresh.next().unwrap_or_default();
    group.bench_function("DataFusion, predicate by hand", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| optimize(by_hand(next())));
    });
    group.bench_function("a statement never seen", |bencher| {
        bencher.to_async(&runtime).iter(|| prepare(ours(next())));
    });
    group.bench_function("a statement seen before", |bencher| {
        bencher.to_async(&runtime).iter(|| prepare(ours(0)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("to a running plan (target: DataFusion + 100 us)");
    group.bench_function("DataFusion, predicate by hand", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| start_by_hand(by_hand(next())));
    });
    group.bench_function("a statement never seen", |bencher| {
        bencher.to_async(&runtime).iter(|| start(ours(next())));
    });
    group.bench_function("a statement seen before", |bencher| {
        bencher.to_async(&runtime).iter(|| start(ours(0)));
    });
    group.finish();
}

fn masks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lane mask of a batch of 8,192 rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    let scope = scope();
    let spelled = |share: usize| {
        let ids = (0..ROWS).map(|row| if row % share == 0 { OWN } else { OTHER });
        Arc::new(StringArray::from_iter_values(ids)) as ArrayRef
    };
    let own = spelled(1);
    let mixed = spelled(2);
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let bytes = *parsed::<TenantId>(OWN).as_bytes();
    let bytes = FixedSizeBinaryArray::try_from_iter(std::iter::repeat_n(bytes, ROWS));
    let cases: [(&str, ArrayRef); 6] = [
        ("text, own rows", Arc::clone(&own)),
        ("text, every second row own", Arc::clone(&mixed)),
        (
            "view, own rows",
            cast(&own, &DataType::Utf8View).expect("text is a view"),
        ),
        (
            "dictionary, own rows",
            cast(&own, &dictionary).expect("text is a dictionary"),
        ),
        (
            "dictionary, every second row own",
            cast(&mixed, &dictionary).expect("text is a dictionary"),
        ),
        (
            "bytes, own rows",
            Arc::new(bytes.expect("all are 16 bytes")),
        ),
    ];
    for (name, column) in cases {
        let predicate = LanePredicate::new(&scope, column.data_type());
        let predicate = predicate.expect("the type holds a tenant");
        group.bench_function(name, |bencher| {
            bencher.iter(|| predicate.mask(black_box(&column)));
        });
    }
    group.finish();
}

criterion_group!(hot_path, session_lookup, audit_record, planning, masks);
criterion_main!(hot_path);
