//! Calls to the backend, and what is counted of their answers.

use std::sync::Arc;

use crate::callback::{Answered, Ask, Call};
use crate::message::SessionId;
use crate::transport::Traits;

use super::connections::Connections;
use super::table::socket_of;

/// Makes a call for a session. Returns false if too many wait.
pub(super) fn make(
    connections: &mut Connections,
    session: SessionId,
    serial: u32,
    ask: Ask,
) -> bool {
    let Connections { table, held, hub, settings, caller, arrivals, .. } = connections;
    let connection = table.at(session.index);
    let has_session = connection.flags.has_session();
    let Traits { kind: transport, is_protobuf, .. } = connection.traits();
    let call = Call {
        client: settings.hub.client_id(session),
        serial,
        transport,
        is_protobuf,
        user: hub.user(session).filter(|_| has_session).map(Arc::from),
        meta: settings
            .callbacks
            .of(ask.kind())
            .include_connection_meta
            .then(|| held.meta(session))
            .flatten(),
        address: arrivals.client(socket_of(session)),
        headers: held.headers(session),
        ask,
    };
    caller.as_ref().is_some_and(|caller| caller.call(Box::new(call)).is_ok())
}

/// Counts an answer.
pub(super) fn count(connections: &Connections, answered: &Answered) {
    let counters = &connections.counters;
    counters.callbacks.at(answered.kind as usize, answered.outcome()).add(1);
    let took_us = u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX);
    counters.callback_duration.observe(took_us, 1);
}
