//! INSERT as the query that yields the new rows.

use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName, SetExpr, TableObject};

use super::fitting::for_columns;
use super::outputs::name_apart;
use super::{OnConflict, Returning, Source, TARGET, Write, quoted, refuse_if};
use crate::catalog::TableDefinition;
use crate::engine::define::folded;
use crate::engine::names::Resolver;
use crate::engine::statement::parse_expression;
use crate::error::{Error, Result};

/// Gives the statement the list of its columns, and every DEFAULT its value.
pub(super) fn take_apart(insert: ast::Insert, resolver: &Resolver<'_>) -> Result<(Write, Source)> {
    let ast::Insert {
        insert_token,
        optimizer_hints,
        or,
        ignore,
        into,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    refuse_if(or.is_some() || ignore, "INSERT OR")?;
    refuse_if(overwrite, "INSERT OVERWRITE")?;
    refuse_if(replace_into, "REPLACE INTO")?;
    refuse_if(insert_alias.is_some(), "an alias of the new row")?;
    refuse_if(output.is_some(), "OUTPUT")?;
    refuse_if(
        !assignments.is_empty()
            || partitioned.is_some()
            || !after_columns.is_empty()
            || has_table_keyword
            || !optimizer_hints.is_empty()
            || priority.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some(),
        "INSERT of another dialect",
    )?;
    let TableObject::TableName(name) = table else {
        return Err(Error::Unimplemented(
            "INSERT into anything but a table is not served: name a table".into(),
        ));
    };
    let relation = resolver.writable_table(&name)?;
    let mut write = Write::insert(&relation);
    let definition = relation
        .table()
        .ok_or_else(|| Error::internal("the statement cannot be planned", "no table"))?;
    let alias = match &table_alias {
        Some(alias) => quoted(&folded(&alias.alias)),
        None => quoted(&relation.name),
    };
    if let Some(on) = on {
        let conflict = OnConflict::plan(on, definition, &alias.value, resolver)?;
        write.conflict = Some(conflict);
    }
    if let Some(items) = returning {
        let returning = Returning::plan(items, &relation, definition, &alias, resolver)?;
        write.returning = Some(returning);
    }
    let (columns, source) = match source {
        Some(mut source) => {
            name_apart(&mut source.body);
            let columns = match columns.is_empty() {
                true => implied_columns(definition, &source, resolver)?,
                false => columns,
            };
            (columns, source)
        }
        // INSERT INTO t DEFAULT VALUES
        None => {
            let first = definition
                .columns
                .iter()
                .find(|column| column.number != 0)
                .ok_or_else(|| definition.no_column(""))?;
            let column = object_name(first.field.name());
            let values = Box::new(one_default_row()?);
            (vec![column], values)
        }
    };
    let mut source = source;
    if let SetExpr::Values(values) = source.body.as_mut() {
        fill_defaults(definition, &columns, values)?;
    }
    for_columns(definition, &columns, &mut source, resolver)?;
    let statement = ast::Statement::Insert(ast::Insert {
        insert_token,
        optimizer_hints: Vec::new(),
        or: None,
        ignore: false,
        into,
        table: TableObject::TableName(ObjectName::from(TARGET.map(quoted).to_vec())),
        table_alias: None,
        columns,
        overwrite: false,
        source: Some(source),
        assignments: Vec::new(),
        partitioned: None,
        after_columns: Vec::new(),
        has_table_keyword: false,
        on: None,
        returning: None,
        output: None,
        replace_into: false,
        priority: None,
        insert_alias: None,
        settings: None,
        format_clause: None,
        multi_table_insert_type: None,
        multi_table_into_clauses: Vec::new(),
        multi_table_when_clauses: Vec::new(),
        multi_table_else_clause: None,
    });
    let source = Source::Insert {
        statement: Box::new(statement),
    };
    Ok((write, source))
}

/// The columns that a source without a list of them is for: the table's own, or,
/// where the source has one more, the tenant's among them.
fn implied_columns(
    definition: &TableDefinition,
    source: &ast::Query,
    resolver: &Resolver<'_>,
) -> Result<Vec<ObjectName>> {
    let width = match source.body.as_ref() {
        SetExpr::Values(values) => values.rows.first().map_or(0, |row| row.content.len()),
        _ => resolver.types_of(source)?.len(),
    };
    let with_tenant = width == definition.columns.len();
    let columns: Vec<ObjectName> = definition
        .columns
        .iter()
        .filter(|column| with_tenant || column.number != 0)
        .map(|column| object_name(column.field.name()))
        .collect();
    if columns.len() == width {
        return Ok(columns);
    }
    let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
    Err(Error::InvalidArgument(format!(
        "the source has {width} columns and the table takes {} ({}): name the columns that it is \
         for",
        columns.len(),
        names.join(", ")
    )))
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::from(quoted(name))
}

fn one_default_row() -> Result<ast::Query> {
    match crate::engine::statement::parse_one("VALUES (DEFAULT)")? {
        ast::Statement::Query(query) => Ok(*query),
        _ => Err(Error::internal("the statement cannot be planned", "VALUES")),
    }
}

/// Puts the default's own SQL where DEFAULT stands for a value.
fn fill_defaults(
    definition: &TableDefinition,
    columns: &[ObjectName],
    values: &mut ast::Values,
) -> Result<()> {
    for row in &mut values.rows {
        for (at, value) in row.content.iter_mut().enumerate() {
            if !is_default(value) {
                continue;
            }
            let name = columns.get(at).and_then(|name| name.0.last()?.as_ident());
            let Some(name) = name else { continue };
            *value = default_of(definition, name)?;
        }
    }
    Ok(())
}

/// Whether `value` is the word DEFAULT.
pub(super) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(word) if word.quote_style.is_none()
        && word.value.eq_ignore_ascii_case("default"))
}

/// The SQL of the value that DEFAULT stands for in a column.
pub(super) fn default_of(definition: &TableDefinition, column: &Ident) -> Result<Expr> {
    let name = folded(column);
    let found = definition
        .column(&name)
        .ok_or_else(|| definition.no_column(&name))?;
    parse_expression(found.default.as_deref().unwrap_or("NULL"))
}
