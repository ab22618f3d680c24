//! The identities of the clients of this worker. Sessions of one user, about which the backend says the same, share
//! one [`Entry`]; an anonymous session has none.
//!
//! What a session costs, in bytes: 4 for the number of its entry, once any session has one. What an entry costs: 24
//! for itself, about 8 in the table of users (5 at the table's load of 44 to 88 percent), and its texts, rounded up to
//! 16. So a user of its own with a name of 12 bytes and an info of 32 takes 24 + 8 + 48 + 4 = 84 bytes; among 100
//! sessions of one user, each takes less than 5.
//!
//! The sessions of a user are not listed. An entry has one of its sessions, which is all of them if there is only one.
//! If there are more, [`Identities::sessions_of`] looks for them, 4 bytes each, in slices: a list would cost each
//! session 8 bytes more, for calls of the server API that are rare beside connections.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use super::name_table::{ChannelHash, NameTable};
use super::slots::{NONE, slot, some};
use super::texts::Texts;
use crate::config::limits::{
    IDENTITIES_LOOKED_AT_MAX, IDENTITY_BYTES_MAX, SESSIONS_LOOKED_AT_PER_TURN_MAX,
};
use crate::message::{Identity, USER_BYTES_MAX};

/// The identities of this worker's sessions.
#[derive(Debug)]
pub(super) struct Identities {
    /// The slot of each session's entry, or [`NONE`], by the index of the session.
    of_sessions: Vec<u32>,
    entries: Slab<Entry>,
    texts: Texts,
    /// The first entry of each user.
    users: NameTable,
    user_count: usize,
    /// Sessions that are not anonymous.
    user_session_count: usize,
}

/// A user, with what the backend says about some of its clients. Entries of one user are in a list.
#[derive(Debug)]
struct Entry {
    /// The place of its text: the name of the user, empty if anonymous, and the info behind it.
    text: u32,
    text_len: u16,
    user_len: u8,
    next: u32,
    previous: u32,
    /// One of its sessions, unless that has ended.
    session: u32,
    sessions: NonZeroU32,
}

// The entry of a slab must not take a word more.
const _: () = assert!(size_of::<Option<Entry>>() <= IDENTITY_BYTES_MAX);
const _: () = assert!(USER_BYTES_MAX <= u8::MAX as usize);

impl Identities {
    /// Reserves address space for as many identities as there may be sessions, with short texts.
    pub(super) fn new(hash: &ChannelHash, sessions_max: usize) -> Self {
        Self {
            of_sessions: Vec::with_capacity(sessions_max),
            entries: Slab::with_capacity(sessions_max),
            texts: Texts::with_capacity(4 * sessions_max),
            users: NameTable::new(hash),
            user_count: 0,
            user_session_count: 0,
        }
    }

    /// Sets the identity of the session with this index. It has passed [`Identity::check`].
    pub(super) fn set(&mut self, session: u32, identity: &Identity) {
        self.remove(session);
        let user = identity.user.as_deref().unwrap_or_default();
        let info = identity.info.as_deref().unwrap_or_default();
        if user.is_empty() && info.is_empty() {
            return;
        }
        let key = match self.find(user, info) {
            Some(key) => {
                let entry = &mut self.entries[key as usize];
                entry.sessions = entry.sessions.checked_add(1).expect("sessions are 32 bits");
                entry.session = session;
                key
            }
            None => self.add(user, info, session),
        };
        let at = session as usize;
        if at >= self.of_sessions.len() {
            self.of_sessions.resize(at + 1, NONE);
        }
        self.of_sessions[at] = key;
        self.user_session_count += usize::from(!user.is_empty());
    }

    /// Makes the session with this index anonymous.
    pub(super) fn remove(&mut self, session: u32) {
        let Some(of_session) = self.of_sessions.get_mut(session as usize) else { return };
        let Some(key) = some(std::mem::replace(of_session, NONE)) else { return };
        let entry = &mut self.entries[key as usize];
        self.user_session_count -= usize::from(entry.user_len > 0);
        match NonZeroU32::new(entry.sessions.get() - 1) {
            Some(sessions) => entry.sessions = sessions,
            None => self.remove_entry(key),
        }
    }

