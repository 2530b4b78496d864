//! What a tenant may see, change and learn.

use super::*;
use crate::backend::BackendError;

#[tokio::test]
async fn each_tenant_sees_its_own_and_the_shared() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    for (scope, name, location) in [
        (as_alice(), "inbox", "file:///alice"),
        (as_alice(), "zoo", "file:///alice/zoo"),
        (as_bob(), "inbox", "file:///bob"),
        (unbound(), "countries", "file:///shared/countries"),
        (unbound(), "zoo", "file:///shared/zoo"),
    ] {
        let source = catalog
            .register_source(&scope, new_source(name, location))
            .await
            .unwrap();
        assert_eq!(source.lane, scope.writable());
    }
    for (scope, expected) in [
        (
            as_alice(),
            pairs(&[
                ("countries", "file:///shared/countries"),
                ("inbox", "file:///alice"),
                ("zoo", "file:///alice/zoo"),
            ]),
        ),
        (
            as_bob(),
            pairs(&[
                ("countries", "file:///shared/countries"),
                ("inbox", "file:///bob"),
                ("zoo", "file:///shared/zoo"),
            ]),
        ),
        (
            unbound(),
            pairs(&[
                ("countries", "file:///shared/countries"),
                ("zoo", "file:///shared/zoo"),
            ]),
        ),
    ] {
        assert_eq!(listed(&catalog, &scope).await, expected);
        for (name, location) in expected {
            let source = catalog.source(&scope, &name).await.unwrap();
            assert_eq!(source.definition.location, location);
        }
    }
}

#[tokio::test]
async fn a_foreign_source_is_worded_as_a_missing_one() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    catalog
        .register_source(&as_bob(), new_source("secret", "file:///bob"))
        .await
        .unwrap();
    catalog
        .register_model(&as_bob(), new_model("secret", "1"))
        .await
        .unwrap();
    for scope in [as_alice(), unbound()] {
        let texts = async |name: &'static str| {
            let source = catalog.source(&scope, name).await.unwrap_err();
            let dropped = catalog.drop_source(&scope, name).await.unwrap_err();
            let refreshed = catalog
                .refresh_source(&scope, new_source(name, "x"))
                .await
                .unwrap_err();
            let model = catalog.model(&scope, name, None).await.unwrap_err();
            let version = catalog.model(&scope, name, Some("1")).await.unwrap_err();
            let dropped_model = catalog.drop_model(&scope, name, "1").await.unwrap_err();
            [source, dropped, refreshed, model, version, dropped_model].map(|error| {
                assert!(matches!(error, Error::NotFound(_)), "{error:?}");
                error.to_string().replace(name, "NAME")
            })
        };
        assert_eq!(texts("secret").await, texts("absent").await);
    }
    // Alice has nothing, and got no database by asking.
    assert_eq!(databases(&dir), 1);
    catalog.source(&as_bob(), "secret").await.unwrap();
}

#[tokio::test]
async fn a_name_is_taken_within_its_lane_alone() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    for scope in [as_alice(), as_bob(), unbound()] {
        let register = || catalog.register_source(&scope, new_source("inbox", "file:///x"));
        register().await.unwrap();
        let taken = register().await.unwrap_err();
        assert!(matches!(taken, Error::AlreadyExists(_)), "{taken:?}");
        assert!(
            taken
                .to_string()
                .starts_with("source `inbox` exists already: ")
        );

        let register = || catalog.register_model(&scope, new_model("bert", "1"));
        register().await.unwrap();
        let taken = register().await.unwrap_err();
        assert!(matches!(taken, Error::AlreadyExists(_)), "{taken:?}");
    }
}

#[tokio::test]
async fn what_is_shared_is_not_a_tenants_to_change() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    catalog
        .register_source(&unbound(), new_source("countries", "file:///shared"))
        .await
        .unwrap();
    catalog
        .register_model(&unbound(), new_model("bert", "1"))
        .await
        .unwrap();
    for refused in [
        catalog
            .drop_source(&as_alice(), "countries")
            .await
            .unwrap_err(),
        catalog
            .refresh_source(&as_alice(), new_source("countries", "file:///mine"))
            .await
            .unwrap_err(),
        catalog
            .drop_model(&as_alice(), "bert", "1")
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(refused, Error::PermissionDenied(_)), "{refused:?}");
    }
    assert_eq!(databases(&dir), 0);

    // A tenant's own of the same name goes, and the shared one is seen again.
    catalog
        .register_source(&as_alice(), new_source("countries", "file:///mine"))
        .await
        .unwrap();
    catalog.drop_source(&as_alice(), "countries").await.unwrap();
    let shared = pairs(&[("countries", "file:///shared")]);
    assert_eq!(listed(&catalog, &as_alice()).await, shared);
    catalog.drop_source(&unbound(), "countries").await.unwrap();
    assert_eq!(listed(&catalog, &as_alice()).await, pairs(&[]));
}

