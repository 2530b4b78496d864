//! MERGE as the query that says of each pair of a target's row and a source's row
//! what becomes of it.

use datafusion::sql::sqlparser::ast::{
    self, Expr, MergeAction, MergeClauseKind, MergeInsertKind, SelectItem, SetExpr, TableFactor,
};

use super::change::{Target, assigned};
use super::insert::{default_of, is_default};
use super::{
    Effect, MERGE_DELETE, MERGE_INSERT, MERGE_UPDATE, Source, TARGET, Write, for_column,
    not_a_select, parsed_query, quoted, refuse_if, select_from,
};
use crate::catalog::TableDefinition;
use crate::engine::define::folded;
use crate::engine::names::Resolver;
use crate::engine::statement::parse_expression;
use crate::error::{Error, Result};
use crate::table::ROW_COLUMN;

/// Tells that a pair has a row of the source.
const SOURCE_COLUMN: &str = "_jammi_source";
/// What becomes of a pair.
const ACTION_COLUMN: &str = "_jammi_action";

/// MERGE: what becomes of each pair, the number of its row, and every column as it
/// will be. The first clause that a pair meets decides.
pub(super) fn take_apart(merge: ast::Merge, resolver: &Resolver<'_>) -> Result<(Write, Source)> {
    let ast::Merge {
        merge_token: _,
        optimizer_hints,
        into: _,
        table,
        source,
        on,
        clauses,
        output,
    } = merge;
    refuse_if(!optimizer_hints.is_empty(), "an optimizer hint")?;
    let target = Target::named(&table, resolver)?;
    let mut write = Write::new(&target.relation, Effect::Merge);
    match output {
        None => {}
        Some(ast::OutputClause::Returning { select_items, .. }) => {
            write.returning = target.returning(Some(select_items), resolver)?;
        }
        Some(ast::OutputClause::Output { .. }) => refuse_if(true, "OUTPUT")?,
    }
    let definition = write.definition()?;
    let source_name = source_name(&source)?;
    let clauses = clauses
        .into_iter()
        .map(|clause| Clause::read(clause, definition, &target, &source_name, resolver))
        .collect::<Result<Vec<_>>>()?;
    let adds = clauses.iter().any(|clause| clause.action == MERGE_INSERT);
    let unmatched = clauses.iter().any(|clause| clause.by_source);
    let joined = match (adds, unmatched) {
        (true, true) => "FULL",
        (true, false) => "RIGHT",
        (false, true) => "LEFT",
        (false, false) => "INNER",
    };
    let mut items = vec![
        item(
            decided(&clauses, |clause| number(clause.action))?,
            ACTION_COLUMN,
        ),
        target.item(ROW_COLUMN),
    ];
    for (at, column) in definition.columns.iter().enumerate() {
        let value = decided(&clauses, |clause| Ok(clause.values[at].clone()))?;
        items.push(item(value, column.field.name()));
    }
    let selection = decided(&clauses, |_| parse_expression("TRUE"))?;
    let mut query = select_from(TARGET, &target.alias, items, Vec::new(), Some(selection))?;
    let template = format!("SELECT 1 FROM t AS a {joined} JOIN s ON TRUE");
    join(&mut query, &template, source, &source_name, *on)?;
    Ok((write, Source::Change(Box::new(query))))
}

/// One WHEN.
struct Clause {
    condition: Expr,
    action: i64,
    /// Whether it is about rows of the target that the source does not match.
    by_source: bool,
    /// Every column as it will be.
    values: Vec<Expr>,
}

impl Clause {
    fn read(
        clause: ast::MergeClause,
        definition: &TableDefinition,
        target: &Target,
        source: &ast::Ident,
        resolver: &Resolver<'_>,
    ) -> Result<Self> {
        let row = compound(&target.alias, ROW_COLUMN);
        let from = compound(source, SOURCE_COLUMN);
        let met = match clause.clause_kind {
            MergeClauseKind::Matched => format!("{row} IS NOT NULL AND {from} IS NOT NULL"),
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => {
                format!("{row} IS NULL")
            }
            MergeClauseKind::NotMatchedBySource => format!("{from} IS NULL"),
        };
        let by_target = matches!(
            clause.clause_kind,
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget
        );
        let mut condition = parse_expression(&met)?;
        if let Some(predicate) = clause.predicate {
            condition = Expr::BinaryOp {
                left: Box::new(condition),
                op: ast::BinaryOperator::And,
                right: Box::new(Expr::Nested(Box::new(predicate))),
            };
        }
        let (action, values) = match clause.action {
            MergeAction::Insert(insert) if by_target => {
                (MERGE_INSERT, inserted(insert, definition, resolver)?)
            }
            MergeAction::Update(update) if !by_target => {
                refuse_if(
                    update.update_predicate.is_some() || update.delete_predicate.is_some(),
                    "WHERE in a clause of MERGE",
                )?;
                let mut assigned = assigned(definition, update.assignments)?;
                let columns = definition.columns.iter().map(|column| {
                    let name = column.field.name();
                    assigned
                        .remove(name.as_str())
                        .unwrap_or_else(|| compound(&target.alias, name))
                });
                (MERGE_UPDATE, columns.collect())
            }
            MergeAction::Delete { .. } if !by_target => {
                let columns = definition
                    .columns
                    .iter()
                    .map(|column| compound(&target.alias, column.field.name()));
                (MERGE_DELETE, columns.collect())
            }
            other => {
                return Err(Error::InvalidArgument(format!(
                    "WHEN {} cannot {other}: insert where the target has no match, update and \
                     delete where it has",
                    clause.clause_kind
                )));
            }
        };
        Ok(Clause {
            condition,
            action,
            by_source: clause.clause_kind == MergeClauseKind::NotMatchedBySource,
            values,
        })
    }
}

