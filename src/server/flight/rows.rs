//! Rows that clients put, as a stream of record batches.
//!
//! The bytes are a stranger's. [`check_message`] looks at every length that a
//! message claims before the Arrow reader acts on it, since that reader allocates
//! what it is told to; a reader that panics all the same is an error of the
//! request. Batches are handed on in pieces whose values, spelled out, stay small.

use std::collections::HashMap;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::read_record_batch;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};

use crate::error::{Error, Result};

use super::parameters::second_row;
use super::wire;

/// What every message costs beside its bytes, so that a stream of empty ones
/// ends too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// What stands for the length of a buffer that compression did not shrink.
const NOT_COMPRESSED: i64 = -1;
/// The rows of a piece.
const PIECE_ROWS: usize = 8_192;

/// What a client put.
pub(super) struct Put {
    /// The columns, where any were told.
    pub schema: Option<SchemaRef>,
    /// Pieces of rows, none of them empty.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
}

impl Put {
    /// Reads up to the first rows of `messages`, each of up to `bytes_max` bytes,
    /// between which the client may pause for `timeout`.
    pub async fn read<S>(messages: S, bytes_max: usize, timeout: Duration) -> Result<Put>
    where
        S: Stream<Item = Result<FlightData>> + Send + 'static,
    {
        let messages = in_time(messages, timeout);
        let latest = Latest::default();
        let mut batches = decode(messages, bytes_max, None, &latest);
        let mut first = None;
        loop {
            let next = AssertUnwindSafe(batches.try_next()).catch_unwind().await;
            let next = next.map_err(|_| unreadable("the arrow data is malformed"))?;
            let Some(batch) = next.map_err(|error| latest.of_flight(error))? else {
                break;
            };
            if batch.num_rows() > 0 {
                first = Some(batch);
                break;
            }
        }
        let schema = batches.schema().cloned();
        if let Some(schema) = &schema {
            check_types(schema)?;
        }
        let schema = schema.map(|schema| unpacked_schema(&schema));
        let rest = caught(batches, latest);
        let rows = stream::iter(first.map(Ok))
            .chain(rest)
            .map_ok(|batch| stream::iter(pieces(batch)).map(|piece| unpacked(&piece)))
            .try_flatten()
            .boxed();
        Ok(Put { schema, rows })
    }
}

/// `messages` up to `bytes_max` bytes of them all together.
pub(super) fn within<S>(
    messages: S,
    bytes_max: usize,
) -> impl Stream<Item = Result<FlightData>> + Send + 'static
where
    S: Stream<Item = Result<FlightData>> + Send + 'static,
{
    let mut total = 0_usize;
    messages.map(move |message| {
        let message = message?;
        total = total
            .saturating_add(message.data_header.len() + message.data_body.len())
            .saturating_add(MESSAGE_OVERHEAD_BYTES);
        if total > bytes_max {
            return Err(Error::ResourceExhausted(format!(
                "the parameters have more than {bytes_max} bytes: send less, or raise \
                 server.message_bytes_max"
            )));
        }
        Ok(message)
    })
}

/// The batches of `messages`, each of up to `bytes_max` bytes and `rows_max` rows.
pub(super) fn decoded<S>(
    messages: S,
    bytes_max: usize,
    rows_max: Option<i64>,
) -> BoxStream<'static, Result<RecordBatch>>
where
    S: Stream<Item = Result<FlightData>> + Send + 'static,
{
    let latest = Latest::default();
    caught(decode(messages, bytes_max, rows_max, &latest), latest).boxed()
}

fn decode<S>(
    messages: S,
    bytes_max: usize,
    rows_max: Option<i64>,
    latest: &Latest,
) -> FlightRecordBatchStream
where
    S: Stream<Item = Result<FlightData>> + Send + 'static,
{
    let latest = latest.clone();
    let checked = messages
        .map(move |message| {
            let message = message?;
            check_message(&message, bytes_max, rows_max)?;
            latest.keep(&message);
            Ok(message)
        })
        // A message without a header carries the descriptor alone.
        .try_filter(|message| ready(!message.data_header.is_empty()))
        .map_err(|error: Error| FlightError::ExternalError(Box::new(error)));
    FlightRecordBatchStream::new_from_flight_data(checked)
}

