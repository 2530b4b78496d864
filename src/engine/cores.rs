//! How threads that compute share the cores with those that wait for one.
//!
//! The kernel looks at its clock a few hundred times a second, and a thread that
//! has just run may have to wait for that where others compute without a pause: a
//! short statement's few wake-ups would add up to tens of milliseconds. So threads
//! offer their core more often than that, once they have computed for a while.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread computes before it offers its core: much less than the kernel's
/// clock takes to tick, and much more than it takes to offer it.
const OFFER_INTERVAL: Duration = Duration::from_micros(500);

thread_local! {
    /// Since when this thread has computed without a pause, where that is known.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says that this thread begins to compute: it has started, or waited for something.
pub fn woken() {
    SINCE.set(Some(Instant::now()));
}

/// Offers the core to those that wait for one, where this thread has computed for a
/// while. What may compute for long does so at least with every batch, and what
/// serves with every request.
pub fn offer() {
    if SINCE
        .get()
        .is_some_and(|since| since.elapsed() >= OFFER_INTERVAL)
    {
        std::thread::yield_now();
        woken();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_offered_after_a_while_and_not_too_often() {
        // Nothing is known of a thread of somebody else's.
        offer();
        assert_eq!(SINCE.get(), None);
        let long_ago = Instant::now() - 2 * OFFER_INTERVAL;
        SINCE.set(Some(long_ago));
        offer();
        assert!(SINCE.get() > Some(long_ago));
        let just_now = Some(Instant::now() + Duration::from_secs(60));
        SINCE.set(just_now);
        offer();
        assert_eq!(SINCE.get(), just_now);
    }
}
