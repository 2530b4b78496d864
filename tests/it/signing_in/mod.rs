//! Signing in, by every method of authentication: the same questions to each.

mod attempts;
mod gates;
mod others;
mod panics;
mod people;
mod rotation;
mod rpcs;

use std::time::{SystemTime, UNIX_EPOCH};

use arrow_flight::Ticket;
use jammi_db::config::JammiConfig;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use self::people::{Certificates, Keys, id_of};
use crate::client::{BOB, Client, statement};
use crate::harness::TestServer;
use crate::tls::Files;

/// A tenant that nobody has heard of.
const NOBODY: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8eff";

const ABSENT: &str = "the request carries no credential: send one in its metadata `authorization`";
const NOT_ACCEPTED: &str = "the request's credential is not accepted: send a valid one";
const NOT_ONES_OWN: &str = "the credential does not act for the tenant: bind one that it acts for";

/// A credential as calls carry it.
#[derive(Clone)]
struct Sent {
    what: &'static str,
    channel: Channel,
    authorization: Option<String>,
}

impl Sent {
    fn client(&self, session: Option<&'static str>) -> Client {
        let client = Client::over(self.channel.clone(), session);
        match &self.authorization {
            Some(authorization) => client.sending(authorization.clone()),
            None => client,
        }
    }
}

/// Somebody who may sign in, for one tenant.
#[derive(Clone)]
struct Holder {
    sent: Sent,
    tenant: &'static str,
}

/// Who may act for less than when a session was bound.
struct Withdrawn {
    sent: Sent,
    /// The session that is bound to Bob.
    session: &'static str,
    /// What was announced in it.
    ticket: Ticket,
}

/// A server that authenticates, and those who come to it.
struct Gate {
    name: &'static str,
    server: TestServer,
    /// No two of them are one principal.
    holders: Vec<Holder>,
    absent: Sent,
    /// What was never a credential.
    bad: Vec<Sent>,
    /// What was one, and has expired or was revoked.
    over: Vec<Sent>,
    withdrawn: Withdrawn,
    _files: Vec<tempfile::TempDir>,
    _tls: Option<Files>,
}

/// A change of settings.
type Change = fn(&mut JammiConfig);

fn sent(what: &'static str, channel: &Channel, authorization: &str) -> Sent {
    Sent {
        what,
        channel: channel.clone(),
        authorization: Some(authorization.to_owned()),
    }
}

fn shown(what: &'static str, channel: Channel) -> Sent {
    Sent {
        what,
        channel,
        authorization: None,
    }
}

fn nothing(channel: &Channel) -> Sent {
    shown("nothing", channel.clone())
}

fn holder(sent: Sent, tenant: &'static str) -> Holder {
    Holder { sent, tenant }
}

/// Binds a session to Bob, and has a statement announced in it.
async fn bound_to_bob(wide: &Sent) -> (&'static str, Ticket) {
    let session = "carol";
    let mut client = wide.client(Some(session));
    client.bind(BOB).await;
    let info = client.info(&statement("SELECT 1")).await.unwrap();
    (session, info.endpoint[0].ticket.clone().unwrap())
}

/// What a handshake has its client send from then on.
async fn shake(sent: &Sent) -> Result<String, Status> {
    let mut flight = sent.client(None).flight;
    let mut request = Request::new(futures::stream::empty());
    let authorization = sent.authorization.as_ref().unwrap();
    let value: MetadataValue<Ascii> = authorization.parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let answer = flight.handshake(request).await?;
    let token = answer.metadata().get("authorization").unwrap();
    Ok(token.to_str().unwrap().to_owned())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}