/// `batches`, of which a panic is an error.
fn caught(
    batches: FlightRecordBatchStream,
    latest: Latest,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    AssertUnwindSafe(batches)
        .catch_unwind()
        .map(move |batch| match batch {
            Ok(batch) => batch.map_err(|error| latest.of_flight(error)),
            Err(_) => Err(unreadable("the arrow data is malformed")),
        })
}

/// `messages`, none of which comes later than `timeout` after the one before.
fn in_time<S>(
    messages: S,
    timeout: Duration,
) -> impl Stream<Item = Result<FlightData>> + Send + 'static
where
    S: Stream<Item = Result<FlightData>> + Send + 'static,
{
    stream::unfold(Some(messages.boxed()), move |messages| async move {
        let mut messages = messages?;
        match tokio::time::timeout(timeout, messages.next()).await {
            Ok(message) => Some((message?, Some(messages))),
            Err(_) => {
                let late = Error::Cancelled(
                    "the client sent nothing for longer than server.put_timeout_ms: send rows \
                     as they come, or raise it"
                        .into(),
                );
                Some((Err(late), None))
            }
        }
    })
}

/// `batch` in parts of few rows, whose repeated values fit into memory when they
/// are spelled out.
fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let expanded = wire::expanded_bytes(&batch).div_ceil(wire::EXPANDED_BYTES_MAX);
    let length = PIECE_ROWS.min(rows.div_ceil(expanded.max(1))).max(1);
    (0..rows)
        .step_by(length)
        .map(|start| batch.slice(start, length.min(rows - start)))
        .collect()
}

/// `batch` with dictionaries of views as views. A view takes 16 bytes, however long
/// its value is, and a dictionary may have many that no row has: to spell that
/// dictionary out would take room that nothing bounds.
pub(super) fn unpacked(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = unpacked_schema(batch.schema_ref());
    if Arc::ptr_eq(&schema, batch.schema_ref()) {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| match is_of_views(column.data_type()) {
            true => {
                let dictionary = column.as_any_dictionary();
                take(dictionary.values(), dictionary.keys(), None)
            }
            false => Ok(Arc::clone(column)),
        });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|columns| RecordBatch::try_new_with_options(schema, columns, &options))
        .map_err(|error| unreadable(&error.to_string()))
}

fn unpacked_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields();
    if !fields.iter().any(|field| is_of_views(field.data_type())) {
        return Arc::clone(schema);
    }
    let fields = fields.iter().map(|field| match field.data_type() {
        DataType::Dictionary(_, values) if is_of_views(field.data_type()) => {
            let values = values.as_ref().clone();
            Arc::new(field.as_ref().clone().with_data_type(values))
        }
        _ => Arc::clone(field),
    });
    let fields: Fields = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Whether a type is that of a dictionary of views.
fn is_of_views(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(_, values) if is_view(values))
}

fn is_view(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::BinaryView)
}

