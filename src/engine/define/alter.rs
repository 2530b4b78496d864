//! ALTER TABLE as the table's next definition, and what it changes in storage.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use datafusion::sql::sqlparser::ast::{
    self, AlterColumnOperation, AlterTableOperation, ColumnOption, Ident, RenameTableNameKind,
};

use super::create::{check_column_type, declared, folded};
use super::{Alter, StorageChange};
use crate::backend::BackendError;
use crate::catalog::{
    Relation, RelationBody, TENANT_COLUMN, TableDefinition, check_column_name, check_relation_name,
};
use crate::engine::fault::{execution, planning};
use crate::engine::names::Resolver;
use crate::engine::statement::parse_expression;
use crate::engine::write::for_column;
use crate::error::{Error, Result};
use crate::table;

/// Reads ALTER TABLE: one change of one table.
pub(super) fn plan(alter: ast::AlterTable, resolver: &Resolver<'_>) -> Result<Option<Alter>> {
    let ast::AlterTable {
        name,
        if_exists,
        only: _,
        operations,
        location,
        on_cluster,
        table_type,
        end_token: _,
    } = alter;
    if location.is_some() || on_cluster.is_some() || table_type.is_some() {
        return Err(Error::Unimplemented(
            "ALTER TABLE of another dialect is not served: name a table and one change".into(),
        ));
    }
    let relation = match resolver.owned_relation(&name) {
        Ok(relation) => super::table_of(relation)?,
        Err(Error::NotFound(_)) if if_exists => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut operations = operations;
    let (Some(operation), true) = (operations.pop(), operations.is_empty()) else {
        return Err(Error::Unimplemented(
            "ALTER TABLE with several changes is not served: send one at a time".into(),
        ));
    };
    let mut altered = relation.as_ref().clone();
    let mut changes = Vec::new();
    match operation {
        AlterTableOperation::RenameTable {
            table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name),
        } => {
            let name = resolver.new_name(&name)?;
            check_relation_name(&name)?;
            altered.name = name;
        }
        other => {
            let RelationBody::Table(definition) = &mut altered.body else {
                return Err(Error::internal(
                    "the table cannot be altered",
                    "it is a view",
                ));
            };
            changes = change(definition, other, resolver)?;
        }
    }
    Ok(Some(Alter {
        relation,
        altered,
        changes,
    }))
}

/// Changes the definition, and says what becomes of the storage.
fn change(
    definition: &mut TableDefinition,
    operation: AlterTableOperation,
    resolver: &Resolver<'_>,
) -> Result<Vec<StorageChange>> {
    match operation {
        AlterTableOperation::AddColumn {
            column_keyword: _,
            if_not_exists,
            column_def,
            column_position: None,
        } => {
            if if_not_exists && definition.column(&folded(&column_def.name)).is_some() {
                return Ok(Vec::new());
            }
            add_column(definition, column_def, resolver)
        }
        AlterTableOperation::DropColumn {
            has_column_keyword: _,
            mut column_names,
            if_exists,
            drop_behavior: None,
        } => {
            let (Some(column), true) = (column_names.pop(), column_names.is_empty()) else {
                return Err(Error::Unimplemented(
                    "DROP of several columns is not served: drop one at a time".into(),
                ));
            };
            if if_exists && definition.column(&folded(&column)).is_none() {
                return Ok(Vec::new());
            }
            drop_column(definition, &folded(&column), resolver)
        }
        AlterTableOperation::RenameColumn {
            old_column_name,
            new_column_name,
        } => {
            rename_column(
                definition,
                &old_column_name,
                &folded(&new_column_name),
                resolver,
            )?;
            Ok(Vec::new())
        }
        AlterTableOperation::AlterColumn { column_name, op } => {
            alter_column(definition, &folded(&column_name), op, resolver)?;
            Ok(Vec::new())
        }
        other => Err(Error::Unimplemented(format!(
            "ALTER TABLE {other} is not served: there are ADD COLUMN, DROP COLUMN, RENAME COLUMN, \
             RENAME TO, and ALTER COLUMN with SET DEFAULT, DROP DEFAULT and DROP NOT NULL"
        ))),
    }
}

