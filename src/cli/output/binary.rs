//! Arrow IPC streams and Parquet files, for other programs.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter as Encoder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::super::failure::{Failure, Outcome};
use super::{RowWriter, Sink};

/// The encoded size at which a row group is closed, which bounds what is held
/// in memory.
const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// An Arrow IPC stream: the schema, then every batch as it comes.
pub struct ArrowWriter {
    writer: StreamWriter<Sink>,
}

impl ArrowWriter {
    pub fn new(sink: Sink, schema: SchemaRef) -> Outcome<Self> {
        Ok(ArrowWriter {
            writer: StreamWriter::try_new(sink, &schema)?,
        })
    }
}

impl RowWriter for ArrowWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        Ok(self.writer.write(batch)?)
    }

    fn finish(&mut self) -> Outcome {
        Ok(self.writer.finish()?)
    }
}

/// A Parquet file, compressed with Zstandard.
pub struct ParquetWriter {
    writer: Encoder<Sink>,
}

impl ParquetWriter {
    pub fn new(sink: Sink, schema: SchemaRef) -> Outcome<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = Encoder::try_new(sink, schema, Some(properties));
        Ok(ParquetWriter {
            writer: writer.map_err(unencodable)?,
        })
    }
}

impl RowWriter for ParquetWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        self.writer.write(batch).map_err(unencodable)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES_MAX {
            self.writer.flush().map_err(unencodable)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome {
        self.writer.finish().map_err(unencodable)?;
        Ok(())
    }
}

fn unencodable(error: ParquetError) -> Failure {
    Failure::Output(format!("cannot write the rows as parquet: {error}"))
}
