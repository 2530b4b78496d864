//! DataFusion's consumer of Substrait over the names that one statement may use.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Field;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Values};
use datafusion_substrait::extensions::Extensions;
use datafusion_substrait::logical_plan::consumer::{
    SubstraitConsumer, from_field_reference, from_read_rel, from_substrait_plan_with_consumer,
    from_substrait_type,
};
use datafusion_substrait::substrait::proto::expression::field_reference::{
    ReferenceType, RootType,
};
use datafusion_substrait::substrait::proto::expression::reference_segment;
use datafusion_substrait::substrait::proto::expression::{FieldReference, MaskExpression};
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::rel_common::EmitKind;
use datafusion_substrait::substrait::proto::{DynamicParameter, Plan, ReadRel, Rel, RelCommon};
use futures::FutureExt;
use parking_lot::Mutex;

use super::super::fault::{carried, planning};
use super::super::names::Resolver;
use super::check::Checked;
use crate::error::Error;

/// The logical plan of a plan that was checked.
pub(super) fn consume(
    plan: &Plan,
    checked: &Checked,
    resolver: &Resolver<'_>,
) -> Result<LogicalPlan, Error> {
    let consumer = Consumer {
        resolver,
        extensions: &checked.extensions,
        parameters: &checked.parameters,
        outer_schemas: Mutex::default(),
    };
    // Names are resolved from what is in memory, so that nothing is waited for.
    from_substrait_plan_with_consumer(&consumer, plan)
        .now_or_never()
        .ok_or_else(|| Error::internal("the plan cannot be planned", "a name was waited for"))?
        .map_err(planning)
}

struct Consumer<'a> {
    resolver: &'a Resolver<'a>,
    extensions: &'a Extensions,
    /// The places of the plan's parameters, from 1, by their anchors.
    parameters: &'a BTreeMap<u32, usize>,
    /// The columns of the queries that a subquery is inside of.
    outer_schemas: Mutex<Vec<Arc<DFSchema>>>,
}

#[async_trait]
impl SubstraitConsumer for Consumer<'_> {
    async fn resolve_table_ref(
        &self,
        name: &TableReference,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let source = self.resolver.get_table_source(name.clone())?;
        source_as_provider(&source).map(Some)
    }

    fn get_extensions(&self) -> &Extensions {
        self.extensions
    }

    fn get_function_registry(&self) -> &impl FunctionRegistry {
        self.resolver.functions()
    }

    /// As DataFusion does, but that an emit may name a column more than once without
    /// its expression being repeated.
    async fn consume_rel(&self, rel: &Rel) -> Result<LogicalPlan> {
        let (plan, common) = match rel.rel_type.as_ref() {
            Some(RelType::Read(rel)) => (self.consume_read(rel).await?, &rel.common),
            Some(RelType::Filter(rel)) => (self.consume_filter(rel).await?, &rel.common),
            Some(RelType::Fetch(rel)) => (self.consume_fetch(rel).await?, &rel.common),
            Some(RelType::Aggregate(rel)) => (self.consume_aggregate(rel).await?, &rel.common),
            Some(RelType::Sort(rel)) => (self.consume_sort(rel).await?, &rel.common),
            Some(RelType::Join(rel)) => (self.consume_join(rel).await?, &rel.common),
            Some(RelType::Project(rel)) => (self.consume_project(rel).await?, &rel.common),
            Some(RelType::Set(rel)) => (self.consume_set(rel).await?, &rel.common),
            Some(RelType::Cross(rel)) => (self.consume_cross(rel).await?, &rel.common),
            _ => {
                return Err(carried(Error::internal(
                    "the plan cannot be planned",
                    "a relation passed the check that is not served",
                )));
            }
        };
        emitted(plan, common.as_ref())
    }

    /// DataFusion hands a read's filter to the table and keeps none of it, where a
    /// filter of SQL stays above its table; and passes over that of rows of values.
    async fn consume_read(&self, rel: &ReadRel) -> Result<LogicalPlan> {
        let whole = ReadRel {
            base_schema: rel.base_schema.clone(),
            read_type: rel.read_type.clone(),
            ..ReadRel::default()
        };
        let plan = from_read_rel(self, &whole).await.map_err(unlike)?;
        let mut plan = match plan {
            LogicalPlan::Values(values) => typed(values)?,
            plan => plan,
        };
        if let Some(filter) = &rel.filter {
            let filter = self.consume_expression(filter, plan.schema()).await?;
            plan = LogicalPlanBuilder::from(plan).filter(filter)?.build()?;
        }
        match &rel.projection {
            Some(mask) => columns(plan, &masked(mask)),
            None => Ok(plan),
        }
    }

    async fn consume_field_reference(
        &self,
        expr: &FieldReference,
        schema: &DFSchema,
    ) -> Result<Expr> {
        if let Some(field) = field_of(expr) {
            match &expr.root_type {
                Some(RootType::OuterReference(outer)) => {
                    let steps = usize::try_from(outer.steps_out).unwrap_or(usize::MAX);
                    // DataFusion tells of a query that is not there.
                    if let Some(outer) = self.get_outer_schema(steps) {
                        field_at(field, &outer)?;
                    }
                }
                _ => {
                    field_at(field, schema)?;
                }
            }
        }
        from_field_reference(self, expr, schema).await
    }

    /// Parameters are numbered in the order of their anchors.
    async fn consume_dynamic_parameter(
        &self,
        expr: &DynamicParameter,
        _: &DFSchema,
    ) -> Result<Expr> {
        let anchor = expr.parameter_reference;
        let number = self.parameters.get(&anchor).ok_or_else(|| {
            carried(Error::internal(
                "the plan cannot be planned",
                format!("parameter {anchor} was not counted"),
            ))
        })?;
        let name = format!("${number}");
        let field = match &expr.r#type {
            Some(data_type) => {
                let data_type = from_substrait_type(self, data_type, &[], &mut 0)?;
                Some(Arc::new(Field::new(&name, data_type, true)))
            }
            None => None,
        };
        Ok(Expr::Placeholder(Placeholder::new_with_field(name, field)))
    }

    fn push_outer_schema(&self, schema: Arc<DFSchema>) {
        self.outer_schemas.lock().push(schema);
    }

    fn pop_outer_schema(&self) {
        self.outer_schemas.lock().pop();
    }

    fn get_outer_schema(&self, steps_out: usize) -> Option<Arc<DFSchema>> {
        let schemas = self.outer_schemas.lock();
        let at = schemas.len().checked_sub(steps_out)?;
        schemas.get(at).cloned()
    }
}

