//! Keys and users by RPC, and who may call.

use jammi_db::config::AuthenticationMethod;
use jammi_db::server::method_names;
use jammi_db::server::proto::operator::operator_service_client::OperatorServiceClient;
use jammi_db::server::proto::operator::{
    ActsFor, CreateKeyRequest, CreateUserRequest, DropUserRequest, ListKeysRequest,
    ListQueriesRequest, ListUsersRequest, RevokeKeyRequest, RotateKeyRequest, Secret,
    SetPasswordRequest,
};
use jammi_db::tenant::{GLOBAL_WRITER, OPERATOR};
use tonic::{Code, Request};

use super::World;
use crate::authentication::{Guarded, basic, bearer, call};
use crate::client::{ALICE, BOB, Client};
use crate::writes::refused;

fn acts_for(tenants: &[&str]) -> Option<ActsFor> {
    Some(ActsFor {
        all: false,
        tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
    })
}

#[tokio::test]
async fn every_call_takes_the_role_before_anything_is_looked_at() {
    let world = World::new().await;
    let guarded = &world.guarded;
    let others = [
        guarded.key("alice", &[ALICE], &[]).await,
        guarded.key("writer", &[], &[GLOBAL_WRITER]).await,
        guarded.key("bob", &[BOB], &[GLOBAL_WRITER]).await,
    ];
    let channel = guarded.server.channel().await;
    let mut methods = method_names();
    methods.retain(|method| method.starts_with("/jammi.v1.operator."));
    assert_eq!(methods.len(), 12);
    for method in methods {
        for key in &others {
            let denied = call(&channel, method, Some(&bearer(&key.text))).await;
            assert_eq!(denied.code(), Code::PermissionDenied, "{method}");
            assert!(denied.message().contains("the role operator"), "{method}");
        }
        // Without a session and a tenant.
        let allowed = call(&channel, method, Some(&bearer(&world.operator.key))).await;
        assert_ne!(allowed.code(), Code::PermissionDenied, "{method}");
        assert_ne!(allowed.code(), Code::FailedPrecondition, "{method}");
    }
}

#[tokio::test]
async fn keys_are_made_listed_replaced_and_revoked() {
    let world = World::new().await;
    let (operator, guarded) = (&world.operator, &world.guarded);
    let mut service = operator.service.clone();
    let holding = async |text: &str| {
        let client = Client::connect(&guarded.server, None).await;
        client.holding(text)
    };
    let new = CreateKeyRequest {
        user: "nightly".into(),
        acts_for: acts_for(&[ALICE]),
        roles: vec![GLOBAL_WRITER.into()],
        expires_at_ms: None,
    };
    let made = service.create_key(operator.request(new)).await.unwrap();
    let made = made.into_inner();
    let (key, text) = (made.key.clone().unwrap(), made.text.clone().unwrap().text);
    assert!(text.starts_with(&format!("jammi_{}_", key.id)));
    // Whoever logs an answer logs no key.
    let secret = text.rsplit('_').next().unwrap();
    assert!(!format!("{made:?}").contains(secret), "{made:?}");
    let mut nightly = holding(&text).await;
    let words = "CREATE TABLE words AS SELECT 'hers' AS word";
    nightly.query(words).await.unwrap();
    assert_eq!(
        nightly.shows("SHOW app.current_tenant_id").await,
        ALICE.to_owned()
    );

    let list = async || {
        let request = operator.request(ListKeysRequest {});
        let answer = operator.service.clone().list_keys(request).await.unwrap();
        answer.into_inner().keys
    };
    let listed = list().await;
    assert_eq!(listed.last(), Some(&key));
    assert_eq!(listed.len(), 4);
    assert!(!format!("{listed:?}").contains(secret));

    let rotate = RotateKeyRequest {
        id: key.id.clone(),
        old_until_ms: None,
    };
    let next = service.rotate_key(operator.request(rotate)).await.unwrap();
    let next = next.into_inner();
    let next_text = next.text.unwrap().text;
    refused(
        nightly.query("SELECT 1").await,
        Code::Unauthenticated,
        "not accepted",
    );
    let mut nightly = holding(&next_text).await;
    assert_eq!(nightly.shows("SELECT word FROM words").await, "hers");
    let id = next.key.unwrap().id;
    let revoke = || operator.request(RevokeKeyRequest { id: id.clone() });
    service.revoke_key(revoke()).await.unwrap();
    refused(
        nightly.query("SELECT 1").await,
        Code::Unauthenticated,
        "not accepted",
    );
    refused(
        service.revoke_key(revoke()).await,
        Code::NotFound,
        "no API key",
    );
    let revoked = list()
        .await
        .into_iter()
        .filter(|key| key.revoked_at_ms.is_some());
    assert_eq!(revoked.count(), 1);

    for (acts_for, roles, part) in [
        (acts_for(&["x"]), vec![], "tenant id"),
        (acts_for(&[]), vec![], "may do nothing"),
        (None, vec!["root".to_owned()], "no role"),
        (
            Some(ActsFor {
                all: true,
                tenants: vec![ALICE.into()],
            }),
            vec![],
            "say one of them",
        ),
    ] {
        let new = CreateKeyRequest {
            user: "odd".into(),
            acts_for,
            roles,
            expires_at_ms: None,
        };
        let odd = service.create_key(operator.request(new)).await;
        refused(odd, Code::InvalidArgument, part);
    }
    let many = operator.request(ListQueriesRequest { limit: 10_001 });
    let many = service.list_queries(many).await;
    refused(many, Code::InvalidArgument, "10000 at most");
}

#[tokio::test]
async fn users_are_made_listed_changed_and_dropped() {
    let methods = vec![AuthenticationMethod::ApiKey, AuthenticationMethod::Password];
    let guarded = Guarded::start_with(|config| config.auth.methods = methods).await;
    let operators = guarded.key("ops", &[], &[OPERATOR]).await;
    let client = guarded.client(&operators, None).await;
    let mut service = OperatorServiceClient::new(guarded.server.channel().await);
    let password = |text: &str| Some(Secret { text: text.into() });
    let new = CreateUserRequest {
        name: "carol".into(),
        acts_for: acts_for(&[ALICE]),
        roles: Vec::new(),
        password: password("carols own password"),
    };
    let request: Request<CreateUserRequest> = client.request(new);
    assert!(!format!("{request:?}").contains("carols own"));
    service.create_user(request).await.unwrap();
    let listed = service
        .list_users(client.request(ListUsersRequest {}))
        .await;
    let listed = listed.unwrap().into_inner().users;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].acts_for, acts_for(&[ALICE]));

    let signed_in = async |text: &str| {
        let client = Client::connect(&guarded.server, None).await;
        let mut client = client.sending(basic("carol", text));
        client.query("SELECT 1").await.map(drop)
    };
    signed_in("carols own password").await.unwrap();
    let change = SetPasswordRequest {
        name: "carol".into(),
        password: password("another password"),
    };
    service.set_password(client.request(change)).await.unwrap();
    refused(
        signed_in("carols own password").await,
        Code::Unauthenticated,
        "not accepted",
    );
    signed_in("another password").await.unwrap();
    let drop = || DropUserRequest {
        name: "carol".into(),
    };
    service.drop_user(client.request(drop())).await.unwrap();
    let gone = service.drop_user(client.request(drop())).await;
    refused(gone, Code::NotFound, "no user `carol`");
    assert!(signed_in("another password").await.is_err());
}
