//! Results as Flight messages.
//!
//! One message is encoded when the transport asks for one, straight from the
//! batch: what is held at any time is the batch at hand and nothing else, a slow
//! reader slows the query, and dropping the stream drops the query. Messages stay
//! well under the 4 MiB that gRPC clients accept by default. Deliberately absent:
//! compression, which browsers cannot read, and a task or channel per stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::Status;

use crate::error::{Error, Result};
use crate::server::status::to_status;

use super::wire;

/// The bytes of rows that a split batch aims at in one message.
const MESSAGE_BYTES: usize = 2 << 20;
/// A batch with more bytes than this is split.
const UNSPLIT_BYTES_MAX: usize = 3 << 20;

/// A stream of record batches as a stream of Flight messages: the schema, then
/// the rows.
pub(super) struct FlightStream<S> {
    batches: S,
    schema: SchemaRef,
    /// Whether batches differ from `schema` and are converted on the way.
    converts: bool,
    /// The rest of the batch at hand.
    pending: VecDeque<RecordBatch>,
    encoder: Encoder,
    state: State,
    message_bytes_max: usize,
}

enum State {
    Schema,
    Rows,
    Done,
}

impl<S> FlightStream<S>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    /// Encodes `batches`, whose schema is `from`, in the plain schema `to`. A
    /// single row that does not fit into `message_bytes_max` ends the stream with
    /// an error.
    pub fn new(batches: S, from: &SchemaRef, to: SchemaRef, message_bytes_max: usize) -> Self {
        FlightStream {
            batches,
            converts: to != *from,
            schema: to,
            pending: VecDeque::new(),
            encoder: Encoder::default(),
            state: State::Schema,
            message_bytes_max,
        }
    }

    /// The next message of the batch at hand, if any of it is left.
    fn next_message(&mut self) -> Result<Option<FlightData>> {
        while let Some(batch) = self.pending.pop_front() {
            let rows = batch.num_rows();
            if rows == 0 {
                continue;
            }
            if self.converts && batch.schema_ref() != &self.schema {
                let parts = wire::expanded_bytes(&batch).div_ceil(wire::EXPANDED_BYTES_MAX);
                if parts > 1 && rows > 1 {
                    self.split(&batch, parts);
                } else {
                    let plain = wire::plain_batch(&batch, &self.schema).map_err(cannot_encode)?;
                    self.pending.push_front(plain);
                }
                continue;
            }
            let bytes = wire::batch_bytes(&batch);
            if bytes > UNSPLIT_BYTES_MAX && rows > 1 {
                self.split(&batch, bytes.div_ceil(MESSAGE_BYTES));
                continue;
            }
            // Before the row is copied, and again with all that goes around it.
            self.fits(bytes)?;
            let message = self.encoder.batch(&batch)?;
            self.fits(message.encoded_len())?;
            return Ok(Some(message));
        }
        Ok(None)
    }

    fn fits(&self, bytes: usize) -> Result<()> {
        if bytes <= self.message_bytes_max {
            return Ok(());
        }
        Err(Error::ResourceExhausted(format!(
            "a row of the result has {bytes} bytes, more than the {} of one message: select less \
             of it, or raise server.message_bytes_max",
            self.message_bytes_max
        )))
    }

    /// Puts `batch` back in front, in `parts` or more.
    fn split(&mut self, batch: &RecordBatch, parts: usize) {
        let rows = batch.num_rows();
        let length = rows.div_ceil(parts.clamp(2, rows));
        for start in (0..rows).step_by(length).rev() {
            let part = batch.slice(start, length.min(rows - start));
            self.pending.push_front(part);
        }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<FlightData, Status>>> {
        self.state = State::Done;
        self.pending.clear();
        Poll::Ready(Some(Err(status)))
    }
}

impl<S> Stream for FlightStream<S>
where
    S: Stream<Item = Result<RecordBatch>> + Unpin,
{
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(None),
                State::Schema => {
                    self.state = State::Rows;
                    let message = self.encoder.schema(&self.schema);
                    return Poll::Ready(Some(Ok(message)));
                }
                State::Rows => {}
            }
            match self.next_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return self.end(to_status(&error)),
            }
            match ready!(self.batches.poll_next_unpin(context)) {
                Some(Ok(batch)) => self.pending.push_back(batch),
                Some(Err(error)) => return self.end(to_status(&error)),
                None => {
                    self.state = State::Done;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Arrow's IPC writer and what it reuses from message to message.
struct Encoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options: IpcWriteOptions::default(),
        }
    }
}

