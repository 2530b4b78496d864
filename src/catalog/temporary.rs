//! Whom temporary tables belong to, and where they are.
//!
//! Owners are known to the process that made them and to no other: what another
//! process left in a lane, or an earlier life of a session, has no owner here and is
//! never looked for.
//!
//! Invariant: a session whose life has ended never sees a table of it again, also
//! where its tables could not be removed yet.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use metrics::gauge;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::tenant::{Lane, Scope, SessionKey};

/// Whom a temporary table belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemporaryOwner {
    incarnation: Uuid,
    session: SessionKey,
    /// Which life of the session: a new one sees nothing of the last.
    life: Uuid,
}

impl TemporaryOwner {
    /// The session.
    pub fn session(&self) -> SessionKey {
        self.session
    }

    /// The owner as lanes record it.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}.{}.{}",
            self.incarnation.simple(),
            self.session.to_hex(),
            self.life.simple()
        )
    }
}

impl fmt::Debug for TemporaryOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemporaryOwner(..)")
    }
}

/// Which temporary tables of a lane are meant.
#[derive(Clone, Copy, Debug)]
pub enum Leftovers {
    /// Those of one life of a session.
    Of(TemporaryOwner),
    /// Those that a run of a process made.
    OfIncarnation(Uuid),
    /// All.
    All,
}

impl Leftovers {
    /// The pattern of SQLite's GLOB that their owners' texts have. The texts are
    /// hexadecimal digits and dots, which mean themselves in it.
    pub(crate) fn pattern(&self) -> String {
        match self {
            Leftovers::Of(owner) => owner.text(),
            Leftovers::OfIncarnation(id) => format!("{}.*", id.simple()),
            Leftovers::All => "*".to_owned(),
        }
    }
}

/// The sessions that have temporary tables. Clones share them.
#[derive(Clone, Debug)]
pub struct TemporarySessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    incarnation: Uuid,
    lives: DashMap<SessionKey, Life>,
    /// What is to be removed yet, and from where.
    ended: Mutex<HashMap<TemporaryOwner, HashSet<Lane>>>,
}

#[derive(Debug)]
struct Life {
    owner: TemporaryOwner,
    lanes: HashSet<Lane>,
    /// Unix time in milliseconds.
    used_ms: AtomicI64,
}

impl TemporarySessions {
    /// None yet, of this run of the process.
    pub fn new(incarnation: Uuid) -> Self {
        TemporarySessions(Arc::new(Shared {
            incarnation,
            lives: DashMap::new(),
            ended: Mutex::default(),
        }))
    }

    /// Whom a temporary table that `session` makes in `lane` belongs to.
    pub(crate) fn claim(&self, session: SessionKey, lane: Lane, now_ms: i64) -> TemporaryOwner {
        let mut life = self.0.lives.entry(session).or_insert_with(|| {
            gauge!("jammi_sessions_temporary").increment(1.0);
            Life {
                owner: TemporaryOwner {
                    incarnation: self.0.incarnation,
                    session,
                    life: Uuid::new_v4(),
                },
                lanes: HashSet::new(),
                used_ms: AtomicI64::new(now_ms),
            }
        });
        life.lanes.insert(lane);
        life.owner
    }

    /// Whom the temporary tables belong to that the scope sees, where there may be
    /// any: those of its session in the lane that it writes.
    pub(crate) fn owner(&self, scope: &Scope) -> Option<TemporaryOwner> {
        if self.0.lives.is_empty() {
            return None;
        }
        let life = self.0.lives.get(&scope.session()?)?;
        life.lanes.contains(&scope.writable()).then_some(life.owner)
    }

    /// Whether the session still has the life that `owner` is of.
    pub(crate) fn lives(&self, owner: &TemporaryOwner) -> bool {
        self.life(owner.session) == Some(*owner)
    }

    /// How many sessions have temporary tables.
    pub fn len(&self) -> usize {
        self.0.lives.len()
    }

    /// Whether no session has temporary tables.
    pub fn is_empty(&self) -> bool {
        self.0.lives.is_empty()
    }

    /// The life of the session, if it may have temporary tables.
    pub fn life(&self, session: SessionKey) -> Option<TemporaryOwner> {
        self.0.lives.get(&session).map(|life| life.owner)
    }

    /// Notes that the session is in use, unless it has not been for
    /// `idle_timeout_ms`: then its life ends.
    pub fn touch(&self, session: SessionKey, now_ms: i64, idle_timeout_ms: i64) {
        let is_over = match self.0.lives.get(&session) {
            None => return,
            Some(life) if life.is_idle(now_ms, idle_timeout_ms) => true,
            Some(life) => {
                life.used_ms.fetch_max(now_ms, Ordering::Relaxed);
                false
            }
        };
        if is_over {
            self.end_if(session, |life| life.is_idle(now_ms, idle_timeout_ms));
        }
    }

