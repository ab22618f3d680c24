//! Channels whose home is this worker: their numbers, and who wants them.

use slab::Slab;

use super::name_table::{ChannelHash, NameTable};
use crate::config::limits::WORKERS_MAX;
use crate::message::{ChannelName, Epoch, Payload, Position, Publication, WorkerId};

#[derive(Debug)]
pub(super) struct Homes {
    channels: Slab<HomeChannel>,
    names: NameTable,
    hash: ChannelHash,
    lives: u64,
}

#[derive(Debug)]
struct HomeChannel {
    position: Position,
    interested: Workers,
}

/// A set of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workers(u128);

const _: () = assert!(WORKERS_MAX <= 128, "one bit a worker");

impl Workers {
    pub(super) fn iter(self) -> impl Iterator<Item = WorkerId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let worker = left.trailing_zeros();
            left &= left - 1;
            Some(WorkerId(u16::try_from(worker).expect("fewer than 128")))
        })
    }
}

impl Homes {
    /// Address space is reserved for `channels` of them.
    pub(super) fn new(hash: &ChannelHash, channels: usize) -> Self {
        Self {
            channels: Slab::with_capacity(channels),
            names: NameTable::new(hash),
            hash: *hash,
            lives: 0,
        }
    }

    /// Where the stream stands for a worker that receives it from now on.
    pub(super) fn add_interest(&mut self, name: &ChannelName, from: WorkerId) -> Position {
        let key = match self.names.find(name) {
            Some(key) => key,
            None => {
                let position = Position { epoch: self.new_epoch(name), offset: 0 };
                let channel = HomeChannel { position, interested: Workers::default() };
                let key = super::index(self.channels.insert(channel));
                self.names.insert(name.clone(), key);
                key
            }
        };
        let channel = &mut self.channels[key as usize];
        channel.interested.0 |= 1 << from.0;
        channel.position
    }

    /// The last one to leave ends the channel's life.
    pub(super) fn remove_interest(&mut self, name: &ChannelName, from: WorkerId) {
        let Some(key) = self.names.find(name) else { return };
        let channel = &mut self.channels[key as usize];
        channel.interested.0 &= !(1 << from.0);
        if channel.interested == Workers::default() {
            self.channels.remove(key as usize);
            self.names.remove(name);
        }
    }

    /// Gives a payload its number.
    pub(super) fn number(
        &mut self,
        channel: ChannelName,
        payload: Payload,
    ) -> (Publication, Workers) {
        let (position, interested) = match self.names.find(&channel) {
            Some(key) => {
                let home = &mut self.channels[key as usize];
                home.position.offset += 1;
                (home.position, home.interested)
            }
            // Nobody listens and nothing is kept: a stream of one publication, over at once.
            None => {
                let position = Position { epoch: self.new_epoch(&channel), offset: 1 };
                (position, Workers::default())
            }
        };
        (Publication { channel, position, payload }, interested)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Differs between two lives of a channel, and between two runs, because the hash's key is drawn at start.
    fn new_epoch(&mut self, name: &ChannelName) -> Epoch {
        self.lives += 1;
        let mixed = self.hash.of(name.as_str()) ^ self.lives.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Epoch((mixed >> 32) as u32)
    }
}
