//! Plays a conversation on one server, and says what everybody was answered.

use std::collections::BTreeMap;

use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes,
    CommandGetTables,
};
use jammi_db::server::proto::catalog::catalog_service_client::CatalogServiceClient;
use jammi_db::server::proto::catalog::{
    DescribeModelRequest, DescribeSourceRequest, DescribeTableRequest, DropSourceRequest,
    ListModelsRequest, ListSourcesRequest, ListTablesRequest, RefreshSourceRequest,
    RegisterModelRequest, RegisterSourceRequest, SourceFormat,
};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::ask::{compared, fetch, ingest, metadata, query, run_prepared, same, update};
use crate::client::{ALICE, BOB, Client, statement};
use crate::conversation::{Conversation, Line, Route, Settings};
use crate::files::{self, Row};
use crate::generate::TABLE_COLUMNS;
use crate::harness::TestServer;
use crate::observed::{Observed, texts};

pub const CAROL: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c";

/// Everybody who may speak: their sessions, and the tenants that they are bound
/// to. The operator is bound to none.
const ACTORS: [(&str, Option<&str>); 5] = [
    ("alice", Some(ALICE)),
    ("alice2", Some(ALICE)),
    ("bob", Some(BOB)),
    ("carol", Some(CAROL)),
    ("operator", None),
];

pub fn tenant_of(who: &str) -> Option<&'static str> {
    let found = ACTORS.iter().find(|(name, _)| *name == who);
    found.unwrap_or_else(|| panic!("nobody is called {who}")).1
}

pub struct Player {
    /// Which of the two servers it is.
    world: usize,
    settings: Settings,
    server: TestServer,
    files: TempDir,
    catalog: CatalogServiceClient<Channel>,
    clients: BTreeMap<&'static str, Client>,
    rows: BTreeMap<String, Vec<Row>>,
}

/// What is answered to every line of `conversation` that server `world` hears.
pub async fn play(conversation: &Conversation, world: usize) -> Vec<Option<Observed>> {
    let mut player = Player::new(conversation, world).await;
    let mut seen = Vec::with_capacity(conversation.lines.len());
    for line in &conversation.lines {
        let heard = line.world.is_none_or(|only| only == world);
        seen.push(match heard {
            true => player.hear(line).await,
            false => None,
        });
    }
    let Player {
        server,
        clients,
        catalog,
        ..
    } = player;
    // No connection is left to be waited for.
    drop((clients, catalog));
    server.stop().await;
    seen
}

impl Player {
    async fn new(conversation: &Conversation, world: usize) -> Self {
        let settings = conversation.settings();
        let server = TestServer::start_with(|config| {
            config.engine.target_partitions = Some(settings.partitions);
            config.console.enabled = false;
        })
        .await;
        let mut clients = BTreeMap::new();
        for (session, tenant) in ACTORS {
            let mut client = Client::connect(&server, Some(session)).await;
            if let Some(tenant) = tenant {
                client.bind(tenant).await;
            }
            clients.insert(session, client);
        }
        Player {
            world,
            settings,
            catalog: server.catalog().await,
            files: tempfile::tempdir().unwrap(),
            server,
            clients,
            rows: BTreeMap::new(),
        }
    }

    fn client(&mut self, who: &str) -> &mut Client {
        let client = self.clients.get_mut(who);
        client.unwrap_or_else(|| panic!("nobody is called {who}"))
    }

    async fn hear(&mut self, line: &Line) -> Option<Observed> {
        let (who, text) = (line.who.as_str(), line.text.as_str());
        let answer = match line.route {
            Route::Setting => return None,
            Route::Row => {
                self.keep_rows(who, text);
                return None;
            }
            Route::Source => self.register(who, text).await,
            Route::Query => query(self.client(who), text).await,
            Route::Update => update(self.client(who), text).await,
            Route::Prepared => run_prepared(self.client(who), text).await,
            Route::Ingest => ingest(self.client(who), text).await,
            Route::Call => self.call(who, text).await,
            Route::Same => same(self.client(who), text).await,
            Route::Lanes => self.lanes(text).await,
        };
        let seen = answer.unwrap_or_else(|status| Observed::refused(&status));
        // The inputs of a union are read at a time, as partitions are.
        let settings = self.settings;
        let races = settings.partitions > 1 || text.contains("UNION");
        let seen = match settings.batches && !races {
            true => seen,
            false => seen.in_one_batch(),
        };
        let (server, files) = (self.server.dir(), self.files.path());
        let seen = seen.masked(files.to_str().unwrap(), "FILES");
        Some(seen.masked(server.to_str().unwrap(), "SERVER"))
    }

