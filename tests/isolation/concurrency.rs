//! Many tenants at a time over a few connections, in sessions that are rebound all
//! the while: every row says whose it is, and is checked against whom the session
//! was bound to.
//!
//! What each session does follows from the seed; how they interleave does not.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementQuery, CommandStatementUpdate};
use bytes::Bytes;
use futures::TryStreamExt;
use jammi_db::server::proto::catalog::RegisterSourceRequest;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ask::{begin, end, fetch};
use crate::client::{Client, prepared, statement};
use crate::dice::Dice;
use crate::files::{self, Row};
use crate::harness::TestServer;

use crate::runs::Budget;

const TENANTS: [&str; 6] = [
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a",
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b",
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c",
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9d",
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9e",
    "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9f",
];
const CONNECTIONS: usize = 3;
/// Sessions that one task speaks in, and knows the binding of.
const OWN_SESSIONS: usize = 18;
/// Sessions that two tasks speak in and rebind under each other's feet.
const CONTENDED_SESSIONS: usize = 6;
/// Rows of each tenant in the source: several batches of them all.
const SOURCE_ROWS: i64 = 3000;

/// What yields rows of a tenant, `tenant_id` being the first column.
const READS: [&str; 6] = [
    "SELECT tenant_id, title FROM tags.public.tags WHERE id % 50 = 0",
    "SELECT a.tenant_id, b.tenant_id FROM tags.public.tags a JOIN tags.public.tags b ON a.id = b.id WHERE a.id < 20",
    "SELECT tenant_id, count(*) FROM tags.public.tags GROUP BY tenant_id",
    "SELECT tenant_id, title FROM log",
    "SELECT tenant_id, title FROM own",
    "SELECT tenant_id, (SELECT max(title) FROM own) FROM log UNION ALL SELECT tenant_id, title FROM all_tags WHERE id < 5",
];
const STREAM: &str = "SELECT tenant_id, title, id FROM tags.public.tags ORDER BY id";

/// The tenants that rows name: in any column that holds a tenant, or a title, which
/// ends with it.
fn named(batches: &[RecordBatch]) -> Vec<&'static str> {
    let mut found = Vec::new();
    for batch in batches {
        for column in batch.columns() {
            let Ok(text) = cast(column, &DataType::Utf8) else {
                continue;
            };
            let text = text.as_string::<i32>();
            for value in text.iter().flatten() {
                let tenant = TENANTS.iter().find(|tenant| value.ends_with(**tenant));
                found.extend(tenant.filter(|tenant| !found.contains(*tenant)));
            }
        }
    }
    found
}

/// Rows of a session that is bound to `tenant` name nobody else.
fn check(batches: &[RecordBatch], tenant: &str, sql: &str) {
    let found = named(batches);
    assert!(
        found.iter().all(|found| *found == tenant),
        "{sql}: {found:?} in an answer to {tenant}"
    );
}

/// A session, and the tenant that its only task has bound it to.
struct Speaker {
    client: Client,
    dice: Dice,
    tenant: usize,
    requests: usize,
    /// Rows whose insertion was acknowledged, by tenant.
    written: [usize; TENANTS.len()],
    next: i64,
}