/// The columns of the row that INSERT adds.
fn inserted(
    insert: ast::MergeInsertExpr,
    definition: &TableDefinition,
    resolver: &Resolver<'_>,
) -> Result<Vec<Expr>> {
    refuse_if(
        insert.insert_predicate.is_some(),
        "WHERE in a clause of MERGE",
    )?;
    let MergeInsertKind::Values(values) = insert.kind else {
        return Err(Error::Unimplemented(
            "INSERT ROW is not served: write INSERT (columns) VALUES (values)".into(),
        ));
    };
    let mut rows = values.rows;
    let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
        return Err(Error::InvalidArgument(
            "INSERT in MERGE adds one row for a row of the source: give it one".into(),
        ));
    };
    let names: Vec<String> = if insert.columns.is_empty() {
        definition
            .columns
            .iter()
            .filter(|column| column.number != 0)
            .map(|column| column.field.name().clone())
            .collect()
    } else {
        insert
            .columns
            .iter()
            .filter_map(|name| name.0.last()?.as_ident().map(folded))
            .collect()
    };
    if names.len() != row.content.len() {
        return Err(Error::InvalidArgument(format!(
            "INSERT in MERGE has {} values for {} columns: give one for each",
            row.content.len(),
            names.len()
        )));
    }
    for name in &names {
        if definition.column(name).is_none() {
            return Err(definition.no_column(name));
        }
    }
    definition
        .columns
        .iter()
        .map(|column| {
            let name = column.field.name();
            let given = names.iter().position(|named| named == name);
            let value = match given.map(|at| &row.content[at]) {
                Some(value) if !is_default(value) => value.clone(),
                _ if column.number == 0 => resolver.own_tenant()?,
                _ => default_of(definition, &quoted(name))?,
            };
            Ok(for_column(&column.field, value))
        })
        .collect()
}

/// `CASE WHEN clause THEN value .. END` over the clauses in order.
fn decided(clauses: &[Clause], value: impl Fn(&Clause) -> Result<Expr>) -> Result<Expr> {
    let Expr::Case {
        case_token,
        end_token,
        ..
    } = parse_expression("CASE WHEN TRUE THEN 1 END")?
    else {
        return Err(not_a_select());
    };
    let conditions = clauses
        .iter()
        .map(|clause| {
            Ok(ast::CaseWhen {
                condition: clause.condition.clone(),
                result: value(clause)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Expr::Case {
        case_token,
        end_token,
        operand: None,
        conditions,
        else_result: None,
    })
}

fn number(value: i64) -> Result<Expr> {
    parse_expression(&value.to_string())
}

fn item(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias {
        expr,
        alias: quoted(name),
    }
}

fn compound(table: &ast::Ident, column: &str) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), quoted(column)])
}

/// What the statement calls the source.
fn source_name(source: &TableFactor) -> Result<ast::Ident> {
    let name = match source {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        } => Some(folded(&alias.name)),
        TableFactor::Table { name, .. } => {
            name.0.last().and_then(|part| part.as_ident()).map(folded)
        }
        _ => None,
    };
    match name {
        Some(name) => Ok(quoted(&name)),
        None => Err(Error::Unimplemented(
            "MERGE takes a table or a query with an alias as its source: name one".into(),
        )),
    }
}

/// Joins `(SELECT *, TRUE AS "_jammi_source" FROM source) AS name` to the query.
fn join(
    query: &mut ast::Query,
    template: &str,
    source: TableFactor,
    name: &ast::Ident,
    on: Expr,
) -> Result<()> {
    let mut marked = parsed_query(&format!("SELECT *, TRUE AS \"{SOURCE_COLUMN}\" FROM s"))?;
    let SetExpr::Select(inner) = marked.body.as_mut() else {
        return Err(not_a_select());
    };
    let Some(slot) = inner.from.first_mut() else {
        return Err(not_a_select());
    };
    slot.relation = source;
    let derived = parsed_query("SELECT 1 FROM (SELECT 1) AS a")?;
    let SetExpr::Select(derived) = *derived.body else {
        return Err(not_a_select());
    };
    let Some(mut relation) = derived.from.into_iter().next().map(|from| from.relation) else {
        return Err(not_a_select());
    };
    if let TableFactor::Derived {
        subquery, alias, ..
    } = &mut relation
    {
        **subquery = marked;
        if let Some(alias) = alias {
            alias.name = name.clone();
        }
    }
    let joined = parsed_query(template)?;
    let SetExpr::Select(joined) = *joined.body else {
        return Err(not_a_select());
    };
    let Some(mut join) = joined
        .from
        .into_iter()
        .next()
        .and_then(|from| from.joins.into_iter().next())
    else {
        return Err(not_a_select());
    };
    join.relation = relation;
    use ast::JoinOperator::*;
    match &mut join.join_operator {
        Inner(constraint)
        | Left(constraint)
        | LeftOuter(constraint)
        | Right(constraint)
        | RightOuter(constraint)
        | FullOuter(constraint) => *constraint = ast::JoinConstraint::On(on),
        _ => return Err(not_a_select()),
    }
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(not_a_select());
    };
    match select.from.first_mut() {
        Some(from) => from.joins.push(join),
        None => return Err(not_a_select()),
    }
    Ok(())
}