    fn keep_rows(&mut self, who: &str, text: &str) {
        let (source, rest) = text.split_once(' ').unwrap();
        let (count, values) = match rest.strip_prefix('x') {
            None => (1, rest),
            Some(many) => {
                let (count, values) = many.split_once(' ').unwrap();
                (count.parse().unwrap(), values)
            }
        };
        let values: Vec<Value> = serde_json::from_str(values).unwrap();
        let rows = self.rows.entry(source.to_owned()).or_default();
        rows.extend((0..count).map(|at| {
            let mut values = values.clone();
            values[0] = values[0].as_i64().map(|id| id + at).into();
            let tenant = tenant_of(who);
            Row { tenant, values }
        }));
    }

    async fn register(&mut self, who: &str, text: &str) -> Result<Observed, Status> {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        let (name, layout, encoding) = (word(), word(), word());
        let rows = self.rows.get(name).cloned().unwrap_or_default();
        if !self.settings.dedicated {
            return self
                .register_files(who, (name, layout, encoding), &rows)
                .await;
        }
        let plain = format!("waived_{encoding}");
        if self.world == 1 {
            let seen = rows
                .into_iter()
                .filter(|row| row.tenant.is_none_or(|t| t == ALICE));
            let seen: Vec<Row> = seen.collect();
            if layout != "stored" {
                return self
                    .register_files(who, (name, "file", &plain), &seen)
                    .await;
            }
            let file = format!("{name}_rows");
            self.register_files(who, (&file, "file", &plain), &seen)
                .await?;
            let view = format!("CREATE VIEW {name} AS SELECT * FROM {file}.public.{file}");
            return update(self.client(who), &view).await;
        }
        let all = format!("{name}_all");
        self.register_files("operator", (&all, "file", &plain), &rows)
            .await?;
        if layout != "stored" {
            return self
                .register_files(who, (name, layout, encoding), &rows)
                .await;
        }
        let create = format!("CREATE TABLE {name} ({TABLE_COLUMNS})");
        let made = update(self.client(who), &create).await?;
        for (owner, tenant) in ACTORS.into_iter().filter(|(name, _)| *name != "alice2") {
            let own = rows.iter().filter(|row| row.tenant == tenant);
            let own: Vec<String> = own
                .map(|row| {
                    let values: Vec<String> = row.values.iter().map(Value::to_string).collect();
                    format!("({})", values.join(", ").replace('"', "'"))
                })
                .collect();
            if own.is_empty() {
                continue;
            }
            let insert = format!(
                "INSERT INTO {name} (id, n, title, score, ok) VALUES {}",
                own.join(", ")
            );
            update(self.client(owner), &insert).await?;
        }
        Ok(made)
    }

    async fn register_files(
        &mut self,
        who: &str,
        (name, layout, encoding): (&str, &str, &str),
        rows: &[Row],
    ) -> Result<Observed, Status> {
        // What a bound session registers is its own, beside others' of the name.
        let dir = self.files.path().join(who);
        let location = files::write(&dir, name, layout, encoding, rows);
        let request = RegisterSourceRequest {
            name: name.into(),
            location: location.to_str().unwrap().into(),
            format: SourceFormat::Unspecified.into(),
            tenant_column: encoding.starts_with("waived_").then(String::new),
        };
        let request = self.client(who).request(request);
        let answer = self.catalog.register_source(request).await?;
        Ok(shown(answer))
    }

