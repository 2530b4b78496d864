//! How many passwords may be tried.
//!
//! Failures are counted by the peer and the user that it names, and by the peer
//! alone, in windows of a minute. A password that is remembered is not tried at all,
//! so whoever is signed in behind the same address goes on.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::auth::AuthenticationError;

const WINDOW: Duration = Duration::from_secs(60);
/// How many times as many failures a peer may have with all users together.
const USERS_FACTOR: u32 = 10;
/// Windows that are counted at a time.
const WINDOWS_MAX: u64 = 100_000;

/// Counts failures.
pub(super) struct Attempts {
    failures_max: u32,
    windows: Cache<(Option<IpAddr>, Option<u64>), Arc<AtomicU32>>,
    hashing: RandomState,
}

/// One that goes on, and is a failure unless it is said to be none.
pub(super) struct Attempt {
    counts: [Arc<AtomicU32>; 2],
}

impl Attempts {
    /// Allows `failures_max` a minute of each peer for each user.
    pub fn new(failures_max: u32) -> Self {
        Attempts {
            failures_max,
            windows: Cache::builder()
                .max_capacity(WINDOWS_MAX)
                .time_to_live(WINDOW)
                .build(),
            hashing: RandomState::new(),
        }
    }

    /// Begins one of `peer`, who says to be `user`.
    pub fn begin(&self, peer: Option<IpAddr>, user: &str) -> Result<Attempt, AuthenticationError> {
        let peer = peer.map(site);
        let by_user = self.count((peer, Some(self.hashing.hash_one(user))));
        let by_peer = self.count((peer, None));
        let max = self.failures_max;
        let attempt = Attempt {
            counts: [by_user, by_peer],
        };
        let [user_count, peer_count] = attempt.begin();
        if user_count >= max || peer_count >= max.saturating_mul(USERS_FACTOR) {
            attempt.succeeded();
            return Err(AuthenticationError::Throttled);
        }
        Ok(attempt)
    }

    fn count(&self, window: (Option<IpAddr>, Option<u64>)) -> Arc<AtomicU32> {
        self.windows.get_with(window, Arc::default)
    }
}

impl Attempt {
    fn begin(&self) -> [u32; 2] {
        [0, 1].map(|at| self.counts[at].fetch_add(1, Ordering::Relaxed))
    }

    /// Counts it no more.
    pub fn succeeded(self) {
        for count in &self.counts {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A peer's network, where one machine has as many addresses as it likes.
fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_peer_and_user() {
        let attempts = Attempts::new(2);
        let peer = |text: &str| Some(text.parse().unwrap());
        let (here, there) = (peer("192.0.2.1"), peer("192.0.2.2"));
        for _ in 0..100 {
            attempts.begin(here, "alice").unwrap().succeeded();
        }
        for _ in 0..2 {
            attempts.begin(here, "alice").unwrap();
        }
        for _ in 0..3 {
            assert!(attempts.begin(here, "alice").is_err());
            attempts.begin(here, "bob").unwrap().succeeded();
            attempts.begin(there, "alice").unwrap().succeeded();
        }
        for user in 0..18 {
            attempts.begin(here, &user.to_string()).unwrap();
        }
        assert!(attempts.begin(here, "bob").is_err());
        // An IPv6 machine is one, whatever address it takes.
        for host in 0..2 {
            attempts
                .begin(peer(&format!("2001:db8::{host}")), "alice")
                .unwrap();
        }
        assert!(attempts.begin(peer("2001:db8::7:7"), "alice").is_err());
        attempts.begin(peer("2001:db8:0:1::7"), "alice").unwrap();
    }
}
