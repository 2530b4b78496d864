//! CREATE TABLE as a definition.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::DFSchema;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    self, CheckConstraint, ColumnOption, Expr, IndexColumn, NullsDistinctOption, OnCommit,
    PrimaryKeyConstraint, TableConstraint, UniqueConstraint,
};

use super::CreateTable;
use crate::catalog::{COLUMNS_MAX, IndexKind, TableCheck, TableDefinition};
use crate::engine::context::Planner;
use crate::engine::fault::planning;
use crate::engine::names::Resolver;
use crate::engine::reading::Reading;
use crate::engine::statement::query_plan;
use crate::engine::write::refuse_beyond_row;
use crate::error::{Error, Result};
use crate::table::codec;
use crate::tenant::Scope;

/// Reads CREATE TABLE. What it says beyond columns, constraints, a query and whose it
/// is is refused.
pub(super) fn plan(
    create: ast::CreateTable,
    scope: &Scope,
    planner: &Planner,
    resolver: &Resolver<'_>,
) -> Result<CreateTable> {
    let mut served = CreateTableBuilder::new(create.name.clone())
        .if_not_exists(create.if_not_exists)
        .temporary(create.temporary)
        .columns(create.columns.clone())
        .constraints(create.constraints.clone())
        .query(create.query.clone());
    if create.temporary {
        // What they would be without these words.
        served = served
            .global(create.global.filter(|global| !global))
            .on_commit(
                create
                    .on_commit
                    .filter(|after| *after == OnCommit::PreserveRows),
            );
    }
    let served = served.build();
    if served != create {
        return Err(Error::Unimplemented(
            "CREATE TABLE takes TEMPORARY, columns, constraints, IF NOT EXISTS and AS: leave the \
             rest out"
                .into(),
        ));
    }
    let name = resolver.new_name(&create.name)?;
    let rows = match create.query {
        None => None,
        Some(_) if !create.columns.is_empty() || !create.constraints.is_empty() => {
            return Err(Error::Unimplemented(
                "CREATE TABLE with columns and AS is not served: cast the query's columns instead"
                    .into(),
            ));
        }
        Some(query) => {
            let plan = query_plan(ast::Statement::Query(query), resolver)?;
            Some(Arc::new(Reading::new(scope, plan, planner)?))
        }
    };
    let columns = match &rows {
        Some(rows) => rows
            .schema()
            .fields()
            .iter()
            .map(|field| {
                // What a query yields is not said to hold in the future.
                let field = field.as_ref().clone().with_nullable(true);
                (Arc::new(field), None)
            })
            .collect(),
        None => declared(&create.columns, resolver)?,
    };
    for (field, _) in &columns {
        check_column_type(field)?;
    }
    let mut definition = TableDefinition::new(&name, columns)?;
    for column in &create.columns {
        let column_name = folded(&column.name);
        for option in &column.options {
            let constraint = option.name.as_ref();
            add_option(
                &mut definition,
                &name,
                &column_name,
                constraint,
                &option.option,
            )?;
        }
    }
    for constraint in create.constraints {
        add_constraint(&mut definition, &name, constraint)?;
    }
    let schema = DFSchema::try_from(definition.schema()).map_err(planning)?;
    for check in &definition.checks {
        check_row_expression(&check.sql, &schema, resolver, "CHECK")?;
    }
    Ok(CreateTable {
        name,
        temporary: create.temporary,
        definition,
        if_not_exists: create.if_not_exists,
        rows,
    })
}

/// The columns and the SQL of their defaults.
pub(super) fn declared(
    columns: &[ast::ColumnDef],
    resolver: &Resolver<'_>,
) -> Result<Vec<(FieldRef, Option<String>)>> {
    if columns.len() > COLUMNS_MAX {
        return Err(Error::InvalidArgument(format!(
            "a table has at most {COLUMNS_MAX} columns: leave some out"
        )));
    }
    let schema = SqlToRel::new_with_options(resolver, resolver.parser_options())
        .build_schema(columns.to_vec())
        .map_err(planning)?;
    let no_columns = DFSchema::empty();
    let mut declared = Vec::with_capacity(columns.len());
    for (field, column) in schema.fields().iter().zip(columns) {
        let mut default = None;
        for option in &column.options {
            if let ColumnOption::Default(expr) = &option.option {
                let sql = expr.to_string();
                check_row_expression(&sql, &no_columns, resolver, "DEFAULT")?;
                default = Some(sql);
            }
        }
        declared.push((Arc::clone(field), default));
    }
    Ok(declared)
}

