//! What has to hold of every installation.

use datafusion::common::utils::quote_identifier;

use super::conversation::{Answer, Answered, Asker, Conversation, Question};
use super::{Installation, Invariant};
use crate::engine::TableEntry;
use crate::tenant::{Lane, TenantId};

/// Tables of a lane's file that are its catalog.
const CATALOG: [&str; 3] = ["sources", "models", "relations"];

/// The tables of a lane's file whose rows are of no tenant: how it is kept, and no data.
const UNOWNED: &str = "'refinery_schema_history', 'table_chunks', 'catalog_stamp'";

/// What every installation has to keep:
///
/// - `no_cross_tenant_data`: every row in a lane's file carries the lane's tenant, and
///   every row that a tenant reads is its own or everybody's;
/// - `catalog_rows_are_their_lanes`: so does every record of a source, model, table or view;
/// - `every_table_can_be_read`: sources have their files and these their tenant column;
/// - `scans_are_guarded`: each plan reads through a guard for who asks;
/// - `lane_files_are_sound`: SQLite finds no damage.
pub fn standard() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(NoCrossTenantData),
        Box::new(CatalogRows),
        Box::new(Readable),
        Box::new(Guarded),
        Box::new(Sound),
    ]
}

struct NoCrossTenantData;

impl Invariant for NoCrossTenantData {
    fn name(&self) -> &str {
        "no_cross_tenant_data"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        each_lane(installation, |lane| {
            let is_rows = |name: &&String| !CATALOG.contains(&name.as_str());
            let stored = installation.stored(lane).iter().filter(is_rows);
            let stored = stored.map(|name| count_foreign(lane, name));
            let tables = installation.tables(lane).iter();
            let read = tables.filter_map(|table| {
                let column = quote_identifier(table.tenant_column.as_deref()?);
                let sql = format!("SELECT DISTINCT {column} FROM {}", sql_name(table));
                Some(Asker::Session(lane).asks(sql))
            });
            let unowned = format!(
                "SELECT name FROM sqlite_schema AS t WHERE type = 'table' AND name NOT LIKE \
                 'sqlite_%' AND name NOT IN ({UNOWNED}) AND NOT EXISTS (SELECT 1 FROM \
                 pragma_table_info(t.name) AS c WHERE c.name = 'tenant_id')"
            );
            let unowned = Asker::File(lane).asks(unowned);
            stored.chain([unowned]).chain(read).collect()
        })
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        answered.iter().find_map(|Answered { question, answer }| {
            let asker = question.asker;
            match (asker, answer) {
                (Asker::File(_), Ok(answer)) if answer.columns == ["name"] => {
                    let name = answer.values().next()?;
                    Some(format!(
                        "{asker} has table {name}, whose rows carry no tenant"
                    ))
                }
                (Asker::File(_), answer) => foreign_objection(asker, answer),
                (_, Ok(answer)) => {
                    let mut values = answer.values();
                    let foreign = values.find(|value| !is_of(asker.lane(), value))?;
                    Some(format!("{asker} reads rows of {foreign}"))
                }
                // Whoever reads nothing reads nothing of others.
                (_, Err(_)) => None,
            }
        })
    }
}

struct CatalogRows;

impl Invariant for CatalogRows {
    fn name(&self) -> &str {
        "catalog_rows_are_their_lanes"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        let with_file = |lane: &&Lane| !installation.stored(**lane).is_empty();
        let lanes = installation.lanes().iter().filter(with_file);
        let records = |lane: &Lane| {
            CATALOG
                .iter()
                .map(|name| count_foreign(*lane, name))
                .collect()
        };
        lanes.map(records).collect()
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        let mut answered = answered.iter();
        answered.find_map(|Answered { question, answer }| foreign_objection(question.asker, answer))
    }
}

struct Readable;

