//! CSV and JSON, for other programs.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::EncoderOptions;
use arrow::json::writer::{JsonArray, LineDelimited, Writer, WriterBuilder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::failure::{Failure, Outcome};
use super::{RowWriter, Sink};

/// Comma-separated values under a header line. NULL is an empty field; lists
/// and structs, which CSV does not have, are JSON text.
pub struct CsvWriter {
    writer: csv::Writer<Sink>,
    schema: SchemaRef,
}

impl CsvWriter {
    pub fn new(sink: Sink, schema: SchemaRef) -> Self {
        CsvWriter {
            writer: csv::Writer::new(sink),
            schema,
        }
    }
}

impl RowWriter for CsvWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        Ok(self.writer.write(&flattened(batch)?)?)
    }

    fn finish(&mut self) -> Outcome {
        // The first batch brings the header, and an empty result has none.
        let none = RecordBatch::new_empty(SchemaRef::clone(&self.schema));
        Ok(self.writer.write(&flattened(&none)?)?)
    }
}

/// One array of objects, on a line of its own.
pub struct JsonWriter {
    writer: Writer<Sink, JsonArray>,
}

impl JsonWriter {
    pub fn new(sink: Sink) -> Self {
        JsonWriter {
            writer: with_nulls().build(sink),
        }
    }
}

impl RowWriter for JsonWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        Ok(self.writer.write(batch)?)
    }

    fn finish(&mut self) -> Outcome {
        self.writer.finish()?;
        let ended = self.writer.get_mut().write_all(b"\n");
        ended.map_err(|error| Failure::Output(error.to_string()))
    }
}

/// One object a line.
pub struct NdjsonWriter {
    writer: Writer<Sink, LineDelimited>,
}

impl NdjsonWriter {
    pub fn new(sink: Sink) -> Self {
        NdjsonWriter {
            writer: with_nulls().build(sink),
        }
    }
}

impl RowWriter for NdjsonWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        self.writer.write(batch)?;
        // Whoever reads line by line gets what there is.
        let flushed = self.writer.get_mut().flush();
        flushed.map_err(|error| Failure::Output(error.to_string()))
    }

    fn finish(&mut self) -> Outcome {
        Ok(self.writer.finish()?)
    }
}

/// Every object has every key: an absent one would read as an absent column.
fn with_nulls() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

/// `batch` with its nested columns as JSON text.
fn flattened(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if !batch.columns().iter().any(is_nested) {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let mut fields: Vec<FieldRef> = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if is_nested(column) {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(json_text(field, column)?);
        } else {
            fields.push(FieldRef::clone(field));
            columns.push(ArrayRef::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn is_nested(column: &ArrayRef) -> bool {
    column.data_type().is_nested()
}

fn json_text(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let Ok(mut encoder) = make_encoder(field, column, &options) else {
        return display_text(column);
    };
    let mut texts = StringBuilder::new();
    let mut buffer = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        texts.append_value(String::from_utf8_lossy(&buffer));
    }
    Ok(Arc::new(texts.finish()))
}

/// The text of values that JSON has no form for, such as unions.
fn display_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let mut texts = StringBuilder::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
        } else {
            texts.append_value(formatter.value(row).try_to_string()?);
        }
    }
    Ok(Arc::new(texts.finish()))
}
