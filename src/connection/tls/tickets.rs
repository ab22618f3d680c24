//! Session tickets: what lets a client come back without a full handshake, at any worker and any node that has the
//! secret.
//!
//! A ticket is the state of a session (RFC 5077, RFC 8446 4.6.1), encrypted with a key that follows from a secret and
//! from the period of [`PERIOD_SECONDS`] in which it is issued. It is accepted in that period and in the next one, and
//! in the one before, because the clocks of nodes differ.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

/// The secrets of tickets: the first issues them, all of them are accepted.
#[derive(Clone)]
pub struct TicketSecrets(Arc<[TicketSecret]>);

/// A secret, and by what its tickets are recognized.
struct TicketSecret {
    name: [u8; NAME_BYTES],
    root: Prk,
}

/// Seconds in which tickets are issued with the same key. One is accepted for as long at least, and for twice as long
/// at most.
const PERIOD_SECONDS: u64 = 6 * 60 * 60;

const NAME_BYTES: usize = 4;
/// The name of the secret, and the period.
const HEADER_BYTES: usize = NAME_BYTES + 4;
const KEY_BYTES: usize = 32;

thread_local! {
    /// The time of the step that is under way on this thread, in seconds since 1970.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Sets the time of the steps that follow on this thread, in seconds since 1970.
pub(super) fn set_now(unix_seconds: u64) {
    NOW.set(unix_seconds);
}

/// The time of the step, for what rustls does.
#[derive(Debug)]
pub(super) struct TimeOfStep;

impl TimeProvider for TimeOfStep {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW.get())))
    }
}

impl TicketSecrets {
    /// A secret drawn at random: its tickets end with the process.
    pub fn random() -> Self {
        let mut secret = [0; KEY_BYTES];
        rand::fill(&mut secret).expect("the system has a source of randomness");
        Self::new([&secret[..]])
    }

    /// Secrets that other processes have too. Without any, no ticket is issued.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"fantail session tickets");
        let secrets = secrets.into_iter().map(|secret| {
            let root = salt.extract(secret);
            let mut name = [0; NAME_BYTES];
            expand(&root, &[b"name"], &mut name);
            TicketSecret { name, root }
        });
        Self(secrets.collect())
    }

    fn key(&self, secret: &TicketSecret, period: [u8; 4]) -> LessSafeKey {
        let mut key = [0; KEY_BYTES];
        expand(&secret.root, &[b"key", &period], &mut key);
        let unbound = UnboundKey::new(&AES_256_GCM, &key).expect("the length is the cipher's");
        LessSafeKey::new(unbound)
    }
}

impl ProducesTickets for TicketSecrets {
    fn enabled(&self) -> bool {
        !self.0.is_empty()
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS as u32
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let secret = self.0.first()?;
        let period = period_now().to_be_bytes();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let header = [&secret.name[..], &period].concat();
        let mut sealed = state.to_vec();
        let (key, aad) = (self.key(secret, period), Aad::from(&header[..]));
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, aad, &mut sealed).ok()?;
        Some([&header[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = ticket.split_first_chunk::<HEADER_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (name, period) = header.split_at(NAME_BYTES);
        let period = period.try_into().expect("the rest of the header");
        if u32::from_be_bytes(period).abs_diff(period_now()) > 1 {
            return None;
        }
        self.0.iter().filter(|secret| secret.name == name).find_map(|secret| {
            let mut state = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened =
                self.key(secret, period).open_in_place(nonce, Aad::from(header), &mut state);
            opened.ok().map(|state| state.to_vec())
        })
    }
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TicketSecrets({})", self.0.len())
    }
}

/// The number of the period; it has 32 bits for 88 million years.
fn period_now() -> u32 {
    (NOW.get() / PERIOD_SECONDS) as u32
}

fn expand(root: &Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let expanded = root.expand(info, Length(out.len())).and_then(|okm| okm.fill(out));
    expanded.expect("a key is shorter than 255 hashes");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 20_000 * 86_400;

    fn secrets(secrets: &[&str]) -> TicketSecrets {
        TicketSecrets::new(secrets.iter().map(|secret| secret.as_bytes()))
    }

    #[test]
    fn the_first_secret_issues_and_all_are_accepted() {
        set_now(DAY);
        let (old, both, new) = (secrets(&["old"]), secrets(&["new", "old"]), secrets(&["new"]));
        let ticket = old.encrypt(b"state").unwrap();
        assert_eq!(ticket.len(), 5 + HEADER_BYTES + NONCE_LEN + 16);
        for (holder, is_accepted) in [(&old, true), (&both, true), (&new, false)] {
            assert_eq!(holder.decrypt(&ticket).as_deref(), is_accepted.then_some(&b"state"[..]));
        }
        let ticket = both.encrypt(b"state").unwrap();
        assert!(new.decrypt(&ticket).is_some() && old.decrypt(&ticket).is_none());
        assert_ne!(both.encrypt(b"state"), both.encrypt(b"state"), "a nonce is drawn each time");
    }

    #[test]
    fn a_ticket_ends_with_the_period_behind_its_own() {
        let holder = secrets(&["secret"]);
        set_now(DAY);
        let ticket = holder.encrypt(b"state").unwrap();
        let period = PERIOD_SECONDS;
        let times = [
            (DAY - period - 1, false),
            (DAY - period, true),
            (DAY + u64::from(holder.lifetime()), true),
            (DAY + 2 * period - 1, true),
            (DAY + 2 * period, false),
        ];
        for (now, is_accepted) in times {
            set_now(now);
            assert_eq!(holder.decrypt(&ticket).is_some(), is_accepted, "{now}");
        }
    }

    #[test]
    fn what_is_not_a_ticket_is_not_opened() {
        set_now(DAY);
        let holder = secrets(&["secret"]);
        let ticket = holder.encrypt(b"state").unwrap();
        for length in 0..ticket.len() {
            assert!(holder.decrypt(&ticket[..length]).is_none(), "{length}");
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(holder.decrypt(&changed).is_none(), "{at}");
        }
        assert!(TicketSecrets::random().decrypt(&ticket).is_none());
        assert!(!secrets(&[]).enabled() && secrets(&[]).encrypt(b"state").is_none());
        assert_eq!(format!("{holder:?}"), "TicketSecrets(1)");
    }
}
