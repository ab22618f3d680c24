//! The home side of channels: this worker numbers the publications of these channels, keeps their histories, and knows
//! which workers have subscribers of them. Payloads come in, numbered publications with the workers to send them to go
//! out.

use std::sync::Arc;

use slab::Slab;

use super::history::Histories;
use super::idempotency::Idempotency;
use super::name_table::{ChannelHash, NameTable, Named};
use super::positions::{PositionLimits, Positions};
use super::settings::{HubLimits, HubSettings};
use super::slots::{NONE, slot, some};
use crate::config::limits::{
    IDEMPOTENCY_BYTES_FLOOR, OVERDUE_PER_TURN_MAX, SHARE_BESIDE_HISTORY_DIVISOR, WORKERS_MAX,
};
use crate::config::{ChannelOptions, NamespaceId, Namespaces, RecoveryMode};
use crate::message::{
    ChannelName, ClientId, ClientInfo, Epoch, HistoryQuery, Payload, Position, Publication,
    PublishOptions, Recovery, Refusal, Reply, TagsFilter, Version, WorkerId,
};

/// The channels whose home is this worker.
#[derive(Debug)]
pub(super) struct Streams {
    channels: Slab<Stream>,
    /// The number of channels for which address space is reserved.
    channels_min: usize,
    names: NameTable,
    histories: Histories,
    idempotency: Idempotency,
    /// Where channels that are gone go on if they come back.
    positions: Positions,
    namespaces: Arc<Namespaces>,
    hash: ChannelHash,
    /// The number of epochs that were created.
    epochs: u64,
}

#[derive(Debug)]
struct Stream {
    name: ChannelName,
    position: Position,
    interested: Workers,
    /// The slot of its history, or [`NONE`].
    history: u32,
    namespace: NamespaceId,
}

/// A set of workers. Two halves have a smaller alignment than one `u128`, which would make streams larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workers([u64; 2]);

const _: () = assert!(WORKERS_MAX <= 128, "one bit a worker");

/// Where a publication comes from.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The client, or the one over which the server API was called.
    pub client: ClientId,
    /// What subscribers see of it; `None` if the server API publishes.
    pub info: Option<Arc<ClientInfo>>,
}

/// The result of numbering a publication.
#[derive(Debug)]
pub(super) enum Numbered {
    /// The publication was numbered; these workers have subscribers.
    New(Arc<Publication>, Workers),
    /// It repeats the publication at this position.
    Known(Position),
    /// Its version is not newer than the channel's, whose stream has this position.
    Outdated(Position),
}

impl Workers {
    pub(super) fn len(self) -> u16 {
        let [low, high] = self.0;
        u16::try_from(low.count_ones() + high.count_ones()).expect("at most 128")
    }

    pub(super) fn iter(self) -> impl Iterator<Item = WorkerId> {
        let [low, high] = self.0;
        let mut left = u128::from(low) | u128::from(high) << 64;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let worker = left.trailing_zeros();
            left &= left - 1;
            Some(WorkerId(u16::try_from(worker).expect("fewer than 128")))
        })
    }

    fn insert(&mut self, WorkerId(worker): WorkerId) {
        self.0[usize::from(worker / 64)] |= 1 << (worker % 64);
    }

    fn remove(&mut self, WorkerId(worker): WorkerId) {
        self.0[usize::from(worker / 64)] &= !(1 << (worker % 64));
    }
}

impl Named for Stream {
    fn name(&self) -> &ChannelName {
        &self.name
    }
}

impl Streams {
    /// Reserves address space for as many channels as there may be sessions.
    pub(super) fn new(settings: &HubSettings) -> Self {
        let namespaces = settings.namespaces.clone();
        Self {
            channels: Slab::with_capacity(settings.sessions_max),
            channels_min: settings.sessions_max,
            names: NameTable::new(&settings.hash),
            histories: Histories::new(namespaces.all().len()),
            idempotency: Idempotency::new(),
            positions: Positions::new(),
            namespaces,
            hash: settings.hash,
            epochs: 0,
        }
    }