/// Refuses types whose values may take far more room than their bytes do, where
/// that cannot be foreseen.
pub(super) fn check_types(schema: &Schema) -> Result<()> {
    fn repeats(data_type: &DataType) -> bool {
        match data_type {
            DataType::Dictionary(_, _)
            | DataType::RunEndEncoded(_, _)
            | DataType::Utf8View
            | DataType::BinaryView => true,
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::Map(field, _) => repeats(field.data_type()),
            DataType::Struct(fields) => fields.iter().any(|field| repeats(field.data_type())),
            DataType::Union(fields, _) => {
                fields.iter().any(|(_, field)| repeats(field.data_type()))
            }
            _ => false,
        }
    }
    for field in schema.fields() {
        let refused = match field.data_type() {
            DataType::Dictionary(_, values) => !is_view(values) && repeats(values),
            other => !is_view(other) && repeats(other),
        };
        if refused {
            return Err(Error::InvalidArgument(format!(
                "column `{}` is {}, which is not taken from clients: send its values as they are, \
                 without a dictionary, views or runs inside",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// Refuses lengths that the reader must not believe.
fn check_message(message: &FlightData, bytes_max: usize, rows_max: Option<i64>) -> Result<()> {
    if message.data_header.is_empty() {
        return Ok(());
    }
    let header = ipc::root_as_message(&message.data_header)
        .map_err(|error| unreadable(&error.to_string()))?;
    let batch = match header.header_type() {
        ipc::MessageHeader::RecordBatch => header.header_as_record_batch(),
        ipc::MessageHeader::DictionaryBatch => {
            let dictionary = header.header_as_dictionary_batch();
            dictionary.and_then(|dictionary| dictionary.data())
        }
        _ => return Ok(()),
    };
    let Some(batch) = batch else {
        return Err(unreadable("a batch without content"));
    };
    if header.header_type() == ipc::MessageHeader::RecordBatch
        && rows_max.is_some_and(|rows_max| batch.length() > rows_max)
    {
        return Err(second_row());
    }
    let held = |length: i64| usize::try_from(length).is_ok_and(|length| length <= bytes_max);
    let nodes = batch.nodes().into_iter().flatten();
    if !nodes
        .copied()
        .all(|node| held(node.length()) && held(node.null_count()))
    {
        return Err(unreadable("a column's length is out of range"));
    }
    let mut decompressed = 0_usize;
    for buffer in batch.buffers().into_iter().flatten() {
        let Some(bytes) = slice(&message.data_body, buffer) else {
            return Err(unreadable("a buffer lies outside of its message"));
        };
        if batch.compression().is_some() && !bytes.is_empty() {
            let claimed = bytes
                .first_chunk()
                .map(|length| i64::from_le_bytes(*length));
            decompressed = match claimed.map(|claimed| (claimed, usize::try_from(claimed))) {
                Some((NOT_COMPRESSED, _)) => decompressed,
                Some((_, Ok(claimed))) => decompressed.saturating_add(claimed),
                _ => return Err(unreadable("a compressed buffer's length is out of range")),
            };
            if decompressed > bytes_max {
                return Err(Error::ResourceExhausted(format!(
                    "a message of rows takes more bytes than the setting \
                     server.message_bytes_max (now {bytes_max}) allows once it is decompressed: \
                     send fewer rows at a time, or raise it"
                )));
            }
        }
    }
    Ok(())
}

fn slice<'a>(body: &'a [u8], buffer: &ipc::Buffer) -> Option<&'a [u8]> {
    let start = usize::try_from(buffer.offset()).ok()?;
    let length = usize::try_from(buffer.length()).ok()?;
    body.get(start..start.checked_add(length)?)
}

pub(super) fn unreadable(why: &str) -> Error {
    Error::InvalidArgument(format!("the parameters cannot be read: {why}"))
}

/// The messages that are being read, to say which column of them is at fault.
#[derive(Clone, Default)]
struct Latest(Arc<Mutex<Messages>>);

#[derive(Default)]
struct Messages {
    schema: Option<SchemaRef>,
    rows: Option<FlightData>,
}

impl Latest {
    fn keep(&self, message: &FlightData) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(header) = ipc::root_as_message(&message.data_header) else {
            return;
        };
        if let Some(schema) = header.header_as_schema() {
            let read = catch_unwind(|| fb_to_schema(schema));
            latest.schema = read.ok().map(Arc::new);
        } else if header.header_type() == ipc::MessageHeader::RecordBatch {
            latest.rows = Some(message.clone());
        }
    }

    /// Our own error where there is one in `error`, else one of reading.
    fn of_flight(&self, error: FlightError) -> Error {
        let error = match error {
            FlightError::ExternalError(error) => match error.downcast::<Error>() {
                Ok(own) => return *own,
                Err(other) => other.to_string(),
            },
            other => other.to_string(),
        };
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match latest.column_at_fault() {
            Some((column, why)) => Error::InvalidArgument(format!(
                "column `{column}` cannot be read: {why}: send text as UTF-8, and every value as \
                 Arrow has it"
            )),
            None => unreadable(&error),
        }
    }
}

impl Messages {
    /// The first column that cannot be read by itself, and why.
    fn column_at_fault(&self) -> Option<(String, String)> {
        let (schema, message) = (self.schema.as_ref()?, self.rows.as_ref()?);
        let header = ipc::root_as_message(&message.data_header).ok()?;
        let batch = header.header_as_record_batch()?;
        let body = Buffer::from(message.data_body.clone());
        let none = HashMap::new();
        let fields = schema.fields().iter().enumerate();
        // Dictionaries are in other messages.
        fields
            .filter(|(_, field)| !matches!(field.data_type(), DataType::Dictionary(..)))
            .find_map(|(at, field)| {
                let read = || {
                    let (schema, version) = (Arc::clone(schema), header.version());
                    read_record_batch(&body, batch, schema, &none, Some(&[at]), &version)
                };
                match catch_unwind(AssertUnwindSafe(read)) {
                    Ok(Err(ArrowError::InvalidArgumentError(why))) => {
                        Some((field.name().clone(), why))
                    }
                    _ => None,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, StringArray, StringViewBuilder, UInt32Array};
    use arrow::datatypes::{Field, Int8Type};

    use super::*;

    fn of(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("c", data_type, true)])
    }

    #[test]
    fn types_that_may_take_more_room_than_is_foreseen_are_refused() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let list = |of: DataType| DataType::List(Arc::new(Field::new("item", of, true)));
        for taken in [
            dictionary.clone(),
            DataType::Utf8View,
            DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8View)),
            list(DataType::Utf8),
            list(list(DataType::Int8)),
        ] {
            assert!(check_types(&of(taken.clone())).is_ok(), "{taken}");
        }
        let run = |of: DataType| {
            DataType::RunEndEncoded(
                Arc::new(Field::new("run_ends", DataType::Int32, false)),
                Arc::new(Field::new("values", of, true)),
            )
        };
        for refused in [
            list(dictionary),
            list(DataType::Utf8View),
            run(DataType::Utf8),
        ] {
            let error = check_types(&of(refused.clone())).unwrap_err();
            assert!(error.to_string().contains("`c`"), "{refused}: {error}");
        }
    }

    /// Symptom: one row of parameters took gigabytes and ended in a panic. Cause: its
    /// dictionary, in which a view of one long text came again and again, was
    /// spelled out whole. Fix: what the rows use of it is.
    #[test]
    fn a_dictionary_of_views_is_never_spelled_out() {
        const VIEWS: usize = 50;
        let long = "x".repeat(1 << 20);
        let mut views = StringViewBuilder::new();
        let block = views.append_block(Buffer::from(long.as_bytes()));
        for _ in 0..VIEWS {
            views.try_append_view(block, 0, 1 << 20).unwrap();
        }
        let keys = UInt32Array::from(vec![Some(7), None]);
        let values = DictionaryArray::new(keys, Arc::new(views.finish()));
        let batch = RecordBatch::try_from_iter([("c", Arc::new(values) as _)]).unwrap();
        // As long as its longest value, in every row.
        assert_eq!(wire::expanded_bytes(&batch), 2 << 20);
        let unpacked = unpacked(&batch).unwrap();
        let column = unpacked.column(0).as_string_view();
        assert_eq!((column.value(0), column.is_null(1)), (long.as_str(), true));
    }

    #[test]
    fn rows_with_repeated_values_come_in_small_pieces() {
        let long = "x".repeat(1 << 20);
        let mut values: DictionaryArray<Int8Type> =
            std::iter::repeat_n(long.as_str(), 200).collect();
        values = values.with_values(Arc::new(StringArray::from(vec![long.as_str()])));
        let batch = RecordBatch::try_from_iter([("c", Arc::new(values) as _)]).unwrap();
        let pieces = pieces(batch);
        assert!(pieces.len() > 1);
        assert_eq!(pieces.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);
        assert!(
            pieces
                .iter()
                .all(|piece| wire::expanded_bytes(piece) <= 2 * wire::EXPANDED_BYTES_MAX)
        );
    }
}
