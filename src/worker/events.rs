//! Notifies the backend of what happens to clients and channels, if events are configured.

use std::sync::Arc;

use crate::callback::{Event, Happening};
use crate::config::EventKind;
use crate::hub::{Hub, HubMessage, StreamMessage};
use crate::message::{ChannelName, CloseReason, SessionId};

use super::connections::Connections;

/// A client was replied to: perhaps it is connected since. Single requests over HTTP are not connections.
pub(super) fn connected(connections: &mut Connections, session: SessionId) {
    let is_wanted = |kind| connections.settings.callbacks.has_events(kind);
    if !is_wanted(EventKind::Connected) && !is_wanted(EventKind::Disconnected) {
        return;
    }
    let traits = connections.table.at(session.index).traits();
    let transport = traits.kind;
    if transport.is_lasting()
        && traits.is_established
        && !connections.announced.set(session.index, true)
    {
        let client = connections.settings.hub.client_id(session);
        let user = user_of(connections, session);
        notify(connections, Happening::Connected { client, transport, user });
    }
}

/// A connection ends.
pub(super) fn disconnected(connections: &mut Connections, session: SessionId, reason: CloseReason) {
    if connections.announced.set(session.index, false) {
        let client = connections.settings.hub.client_id(session);
        let user = user_of(connections, session);
        notify(connections, Happening::Disconnected { client, user, reason });
    }
}

/// Takes a message for the hub, and notes whether its channel gets its first subscriber by that, or loses its last one.
pub(super) fn take_message(connections: &mut Connections, message: HubMessage) {
    let channel = watched_channel(connections, &message);
    let Connections { hub, hub_outputs, counters, .. } = connections;
    let is_occupied = |hub: &Hub| channel.as_ref().is_some_and(|channel| hub.is_occupied(channel));
    let was_occupied = is_occupied(hub);
    if matches!(message, HubMessage::Stream(StreamMessage::Publish { .. })) {
        counters.publications.add(1);
    }
    hub.handle_message(message, hub_outputs);
    let is_occupied = is_occupied(hub);
    if let Some(channel) = channel.filter(|_| was_occupied != is_occupied) {
        let what = match is_occupied {
            true => Happening::Occupied { channel },
            false => Happening::Vacated { channel },
        };
        notify(connections, what);
    }
}

/// The channel of which a message may change whether it has subscribers, if there are events of that. Those of the
/// server itself have none.
fn watched_channel(connections: &Connections, message: &HubMessage) -> Option<ChannelName> {
    let callbacks = &connections.settings.callbacks;
    if !callbacks.has_events(EventKind::Occupied) && !callbacks.has_events(EventKind::Vacated) {
        return None;
    }
    let HubMessage::Stream(
        StreamMessage::Interest { channel, .. } | StreamMessage::Disinterest { channel, .. },
    ) = message
    else {
        return None;
    };
    let namespaces = connections.hub.namespaces();
    let id = namespaces.find(channel.as_str())?;
    (!namespaces.is_own(id)).then(|| channel.clone())
}

fn user_of(connections: &mut Connections, session: SessionId) -> Option<Arc<str>> {
    let has_session = connections.table.at(session.index).flags.has_session();
    connections.hub.user(session).filter(|_| has_session).map(Arc::from)
}

fn notify(connections: &Connections, what: Happening) {
    let Connections { settings, caller, counters, .. } = connections;
    if !settings.callbacks.has_events(what.kind()) {
        return;
    }
    let event = Event { at: settings.transport.now.unix_seconds, what };
    if caller.as_ref().is_some_and(|caller| !caller.notify(event)) {
        counters.events_dropped.add(1);
    }
}
