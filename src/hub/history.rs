//! Histories: recent publications of channels, kept on their home workers for recovery and for reads.
//!
//! A history is a queue of publications without a gap. Publications that are too old, too many or too large are removed
//! when one is added or the history is read. Histories that are no longer used need no timers: those of a namespace
//! have the same time to live, so a list in the order of their last use has the next one to expire first. When all
//! histories together are too large, the least recently used one is removed.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::slots::{NONE, is_sparse, slot, some};
use crate::config::limits::{ANSWER_PUBLICATIONS_MAX, PUBLICATION_BYTES};
use crate::config::{ChannelOptions, NamespaceId};
use crate::message::{ClientInfo, HistoryQuery, Publication, Publications, Recovery, Version};

/// The histories of all channels whose home is this worker.
#[derive(Debug)]
pub(super) struct Histories {
    entries: Slab<History>,
    /// The list of each namespace's histories.
    ages: Vec<Age>,
    bytes: u64,
    publications: usize,
}

/// The history of one channel.
#[derive(Debug)]
struct History {
    /// The slot of the channel's stream.
    home: u32,
    namespace: NamespaceId,
    kept: VecDeque<Kept>,
    bytes: u64,
    touched_ms: u64,
    newer: u32,
    older: u32,
    /// The last recovery: clients that reconnect together recover from the same position.
    answer: Option<Answer>,
    /// The version of the last publication that had one.
    version: Option<Box<Version>>,
}

/// A recovery that is kept as long as the history has all of its publications.
#[derive(Debug)]
struct Answer {
    /// The offset of the request; `None` for the newest publications.
    since: Option<u64>,
    /// The cost of its publications.
    bytes: u64,
    publications: Publications,
}

#[derive(Debug)]
struct Kept {
    publication: Arc<Publication>,
    at_ms: u64,
}

/// The histories of one namespace, in the order of their last use.
#[derive(Clone, Copy, Debug)]
struct Age {
    oldest: u32,
    newest: u32,
}

impl Histories {
    pub(super) fn new(namespaces: usize) -> Self {
        Self {
            entries: Slab::new(),
            ages: vec![Age { oldest: NONE, newest: NONE }; namespaces],
            bytes: 0,
            publications: 0,
        }
    }

    /// Bytes of all histories, including their overhead.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of publications in all histories.
    pub(super) fn publications(&self) -> usize {
        self.publications
    }

    /// Creates a history for a channel that has none.
    pub(super) fn open(&mut self, home: u32, namespace: NamespaceId, now_ms: u64) -> u32 {
        let key = slot(self.entries.insert(History {
            home,
            namespace,
            kept: VecDeque::new(),
            bytes: HISTORY_BYTES,
            touched_ms: now_ms,
            newer: NONE,
            older: NONE,
            answer: None,
            version: None,
        }));
        self.bytes += HISTORY_BYTES;
        self.append(key);
        key
    }

    /// Marks a history as used, which keeps it for another time to live.
    pub(super) fn touch(&mut self, key: u32, now_ms: u64) {
        self.unlink(key);
        self.entries[key as usize].touched_ms = now_ms;
        self.append(key);
    }

    /// Adds the publication after the last one, and removes what the limits do not allow.
    pub(super) fn push(
        &mut self,
        key: u32,
        options: &ChannelOptions,
        publication: Arc<Publication>,
        now_ms: u64,
    ) {
        self.touch(key, now_ms);
        let history = &mut self.entries[key as usize];
        let before = (history.bytes, history.kept.len());
        history.answer = None;
        history.bytes += cost(&publication);
        history.kept.push_back(Kept { publication, at_ms: now_ms });
        history.trim(options, now_ms);
        self.bytes = self.bytes + history.bytes - before.0;
        self.publications = self.publications + history.kept.len() - before.1;
    }

    /// Removes publications that are too old, also from a history that is only read.
    fn trim(&mut self, key: u32, options: &ChannelOptions, now_ms: u64) {
        let history = &mut self.entries[key as usize];
        let before = (history.bytes, history.kept.len());
        history.trim(options, now_ms);
        self.bytes -= before.0 - history.bytes;
        self.publications -= before.1 - history.kept.len();
    }

    /// The version of the last publication that had one.
    pub(super) fn version(&self, key: u32) -> Option<&Version> {
        self.entries[key as usize].version.as_deref()
    }

