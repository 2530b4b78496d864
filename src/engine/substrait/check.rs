//! What of a plan is served. Everything that is not listed here is refused before
//! DataFusion's consumer sees it: that passes over what it does not know, such as
//! the options of a function, and takes for granted that required parts are there.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};

use datafusion_substrait::extensions::Extensions;
use datafusion_substrait::logical_plan::consumer::substrait_fun_name;
use datafusion_substrait::substrait::proto::aggregate_function::AggregationInvocation;
use datafusion_substrait::substrait::proto::expression::field_reference::RootType;
use datafusion_substrait::substrait::proto::expression::literal::LiteralType;
use datafusion_substrait::substrait::proto::expression::literal::interval_day_to_second::PrecisionMode;
use datafusion_substrait::substrait::proto::expression::literal::{
    IntervalDayToSecond, IntervalYearToMonth,
};
use datafusion_substrait::substrait::proto::expression::nested::NestedType;
use datafusion_substrait::substrait::proto::expression::subquery::SubqueryType;
use datafusion_substrait::substrait::proto::expression::{
    Literal, MaskExpression, RexType, ScalarFunction, Subquery, WindowFunction,
};
use datafusion_substrait::substrait::proto::extensions::AdvancedExtension;
use datafusion_substrait::substrait::proto::fetch_rel::{CountMode, OffsetMode};
use datafusion_substrait::substrait::proto::function_argument::ArgType;
use datafusion_substrait::substrait::proto::read_rel::{ReadType, VirtualTable};
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::rel_common::EmitKind;
use datafusion_substrait::substrait::proto::sort_field::{SortDirection, SortKind};
use datafusion_substrait::substrait::proto::r#type::Kind;
use datafusion_substrait::substrait::proto::{
    AggregateFunction, AggregateRel, AggregationPhase, Expression, FetchRel, FunctionArgument,
    FunctionOption, JoinRel, Plan, ReadRel, Rel, SortField, Type, plan_rel,
};

use super::super::fault::planning;
use super::super::limits::Limits;
use crate::error::{Error, Result};

/// Expressions that the projections and aggregates of one plan compute. DataFusion
/// gives each a name of its own, in a time that grows with the square of how many
/// are alike.
const COLUMNS_MAX: usize = 8_192;
/// Columns that the relations of one plan name or emit. DataFusion compares each of one
/// side of a join with each of the other.
const NAMED_MAX: usize = 65_536;

/// What is known of a plan that may be consumed.
pub(super) struct Checked {
    /// The names of its functions and types.
    pub extensions: Extensions,
    /// The places of its parameters, from 1, by their anchors.
    pub parameters: BTreeMap<u32, usize>,
}

/// Refuses what is not served, what is malformed, and what is too large.
pub(super) fn check(plan: &Plan, limits: &Limits) -> Result<Checked> {
    no_enhancement(plan.advanced_extensions.as_ref())?;
    if !plan.parameter_bindings.is_empty() {
        return Err(unserved(
            "values of parameters inside a plan",
            "prepare the plan and bind them, or write them as literals",
        ));
    }
    let extensions = Extensions::try_from(&plan.extensions).map_err(planning)?;
    if !extensions.type_variations.is_empty() {
        return Err(unserved(
            "variations of types that a plan names",
            "use plain types",
        ));
    }
    let [relation] = plan.relations.as_slice() else {
        return Err(Error::InvalidArgument(format!(
            "the plan has {} trees of relations: send one at a time",
            plan.relations.len()
        )));
    };
    let root = match &relation.rel_type {
        Some(plan_rel::RelType::Rel(rel)) => Some(rel),
        Some(plan_rel::RelType::Root(root)) => root.input.as_ref(),
        None => None,
    };
    let mut check = Check {
        limits,
        extensions: &extensions,
        tables: 0,
        columns: 0,
        named: 0,
        anchors: BTreeSet::new(),
    };
    check.rel(part(root, "the root's input")?)?;
    let places = check.anchors.into_iter().zip(1..).collect();
    Ok(Checked {
        extensions,
        parameters: places,
    })
}