impl Encoder {
    fn schema(&self, schema: &SchemaRef) -> FlightData {
        SchemaAsIpc::new(schema, &self.options).into()
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<FlightData> {
        let (_, encoded) = self
            .generator
            .encode(
                batch,
                &mut self.dictionaries,
                &self.options,
                &mut self.context,
            )
            .map_err(cannot_encode)?;
        // The next message is most likely as large as this one.
        self.context.set_reserve_scratch(true);
        Ok(encoded.into())
    }
}

fn cannot_encode(error: arrow::error::ArrowError) -> Error {
    Error::internal("the result cannot be sent as arrow data", error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::error::FlightError;
    use futures::{TryStreamExt, stream};

    use super::*;

    const CLIENT_BYTES_MAX: usize = 4 << 20;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    async fn messages(batches: Vec<RecordBatch>) -> Result<Vec<FlightData>, Status> {
        let schema = batches[0].schema();
        let batches = stream::iter(batches.into_iter().map(Ok));
        FlightStream::new(batches, &schema, wire::plain_schema(&schema), 16 << 20)
            .try_collect()
            .await
    }

    async fn decoded(messages: Vec<FlightData>) -> Vec<RecordBatch> {
        let messages = stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
        FlightRecordBatchStream::new_from_flight_data(messages)
            .try_collect()
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn every_message_fits_a_client_and_rows_keep_their_order() {
        // Skewed: the first rows are far larger than the rest.
        let texts: Vec<String> = (0..5000)
            .map(|row| "x".repeat(if row < 10 { 900_000 } else { 700 }))
            .collect();
        let rows = texts.len() as i64;
        let whole = batch(vec![
            (
                "id",
                Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef,
            ),
            ("text", Arc::new(StringArray::from(texts)) as ArrayRef),
        ]);
        let messages = messages(vec![whole]).await.unwrap();
        assert!(messages.iter().all(|m| m.encoded_len() < CLIENT_BYTES_MAX));
        let ids: Vec<i64> = decoded(messages)
            .await
            .iter()
            .flat_map(|batch| {
                batch
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .to_vec()
            })
            .collect();
        assert_eq!(ids, (0..rows).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn slices_of_a_large_batch_are_not_cut_to_pieces() {
        let texts = vec!["x".repeat(1000); 10_000];
        let large = batch(vec![(
            "text",
            Arc::new(StringArray::from(texts)) as ArrayRef,
        )]);
        let slices = (0..10).map(|part| large.slice(part * 1000, 1000)).collect();
        // The schema, and one message for each megabyte.
        assert_eq!(messages(slices).await.unwrap().len(), 11);
    }

    #[tokio::test]
    async fn views_of_one_long_value_are_converted_in_parts() {
        let long = "x".repeat(1 << 20);
        let views = StringViewArray::from_iter_values(std::iter::repeat_n(&long, 200));
        let messages = messages(vec![batch(vec![("v", Arc::new(views) as ArrayRef)])])
            .await
            .unwrap();
        assert!(messages.iter().all(|m| m.encoded_len() < CLIENT_BYTES_MAX));
        let rows: usize = decoded(messages)
            .await
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, 200);
    }

    #[tokio::test]
    async fn a_row_larger_than_a_message_is_an_error_that_names_the_setting() {
        let text = StringArray::from(vec!["x".repeat(17 << 20)]);
        let status = messages(vec![batch(vec![("text", Arc::new(text) as ArrayRef)])])
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains("server.message_bytes_max"));
    }

    #[tokio::test]
    async fn no_rows_are_still_a_schema_and_an_error_ends_the_stream() {
        let one = batch(vec![(
            "id",
            Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        )]);
        assert_eq!(messages(vec![one.slice(0, 0)]).await.unwrap().len(), 1);

        let failing = stream::iter([
            Ok(one.clone()),
            Err(Error::DataLoss("row 2 is broken".into())),
            Ok(one.clone()),
        ]);
        let sent: Vec<_> = FlightStream::new(failing, &one.schema(), one.schema(), 1 << 20)
            .collect()
            .await;
        assert_eq!(sent.len(), 3);
        let status = sent[2].as_ref().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DataLoss);
        assert_eq!(status.message(), "row 2 is broken");
    }

    #[tokio::test]
    async fn a_row_count_without_columns_is_kept() {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let batch = RecordBatch::try_new_with_options(schema, vec![], &options).unwrap();
        let decoded = decoded(messages(vec![batch]).await.unwrap()).await;
        assert_eq!(decoded[0].num_rows(), 3);
    }
}
