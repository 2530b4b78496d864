//! `jammi.audit.events`: the audit trail as rows.
//!
//! Invariant: a tenant sees its own records and nobody else's, not even those that
//! belong to no tenant, or to one of its id that was erased; a session that is bound to none sees all of them if its
//! principal runs the installation, and else none. The reader keeps to that, and the
//! guard above it to the caller's lanes.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;

use super::fault::carried;
use crate::audit::{self, Audit, Event, Whose};
use crate::tenancy::Tenants;
use crate::tenant::{OPERATOR, Scope};

/// The fields of an [`Event`].
pub(super) static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let texts = || DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("time", time, false),
        Field::new("request_id", DataType::Utf8, true),
        Field::new("trace_id", DataType::Utf8, true),
        Field::new("tenant_id", DataType::Utf8, true),
        Field::new("user_name", DataType::Utf8, true),
        Field::new("roles", texts(), false),
        Field::new("session", DataType::Utf8, true),
        Field::new("peer", DataType::Utf8, true),
        Field::new("method", DataType::Utf8, false),
        Field::new("statement", DataType::Utf8, true),
        Field::new("tables", texts(), false),
        Field::new("scopes", texts(), false),
        Field::new("policies", texts(), false),
        Field::new("rows", DataType::Int64, false),
        Field::new("bytes", DataType::Int64, false),
        Field::new("duration_us", DataType::Int64, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("bypass_reason", DataType::Utf8, true),
    ]))
});

/// Whether a scope sees everybody's records.
pub(super) fn sees_all(scope: &Scope) -> bool {
    scope.tenant().is_none() && scope.principal().has_role(OPERATOR)
}

/// Whose records a scope sees.
async fn whose(scope: &Scope, tenants: &Tenants) -> crate::error::Result<Whose> {
    Ok(match scope.tenant() {
        // The trail is its tenants' and the operator's.
        Some(_) if scope.is_bypass() => Whose::Nobodys,
        Some(tenant) => {
            let erased_ms = tenants.erased_at_ms(tenant).await?;
            Whose::Tenants(
                tenant,
                erased_ms.map_or(i64::MIN, |ms| (ms + 1).saturating_mul(1_000)),
            )
        }
        None if sees_all(scope) => Whose::Everybodys,
        None => Whose::Nobodys,
    })
}

/// The audit trail, and those whose records it holds.
#[derive(Clone, Debug)]
pub(super) struct EventsTable {
    pub audit: Audit,
    pub tenants: Tenants,
}

/// A scan of the columns `read` of what has ended by now, which reads no more than it
/// has to for rows for which `filters` are true.
pub(super) async fn scan_events(
    table: &EventsTable,
    scope: &Scope,
    read: &Vec<usize>,
    filters: &[Expr],
) -> Result<Arc<dyn ExecutionPlan>> {
    let whose = whose(scope, &table.tenants).await.map_err(carried)?;
    table.audit.flush().await;
    let records = Records {
        audit: table.audit.clone(),
        whose,
        since_us: filters.iter().filter_map(earliest).max(),
    };
    let schema = Arc::clone(&EVENTS);
    let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(records)];
    let scan = StreamingTableExec::try_new(schema, partitions, Some(read), [], false, None)?;
    Ok(Arc::new(scan))
}

/// The earliest time at which `filter` may be true, if it says one.
fn earliest(filter: &Expr) -> Option<i64> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return None;
    };
    let (column, time) = match op {
        Operator::Gt | Operator::GtEq | Operator::Eq => (left, right),
        Operator::Lt | Operator::LtEq => (right, left),
        _ => return None,
    };
    match (&**column, &**time) {
        (
            Expr::Column(column),
            Expr::Literal(ScalarValue::TimestampMicrosecond(Some(time), _), _),
        ) if column.name == "time" => Some(*time),
        _ => None,
    }
}

#[derive(Debug)]
struct Records {
    audit: Audit,
    whose: Whose,
    since_us: Option<i64>,
}

impl PartitionStream for Records {
    fn schema(&self) -> &SchemaRef {
        &EVENTS
    }

    /// Reads on the thread that asks for rows, which may wait for a disk.
    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch_rows = context.session_config().batch_size();
        let opened = self.audit.events(self.whose, self.since_us);
        let batches = stream::try_unfold(opened, move |opened| async move {
            let mut events = opened.map_err(carried)?;
            // Much may be looked through for few rows: others have their turn meanwhile.
            tokio::task::yield_now().await;
            let read = events.next(batch_rows);
            let read = read.map_err(|error| carried(audit::unreadable(&error)))?;
            read.map(|read| Ok((batch(&read)?, Ok(events)))).transpose()
        });
        let schema = Arc::clone(&EVENTS);
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

/// `events` as rows.
fn batch(events: &[Event]) -> Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(Arc::clone(&EVENTS))
        .with_batch_size(events.len().max(1))
        .build_decoder()?;
    decoder.serialize(events)?;
    let rows = decoder.flush()?;
    Ok(rows.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&EVENTS))))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn a_filter_says_the_earliest_time() {
        let time = || datafusion::prelude::col("time");
        let at = |us| {
            let utc = Some("UTC".into());
            datafusion::prelude::lit(ScalarValue::TimestampMicrosecond(Some(us), utc))
        };
        assert_eq!(earliest(&time().gt_eq(at(7))), Some(7));
        assert_eq!(earliest(&at(7).lt(time())), Some(7));
        assert_eq!(earliest(&time().eq(at(7))), Some(7));
        for none in [
            time().lt(at(7)),
            at(7).gt(time()),
            time().not_eq(at(7)),
            time().gt(at(7)).or(time().is_null()),
            datafusion::prelude::col("id").gt(at(7)),
        ] {
            assert_eq!(earliest(&none), None, "{none}");
        }
    }

    #[test]
    fn every_field_of_a_record_is_a_column() {
        let fields = serde_json::to_value(Event::default()).unwrap();
        let mut fields: Vec<&String> = fields.as_object().unwrap().keys().collect();
        fields.sort();
        let mut columns: Vec<&String> = EVENTS.fields().iter().map(|field| field.name()).collect();
        columns.sort();
        assert_eq!(fields, columns);
        assert_eq!(batch(&[]).unwrap().num_rows(), 0);
        let event = Event {
            id: "an id".into(),
            time: 1_700_000_000_000_001,
            roles: vec!["a".into(), "b".into()],
            rows: 7,
            ..Event::default()
        };
        let rows = batch(&[event.clone(), event]).unwrap();
        assert_eq!(rows.num_rows(), 2);
        let column = |name: &str| Arc::clone(rows.column_by_name(name).unwrap());
        let times = column("time");
        let times = times.as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(1), 1_700_000_000_000_001);
        assert_eq!(column("rows").as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(column("roles").as_list::<i32>().value(0).len(), 2);
        assert!(column("user_name").is_null(0));
    }
}