    /// The user of a session. `None` if it is anonymous.
    pub(super) fn user(&self, session: u32) -> Option<&str> {
        let user = self.user_of_entry(self.entry_of(session)?);
        (!user.is_empty()).then_some(user)
    }

    /// The user of a session, and what the backend says about it.
    pub(super) fn get(&self, session: u32) -> (Option<Arc<str>>, Option<Bytes>) {
        let Some(key) = self.entry_of(session) else { return (None, None) };
        let entry = &self.entries[key as usize];
        let text = self.texts.get(entry.text, entry.text_len.into());
        let info = &text[usize::from(entry.user_len)..];
        let info = (!info.is_empty()).then(|| Bytes::copy_from_slice(info));
        (self.user(session).map(Arc::from), info)
    }

    /// At most `count_max` sessions of a user, from the index `from` on, and the index to continue with; `None` after
    /// the last one. Looks at a limited number of sessions.
    pub(super) fn sessions_of(
        &self,
        user: &str,
        from: usize,
        count_max: usize,
    ) -> (Vec<u32>, Option<usize>) {
        let mut keys = Vec::new();
        let mut next = self.first_of(user);
        while let Some(key) = next {
            keys.push(key);
            next = some(self.entries[key as usize].next);
        }
        keys.sort_unstable();
        if let [key] = keys[..]
            && let Entry { session, sessions: NonZeroU32::MIN, .. } = self.entries[key as usize]
            && self.entry_of(session) == Some(key)
        {
            let found = (session as usize >= from).then_some(session);
            return (found.into_iter().collect(), None);
        }
        if keys.is_empty() {
            return (Vec::new(), None);
        }
        let until = self.of_sessions.len().min(from + SESSIONS_LOOKED_AT_PER_TURN_MAX);
        let mut found = Vec::new();
        for index in from..until {
            if keys.binary_search(&self.of_sessions[index]).is_ok() {
                found.push(slot(index));
                if found.len() == count_max {
                    return (found, Some(index + 1));
                }
            }
        }
        (found, (until < self.of_sessions.len()).then_some(until))
    }

    /// Whether all sessions are anonymous.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of users with sessions.
    pub(super) fn user_count(&self) -> usize {
        self.user_count
    }

    /// The number of sessions that are not anonymous.
    pub(super) fn user_session_count(&self) -> usize {
        self.user_session_count
    }

    /// Bytes that identities take, beside 4 of each session.
    pub(super) fn bytes(&self) -> usize {
        self.entries.len() * IDENTITY_BYTES_MAX + self.texts.bytes()
    }

    /// The slot of a session's entry. Sessions with the same one have the same user.
    pub(super) fn entry_of(&self, session: u32) -> Option<u32> {
        self.of_sessions.get(session as usize).copied().and_then(some)
    }

    /// The user of an entry; empty if anonymous.
    pub(super) fn user_of_entry(&self, key: u32) -> &str {
        user_of(&self.entries[key as usize], &self.texts)
    }

    /// An entry of this user with this info, among those that were added last.
    fn find(&self, user: &str, info: &[u8]) -> Option<u32> {
        let mut at = self.first_of(user);
        for _ in 0..IDENTITIES_LOOKED_AT_MAX {
            let entry = &self.entries[at? as usize];
            let text = self.texts.get(entry.text, entry.text_len.into());
            if text[usize::from(entry.user_len)..] == *info {
                return at;
            }
            at = some(entry.next);
        }
        None
    }

    fn first_of(&self, user: &str) -> Option<u32> {
        self.users.find_by(user, |key| self.user_of_entry(key) == user)
    }

