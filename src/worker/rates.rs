//! The rates of clients: their buckets, and the clients that are not read until their bytes are within the limit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::auth::{Allowance, ClientRates, Rate, RateLimits};
use crate::config::limits::PACED_PER_TURN_MAX;
use crate::connection::{Flags, Pause};
use crate::driver::SocketId;
use crate::telemetry::Counters;

use super::table::Table;

/// The rates of a worker's clients.
#[derive(Debug, Default)]
pub struct Rates {
    clients: ClientRates,
    /// Clients that are not read, by the moment at which they are read again, in microseconds.
    paced: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Rates {
    /// What a client may ask for at the moment; `None` without limits. Addresses for administration have none.
    pub fn allowance(
        &mut self,
        client: u32,
        flags: Flags,
        limits: RateLimits,
        now_us: u64,
    ) -> Option<Allowance<'_>> {
        let is_limited = limits.limits_requests() && !flags.is_admin();
        is_limited.then_some(Allowance { rates: &mut self.clients, client, limits, now_us })
    }

    /// Counts bytes that were received from a client, which is not read for a while if it sends too fast.
    pub fn pace(
        &mut self,
        id: SocketId,
        count: usize,
        limits: &RateLimits,
        now_us: u64,
        table: &mut Table,
        counters: &Counters,
    ) {
        let flags = table.at(id.index).flags;
        if flags.is_open()
            && !flags.is_admin()
            && let Some(resume_us) = self.clients.take_bytes(id.index, count, limits, now_us)
        {
            counters.rates_exceeded[Rate::Bytes as usize].add(1);
            table.pause(id.index, Pause::Rate);
            self.paced.push(Reverse((resume_us, id.index, id.generation)));
        }
    }

    /// Reads clients again whose time has come, and drops buckets that are full.
    pub fn resume(&mut self, now_us: u64, tick: u32, table: &mut Table) {
        self.clients.tidy(now_us);
        for _ in 0..PACED_PER_TURN_MAX {
            let Some(Reverse((at, index, generation))) = self.paced.peek().copied() else { break };
            if at > now_us {
                break;
            }
            self.paced.pop();
            if table.is_open(SocketId { index, generation }) {
                table.unpause(index, Pause::Rate, tick);
            }
        }
    }

    /// Microseconds until a client is to be read again.
    pub fn wait_us(&self, now_us: u64) -> Option<u64> {
        self.paced.peek().map(|Reverse((at, ..))| at.saturating_sub(now_us))
    }

    /// A connection has ended.
    pub fn remove(&mut self, client: u32) {
        self.clients.remove(client);
    }
}
