//! The worst that one tenant can do, as far as it is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jammi_db::TenantId;
use tokio::task::JoinHandle;

use crate::client;
use crate::shared::Outcome;
use crate::shared::wire::{Client, Server};

/// Connections that each run a statement again and again.
const CONNECTIONS: usize = 16;

/// What Alice runs, by what is bad about it. Of several statements each connection
/// has one.
pub const WORST: [(&str, &[&str]); 9] = [
    ("cross joins", &[CROSS_JOIN]),
    ("endless recursion", &[RECURSION]),
    ("sorts of all memory", &[SORT]),
    ("groups of all memory", &[GROUPS]),
    ("windows", &[WINDOW]),
    ("plans that take long", &[PLAN]),
    ("writes of many rows", &[WRITE]),
    ("a flood of small statements", &[SMALL]),
    (
        "all of these",
        &[
            CROSS_JOIN, RECURSION, SORT, GROUPS, WINDOW, PLAN, WRITE, SMALL,
        ],
    ),
];

const CROSS_JOIN: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, \
                          generate_series(1, 1000000) b WHERE a.value + b.value = -1";
const RECURSION: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) \
                         SELECT count(*) FROM t";
const SORT: &str = "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY t DESC) AS n FROM \
                    (SELECT repeat(CAST(value AS VARCHAR), 20) AS t FROM generate_series(1, 5000000)))";
const GROUPS: &str = "SELECT count(*) FROM (SELECT md5(CAST(value AS VARCHAR)) AS t, count(*) \
                      FROM generate_series(1, 20000000) GROUP BY 1)";
const WINDOW: &str = "SELECT sum(x) FROM (SELECT median(value) OVER (ORDER BY value ROWS BETWEEN \
                      100000 PRECEDING AND CURRENT ROW) AS x FROM generate_series(1, 1000000))";
/// A plan that a short text asks for, of many joins.
const PLAN: &str = "SELECT count(*) FROM own a JOIN own b USING (id) JOIN own c USING (id) JOIN \
                    own d USING (id) JOIN own e USING (id) JOIN own f USING (id) JOIN own g \
                    USING (id) JOIN own h USING (id) WHERE a.id + b.id + c.id + d.id < 0";
const WRITE: &str = "UPDATE own SET n = n + 1";
const SMALL: &str = "SELECT n FROM own WHERE id = 7";

/// Makes what the statements read.
pub async fn prepare(alice: &mut Client) -> Outcome {
    alice
        .update("CREATE TABLE own (id BIGINT PRIMARY KEY, n BIGINT)")
        .await?;
    alice
        .update("INSERT INTO own SELECT value, 0 FROM generate_series(1, 100000)")
        .await?;
    Ok(())
}

/// Statements that are run until they are stopped.
pub struct Load {
    connections: Vec<JoinHandle<()>>,
    ended: Arc<AtomicU64>,
}

impl Load {
    /// Connects, and begins to run `statements`.
    pub async fn begin(
        server: &Server,
        statements: &'static [&'static str],
        tenant: TenantId,
    ) -> Outcome<Load> {
        let ended = Arc::new(AtomicU64::new(0));
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for (number, sql) in statements.iter().cycle().take(CONNECTIONS).enumerate() {
            let mut alice = client(server, &format!("alice-{number}"), tenant).await?;
            let ended = Arc::clone(&ended);
            connections.push(tokio::spawn(async move {
                loop {
                    // A refusal is an answer too.
                    let _ = alice.number(sql).await;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Ok(Load { connections, ended })
    }

    /// Stops, and says how many statements ended.
    pub async fn end(self) -> u64 {
        for connection in &self.connections {
            connection.abort();
        }
        for connection in self.connections {
            // It was cancelled.
            let _ = connection.await;
        }
        self.ended.load(Ordering::Relaxed)
    }
}
