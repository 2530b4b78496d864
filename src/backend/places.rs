//! The places for open transactions on one database, and whose they are.
//!
//! Invariants: whoever has none on the database gets one at once, whatever
//! others have. Beyond that there are `lanes.transactions_max` in all, of which
//! one who writes another lane has `lanes.tenant_transactions_max` at most. A
//! place that is dropped goes to the first in line who may have it, past those
//! who may not.
//!
//! Deliberately absent: a limit on how long a place is had.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{BackendError, DatabaseName};
use crate::config::LanesConfig;
use crate::tenant::Lane;

/// The places of one database.
#[derive(Debug)]
pub(super) struct Places {
    database: DatabaseName,
    total_max: usize,
    holder_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    held: HashMap<Lane, usize>,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    holder: Lane,
    give: oneshot::Sender<HeldPlace>,
}

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct HeldPlace {
    places: Arc<Places>,
    holder: Lane,
}

impl Places {
    pub fn new(database: DatabaseName, config: &LanesConfig) -> Self {
        Places {
            database,
            total_max: config.transactions_max,
            holder_max: config.tenant_transactions_max,
            state: Mutex::default(),
        }
    }

    /// A place for whoever writes the lane `holder`, waited for up to `patience`.
    pub async fn take(
        self: &Arc<Self>,
        holder: Lane,
        patience: Duration,
    ) -> Result<HeldPlace, BackendError> {
        let given = {
            let mut state = self.state.lock();
            if let Some(place) = self.admit(&mut state, holder) {
                return Ok(place);
            }
            let (give, given) = oneshot::channel();
            state.waiting.retain(|waiter| !waiter.give.is_closed());
            state.waiting.push_back(Waiter { holder, give });
            given
        };
        match tokio::time::timeout(patience, given).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_dropped)) => Err(BackendError::Stopping),
            // One that is given just now is dropped with the channel, and so free.
            Err(_elapsed) => Err(self.exhausted(holder)),
        }
    }

    /// A place, if `holder` may have one more now.
    fn admit(self: &Arc<Self>, state: &mut State, holder: Lane) -> Option<HeldPlace> {
        let held = state.held.get(&holder).copied().unwrap_or(0);
        let may = held == 0 || held < self.max_of(holder) && state.total < self.total_max;
        may.then(|| {
            state.total += 1;
            state.held.insert(holder, held + 1);
            HeldPlace {
                places: Arc::clone(self),
                holder,
            }
        })
    }

    fn max_of(&self, holder: Lane) -> usize {
        match self.database == DatabaseName::Lane(holder) {
            true => self.total_max,
            false => self.holder_max,
        }
    }

    fn exhausted(&self, holder: Lane) -> BackendError {
        let held = self.state.lock().held.get(&holder).copied().unwrap_or(0);
        let (setting, max) = match held >= self.max_of(holder) && held < self.total_max {
            true => ("lanes.tenant_transactions_max", self.holder_max),
            false => ("lanes.transactions_max", self.total_max),
        };
        BackendError::PlacesExhausted {
            database: self.database,
            held,
            setting,
            max,
        }
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        let mut given = Vec::new();
        {
            let mut state = self.places.state.lock();
            state.total -= 1;
            if let Some(held) = state.held.get_mut(&self.holder) {
                *held -= 1;
                if *held == 0 {
                    state.held.remove(&self.holder);
                }
            }
            let waiting = std::mem::take(&mut state.waiting);
            for waiter in waiting {
                if waiter.give.is_closed() {
                    continue;
                }
                match self.places.admit(&mut state, waiter.holder) {
                    Some(place) => given.push((waiter.give, place)),
                    None => state.waiting.push_back(waiter),
                }
            }
        }
        for (give, place) in given {
            // One who does not wait any more drops it, and so passes it on.
            drop(give.send(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tests::{alice, bob};

    const NOW: Duration = Duration::ZERO;

    fn places(transactions_max: usize, tenant_transactions_max: usize) -> Arc<Places> {
        let config = LanesConfig {
            transactions_max,
            tenant_transactions_max,
            ..LanesConfig::default()
        };
        Arc::new(Places::new(DatabaseName::Lane(Lane::Global), &config))
    }

    async fn refusal(places: &Arc<Places>, holder: Lane) -> String {
        places.take(holder, NOW).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn one_who_holds_all_that_he_may_keeps_nobody_waiting() {
        let (alice, bob) = (Lane::Tenant(alice()), Lane::Tenant(bob()));
        let places = places(4, 2);
        let hers = [(); 2].map(|()| places.take(alice, NOW));
        let hers = futures::future::try_join_all(hers).await.unwrap();
        let text = refusal(&places, alice).await;
        assert!(
            text.contains("lanes.tenant_transactions_max (now 2)"),
            "{text}"
        );
        let his = [(); 2].map(|()| places.take(bob, NOW));
        let his = futures::future::try_join_all(his).await.unwrap();

        // All are taken, and one who has none gets one, and not two.
        let shared = places.take(Lane::Global, NOW).await.unwrap();
        let text = refusal(&places, Lane::Global).await;
        assert!(text.contains("lanes.transactions_max (now 4)"), "{text}");
        drop((hers, his, shared));

        // The lane's own writer has all.
        let own = [(); 4].map(|()| places.take(Lane::Global, NOW));
        let own = futures::future::try_join_all(own).await.unwrap();
        assert!(
            refusal(&places, Lane::Global)
                .await
                .contains("lanes.transactions_max")
        );
        drop(own);
        assert!(places.state.lock().held.is_empty());
    }

    #[tokio::test]
    async fn a_free_place_goes_past_those_who_may_not_have_it() {
        let (alice, bob) = (Lane::Tenant(alice()), Lane::Tenant(bob()));
        let places = places(3, 2);
        let patience = Duration::from_secs(600);
        let hers = places.take(alice, NOW).await.unwrap();
        let _hers_too = places.take(alice, NOW).await.unwrap();
        let his = places.take(bob, NOW).await.unwrap();
        let mut third = Box::pin(places.take(alice, patience));
        let mut second = Box::pin(places.take(bob, patience));
        assert!(futures::poll!(third.as_mut()).is_pending());
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(his);
        // He has none now, and she has what she may.
        let his = second.await.unwrap();
        assert!(futures::poll!(third.as_mut()).is_pending());
        // One who stops waiting keeps nothing.
        let mut fourth = Box::pin(places.take(bob, patience));
        assert!(futures::poll!(fourth.as_mut()).is_pending());
        drop(fourth);
        drop(hers);
        let third = third.await.unwrap();
        assert_eq!(places.state.lock().total, 3);
        drop((third, his));
    }
}