struct Check<'a> {
    limits: &'a Limits,
    extensions: &'a Extensions,
    tables: usize,
    columns: usize,
    named: usize,
    anchors: BTreeSet<u32>,
}

impl Check<'_> {
    fn rel(&mut self, rel: &Rel) -> Result<()> {
        let (common, extension) = match rel.rel_type.as_ref() {
            Some(RelType::Read(rel)) => {
                self.read(rel)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Filter(rel)) => {
                self.rel(part(rel.input.as_deref(), "a filter's input")?)?;
                self.expr(part(rel.condition.as_deref(), "a filter's condition")?)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Fetch(rel)) => {
                self.fetch(rel)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Aggregate(rel)) => {
                self.aggregate(rel)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Sort(rel)) => {
                self.rel(part(rel.input.as_deref(), "a sort's input")?)?;
                self.sorts(&rel.sorts)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Join(rel)) => {
                self.join(rel)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Project(rel)) => {
                self.rel(part(rel.input.as_deref(), "a projection's input")?)?;
                self.computed(rel.expressions.len())?;
                self.exprs(&rel.expressions)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Set(rel)) => {
                rel.inputs.iter().try_for_each(|input| self.rel(input))?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(RelType::Cross(rel)) => {
                self.rel(part(rel.left.as_deref(), "a join's left side")?)?;
                self.rel(part(rel.right.as_deref(), "a join's right side")?)?;
                (&rel.common, &rel.advanced_extension)
            }
            Some(other) => return Err(unserved_relation(other)),
            None => return Err(missing("the kind of a relation")),
        };
        no_enhancement(extension.as_ref())?;
        let Some(common) = common else {
            return Ok(());
        };
        if let Some(EmitKind::Emit(emit)) = &common.emit_kind {
            self.named(emit.output_mapping.len())?;
        }
        no_enhancement(common.advanced_extension.as_ref())
    }

    fn read(&mut self, rel: &ReadRel) -> Result<()> {
        self.tables += 1;
        self.limits.check_tables(self.tables)?;
        let columns = part(rel.base_schema.as_ref(), "the columns of a table")?;
        self.named(columns.names.len())?;
        if let Some(filter) = rel.filter.as_deref() {
            self.expr(filter)?;
        }
        if let Some(mask) = &rel.projection {
            self.named(plain_mask(mask)?)?;
        }
        match &rel.read_type {
            Some(ReadType::NamedTable(table)) => {
                no_enhancement(table.advanced_extension.as_ref())?;
                match table.names.len() {
                    1..=3 => Ok(()),
                    names => Err(Error::InvalidArgument(format!(
                        "a table of the plan has a name of {names} parts: give its catalog, schema \
                         and name"
                    ))),
                }
            }
            Some(ReadType::VirtualTable(table)) => self.values(table),
            Some(ReadType::LocalFiles(_)) => Err(unserved(
                "LocalFiles, files by their paths,",
                "register a source and read it by its name",
            )),
            Some(ReadType::IcebergTable(_)) => Err(unserved(
                "IcebergTable",
                "register its files as a source and read that by its name",
            )),
            Some(ReadType::ExtensionTable(_)) => {
                Err(unserved("ExtensionTable", "read a table by its name"))
            }
            None => Err(missing("what a ReadRel reads")),
        }
    }

    fn values(&mut self, table: &VirtualTable) -> Result<()> {
        #[expect(deprecated, reason = "plans of releases that are served have them")]
        let literals = table.values.iter().flat_map(|row| &row.fields);
        for literal in literals {
            self.literal(literal)?;
        }
        for row in &table.expressions {
            self.exprs(&row.fields)?;
        }
        Ok(())
    }

    fn fetch(&mut self, rel: &FetchRel) -> Result<()> {
        self.rel(part(rel.input.as_deref(), "a fetch's input")?)?;
        #[expect(deprecated, reason = "plans of releases that are served have them")]
        match &rel.offset_mode {
            Some(OffsetMode::OffsetExpr(offset)) => self.expr(offset)?,
            Some(OffsetMode::Offset(offset)) => rows(*offset, 0)?,
            None => {}
        }
        #[expect(deprecated, reason = "plans of releases that are served have them")]
        match &rel.count_mode {
            Some(CountMode::CountExpr(count)) => self.expr(count),
            // One less than none is all.
            Some(CountMode::Count(count)) => rows(*count, -1),
            None => Ok(()),
        }
    }

    fn aggregate(&mut self, rel: &AggregateRel) -> Result<()> {
        self.rel(part(rel.input.as_deref(), "an aggregate's input")?)?;
        self.exprs(&rel.grouping_expressions)?;
        if rel.groupings.len() > 1 {
            // DataFusion tells the sets apart by another column than Substrait.
            return Err(unserved(
                "an aggregate with several grouping sets",
                "send it as SQL, or as one aggregate for each set",
            ));
        }
        for grouping in &rel.groupings {
            #[expect(deprecated, reason = "plans of releases that are served have them")]
            let own = &grouping.grouping_expressions;
            self.exprs(own)?;
            self.computed(own.len() + grouping.expression_references.len())?;
            for reference in &grouping.expression_references {
                let known =
                    usize::try_from(*reference).is_ok_and(|at| at < rel.grouping_expressions.len());
                if !known {
                    return Err(Error::InvalidArgument(format!(
                        "the plan groups by expression {reference} of {}: count them from 0",
                        rel.grouping_expressions.len()
                    )));
                }
            }
        }
        self.computed(rel.measures.len())?;
        for measure in &rel.measures {
            self.aggregate_function(part(measure.measure.as_ref(), "a measure's function")?)?;
            if let Some(filter) = &measure.filter {
                self.expr(filter)?;
            }
        }
        Ok(())
    }

    fn join(&mut self, rel: &JoinRel) -> Result<()> {
        if rel.post_join_filter.is_some() {
            return Err(unserved(
                "a join's post_join_filter",
                "put a filter above the join",
            ));
        }
        self.rel(part(rel.left.as_deref(), "a join's left side")?)?;
        self.rel(part(rel.right.as_deref(), "a join's right side")?)?;
        rel.expression.as_deref().map_or(Ok(()), |on| self.expr(on))
    }

    fn exprs(&mut self, exprs: &[Expression]) -> Result<()> {
        exprs.iter().try_for_each(|expr| self.expr(expr))
    }

    fn expr(&mut self, expr: &Expression) -> Result<()> {
        match expr.rex_type.as_ref() {
            Some(RexType::Literal(literal)) => self.literal(literal),
            Some(RexType::Selection(field)) => match &field.root_type {
                Some(RootType::Expression(_)) => Err(unserved(
                    "a field of an expression",
                    "use the function get_field",
                )),
                Some(RootType::LambdaParameterReference(_)) => Err(unserved_lambda()),
                Some(RootType::RootReference(_) | RootType::OuterReference(_)) | None => Ok(()),
            },
            Some(RexType::ScalarFunction(call)) => self.scalar_function(call),
            Some(RexType::WindowFunction(call)) => self.window_function(call),
            Some(RexType::IfThen(choice)) => {
                for (at, clause) in choice.ifs.iter().enumerate() {
                    self.expr(part(clause.r#if.as_ref(), "the condition of an IfThen")?)?;
                    // The first may be what all others are compared with.
                    match clause.then.as_ref() {
                        Some(then) => self.expr(then)?,
                        None if at == 0 => {}
                        None => return Err(missing("the value of an IfThen")),
                    }
                }
                match choice.r#else.as_deref() {
                    Some(otherwise) => self.expr(otherwise),
                    None => Ok(()),
                }
            }
            Some(RexType::SingularOrList(list)) => {
                self.limits.check_list(list.options.len())?;
                self.expr(part(list.value.as_deref(), "the value beside a list")?)?;
                self.exprs(&list.options)
            }
            Some(RexType::Cast(cast)) => {
                self.data_type(part(cast.r#type.as_ref(), "the type of a cast")?)?;
                self.expr(part(cast.input.as_deref(), "the input of a cast")?)
            }
            Some(RexType::Subquery(subquery)) => self.subquery(subquery),
            Some(RexType::Nested(nested)) => match &nested.nested_type {
                Some(NestedType::List(list)) => self.exprs(&list.values),
                Some(NestedType::Struct(_) | NestedType::Map(_)) | None => Err(unserved(
                    "a nested expression that is no list",
                    "use the functions named_struct and map",
                )),
            },
            Some(RexType::DynamicParameter(parameter)) => {
                self.anchors.insert(parameter.parameter_reference);
                match &parameter.r#type {
                    Some(data_type) => self.data_type(data_type),
                    None => Ok(()),
                }
            }
            Some(RexType::SwitchExpression(_)) => {
                Err(unserved("a SwitchExpression", "write it as an IfThen"))
            }
            Some(RexType::MultiOrList(_)) => {
                Err(unserved("a MultiOrList", "write it with OR and AND"))
            }
            Some(RexType::Lambda(_) | RexType::LambdaInvocation(_)) => Err(unserved_lambda()),
            #[expect(deprecated, reason = "it is refused")]
            Some(RexType::Enum(_)) => Err(unserved("an Enum", "give the value as a text")),
            None => Err(missing("the kind of an expression")),
        }
    }

    fn scalar_function(&mut self, call: &ScalarFunction) -> Result<()> {
        #[expect(deprecated, reason = "they would be passed over")]
        no_args(call.args.len())?;
        no_options(&call.options)?;
        let name = self.extensions.functions.get(&call.function_reference);
        if name.is_some_and(|name| substrait_fun_name(name) == "xor") {
            // DataFusion repeats its arguments, and theirs within those.
            return Err(unserved(
                "the function xor",
                "write (a OR b) AND NOT (a AND b)",
            ));
        }
        self.arguments(&call.arguments)
    }

    fn window_function(&mut self, call: &WindowFunction) -> Result<()> {
        #[expect(deprecated, reason = "they would be passed over")]
        no_args(call.args.len())?;
        no_options(&call.options)?;
        whole_phase(call.phase)?;
        if call.invocation == AggregationInvocation::Distinct as i32 {
            return Err(unserved(
                "DISTINCT in a window function",
                "take the distinct rows first",
            ));
        }
        self.arguments(&call.arguments)?;
        self.sorts(&call.sorts)?;
        self.exprs(&call.partitions)
    }

    fn aggregate_function(&mut self, call: &AggregateFunction) -> Result<()> {
        #[expect(deprecated, reason = "they would be passed over")]
        no_args(call.args.len())?;
        no_options(&call.options)?;
        whole_phase(call.phase)?;
        self.arguments(&call.arguments)?;
        self.sorts(&call.sorts)
    }

    fn arguments(&mut self, arguments: &[FunctionArgument]) -> Result<()> {
        for argument in arguments {
            match &argument.arg_type {
                Some(ArgType::Value(value)) => self.expr(value)?,
                Some(ArgType::Type(_) | ArgType::Enum(_)) | None => {
                    return Err(unserved(
                        "an argument of a function that is no value",
                        "give values, an enumeration's as a text",
                    ));
                }
            }
        }
        Ok(())
    }

    fn sorts(&mut self, sorts: &[SortField]) -> Result<()> {
        for sort in sorts {
            self.expr(part(sort.expr.as_ref(), "what a sort is by")?)?;
            let direction = match &sort.sort_kind {
                Some(SortKind::Direction(direction)) => SortDirection::try_from(*direction).ok(),
                Some(SortKind::ComparisonFunctionReference(_)) | None => None,
            };
            match direction {
                Some(
                    SortDirection::AscNullsFirst
                    | SortDirection::AscNullsLast
                    | SortDirection::DescNullsFirst
                    | SortDirection::DescNullsLast,
                ) => {}
                Some(SortDirection::Clustered | SortDirection::Unspecified) | None => {
                    return Err(unserved(
                        "a sort without a direction",
                        "say whether it is up or down, and where nulls are",
                    ));
                }
            }
        }
        Ok(())
    }

    fn subquery(&mut self, subquery: &Subquery) -> Result<()> {
        let what = "the relation of a subquery";
        match &subquery.subquery_type {
            Some(SubqueryType::Scalar(scalar)) => self.rel(part(scalar.input.as_deref(), what)?),
            Some(SubqueryType::InPredicate(within)) => {
                self.exprs(&within.needles)?;
                self.rel(part(within.haystack.as_deref(), what)?)
            }
            Some(SubqueryType::SetPredicate(exists)) => {
                self.rel(part(exists.tuples.as_deref(), what)?)
            }
            Some(SubqueryType::SetComparison(comparison)) => {
                self.expr(part(
                    comparison.left.as_deref(),
                    "the left side of ANY or ALL",
                )?)?;
                self.rel(part(comparison.right.as_deref(), what)?)
            }
            None => Err(missing("the kind of a subquery")),
        }
    }

    fn literal(&mut self, literal: &Literal) -> Result<()> {
        match &literal.literal_type {
            Some(LiteralType::Decimal(decimal)) => {
                digits(decimal.precision, decimal.scale, 38)?;
            }
            Some(LiteralType::List(list)) => {
                self.limits.check_list(list.values.len())?;
                for value in &list.values {
                    self.literal(value)?;
                }
                alike(&list.values)?;
            }
            Some(LiteralType::Struct(fields)) => {
                for value in &fields.fields {
                    self.literal(value)?;
                }
            }
            Some(LiteralType::Map(map)) => {
                for pair in &map.key_values {
                    self.literal(part(pair.key.as_ref(), "the key of a map")?)?;
                    self.literal(part(pair.value.as_ref(), "the value of a map")?)?;
                }
            }
            Some(LiteralType::Null(data_type)) => self.data_type(data_type)?,
            Some(LiteralType::EmptyList(list)) => {
                self.data_type(part(list.r#type.as_deref(), "the type of a list")?)?;
            }
            Some(LiteralType::EmptyMap(map)) => {
                for side in [&map.key, &map.value] {
                    self.data_type(part(side.as_deref(), "a type of a map")?)?;
                }
            }
            Some(LiteralType::IntervalYearToMonth(months)) => year_to_month(months)?,
            Some(LiteralType::IntervalDayToSecond(seconds)) => day_to_second(seconds)?,
            Some(LiteralType::IntervalCompound(interval)) => {
                interval
                    .interval_year_to_month
                    .as_ref()
                    .map_or(Ok(()), year_to_month)?;
                interval
                    .interval_day_to_second
                    .as_ref()
                    .map_or(Ok(()), day_to_second)?;
            }
            Some(_) => {}
            None => return Err(missing("the kind of a literal")),
        }
        Ok(())
    }

    /// Refuses decimals of more digits than there are, which DataFusion would not.
    fn data_type(&mut self, data_type: &Type) -> Result<()> {
        match &data_type.kind {
            Some(Kind::Decimal(decimal)) => digits(decimal.precision, decimal.scale, 76),
            Some(Kind::List(list)) => {
                self.data_type(part(list.r#type.as_deref(), "the type of a list")?)
            }
            Some(Kind::Map(map)) => {
                for side in [&map.key, &map.value] {
                    self.data_type(part(side.as_deref(), "a type of a map")?)?;
                }
                Ok(())
            }
            Some(Kind::Struct(fields)) => fields
                .types
                .iter()
                .try_for_each(|field| self.data_type(field)),
            Some(_) => Ok(()),
            None => Err(missing("the kind of a type")),
        }
    }

    /// Counts expressions that become columns.
    fn computed(&mut self, columns: usize) -> Result<()> {
        self.columns += columns;
        few_columns("computes", self.columns, COLUMNS_MAX)
    }

    /// Counts columns that are named or emitted.
    fn named(&mut self, columns: usize) -> Result<()> {
        self.named += columns;
        few_columns("names", self.named, NAMED_MAX)
    }
}

fn part<T>(part: Option<T>, what: &str) -> Result<T> {
    part.ok_or_else(|| missing(what))
}

fn few_columns(what: &str, columns: usize, columns_max: usize) -> Result<()> {
    match columns <= columns_max {
        true => Ok(()),
        false => Err(Error::InvalidArgument(format!(
            "the plan {what} more than {columns_max} columns: leave out those that are not used, \
             or split the query"
        ))),
    }
}

fn missing(what: &str) -> Error {
    Error::InvalidArgument(format!("the plan is malformed: {what} is missing"))
}

fn unserved(what: &str, mend: &str) -> Error {
    Error::Unimplemented(format!(
        "{what} is not served in plans of Substrait: {mend}"
    ))
}

fn unserved_lambda() -> Error {
    unserved("a lambda", "send the query as SQL")
}

fn unserved_relation(rel: &RelType) -> Error {
    let (what, mend) = match rel {
        RelType::Write(_) => ("a WriteRel", "send the write as SQL, or ingest the rows"),
        RelType::Update(_) => ("an UpdateRel", "send UPDATE as SQL"),
        RelType::Ddl(_) => ("a DdlRel", "send the definition as SQL"),
        RelType::Reference(_) => (
            "a ReferenceRel",
            "repeat the relation, or send SQL with WITH",
        ),
        RelType::ExtensionSingle(_) | RelType::ExtensionMulti(_) | RelType::ExtensionLeaf(_) => {
            ("a relation of an extension", "use Substrait's own")
        }
        RelType::HashJoin(_) | RelType::MergeJoin(_) | RelType::NestedLoopJoin(_) => {
            ("a physical join", "use a JoinRel")
        }
        RelType::Window(_) => (
            "a ConsistentPartitionWindowRel",
            "use window functions in a ProjectRel",
        ),
        RelType::Exchange(_) => ("an ExchangeRel", "leave it out"),
        RelType::Expand(_) => ("an ExpandRel", "use a set of ProjectRels"),
        _ => ("a relation of this kind", "send the query as SQL"),
    };
    unserved(what, mend)
}

/// An enhancement changes what a plan means; an optimization does not.
fn no_enhancement(extension: Option<&AdvancedExtension>) -> Result<()> {
    match extension.and_then(|extension| extension.enhancement.as_ref()) {
        None => Ok(()),
        Some(_) => Err(unserved("an enhancement", "leave it out")),
    }
}

/// An option says what a function is to do where it could do several things.
fn no_options(options: &[FunctionOption]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some(option) => Err(unserved(
            &format!("the option {:?} of a function", option.name),
            "leave it out where any outcome will do",
        )),
    }
}

/// A number of rows.
fn rows(count: i64, least: i64) -> Result<()> {
    match count >= least {
        true => Ok(()),
        false => Err(Error::InvalidArgument(format!(
            "the plan asks for {count} rows: ask for none or more"
        ))),
    }
}

fn no_args(count: usize) -> Result<()> {
    match count {
        0 => Ok(()),
        _ => Err(unserved(
            "the field `args` of a function",
            "use `arguments`",
        )),
    }
}

/// Of an unspecified phase, which DataFusion's plans have, a whole one is meant.
fn whole_phase(phase: i32) -> Result<()> {
    let whole = [
        AggregationPhase::Unspecified,
        AggregationPhase::InitialToResult,
    ];
    match whole.iter().any(|known| *known as i32 == phase) {
        true => Ok(()),
        false => Err(unserved(
            "a part of an aggregation",
            "use the phase INITIAL_TO_RESULT",
        )),
    }
}

/// How many columns a mask selects, each of them whole.
fn plain_mask(mask: &MaskExpression) -> Result<usize> {
    let select = part(mask.select.as_ref(), "what a mask selects")?;
    match select.struct_items.iter().any(|item| item.child.is_some()) {
        false => Ok(select.struct_items.len()),
        true => Err(unserved(
            "a mask of parts of a column",
            "select the column, and get_field above it",
        )),
    }
}

fn digits(precision: i32, scale: i32, precision_max: i32) -> Result<()> {
    if (1..=precision_max).contains(&precision) && (-precision..=precision).contains(&scale) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "the plan has a decimal of {precision} digits with {scale} after the point: there are 1 to \
         {precision_max}, and no more after the point"
    )))
}

/// Refuses a list of values that are not all of one plain type.
fn alike(values: &[Literal]) -> Result<()> {
    let [first, rest @ ..] = values else {
        return Ok(());
    };
    let first = shape(first);
    if rest.is_empty() || first.is_some() && rest.iter().all(|value| shape(value) == first) {
        return Ok(());
    }
    Err(unserved(
        "a list of literals that are not of one plain type",
        "cast them to one in a Nested list",
    ))
}

/// What makes the type of a literal, where that is plain.
fn shape(literal: &Literal) -> Option<(Discriminant<LiteralType>, u32, [i64; 2])> {
    let literal_type = literal.literal_type.as_ref()?;
    let sizes = match literal_type {
        LiteralType::Decimal(decimal) => [decimal.precision.into(), decimal.scale.into()],
        LiteralType::PrecisionTime(time) => [time.precision.into(), 0],
        LiteralType::PrecisionTimestamp(time) | LiteralType::PrecisionTimestampTz(time) => {
            [time.precision.into(), 0]
        }
        LiteralType::FixedBinary(bytes) => [i64::try_from(bytes.len()).ok()?, 0],
        LiteralType::IntervalDayToSecond(_)
        | LiteralType::IntervalCompound(_)
        | LiteralType::Struct(_)
        | LiteralType::Map(_)
        | LiteralType::Null(_)
        | LiteralType::List(_)
        | LiteralType::EmptyList(_)
        | LiteralType::EmptyMap(_)
        | LiteralType::UserDefined(_) => return None,
        _ => [0, 0],
    };
    let kind = discriminant(literal_type);
    Some((kind, literal.type_variation_reference, sizes))
}

fn year_to_month(interval: &IntervalYearToMonth) -> Result<()> {
    let months = interval
        .years
        .checked_mul(12)
        .and_then(|months| months.checked_add(interval.months));
    months.map(drop).ok_or_else(too_long)
}

/// Within what its milliseconds and nanoseconds can be counted in.
fn day_to_second(interval: &IntervalDayToSecond) -> Result<()> {
    let digits = match &interval.precision_mode {
        Some(PrecisionMode::Precision(digits)) => *digits,
        Some(_) | None => 6,
    };
    let digits = u32::try_from(digits).ok().filter(|digits| *digits <= 9);
    let second = digits.and_then(|digits| 10_i64.checked_pow(digits));
    let subseconds = interval.subseconds.checked_abs();
    let fits = subseconds
        .zip(second)
        .is_some_and(|(part, whole)| part < whole)
        && interval
            .seconds
            .checked_abs()
            .is_some_and(|seconds| seconds < i32::MAX / 1000);
    match fits {
        true => Ok(()),
        false => Err(too_long()),
    }
}

fn too_long() -> Error {
    Error::InvalidArgument(
        "the plan has an interval that is longer, or finer, than one can be: make it of days, \
         seconds and parts of one second"
            .into(),
    )
}