fn add_column(
    definition: &mut TableDefinition,
    column: ast::ColumnDef,
    resolver: &Resolver<'_>,
) -> Result<Vec<StorageChange>> {
    if let Some(option) = column.options.iter().find(|option| {
        !matches!(
            option.option,
            ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_)
        )
    }) {
        return Err(Error::Unimplemented(format!(
            "ADD COLUMN with {} is not served: add the column, then CREATE UNIQUE INDEX",
            option.option
        )));
    }
    let name = folded(&column.name);
    let (field, default) = declared(std::slice::from_ref(&column), resolver)?
        .pop()
        .ok_or_else(|| Error::internal("the column cannot be added", "it was not planned"))?;
    check_column_type(&field)?;
    let filler = filler(&field, default.as_deref(), resolver)?;
    if !field.is_nullable() && filler.is_none() {
        return Err(Error::InvalidArgument(format!(
            "column `{name}` is NOT NULL and rows that are there would have NULL in it: give it a \
             DEFAULT"
        )));
    }
    definition.push_column(field, default)?;
    let added = definition
        .columns
        .iter_mut()
        .find(|column| *column.field.name() == name && column.number != 0);
    let Some(added) = added else {
        return Err(Error::InvalidArgument(format!(
            "every table has column `{TENANT_COLUMN}`: it need not be added"
        )));
    };
    added.filler.clone_from(&filler);
    Ok(vec![StorageChange::AddColumn {
        number: added.number,
        filler,
    }])
}

/// SQLite's literal for the value that rows have in a column which is added: its
/// default as it is now.
fn filler(field: &Field, default: Option<&str>, resolver: &Resolver<'_>) -> Result<Option<String>> {
    let Some(sql) = default else { return Ok(None) };
    let no_columns = DFSchema::empty();
    let value = for_column(field, parse_expression(sql)?);
    let expr = resolver
        .expression(value, &no_columns)?
        .cast_to(field.data_type(), &no_columns)
        .map_err(planning)?;
    let one_row = arrow::array::RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        Vec::new(),
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
    )
    .map_err(|error| Error::internal("a default cannot be evaluated", error))?;
    let value = resolver
        .physical(expr, &no_columns)?
        .evaluate(&one_row)
        .and_then(|value| value.into_array(1))
        .map_err(execution)?;
    if value.is_null(0) {
        return Ok(None);
    }
    table::literal(value.as_ref(), 0).map(Some)
}

fn drop_column(
    definition: &mut TableDefinition,
    name: &str,
    resolver: &Resolver<'_>,
) -> Result<Vec<StorageChange>> {
    let number = own_column(definition, name)?;
    if let Some(index) = definition
        .indexes
        .iter()
        .find(|index| index.columns.contains(&number))
    {
        return Err(Error::FailedPrecondition(format!(
            "column `{name}` is part of `{}`: drop that index first",
            index.name
        )));
    }
    refuse_checked(definition, name, resolver)?;
    if definition.columns.len() <= 2 {
        return Err(Error::InvalidArgument(format!(
            "`{name}` is the table's only column: drop the table instead"
        )));
    }
    definition.columns.retain(|column| column.number != number);
    definition.columns_changed();
    Ok(vec![StorageChange::DropColumn { number }])
}

fn rename_column(
    definition: &mut TableDefinition,
    old: &Ident,
    new: &str,
    resolver: &Resolver<'_>,
) -> Result<()> {
    let old = folded(old);
    let number = own_column(definition, &old)?;
    refuse_checked(definition, &old, resolver)?;
    check_column_name(new)?;
    if new == TENANT_COLUMN || (new != old && definition.column(new).is_some()) {
        return Err(Error::AlreadyExists(format!(
            "the table has a column `{new}` already: choose another name"
        )));
    }
    edit(definition, number, |field| field.with_name(new));
    Ok(())
}

