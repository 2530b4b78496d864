//! Values of every type at the wire and in the library: what is written is read, to
//! the bit, whichever way it was written.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use arrow_flight::sql::{DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};
use jammi_db::engine::{Engine, IfExists, IfMissing, IngestTarget};
use jammi_db::session::JammiSession;
use jammi_db::tenant::TenantId;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use tonic::Status;

use crate::arrays::{Random, any_type, key_types, map, plain_types, sliced};
use crate::client::{ALICE, Client, descriptor, prepared};
use crate::harness::{TestServer, config};
use crate::writes::{create, prepared_update, world};

/// The columns of one table, and rows for it.
#[derive(Clone, Debug)]
struct Sheet {
    batch: RecordBatch,
}

/// Any type that rows may be sent in: views and dictionaries only by themselves.
fn wire_type() -> impl Strategy<Value = DataType> {
    let spelled_out: Vec<DataType> = plain_types()
        .into_iter()
        .filter(|plain| !matches!(plain, DataType::Utf8View | DataType::BinaryView))
        .collect();
    let nested = select(spelled_out.clone()).prop_recursive(3, 12, 3, |inner| {
        let item = (inner.clone(), any::<bool>())
            .prop_map(|(item, nullable)| Arc::new(Field::new("item", item, nullable)));
        let fields = prop::collection::vec((inner.clone(), any::<bool>()), 1..4).prop_map(named);
        prop_oneof![
            item.clone().prop_map(DataType::List),
            item.clone().prop_map(DataType::LargeList),
            (item, 0..3).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
            fields.prop_map(DataType::Struct),
            (inner.clone(), inner, any::<bool>())
                .prop_map(|(key, value, nullable)| map(key, value, nullable)),
        ]
    });
    // Arrow forgets how many values of no bytes there are when it spells them out.
    let of_bytes = spelled_out
        .into_iter()
        .filter(|plain| *plain != DataType::FixedSizeBinary(0));
    let dictionary = (select(key_types()), select(of_bytes.collect::<Vec<_>>()))
        .prop_map(|(key, value)| DataType::Dictionary(Box::new(key), Box::new(value)));
    prop_oneof![4 => select(plain_types()), 1 => dictionary, 3 => nested]
}

fn named(fields: Vec<(DataType, bool)>) -> arrow::datatypes::Fields {
    let fields = fields.into_iter().enumerate();
    fields
        .map(|(at, (data_type, nullable))| Field::new(format!("f{at}"), data_type, nullable))
        .collect()
}

/// Rows of columns of these types, and of an id, a UUID and JSON.
fn sheet(types: &[DataType], seed: u64, rows: usize) -> Sheet {
    let mut random = Random(seed);
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let uuids = sliced(&mut random, &DataType::FixedSizeBinary(16), rows);
    let json = (0..rows).map(|_| match random.below(4) {
        0 => None,
        1 => Some("null".to_owned()),
        _ => Some(format!(
            "{{\"a\": [1.50, {}, \"\\u0000é\"]}}",
            random.next()
        )),
    });
    let json: ArrayRef = Arc::new(json.collect::<StringArray>());
    let of = |name: &str, column: &ArrayRef, extension: Option<&str>| {
        let field = Field::new(name, column.data_type().clone(), name != "id");
        let name = extension.map(|name| ("ARROW:extension:name".to_owned(), name.to_owned()));
        field.with_metadata(name.into_iter().collect::<HashMap<_, _>>())
    };
    let mut fields = vec![
        of("id", &ids, None),
        of("u", &uuids, Some("arrow.uuid")),
        of("j", &json, Some("arrow.json")),
    ];
    let mut columns = vec![ids, uuids, json];
    for (at, data_type) in types.iter().enumerate() {
        let column = sliced(&mut random, data_type, rows);
        fields.push(of(&format!("c{at}"), &column, None));
        columns.push(column);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    Sheet { batch }
}

impl Sheet {
    /// The columns' names, as SQL lists them.
    fn names(&self) -> String {
        let schema = self.batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        names.join(", ")
    }

    fn insertion(&self, table: &str) -> String {
        let marks = vec!["?"; self.batch.num_columns()].join(", ");
        format!("INSERT INTO {table} ({}) VALUES ({marks})", self.names())
    }

    /// Says that `found` has just these rows, of the types that are sent.
    fn check_sent(&self, found: &RecordBatch, what: &str) {
        assert_eq!(found.num_rows(), self.batch.num_rows(), "{what}");
        for (at, field) in self.batch.schema().fields().iter().enumerate() {
            let sent = cast(self.batch.column(at), &sent_type(field)).unwrap();
            let told = found.schema().field(at).clone();
            assert_eq!(told.data_type(), sent.data_type(), "{what}");
            let mut metadata = field.metadata().clone();
            // Of decimals their digits are told.
            if let DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) = sent.data_type()
            {
                let tell = |key: &str| format!("ARROW:FLIGHT:SQL:{key}");
                metadata.insert(tell("PRECISION"), precision.to_string());
                metadata.insert(tell("SCALE"), scale.to_string());
            }
            assert_eq!(told.metadata(), &metadata, "{what}");
            assert_eq!(found.column(at), &sent, "{what}: {field}");
        }
    }

    /// As [`Sheet::check_sent`], where rows do not leave the process.
    fn check_kept(&self, found: &[RecordBatch], what: &str) {
        let kept: SchemaRef = match found.first() {
            Some(first) => first.schema(),
            None => return assert_eq!(self.batch.num_rows(), 0, "{what}"),
        };
        let found = concat_batches(&kept, found).unwrap();
        assert_eq!(found.num_rows(), self.batch.num_rows(), "{what}");
        for (column, written) in found.columns().iter().zip(self.batch.columns()) {
            assert_eq!(column.data_type(), written.data_type(), "{what}");
            assert_eq!(column, written, "{what}: {}", written.data_type());
        }
    }

    fn one_row_each(&self) -> Vec<RecordBatch> {
        let rows = 0..self.batch.num_rows();
        rows.map(|row| self.batch.slice(row, 1)).collect()
    }
}