impl Speaker {
    fn tenant(&self) -> &'static str {
        TENANTS[self.tenant]
    }

    async fn rebind(&mut self) {
        self.tenant = self.dice.below(TENANTS.len());
        let tenant = self.tenant();
        self.client.bind(tenant).await;
    }

    async fn act(&mut self) {
        match self.dice.below(8) {
            0 => self.rebind().await,
            1 | 2 => self.read().await,
            3 => self.prepared().await,
            4 | 5 => self.transaction().await,
            6 => self.stream().await,
            _ => self.write().await,
        }
        self.requests += 1;
    }

    async fn read(&mut self) {
        let sql = self.dice.pick(&READS);
        let (_, batches) = fetch(&mut self.client, &statement(sql)).await.unwrap();
        check(&batches, self.tenant(), sql);
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert!(rows > 0, "{sql}: no row");
    }

    /// A handle is good until the session is bound to somebody else.
    async fn prepared(&mut self) {
        let sql = self.dice.pick(&READS);
        let made = self.client.prepare(sql).await.unwrap();
        let handle = prepared(&made.prepared_statement_handle);
        let (_, batches) = fetch(&mut self.client, &handle).await.unwrap();
        check(&batches, self.tenant(), sql);
        let before = self.tenant;
        self.rebind().await;
        match fetch(&mut self.client, &handle).await {
            Ok((_, batches)) => {
                assert_eq!(before, self.tenant, "{sql}: a handle outlived its binding");
                check(&batches, self.tenant(), sql);
            }
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
        }
    }

    fn insert(&mut self) -> String {
        self.next += 1;
        format!(
            "INSERT INTO log (id, title) VALUES ({}, 'written by {}')",
            self.next,
            self.tenant()
        )
    }

    async fn write(&mut self) {
        let sql = self.insert();
        if settled(update(&mut self.client, &sql, None).await) {
            self.written[self.tenant] += 1;
        }
    }

    /// Inserts in a transaction that ends in one of four ways.
    async fn transaction(&mut self) {
        let id = begin(&mut self.client).await.unwrap();
        let sql = self.insert();
        let written = settled(update(&mut self.client, &sql, Some(&id)).await);
        let read = "SELECT tenant_id, title FROM log";
        let command = CommandStatementQuery {
            transaction_id: Some(id.clone()),
            ..statement(read)
        };
        let (_, batches) = fetch(&mut self.client, &command).await.unwrap();
        check(&batches, self.tenant(), read);
        match self.dice.below(4) {
            0 => end(&mut self.client, &id, false).await.unwrap(),
            // Bound to somebody else, the session has the transaction no more.
            1 => {
                let before = self.tenant;
                self.rebind().await;
                if before != self.tenant {
                    let sql = self.insert();
                    update(&mut self.client, &sql, Some(&id)).await.unwrap_err();
                    end(&mut self.client, &id, true).await.unwrap_err();
                } else {
                    // It may have been rolled back by the binding.
                    let ended = end(&mut self.client, &id, false).await;
                    assert!(ended.is_ok() || ended.is_err_and(|s| s.code() != Code::Internal));
                }
            }
            _ => {
                let committed = settled(end(&mut self.client, &id, true).await);
                self.written[self.tenant] += usize::from(committed && written);
            }
        }
    }

    /// What is read goes on as it was admitted, while the session is bound to
    /// others.
    async fn stream(&mut self) {
        let info = self.client.info(&statement(STREAM)).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let request = self.client.request(ticket);
        let messages = self.client.flight.do_get(request).await.unwrap();
        let messages = messages.into_inner().map_err(FlightError::from);
        let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
        let before = self.tenant();
        let mut rows = 0;
        while let Some(batch) = stream.try_next().await.unwrap() {
            rows += batch.num_rows();
            check(&[batch], before, STREAM);
            self.rebind().await;
        }
        // The tenant's, and those of everybody.
        assert_eq!(rows, 2 * SOURCE_ROWS as usize);
    }
}

/// Whether a write was done. Another one may have come first.
fn settled<T>(answer: Result<T, Status>) -> bool {
    match answer {
        Ok(_) => true,
        Err(status) => {
            let code = status.code();
            assert!(
                matches!(code, Code::Aborted | Code::Unavailable),
                "{status:?}"
            );
            false
        }
    }
}

async fn update(client: &mut Client, sql: &str, transaction: Option<&Bytes>) -> Result<(), Status> {
    let command = CommandStatementUpdate {
        query: sql.into(),
        transaction_id: transaction.cloned(),
    };
    let nothing = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    client.put(&command, nothing).await.map(drop)
}

/// Speaks in a session that another task speaks in too: an answer is of one tenant,
/// whichever that is.
async fn contend(mut client: Client, mut dice: Dice, actions: usize) -> usize {
    for _ in 0..actions {
        let tenant = TENANTS[dice.below(TENANTS.len())];
        if dice.percent(50) {
            client.bind(tenant).await;
            continue;
        }
        let sql = dice.pick(&READS);
        match fetch(&mut client, &statement(sql)).await {
            Ok((_, batches)) => {
                let found = named(&batches);
                assert!(found.len() <= 1, "{sql}: {found:?} in one answer");
            }
            // The session was bound to somebody else between the two calls.
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
        }
    }
    actions
}