impl Invariant for Readable {
    fn name(&self) -> &str {
        "every_table_can_be_read"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        each_lane(installation, |lane| {
            let listed = Asker::Session(lane).asks("SHOW TABLES");
            let tables = installation.tables(lane).iter();
            let read = tables.map(|table| {
                let counted = table.tenant_column.as_deref().map(quote_identifier);
                let counted = counted.unwrap_or("*".into());
                let sql = format!("SELECT count({counted}) FROM {}", sql_name(table));
                Asker::Session(lane).asks(sql)
            });
            std::iter::once(listed).chain(read).collect()
        })
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        answered
            .iter()
            .find_map(|Answered { answer, .. }| answer.as_ref().err().cloned())
    }
}

struct Guarded;

impl Invariant for Guarded {
    fn name(&self) -> &str {
        "scans_are_guarded"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        each_lane(installation, |lane| {
            let tables = installation.tables(lane).iter();
            let explained = tables.map(|table| {
                Asker::Session(lane).asks(format!("EXPLAIN SELECT * FROM {}", sql_name(table)))
            });
            explained.collect()
        })
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        answered.iter().find_map(|Answered { question, answer }| {
            let answer = answer.as_ref().ok()?;
            let plans = answer.rows.iter().filter_map(|row| match row.as_slice() {
                [Some(kind), Some(plan)] if kind == "physical_plan" => Some(plan.as_str()),
                _ => None,
            });
            let plans: Vec<&str> = plans.collect();
            // What cannot be planned is not read.
            let is_error = |value: &str| value == "physical_plan_error";
            if plans.is_empty() && !answer.values().any(is_error) {
                return Some(format!("{} is shown no plan", question.asker));
            }
            let mut leaves = plans.into_iter().flat_map(leaves);
            let unguarded = leaves.find(|leaf| !is_guarded(question.asker, leaf));
            unguarded.map(|leaf| format!("{} reads without a guard: {leaf}", question.asker))
        })
    }
}

struct Sound;

impl Invariant for Sound {
    fn name(&self) -> &str {
        "lane_files_are_sound"
    }

    fn conversations(&self, installation: &Installation) -> Vec<Conversation> {
        each_lane(installation, |lane| {
            vec![Asker::File(lane).asks("PRAGMA integrity_check")]
        })
    }

    fn objection(&self, answered: &[Answered]) -> Option<String> {
        answered
            .iter()
            .find_map(|Answered { question, answer }| match answer {
                Ok(answer) => {
                    let found = answer.values().find(|value| *value != "ok")?;
                    Some(format!("{}: {found}", question.asker))
                }
                Err(error) => Some(error.clone()),
            })
    }
}

/// A conversation about each lane.
fn each_lane(
    installation: &Installation,
    questions: impl Fn(Lane) -> Vec<Question>,
) -> Vec<Conversation> {
    let lanes = installation.lanes().iter();
    lanes
        .map(|lane| questions(*lane).into_iter().collect())
        .collect()
}

/// How many rows of a table of the lane's file carry another tenant. Rows of tables hold
/// a tenant's bytes, and records of the catalog its text.
fn count_foreign(lane: Lane, table: &str) -> Question {
    let table = table.replace('"', "\"\"");
    let foreign = match lane.tenant() {
        None => "tenant_id IS NOT NULL".to_owned(),
        Some(tenant) => {
            let bytes: String = tenant
                .as_bytes()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!("tenant_id IS NOT '{tenant}' AND tenant_id IS NOT x'{bytes}'")
        }
    };
    Asker::File(lane).asks(format!("SELECT count(*) FROM \"{table}\" WHERE {foreign}"))
}

fn foreign_objection(asker: Asker, answer: &Result<Answer, String>) -> Option<String> {
    match answer {
        Ok(answer) => match answer.single() {
            Some("0") | None => None,
            Some("1") => Some(format!("{asker} holds a row that is not of its lane")),
            Some(count) => Some(format!(
                "{asker} holds {count} rows that are not of its lane"
            )),
        },
        Err(error) => Some(error.clone()),
    }
}

