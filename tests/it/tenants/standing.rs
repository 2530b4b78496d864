//! Who may be used: every door is closed to a tenant that is suspended, from the next
//! request on and whichever process has said so, and to nobody else.

use futures::stream;
use jammi_db::error::Error;
use jammi_db::server::proto::catalog::ListSourcesRequest;
use jammi_db::server::proto::tenants::tenant_service_client::TenantServiceClient;
use jammi_db::server::proto::tenants::{
    CreateTenantRequest, DescribeTenantRequest, EraseTenantRequest, ExportTenantRequest,
    GetUsageRequest, ImportTenantRequest, ListTenantsRequest, ResumeTenantRequest,
    SuspendTenantRequest, TenantState, UpdateTenantRequest,
};
use jammi_db::session::JammiSession;
use jammi_db::tenant::{Lane, OPERATOR};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status};

use super::{
    ALICE, BOB, BOTH, Client, HERS, HIS, TestServer, in_session, listed, resume, suspend, world,
};
use crate::authentication::Guarded;
use crate::client::{prepared, statement};
use crate::harness::bind;
use crate::writes::refused;

const SUSPENDED: &str = "the tenant is suspended: ask the operator of the server";

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_refused_by_every_door_and_keeps_what_it_has() {
    let (server, mut alice, mut bob) = world().await;
    let mut office = server.office().await;
    let handle = alice.prepare("SELECT note FROM notes").await.unwrap();
    let handle = handle.prepared_statement_handle;
    let info = alice
        .info(&statement("SELECT note FROM notes"))
        .await
        .unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    alice.query("BEGIN").await.unwrap();
    alice
        .query("INSERT INTO notes VALUES (2, 'not committed')")
        .await
        .unwrap();

    suspend(&mut office, ALICE).await;

    let denied = Code::PermissionDenied;
    refused(
        alice.query("SELECT note FROM notes").await,
        denied,
        SUSPENDED,
    );
    refused(alice.query("SELECT 1").await, denied, SUSPENDED);
    refused(alice.query("COMMIT").await, denied, SUSPENDED);
    refused(alice.get(ticket).await, denied, SUSPENDED);
    refused(alice.info(&prepared(&handle)).await, denied, SUSPENDED);
    refused(alice.update("DELETE FROM notes").await, denied, SUSPENDED);
    let mut catalog = server.catalog().await;
    let sources = catalog.list_sources(in_session("alice", ListSourcesRequest {}));
    refused(sources.await, denied, SUSPENDED);
    // Nor is another session bound to it.
    let mut sessions = server.sessions().await;
    refused(bind(&mut sessions, "other", ALICE).await, denied, SUSPENDED);
    let mut other = alice.with_session("other");
    let set = format!("SET app.current_tenant_id = '{ALICE}'");
    refused(other.query(&set).await, denied, SUSPENDED);
    // One that is may leave.
    let mut leaving = alice.with_session("leaving");
    leaving.bind(BOB).await;
    assert_eq!(leaving.notes().await, HIS);
    // Bob notices nothing.
    assert_eq!(bob.notes().await, HIS);

    resume(&mut office, ALICE).await;
    assert_eq!(alice.notes().await, HERS);
    refused(
        alice.query("COMMIT").await,
        Code::FailedPrecondition,
        "BEGIN",
    );
    alice
        .query("INSERT INTO notes VALUES (2, 'after')")
        .await
        .unwrap();
    assert_eq!(alice.notes().await, format!("{HERS} after"));
    server.stop().await;
}

