//! What comes back of what was recorded.

use super::*;

#[tokio::test]
async fn a_definition_comes_back_as_it_was() {
    let dir = TempDir::new().unwrap();
    let mut given = new_source("inbox", "file:///alice");
    let registered = catalog(&dir)
        .await
        .register_source(&as_alice(), given.clone())
        .await
        .unwrap();
    assert_eq!(registered.definition, given);
    assert_eq!(registered.registered_at_ms, 1_700_000_000_000);
    // As another process reads it.
    let read = catalog(&dir)
        .await
        .source(&as_alice(), "inbox")
        .await
        .unwrap();
    assert_eq!(read, registered);

    given.name = "plain".into();
    given.tenant_column = TenantColumn::Absent;
    given.partition_columns.clear();
    given.format = SourceFormat::Ndjson;
    let registered = catalog(&dir)
        .await
        .register_source(&as_alice(), given)
        .await
        .unwrap();
    let read = catalog(&dir)
        .await
        .source(&as_alice(), "plain")
        .await
        .unwrap();
    assert_eq!(read, registered);
}

#[tokio::test]
async fn a_refresh_replaces_the_definition_alone() {
    let dir = TempDir::new().unwrap();
    let backend = catalog(&dir).await.backend;
    let early = Catalog::with_clock(backend.clone(), || 1_000);
    let late = Catalog::with_clock(backend, || 2_000);
    for scope in [as_alice(), as_bob()] {
        early
            .register_source(&scope, new_source("inbox", "file:///x"))
            .await
            .unwrap();
    }
    let mut wider = new_source("inbox", "file:///y");
    wider.schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
    wider.tenant_column = TenantColumn::Absent;
    let refreshed = late
        .refresh_source(&as_alice(), wider.clone())
        .await
        .unwrap();
    assert_eq!(refreshed.definition, wider);
    assert_eq!(
        (refreshed.registered_at_ms, refreshed.refreshed_at_ms),
        (1_000, 2_000)
    );
    assert_eq!(early.source(&as_alice(), "inbox").await.unwrap(), refreshed);
    let bobs = early.source(&as_bob(), "inbox").await.unwrap();
    assert_eq!(bobs.definition, new_source("inbox", "file:///x"));
}

#[tokio::test]
async fn bad_names_are_refused_before_anything_is_made() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    let refused = catalog
        .register_source(&as_alice(), new_source("Inbox", "file:///x"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    let refused = catalog
        .register_source(&as_alice(), new_source("inbox", ""))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    let refused = catalog
        .register_model(&as_alice(), new_model("bert\n", "1"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)), "{refused:?}");
    assert_eq!(databases(&dir), 0);
}

#[tokio::test]
async fn models_are_versions_of_a_name() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    for (scope, name, version) in [
        (unbound(), "bert", "1"),
        (unbound(), "bert", "9"),
        (as_alice(), "bert", "2"),
        (as_alice(), "bert", "10"),
        (as_alice(), "ada", "1"),
        (as_bob(), "gpt", "1"),
    ] {
        let given = new_model(name, version);
        let model = catalog.register_model(&scope, given.clone()).await.unwrap();
        assert_eq!(model.definition, given);
    }
    let names = async |scope: &Scope, name| {
        let models = catalog.models(scope, name).await.unwrap();
        models
            .into_iter()
            .map(|model| format!("{} {}", model.definition.name, model.definition.version))
            .collect::<Vec<_>>()
    };
    let all = ["ada 1", "bert 2", "bert 10", "bert 1", "bert 9"];
    assert_eq!(names(&as_alice(), None).await, all);
    assert_eq!(names(&as_alice(), Some("bert")).await, all[1..]);
    assert_eq!(names(&as_bob(), None).await, ["gpt 1", "bert 1", "bert 9"]);
    assert_eq!(names(&unbound(), None).await, ["bert 1", "bert 9"]);
    assert_eq!(names(&unbound(), Some("gpt")).await, [""; 0]);

    for (scope, version, found) in [
        (as_alice(), None, "10"),
        (as_alice(), Some("2"), "2"),
        (as_alice(), Some("1"), "1"),
        (as_bob(), None, "9"),
    ] {
        let model = catalog.model(&scope, "bert", version).await.unwrap();
        assert_eq!(model.definition, new_model("bert", found));
    }
    catalog.drop_model(&as_alice(), "bert", "10").await.unwrap();
    let model = catalog.model(&as_alice(), "bert", None).await.unwrap();
    assert_eq!(model.definition.version, "2");
    let gone = catalog
        .drop_model(&as_alice(), "bert", "10")
        .await
        .unwrap_err();
    assert_eq!(
        gone.to_string(),
        "model `bert` in version `10` does not exist: list the models with `jammi models list`"
    );
}
