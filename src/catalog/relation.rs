//! The records of tables whose rows are stored here, and of views.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::TemporaryOwner;
use super::name::{check_column_name, check_relation_name, shown};
use crate::error::{Error, Result};
use crate::tenant::{Lane, Scope};

/// The column that every stored table has: the tenant of the row, NULL where it
/// is shared.
pub const TENANT_COLUMN: &str = "tenant_id";
/// The columns that a table may have.
pub const COLUMNS_MAX: usize = 1_000;

/// A table or a view of one lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// The number under which rows are stored. It never comes back in the lane.
    pub id: i64,
    /// The lane that defines it.
    pub lane: Lane,
    /// What the lane calls it, or the session that it belongs to.
    pub name: String,
    /// The session that alone has it. Absent: everyone who reads the lane.
    pub owner: Option<TemporaryOwner>,
    /// What it is.
    pub body: RelationBody,
    /// Differs from that of every other state of the relation.
    pub revision: i64,
    /// Unix time in milliseconds.
    pub created_at_ms: i64,
    /// Unix time in milliseconds of the last change of the definition.
    pub altered_at_ms: i64,
}

/// What a relation is.
#[derive(Clone, Debug, PartialEq)]
pub enum RelationBody {
    /// Rows that are stored.
    Table(TableDefinition),
    /// A query that is planned anew for whoever reads it.
    View(ViewDefinition),
}

impl Relation {
    /// Whether it is a temporary table.
    pub fn is_temporary(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether it is for the scope to know of at all.
    pub fn is_seen_by(&self, scope: &Scope) -> bool {
        let in_session = |owner: &TemporaryOwner| {
            scope.session() == Some(owner.session()) && scope.writable() == self.lane
        };
        scope.reads(self.lane) && self.owner.as_ref().is_none_or(in_session)
    }

    /// The definition, where the relation is a table.
    pub fn table(&self) -> Option<&TableDefinition> {
        match &self.body {
            RelationBody::Table(table) => Some(table),
            RelationBody::View(_) => None,
        }
    }

    /// How the relation is spelled in SQL.
    pub fn sql_name(&self) -> String {
        let name = datafusion::common::utils::quote_identifier(&self.name);
        format!("mutable.public.{name}")
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        match &self.body {
            RelationBody::Table(table) => table.schema(),
            RelationBody::View(view) => Arc::clone(&view.schema),
        }
    }
}

/// A query under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewDefinition {
    /// The query's text.
    pub sql: String,
    /// The catalog in which its bare names are looked up.
    pub catalog: String,
    /// The schema in which its bare names are looked up.
    pub schema_name: String,
    /// The columns as they were when the view was made.
    pub schema: SchemaRef,
}

/// The columns and constraints of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDefinition {
    /// The columns in order, the tenant's among them.
    pub columns: Vec<TableColumn>,
    /// Keys and other indexes.
    pub indexes: Vec<TableIndex>,
    /// Conditions that no row may make false.
    pub checks: Vec<TableCheck>,
    /// The number of the next column. Numbers do not come back.
    pub next_column: u32,
    /// The number of the next index. Numbers do not come back.
    pub next_index: u32,
    schema: SchemaRef,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableColumn {
    /// The number under which values are stored; 0 is the tenant's column.
    pub number: u32,
    /// Name, type and nullability.
    pub field: FieldRef,
    /// The SQL of the value that a row gets which says none.
    pub default: Option<String>,
    /// SQLite's literal for the value that rows have which are older than the
    /// column. Absent: NULL.
    pub filler: Option<String>,
}

/// What an index is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// Tells rows apart; none of its columns is NULL.
    Primary,
    /// Tells rows apart, unless one of its columns is NULL.
    Unique,
    /// Finds rows.
    Plain,
}

/// An index of a table, a key or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableIndex {
    /// The number under which it is stored.
    pub number: u32,
    /// What errors and `DROP INDEX` call it.
    pub name: String,
    /// What it is for.
    pub kind: IndexKind,
    /// The numbers of its columns, in the order of the index.
    pub columns: Vec<u32>,
}

/// A condition on the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableCheck {
    /// What errors call it.
    pub name: String,
    /// The condition's SQL.
    pub sql: String,
}