/// A source and tables in which every row says whose it is.
async fn world() -> (TestServer, tempfile::TempDir) {
    let server = TestServer::start().await;
    let files = tempfile::tempdir().unwrap();
    let owners = TENANTS.iter().copied().map(Some).chain([None]);
    let rows: Vec<Row> = owners
        .flat_map(|tenant| {
            let title = tenant.map_or("everybody's".to_owned(), |tenant| format!("of {tenant}"));
            (0..SOURCE_ROWS).map(move |id| Row {
                tenant,
                values: vec![json!(id), json!(1), json!(title), json!(0.5), json!(true)],
            })
        })
        .collect();
    let location = files::write(files.path(), "tags", "file", "text", &rows);
    let mut operator = Client::connect(&server, None).await;
    let request = RegisterSourceRequest {
        name: "tags".into(),
        location: location.to_str().unwrap().into(),
        ..RegisterSourceRequest::default()
    };
    let mut catalog = server.catalog().await;
    catalog.register_source(request).await.unwrap();
    for sql in [
        "CREATE TABLE log (id BIGINT PRIMARY KEY, title VARCHAR)",
        "INSERT INTO log VALUES (0, 'everybody''s')",
        "CREATE VIEW all_tags AS SELECT * FROM tags.public.tags",
    ] {
        update(&mut operator, sql, None).await.unwrap();
    }
    for tenant in TENANTS {
        let mut client = operator.with_session(tenant);
        client.bind(tenant).await;
        let insert = format!("INSERT INTO own VALUES (1, 'own of {tenant}')");
        for sql in ["CREATE TABLE own (id BIGINT, title VARCHAR)", &insert] {
            update(&mut client, sql, None).await.unwrap();
        }
    }
    (server, files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_many_tenants_over_shared_connections_never_mix() {
    let budget = Budget::of("concurrency", 700);
    let (server, _files) = world().await;
    let mut channels: Vec<Channel> = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(server.channel().await);
    }
    let tasks = OWN_SESSIONS + 2 * CONTENDED_SESSIONS;
    let actions = budget.statements.div_ceil(tasks);
    let start = Arc::new(Barrier::new(tasks));
    let mut speakers = JoinSet::new();
    let mut contenders = JoinSet::new();
    for task in 0..tasks {
        let own = task < OWN_SESSIONS;
        let session = match own {
            true => format!("own-{task}"),
            false => format!("contended-{}", (task - OWN_SESSIONS) / 2),
        };
        let channel = channels[task % CONNECTIONS].clone();
        let client = Client::over(channel, Some(session.leak()));
        let dice = Dice::new(
            "concurrency",
            budget
                .first_seed
                .wrapping_mul(1000)
                .wrapping_add(task as u64),
        );
        let start = Arc::clone(&start);
        if own {
            speakers.spawn(async move {
                let mut speaker = Speaker {
                    client,
                    dice,
                    tenant: 0,
                    requests: 0,
                    written: [0; TENANTS.len()],
                    next: 1_000_000 * (task as i64 + 1),
                };
                speaker.rebind().await;
                start.wait().await;
                for _ in 0..actions {
                    speaker.act().await;
                }
                (speaker.requests, speaker.written)
            });
        } else {
            contenders.spawn(async move {
                let mut client = client;
                client.bind(TENANTS[0]).await;
                start.wait().await;
                contend(client, dice, actions).await
            });
        }
    }
    let mut requests: usize = contenders.join_all().await.into_iter().sum();
    let mut written = [0; TENANTS.len()];
    for (made, by_tenant) in speakers.join_all().await {
        requests += made;
        for (sum, count) in written.iter_mut().zip(by_tenant) {
            *sum += count;
        }
    }
    // What was acknowledged is there, the tenant's own, and nothing else is.
    for (tenant, written) in TENANTS.into_iter().zip(written) {
        let mut client = Client::over(channels[0].clone(), Some("last"));
        client.bind(tenant).await;
        let sql = "SELECT tenant_id, title FROM log WHERE id > 0";
        let (_, batches) = fetch(&mut client, &statement(sql)).await.unwrap();
        check(&batches, tenant, sql);
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, written, "rows of {tenant}");
    }
    println!(
        "concurrency: {requests} actions of {} tenants in {} sessions over {CONNECTIONS} connections, {} rows written",
        TENANTS.len(),
        OWN_SESSIONS + CONTENDED_SESSIONS,
        written.iter().sum::<usize>()
    );
    server.stop().await;
}
