//! Questions about what there is, each as Alice.

use super::Generator;
use super::define::NAMES;
use crate::conversation::{Line, Route};

const LISTINGS: [&str; 12] = [
    "SHOW TABLES",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM information_schema.views",
    "SELECT name, tenant_id, location, tenant_column FROM jammi.catalog.sources",
    "SELECT name, tenant_id, kind, definition FROM jammi.catalog.tables",
    "SELECT name, version, tenant_id, uri FROM models",
    "SELECT DISTINCT tenant, principal FROM jammi.server.queries",
    "SELECT DISTINCT tenant, principal FROM jammi.server.sessions",
    "SELECT count(*), max(name) FROM jammi.catalog.tables",
    "SELECT table_name, count(*) FROM information_schema.columns GROUP BY 1",
];

const CALLS: [&str; 9] = [
    "catalogs",
    "schemas",
    "types",
    "tables",
    "tables % with",
    "tables %e% with",
    "list_sources",
    "list_tables",
    "list_models",
];

impl Generator {
    pub fn ask(&mut self) -> Line {
        let listing = |sql: &str| Line::new("alice", Route::Query, sql);
        let call = |text: String| Line::new("alice", Route::Call, text);
        // A name that is hers, everybody's, Bob's, or nobody's.
        let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        names.push("bobs".to_owned());
        names.extend(self.tables.iter().map(|table| table.name.clone()));
        let name = names[self.dice.below(names.len())].clone();
        let known = self.tables[self.dice.below(self.tables.len())].clone();
        match self.dice.below(16) {
            0..=4 => listing(self.dice.pick(&LISTINGS)),
            5..=7 => call(self.dice.pick(&CALLS).to_string()),
            8 => call(format!("keys {}", known.name)),
            9 => match known.sql.contains('.') {
                true => call(format!("describe_source {}", known.name)),
                false => call(format!("describe_table {}", known.name)),
            },
            10 => call(format!("describe_table {name}")),
            11 => listing(&format!("DESCRIBE {}", known.sql)),
            12 => listing(&format!("SHOW COLUMNS FROM {}", known.sql)),
            13 => listing(&format!("SELECT count(*) FROM {name}.public.{name}")),
            14 => call(format!("schema SELECT * FROM {}", known.sql)),
            _ => listing(&format!(
                "EXPLAIN VERBOSE SELECT * FROM {} WHERE id > 2",
                known.sql
            )),
        }
    }
}
