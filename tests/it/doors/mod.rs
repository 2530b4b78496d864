//! The doors to a session's binding, besides SetTenant: SQL, session options, and
//! the cookie that names a session. Each leads to the same binding, and none
//! shows one tenant anything of another.

mod cookie;
pub mod options;
mod refused;
mod setting;
mod sql;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use crate::client::{ALICE, BOB, Client};
use crate::harness::{TestServer, bound};
use crate::writes::world;

const SHOW: &str = "SHOW app.current_tenant_id";
const RESET: &str = "RESET app.current_tenant_id";
const CURRENT: &str = "SELECT current_setting('app.current_tenant_id', true) AS tenant";

fn set(tenant: &str) -> String {
    format!("SET app.current_tenant_id = '{tenant}'")
}

fn text(value: Option<&str>) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(vec![value]));
    RecordBatch::try_from_iter([("0", column)]).unwrap()
}

async fn bound_of(server: &TestServer, session: &str) -> Option<String> {
    bound(&mut server.sessions().await, session).await
}

/// A server where each tenant has a row in a table `notes` of its own, and a client
/// of a session that nobody has bound.
async fn notes() -> (TestServer, Client) {
    let (server, mut alice, mut bob) = world().await;
    for (client, word) in [(&mut alice, "of-alice"), (&mut bob, "of-bob")] {
        client
            .update("CREATE TABLE notes (word TEXT)")
            .await
            .unwrap();
        let insert = format!("INSERT INTO notes VALUES ('{word}')");
        client.update(&insert).await.unwrap();
    }
    let client = Client::connect(&server, Some("by-sql")).await;
    (server, client)
}

const NOTES: &str = "SELECT word FROM notes";
