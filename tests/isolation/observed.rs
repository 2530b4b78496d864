//! What a client sees of one answer, as text that two servers can be compared by.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tonic::Status;

#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    Rows {
        schema: String,
        /// In the order in which they came where the statement says one, and of
        /// their text elsewhere.
        rows: Vec<String>,
        /// How many rows came in each batch, where that follows from the rows: not
        /// where partitions race.
        batches: Vec<usize>,
    },
    /// A count, or another answer that is no rows.
    Text(String),
    Refused {
        code: String,
        text: String,
    },
}

impl Observed {
    pub fn rows(sql: &str, schema: &Schema, batches: &[RecordBatch]) -> Self {
        let mut rows = texts(batches);
        let is_analyzed = sql.starts_with("EXPLAIN ANALYZE");
        if is_analyzed {
            rows.iter_mut().for_each(|row| *row = unmeasured(row));
        } else if !is_ordered(sql) {
            rows.sort_unstable();
        }
        let fields = schema.fields().iter().map(|field| {
            let nullable = if field.is_nullable() { "" } else { " not null" };
            let meta = match field.metadata().is_empty() {
                true => String::new(),
                false => format!(" {:?}", sorted(field.metadata())),
            };
            format!("{} {}{nullable}{meta}", field.name(), field.data_type())
        });
        let mut schema_text = fields.collect::<Vec<_>>().join(", ");
        if !schema.metadata().is_empty() {
            schema_text += &format!(" {:?}", sorted(schema.metadata()));
        }
        Observed::Rows {
            schema: schema_text,
            rows,
            batches: batches.iter().map(RecordBatch::num_rows).collect(),
        }
    }

    /// Without how rows came in batches.
    pub fn in_one_batch(mut self) -> Self {
        if let Observed::Rows { batches, .. } = &mut self {
            batches.clear();
        }
        self
    }

    pub fn refused(status: &Status) -> Self {
        let details = match status.details() {
            [] => String::new(),
            details => format!(" {details:?}"),
        };
        Observed::Refused {
            code: format!("{:?}", status.code()),
            text: format!("{}{details}", status.message()),
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Observed::Refused { .. })
    }

    /// With `from` replaced by `to` wherever it is.
    pub fn masked(self, from: &str, to: &str) -> Self {
        let mask = |text: String| text.replace(from, to);
        match self {
            Observed::Rows {
                schema,
                rows,
                batches,
            } => Observed::Rows {
                schema,
                rows: rows.into_iter().map(mask).collect(),
                batches,
            },
            Observed::Text(text) => Observed::Text(mask(text)),
            Observed::Refused { code, text } => Observed::Refused {
                code,
                text: mask(text),
            },
        }
    }

    /// What is compared of two servers that hold the same rows in different ways:
    /// rows, and the code of a refusal.
    pub fn without_ways(self) -> Self {
        match self {
            Observed::Refused { code, .. } => Observed::Refused {
                code,
                text: String::new(),
            },
            Observed::Rows { rows, .. } => Observed::Rows {
                schema: String::new(),
                rows,
                batches: Vec::new(),
            },
            text => text,
        }
    }
}

impl std::fmt::Display for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Observed::Rows {
                schema,
                rows,
                batches,
            } => {
                writeln!(f, "  {} rows of ({schema}) {batches:?}", rows.len())?;
                rows.iter().try_for_each(|row| writeln!(f, "    {row}"))
            }
            Observed::Text(text) => writeln!(f, "  {text}"),
            Observed::Refused { code, text } => writeln!(f, "  {code}: {text}"),
        }
    }
}

fn sorted(map: &std::collections::HashMap<String, String>) -> Vec<(&String, &String)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable();
    entries
}

/// Each row's values by `|`.
pub fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            rows.push(values.join("|"));
        }
    }
    rows
}

/// Whether the rows of a statement come in an order that it says.
fn is_ordered(sql: &str) -> bool {
    match Parser::parse_sql(&GenericDialect {}, sql).as_deref() {
        Ok([Statement::Query(query)]) => query.order_by.is_some(),
        // Plans and listings come as they are.
        Ok([Statement::Explain { .. } | Statement::ShowTables { .. }]) => true,
        _ => false,
    }
}

/// A line of an analyzed plan without what is measured: times, bytes and how often
/// something was polled. Counts of rows stay.
fn unmeasured(row: &str) -> String {
    let lines = row.lines().map(|line| {
        let Some((before, rest)) = line.split_once("metrics=[") else {
            return line.to_owned();
        };
        if before.contains("TopK(") && before.contains("preserve_partitioning=[true]") {
            // What one partition has kept so far spares the others rows, sooner or later.
            let (sort, _) = before.split_once(", filter=[").unwrap_or((before, ""));
            return format!("{sort}metrics=[]");
        }
        let metrics = rest.split(", ").map(|m| m.trim_end_matches(']'));
        let kept: Vec<&str> = metrics.filter(|metric| metric.contains("rows=")).collect();
        format!("{before}metrics=[{}]", kept.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}
