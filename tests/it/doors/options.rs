//! The session option `tenant`.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::*;
use crate::client::prepared;
use crate::harness::bind;
use crate::writes::refused;

#[derive(Clone, PartialEq, prost::Message)]
struct OptionValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
    #[prost(bool, optional, tag = "2")]
    bool_value: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionErrors {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

const INVALID_VALUE: i32 = 2;

pub fn options<const N: usize>(options: [(&str, Option<&str>); N]) -> Vec<u8> {
    let options = options.into_iter().map(|(name, value)| {
        let string_value = value.map(str::to_owned);
        let value = OptionValue {
            string_value,
            bool_value: None,
        };
        (name.to_owned(), value)
    });
    Options {
        session_options: options.collect(),
    }
    .encode_to_vec()
}

impl Client {
    /// The options that were refused, and why.
    async fn set_options(&mut self, body: Vec<u8>) -> Result<HashMap<String, i32>, Status> {
        let answer = self.act("SetSessionOptions", body).await?;
        let errors = OptionErrors::decode(&*answer[0]).unwrap().errors;
        Ok(errors
            .into_iter()
            .map(|(name, error)| (name, error.value))
            .collect())
    }

    async fn option(&mut self, name: &str) -> Option<String> {
        let answer = self.act("GetSessionOptions", Bytes::new()).await.unwrap();
        let mut options = Options::decode(&*answer[0]).unwrap().session_options;
        options
            .remove(name)
            .map(|value| value.string_value.unwrap())
    }
}

#[tokio::test]
async fn a_session_option_is_the_binding() {
    let (server, mut client) = notes().await;
    assert_eq!(client.option("tenant").await, None);
    let errors = client
        .set_options(options([("tenant", Some(&ALICE.to_uppercase()))]))
        .await;
    assert_eq!(errors.unwrap(), HashMap::new());
    assert_eq!(client.option("tenant").await.as_deref(), Some(ALICE));
    assert_eq!(client.shows(NOTES).await, "of-alice");
    assert_eq!(bound_of(&server, "by-sql").await.as_deref(), Some(ALICE));
    let handle = client
        .prepare(NOTES)
        .await
        .unwrap()
        .prepared_statement_handle;

    // Each option is right or wrong by itself, and one that is wrong changes nothing.
    for wrong in ["", "bob", "00000000-0000-0000-0000-000000000000"] {
        let body = options([("tenant", Some(wrong)), ("catalog", Some("mutable"))]);
        let errors = client.set_options(body).await.unwrap();
        assert_eq!(
            errors,
            [("tenant".to_owned(), INVALID_VALUE)].into(),
            "{wrong}"
        );
        let invalid_name = client
            .set_options(options([("Tenant", Some(BOB)), ("tenant_id", Some(BOB))]))
            .await;
        assert_eq!(invalid_name.unwrap().len(), 2);
        assert_eq!(
            client.option("tenant").await.as_deref(),
            Some(ALICE),
            "{wrong}"
        );
    }
    let value = OptionValue {
        string_value: None,
        bool_value: Some(true),
    };
    let body = Options {
        session_options: [("tenant".to_owned(), value)].into(),
    };
    let errors = client.set_options(body.encode_to_vec()).await.unwrap();
    assert_eq!(errors["tenant"], INVALID_VALUE);

    // Closing ends a connection's use of the session, whose siblings stay bound.
    client.act("CloseSession", Bytes::new()).await.unwrap();
    assert_eq!(client.option("tenant").await.as_deref(), Some(ALICE));
    // What another door binds is told by this one.
    client.query(&set(BOB)).await.unwrap();
    assert_eq!(client.option("tenant").await.as_deref(), Some(BOB));
    refused(
        client.rows(&prepared(&handle)).await,
        Code::FailedPrecondition,
        "prepare the statement again",
    );
    client
        .set_options(options([("tenant", None)]))
        .await
        .unwrap();
    assert_eq!(client.option("tenant").await, None);
    refused(client.query(NOTES).await, Code::NotFound, "does not exist");
    assert_eq!(bound_of(&server, "alice").await.as_deref(), Some(ALICE));

    let mut nobody = Client::connect(&server, None).await;
    for body in [
        options([("tenant", Some(ALICE))]),
        options([("catalog", Some("inbox"))]),
    ] {
        refused(
            nobody.set_options(body).await,
            Code::InvalidArgument,
            "jammi-session-id",
        );
    }
}

#[tokio::test]
async fn one_session_too_many_is_refused_at_every_door() {
    let server = TestServer::start_with(|config| config.sessions.max = 1).await;
    bind(&mut server.sessions().await, "first", ALICE)
        .await
        .unwrap();
    let mut client = Client::connect(&server, Some("second")).await;
    let body = options([("tenant", Some(ALICE))]);
    for answer in [
        client.query(&set(ALICE)).await.map(drop),
        client.update(&set(ALICE)).await.map(drop),
        client.set_options(body).await.map(drop),
    ] {
        refused(answer, Code::ResourceExhausted, "sessions.max");
    }
    assert_eq!(bound_of(&server, "second").await, None);
}