/// As the command does it beside a server.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_says_holds_with_the_next_request() {
    let (server, mut alice, mut bob) = world().await;
    let beside = server.beside().await;
    let id = ALICE.parse().unwrap();
    alice.query("BEGIN").await.unwrap();
    alice
        .query("INSERT INTO notes VALUES (2, 'not committed')")
        .await
        .unwrap();

    beside.tenants().suspend(id).await.unwrap();
    let answer = alice.query("SELECT note FROM notes").await;
    refused(answer, Code::PermissionDenied, SUSPENDED);
    assert_eq!(bob.notes().await, HIS);

    // A session in that process, and one that binds later.
    let session = JammiSession::on(beside.clone()).with_tenant(id);
    for _again in 0..2 {
        let answer = session.sql("SELECT note FROM notes").await;
        assert!(
            matches!(answer, Err(Error::PermissionDenied(_))),
            "{answer:?}"
        );
    }
    let session = JammiSession::on(beside.clone());
    let set = format!("SET app.current_tenant_id = '{ALICE}'");
    let answer = session.sql(&set).await;
    assert!(
        matches!(answer, Err(Error::PermissionDenied(_))),
        "{answer:?}"
    );

    // The server rolls her transaction back in a moment: then the lane is free.
    let lane = Lane::Tenant(id);
    while beside.backend().write(lane, |_| Ok(())).await.is_err() {}
    beside.tenants().resume(id).await.unwrap();
    assert_eq!(alice.notes().await, HERS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_registered_named_and_listed() {
    let (server, ..) = world().await;
    let mut office = server.office().await;
    let lanes_alone = BOTH.map(|id| (id.to_owned(), TenantState::Active, false));
    assert_eq!(listed(&mut office).await, lanes_alone);

    let request = CreateTenantRequest {
        id: BOB.into(),
        name: "Bob & sons".into(),
        ..CreateTenantRequest::default()
    };
    let made = office.create_tenant(request.clone()).await.unwrap();
    assert_eq!(made.into_inner().tenant.unwrap().name, "Bob & sons");
    let again = office.create_tenant(request).await;
    refused(again, Code::AlreadyExists, "is registered");
    let request = CreateTenantRequest::default();
    let made = office.create_tenant(request).await.unwrap().into_inner();
    let own = made.tenant.unwrap().id;
    assert_ne!(own, BOB);
    assert_eq!(
        listed(&mut office).await,
        [
            (BOB.to_owned(), TenantState::Active, true),
            (own, TenantState::Active, true),
            (ALICE.to_owned(), TenantState::Active, false),
        ]
    );

    let request = UpdateTenantRequest {
        id: ALICE.into(),
        name: Some("Alice".into()),
        ..UpdateTenantRequest::default()
    };
    office.update_tenant(request).await.unwrap();
    let request = DescribeTenantRequest { id: ALICE.into() };
    let described = office.describe_tenant(request).await.unwrap().into_inner();
    let tenant = described.tenant.unwrap();
    assert_eq!((tenant.id.as_str(), tenant.name.as_str()), (ALICE, "Alice"));
    let contents = described.contents.unwrap();
    let tables: Vec<_> = contents
        .tables
        .iter()
        .map(|table| (&*table.name, table.rows))
        .collect();
    assert_eq!(tables, [("notes", 1)]);

    for (name, text) in [("x".repeat(257), "256 bytes"), ("a\nb".into(), "control")] {
        let request = CreateTenantRequest {
            name,
            ..CreateTenantRequest::default()
        };
        refused(
            office.create_tenant(request).await,
            Code::InvalidArgument,
            text,
        );
    }
    let request = SuspendTenantRequest {
        id: "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c".into(),
    };
    refused(
        office.suspend_tenant(request).await,
        Code::NotFound,
        "there is no tenant",
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_registered_tenants_are_others_are_worded_as_foreign_ones() {
    let server = TestServer::start_with(|config| config.tenancy.registered_only = true).await;
    let mut office = server.office().await;
    let mut sessions = server.sessions().await;
    let words = "the credential does not act for the tenant";
    let denied = Code::PermissionDenied;
    refused(bind(&mut sessions, "alice", ALICE).await, denied, words);
    let mut alice = Client::connect(&server, Some("alice")).await;
    let set = format!("SET app.current_tenant_id = '{ALICE}'");
    refused(alice.query(&set).await, denied, words);
    let request = CreateTenantRequest {
        id: ALICE.into(),
        ..CreateTenantRequest::default()
    };
    office.create_tenant(request).await.unwrap();
    alice.bind(ALICE).await;
    alice.note(HERS).await;
    // No more than it is there to be used.
    refused(bind(&mut sessions, "bob", BOB).await, denied, words);
    server.stop().await;
}

/// What the holder of a key is answered to every call about a tenant.
async fn calls_of(server: &TestServer, id: &str, key: &str) -> Vec<(&'static str, Status)> {
    let authorization: AsciiMetadataValue = format!("Bearer {key}").parse().unwrap();
    let with_key = move |mut request: Request<()>| {
        let value = authorization.clone();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    };
    let channel = server.channel().await;
    let mut office = TenantServiceClient::with_interceptor(channel, with_key);
    let mut answers = Vec::new();
    let mut note = |name, answer: Result<(), Status>| {
        answers.push((name, answer.err().unwrap_or_else(|| Status::ok(""))));
    };
    let id = || id.to_owned();
    let name = || "named".to_owned();
    let update = UpdateTenantRequest {
        id: id(),
        name: Some(name()),
        ..UpdateTenantRequest::default()
    };
    note("UpdateTenant", office.update_tenant(update).await.map(drop));
    let create = CreateTenantRequest {
        name: name(),
        ..CreateTenantRequest::default()
    };
    note("CreateTenant", office.create_tenant(create).await.map(drop));
    let list = office.list_tenants(ListTenantsRequest {}).await;
    note("ListTenants", list.map(drop));
    let describe = office.describe_tenant(DescribeTenantRequest { id: id() });
    note("DescribeTenant", describe.await.map(drop));
    let suspend = office.suspend_tenant(SuspendTenantRequest { id: id() });
    note("SuspendTenant", suspend.await.map(drop));
    let resume = office.resume_tenant(ResumeTenantRequest { id: id() });
    note("ResumeTenant", resume.await.map(drop));
    let export = office.export_tenant(ExportTenantRequest { id: id() });
    note("ExportTenant", export.await.map(drop));
    let nothing = stream::iter([ImportTenantRequest::default()]);
    note(
        "ImportTenant",
        office.import_tenant(nothing).await.map(drop),
    );
    let erase = EraseTenantRequest {
        id: id(),
        confirm: id(),
    };
    note("EraseTenant", office.erase_tenant(erase).await.map(drop));
    let usage = office.get_usage(GetUsageRequest { id: id() });
    note("GetUsage", usage.await.map(drop));
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_alone_has_tenants_and_a_tenant_sees_itself() {
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    let alice = guarded.key("alice", &[ALICE], &[]).await;
    let bob = guarded.key("bob", &[BOB], &[]).await;
    let operator = guarded.key("operator", &[], &[OPERATOR]).await;
    for (key, canary) in [(&alice, HERS), (&bob, HIS)] {
        guarded.client(key, None).await.note(canary).await;
    }
    let missing = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9c";
    let words = "this takes the role operator, which the credential does not have: ask the \
                 operator of the server";
    for id in [ALICE, BOB, missing] {
        for (name, answer) in calls_of(server, id, &alice.text).await {
            let is_hers = id == ALICE && ["DescribeTenant", "GetUsage"].contains(&name);
            match is_hers {
                true => assert_eq!(answer.code(), Code::Ok, "{name}: {answer:?}"),
                false => {
                    assert_eq!(answer.code(), Code::PermissionDenied, "{name} of {id}");
                    // The same words whether or not there is such a tenant.
                    assert_eq!(answer.message(), words, "{name} of {id}");
                }
            }
        }
    }
    // Of herself she sees her own alone.
    let mut hers = guarded.client(&alice, None).await;
    let request = hers.request(DescribeTenantRequest { id: String::new() });
    let mut office = server.office().await;
    let described = office.describe_tenant(request).await.unwrap().into_inner();
    assert_eq!(described.tenant.unwrap().id, ALICE);
    assert_eq!(hers.notes().await, HERS);
    for (name, answer) in calls_of(server, ALICE, &operator.text).await {
        let expected = match name {
            "ImportTenant" => Code::DataLoss,
            // It was resumed before.
            "EraseTenant" => Code::FailedPrecondition,
            _ => Code::Ok,
        };
        assert_eq!(answer.code(), expected, "{name}: {answer:?}");
    }
    // The operator reads no rows by that.
    let mut operator = guarded.client(&operator, Some("operator")).await;
    let set = format!("SET app.current_tenant_id = '{ALICE}'");
    refused(
        operator.query(&set).await,
        Code::PermissionDenied,
        "does not act for",
    );
}