/// Results leave without dictionaries and views.
fn sent_type(field: &FieldRef) -> DataType {
    match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

/// The batches in the types that they have. arrow-flight's own encoder spells out
/// dictionaries, or announces a LargeList as a List.
fn messages(schema: &Schema, batches: &[RecordBatch]) -> Vec<FlightData> {
    let (options, generator) = (IpcWriteOptions::default(), IpcDataGenerator::default());
    let mut tracker = DictionaryTracker::new(false);
    let mut context = IpcWriteContext::default();
    let head = generator.schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    let mut messages = vec![FlightData::from(head)];
    for batch in batches {
        let encoded = generator.encode(batch, &mut tracker, &options, &mut context);
        let (dictionaries, rows) = encoded.unwrap();
        messages.extend(dictionaries.into_iter().map(FlightData::from));
        messages.push(rows.into());
    }
    messages
}

impl Client {
    async fn put_as_is(
        &mut self,
        command: &impl ProstMessageExt,
        schema: &Schema,
        batches: Vec<RecordBatch>,
    ) -> Result<Bytes, Status> {
        let mut messages = messages(schema, &batches);
        messages[0].flight_descriptor = Some(descriptor(command));
        let request = self.request(stream::iter(messages));
        let results = self.flight.do_put(request).await?.into_inner();
        let results: Vec<_> = results.try_collect().await?;
        Ok(results[0].app_metadata.clone())
    }

    async fn put_counted_as_is(
        &mut self,
        command: &impl ProstMessageExt,
        schema: &Schema,
        batches: Vec<RecordBatch>,
    ) -> Result<i64, Status> {
        let result = self.put_as_is(command, schema, batches).await?;
        Ok(DoPutUpdateResult::decode(result).unwrap().record_count)
    }
}

/// The tables, each written another way.
const TABLES: [&str; 5] = ["bulk", "many", "single", "executed", "copied"];

async fn check_sheet(sheet: &Sheet) {
    let (server, mut alice, mut bob) = world().await;
    let (schema, rows) = (sheet.batch.schema(), sheet.batch.num_rows() as i64);
    for table in TABLES {
        let canary = format!("CREATE TABLE {table} AS SELECT 'canary' AS bird");
        bob.update(&canary).await.unwrap();
    }

    let bulk = create("bulk");
    let written = alice.put_counted_as_is(&bulk, &schema, vec![sheet.batch.clone()]);
    assert_eq!(written.await.unwrap(), rows);
    for table in &TABLES[1..] {
        let names = sheet.names();
        let alike = format!("CREATE TABLE {table} AS SELECT {names} FROM bulk WHERE false");
        alice.update(&alike).await.unwrap();
    }
    let many = prepared_update(&mut alice, &sheet.insertion("many")).await;
    let written = alice.put_counted_as_is(&many, &schema, vec![sheet.batch.clone()]);
    assert_eq!(written.await.unwrap(), rows);
    let single = prepared_update(&mut alice, &sheet.insertion("single")).await;
    let written = alice.put_counted_as_is(&single, &schema, sheet.one_row_each());
    assert_eq!(written.await.unwrap(), rows);
    // As execute() of a driver does: a row is bound, and the handle is fetched.
    let handle = alice.prepare(&sheet.insertion("executed")).await.unwrap();
    for row in sheet.one_row_each() {
        let command = prepared(&handle.prepared_statement_handle);
        let bound = alice.put_as_is(&command, &schema, vec![row]).await.unwrap();
        let bound = DoPutPreparedStatementResult::decode(bound).unwrap();
        let command = prepared(&bound.prepared_statement_handle.unwrap());
        alice.rows(&command).await.unwrap();
    }
    let copy = format!(
        "INSERT INTO copied ({0}) SELECT {0} FROM bulk",
        sheet.names()
    );
    assert_eq!(alice.update(&copy).await.unwrap(), rows);

    check_tables(sheet, &mut alice, "as it was written").await;
    check_tables(sheet, &mut alice, "from the cache").await;
    let dir = server.stop().await;
    let server = TestServer::start_in(Arc::clone(&dir), |_| {}).await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    check_tables(sheet, &mut alice, "after a restart").await;
    check_tables(sheet, &mut alice, "after a restart, from the cache").await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    for table in TABLES {
        assert_eq!(
            bob.shows(&format!("SELECT bird FROM {table}")).await,
            "canary"
        );
    }
    server.stop().await;

    let session = JammiSession::new(config(dir.path())).await.unwrap();
    let session = session.with_tenant(ALICE.parse::<TenantId>().unwrap());
    for table in TABLES {
        for what in ["the library", "the library, from the cache"] {
            let sql = format!("SELECT {} FROM {table}", sheet.names());
            let found = session.sql(&sql).await.unwrap();
            sheet.check_kept(&found, &format!("{table} by {what}"));
        }
    }
}

async fn check_tables(sheet: &Sheet, alice: &mut Client, what: &str) {
    for table in TABLES {
        let found = alice
            .query(&format!("SELECT {} FROM {table}", sheet.names()))
            .await
            .unwrap();
        sheet.check_sent(&found, &format!("{table} {what}"));
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Each type by itself, so that none is left to chance.
#[test]
fn every_plain_type_survives_the_wire() {
    run(check_sheet(&sheet(&plain_types(), 7, 60)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Rows of any types are read as they were written: in bulk, by parameters of
    /// many rows and of one, and from table to table; at once, from memory, after a
    /// restart and in the library.
    #[test]
    fn any_types_survive_the_wire(
        types in prop::collection::vec(wire_type(), 1..6),
        seed in any::<u64>(),
        rows in 0..12_usize,
    ) {
        run(check_sheet(&sheet(&types, seed, rows)));
    }

    /// The library takes what clients may not send: views and dictionaries inside of
    /// lists, and the like. In bulk, and a row at a time.
    #[test]
    fn any_types_survive_the_library(
        types in prop::collection::vec(any_type(), 1..6),
        seed in any::<u64>(),
        rows in 0..12_usize,
    ) {
        run(check_library(&sheet(&types, seed, rows)));
    }
}

async fn check_library(sheet: &Sheet) {
    let dir = tempfile::tempdir().unwrap();
    for what in ["as it was written", "opened again"] {
        let engine = Engine::open(&config(dir.path())).await.unwrap();
        let session = JammiSession::on(engine.clone());
        let session = session.with_tenant(ALICE.parse::<TenantId>().unwrap());
        if what == "as it was written" {
            write_by_library(sheet, &session).await;
        }
        for table in ["bulk", "single"] {
            for from in ["from the disk", "from the cache"] {
                let sql = format!("SELECT {} FROM {table}", sheet.names());
                let found = session.sql(&sql).await.unwrap();
                sheet.check_kept(&found, &format!("{table} {what}, {from}"));
            }
        }
    }
}

async fn write_by_library(sheet: &Sheet, session: &JammiSession) {
    let target = IngestTarget {
        table: "bulk".into(),
        if_missing: IfMissing::Create,
        if_exists: IfExists::Fail,
        temporary: false,
    };
    let rows = stream::iter([Ok(sheet.batch.clone())]).boxed();
    let (scope, schema) = (session.scope().await.unwrap(), sheet.batch.schema());
    let written = session
        .engine()
        .ingest(&scope, &target, &schema, rows, None);
    assert_eq!(written.await.unwrap(), sheet.batch.num_rows() as u64);
    let names = sheet.names();
    let alike = format!("CREATE TABLE single AS SELECT {names} FROM bulk WHERE false");
    session.sql(&alike).await.unwrap();
    for row in 0..sheet.batch.num_rows() {
        let columns = sheet.batch.columns().iter();
        let values: Vec<ScalarValue> = columns
            .map(|column| ScalarValue::try_from_array(column, row).unwrap())
            .collect();
        let insertion = sheet.insertion("single");
        session.sql_with(&insertion, &values).await.unwrap();
    }
}
