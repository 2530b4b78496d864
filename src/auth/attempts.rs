//! How many credentials may be tried.
//!
//! Those that were not accepted are counted by the network that they came from, in
//! windows of a minute, whatever their kind. Once they are too many, what is wrong is
//! answered [`AuthenticationError::Throttled`]; what is right goes on being accepted,
//! so that nobody is locked out by who shares an address with them. Only what could
//! be found by trying, such as a password, is not looked at then: its extension asks
//! by [`Credentials::attempt`](super::Credentials::attempt) before it does.
//!
//! Invariant: counts end with their window, and are bounded in number: of more
//! networks than that, those that failed last are counted.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::AuthenticationError;

const WINDOW_MS: i64 = 60_000;
/// Windows that are counted at a time.
const WINDOWS_MAX: u64 = 100_000;

/// Counts failures by whatever tells one that tries from another.
pub(super) struct Failures<K> {
    max: u32,
    windows: Cache<K, Arc<Mutex<Window>>>,
    now_ms: fn() -> i64,
}

#[derive(Default)]
struct Window {
    since_ms: i64,
    count: u32,
}

impl Window {
    /// The failures of the minute that `now_ms` is in.
    fn count_at(&mut self, now_ms: i64) -> &mut u32 {
        // A clock that was set back ends a window too.
        if !(0..WINDOW_MS).contains(&now_ms.saturating_sub(self.since_ms)) {
            *self = Window {
                since_ms: now_ms,
                count: 0,
            };
        }
        &mut self.count
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> Failures<K> {
    /// Allows `max` a minute each. `now_ms` tells Unix time in milliseconds.
    pub fn new(max: u32, now_ms: fn() -> i64) -> Self {
        Failures {
            max,
            windows: Cache::builder()
                .max_capacity(WINDOWS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            now_ms,
        }
    }

    /// Whether `key` has had as many as it may.
    pub fn is_over(&self, key: &K) -> bool {
        let window = self.windows.get(key);
        window.is_some_and(|window| *window.lock().count_at((self.now_ms)()) >= self.max)
    }

    /// Counts one of `key`, unless it has had as many as it may.
    pub fn count(&self, key: K) -> Result<(), AuthenticationError> {
        let window = self.windows.get_with(key, Arc::default);
        let mut window = window.lock();
        let count = window.count_at((self.now_ms)());
        if *count >= self.max {
            return Err(AuthenticationError::Throttled);
        }
        *count += 1;
        Ok(())
    }

    /// Takes back one that was counted ahead, and was none.
    pub fn take_back(&self, key: &K) {
        if let Some(window) = self.windows.get(key) {
            let mut window = window.lock();
            let count = window.count_at((self.now_ms)());
            *count = count.saturating_sub(1);
        }
    }
}

/// The failures of each peer's network.
pub(crate) struct Attempts {
    by_site: Failures<Option<IpAddr>>,
}

impl Attempts {
    /// Allows `failures_max` a minute of each network. `now_ms` tells Unix time in
    /// milliseconds.
    pub fn new(failures_max: u32, now_ms: fn() -> i64) -> Self {
        Attempts {
            by_site: Failures::new(failures_max, now_ms),
        }
    }

    /// One that `peer` makes now.
    pub fn of(&self, peer: Option<SocketAddr>) -> Attempt<'_> {
        let site = site(peer);
        Attempt {
            is_over: self.by_site.is_over(&site),
            attempts: self,
            site,
            is_counted: AtomicBool::new(false),
        }
    }
}

/// A request that may carry a credential.
pub(crate) struct Attempt<'a> {
    attempts: &'a Attempts,
    site: Option<IpAddr>,
    is_over: bool,
    is_counted: AtomicBool,
}

impl Attempt<'_> {
    /// Counts it ahead of its end, so that many at a time are not let by.
    pub(super) fn count_ahead(&self) -> Result<(), AuthenticationError> {
        match self.is_counted.swap(true, Ordering::Relaxed) {
            true => Ok(()),
            false => {
                let counted = self.attempts.by_site.count(self.site);
                self.is_counted.store(counted.is_ok(), Ordering::Relaxed);
                counted
            }
        }
    }