    /// Adds a worker with subscribers. Returns the position after which it will receive all publications.
    pub(super) fn add_interest(
        &mut self,
        name: &ChannelName,
        from: WorkerId,
        limits: &HubLimits,
        now_ms: u64,
    ) -> Position {
        let key = self.find_or_add(name, limits, now_ms);
        let channel = &mut self.channels[key as usize];
        channel.interested.insert(from);
        channel.position
    }

    /// Removes a worker. Without workers, a channel is removed, unless it has a history: then it is kept for the time
    /// to live of the history, so that clients that reconnect can recover.
    pub(super) fn remove_interest(&mut self, name: &ChannelName, from: WorkerId, now_ms: u64) {
        let Some(key) = self.names.find(name, &self.channels) else { return };
        let channel = &mut self.channels[key as usize];
        channel.interested.remove(from);
        if channel.interested != Workers::default() {
            return;
        }
        if self.options(key).history_size > 0 {
            self.keep(key, now_ms);
        } else {
            self.remove(key);
        }
    }

    /// Whether a channel has subscribers on any worker.
    pub(super) fn is_occupied(&self, name: &ChannelName) -> bool {
        self.interested(name) != Workers::default()
    }

    /// The workers with subscribers of a channel.
    pub(super) fn interested(&self, name: &ChannelName) -> Workers {
        let key = self.names.find(name, &self.channels);
        key.map_or_else(Workers::default, |key| self.channels[key as usize].interested)
    }

    /// Numbers a publication, and keeps it if its channel has a history, unless it is to skip that. It is dropped if it
    /// repeats another one, or if the history has its version or a newer one.
    pub(super) fn number(
        &mut self,
        name: ChannelName,
        mut payload: Payload,
        publisher: Option<Publisher>,
        options: Option<&PublishOptions>,
        limits: &HubLimits,
        now_us: u64,
    ) -> Numbered {
        let (now_ms, accepted_us) = (now_us / 1000, now_us as u32);
        let idempotency_key = options.and_then(|options| options.idempotency_key.as_ref());
        let known = idempotency_key.and_then(|key| self.idempotency.find(&name, key, now_ms));
        if let Some(position) = known {
            return Numbered::Known(position);
        }
        let namespace = namespace_of(&self.namespaces, &name);
        let channel_options = self.namespaces.options(namespace);
        let has_history = channel_options.history_size > 0;
        let skips = has_history && options.is_some_and(|options| options.skip_history);
        let keeps = has_history && !skips;
        payload.is_delta_allowed =
            channel_options.delta_publish || options.is_some_and(|options| options.delta);
        let (publisher, info) = publisher.map_or((None, None), |it| (Some(it.client), it.info));
        let publisher = publisher.filter(|_| channel_options.exclude_publisher);
        let excludes = options.and_then(|options| options.exclude).or(publisher);
        let version = options.and_then(|options| options.version.as_ref()).filter(|_| keeps);
        let key = match self.names.find(&name, &self.channels) {
            None if keeps => Some(self.add(&name, limits, now_ms)),
            Some(key) if version.is_some_and(|version| self.is_outdated(key, version)) => {
                self.keep(key, now_ms);
                return Numbered::Outdated(self.channels[key as usize].position);
            }
            found => found,
        };
        let (position, interested) = match key {
            Some(key) => {
                let channel = &mut self.channels[key as usize];
                channel.position.offset += u64::from(!skips);
                (channel.position, channel.interested)
            }
            None if skips => (Position::NOWHERE, Workers::default()),
            // Without subscribers and history, the stream has one publication and ends at once.
            None => (Position { epoch: self.new_epoch(&name), offset: 1 }, Workers::default()),
        };
        if let Some(key) = idempotency_key {
            let bytes_max = key_bytes_max(limits);
            let reply = if skips { Position::NOWHERE } else { position };
            self.idempotency.insert(name.clone(), key.clone(), reply, bytes_max, now_ms);
        }
        let publication = Arc::new(Publication {
            channel: name,
            position,
            payload,
            info,
            accepted_us,
            excludes,
            in_stream: !skips,
        });
        if keeps && let Some(key) = key {
            let history = self.history(key, now_ms);
            let options = self.namespaces.options(namespace);
            self.histories.push(history, options, publication.clone(), now_ms);
            if let Some(version) = version {
                self.histories.set_version(history, version);
            }
        }
        Numbered::New(publication, interested)
    }

