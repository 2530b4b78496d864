//! Sealed handles: the tickets and prepared statements that clients hold for us.
//!
//! A handle is all the state that a statement has between two calls, so that
//! nothing is kept per statement. It is readable by its holder and changeable by
//! nobody: a MAC, under a key that lives as long as the process, covers every
//! byte. Architecture invariant: a handle grants nothing by itself. It says whom
//! it was issued to, and is refused unless the request that shows it was admitted
//! as the same principal, tenant, session and binding.
//!
//! Deliberately absent: encryption, since a handle holds nothing that its holder
//! did not send; and revocation, since rebinding the session and time do that.

use arrow_flight::sql::SubstraitPlan;
use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use uuid::Uuid;

use crate::engine::NameDefaults;
use crate::error::{Error, Result};
use crate::tenant::{Scope, TenantId};

/// The first byte of every handle, which names the layout of the rest.
const LAYOUT: u8 = 1;
const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + MAC_BYTES;

/// What a handle is for. One kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// A statement ready to run: the content of a Flight ticket.
    Ticket = 1,
    /// A prepared statement, with or without parameters.
    Prepared = 2,
    /// A transaction: its number is all the content.
    Transaction = 3,
    /// A savepoint of a transaction: its name is the text.
    Savepoint = 4,
}

/// The statement that a handle stands for.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Content {
    /// The statement's text as it was sent.
    #[prost(string, tag = "1")]
    pub sql: String,
    /// The catalog that bare names are looked up in.
    #[prost(string, tag = "2")]
    pub catalog: String,
    /// The schema that bare names are looked up in.
    #[prost(string, tag = "3")]
    pub schema: String,
    /// One row of parameters as an Arrow IPC stream, once they are bound.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub parameters: Option<Bytes>,
    /// Tells two handles of one statement apart.
    #[prost(uint64, tag = "5")]
    pub serial: u64,
    /// The number of the transaction that it is part of.
    #[prost(uint64, optional, tag = "6")]
    pub transaction: Option<u64>,
    /// Whether the ticket is good for one run, since what it runs is not a query.
    #[prost(bool, tag = "7")]
    pub writes: bool,
    /// The query as a plan of Substrait, where it has no text.
    #[prost(message, optional, tag = "8")]
    pub plan: Option<SubstraitPlan>,
}

impl Content {
    /// The names that the statement was prepared with.
    pub fn names(&self) -> NameDefaults {
        NameDefaults {
            catalog: self.catalog.clone(),
            schema: self.schema.clone(),
        }
    }
}

/// The request that shows or asks for a handle, as it was admitted. It has no
/// debug output, which would show the session's id.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub scope: &'a Scope,
    pub session: Option<&'a str>,
    pub generation: u64,
}

/// A handle's plain content, and the MAC that names the handle itself.
pub(super) struct Opened {
    pub content: Content,
    pub id: [u8; MAC_BYTES],
}

/// Seals and opens handles under one key.
pub(super) struct Sealer {
    keyed: Hmac<Sha256>,
    bytes_max: usize,
}