    fn add(&mut self, user: &str, info: &[u8], session: u32) -> u32 {
        let first = self.first_of(user);
        let second = first.map_or(NONE, |first| self.entries[first as usize].next);
        let text = self.texts.insert([user.as_bytes(), info]);
        let key = slot(self.entries.insert(Entry {
            text,
            text_len: u16::try_from(user.len() + info.len()).expect("it was checked"),
            user_len: u8::try_from(user.len()).expect("it was checked"),
            next: second,
            previous: first.unwrap_or(NONE),
            session,
            sessions: NonZeroU32::MIN,
        }));
        match first {
            Some(first) => self.entries[first as usize].next = key,
            None => {
                let Self { users, entries, texts, .. } = self;
                users.insert_by(key, |key| user_of(&entries[key as usize], texts));
                self.user_count += usize::from(!user.is_empty());
            }
        }
        if let Some(second) = some(second) {
            self.entries[second as usize].previous = key;
        }
        key
    }

    fn remove_entry(&mut self, key: u32) {
        let entry = self.entries.remove(key as usize);
        if let Some(next) = some(entry.next) {
            self.entries[next as usize].previous = entry.previous;
        }
        let user = user_of(&entry, &self.texts);
        match (some(entry.previous), some(entry.next)) {
            (Some(previous), _) => self.entries[previous as usize].next = entry.next,
            (None, Some(next)) => self.users.replace(key, next, user),
            (None, None) => {
                self.users.remove(key, user);
                self.user_count -= usize::from(!user.is_empty());
            }
        }
        self.texts.remove(entry.text, entry.text_len.into());
    }
}

