//! Questions about channels and clients: sessions ask them, and workers answer them together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dispatch::Hub;
use super::gather::{GatherId, Part, matches};
use super::message::{Output, QueryMessage, StreamMessage, refuse, reply_to};
use crate::config::limits::{
    CHANNELS_LIST_MAX, CHANNELS_LOOKED_AT_PER_TURN_MAX, PRESENCE_LIST_MAX,
};
use crate::message::{
    ChannelName, ClientId, Control, Refusal, Reply, RequestId, SessionId, WorkerId,
};

impl Hub {
    /// Asks all workers with subscribers of a channel, through its home, for their number and at most `list_max` of
    /// them.
    pub(super) fn ask_for_presence(
        &mut self,
        session: SessionId,
        id: RequestId,
        channel: ChannelName,
        list_max: u32,
        out: &mut VecDeque<Output>,
    ) {
        let list_max = list_max.min(PRESENCE_LIST_MAX);
        let nothing = Part::Presence(Vec::new(), 0);
        let gather = self.gather(session, id, list_max as usize, nothing);
        match gather {
            Ok(gather) => {
                let to = self.settings.home_of(&channel);
                let message = QueryMessage::CountAll { gather, channel, list_max };
                out.push_back(Output::send(to, message));
            }
            Err(refusal) => refuse(session, Some(id), refusal, out),
        }
    }

    /// Asks all workers for their channels.
    pub(super) fn ask_for_channels(
        &mut self,
        session: SessionId,
        id: RequestId,
        pattern: &Arc<str>,
        out: &mut VecDeque<Output>,
    ) {
        match self.gather(session, id, 0, Part::Channels(Vec::new())) {
            Ok(gather) => {
                for worker in 0..self.settings.workers {
                    let (pattern, found) = (pattern.clone(), Vec::new());
                    let message = QueryMessage::List { gather, pattern, from: 0, found };
                    out.push_back(Output::send(WorkerId(worker), message));
                }
            }
            Err(refusal) => refuse(session, Some(id), refusal, out),
        }
    }

    /// Has a client's worker do something with it: only that worker knows whether the client exists.
    pub(super) fn control(
        &self,
        session: SessionId,
        id: RequestId,
        client: ClientId,
        control: Control,
        out: &mut VecDeque<Output>,
    ) {
        let receipt = self.receipt(session, id);
        // Clients of other nodes, and of earlier runs of this one, are not here.
        if client.node == self.settings.node && client.worker.0 < self.settings.workers {
            let message = QueryMessage::Control { receipt, session: client.session, control };
            out.push_back(Output::send(client.worker, message));
        } else {
            reply_to(receipt, Reply::Done, out);
        }
    }

    /// Handles a question, a part of an answer, or an answer.
    pub(super) fn handle_query(&mut self, message: QueryMessage, out: &mut VecDeque<Output>) {
        match message {
            QueryMessage::Read { receipt, channel, query } => {
                let reply = self.streams.read(&channel, query, &self.settings.limits, self.now_ms);
                reply_to(receipt, reply, out);
            }
            QueryMessage::Forget { receipt, channel } => {
                self.streams.forget(&channel);
                reply_to(receipt, Reply::Done, out);
            }
            QueryMessage::Answer { receipt, reply } => {
                let (session, id) = (receipt.session, receipt.id);
                out.push_back(Output::Reply { session, id, reply });
            }
            QueryMessage::CountAll { gather, channel, list_max } => {
                self.count_all(gather, &channel, list_max, out);
            }
            QueryMessage::Count { gather, channel, list_max, parts } => {
                let (clients, count) =
                    self.subscribers.presence(&channel, list_max, &self.settings);
                let has_listed = !clients.is_empty();
                send_part(gather, parts, Some(Part::Presence(clients, count)), out);
                if has_listed && self.settings.has_join_leave(&channel) {
                    // It arrives there behind the joins of the clients that are listed, and before their leaves.
                    let to = self.settings.home_of(&channel);
                    out.push_back(Output::send(to, StreamMessage::Listed(channel)));
                }
            }
            QueryMessage::List { gather, pattern, from, found } => {
                self.list(gather, pattern, from, found, out);
            }
            QueryMessage::Part { gather, parts, part } => {
                if let Some((session, id, reply)) = self.gathers.add(gather, parts, part) {
                    out.push_back(Output::Reply { session, id, reply });
                }
            }
            QueryMessage::Control { receipt, session, control } => {
                out.push_back(Output::Control { receipt, session, control });
            }
        }
    }

    fn gather(
        &mut self,
        session: SessionId,
        id: RequestId,
        list_max: usize,
        whole: Part,
    ) -> Result<GatherId, Refusal> {
        let gather = self.gathers.begin(self.settings.worker, session, id, list_max, whole);
        gather.ok_or(Refusal::Overloaded)
    }

    fn count_all(
        &self,
        gather: GatherId,
        channel: &ChannelName,
        list_max: u32,
        out: &mut VecDeque<Output>,
    ) {
        let interested = self.streams.interested(channel);
        let parts = interested.len();
        if parts == 0 {
            return send_part(gather, 0, None, out);
        }
        for to in interested.iter() {
            let channel = channel.clone();
            let message = QueryMessage::Count { gather, channel, list_max, parts };
            out.push_back(Output::send(to, message));
        }
    }

    /// Looks at some channels; the rest follows as a message to this worker itself, behind the messages that wait.
    fn list(
        &self,
        gather: GatherId,
        pattern: Arc<str>,
        from: usize,
        mut found: Vec<(ChannelName, u64)>,
        out: &mut VecDeque<Output>,
    ) {
        let until = from + CHANNELS_LOOKED_AT_PER_TURN_MAX;
        let slots = self.subscribers.channel_slots();
        for slot in from..until.min(slots) {
            if found.len() == CHANNELS_LIST_MAX {
                break;
            }
            if let Some((name, subscriber_count)) = self.subscribers.channel_at(slot)
                && matches(&pattern, name.as_str())
            {
                found.push((name.clone(), subscriber_count));
            }
        }
        if until < slots && found.len() < CHANNELS_LIST_MAX {
            let message = QueryMessage::List { gather, pattern, from: until, found };
            out.push_back(Output::Later(message.into()));
        } else {
            let parts = self.settings.workers;
            send_part(gather, parts, Some(Part::Channels(found)), out);
        }
    }
}

fn send_part(gather: GatherId, parts: u16, part: Option<Part>, out: &mut VecDeque<Output>) {
    let message = QueryMessage::Part { gather, parts, part };
    out.push_back(Output::send(gather.worker, message));
}