impl Sealer {
    /// A sealer with a key of its own, for handles of up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        // Four random UUIDs hold 488 random bits, well over the 256 that count.
        let mut key = [0_u8; 64];
        for part in key.chunks_exact_mut(16) {
            part.copy_from_slice(Uuid::new_v4().as_bytes());
        }
        Self::with_key(&key, bytes_max)
    }

    pub(super) fn with_key(key: &[u8; 64], bytes_max: usize) -> Self {
        let keyed = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Sealer { keyed, bytes_max }
    }

    /// A handle for `content` that `holder` may show until `expires_ms`.
    pub fn seal(
        &self,
        holder: &Holder<'_>,
        kind: Kind,
        content: Content,
        expires_ms: u64,
    ) -> Result<Bytes> {
        let claims = Claims {
            kind: kind as u32,
            principal: holder.scope.principal().name().to_owned(),
            tenant: holder.scope.tenant().map(tenant_bytes),
            session: holder.session.map(str::to_owned),
            generation: holder.generation,
            expires_ms,
            content: Some(content),
        };
        let bytes = HEADER_BYTES + claims.encoded_len();
        if bytes > self.bytes_max {
            return Err(Error::ResourceExhausted(format!(
                "the statement and its parameters take {bytes} bytes, more than the {} that a \
                 handle may have: send less, or raise server.message_bytes_max",
                self.bytes_max
            )));
        }
        let mut handle = BytesMut::with_capacity(bytes);
        handle.put_u8(LAYOUT);
        handle.put_bytes(0, MAC_BYTES);
        claims
            .encode(&mut handle)
            .expect("a growable buffer has room");
        let mac = self.mac(&handle[HEADER_BYTES..]).finalize().into_bytes();
        handle[1..HEADER_BYTES].copy_from_slice(&mac);
        Ok(handle.freeze())
    }

    /// The content of `handle`, if it is one of ours, unchanged, of `kind`,
    /// issued to `holder`, and in time.
    pub fn open(
        &self,
        holder: &Holder<'_>,
        kind: Kind,
        now_ms: u64,
        handle: &[u8],
    ) -> Result<Opened> {
        let (claims, id) = self.authentic(kind, handle)?;
        if !claims.issued_to(holder) {
            return Err(Error::FailedPrecondition(
                "the handle was issued before the session was bound anew, or to another session: \
                 prepare the statement again"
                    .into(),
            ));
        }
        if now_ms >= claims.expires_ms {
            return Err(Error::FailedPrecondition(
                "the handle has expired: prepare the statement again".into(),
            ));
        }
        let content = claims.content.ok_or_else(changed)?;
        Ok(Opened { content, id })
    }

    /// The content of `handle`, if it is one of ours, unchanged, of `kind`, and
    /// issued to the session of `holder` under whatever binding.
    pub fn open_of_session(
        &self,
        holder: &Holder<'_>,
        kind: Kind,
        handle: &[u8],
    ) -> Option<Content> {
        let (claims, _) = self.authentic(kind, handle).ok()?;
        let of_session = claims.principal == holder.scope.principal().name()
            && claims.session.as_deref() == holder.session;
        claims.content.filter(|_| of_session)
    }

    /// The id of `handle` if it is one of ours, whoever shows it and whenever.
    pub fn id(&self, kind: Kind, handle: &[u8]) -> Result<[u8; MAC_BYTES]> {
        self.authentic(kind, handle).map(|(_, id)| id)
    }

    fn authentic(&self, kind: Kind, handle: &[u8]) -> Result<(Claims, [u8; MAC_BYTES])> {
        if handle.len() > self.bytes_max || handle.first() != Some(&LAYOUT) {
            return Err(changed());
        }
        let Some((mac, payload)) = handle[1..].split_first_chunk::<MAC_BYTES>() else {
            return Err(changed());
        };
        self.mac(payload).verify_slice(mac).map_err(|_| changed())?;
        // Nothing is parsed before the MAC has vouched for it.
        let claims = Claims::decode(payload).map_err(|_| changed())?;
        if claims.kind != kind as u32 {
            return Err(changed());
        }
        Ok((claims, *mac))
    }

    fn mac(&self, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(&[LAYOUT]);
        mac.update(payload);
        mac
    }
}

/// What the MAC covers, besides the layout byte.
#[derive(Clone, PartialEq, Message)]
struct Claims {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    principal: String,
    #[prost(bytes = "bytes", optional, tag = "3")]
    tenant: Option<Bytes>,
    #[prost(string, optional, tag = "4")]
    session: Option<String>,
    #[prost(fixed64, tag = "5")]
    generation: u64,
    #[prost(fixed64, tag = "6")]
    expires_ms: u64,
    #[prost(message, optional, tag = "7")]
    content: Option<Content>,
}

impl Claims {
    fn issued_to(&self, holder: &Holder<'_>) -> bool {
        self.principal == holder.scope.principal().name()
            && self.tenant == holder.scope.tenant().map(tenant_bytes)
            && self.session.as_deref() == holder.session
            && self.generation == holder.generation
    }
}

fn tenant_bytes(tenant: TenantId) -> Bytes {
    Bytes::copy_from_slice(tenant.as_bytes())
}

fn changed() -> Error {
    Error::InvalidArgument(
        "the handle was not issued by this server since it started, or was changed on the way: \
         prepare the statement again"
            .into(),
    )
}