/// The rows of values in the types that their columns are said to have. DataFusion
/// would find out as they are read.
fn typed(values: Values) -> Result<LogicalPlan> {
    let Values { schema, values } = values;
    let rows = values
        .into_iter()
        .map(|row| {
            if row.len() != schema.fields().len() {
                return Err(carried(Error::InvalidArgument(format!(
                    "a row of the plan's values has {} columns where {} are named: make them as \
                     many",
                    row.len(),
                    schema.fields().len()
                ))));
            }
            let columns = row.into_iter().zip(schema.fields());
            columns
                .map(|(value, field)| match value.any_column_refs() {
                    true => Err(carried(Error::InvalidArgument(
                        "the plan's values refer to columns: project them from a relation".into(),
                    ))),
                    false => value.cast_to(field.data_type(), &schema),
                })
                .collect()
        })
        .collect::<Result<_>>()?;
    Ok(LogicalPlan::Values(Values {
        schema,
        values: rows,
    }))
}

/// What DataFusion says of a table that is not as the plan has it, with the mend.
fn unlike(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Substrait(text) => carried(Error::InvalidArgument(format!(
            "the plan's table is not the one that is there: {} (DESCRIBE tells its columns)",
            text.trim_end_matches('.')
        ))),
        other => other,
    }
}

/// The columns of `plan` that a relation yields.
fn emitted(plan: LogicalPlan, common: Option<&RelCommon>) -> Result<LogicalPlan> {
    match common.and_then(|common| common.emit_kind.as_ref()) {
        Some(EmitKind::Emit(emit)) => columns(plan, &emit.output_mapping),
        Some(EmitKind::Direct(_)) | None => Ok(plan),
    }
}

fn masked(mask: &MaskExpression) -> Vec<i32> {
    let items = mask.select.iter().flat_map(|select| &select.struct_items);
    items.map(|item| item.field).collect()
}

/// Some columns of `plan`, by their places. One that comes again has another name.
fn columns(plan: LogicalPlan, fields: &[i32]) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let mut seen = vec![false; schema.fields().len()];
    let columns = fields
        .iter()
        .enumerate()
        .map(|(place, field)| {
            let at = field_at(*field, &schema)?;
            let column = Column::from(schema.qualified_field(at));
            let name = column.name.clone();
            let column = Expr::Column(column);
            Ok(match std::mem::replace(&mut seen[at], true) {
                true => column.alias(format!("{name}__{place}")),
                false => column,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The place of a field that a plan refers to.
fn field_at(field: i32, schema: &DFSchema) -> Result<usize> {
    let count = schema.fields().len();
    usize::try_from(field)
        .ok()
        .filter(|at| *at < count)
        .ok_or_else(|| {
            carried(Error::InvalidArgument(format!(
                "the plan refers to field {field} of a relation that has {count}: count its fields \
                 from 0"
            )))
        })
}

/// The field that a reference is to, if it is to one.
fn field_of(expr: &FieldReference) -> Option<i32> {
    match expr.reference_type.as_ref()? {
        ReferenceType::DirectReference(segment) => match segment.reference_type.as_ref()? {
            reference_segment::ReferenceType::StructField(field) => Some(field.field),
            _ => None,
        },
        ReferenceType::MaskedReference(_) => None,
    }
}
