//! Columns in line, for people.
//!
//! Rows are laid out a page at a time. The first page sets the widths; a later
//! page that needs more of them takes it, and the pages before stay as they
//! are. Control characters are shown, not sent to the terminal.

use std::borrow::Cow;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};

use super::super::failure::{Failure, Outcome};
use super::{RowWriter, Sink};

/// The rows of a page.
const PAGE_ROWS: usize = 1000;

/// Writes a table with a header and borders.
pub struct TableWriter {
    sink: Sink,
    schema: SchemaRef,
    page: Vec<Vec<String>>,
    /// The columns' widths and the bottom border, once a page is out.
    laid_out: Option<Layout>,
}

struct Layout {
    widths: Vec<u16>,
    bottom: String,
}

impl TableWriter {
    pub fn new(sink: Sink, schema: SchemaRef) -> Self {
        TableWriter {
            sink,
            schema,
            page: Vec::new(),
            laid_out: None,
        }
    }

    fn write_page(&mut self) -> Outcome {
        let mut table = Table::new();
        table
            .load_preset(ASCII_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Disabled)
            .force_no_tty();
        let is_first = self.laid_out.is_none();
        if is_first {
            let names = self.schema.fields().iter();
            table.set_header(names.map(|field| shown(field.name()).into_owned()));
        }
        table.add_rows(self.page.drain(..));
        for (index, field) in self.schema.fields().iter().enumerate() {
            let Some(column) = table.column_mut(index) else {
                continue;
            };
            if is_right_aligned(field.data_type()) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if let Some(layout) = &self.laid_out {
                let width = layout.widths[index].saturating_add(column.padding_width());
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
        let mut widths = table.column_max_content_widths();
        if let Some(layout) = &self.laid_out {
            for (width, before) in widths.iter_mut().zip(&layout.widths) {
                *width = (*width).max(*before);
            }
        }

        // A page in the middle has neither the top nor the bottom border.
        let mut lines: Vec<String> = table.lines().collect();
        let bottom = lines.pop().unwrap_or_default();
        let from = usize::from(!is_first).min(lines.len());
        for line in &lines[from..] {
            writeln!(self.sink, "{line}").map_err(unwritable)?;
        }
        self.sink.flush().map_err(unwritable)?;
        self.laid_out = Some(Layout { widths, bottom });
        Ok(())
    }
}

impl RowWriter for TableWriter {
    fn write(&mut self, batch: &RecordBatch) -> Outcome {
        let options = FormatOptions::default().with_null("NULL");
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(formatters.len());
            for formatter in &formatters {
                let text = formatter.value(row).try_to_string()?;
                cells.push(match shown(&text) {
                    Cow::Borrowed(_) => text,
                    Cow::Owned(shown) => shown,
                });
            }
            self.page.push(cells);
            if self.page.len() == PAGE_ROWS {
                self.write_page()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome {
        if self.laid_out.is_none() || !self.page.is_empty() {
            self.write_page()?;
        }
        if let Some(layout) = self.laid_out.take() {
            writeln!(self.sink, "{}", layout.bottom).map_err(unwritable)?;
        }
        Ok(())
    }
}

/// `text` as it may go to a terminal: control characters other than line feed
/// could move the cursor, recolour the screen or type for the user.
fn shown(text: &str) -> Cow<'_, str> {
    let is_hidden = |character: char| character.is_control() && character != '\n';
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_hidden(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn is_right_aligned(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_right_aligned(value),
        other => other.is_numeric(),
    }
}

fn unwritable(error: std::io::Error) -> Failure {
    Failure::Output(error.to_string())
}