    /// Ends the life of the session. From now on nobody sees its tables.
    pub fn end(&self, session: SessionKey) {
        self.end_if(session, |_| true);
    }

    /// Ends the lives that have not been used for `idle_timeout_ms`.
    pub fn end_idle(&self, now_ms: i64, idle_timeout_ms: i64) {
        let idle: Vec<SessionKey> = self
            .0
            .lives
            .iter()
            .filter(|life| life.is_idle(now_ms, idle_timeout_ms))
            .map(|life| *life.key())
            .collect();
        for session in idle {
            self.end_if(session, |life| life.is_idle(now_ms, idle_timeout_ms));
        }
    }

    fn end_if(&self, session: SessionKey, which: impl Fn(&Life) -> bool) {
        let ended = self.0.lives.remove_if(&session, |_, life| which(life));
        if let Some((_, life)) = ended {
            gauge!("jammi_sessions_temporary").decrement(1.0);
            self.0.ended.lock().insert(life.owner, life.lanes);
        }
    }

    /// What is to be removed yet, and from where.
    pub(crate) fn ended(&self) -> Vec<(TemporaryOwner, Lane)> {
        let ended = self.0.ended.lock();
        ended
            .iter()
            .flat_map(|(owner, lanes)| lanes.iter().map(|lane| (*owner, *lane)))
            .collect()
    }

    /// Notes that nothing is left of `owner` in `lane`.
    pub(crate) fn removed(&self, owner: &TemporaryOwner, lane: Lane) {
        let mut ended = self.0.ended.lock();
        if let Some(lanes) = ended.get_mut(owner) {
            lanes.remove(&lane);
            if lanes.is_empty() {
                ended.remove(owner);
            }
        }
    }
}

impl Life {
    fn is_idle(&self, now_ms: i64, idle_timeout_ms: i64) -> bool {
        let idle_ms = now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed));
        self.owner.session.is_of_client() && idle_ms > idle_timeout_ms
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::tenant::{Principal, TenantId};

    fn lane(tenant: &str) -> Lane {
        Lane::Tenant(TenantId::from_str(tenant).unwrap())
    }

    fn scope(lane: Lane, session: SessionKey) -> Scope {
        let principal = Principal::trusted_network();
        match lane {
            Lane::Tenant(tenant) => Scope::tenant_bound(principal, tenant),
            Lane::Global => Scope::global(principal),
        }
        .in_session(Some(session))
    }

    #[test]
    fn tables_are_those_of_one_life_of_one_session_in_one_lane() {
        let alice = lane("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a");
        let bob = lane("018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b");
        let sessions = TemporarySessions::new(Uuid::new_v4());
        let [one, two] = [1, 2].map(|digit| SessionKey::from_digest([digit; 16]));
        let owner = sessions.claim(one, alice, 0);
        assert_eq!(sessions.claim(one, alice, 5), owner);
        assert_ne!(sessions.claim(two, alice, 5), owner);
        assert_eq!(sessions.owner(&scope(alice, one)), Some(owner));
        // Bound elsewhere, or to nothing, it sees none of them.
        assert_eq!(sessions.owner(&scope(bob, one)), None);
        assert_eq!(sessions.owner(&scope(Lane::Global, one)), None);
        assert_eq!(sessions.owner(&scope(alice, one).without_session()), None);

        // Use keeps it, and idleness ends it before anything is removed.
        sessions.touch(one, 90, 100);
        sessions.end_idle(180, 100);
        assert!(sessions.lives(&owner) && sessions.life(two).is_none());
        sessions.touch(one, 191, 100);
        assert_eq!(sessions.owner(&scope(alice, one)), None);
        assert!(sessions.ended().contains(&(owner, alice)));
        // One that is a value of the process ends with it alone.
        let own = sessions.claim(SessionKey::random(), alice, 0);
        sessions.end_idle(1_000, 100);
        assert!(sessions.lives(&own));
        // The same session id again is another life.
        let next = sessions.claim(one, alice, 200);
        assert_ne!(next, owner);
        assert!(sessions.lives(&next) && !sessions.lives(&owner));
        sessions.removed(&owner, alice);
        assert!(!sessions.ended().contains(&(owner, alice)));
    }

    #[test]
    fn nothing_that_is_recorded_tells_the_session_in_clear() {
        let sessions = TemporarySessions::new(Uuid::new_v4());
        let owner = sessions.claim(SessionKey::random(), Lane::Global, 0);
        let digits = |c: char| c.is_ascii_hexdigit() || c == '.';
        assert!(owner.text().chars().all(digits));
        assert_eq!(format!("{owner:?}"), "TemporaryOwner(..)");
    }
}
