//! RETURNING: expressions over the rows that a statement wrote.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;

use super::{WRITTEN, refuse_beyond_row, select_from};
use crate::catalog::{Relation, TableDefinition};
use crate::engine::fault::{execution, planning};
use crate::engine::names::Resolver;
use crate::engine::statement::query_plan;
use crate::error::{Error, Result};

/// What a statement answers of the rows that it wrote.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Returning {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Returning {
    /// Reads the items of a RETURNING, in which the table is called `alias`.
    pub fn plan(
        items: Vec<ast::SelectItem>,
        relation: &Arc<Relation>,
        definition: &TableDefinition,
        alias: &ast::Ident,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        resolver.written(relation);
        let query = select_from(WRITTEN, alias, items, Vec::new(), None)?;
        let plan = query_plan(ast::Statement::Query(Box::new(query)), resolver)?;
        let LogicalPlan::Projection(projection) = plan else {
            return Err(beyond());
        };
        if !matches!(projection.input.as_ref(), LogicalPlan::SubqueryAlias(alias)
            if matches!(alias.input.as_ref(), LogicalPlan::TableScan(_)))
        {
            return Err(beyond());
        }
        let row =
            DFSchema::try_from_qualified_schema(alias.value.as_str(), definition.schema().as_ref())
                .map_err(planning)?;
        let exprs = projection
            .expr
            .iter()
            .map(|expr| {
                refuse_beyond_row(expr, "RETURNING")?;
                resolver.physical(expr.clone(), &row)
            })
            .collect::<Result<_>>()?;
        let fields = projection.schema.fields().clone();
        Ok(Returning {
            exprs,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The answer for rows in the table's schema.
    pub fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self
            .exprs
            .iter()
            .map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows()))
            .collect::<datafusion::common::Result<Vec<_>>>()
            .map_err(execution)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema(), columns, &options)
            .map_err(|error| Error::internal("the written rows cannot be returned", error))
    }
}

fn beyond() -> Error {
    Error::Unimplemented(
        "RETURNING takes expressions over the columns of the table that is written to: use no \
         subquery, aggregate or parameter in it"
            .into(),
    )
}