    /// Sets the version, that of the last publication.
    pub(super) fn set_version(&mut self, key: u32, version: &Version) {
        let history = &mut self.entries[key as usize];
        let before = history.bytes;
        history.bytes -= history.version_bytes();
        history.version = Some(Box::new(version.clone()));
        history.bytes += history.version_bytes();
        self.bytes = self.bytes + history.bytes - before;
    }

    /// Removes all publications from a history.
    pub(super) fn clear(&mut self, key: u32) {
        let history = &mut self.entries[key as usize];
        let left = HISTORY_BYTES + history.version_bytes();
        self.bytes -= history.bytes - left;
        self.publications -= history.kept.len();
        history.bytes = left;
        history.kept = VecDeque::new();
        history.answer = None;
    }

    /// Removes a history.
    pub(super) fn close(&mut self, key: u32) {
        self.unlink(key);
        let history = self.entries.remove(key as usize);
        self.bytes -= history.bytes;
        self.publications -= history.kept.len();
    }

    /// Releases the memory after the last entry, if most entries were removed. Returns whether they were.
    pub(super) fn shrink(&mut self) -> bool {
        let is_sparse = is_sparse(self.entries.len(), self.entries.capacity());
        if is_sparse {
            self.entries.shrink_to_fit();
        }
        is_sparse
    }

    /// The slot of the stream whose history has to be removed, because it was not used for its time to live or because
    /// all histories together are too large. The caller closes it.
    pub(super) fn overdue(
        &self,
        all: &[ChannelOptions],
        bytes_max: u64,
        now_ms: u64,
    ) -> Option<u32> {
        let oldest = self.ages.iter().filter_map(|age| some(age.oldest));
        let mut histories = oldest.map(|key| &self.entries[key as usize]);
        if self.bytes > bytes_max {
            return histories.min_by_key(|history| history.touched_ms).map(|first| first.home);
        }
        histories
            .find(|history| {
                let options = &all[usize::from(history.namespace.0)];
                history.touched_ms + ttl_ms(options) < now_ms
            })
            .map(|history| history.home)
    }

    /// The publications after offset `since`, up to `bytes_max`. The channel's last publication has offset `last`.
    /// Without `since`, or if some of them are lost, the newest publications of the history.
    pub(super) fn recover(
        &mut self,
        key: u32,
        options: &ChannelOptions,
        since: Option<u64>,
        last: u64,
        bytes_max: u64,
        now_ms: u64,
    ) -> Recovery {
        self.trim(key, options, now_ms);
        if since == Some(last) {
            return Recovery::of_nothing();
        }
        let history = &mut self.entries[key as usize];
        let Some(first) = history.kept.front() else { return Recovery::impossible() };
        let first = first.publication.position.offset;
        let since = since.filter(|since| *since < last && since + 1 >= first);
        let publications = history.answer(since, first, bytes_max);
        // The newest publication in the history is the last one published: others are removed before it.
        let has_more = publications.last().is_some_and(|end| end.position.offset < last);
        Recovery { is_complete: since.is_some(), publications, has_more }
    }

    /// The publications that a query selects, as many as fit one reply.
    pub(super) fn read(
        &mut self,
        key: u32,
        options: &ChannelOptions,
        query: HistoryQuery,
        bytes_max: u64,
        now_ms: u64,
    ) -> Publications {
        self.trim(key, options, now_ms);
        let history = &self.entries[key as usize];
        let limit = query.limit.map_or(ANSWER_PUBLICATIONS_MAX, |limit| limit as usize);
        let mut bytes = 0;
        let mut fits = |publication: &Arc<Publication>| {
            bytes += cost(publication);
            // One always fits, so that a reader makes progress.
            bytes <= bytes_max || bytes == cost(publication)
        };
        let limit = limit.min(ANSWER_PUBLICATIONS_MAX);
        let since = query.since.map(|position| position.offset);
        let publications = history.kept.iter().map(|kept| &kept.publication);
        if query.reverse {
            publications
                .rev()
                .filter(|item| since.is_none_or(|since| item.position.offset < since))
                .take(limit)
                .take_while(|item| fits(item))
                .cloned()
                .collect()
        } else {
            publications
                .filter(|item| since.is_none_or(|since| item.position.offset > since))
                .take(limit)
                .take_while(|item| fits(item))
                .cloned()
                .collect()
        }
    }

    fn append(&mut self, key: u32) {
        let namespace = self.entries[key as usize].namespace;
        let age = &mut self.ages[usize::from(namespace.0)];
        let history = &mut self.entries[key as usize];
        (history.older, history.newer) = (age.newest, NONE);
        match some(age.newest) {
            Some(newest) => self.entries[newest as usize].newer = key,
            None => age.oldest = key,
        }
        age.newest = key;
    }