impl TableDefinition {
    /// A table of `columns`, each with the SQL of its default, to which the
    /// tenant's column is added at the end where it is not among them.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is taken twice or cannot be used, a
    /// tenant column that is not text, and for too many columns.
    pub fn new(name: &str, columns: Vec<(FieldRef, Option<String>)>) -> Result<Self> {
        check_relation_name(name)?;
        let mut definition = TableDefinition {
            columns: Vec::with_capacity(columns.len() + 1),
            indexes: Vec::new(),
            checks: Vec::new(),
            next_column: 1,
            next_index: 1,
            schema: Arc::new(Schema::empty()),
        };
        if columns
            .iter()
            .all(|(field, _)| field.name() == TENANT_COLUMN)
        {
            return Err(Error::InvalidArgument(format!(
                "table {} has no columns: name at least one",
                shown(name)
            )));
        }
        for (field, default) in columns {
            definition.push_column(field, default)?;
        }
        if definition.column(TENANT_COLUMN).is_none() {
            definition.columns.push(TableColumn {
                number: 0,
                field: tenant_field(),
                default: None,
                filler: None,
            });
            definition.columns_changed();
        }
        Ok(definition)
    }

    /// Adds a column: last, but before a tenant column that is last.
    pub fn push_column(&mut self, field: FieldRef, default: Option<String>) -> Result<()> {
        check_column_name(field.name())?;
        if self.column(field.name()).is_some() {
            return Err(Error::InvalidArgument(format!(
                "column {} is named twice: give each column a name of its own",
                shown(field.name())
            )));
        }
        if self.columns.len() >= COLUMNS_MAX {
            return Err(Error::InvalidArgument(format!(
                "a table has at most {COLUMNS_MAX} columns: leave some out"
            )));
        }
        if field.name() == TENANT_COLUMN {
            if !matches!(field.data_type(), DataType::Utf8) || default.is_some() {
                return Err(Error::InvalidArgument(
                    "column `tenant_id` holds the tenant of the row and is kept by the server: \
                     leave it out, or declare it as VARCHAR without a default"
                        .into(),
                ));
            }
            self.columns.push(TableColumn {
                number: 0,
                field: tenant_field(),
                default: None,
                filler: None,
            });
        } else {
            let column = TableColumn {
                number: self.next_column,
                field,
                default,
                filler: None,
            };
            self.next_column += 1;
            let at = match self.columns.last() {
                Some(last) if last.number == 0 && self.columns.len() > 1 => self.columns.len() - 1,
                _ => self.columns.len(),
            };
            self.columns.insert(at, column);
        }
        self.columns_changed();
        Ok(())
    }

    /// Brings the schema up to date with `columns`.
    pub fn columns_changed(&mut self) {
        let fields: Vec<FieldRef> = self
            .columns
            .iter()
            .map(|column| Arc::clone(&column.field))
            .collect();
        self.schema = Arc::new(Schema::new(fields));
    }