/// Whether a tenant column's value, which is not NULL, is of the lane's tenant.
fn is_of(lane: Lane, value: &str) -> bool {
    let own = |tenant: TenantId| {
        let text = tenant.to_string();
        value.eq_ignore_ascii_case(&text) || value.eq_ignore_ascii_case(&text.replace('-', ""))
    };
    lane.tenant().is_some_and(own)
}

fn sql_name(table: &TableEntry) -> String {
    let parts = [&table.catalog, &table.schema, &table.name];
    parts
        .map(|part| quote_identifier(part).into_owned())
        .join(".")
}

/// The lines of a plan below which there are no others.
fn leaves(plan: &str) -> impl Iterator<Item = &str> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = plan.lines().collect();
    (0..lines.len()).filter_map(move |at| {
        let has_children = lines
            .get(at + 1)
            .is_some_and(|next| depth(next) > depth(lines[at]));
        (!has_children).then(|| lines[at].trim_start())
    })
}

/// Whether a leaf lets no rows out but those of whoever asks, or reads no table.
fn is_guarded(asker: Asker, leaf: &str) -> bool {
    let own = match asker.lane() {
        Lane::Global => "global".to_owned(),
        Lane::Tenant(tenant) => format!("{tenant}, global"),
    };
    let reads_no_table = [
        "EmptyExec",
        "PlaceholderRowExec",
        "WorkTableExec",
        "LazyMemoryExec",
    ];
    if let Some(guard) = leaf.strip_prefix("GuardExec: ") {
        let lanes = guard
            .split_once("lanes=[")
            .and_then(|(_, rest)| rest.split_once(']'));
        return lanes.is_some_and(|(lanes, _)| lanes == own || lanes == "whole");
    }
    // VALUES of a view.
    leaf.starts_with("DataSourceExec: partitions=")
        || reads_no_table.iter().any(|name| leaf.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";

    fn explained(plan: &str) -> Answered {
        let alice = Lane::Tenant(ALICE.parse().unwrap());
        Answered {
            question: Asker::Session(alice).asks("EXPLAIN SELECT * FROM t"),
            answer: Ok(Answer {
                columns: vec!["plan_type".into(), "plan".into()],
                rows: vec![vec![Some("physical_plan".into()), Some(plan.into())]],
            }),
        }
    }

    #[test]
    fn a_plan_with_a_leaf_of_others_is_objected_to() {
        let own = format!("GuardExec: table=t, columns=[a], lanes=[{ALICE}, global]");
        for (plan, says) in [
            (own.clone(), None),
            (format!("FilterExec: a@0 > 1\n  {own}\n"), None),
            (format!("UnionExec\n  {own}\n  EmptyExec\n"), None),
            (own.replace(&format!("{ALICE}, global"), "whole"), None),
            (
                format!("UnionExec\n  {own}\n  DataSourceExec: file_groups={{1 group}}\n"),
                Some("file_groups"),
            ),
            (
                own.replace(ALICE, &ALICE.replace("9a", "9b")),
                Some("9b, global"),
            ),
            (
                own.replace(&format!("{ALICE}, "), ""),
                Some("lanes=[global]"),
            ),
        ] {
            let objection = Guarded.objection(&[explained(&plan)]);
            match says {
                None => assert_eq!(objection, None, "{plan}"),
                Some(says) => assert!(objection.unwrap().contains(says), "{plan}"),
            }
        }
    }

    #[test]
    fn a_value_is_of_a_lane_in_each_spelling() {
        let alice = Lane::Tenant(ALICE.parse().unwrap());
        for (value, own) in [
            (ALICE.to_owned(), true),
            (ALICE.to_ascii_uppercase(), true),
            (ALICE.replace('-', ""), true),
            (ALICE.replace("9a", "9b"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_of(alice, &value), own, "{value}");
            assert!(!is_of(Lane::Global, &value));
        }
    }
}