    fn unlink(&mut self, key: u32) {
        let History { namespace, newer, older, .. } = self.entries[key as usize];
        let age = &mut self.ages[usize::from(namespace.0)];
        match some(older) {
            Some(older) => self.entries[older as usize].newer = newer,
            None => age.oldest = newer,
        }
        match some(newer) {
            Some(newer) => self.entries[newer as usize].older = older,
            None => age.newest = older,
        }
    }
}

impl History {
    /// The bytes of its version.
    fn version_bytes(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| VERSION_BYTES + version.epoch.len() as u64)
    }

    /// Removes publications that are too old, too many or too large, and the kept recovery that has one of them.
    fn trim(&mut self, options: &ChannelOptions, now_ms: u64) {
        let expired = now_ms.saturating_sub(ttl_ms(options));
        while let Some(first) = self.kept.front() {
            let is_over = self.kept.len() > options.history_size as usize
                || self.bytes > options.history_bytes
                || first.at_ms < expired;
            if !is_over {
                break;
            }
            let offset = first.publication.position.offset;
            self.bytes -= cost(&first.publication);
            self.kept.pop_front();
            if self.answer.as_ref().is_some_and(|answer| answer.first() <= offset) {
                self.answer = None;
            }
        }
    }

    /// The publications after offset `since`, which the history has, or the newest from offset `first` on; as many as
    /// fit one reply, but at least one, so that a reader makes progress.
    fn answer(&mut self, since: Option<u64>, first: u64, bytes_max: u64) -> Publications {
        let is_valid = |answer: &&Answer| {
            let fits = answer.bytes <= bytes_max || answer.publications.len() == 1;
            answer.since == since && fits
        };
        if let Some(answer) = self.answer.as_ref().filter(is_valid) {
            return answer.publications.clone();
        }
        let from = since.map_or(0, |since| since + 1 - first);
        let from = usize::try_from(from).expect("the history has them");
        let wanted = self.kept.range(from..).map(|kept| &kept.publication);
        let mut bytes = 0;
        let mut fits = |publication: &&Arc<Publication>| {
            bytes += cost(publication);
            bytes <= bytes_max || bytes == cost(publication)
        };
        let publications: Publications = match since {
            Some(_) => wanted
                .take(ANSWER_PUBLICATIONS_MAX)
                .take_while(|item| fits(item))
                .cloned()
                .collect(),
            None => {
                let newest = wanted.rev().take(ANSWER_PUBLICATIONS_MAX);
                let count = newest.take_while(|item| fits(item)).count();
                let newest = self.kept.range(self.kept.len() - count..);
                newest.map(|kept| kept.publication.clone()).collect()
            }
        };
        let bytes = publications.iter().map(|item| cost(item)).sum();
        self.answer = Some(Answer { since, bytes, publications: publications.clone() });
        publications
    }
}

impl Answer {
    /// The offset of its first publication, of which there is at least one.
    fn first(&self) -> u64 {
        self.publications[0].position.offset
    }
}

/// The bytes of a publication in a history, including its overhead.
fn cost(publication: &Publication) -> u64 {
    let publisher = publication.info.as_ref().map_or(0, |_| size_of::<ClientInfo>());
    (publication.heap_bytes() + publisher) as u64 + PUBLICATION_BYTES
}

fn ttl_ms(options: &ChannelOptions) -> u64 {
    u64::try_from(options.history_ttl.as_millis()).expect("days are few")
}

/// The bytes of an empty history.
const HISTORY_BYTES: u64 = 160;

