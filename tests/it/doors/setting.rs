//! The setting in expressions, views and defaults.

use jammi_db::engine::TENANT_SETTING;
use tonic::Code;

use super::*;
use crate::client::prepared;
use crate::writes::{refused, shown};

#[tokio::test]
async fn the_setting_is_each_caller_s_own_in_views_defaults_and_expressions() {
    let (server, mut alice, mut bob) = world().await;
    let mut operator = Client::connect(&server, None).await;
    for sql in [
        "CREATE VIEW who AS SELECT current_setting('app.current_tenant_id', true) AS tenant",
        "CREATE VIEW only AS SELECT current_setting('app.current_tenant_id') AS tenant",
        "CREATE TABLE made (id INT, maker TEXT DEFAULT current_setting('app.current_tenant_id', true))",
    ] {
        operator.update(sql).await.unwrap();
    }
    assert_eq!(operator.shows("SELECT * FROM who").await, "");
    refused(
        operator.query("SELECT * FROM only").await,
        Code::FailedPrecondition,
        "no tenant is bound",
    );
    for _ in 0..2 {
        for (client, own, other) in [(&mut alice, ALICE, BOB), (&mut bob, BOB, ALICE)] {
            for sql in [
                "SELECT tenant FROM who",
                "SELECT tenant FROM only",
                "SELECT current_setting('app.current_tenant_id')",
                "SELECT CURRENT_SETTING('APP.CURRENT_TENANT_ID', false)",
                "SELECT lower(current_setting(name)) FROM (VALUES ('app.current_tenant_id')) AS t (name)",
                "SELECT current_setting('app.current_tenant_id') WHERE current_setting('app.current_tenant_id') IS NOT NULL",
            ] {
                let told = client.shows(sql).await;
                assert_eq!(told, own, "{sql}");
                assert_ne!(told, other);
            }
            let told = client.shows("SELECT current_setting('no.such', true) IS NULL, current_setting(NULL) IS NULL").await;
            assert_eq!(told, "true|true");
            client
                .update("INSERT INTO made (id) VALUES (1)")
                .await
                .unwrap();
            let told = client.shows("SELECT DISTINCT maker, tenant_id = current_setting('app.current_tenant_id') FROM made").await;
            assert_eq!(told, format!("{own}|true"));
        }
    }
    // As row security is written elsewhere.
    let sql =
        "SELECT count(*) FROM made WHERE tenant_id = current_setting('app.current_tenant_id')";
    assert_eq!(alice.shows(sql).await, "2");
    let told = alice
        .prepare("SELECT current_setting(?, true)")
        .await
        .unwrap();
    let handle = told.prepared_statement_handle;
    let handle = alice
        .bind_row(&handle, text(Some(TENANT_SETTING)))
        .await
        .unwrap();
    assert_eq!(shown(&alice.rows(&prepared(&handle)).await.unwrap()), ALICE);
    for (sql, says) in [
        (
            "SELECT current_setting('secret')",
            "unrecognized configuration parameter",
        ),
        ("SELECT current_setting()", ""),
        ("SELECT current_setting(1, 2, 3)", ""),
    ] {
        refused(alice.query(sql).await, Code::InvalidArgument, says);
    }
}
