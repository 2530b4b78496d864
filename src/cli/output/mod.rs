//! Rows as bytes, in the format that was asked for.
//!
//! A result passes through batch by batch, so memory does not grow with it.
//! Formats that hold a header or a schema write it for an empty result too.
//!
//! Architecture invariant: what goes through here is rows and nothing else.
//! Notices, progress and errors go to stderr, elsewhere.

mod binary;
mod sink;
mod table;
mod text;

use std::io::{IsTerminal, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;

pub use self::sink::Sink;

use self::binary::{ArrowWriter, ParquetWriter};
use self::table::TableWriter;
use self::text::{CsvWriter, JsonWriter, NdjsonWriter};
use super::args::OutputFormat;
use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::target::Rows;

/// Encodes the batches of one result into a sink.
trait RowWriter: Send {
    /// Writes a batch, or keeps it until there is enough for a page.
    fn write(&mut self, batch: &RecordBatch) -> Outcome;

    /// Writes what is left and what closes the result.
    fn finish(&mut self) -> Outcome;
}

/// Where results go and how they are written.
pub struct Output {
    sink: Sink,
    format: OutputFormat,
    /// Whether a page on a terminal would be torn by a spinner.
    on_terminal: bool,
}

impl Output {
    /// Results to stdout.
    pub fn stdout(format: OutputFormat) -> Outcome<Self> {
        let on_terminal = std::io::stdout().is_terminal();
        if on_terminal && format.is_binary() {
            return Err(Failure::Usage(
                "this format is not for a terminal: add -o FILE, or send stdout elsewhere".into(),
            ));
        }
        Ok(Output {
            sink: Sink::stdout(),
            format,
            on_terminal,
        })
    }

    /// Results to a file, which appears when [`Output::finish`] is called.
    pub fn file(path: &Path, format: OutputFormat) -> Outcome<Self> {
        Ok(Output {
            sink: Sink::file(path)?,
            format,
            on_terminal: false,
        })
    }

    /// How results are written.
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Writes a result as it comes and says how many rows it had. A statement
    /// without columns has no result to write.
    pub async fn stream(&mut self, mut rows: Rows, progress: &mut Progress) -> Outcome<u64> {
        let schema = rows.schema();
        let silent = schema.fields().is_empty();
        let mut writer = self.writer(schema)?;
        while let Some(batch) = progress.watch(rows.next()).await {
            let batch = batch?;
            progress.add_rows(batch.num_rows());
            if self.on_terminal {
                progress.stop();
            }
            if !silent {
                self.checked(writer.write(&batch))?;
            }
            // Rows may come faster than they are written, and nothing else, such
            // as Ctrl-C, would be looked at while they do.
            tokio::task::yield_now().await;
        }
        progress.stop();
        if !silent {
            self.checked(writer.finish())?;
        }
        self.flush()?;
        Ok(progress.rows())
    }

    /// Writes a result that is already here.
    pub fn batch(&mut self, batch: &RecordBatch) -> Outcome {
        let mut writer = self.writer(batch.schema())?;
        self.checked(writer.write(batch))?;
        self.checked(writer.finish())?;
        self.flush()
    }

    /// Writes a line of text, such as what was done.
    pub fn line(&mut self, text: &str) -> Outcome {
        let written = writeln!(self.sink, "{text}");
        self.checked(written.map_err(|error| Failure::Output(error.to_string())))?;
        self.flush()
    }

    /// Makes a file appear under its name.
    pub fn finish(self) -> Outcome {
        self.sink.commit()
    }

    fn writer(&self, schema: SchemaRef) -> Outcome<Box<dyn RowWriter>> {
        let writer = self.format_writer(schema);
        self.checked(writer)
    }

    fn format_writer(&self, schema: SchemaRef) -> Outcome<Box<dyn RowWriter>> {
        let sink = self.sink.clone();
        Ok(match self.format {
            OutputFormat::Table => Box::new(TableWriter::new(sink, schema)),
            OutputFormat::Csv => Box::new(CsvWriter::new(sink, schema)),
            OutputFormat::Json => Box::new(JsonWriter::new(sink)),
            OutputFormat::Ndjson => Box::new(NdjsonWriter::new(sink)),
            OutputFormat::Arrow => Box::new(ArrowWriter::new(sink, schema)?),
            OutputFormat::Parquet => Box::new(ParquetWriter::new(sink, schema)?),
        })
    }

    fn flush(&mut self) -> Outcome {
        let flushed = self.sink.flush();
        self.checked(flushed.map_err(|error| Failure::Output(error.to_string())))
    }

    /// Prefers what the sink knows of a failed write: encoders wrap the error
    /// in one of theirs, and a reader that has gone is no failure to report.
    fn checked<T>(&self, result: Outcome<T>) -> Outcome<T> {
        result.map_err(|failure| self.sink.failure().unwrap_or(failure))
    }
}

#[cfg(test)]
impl Output {
    /// Results to memory.
    pub fn memory(format: OutputFormat) -> Self {
        Output {
            sink: Sink::memory(),
            format,
            on_terminal: false,
        }
    }

    /// The bytes written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.sink.bytes()
    }
}

#[cfg(test)]
mod tests;
