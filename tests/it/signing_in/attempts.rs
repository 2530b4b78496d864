//! How many credentials may be tried, of whatever kind.

use jammi_db::server::method_names;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{ABSENT, Gate, Keys, NOT_ACCEPTED, Sent, nothing, sent};
use crate::authentication::{basic, bearer, call};
use crate::client::{ALICE, BOB};
use crate::harness::TestServer;
use crate::writes::refused;

const THROTTLED: &str =
    "too many credentials from here were not accepted: send the request again in a minute";
const GET_TENANT: &str = "/jammi.v1.session.SessionService/GetTenant";

async fn ask(sent: &Sent) -> Status {
    call(&sent.channel, GET_TENANT, sent.authorization.as_deref()).await
}

#[track_caller]
fn is(answer: &Status, code: Code, text: &str, what: &str) {
    assert_eq!((answer.code(), answer.message()), (code, text), "{what}");
}

#[tokio::test]
async fn wrong_credentials_of_any_kind_are_bounded_by_peer() {
    for gate in Gate::all(|config| config.auth.failures_max = 6).await {
        let name = gate.name;
        // One whose password is remembered.
        let holder = &gate.withdrawn.sent;
        holder.client(None).query("SELECT 1").await.unwrap();
        let wrong: Vec<&Sent> = gate.bad.iter().chain(&gate.over).collect();
        // A gate has tried what it knows to be wrong, which counts too.
        let mut refusals = 0;
        for sent in wrong.iter().cycle() {
            let answer = ask(sent).await;
            if answer.code() == Code::ResourceExhausted {
                break;
            }
            is(&answer, Code::Unauthenticated, NOT_ACCEPTED, name);
            refusals += 1;
            assert!(refusals <= 6, "{name}");
        }
        for sent in &wrong {
            let what = format!("{name}: {}", sent.what);
            is(&ask(sent).await, Code::ResourceExhausted, THROTTLED, &what);
        }
        // At every door.
        for method in method_names() {
            let is_exempt = method.starts_with("/grpc.health.") || method.contains("Reflection");
            let answer = call(&wrong[0].channel, method, wrong[0].authorization.as_deref()).await;
            let is_throttled = answer.code() == Code::ResourceExhausted;
            assert_eq!(is_throttled, !is_exempt, "{name}: {method}: {answer:?}");
        }
        // What is no attempt is none, and whoever shares the address goes on.
        is(
            &ask(&gate.absent).await,
            Code::Unauthenticated,
            ABSENT,
            name,
        );
        for holder in &gate.holders {
            let answer = holder.sent.client(None).query("SELECT 1").await;
            // A password that was not right before could be a guess.
            match name == "password by Basic" {
                true => refused(answer, Code::ResourceExhausted, THROTTLED),
                false => drop(answer.unwrap()),
            }
        }
        holder.client(None).query("SELECT 1").await.unwrap();
        let (_, metrics) = gate.server.page("/metrics").await;
        let counted = "jammi_authentication_failures_total{reason=\"throttled\"}";
        assert!(metrics.contains(counted), "{name}: {metrics}");
    }
}

/// A channel from another address of the same machine.
async fn from(server: &TestServer, address: [u8; 4]) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc)).unwrap();
    let endpoint = endpoint.local_address(Some(address.into()));
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn nobody_is_held_back_for_what_another_address_sends() {
    let server = TestServer::start_with(|config| {
        config.auth.methods = vec![jammi_db::config::AuthenticationMethod::ApiKey];
        config.auth.failures_max = 3;
    })
    .await;
    let keys = Keys::of(&server).await;
    let (alices, bobs) = (
        keys.key("alice", &[ALICE]).await,
        keys.key("bob", &[BOB]).await,
    );
    let (here, there) = (
        from(&server, [127, 0, 0, 2]).await,
        from(&server, [127, 0, 0, 3]).await,
    );
    let guess = bearer(&bobs.replace(&bobs[20..30], "0000000000"));
    // On as many connections as one likes, and as whoever.
    for at in 0..6 {
        let channel = from(&server, [127, 0, 0, 2]).await;
        let tried = match at % 2 {
            0 => guess.clone(),
            _ => basic(&format!("user-{at}"), &bobs),
        };
        let answer = ask(&sent("a guess", &channel, &tried)).await;
        let (code, text) = match at {
            0..3 => (Code::Unauthenticated, NOT_ACCEPTED),
            _ => (Code::ResourceExhausted, THROTTLED),
        };
        is(&answer, code, text, &at.to_string());
    }
    for (channel, code) in [
        (&here, Code::ResourceExhausted),
        (&there, Code::Unauthenticated),
    ] {
        assert_eq!(ask(&sent("a guess", channel, &guess)).await.code(), code);
        // A key that is right is as good as ever, one that nobody has shown before too.
        for key in [&alices, &bobs] {
            let holder = sent("a key", channel, &bearer(key));
            holder.client(None).query("SELECT 1").await.unwrap();
        }
        let absent = ask(&nothing(channel)).await;
        assert_eq!(absent.code(), Code::Unauthenticated);
    }
}
