//! Stored tables as a scope sees them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::Expr;

use crate::catalog::{Relation, TENANT_COLUMN, TableDefinition};
use crate::error::{Error, Result};
use crate::policy::LanePredicate;
use crate::source::LaneScan;
use crate::table::{ChunkCache, Equal, KeyLookup, TableScanExec, Wanted, scan_schema};
use crate::tenant::{Lane, Scope};

/// A table whose rows are in lanes.
#[derive(Debug)]
pub(super) struct StoredTable {
    relation: Arc<Relation>,
    definition: TableDefinition,
    schema: SchemaRef,
    cache: ChunkCache,
    use_: Use,
}

/// What a statement names a table for.
#[derive(Debug)]
pub(super) enum Use {
    /// To read the rows of every readable lane.
    Read,
    /// To find the rows of the writable lane that it changes, by their numbers.
    Change,
    /// To add rows, with these values where a row says none.
    Insert(HashMap<String, Expr>),
}

impl StoredTable {
    pub fn new(relation: &Arc<Relation>, cache: &ChunkCache, use_: Use) -> Option<Self> {
        let definition = relation.table()?.clone();
        let schema = match use_ {
            Use::Change => scan_schema(&definition),
            Use::Read => definition.schema(),
            Use::Insert(_) => nullable(&definition.schema()),
        };
        Some(StoredTable {
            relation: Arc::clone(relation),
            definition,
            schema,
            cache: cache.clone(),
            use_,
        })
    }

    /// What the lane that defines the table calls it.
    pub fn name(&self) -> &str {
        &self.relation.name
    }

    /// Whether it belongs to a session.
    pub fn is_temporary(&self) -> bool {
        self.relation.is_temporary()
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The value of a column in a row that is added without one.
    pub fn default(&self, column: &str) -> Option<&Expr> {
        match &self.use_ {
            Use::Insert(defaults) => defaults.get(column),
            Use::Read | Use::Change => None,
        }
    }

    pub fn lane_predicate(&self, scope: &Scope) -> Result<Option<(String, LanePredicate)>> {
        let predicate = LanePredicate::new(scope, &DataType::Utf8)?;
        Ok(Some((TENANT_COLUMN.to_owned(), predicate)))
    }

    /// The lanes that have rows for the scope. A table of a tenant has rows in
    /// that tenant's lane alone; one of the global lane in every lane.
    fn lanes(&self, scope: &Scope) -> Result<Vec<Lane>> {
        if !self.relation.is_seen_by(scope) {
            return Err(Error::internal(
                "the statement was refused: it reads a table of another lane or session than the \
                 caller's",
                format!(
                    "table {} of lane {}",
                    self.relation.name, self.relation.lane
                ),
            ));
        }
        let is_of_other = ![Lane::Global, scope.writable()].contains(&self.relation.lane);
        if is_of_other && !matches!(self.use_, Use::Read) {
            return Err(Error::internal(
                "the statement was refused: it writes a table of a tenant above",
                format!("table {} of {}", self.relation.name, self.relation.lane),
            ));
        }
        Ok(match (&self.use_, self.relation.lane) {
            (Use::Change | Use::Insert(_), _) => vec![scope.writable()],
            (Use::Read, own) if self.relation.is_temporary() => vec![own],
            (Use::Read, Lane::Global) => scope.readable().to_vec(),
            (Use::Read, own @ Lane::Tenant(_)) => vec![own],
        })
    }

    /// Whether `filters` are of whole unique keys.
    pub fn is_of_keys(&self, filters: &[Expr]) -> bool {
        KeyLookup::new(&self.definition, filters)
            .is_some_and(|lookup| lookup.is_of_keys(&self.definition))
    }

    /// Those of `filters` that a scan keeps to by itself.
    pub fn equal(&self, filters: &[&Expr]) -> Vec<Equal> {
        Equal::all(&self.definition, filters)
    }

    /// Whether a scan keeps to `filter`, where it does to any.
    pub fn is_equal(&self, filter: &Expr) -> bool {
        Equal::of(&self.definition, filter).is_some()
    }

    /// The columns at `projection`, and the tenant's where it is not among them,
    /// of the rows that `filters` may let through: of `limit` of them, or more.
    pub fn scan(
        &self,
        scope: &Scope,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<LaneScan> {
        let mut read = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let output = self
            .schema
            .project(&read)
            .map_err(|error| Error::internal("the table cannot be read", error))?;
        let tenant = self.definition.position(0).ok_or_else(|| {
            Error::internal("the table cannot be read", "it has no tenant column")
        })?;
        let at = read.iter().position(|index| *index == tenant);
        let at = at.unwrap_or_else(|| {
            read.push(tenant);
            read.len() - 1
        });
        let predicate = LanePredicate::new(scope, &DataType::Utf8)?;
        let plan = TableScanExec::new(
            Arc::clone(&self.relation),
            &self.definition,
            self.lanes(scope)?,
            &read,
            Wanted {
                lookup: KeyLookup::new(&self.definition, filters),
                equal: self.equal(&filters.iter().collect::<Vec<_>>()),
                limit,
            },
            self.cache.clone(),
        );
        Ok(LaneScan {
            plan: Arc::new(plan),
            lane: Some((at, predicate)),
            output: Arc::new(output),
        })
    }
}

/// The columns, each of which may be NULL: whether new rows have a NULL where
/// they must not is for the table's own checks to say.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(Schema::new(fields))
}
