//! Commands that clients send with requests of their own: they are taken at the worker of the session that they name.
//!
//! A session whose socket is not read, because its client reads too slowly or asks for too much, takes no commands by
//! another way either. They wait in [`Relays`](super::relays::Relays), or their request is refused.

use bytes::Bytes;

use super::connections::Connections;
use super::table::socket_of;
use crate::message::{Refusal, Reply, SessionId};

/// Has the client of a session take commands, now or as soon as it may. Nothing happens if the session has ended, or is
/// not one whose commands come so.
pub(super) fn take(connections: &mut Connections, session: SessionId, commands: Bytes) -> Reply {
    let table = &mut connections.table;
    if !table.is_open(socket_of(session)) || !table.at(session.index).traits().takes_relays {
        return Reply::Done;
    }
    if !connections.relays.has(session) && may_take(connections, session) {
        give(connections, session, &commands);
        return Reply::Done;
    }
    // The client is there, although what it says has to wait.
    give(connections, session, &[]);
    match !connections.budget.is_critical() && connections.relays.push(session, commands) {
        true => Reply::Done,
        false => Reply::Refused(Refusal::Overloaded),
    }
}

/// Has sessions take what waits for them, if they may by now.
pub(super) fn resume(connections: &mut Connections) {
    for _ in 0..connections.relays.len().min(RELAYS_LOOKED_AT_PER_TURN_MAX) {
        let Some(session) = connections.relays.next() else { return };
        while may_take(connections, session) {
            if connections.turn.is_full() {
                return connections.relays.put_back(session, true);
            }
            let Some(commands) = connections.relays.pop(session) else { break };
            give(connections, session, &commands);
            connections.drain_hub_outputs();
        }
        if !connections.table.is_open(socket_of(session)) {
            connections.relays.forget(session);
        }
        connections.relays.put_back(session, false);
    }
}

fn give(connections: &mut Connections, session: SessionId, commands: &[u8]) {
    connections
        .step_connection(session.index, |connection, context| connection.relay(commands, context));
}

/// Whether the socket of a session would be read, and so its client may ask for something.
fn may_take(connections: &mut Connections, session: SessionId) -> bool {
    let table = &mut connections.table;
    table.is_open(socket_of(session))
        && !table.at(session.index).flags.is_paused()
        && !connections.paused.pauses_all()
        && !connections.mesh.is_congested()
}

/// Sessions that are looked at in one turn.
const RELAYS_LOOKED_AT_PER_TURN_MAX: usize = 256;