/// Bytes that have the MAC of `sealer` as if it had sealed them: what a handle would say
/// if its MAC did not keep strangers out.
#[cfg(any(test, fuzzing))]
pub(super) fn signed(sealer: &Sealer, payload: &[u8]) -> Bytes {
    let mac = sealer.mac(payload).finalize().into_bytes();
    [&[LAYOUT][..], &mac, payload].concat().into()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;
    use crate::tenant::Principal;

    const ALICE: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
    const BOB: &str = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b";

    fn sealer() -> Sealer {
        Sealer::with_key(&[7; 64], 4096)
    }

    fn scope_of(tenant: &str) -> Scope {
        let tenant = TenantId::from_str(tenant).unwrap();
        Scope::tenant_bound(Principal::trusted_network(), tenant)
    }

    fn content() -> Content {
        Content {
            sql: "select * from inbox where id = ?".into(),
            catalog: "mutable".into(),
            schema: "public".into(),
            parameters: Some(Bytes::from_static(b"row")),
            serial: 3,
            transaction: None,
            writes: false,
            plan: None,
        }
    }

    fn holder(scope: &Scope) -> Holder<'_> {
        Holder {
            scope,
            session: Some("s1"),
            generation: 5,
        }
    }

    #[test]
    fn a_handle_opens_for_its_holder_alone() {
        let (alice, bob) = (scope_of(ALICE), scope_of(BOB));
        let global = Scope::global(Principal::trusted_network());
        let sealer = sealer();
        let own = holder(&alice);
        let handle = sealer.seal(&own, Kind::Ticket, content(), 1000).unwrap();

        let opened = sealer.open(&own, Kind::Ticket, 999, &handle).unwrap();
        assert_eq!(opened.content, content());

        let rebound = "the handle was issued before the session was bound anew, or to another \
                       session: prepare the statement again";
        let expired = "the handle has expired: prepare the statement again";
        let changed = changed().to_string();
        let check = |shown_by: Holder<'_>, kind, now_ms, want: &str| {
            let Err(error) = sealer.open(&shown_by, kind, now_ms, &handle) else {
                panic!("opened, where {want:?} was expected");
            };
            assert_eq!(error.to_string(), want);
        };
        check(Holder { scope: &bob, ..own }, Kind::Ticket, 0, rebound);
        check(
            Holder {
                scope: &global,
                ..own
            },
            Kind::Ticket,
            0,
            rebound,
        );
        check(
            Holder {
                session: Some("s2"),
                ..own
            },
            Kind::Ticket,
            0,
            rebound,
        );
        check(
            Holder {
                session: None,
                ..own
            },
            Kind::Ticket,
            0,
            rebound,
        );
        check(
            Holder {
                generation: 6,
                ..own
            },
            Kind::Ticket,
            0,
            rebound,
        );
        // Whose the handle was is not told by telling first that it expired.
        check(Holder { scope: &bob, ..own }, Kind::Ticket, 2000, rebound);
        check(own, Kind::Ticket, 1000, expired);
        check(own, Kind::Prepared, 0, &changed);
    }

    #[test]
    fn another_server_or_layout_is_refused() {
        let alice = scope_of(ALICE);
        let handle = sealer()
            .seal(&holder(&alice), Kind::Ticket, content(), 1000)
            .unwrap();
        let other = Sealer::new(4096);
        assert!(
            other
                .open(&holder(&alice), Kind::Ticket, 0, &handle)
                .is_err()
        );
        for cut in 0..handle.len() {
            let cut = &handle[..cut];
            assert!(
                sealer()
                    .open(&holder(&alice), Kind::Ticket, 0, cut)
                    .is_err()
            );
        }
    }

    #[test]
    fn a_handle_has_a_largest_size() {
        let alice = scope_of(ALICE);
        let content = Content {
            sql: "x".repeat(5000),
            ..content()
        };
        let error = sealer()
            .seal(&holder(&alice), Kind::Ticket, content, 1000)
            .unwrap_err();
        assert!(matches!(error, Error::ResourceExhausted(_)), "{error}");
        assert!(error.to_string().contains("server.message_bytes_max"));
        let long = vec![LAYOUT; 5000];
        assert!(
            sealer()
                .open(&holder(&alice), Kind::Ticket, 0, &long)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(bit in 0_usize..8 * 256, sql in ".{0,40}") {
            let alice = scope_of(ALICE);
            let content = Content { sql, ..content() };
            let sealer = sealer();
            let handle = sealer.seal(&holder(&alice), Kind::Prepared, content, 1000).unwrap();
            let mut edited = handle.to_vec();
            let bit = bit % (8 * edited.len());
            edited[bit / 8] ^= 1 << (bit % 8);
            let refused = sealer.open(&holder(&alice), Kind::Prepared, 0, &edited);
            let Err(Error::InvalidArgument(text)) = refused else {
                panic!("an edited handle was not refused as one");
            };
            prop_assert_eq!(text, changed().to_string());
        }
    }
}
