//! The deadline that a client gives its request, in the header `grpc-timeout`.
//!
//! tonic keeps to it until a call begins to answer; a result may take far longer
//! than that, so it is kept to here as well.

use std::task::{Poll, ready};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use tonic::metadata::MetadataMap;

use super::MessageStream;
use crate::error::Error;
use crate::server::status::to_status;

/// When the request that came just now is to be done; `None` where it does not say,
/// or not in gRPC's way.
pub(super) fn of(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(timeout(text)?)
}

/// As many as eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// `messages` until `deadline`, when what makes them is ended.
pub(super) fn until(deadline: Option<Instant>, messages: MessageStream) -> MessageStream {
    let Some(deadline) = deadline else {
        return messages;
    };
    let mut timer = Box::pin(sleep_until(deadline));
    let mut messages = Some(messages);
    Box::pin(stream::poll_fn(move |cx| {
        let Some(open) = &mut messages else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(message) = open.poll_next_unpin(cx) {
            return Poll::Ready(message);
        }
        ready!(timer.poll_unpin(cx));
        messages = None;
        let late = Error::DeadlineExceeded(
            "the request took longer than its grpc-timeout: allow it more, or ask for less".into(),
        );
        Poll::Ready(Some(Err(to_status(&late))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text:?}");
        }
    }
}