    /// The position of the stream, and those publications between `since` and it that fit the filter; or the latest
    /// one that does, as the channel's options say, of which `recovers` replaces `recovery`. If the recovery has more
    /// and no publication that fits, the position is the one from which to go on.
    pub(super) fn recover(
        &mut self,
        name: &ChannelName,
        since: Position,
        recovers: Option<bool>,
        filter: Option<&TagsFilter>,
        limits: &HubLimits,
        now_ms: u64,
    ) -> (Position, Recovery) {
        let bytes_max = limits.answer_bytes_max;
        let key = self.find_or_add(name, limits, now_ms);
        let Stream { position, history, namespace, .. } = self.channels[key as usize];
        let options = self.namespaces.options(namespace);
        let is_possible = since.epoch.fits(position.epoch);
        let is_cache = options.recovery_mode == RecoveryMode::Cache;
        let recovery = match some(history) {
            _ if !options.is_recoverable_with(recovers) => Recovery::impossible(),
            _ if is_cache && since == position && since.offset > 0 => Recovery::of_nothing(),
            Some(history) if is_cache => {
                let limit = filter.is_none().then_some(1);
                let query = HistoryQuery { since: None, limit, reverse: true };
                latest(&self.histories.read(history, options, query, bytes_max, now_ms), filter)
            }
            None if is_cache => Recovery::impossible(),
            Some(history) => {
                let since = is_possible.then_some(since.offset);
                let last = position.offset;
                self.histories.recover(history, options, since, last, bytes_max, now_ms)
            }
            // The history is gone, but the subscriber may have received everything.
            None if is_possible && since.offset == position.offset => Recovery::of_nothing(),
            None => Recovery::impossible(),
        };
        let Some(filter) = filter else { return (position, recovery) };
        let last = recovery.publications.last().map(|last| last.position);
        let recovery = filtered(recovery, filter);
        match last {
            Some(last) if recovery.has_more && recovery.publications.is_empty() => (last, recovery),
            _ => (position, recovery),
        }
    }

    /// Whether clients can recover from a position in the channel. `recovers` replaces its option `recovery`.
    pub(super) fn is_recoverable(&self, name: &ChannelName, recovers: Option<bool>) -> bool {
        let options = self.namespaces.options(namespace_of(&self.namespaces, name));
        options.is_recoverable_with(recovers)
    }

    /// Reads the channel's history.
    pub(super) fn read(
        &mut self,
        name: &ChannelName,
        query: HistoryQuery,
        limits: &HubLimits,
        now_ms: u64,
    ) -> Reply {
        let key = self.find_or_add(name, limits, now_ms);
        // The client may recover from the position that it reads here.
        if self.channels[key as usize].interested == Workers::default() {
            self.keep(key, now_ms);
        }
        let Stream { position, history, namespace, .. } = self.channels[key as usize];
        // After a position beyond the last publication there is nothing, as in Centrifugo's memory broker.
        if query.since.is_some_and(|since| !since.epoch.fits(position.epoch)) {
            return Reply::Refused(Refusal::PositionUnrecoverable);
        }
        // Nor is there before one that is more than one publication beyond it.
        let is_beyond = query.reverse
            && query.since.is_some_and(|since| since.offset > position.offset.saturating_add(1));
        let options = self.namespaces.options(namespace);
        let publications = match some(history) {
            Some(history) if !is_beyond => {
                self.histories.read(history, options, query, limits.answer_bytes_max, now_ms)
            }
            _ => Arc::new([]),
        };
        Reply::History { position, publications }
    }