    /// The columns as Arrow has them.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns
            .iter()
            .find(|column| column.field.name() == name)
    }

    /// The place of a column in the schema.
    pub fn position(&self, number: u32) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.number == number)
    }

    /// The primary key.
    pub fn primary_key(&self) -> Option<&TableIndex> {
        self.indexes
            .iter()
            .find(|index| index.kind == IndexKind::Primary)
    }

    /// The names of an index's columns.
    pub fn index_columns(&self, index: &TableIndex) -> Vec<&str> {
        index
            .columns
            .iter()
            .filter_map(|number| self.position(*number))
            .map(|at| self.columns[at].field.name().as_str())
            .collect()
    }

    /// Adds an index over the columns of these names.
    ///
    /// # Errors
    /// `InvalidArgument` for a column that there is not or that is named twice,
    /// and for a second primary key; `AlreadyExists` for a name that is taken.
    pub fn push_index(&mut self, name: &str, kind: IndexKind, columns: &[String]) -> Result<()> {
        check_relation_name(name)?;
        self.refuse_taken(name)?;
        if kind == IndexKind::Primary && self.primary_key().is_some() {
            return Err(Error::InvalidArgument(
                "the table has a primary key already: name all of its columns in one".into(),
            ));
        }
        let mut numbers = Vec::with_capacity(columns.len());
        for column in columns {
            let Some(found) = self.column(column) else {
                return Err(self.no_column(column));
            };
            if found.number == 0 {
                return Err(Error::InvalidArgument(
                    "keys and indexes are within a tenant by themselves: leave `tenant_id` out \
                     of them"
                        .into(),
                ));
            }
            let data_type = found.field.data_type();
            if kind != IndexKind::Plain && !data_type.is_floating() && holds_floats(data_type) {
                return Err(Error::InvalidArgument(format!(
                    "column {} cannot be in a key: it is {data_type}, and no index tells which of \
                     its values are equal, with floats inside: take a column of its own for the \
                     key",
                    shown(column)
                )));
            }
            if numbers.contains(&found.number) {
                return Err(Error::InvalidArgument(format!(
                    "index {} names column {} twice: name it once",
                    shown(name),
                    shown(column)
                )));
            }
            numbers.push(found.number);
        }
        if numbers.is_empty() {
            return Err(Error::InvalidArgument(format!(
                "index {} has no columns: name at least one",
                shown(name)
            )));
        }
        if kind == IndexKind::Primary {
            for column in &mut self.columns {
                if numbers.contains(&column.number) {
                    column.field = Arc::new(column.field.as_ref().clone().with_nullable(false));
                }
            }
            self.columns_changed();
        }
        self.indexes.push(TableIndex {
            number: self.next_index,
            name: name.to_owned(),
            kind,
            columns: numbers,
        });
        self.next_index += 1;
        Ok(())
    }

    /// Adds a condition.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken.
    pub fn push_check(&mut self, check: TableCheck) -> Result<()> {
        check_relation_name(&check.name)?;
        self.refuse_taken(&check.name)?;
        self.checks.push(check);
        Ok(())
    }

    fn refuse_taken(&self, name: &str) -> Result<()> {
        if self.indexes.iter().any(|index| index.name == name)
            || self.checks.iter().any(|check| check.name == name)
        {
            return Err(Error::AlreadyExists(format!(
                "the table has an index or a constraint {} already: choose another name",
                shown(name)
            )));
        }
        Ok(())
    }

    /// The error for a name that is no column's.
    pub fn no_column(&self, name: &str) -> Error {
        let names: Vec<&str> = self
            .columns
            .iter()
            .map(|column| column.field.name().as_str())
            .collect();
        Error::InvalidArgument(format!(
            "column {} does not exist: the table has {}",
            shown(name),
            names.join(", ")
        ))
    }

    /// The definition from what a lane keeps of it, or why it cannot be one.
    pub(super) fn restore(schema: &Schema, details: TableDetails) -> Result<Self, String> {
        if schema.fields().len() != details.columns.len() {
            return Err("its columns do not match its schema".into());
        }
        let columns = schema
            .fields()
            .iter()
            .zip(details.columns)
            .map(|(field, column)| TableColumn {
                number: column.number,
                field: Arc::clone(field),
                default: column.default,
                filler: column.filler,
            })
            .collect();
        let mut definition = TableDefinition {
            columns,
            indexes: details.indexes,
            checks: details.checks,
            next_column: details.next_column,
            next_index: details.next_index,
            schema: Arc::new(Schema::empty()),
        };
        definition.columns_changed();
        Ok(definition)
    }

    /// What a lane keeps beside the schema.
    pub(super) fn details(&self) -> TableDetails {
        TableDetails {
            columns: self
                .columns
                .iter()
                .map(|column| ColumnDetails {
                    number: column.number,
                    default: column.default.clone(),
                    filler: column.filler.clone(),
                })
                .collect(),
            indexes: self.indexes.clone(),
            checks: self.checks.clone(),
            next_column: self.next_column,
            next_index: self.next_index,
        }
    }
}

/// Whether values of the type are floats, or have some in them.
fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => holds_floats(values),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => holds_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        other => other.is_floating(),
    }
}

fn tenant_field() -> FieldRef {
    Arc::new(Field::new(TENANT_COLUMN, DataType::Utf8, true))
}

/// The part of a table's definition that Arrow does not say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableDetails {
    columns: Vec<ColumnDetails>,
    indexes: Vec<TableIndex>,
    checks: Vec<TableCheck>,
    next_column: u32,
    next_index: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnDetails {
    number: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filler: Option<String>,
}

/// What a lane keeps of a view beside its schema.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewDetails {
    pub sql: String,
    pub catalog: String,
    pub schema: String,
}