/// The bytes of a version in addition to the text of its epoch: two blocks of the heap.
const VERSION_BYTES: u64 = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{ChannelName, Epoch, Payload, PayloadKind, Position};

    fn options() -> ChannelOptions {
        ChannelOptions {
            history_size: 5,
            history_ttl: Duration::from_secs(10),
            history_bytes: 5000,
            ..ChannelOptions::closed()
        }
    }

    fn publication(offset: u64, bytes: usize) -> Arc<Publication> {
        Arc::new(Publication {
            channel: ChannelName::new("a").unwrap(),
            position: Position { epoch: Epoch(1), offset },
            payload: Payload::new(PayloadKind::Binary, vec![0; bytes]),
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        })
    }

    fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
        publications.iter().map(|publication| publication.position.offset).collect()
    }

    fn filled(count: u64) -> (Histories, u32) {
        let mut histories = Histories::new(1);
        let key = histories.open(7, NamespaceId(0), 0);
        for offset in 1..=count {
            histories.push(key, &options(), publication(offset, 10), offset * 1000);
        }
        (histories, key)
    }

    #[test]
    fn memory_is_released_once_most_histories_are_removed_and_no_other_moves() {
        let (mut histories, first) = filled(3);
        let others: Vec<u32> =
            (0..10_000).map(|home| histories.open(home, NamespaceId(0), 0)).collect();
        let before = histories.entries.capacity();
        assert!(!histories.shrink());
        others.iter().for_each(|key| histories.close(*key));
        assert!(histories.shrink());
        assert!(histories.entries.capacity() < 10, "{} of {before}", histories.entries.capacity());
        assert!(!histories.shrink());
        assert_eq!(histories.entries[first as usize].kept.len(), 3);
        assert_eq!(histories.open(8, NamespaceId(0), 4000), others[0], "their slots are free");
        assert_eq!(histories.overdue(&[options()], u64::MAX, 20_000), Some(7));
    }

    fn recovered(
        histories: &mut Histories,
        key: u32,
        since: u64,
        last: u64,
        now: u64,
    ) -> Option<Vec<u64>> {
        recovered_within(histories, key, (since, last), 1_000_000, now)
    }

    fn recovered_within(
        histories: &mut Histories,
        key: u32,
        (since, last): (u64, u64),
        bytes_max: u64,
        now: u64,
    ) -> Option<Vec<u64>> {
        let recovery = histories.recover(key, &options(), Some(since), last, bytes_max, now);
        recovery.is_complete.then(|| offsets(&recovery.publications))
    }

    fn kept(histories: &mut Histories, key: u32, since: Option<u64>, now: u64) -> Vec<u64> {
        kept_within(histories, key, since, 1_000_000, now)
    }

    fn kept_within(
        histories: &mut Histories,
        key: u32,
        since: Option<u64>,
        bytes_max: u64,
        now: u64,
    ) -> Vec<u64> {
        let recovery = histories.recover(key, &options(), since, 8, bytes_max, now);
        assert!(!recovery.is_complete && !recovery.has_more);
        offsets(&recovery.publications)
    }

    #[test]
    fn publications_in_the_history_are_recovered_and_others_are_not() {
        let (mut histories, key) = filled(8);
        // 4 to 8 are kept, published at 4 s to 8 s.
        assert_eq!(recovered(&mut histories, key, 3, 8, 8000), Some(vec![4, 5, 6, 7, 8]));
        assert_eq!(recovered(&mut histories, key, 3, 8, 8000), Some(vec![4, 5, 6, 7, 8]));
        assert_eq!(recovered(&mut histories, key, 2, 8, 8000), None);
        assert_eq!(recovered(&mut histories, key, 7, 8, 8000), Some(vec![8]));
        assert_eq!(recovered(&mut histories, key, 8, 8, 99_000), Some(vec![]));
        assert_eq!(recovered(&mut histories, key, 9, 8, 8000), None);
        assert_eq!(recovered(&mut histories, key, u64::MAX - 1, 8, 8000), None);
    }

    #[test]
    fn an_incomplete_recovery_has_the_newest_publications() {
        let (mut histories, key) = filled(8);
        for _ in 0..2 {
            assert_eq!(kept(&mut histories, key, Some(2), 8000), [4, 5, 6, 7, 8]);
            assert_eq!(kept(&mut histories, key, Some(9), 8000), [4, 5, 6, 7, 8]);
            assert_eq!(kept(&mut histories, key, None, 8000), [4, 5, 6, 7, 8]);
        }
        // A kept recovery does not outlive its publications.
        assert_eq!(kept(&mut histories, key, None, 16_001), [7, 8]);
        assert_eq!(kept(&mut histories, key, None, 99_000), [0; 0]);
        // The newest, if not all of them fit.
        let mut histories = Histories::new(1);
        let key = histories.open(7, NamespaceId(0), 0);
        for offset in 1..=8 {
            histories.push(key, &options(), publication(offset, 10), 0);
        }
        let bytes_max = 2 * (PUBLICATION_BYTES + 10);
        assert_eq!(kept_within(&mut histories, key, None, bytes_max, 0), [7, 8]);
    }

    #[test]
    fn expired_publications_are_not_returned_and_removed_on_reads() {
        let (mut histories, key) = filled(8);
        assert_eq!(recovered(&mut histories, key, 5, 8, 16_000), Some(vec![6, 7, 8]));
        // A kept recovery is not used once its first publication has expired.
        assert_eq!(recovered(&mut histories, key, 5, 8, 16_001), None);
        assert_eq!(recovered(&mut histories, key, 6, 8, 16_001), Some(vec![7, 8]));
        let all = histories.read(key, &options(), HistoryQuery::default(), 1_000_000, 16_001);
        assert_eq!(offsets(&all), [7, 8]);
        assert_eq!(histories.publications(), 2, "a read removes expired publications");
        assert_eq!(histories.bytes(), HISTORY_BYTES + 2 * (10 + PUBLICATION_BYTES));
    }

    #[test]
    fn a_read_has_a_limit_a_start_and_a_direction() {
        let (mut histories, key) = filled(8);
        let mut read = |since: Option<u64>, limit, reverse| {
            let since = since.map(|offset| Position { epoch: Epoch(1), offset });
            let query = HistoryQuery { since, limit, reverse };
            offsets(&histories.read(key, &options(), query, 1_000_000, 8000))
        };
        assert_eq!(read(None, None, false), [4, 5, 6, 7, 8]);
        assert_eq!(read(None, Some(2), false), [4, 5]);
        assert_eq!(read(None, Some(0), false), [0; 0]);
        assert_eq!(read(Some(5), None, false), [6, 7, 8]);
        assert_eq!(read(Some(5), Some(1), false), [6]);
        assert_eq!(read(None, Some(2), true), [8, 7]);
        assert_eq!(read(Some(6), None, true), [5, 4]);
        assert_eq!(read(Some(99), None, false), [0; 0]);
    }

    #[test]
    fn the_bytes_of_a_reply_are_bounded() {
        let mut histories = Histories::new(1);
        let key = histories.open(7, NamespaceId(0), 0);
        for offset in 1..=4 {
            histories.push(key, &options(), publication(offset, 0), 0);
        }
        let bytes_max = 3 * PUBLICATION_BYTES;
        let all = recovered_within(&mut histories, key, (1, 4), bytes_max, 0);
        assert_eq!(all, Some(vec![2, 3, 4]));
        // One byte less, as after a reload: not the recovery that is kept, but a part of it.
        let part = recovered_within(&mut histories, key, (1, 4), bytes_max - 1, 0);
        assert_eq!(part, Some(vec![2, 3]));
        // In parts, each at least one publication.
        histories.push(key, &options(), publication(5, 1000), 0);
        let mut part = |since| {
            let recovery = histories.recover(key, &options(), Some(since), 5, bytes_max, 0);
            assert!(recovery.is_complete);
            (offsets(&recovery.publications), recovery.has_more)
        };
        for _ in 0..2 {
            assert_eq!(part(0), (vec![1, 2, 3], true));
            assert_eq!(part(3), (vec![4], true));
            assert_eq!(part(4), (vec![5], false));
        }
        let mut read = |query| offsets(&histories.read(key, &options(), query, bytes_max, 0));
        assert_eq!(read(HistoryQuery::default()), [1, 2, 3]);
        assert_eq!(read(HistoryQuery { reverse: true, ..HistoryQuery::default() }), [5]);
    }

    #[test]
    fn the_bytes_of_each_history_and_of_all_are_bounded() {
        let mut histories = Histories::new(2);
        let a = histories.open(1, NamespaceId(0), 0);
        let b = histories.open(2, NamespaceId(1), 1);
        for offset in 1..=5 {
            histories.push(a, &options(), publication(offset, 1000), 10);
        }
        let all = [options(), options()];
        let read = histories.read(a, &options(), HistoryQuery::default(), 1_000_000, 10);
        let kept = read.len() as u64;
        assert_eq!(kept, (5000 - HISTORY_BYTES) / (1000 + PUBLICATION_BYTES));
        assert_eq!(histories.overdue(&all, 5000, 10), None);
        histories.push(b, &options(), publication(1, 1000), 20);
        assert_eq!(histories.overdue(&all, 5000, 20), Some(1));
        histories.close(a);
        assert_eq!(histories.overdue(&all, 5000, 20), None);
        assert_eq!(histories.overdue(&all, 5000, 10_020), None);
        assert_eq!(histories.overdue(&all, 5000, 10_021), Some(2));
        histories.clear(b);
        assert_eq!(histories.bytes(), HISTORY_BYTES);
        histories.touch(b, 10_021);
        assert_eq!(histories.overdue(&all, 5000, 10_021), None);
        histories.close(b);
        assert_eq!(histories.bytes(), 0);
    }
}
