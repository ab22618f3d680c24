//! What sessions ask about channels and clients, and how workers find the answers together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::gather::{GatherId, Part, matches};
use super::message::{Output, QueryMessage, Receipt, StreamMessage};
use crate::config::limits::{
    CHANNELS_LIST_MAX, CHANNELS_LOOKED_AT_PER_TURN_MAX, PRESENCE_LIST_MAX,
};
use crate::message::{
    ChannelName, ClientId, Control, Refusal, Reply, RequestId, SessionId, WorkerId,
};

impl Hub {
    /// Asks the home of a channel to have its subscribers counted.
    pub(super) fn count_subscribers(
        &mut self,
        session: SessionId,
        id: RequestId,
        channel: ChannelName,
        list_max: u32,
        out: &mut VecDeque<Output>,
    ) {
        let list_max = list_max.min(PRESENCE_LIST_MAX);
        let whole = Part::Presence(Vec::new(), 0);
        match self.gather(session, id, list_max as usize, whole) {
            Ok(gather) => {
                let to = self.home_of(&channel);
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

    /// Has a client's worker do something with it: whether there is such a client is known to that worker alone.
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

    /// Answers another worker's question, or takes its answer.
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
                let (clients, count) = self.subscribers(&channel, list_max);
                let has_named = !clients.is_empty();
                send_part(gather, parts, Some(Part::Presence(clients, count)), out);
                if has_named && self.tells_news(&channel) {
                    // It comes there behind the news of their coming and before that of their going.
                    let to = self.home_of(&channel);
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

    fn tells_news(&self, channel: &ChannelName) -> bool {
        let namespaces = &self.settings.namespaces;
        namespaces.find(channel.as_str()).is_some_and(|id| namespaces.options(id).join_leave)
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

    /// Looks at some channels; the rest comes as a message to this worker itself, behind whatever waits.
    fn list(
        &self,
        gather: GatherId,
        pattern: Arc<str>,
        from: usize,
        mut found: Vec<(ChannelName, u64)>,
        out: &mut VecDeque<Output>,
    ) {
        let until = from + CHANNELS_LOOKED_AT_PER_TURN_MAX;
        let slots = self.channel_slots;
        for slot in from..until.min(slots) {
            if found.len() == CHANNELS_LIST_MAX {
                break;
            }
            if let Some(local) = self.channels.get(slot)
                && local.subscribers > 0
                && matches(&pattern, local.name.as_str())
            {
                found.push((local.name.clone(), u64::from(local.subscribers)));
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

/// Answers a request, if anyone wants to know, that it is not done.
pub(super) fn refuse(
    session: SessionId,
    id: Option<RequestId>,
    refusal: Refusal,
    out: &mut VecDeque<Output>,
) {
    if let Some(id) = id {
        out.push_back(Output::Reply { session, id, reply: Reply::Refused(refusal) });
    }
}

/// Answers the request that a receipt is of, whichever worker it came from.
pub fn reply_to(receipt: Receipt, reply: Reply, out: &mut VecDeque<Output>) {
    let message = QueryMessage::Answer { receipt, reply };
    out.push_back(Output::send(receipt.worker, message));
}