    /// Removes all publications from the channel's history.
    pub(super) fn forget(&mut self, name: &ChannelName) {
        if let Some(key) = self.names.find(name, &self.channels)
            && let Some(history) = some(self.channels[key as usize].history)
        {
            self.histories.clear(history);
        }
    }

    /// Removes histories, positions and idempotency keys that have expired or whose memory is needed, a few in each
    /// turn. Returns whether there may be more.
    pub(super) fn expire(&mut self, limits: &HubLimits, now_ms: u64) -> bool {
        let mut has_more = self.idempotency.expire(key_bytes_max(limits), now_ms);
        has_more |= self.positions.expire(position_limits(limits), now_ms);
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let (all, bytes_max) = (self.namespaces.all(), limits.history_bytes_max);
            let Some(key) = self.histories.overdue(all, bytes_max, now_ms) else {
                return has_more;
            };
            let channel = &mut self.channels[key as usize];
            let is_needed = self.histories.bytes() > bytes_max;
            if channel.interested != Workers::default()
                && !is_needed
                && self.histories.version(channel.history).is_some()
            {
                // The version lasts as long as the stream.
                self.histories.clear(channel.history);
                self.histories.touch(channel.history, now_ms);
                continue;
            }
            self.histories.close(std::mem::replace(&mut channel.history, NONE));
            if channel.interested == Workers::default() {
                let (hash, position) = (self.hash.of(channel.name.as_str()), channel.position);
                self.positions.park(hash, position, position_limits(limits), now_ms);
                self.remove(key);
            }
        }
        true
    }

    /// Releases the memory of removed channels and keys, if most were removed: in name tables all of it, in other
    /// tables what follows the last entry. No entry moves.
    pub(super) fn shrink(&mut self) {
        self.idempotency.shrink();
        self.positions.shrink();
        if self.histories.shrink() {
            self.names.shrink(&self.channels);
            self.channels.shrink_to_fit();
            self.channels.reserve_exact(self.channels_min.saturating_sub(self.channels.len()));
        }
    }

    /// Bytes of all histories.
    pub(super) fn history_bytes(&self) -> u64 {
        self.histories.bytes()
    }

    /// Bytes of all idempotency keys.
    pub(super) fn key_bytes(&self) -> u64 {
        self.idempotency.bytes()
    }

    /// Bytes of the positions of channels that are gone.
    pub(super) fn position_bytes(&self) -> u64 {
        self.positions.bytes()
    }

    /// The number of publications in all histories.
    pub(super) fn history_publications(&self) -> usize {
        self.histories.publications()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether the channel has this version or a newer one.
    fn is_outdated(&self, key: u32, version: &Version) -> bool {
        let history = some(self.channels[key as usize].history);
        let current = history.and_then(|history| self.histories.version(history));
        current.is_some_and(|current| !version.follows(current))
    }

    fn options(&self, key: u32) -> &ChannelOptions {
        self.namespaces.options(self.channels[key as usize].namespace)
    }

    fn find_or_add(&mut self, name: &ChannelName, limits: &HubLimits, now_ms: u64) -> u32 {
        let found = self.names.find(name, &self.channels);
        found.unwrap_or_else(|| self.add(name, limits, now_ms))
    }

    /// Adds a channel, which does not exist, but may have been there before.
    fn add(&mut self, name: &ChannelName, limits: &HubLimits, now_ms: u64) -> u32 {
        let hash = self.hash.of(name.as_str());
        let parked = self.positions.take(hash, position_limits(limits), now_ms);
        let position =
            parked.unwrap_or_else(|| Position { epoch: self.new_epoch(name), offset: 0 });
        let key = slot(self.channels.insert(Stream {
            name: name.clone(),
            position,
            interested: Workers::default(),
            history: NONE,
            namespace: namespace_of(&self.namespaces, name),
        }));
        self.names.insert(key, &self.channels);
        key
    }

    fn remove(&mut self, key: u32) {
        let channel = self.channels.remove(key as usize);
        self.names.remove(key, channel.name.as_str());
    }

    /// The slot of the channel's history, which is created if there is none.
    fn history(&mut self, key: u32, now_ms: u64) -> u32 {
        let channel = &mut self.channels[key as usize];
        if channel.history == NONE {
            channel.history = self.histories.open(key, channel.namespace, now_ms);
        }
        channel.history
    }

    /// Keeps a channel for another time to live of its history, even without subscribers.
    fn keep(&mut self, key: u32, now_ms: u64) {
        let history = self.history(key, now_ms);
        self.histories.touch(history, now_ms);
    }

    /// An epoch that differs from earlier ones of the channel, also from those before a restart, because the key of the
    /// hash is random.
    fn new_epoch(&mut self, name: &ChannelName) -> Epoch {
        self.epochs += 1;
        let mixed = self.hash.of(name.as_str()) ^ self.epochs.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let epoch = Epoch((mixed >> 32) as u32);
        // Two values are reserved.
        if [Epoch::NONE, Epoch::ANY].contains(&epoch) { Epoch(1) } else { epoch }
    }
}

