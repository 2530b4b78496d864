//! Parameters of prepared statements: one row of Arrow data from the client,
//! matched to a statement by position.
//!
//! The row's bytes are a stranger's: `rows` reads them.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::FlightData;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::{Stream, TryStreamExt};

use crate::engine::{Texts, converted, type_name};
use crate::error::{Error, Result};

use super::rows::{self, unreadable};
use super::wire;

/// Reads the one row of `messages`, or `None` when they hold no row or no
/// column. Ends with an error as soon as there is a second row, or more than
/// `bytes_max` bytes.
pub(super) async fn read_row<S>(messages: S, bytes_max: usize) -> Result<Option<RecordBatch>>
where
    S: Stream<Item = Result<FlightData>> + Send + 'static,
{
    let mut batches = rows::decoded(rows::within(messages, bytes_max), bytes_max, Some(1));
    let mut row = None;
    loop {
        let Some(batch) = batches.try_next().await? else {
            return Ok(row);
        };
        if batch.num_columns() == 0 || batch.num_rows() == 0 {
            continue;
        }
        if batch.num_rows() > 1 || row.is_some() {
            return Err(second_row());
        }
        rows::check_types(batch.schema_ref())?;
        row = Some(rows::unpacked(&batch)?);
    }
}

/// `row` as an Arrow IPC stream, in plain types.
pub(super) fn to_ipc(row: &RecordBatch) -> Result<Bytes> {
    let schema = wire::plain_schema(row.schema_ref());
    let write = || -> Result<Vec<u8>, ArrowError> {
        let row = wire::plain_batch(row, &schema)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        writer.write(&row)?;
        writer.into_inner()
    };
    write()
        .map(Bytes::from)
        .map_err(|error| unreadable(&error.to_string()))
}

/// The row that [`to_ipc`] wrote.
pub(super) fn from_ipc(bytes: &[u8]) -> Result<RecordBatch> {
    let defect = |error: ArrowError| Error::internal("bound parameters cannot be read", error);
    let mut reader = StreamReader::try_new(bytes, None).map_err(defect)?;
    match reader.next() {
        Some(row) => row.map_err(defect),
        None => Err(defect(ArrowError::IpcError("no row".into()))),
    }
}

/// The values of `row` in the types of `parameters`, the statement's own.
///
/// A value that its parameter's type cannot hold as it is, as 1.5 for an integer,
/// is an error: rounding would answer another question than the one asked.
pub(super) fn bind(parameters: &Schema, row: Option<&RecordBatch>) -> Result<Vec<ScalarValue>> {
    let columns = row.map_or(&[][..], |row| row.columns());
    let want = parameters.fields().len();
    if columns.len() != want {
        let have = columns.len();
        return Err(Error::InvalidArgument(format!(
            "the statement has {want} parameter{} and {have} value{} bound: prepare it and bind \
             one row with one column for each",
            if want == 1 { "" } else { "s" },
            if have == 1 { " is" } else { "s are" },
        )));
    }
    let fields = parameters.fields().iter();
    fields
        .zip(columns)
        .enumerate()
        .map(|(index, (field, column))| {
            let value = converted(column, field, Texts::Parsed).map_err(|why| {
                Error::InvalidArgument(format!(
                    "parameter {} is {} where {} is expected{why}",
                    index + 1,
                    column.data_type(),
                    type_name(field)
                ))
            })?;
            ScalarValue::try_from_array(&value, 0)
                .map_err(|error| Error::internal("a parameter cannot be read", error))
        })
        .collect()
}

