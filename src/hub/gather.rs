//! Questions that several workers answer together. The worker of the session that asks sends a question to the others,
//! and replies to the session once all parts of the answer have arrived.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::message::{
    GatherId, HubOutput, Part, Present, QueryMessage, Survey, SurveyTask, refuse,
};
use super::settings::HubSettings;
use super::slots::slot;
use crate::config::limits::{
    CHANNELS_LIST_MAX, CONNECTIONS_LIST_MAX, GATHERS_MAX, PRESENCE_LIST_MAX,
};
use crate::message::{ChannelName, ChannelPattern, Refusal, Reply, RequestId, SessionId, WorkerId};

/// The questions of this worker's sessions that wait for parts of their answers.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    entries: Slab<Gather>,
    serial: u32,
}

#[derive(Debug)]
struct Gather {
    serial: u32,
    session: SessionId,
    request: RequestId,
    received: u16,
    list_max: usize,
    whole: Part,
}

impl Gathers {
    /// Asks all workers with subscribers of a channel, through its home, for their number and at most `list_max` of
    /// them.
    pub(super) fn ask_for_presence(
        &mut self,
        session: SessionId,
        request: RequestId,
        (channel, list_max): (ChannelName, u32),
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let list_max = list_max.min(PRESENCE_LIST_MAX);
        let nothing = Part::Presence(Present::default());
        match self.begin(settings.worker, session, request, list_max as usize, nothing) {
            Some(gather) => {
                let to = settings.home_of(&channel);
                let message = QueryMessage::CountAll { gather, channel, list_max };
                out.push_back(HubOutput::send(to, message));
            }
            None => refuse(session, Some(request), Refusal::Overloaded, out),
        }
    }

    /// Asks all workers for their channels that match a pattern.
    pub(super) fn ask_for_channels(
        &mut self,
        session: SessionId,
        request: RequestId,
        pattern: &Arc<ChannelPattern>,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        match self.begin(settings.worker, session, request, 0, Part::Channels(Vec::new())) {
            Some(gather) => {
                for worker in 0..settings.workers {
                    let (pattern, found) = (pattern.clone(), Vec::new());
                    let message = QueryMessage::List { gather, pattern, from: 0, found };
                    out.push_back(HubOutput::send(WorkerId(worker), message));
                }
            }
            None => refuse(session, Some(request), Refusal::Overloaded, out),
        }
    }

    /// Has all workers look for connections.
    pub(super) fn ask_for_survey(
        &mut self,
        session: SessionId,
        request: RequestId,
        task: SurveyTask,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let (list_max, nothing) = match &task {
            SurveyTask::List { .. } => (CONNECTIONS_LIST_MAX, Part::Connections(Vec::new(), false)),
            SurveyTask::Control(_) | SurveyTask::Block { .. } => (0, Part::Done(Ok(()))),
        };
        match self.begin(settings.worker, session, request, list_max, nothing) {
            Some(gather) => {
                let task = Arc::new(task);
                for worker in 0..settings.workers {
                    let survey = Survey { gather, task: task.clone(), from: 0, found: Vec::new() };
                    out.push_back(HubOutput::send(WorkerId(worker), QueryMessage::Survey(survey)));
                }
            }
            None => refuse(session, Some(request), Refusal::Overloaded, out),
        }
    }

    /// Adds one of `parts` parts of an answer. Returns the reply once it is complete.
    pub(super) fn add(
        &mut self,
        id: GatherId,
        parts: u16,
        part: Option<Part>,
    ) -> Option<(SessionId, RequestId, Reply)> {
        let gather = self.entries.get_mut(id.key as usize)?;
        if gather.serial != id.serial {
            return None;
        }
        if let Some(part) = part {
            gather.received += 1;
            gather.whole.merge(part, gather.list_max);
        }
        if gather.received < parts {
            return None;
        }
        let gather = self.entries.remove(id.key as usize);
        Some((gather.session, gather.request, gather.whole.into_reply(gather.list_max)))
    }

    /// Adds a question. `None` if too many wait already.
    fn begin(
        &mut self,
        worker: WorkerId,
        session: SessionId,
        request: RequestId,
        list_max: usize,
        whole: Part,
    ) -> Option<GatherId> {
        if self.entries.len() >= GATHERS_MAX {
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let gather = Gather { serial, session, request, received: 0, list_max, whole };
        Some(GatherId { worker, key: slot(self.entries.insert(gather)), serial })
    }
}

impl Part {
    fn merge(&mut self, other: Part, list_max: usize) {
        match (self, other) {
            (Part::Presence(all), Part::Presence(other)) => {
                let room = list_max.saturating_sub(all.clients.len());
                all.clients.extend(other.clients.into_iter().take(room));
                all.client_count += other.client_count;
                all.users.extend(other.users);
                all.more += other.more;
            }
            (Part::Channels(channels), Part::Channels(more)) => channels.extend(more),
            (Part::Connections(all, is_truncated), Part::Connections(more, is_part)) => {
                let room = list_max.saturating_sub(all.len());
                *is_truncated |= is_part || more.len() > room;
                all.extend(more.into_iter().take(room));
            }
            (Part::Done(all), Part::Done(done)) => *all = all.and(done),
            (Part::Presence(_) | Part::Channels(_) | Part::Connections(..) | Part::Done(_), _) => {}
        }
    }