/// The maximum bytes of idempotency keys: a fraction of that of histories, in addition to it.
fn key_bytes_max(limits: &HubLimits) -> u64 {
    (limits.history_bytes_max / SHARE_BESIDE_HISTORY_DIVISOR).max(IDEMPOTENCY_BYTES_FLOOR)
}

/// The recovery of the first of these publications that fits a filter.
fn latest(newest: &[Arc<Publication>], filter: Option<&TagsFilter>) -> Recovery {
    if newest.is_empty() {
        return Recovery::impossible();
    }
    let fits = |item: &&Arc<Publication>| filter.is_none_or(|filter| filter.selects(item));
    let publications = newest.iter().find(fits).cloned().into_iter().collect();
    Recovery { publications, ..Recovery::of_nothing() }
}

/// What a recovery has that fits a filter.
fn filtered(recovery: Recovery, filter: &TagsFilter) -> Recovery {
    let selected = recovery.publications.iter().filter(|item| filter.selects(item));
    let publications = selected.cloned().collect();
    Recovery { publications, ..recovery }
}

/// The limits of the positions of channels that are gone: a fraction of the memory of histories, in addition to it.
fn position_limits(limits: &HubLimits) -> PositionLimits {
    let bytes_max = limits.history_bytes_max / SHARE_BESIDE_HISTORY_DIVISOR;
    PositionLimits { bytes_max, ttl_s: limits.position_ttl.as_secs() }
}

fn namespace_of(namespaces: &Namespaces, name: &ChannelName) -> NamespaceId {
    // Requests with an unknown namespace were refused before.
    namespaces.find(name.as_str()).unwrap_or(NamespaceId(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_its_bit() {
        let mut workers = Workers::default();
        let all = [0, 1, 63, 64, 127].map(WorkerId);
        all.into_iter().for_each(|worker| workers.insert(worker));
        assert_eq!((workers.iter().collect::<Vec<_>>(), workers.len()), (all.to_vec(), 5));
        workers.remove(WorkerId(64));
        assert_eq!(workers.iter().collect::<Vec<_>>(), [0, 1, 63, 127].map(WorkerId));
    }

    #[test]
    fn a_channel_is_small_at_its_home() {
        // A million channels have this size a million times.
        assert!(size_of::<Option<Stream>>() <= 56, "{}", size_of::<Option<Stream>>());
    }
}