pub(super) fn second_row() -> Error {
    Error::InvalidArgument(
        "a query takes one row of parameters, and more were sent: run it once for each row".into(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, ListBuilder,
        NullArray, StringArray, StringViewBuilder, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow::ipc::{self, CompressionType};
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn row(columns: Vec<ArrayRef>) -> RecordBatch {
        let named = columns.into_iter().enumerate();
        RecordBatch::try_from_iter(named.map(|(index, column)| (index.to_string(), column)))
            .unwrap()
    }

    fn ints(values: &[i64]) -> RecordBatch {
        row(vec![Arc::new(Int64Array::from(values.to_vec()))])
    }

    async fn messages(batches: Vec<RecordBatch>, options: IpcWriteOptions) -> Vec<FlightData> {
        FlightDataEncoderBuilder::new()
            .with_schema(batches[0].schema())
            .with_options(options)
            .build(stream::iter(batches.into_iter().map(Ok)))
            .try_collect()
            .await
            .unwrap()
    }

    async fn read(messages: Vec<FlightData>) -> Result<Option<RecordBatch>> {
        read_row(stream::iter(messages.into_iter().map(Ok)), BYTES_MAX).await
    }

    async fn read_batches(batches: Vec<RecordBatch>) -> Result<Option<RecordBatch>> {
        read(messages(batches, IpcWriteOptions::default()).await).await
    }

    #[tokio::test]
    async fn one_row_is_read() {
        assert_eq!(
            read_batches(vec![ints(&[5])]).await.unwrap(),
            Some(ints(&[5]))
        );
        let after_an_empty_one = vec![ints(&[]), ints(&[5])];
        assert_eq!(
            read_batches(after_an_empty_one).await.unwrap(),
            Some(ints(&[5]))
        );
    }

    /// Symptom: one row of parameters ended the process for want of memory. Cause:
    /// its one value was a list of many views of one long text, which was spelled
    /// out. Fix: what may take more room than is foreseen is refused, as it is
    /// where rows are put.
    #[tokio::test]
    async fn repeated_values_inside_others_are_refused() {
        let mut views = ListBuilder::new(StringViewBuilder::new());
        views.append_value([Some("a"), Some("b")]);
        let lists: ArrayRef = Arc::new(views.finish());
        let error = read_batches(vec![row(vec![lists])]).await.unwrap_err();
        assert!(
            error.to_string().contains("views or runs inside"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn nothing_to_bind_is_no_row() {
        assert_eq!(read(vec![]).await.unwrap(), None);
        assert_eq!(read(vec![FlightData::new()]).await.unwrap(), None);
        assert_eq!(read_batches(vec![ints(&[])]).await.unwrap(), None);
        let no_columns = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let mut sent = messages(vec![no_columns.clone()], IpcWriteOptions::default()).await;
        assert_eq!(read(sent.clone()).await.unwrap(), None);
        // Go sends the batch too.
        let options = IpcWriteOptions::default();
        let (_, batch) = ipc::writer::IpcDataGenerator::default()
            .encode(
                &no_columns,
                &mut ipc::writer::DictionaryTracker::new(false),
                &options,
                &mut Default::default(),
            )
            .unwrap();
        sent.push(batch.into());
        assert_eq!(read(sent).await.unwrap(), None);
    }

    #[tokio::test]
    async fn more_rows_are_refused() {
        for batches in [vec![ints(&[1, 2])], vec![ints(&[1]), ints(&[2])]] {
            let error = read_batches(batches).await.unwrap_err();
            assert!(
                matches!(&error, Error::InvalidArgument(text) if text.contains("one row")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn bytes_have_a_limit_that_empty_messages_reach() {
        let endless = stream::repeat_with(|| Ok(FlightData::new()));
        let error = read_row(endless, 4096).await.unwrap_err();
        assert!(
            matches!(&error, Error::ResourceExhausted(text) if text.contains("server.message_bytes_max"))
        );
    }

    #[tokio::test]
    async fn compressed_rows_are_read_and_forged_lengths_refused() {
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::ZSTD))
            .unwrap();
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(10_000)]));
        let sent = messages(vec![row(vec![text.clone()])], options).await;
        assert_eq!(read(sent.clone()).await.unwrap(), Some(row(vec![text])));

        let body = sent[1].data_body.to_vec();
        // The text's own buffer is the last, and starts with its length, 10000.
        let at = (0..body.len() - 8)
            .rfind(|at| body[*at..at + 8] == 10_000_i64.to_le_bytes())
            .unwrap();
        let too_many = [i64::MAX, 1 << 40, BYTES_MAX as i64 + 1];
        for claimed in too_many.into_iter().chain([-2, 10_001]) {
            let mut forged = sent.clone();
            let mut body = body.clone();
            body[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
            forged[1].data_body = body.into();
            let error = read(forged).await.unwrap_err();
            let refused = match &error {
                Error::ResourceExhausted(text) => {
                    too_many.contains(&claimed) && text.contains("server.message_bytes_max")
                }
                Error::InvalidArgument(_) => !too_many.contains(&claimed),
                _ => false,
            };
            assert!(refused, "{claimed}: {error}");
        }
    }

    #[tokio::test]
    async fn rows_survive_the_handle() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![None])),
            Arc::new(StringArray::from(vec!["a"])),
            Arc::new(NullArray::new(1)),
        ];
        let row = row(columns);
        assert_eq!(from_ipc(&to_ipc(&row).unwrap()).unwrap(), row);
    }

    fn bound(wanted: DataType, value: impl Array + 'static) -> Result<ScalarValue> {
        let parameters = Schema::new(vec![Field::new("$1", wanted, true)]);
        let row = row(vec![Arc::new(value)]);
        bind(&parameters, Some(&row)).map(|mut values| values.remove(0))
    }

    #[test]
    fn values_take_the_statement_s_types() {
        let texts = StringArray::from(vec!["7"]);
        assert_eq!(
            bound(DataType::Int32, Int64Array::from(vec![7])).unwrap(),
            ScalarValue::Int32(Some(7))
        );
        assert_eq!(
            bound(DataType::Int32, texts.clone()).unwrap(),
            ScalarValue::Int32(Some(7))
        );
        assert_eq!(
            bound(DataType::Utf8View, texts.clone()).unwrap(),
            ScalarValue::Utf8View(Some("7".into()))
        );
        assert_eq!(
            bound(DataType::Null, texts).unwrap(),
            ScalarValue::Utf8(Some("7".into()))
        );
        assert_eq!(
            bound(DataType::Int64, NullArray::new(1)).unwrap(),
            ScalarValue::Int64(None)
        );
        assert_eq!(
            bound(DataType::Float32, Float64Array::from(vec![0.1])).unwrap(),
            ScalarValue::Float32(Some(0.1))
        );
        assert_eq!(
            bound(DataType::Int64, Float64Array::from(vec![2.0])).unwrap(),
            ScalarValue::Int64(Some(2))
        );
        assert_eq!(
            bound(
                DataType::Timestamp(TimeUnit::Nanosecond, None),
                Date32Array::from(vec![1])
            )
            .unwrap(),
            ScalarValue::TimestampNanosecond(Some(86_400_000_000_000), None)
        );
    }

    #[test]
    fn values_that_do_not_fit_are_named_by_position() {
        for refused in [
            bound(DataType::Int32, Int64Array::from(vec![i64::MAX])),
            bound(DataType::Int64, Float64Array::from(vec![1.5])),
            bound(DataType::Int64, StringArray::from(vec!["seven"])),
            bound(DataType::Date32, TimestampMicrosecondArray::from(vec![1])),
            bound(DataType::Date32, BooleanArray::from(vec![true])),
        ] {
            let error = refused.unwrap_err();
            assert!(
                matches!(&error, Error::InvalidArgument(text) if text.starts_with("parameter 1 is ")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_number_of_values_is_that_of_the_parameters() {
        let one = Schema::new(vec![Field::new("$1", DataType::Int64, true)]);
        assert!(bind(&Schema::empty(), None).unwrap().is_empty());
        assert_eq!(
            bind(&one, None).unwrap_err().to_string(),
            "the statement has 1 parameter and 0 values are bound: prepare it and bind one row \
             with one column for each"
        );
        assert!(bind(&Schema::empty(), Some(&ints(&[1]))).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn edited_messages_never_panic(
            edits in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let columns: Vec<ArrayRef> = vec![
                    Arc::new(Int64Array::from(vec![Some(5)])),
                    Arc::new(StringArray::from(vec!["text"])),
                ];
                let mut sent = messages(vec![row(columns)], IpcWriteOptions::default()).await;
                for (second, body, at, byte) in edits {
                    let message = &mut sent[usize::from(second)];
                    let part = if body { &mut message.data_body } else { &mut message.data_header };
                    if part.is_empty() {
                        continue;
                    }
                    let mut edited = part.to_vec();
                    edited[at.index(part.len())] = byte;
                    *part = edited.into();
                }
                let _ = read(sent).await;
            });
        }
    }
}