    /// What each lane yields together is what all rows do.
    async fn lanes(&mut self, text: &str) -> Result<Observed, Status> {
        let (each, all) = text.split_once(" == ").unwrap();
        let mut found = Vec::new();
        for who in ["alice", "bob", "carol"] {
            found.extend(texts(&fetch(self.client(who), &statement(each)).await?.1));
        }
        // The shared rows came three times.
        let shared = texts(&fetch(self.client("operator"), &statement(each)).await?.1);
        let mut expected = texts(&fetch(self.client("operator"), &statement(all)).await?.1);
        expected.extend(shared.iter().cloned());
        expected.extend(shared);
        Ok(compared(found, expected))
    }

    async fn call(&mut self, who: &str, text: &str) -> Result<Observed, Status> {
        let mut words = text.split(' ').map(str::to_owned);
        let mut word = || words.next();
        let client = self.client(who).clone();
        let command = &mut client.clone();
        let catalog = &mut self.catalog;
        let name = word().unwrap();
        match name.as_str() {
            "catalogs" => metadata(command, &CommandGetCatalogs {}).await,
            "types" => metadata(command, &CommandGetTableTypes {}).await,
            "schemas" => {
                let asked = CommandGetDbSchemas {
                    catalog: word(),
                    db_schema_filter_pattern: word(),
                };
                metadata(command, &asked).await
            }
            "tables" => {
                let asked = CommandGetTables {
                    table_name_filter_pattern: word(),
                    include_schema: word().is_some(),
                    ..CommandGetTables::default()
                };
                metadata(command, &asked).await
            }
            "keys" => {
                let asked = CommandGetPrimaryKeys {
                    table: word().unwrap(),
                    ..CommandGetPrimaryKeys::default()
                };
                metadata(command, &asked).await
            }
            "schema" => {
                let sql = text.split_once(' ').unwrap().1;
                let schema = command.schema(&statement(sql)).await?;
                Ok(Observed::rows(sql, &schema, &[]))
            }
            "bind" => {
                let tenant = word().unwrap();
                command.bind(tenant_of(&tenant).unwrap()).await;
                Ok(Observed::Text("bound".into()))
            }
            "list_sources" => {
                let request = client.request(ListSourcesRequest {});
                catalog.list_sources(request).await.map(shown)
            }
            "list_tables" => {
                let request = client.request(ListTablesRequest::default());
                catalog.list_tables(request).await.map(shown)
            }
            "list_models" => {
                let request = client.request(ListModelsRequest::default());
                catalog.list_models(request).await.map(shown)
            }
            "describe_source" => {
                let name = word().unwrap();
                let request = client.request(DescribeSourceRequest { name });
                catalog.describe_source(request).await.map(shown)
            }
            "refresh_source" => {
                let name = word().unwrap();
                let request = client.request(RefreshSourceRequest { name });
                catalog.refresh_source(request).await.map(shown)
            }
            "drop_source" => {
                let name = word().unwrap();
                let request = client.request(DropSourceRequest { name });
                catalog.drop_source(request).await.map(shown)
            }
            "describe_table" => {
                let name = word().unwrap();
                let request = client.request(DescribeTableRequest { name });
                catalog.describe_table(request).await.map(shown)
            }
            "describe_model" => {
                let request = client.request(DescribeModelRequest {
                    name: word().unwrap(),
                    version: String::new(),
                });
                catalog.describe_model(request).await.map(shown)
            }
            "register_model" => {
                let request = client.request(RegisterModelRequest {
                    name: word().unwrap(),
                    version: word().unwrap(),
                    uri: "s3://models/1".into(),
                    metadata: String::new(),
                });
                catalog.register_model(request).await.map(shown)
            }
            other => panic!("no call: {other}"),
        }
    }
}

/// A message of the catalog without its instants, which differ by themselves.
fn shown<T: std::fmt::Debug>(answer: Response<T>) -> Observed {
    let text = format!("{:?}", answer.into_inner());
    let mut parts = text.split("_at_ms: ");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked += "_at_ms: _";
        masked += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    Observed::Text(masked)
}