#[tokio::test]
async fn a_foreign_row_in_a_lanes_file_is_not_the_lanes() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    for scope in [as_alice(), unbound()] {
        catalog
            .register_source(&scope, new_source("own", "file:///own"))
            .await
            .unwrap();
        catalog
            .register_model(&scope, new_model("own", "1"))
            .await
            .unwrap();
    }
    for (file, tenants) in [
        (
            format!("tenants/{}.db", alice()),
            [Some(bob().to_string()), None],
        ),
        (
            "global.db".into(),
            [Some(bob().to_string()), Some(alice().to_string())],
        ),
    ] {
        let file = rusqlite::Connection::open(dir.path().join(file)).unwrap();
        for tenant in tenants {
            file.execute(
                "INSERT INTO sources SELECT NULL, ?1, 'planted', location, format, tenant_column,
                     tenant_encoding, schema_ipc, partition_columns, 0, 0
                 FROM sources WHERE name = 'own'",
                [&tenant],
            )
            .unwrap();
            file.execute(
                "INSERT INTO models VALUES (NULL, ?1, 'planted', '1', 'x', '{}', 0)",
                [&tenant],
            )
            .unwrap();
        }
    }
    for scope in [as_alice(), unbound()] {
        assert_eq!(
            listed(&catalog, &scope).await,
            pairs(&[("own", "file:///own")])
        );
        let models = catalog.models(&scope, None).await.unwrap();
        assert!(models.iter().all(|model| model.definition.name == "own"));
        assert!(catalog.source(&scope, "planted").await.is_err());
        assert!(catalog.model(&scope, "planted", None).await.is_err());
        assert!(catalog.drop_source(&scope, "planted").await.is_err());
        assert!(catalog.drop_model(&scope, "planted", "1").await.is_err());
        // Nor is it in the way.
        catalog
            .register_source(&scope, new_source("planted", "file:///mine"))
            .await
            .unwrap();
        catalog
            .register_model(&scope, new_model("planted", "1"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_damaged_row_is_an_error_of_its_lane_alone() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    for scope in [as_alice(), as_bob()] {
        catalog
            .register_source(&scope, new_source("inbox", "file:///x"))
            .await
            .unwrap();
    }
    rusqlite::Connection::open(dir.path().join(format!("tenants/{}.db", alice())))
        .unwrap()
        .execute("UPDATE sources SET schema_ipc = x'00112233'", [])
        .unwrap();
    let error = catalog.sources(&as_alice()).await.unwrap_err();
    assert!(
        matches!(error, Error::Backend(BackendError::Corrupt { .. })),
        "{error:?}"
    );
    catalog.source(&as_bob(), "inbox").await.unwrap();
}

#[tokio::test]
async fn a_caller_that_mixes_lanes_gets_tenant_mismatch() {
    let dir = TempDir::new().unwrap();
    let catalog = catalog(&dir).await;
    let row = |lane| Source {
        lane,
        definition: new_source("inbox", "file:///x"),
        registered_at_ms: 0,
        refreshed_at_ms: 0,
    };
    let (own, foreign) = (Lane::Tenant(alice()), row(Lane::Tenant(bob())));
    let other = foreign.clone();
    let inserted = catalog
        .backend
        .write(own, move |tx| sources::insert(tx, &foreign))
        .await;
    let updated = catalog
        .backend
        .write(own, move |tx| sources::update(tx, &other))
        .await;
    let global = row(Lane::Global);
    let shared = catalog
        .backend
        .write(own, move |tx| sources::insert(tx, &global))
        .await;
    let model = Model {
        lane: Lane::Tenant(bob()),
        definition: new_model("bert", "1"),
        registered_at_ms: 0,
    };
    let modelled = catalog
        .backend
        .write(own, move |tx| models::insert(tx, &model))
        .await;
    for error in [
        inserted.unwrap_err(),
        updated.unwrap_err(),
        shared.unwrap_err(),
        modelled.unwrap_err(),
    ] {
        assert!(
            matches!(error, BackendError::TenantMismatch { lane } if lane == own),
            "{error:?}"
        );
    }
    assert_eq!(listed(&catalog, &as_alice()).await, pairs(&[]));
}
