//! The network prefixes of a worker's connections, which have limits of their own.
//!
//! A connection is counted by the address of its socket as soon as it is accepted, before anything is read, so that a
//! rejected one costs two system calls. Trusted proxies and Unix sockets are not counted by their own address, but by
//! that of the client that the proxy names. Addresses for administration have no such limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tracing::warn;

use crate::auth::{Gate, PrefixKey, PrefixLimits, PrefixRefusal, PrefixTable};
use crate::config::Network;
use crate::connection::{Flags, Service};
use crate::telemetry::Counters;

use super::admission::Rejection;
use super::settings::WorkerSettings;

/// The prefixes of a worker's connections.
#[derive(Debug)]
pub struct Prefixes {
    table: Arc<PrefixTable>,
    counters: Arc<Counters>,
    /// By the slot of the connection, eight bytes each; none before the first connection is counted.
    keys: Vec<Option<PrefixKey>>,
    /// The number of slots, for which address space is reserved at once.
    places: usize,
}

/// A connection that its prefix counts, unless there are no limits, and that has no slot yet.
#[derive(Debug)]
#[must_use = "it is to be assigned to a slot, or given back"]
pub struct Counted(Option<PrefixKey>);

/// A connection is rejected, which has been counted and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

impl Prefixes {
    /// No connections yet; there may be as many as there are places.
    pub fn new(table: Arc<PrefixTable>, places: usize, counters: Arc<Counters>) -> Self {
        Self { table, counters, keys: Vec::new(), places }
    }

    /// Counts a connection that was accepted by the address of its socket, if that is to be counted.
    pub fn accept(
        &self,
        peer: Option<SocketAddr>,
        service: Service,
        settings: &WorkerSettings,
        now_us: u64,
    ) -> Result<Counted, Rejected> {
        let peer = peer.map(|peer| peer.ip());
        let is_exempt = !settings.prefixes.are_set()
            || service == Service::Admin
            || settings.trusts_proxy(peer);
        match peer {
            Some(address) if !is_exempt => self.count(address, &settings.prefixes, now_us),
            _ => Ok(Counted(None)),
        }
    }

    /// Takes the client that a header of the PROXY protocol names, by whose address its connection is counted. It may
    /// be another trusted proxy, which names its clients in requests; `None` if it is the proxy itself.
    pub fn name(
        &mut self,
        index: u32,
        client: Option<SocketAddr>,
        flags: &mut Flags,
        settings: &WorkerSettings,
        now_us: u64,
    ) -> Result<(), Rejected> {
        let Some(client) = client.map(|client| client.ip()) else { return Ok(()) };
        flags.set_proxied(settings.trusts_proxy(Some(client)));
        if settings.prefixes.are_set() && !flags.is_proxied() {
            let counted = self.count(client, &settings.prefixes, now_us)?;
            self.assign(index, counted, flags);
        }
        Ok(())
    }

    fn count(
        &self,
        address: IpAddr,
        limits: &PrefixLimits,
        now_us: u64,
    ) -> Result<Counted, Rejected> {
        let prefix = limits.prefix_of(address);
        match self.table.enter(prefix, limits, now_us) {
            Ok(key) => Ok(Counted(Some(key))),
            Err(refusal) => {
                self.note_rejection(refusal, prefix, now_us);
                Err(Rejected)
            }
        }
    }

    /// Counts a rejection, and logs it unless this second has a line already.
    pub fn note_rejection(&self, refusal: PrefixRefusal, prefix: Network, now_us: u64) {
        let rejection = Rejection::from(refusal);
        self.counters.connections_rejected[rejection as usize].add(1);
        if self.table.takes_warning(now_us) {
            let reason = rejection.label();
            warn!(reason, %prefix, "connections of a network prefix are rejected");
        }
    }

    /// The clients of a connection, if it is a trusted proxy's, for one step of its conversation.
    pub fn gate(
        &self,
        index: u32,
        flags: Flags,
        limits: PrefixLimits,
        now_us: u64,
    ) -> Option<Gate<'_>> {
        let current = || self.keys.get(index as usize).copied().flatten();
        flags.is_proxied().then(|| Gate { table: &self.table, limits, current: current(), now_us })
    }

    /// Takes the prefix for which a connection counts after a step.
    pub fn set(&mut self, index: u32, key: Option<PrefixKey>) {
        if key.is_some() {
            *self.slot(index) = key;
        } else if let Some(slot) = self.keys.get_mut(index as usize) {
            *slot = None;
        }
    }

    /// Gives back a connection that finds no slot.
    pub fn give_back(&self, counted: Counted) {
        if let Counted(Some(key)) = counted {
            self.table.leave(key, true);
        }
    }

    /// Assigns a counted connection to its slot.
    pub fn assign(&mut self, index: u32, counted: Counted, flags: &mut Flags) {
        if let Counted(key @ Some(_)) = counted {
            *self.slot(index) = key;
            flags.set_counts_handshake(true);
        }
    }

    fn slot(&mut self, index: u32) -> &mut Option<PrefixKey> {
        let index = index as usize;
        if self.keys.len() <= index {
            self.keys.reserve_exact(self.places.max(index + 1) - self.keys.len());
            self.keys.resize(index + 1, None);
        }
        &mut self.keys[index]
    }

    /// The handshake of a connection that counts it is complete.
    pub fn complete_handshake(&self, index: u32, flags: &mut Flags) {
        flags.set_counts_handshake(false);
        if let Some(Some(key)) = self.keys.get(index as usize) {
            self.table.complete_handshake(*key);
        }
    }

    /// A connection has ended.
    pub fn remove(&mut self, index: u32, flags: Flags) {
        if let Some(key) = self.keys.get_mut(index as usize).and_then(Option::take) {
            self.table.leave(key, flags.counts_handshake());
        }
    }
}