/// Refuses a type that cannot be stored.
pub(super) fn check_column_type(field: &FieldRef) -> Result<()> {
    codec::check_type(field.data_type()).map_err(|unsupported| {
        Error::InvalidArgument(format!(
            "column `{}` cannot be stored: {unsupported}",
            field.name()
        ))
    })
}

/// Refuses an expression that does not decide over one row by itself.
pub(super) fn check_row_expression(
    sql: &str,
    schema: &DFSchema,
    resolver: &Resolver<'_>,
    what: &str,
) -> Result<()> {
    let expr = resolver.row_expression(sql, schema)?;
    refuse_beyond_row(&expr, &format!("{what} {sql}"))
}

fn add_option(
    definition: &mut TableDefinition,
    table: &str,
    column: &str,
    constraint: Option<&ast::Ident>,
    option: &ColumnOption,
) -> Result<()> {
    let columns = [column.to_owned()];
    let named = |fallback: String| match constraint {
        Some(name) => cut(&folded(name)),
        None => fallback,
    };
    match option {
        // The schema and the defaults have these already.
        ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_) => Ok(()),
        ColumnOption::PrimaryKey(key) if key.characteristics.is_none() => definition.push_index(
            &named(primary_key_name(table)),
            IndexKind::Primary,
            &columns,
        ),
        ColumnOption::Unique(unique) if unique.characteristics.is_none() => definition.push_index(
            &named(unique_name(table, &columns)),
            IndexKind::Unique,
            &columns,
        ),
        ColumnOption::Check(check) => {
            let fallback = cut(&format!("{table}_{column}_check"));
            add_check(definition, named(fallback), check)
        }
        other => Err(Error::Unimplemented(format!(
            "column option {other} is not served: leave it out"
        ))),
    }
}

fn add_constraint(
    definition: &mut TableDefinition,
    table: &str,
    constraint: TableConstraint,
) -> Result<()> {
    match constraint {
        TableConstraint::PrimaryKey(PrimaryKeyConstraint {
            name,
            index_name: None,
            index_type: None,
            columns,
            index_options,
            characteristics: None,
        }) if index_options.is_empty() => {
            let name = name.map_or_else(|| primary_key_name(table), |name| cut(&folded(&name)));
            definition.push_index(&name, IndexKind::Primary, &column_names(&columns)?)
        }
        TableConstraint::Unique(UniqueConstraint {
            name,
            index_name: None,
            index_type: None,
            columns,
            index_options,
            characteristics: None,
            nulls_distinct: NullsDistinctOption::None | NullsDistinctOption::Distinct,
            ..
        }) if index_options.is_empty() => {
            let columns = column_names(&columns)?;
            let name = match name {
                Some(name) => cut(&folded(&name)),
                None => unique_name(table, &columns),
            };
            definition.push_index(&name, IndexKind::Unique, &columns)
        }
        TableConstraint::Check(check) => {
            let name = format!("{table}_check{}", definition.checks.len() + 1);
            add_check(definition, cut(&name), &check)
        }
        other => Err(Error::Unimplemented(format!(
            "constraint {other} is not served: leave it out"
        ))),
    }
}

fn add_check(
    definition: &mut TableDefinition,
    fallback: String,
    check: &CheckConstraint,
) -> Result<()> {
    if check.enforced == Some(false) {
        return Err(Error::Unimplemented(
            "a CHECK that is NOT ENFORCED is not served: leave it out".into(),
        ));
    }
    let name = check.name.as_ref().map_or(fallback, folded);
    definition.push_check(TableCheck {
        name,
        sql: check.expr.to_string(),
    })
}

/// The names of an index's columns: plain ones, in ascending order.
pub(super) fn column_names(columns: &[IndexColumn]) -> Result<Vec<String>> {
    columns
        .iter()
        .map(|column| match &column.column.expr {
            Expr::Identifier(name)
                if column.operator_class.is_none()
                    && column.column.with_fill.is_none()
                    && column.column.options.asc != Some(false)
                    && column.column.options.nulls_first.is_none() =>
            {
                Ok(folded(name))
            }
            _ => Err(Error::Unimplemented(format!(
                "`{column}` in a key or an index is not served: name a column by itself"
            ))),
        })
        .collect()
}

/// The name that an identifier means: one without quotes is in lower case.
pub(in crate::engine) fn folded(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// What the primary key of a table is called where nobody says.
pub(super) fn primary_key_name(table: &str) -> String {
    cut(&format!("{table}_pkey"))
}

/// What a unique constraint of a table is called where nobody says.
pub(super) fn unique_name(table: &str, columns: &[String]) -> String {
    cut(&format!("{table}_{}_key", columns.join("_")))
}

/// A name that was made from others, cut to the length that names may have.
pub(super) fn cut(name: &str) -> String {
    let mut end = name.len().min(crate::catalog::RELATION_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