    fn into_reply(self, list_max: usize) -> Reply {
        match self {
            Part::Presence(Present { clients, client_count, mut users, more }) => {
                // A user may have clients on several workers.
                users.sort_unstable();
                users.dedup();
                let user_count = users.len() as u64 + more;
                match list_max {
                    0 => Reply::PresenceStats { client_count, user_count },
                    _ => Reply::Presence { clients, client_count },
                }
            }
            Part::Connections(connections, is_truncated) => {
                Reply::Connections { connections, is_truncated }
            }
            Part::Done(done) => done.map_or_else(Reply::Refused, |()| Reply::Done),
            Part::Channels(mut channels) => {
                // A channel may have subscribers on several workers.
                channels.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                channels.dedup_by(|(name, count), (first, sum)| {
                    let is_same = name == first;
                    *sum += if is_same { *count } else { 0 };
                    is_same
                });
                channels.truncate(CHANNELS_LIST_MAX);
                Reply::Channels { channels }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ClientId, ClientInfo, NodeId, Origin};

    fn request(serial: u32) -> RequestId {
        RequestId { serial, origin: Origin::Server }
    }

    #[test]
    fn a_reply_has_all_parts_and_late_parts_are_ignored() {
        let mut gathers = Gathers::default();
        let session = SessionId { index: 3, generation: 1 };
        let client = |index| {
            let (node, session) = (NodeId::new(1), SessionId { index, generation: 0 });
            ClientInfo::anonymous(ClientId { node, worker: WorkerId(0), session })
        };
        let nothing = Part::Presence(Present::default());
        let id = gathers.begin(WorkerId(0), session, request(7), 3, nothing.clone()).unwrap();
        let part = |from: u32| {
            let clients = vec![client(from), client(from + 1)];
            Some(Part::Presence(Present { clients, client_count: 10, ..Present::default() }))
        };
        assert_eq!(gathers.add(id, 2, part(0)), None);
        let clients = vec![client(0), client(1), client(2)];
        let reply = Reply::Presence { clients, client_count: 20 };
        assert_eq!(gathers.add(id, 2, part(2)), Some((session, request(7), reply)));
        assert_eq!(gathers.add(id, 2, part(2)), None);
        // No worker has a part.
        let id = gathers.begin(WorkerId(0), session, request(8), 0, nothing).unwrap();
        let reply = Reply::PresenceStats { client_count: 0, user_count: 0 };
        assert_eq!(gathers.add(id, 0, None), Some((session, request(8), reply)));
    }

    #[test]
    fn a_user_with_clients_on_two_workers_is_counted_once() {
        let mut gathers = Gathers::default();
        let session = SessionId { index: 0, generation: 0 };
        let nothing = Part::Presence(Present::default());
        let id = gathers.begin(WorkerId(0), session, request(1), 0, nothing).unwrap();
        let part = |users: &[u64], more| {
            let (users, client_count) = (users.to_vec(), 10 + more);
            Some(Part::Presence(Present { users, client_count, more, ..Present::default() }))
        };
        assert_eq!(gathers.add(id, 3, part(&[1, 5], 0)), None);
        assert_eq!(gathers.add(id, 3, part(&[5, 9], 4)), None);
        // 1, 5, 7, 9, and those that were not looked at.
        let reply = Reply::PresenceStats { client_count: 36, user_count: 4 + 6 };
        assert_eq!(gathers.add(id, 3, part(&[1, 7, 9], 2)), Some((session, request(1), reply)));
    }

    #[test]
    fn a_channel_on_two_workers_is_listed_once() {
        let mut gathers = Gathers::default();
        let session = SessionId { index: 0, generation: 0 };
        let nothing = Part::Channels(Vec::new());
        let id = gathers.begin(WorkerId(0), session, request(1), 0, nothing).unwrap();
        let name = |text| ChannelName::new(text).unwrap();
        gathers.add(id, 2, Some(Part::Channels(vec![(name("b"), 1), (name("a"), 2)])));
        let whole = gathers.add(id, 2, Some(Part::Channels(vec![(name("a"), 3), (name("c"), 4)])));
        let channels = vec![(name("a"), 5), (name("b"), 1), (name("c"), 4)];
        assert_eq!(whole, Some((session, request(1), Reply::Channels { channels })));
    }

    #[test]
    fn the_number_of_questions_is_bounded() {
        let mut gathers = Gathers::default();
        let session = SessionId { index: 0, generation: 0 };
        let mut begin =
            || gathers.begin(WorkerId(0), session, request(1), 0, Part::Channels(Vec::new()));
        for _ in 0..GATHERS_MAX {
            assert!(begin().is_some());
        }
        assert!(begin().is_none());
    }
}