fn alter_column(
    definition: &mut TableDefinition,
    name: &str,
    operation: AlterColumnOperation,
    resolver: &Resolver<'_>,
) -> Result<()> {
    let number = own_column(definition, name)?;
    match operation {
        AlterColumnOperation::SetDefault { value } => {
            let sql = value.to_string();
            super::create::check_row_expression(&sql, &DFSchema::empty(), resolver, "DEFAULT")?;
            set_default(definition, number, Some(sql));
        }
        AlterColumnOperation::DropDefault => set_default(definition, number, None),
        AlterColumnOperation::DropNotNull => {
            let in_key = definition
                .primary_key()
                .is_some_and(|key| key.columns.contains(&number));
            if in_key {
                return Err(Error::InvalidArgument(format!(
                    "column `{name}` is part of the primary key and cannot be NULL"
                )));
            }
            edit(definition, number, |field| field.with_nullable(true));
        }
        other => {
            return Err(Error::Unimplemented(format!(
                "ALTER COLUMN {other} is not served: make a new table with CREATE TABLE AS"
            )));
        }
    }
    Ok(())
}

fn set_default(definition: &mut TableDefinition, number: u32, default: Option<String>) {
    for column in &mut definition.columns {
        if column.number == number {
            column.default.clone_from(&default);
        }
    }
}

fn edit(definition: &mut TableDefinition, number: u32, edit: impl Fn(Field) -> Field) {
    for column in &mut definition.columns {
        if column.number == number {
            column.field = Arc::new(edit(column.field.as_ref().clone()));
        }
    }
    definition.columns_changed();
}

fn own_column(definition: &TableDefinition, name: &str) -> Result<u32> {
    match definition.column(name) {
        Some(column) if column.number != 0 => Ok(column.number),
        Some(_) => Err(Error::InvalidArgument(format!(
            "column `{TENANT_COLUMN}` is kept by the server and cannot be altered"
        ))),
        None => Err(definition.no_column(name)),
    }
}

/// Refuses a change of a column that a condition is about.
fn refuse_checked(definition: &TableDefinition, name: &str, resolver: &Resolver<'_>) -> Result<()> {
    let schema = DFSchema::try_from(definition.schema()).map_err(planning)?;
    for check in &definition.checks {
        let condition = resolver.row_expression(&check.sql, &schema)?;
        if condition
            .column_refs()
            .iter()
            .any(|column| column.name == name)
        {
            return Err(Error::FailedPrecondition(format!(
                "condition `{}` ({}) is about column `{name}`: make a new table without it by \
                 CREATE TABLE AS",
                check.name, check.sql
            )));
        }
    }
    Ok(())
}

/// Records the definition and changes the storage.
pub(super) fn apply(
    lane: &crate::backend::Transaction<'_>,
    alter: &Alter,
    revision: i64,
    now_ms: i64,
) -> Result<(), BackendError> {
    use crate::catalog::relations;
    let missing = || {
        BackendError::refused(Error::FailedPrecondition(format!(
            "table `{}` was changed since the statement was prepared: prepare it again",
            alter.relation.name
        )))
    };
    if relations::revision_of(lane, alter.relation.id)? != Some(alter.relation.revision) {
        return Err(missing());
    }
    if alter.altered.name != alter.relation.name
        && relations::id_of(lane, &alter.altered.name, alter.relation.owner)?.is_some()
    {
        return Err(super::taken(&alter.altered.name));
    }
    let altered = Relation {
        revision,
        altered_at_ms: now_ms,
        ..alter.altered.clone()
    };
    if !relations::update(lane, &altered)? {
        return Err(missing());
    }
    for change in &alter.changes {
        match change {
            StorageChange::AddColumn { number, filler } => {
                table::add_column(lane, &altered, *number, filler.as_deref())?;
            }
            StorageChange::DropColumn { number } => table::drop_column(lane, &altered, *number)?,
            StorageChange::CreateIndex(index) => {
                let definition = altered.table().ok_or_else(missing)?;
                table::create_index(lane, &altered, definition, index)?;
            }
            StorageChange::DropIndex(index) => table::drop_index(lane, &altered, index)?,
        }
    }
    Ok(())
}
