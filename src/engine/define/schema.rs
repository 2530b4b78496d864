//! Tables that are defined by an Arrow schema, without SQL.
//!
//! Invariant: what is made here is what CREATE TABLE makes of the same columns and
//! keys, constraints' names included, and is made by the same code.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::create::{check_column_type, primary_key_name, unique_name};
use super::{CreateTable, Define, missing, table_of};
use crate::catalog::{IndexKind, Relation, TENANT_COLUMN, TableDefinition};
use crate::engine::Engine;
use crate::engine::names::owned;
use crate::engine::types::extension_of;
use crate::error::Result;
use crate::tenant::Scope;

/// A table that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTable {
    /// The table's name, as it is: nothing is folded to lower case.
    pub name: String,
    /// The columns in order. `tenant_id` is added at the end where it is not
    /// among them. Metadata is not kept, but for Arrow's extension types.
    pub schema: SchemaRef,
    /// The columns of the primary key, none of which is then NULL. Empty: the
    /// table has none.
    pub primary_key: Vec<String>,
    /// The columns of each unique constraint.
    pub unique: Vec<Vec<String>>,
    /// Whether a table or view of the name is left as it is, rather than an
    /// error.
    pub if_not_exists: bool,
}

impl NewTable {
    fn definition(&self) -> Result<TableDefinition> {
        let mut definition = TableDefinition::new(&self.name, columns_of(&self.schema)?)?;
        if !self.primary_key.is_empty() {
            let name = primary_key_name(&self.name);
            definition.push_index(&name, IndexKind::Primary, &self.primary_key)?;
        }
        for columns in &self.unique {
            let name = unique_name(&self.name, columns);
            definition.push_index(&name, IndexKind::Unique, columns)?;
        }
        Ok(definition)
    }
}

impl Engine {
    /// Makes a table in the scope's writable lane, empty, and answers it; with
    /// `if_not_exists`, the table or view that there is.
    ///
    /// # Errors
    /// `InvalidArgument` for names, types and keys that cannot be,
    /// `AlreadyExists` for a name that the lane has.
    pub async fn create_table(&self, scope: &Scope, new: NewTable) -> Result<Arc<Relation>> {
        let create = CreateTable {
            definition: new.definition()?,
            name: new.name,
            temporary: false,
            if_not_exists: new.if_not_exists,
            rows: None,
        };
        match super::create_table(self, scope, &create, None).await? {
            Some(relation) => Ok(Arc::new(relation)),
            // The one that was in the way, which is no session's own.
            None => {
                self.describe_table(&scope.without_session(), &create.name)
                    .await
            }
        }
    }

    /// The tables and views that the scope sees, by name: the tenant's own
    /// before a shared one of the same name.
    pub async fn stored_tables(&self, scope: &Scope) -> Result<Vec<Arc<Relation>>> {
        let snapshot = self.catalog().snapshot(scope).await?;
        Ok(snapshot.relations().cloned().collect())
    }

    /// The table or view that the name means to the scope.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn describe_table(&self, scope: &Scope, name: &str) -> Result<Arc<Relation>> {
        let snapshot = self.catalog().snapshot(scope).await?;
        let relation = snapshot.relation(name).ok_or_else(|| missing(name))?;
        Ok(Arc::clone(relation))
    }

    /// Forgets a table of the scope's writable lane, and its rows. Of a shared
    /// table, the rows of every tenant are gone.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` for a table that the scope shares with
    /// others; `InvalidArgument` for a view.
    pub async fn drop_table(&self, scope: &Scope, name: &str) -> Result<()> {
        let relation = owned(self.describe_table(scope, name).await?, scope)?;
        let drop = Define::Drop(vec![table_of(relation)?]);
        super::run(self, scope, &drop, &[], None).await
    }
}

/// The columns of a table for rows of `schema`. A text column of the tenant is
/// the tenant's, whichever kind of text it is.
pub(in crate::engine) fn columns_of(schema: &Schema) -> Result<Vec<(FieldRef, Option<String>)>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let (name, nullable) = (field.name().as_str(), field.is_nullable());
            let column = match field.data_type() {
                text if name == TENANT_COLUMN && is_text(text) => {
                    Field::new(name, DataType::Utf8, true)
                }
                other => Field::new(name, other.clone(), nullable)
                    .with_metadata(extension_of(field.metadata())),
            };
            let column = Arc::new(column);
            check_column_type(&column)?;
            Ok((column, None))
        })
        .collect()
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => value.is_string(),
        other => other.is_string(),
    }
}
