//! Small results in every format.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use futures::{StreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn batch() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(20), None]));
    let titles: ArrayRef = Arc::new(StringArray::from(vec![
        Some("plain"),
        Some("a,\"b\"\nc"),
        Some("日本 é"),
    ]));
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("x"), None]);
    tags.append_value([] as [Option<&str>; 0]);
    tags.append_null();
    let tags: ArrayRef = Arc::new(tags.finish());
    RecordBatch::try_from_iter([("id", ids), ("title", titles), ("tags", tags)]).unwrap()
}

fn written(batch: &RecordBatch, format: OutputFormat) -> Vec<u8> {
    let mut output = Output::memory(format);
    output.batch(batch).unwrap();
    output.bytes()
}

fn text(batch: &RecordBatch, format: OutputFormat) -> String {
    String::from_utf8(written(batch, format)).unwrap()
}

#[test]
fn tables_line_up() {
    let expected = "\
+------+--------+-----------+
|   id | title  | tags      |
+===========================+
|    1 | plain  | [x, NULL] |
|   20 | a,\"b\"  | []        |
|      | c      |           |
| NULL | 日本 é | NULL      |
+------+--------+-----------+
";
    let actual = text(&batch(), OutputFormat::Table);
    assert_eq!(actual, expected, "\n{actual}");
}

#[test]
fn csv_has_a_header_and_quotes_what_needs_it() {
    assert_eq!(
        text(&batch(), OutputFormat::Csv),
        "id,title,tags\n\
         1,plain,\"[\"\"x\"\",null]\"\n\
         20,\"a,\"\"b\"\"\nc\",[]\n\
         ,日本 é,\n"
    );
}

#[test]
fn json_is_one_array() {
    assert_eq!(
        text(&batch(), OutputFormat::Json),
        "[{\"id\":1,\"title\":\"plain\",\"tags\":[\"x\",null]},\
         {\"id\":20,\"title\":\"a,\\\"b\\\"\\nc\",\"tags\":[]},\
         {\"id\":null,\"title\":\"日本 é\",\"tags\":null}]\n"
    );
}

#[test]
fn ndjson_is_an_object_a_line() {
    assert_eq!(
        text(&batch(), OutputFormat::Ndjson),
        "{\"id\":1,\"title\":\"plain\",\"tags\":[\"x\",null]}\n\
         {\"id\":20,\"title\":\"a,\\\"b\\\"\\nc\",\"tags\":[]}\n\
         {\"id\":null,\"title\":\"日本 é\",\"tags\":null}\n"
    );
}

#[test]
fn numbers_that_json_lacks_are_null() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 1.5]));
    let batch = RecordBatch::try_from_iter([("x", values)]).unwrap();
    assert_eq!(
        text(&batch, OutputFormat::Json),
        "[{\"x\":null},{\"x\":null},{\"x\":1.5}]\n"
    );
}

#[test]
fn empty_results_keep_their_columns() {
    let empty = batch().slice(0, 0);
    assert_eq!(text(&empty, OutputFormat::Csv), "id,title,tags\n");
    assert_eq!(text(&empty, OutputFormat::Json), "[]\n");
    assert_eq!(text(&empty, OutputFormat::Ndjson), "");
    let table = text(&empty, OutputFormat::Table);
    assert!(table.contains("| id | title | tags |"), "{table}");
    for format in [OutputFormat::Arrow, OutputFormat::Parquet] {
        assert_eq!(read_back(&written(&empty, format), format), empty);
    }
}

#[test]
fn binary_formats_read_back_the_same() {
    for format in [OutputFormat::Arrow, OutputFormat::Parquet] {
        assert_eq!(read_back(&written(&batch(), format), format), batch());
    }
}

fn read_back(bytes: &[u8], format: OutputFormat) -> RecordBatch {
    let (schema, batches): (_, Vec<RecordBatch>) = match format {
        OutputFormat::Arrow => {
            let reader = StreamReader::try_new(bytes, None).unwrap();
            (reader.schema(), reader.map(Result::unwrap).collect())
        }
        OutputFormat::Parquet => {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            let schema = SchemaRef::clone(builder.schema());
            (
                schema,
                builder.build().unwrap().map(Result::unwrap).collect(),
            )
        }
        _ => panic!("{format:?} is text"),
    };
    concat_batches(&schema, &batches).unwrap()
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["\u{1b}[2J\rx\ty\u{9b}"]));
    let batch = RecordBatch::try_from_iter([("t", texts)]).unwrap();
    let table = text(&batch, OutputFormat::Table);
    assert!(table.contains("\\u{1b}[2J\\rx\\ty\\u{9b}"), "{table}");
    assert!(
        !table.contains(|c: char| c.is_control() && c != '\n'),
        "{table:?}"
    );
}

#[tokio::test]
async fn long_tables_are_one_table_with_one_header() {
    let page = |from: i64, rows: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        RecordBatch::try_from_iter([("id", ids)]).unwrap()
    };
    let (first, second) = (page(100_000, 1500), page(200_000, 1000));
    let schema = first.schema();
    let batches = stream::iter([Ok(first), Ok(second)]).boxed();
    let mut output = Output::memory(OutputFormat::Table);
    let mut progress = Progress::start();
    let rows = output
        .stream(Rows::new(schema, batches), &mut progress)
        .await
        .unwrap();
    assert_eq!(rows, 2500);
    let table = String::from_utf8(output.bytes()).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2500 + 4);
    let borders = lines.iter().filter(|line| line.starts_with('+')).count();
    assert_eq!(borders, 3, "top, below the header, bottom");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
}

#[tokio::test]
async fn rows_before_a_failure_are_written_and_the_failure_is_told() {
    let schema = batch().schema();
    let failure = Failure::Engine("row 4 is broken".into());
    let batches = stream::iter([Ok(batch()), Err(failure)]).boxed();
    let mut output = Output::memory(OutputFormat::Ndjson);
    let mut progress = Progress::start();
    let outcome = output
        .stream(Rows::new(schema, batches), &mut progress)
        .await;
    let message = outcome
        .err()
        .and_then(|failure| Some(failure.message()?.to_owned()));
    assert_eq!(message.as_deref(), Some("row 4 is broken"));
    assert_eq!(
        output.bytes().iter().filter(|byte| **byte == b'\n').count(),
        3
    );
}