/// The user of an entry; empty if anonymous.
fn user_of<'t>(entry: &Entry, texts: &'t Texts) -> &'t str {
    let user = texts.get(entry.text, entry.user_len.into());
    std::str::from_utf8(user).expect("it was a name")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::tests::Random;
    use super::super::texts::UNIT_BYTES;
    use super::*;
    use crate::message::INFO_BYTES_MAX;

    fn identity(user: &str, info: &str) -> Identity {
        Identity {
            user: Some(user.into()),
            info: (!info.is_empty()).then(|| Bytes::copy_from_slice(info.as_bytes())),
            expires_at: None,
        }
    }

    fn identities() -> Identities {
        Identities::new(&ChannelHash::with_key(1), 16)
    }

    #[test]
    fn sessions_have_the_identity_that_was_set_last() {
        let mut random = Random(3);
        let mut identities = identities();
        let mut set: BTreeMap<u32, (String, String)> = BTreeMap::new();
        for round in 0..30_000 {
            let session = random.below(200) as u32;
            // Few sessions in the second half of each thousand.
            if round % 1000 > 500 && random.below(3) > 0 || random.below(3) == 0 {
                identities.remove(session);
                set.remove(&session);
            } else {
                let user = ["", "ann", "bob", &format!("user {}", random.below(300))]
                    [random.below(4) as usize]
                    .to_owned();
                let info = ["", "1", &format!("{{\"n\":{}}}", random.below(60))]
                    [random.below(3) as usize]
                    .to_owned();
                identities.set(session, &identity(&user, &info));
                set.insert(session, (user, info));
            }
            let session = random.below(200) as u32;
            let (user, info) = set.get(&session).cloned().unwrap_or_default();
            let (of_user, of_info) = identities.get(session);
            assert_eq!(of_user.as_deref().unwrap_or_default(), user);
            assert_eq!(of_info.unwrap_or_default(), info);
            assert_eq!(identities.user(session).unwrap_or_default(), user);
            if round % 100 == 0 {
                let users: BTreeSet<_> = set.values().map(|(user, _)| user).collect();
                let named = users.iter().filter(|user| !user.is_empty()).count();
                assert_eq!(identities.user_count(), named);
                let sessions = set.values().filter(|(user, _)| !user.is_empty()).count();
                assert_eq!(identities.user_session_count(), sessions);
                let known: BTreeSet<_> = set
                    .values()
                    .filter(|(user, info)| !(user.is_empty() && info.is_empty()))
                    .collect();
                // An identity that is not among the last few of its user is not found again.
                assert!(identities.entries.len() >= known.len());
            }
        }
        (0..200).for_each(|session| identities.remove(session));
        assert!(identities.is_empty());
        assert_eq!((identities.user_count(), identities.bytes()), (0, 0));
    }

    #[test]
    fn sessions_share_what_is_the_same() {
        let mut identities = identities();
        for session in 0..1000 {
            identities.set(session, &identity(&format!("user {}", session % 10), "{\"a\":1}"));
        }
        assert_eq!((identities.entries.len(), identities.user_count()), (10, 10));
        let each = IDENTITY_BYTES_MAX + UNIT_BYTES;
        assert_eq!(identities.bytes(), 10 * each);
        // Another info of a user that has sessions.
        identities.set(5, &identity("user 5", "{\"a\":2}"));
        assert_eq!((identities.entries.len(), identities.user_count()), (11, 10));
        // Anonymous ones have none, unless something is said about them.
        identities.set(6, &Identity::default());
        assert_eq!((identities.entry_of(6), identities.entries.len()), (None, 11));
        identities.set(6, &identity("", "1"));
        assert_eq!((identities.user(6), identities.get(6).1), (None, Some("1".into())));
        assert_eq!((identities.entries.len(), identities.user_count()), (12, 10));
    }

    #[test]
    fn a_user_about_which_much_is_said_is_found_in_a_bounded_time() {
        let mut identities = identities();
        let of = |n: u32| identity("kiosk", &n.to_string());
        let many = IDENTITIES_LOOKED_AT_MAX as u32 + 1;
        (0..many).for_each(|n| identities.set(n, &of(n)));
        assert_eq!((identities.entries.len(), identities.user_count()), (many as usize, 1));
        // The first one is looked at first, and behind it those that came last. The second one is not looked at.
        for (n, is_shared) in [(0, true), (many - 1, true), (2, true), (1, false)] {
            let before = identities.entries.len();
            identities.set(many + n, &of(n));
            assert_eq!(identities.entries.len() == before, is_shared, "{n}");
        }
    }

    #[test]
    fn the_sessions_of_a_user_are_found_in_slices() {
        let mut identities = identities();
        let all = |identities: &Identities, user: &str, count_max| {
            let (mut from, mut found, mut slices) = (Some(0), Vec::new(), 0);
            while let Some(at) = from {
                let (more, next) = identities.sessions_of(user, at, count_max);
                assert!(more.len() <= count_max);
                found.extend(more);
                (from, slices) = (next, slices + 1);
            }
            (found, slices)
        };
        let few = 2 * SESSIONS_LOOKED_AT_PER_TURN_MAX as u32 + 5;
        for session in 0..few {
            let user = if session % 1000 == 7 { "ann" } else { "bob" };
            let info = ["1", "2"][session as usize / 1000 % 2];
            identities.set(session, &identity(user, info));
        }
        identities.set(3, &identity("eve", "1"));
        assert_eq!(all(&identities, "eve", 10), (vec![3], 1));
        assert_eq!(all(&identities, "nobody", 10), (vec![], 1));
        let (found, slices) = all(&identities, "ann", usize::MAX);
        assert!(found.iter().copied().eq((7..few).step_by(1000)));
        assert_eq!(slices, 3);
        let (again, slices) = all(&identities, "ann", 10);
        assert_eq!((again, slices > found.len() / 10), (found, true));
        // The session that was set last ends, and then there is one.
        identities.set(1, &identity("eve", "1"));
        identities.remove(1);
        assert_eq!(all(&identities, "eve", 10), (vec![3], 3));
    }

    #[test]
    fn the_longest_identity_is_kept() {
        let mut identities = identities();
        let longest = identity(&"u".repeat(USER_BYTES_MAX), &"1".repeat(INFO_BYTES_MAX));
        assert_eq!(longest.check(), Ok(()));
        identities.set(0, &longest);
        assert_eq!(identities.get(0), (longest.user, longest.info));
    }
}