    /// What it is answered that came to `outcome`.
    pub fn ended<T>(
        self,
        outcome: Result<T, AuthenticationError>,
    ) -> Result<T, AuthenticationError> {
        let is_counted = self.is_counted.load(Ordering::Relaxed);
        match outcome {
            Err(AuthenticationError::Refused) if self.is_over => {
                Err(AuthenticationError::Throttled)
            }
            Err(AuthenticationError::Refused) if is_counted => Err(AuthenticationError::Refused),
            Err(AuthenticationError::Refused) => {
                self.attempts.by_site.count(self.site)?;
                Err(AuthenticationError::Refused)
            }
            other => {
                if is_counted {
                    self.attempts.by_site.take_back(&self.site);
                }
                other
            }
        }
    }
}

/// A peer's network: of IPv6, where one machine has as many addresses as it likes,
/// the /64 that it is in.
pub(super) fn site(peer: Option<SocketAddr>) -> Option<IpAddr> {
    // A listener of both families sees addresses of IPv4 as ones of IPv6, all of
    // which are in one /64.
    match peer?.ip().to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
        ip => Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::AuthenticationError::{Absent, Refused, Throttled, Unavailable};
    use super::*;

    thread_local! {
        static NOW_MS: Cell<i64> = const { Cell::new(1_700_000_000_000) };
    }

    fn now_ms() -> i64 {
        NOW_MS.get()
    }

    fn attempts(max: u32) -> Attempts {
        Attempts::new(max, now_ms)
    }

    fn peer(ip: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().unwrap(), 7))
    }

    fn wrong(attempts: &Attempts, ip: &str) -> AuthenticationError {
        let ended = attempts.of(peer(ip)).ended::<()>(Err(Refused));
        ended.unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_counted_by_the_network_that_it_came_from() {
        let attempts = attempts(2);
        for (ip, answers) in [
            ("192.0.2.1", [Refused, Refused, Throttled, Throttled]),
            ("192.0.2.2", [Refused, Refused, Throttled, Throttled]),
            // A machine has many addresses of IPv6, and is one.
            ("2001:db8::1", [Refused, Refused, Throttled, Throttled]),
            ("2001:db8::7:7", [Throttled; 4]),
            ("2001:db8:0:1::7", [Refused, Refused, Throttled, Throttled]),
            // Symptom: on a listener of both families, all of IPv4 was one network.
            ("::ffff:192.0.2.1", [Throttled; 4]),
            ("::ffff:192.0.2.3", [Refused, Refused, Throttled, Throttled]),
        ] {
            let found = [(); 4].map(|()| wrong(&attempts, ip));
            assert_eq!(found, answers, "{ip}");
        }
        // What is right is accepted all the same, and what is none is not counted.
        for outcome in [Ok(()), Err(Absent), Err(Unavailable)] {
            let throttled = attempts.of(peer("192.0.2.1")).ended(outcome);
            assert_eq!(throttled, outcome);
            for _ in 0..10 {
                let other = attempts.of(peer("192.0.2.9")).ended(outcome);
                assert_eq!(other, outcome);
            }
        }
        assert_eq!(wrong(&attempts, "192.0.2.9"), Refused);
        NOW_MS.set(NOW_MS.get() + WINDOW_MS);
        assert_eq!(wrong(&attempts, "192.0.2.1"), Refused);
        // A clock that is set back leaves nobody out for longer.
        assert_eq!(wrong(&attempts, "192.0.2.1"), Refused);
        assert_eq!(wrong(&attempts, "192.0.2.1"), Throttled);
        NOW_MS.set(NOW_MS.get() - 86_400_000);
        assert_eq!(wrong(&attempts, "192.0.2.1"), Refused);
    }

    #[test]
    fn what_could_be_guessed_is_counted_before_it_is_looked_at() {
        let attempts = attempts(2);
        let here = peer("192.0.2.1");
        let at_once = [(); 3].map(|()| attempts.of(here));
        let counted = at_once.each_ref().map(Attempt::count_ahead);
        assert_eq!(counted, [Ok(()), Ok(()), Err(Throttled)]);
        // Once each, however often its extensions ask.
        assert_eq!(at_once[0].count_ahead(), Ok(()));
        let [right, wrong, late] = at_once;
        assert_eq!(late.ended::<()>(Err(Throttled)), Err(Throttled));
        assert_eq!(right.ended(Ok(())), Ok(()));
        assert_eq!(wrong.ended::<()>(Err(Refused)), Err(Refused));
        assert_eq!(attempts.of(here).count_ahead(), Ok(()));
        // One whose client has gone is a failure.
        assert_eq!(attempts.of(here).count_ahead(), Err(Throttled));
    }
}
