//! Hands the hub a request that is allowed, with the author that subscribers see.

use crate::hub::Author;
use crate::message::{Actor, Request, RequestId, SessionId, TransportKind};

use super::connections::Connections;

/// Has the hub do what is allowed.
pub(super) fn hand_over(
    connections: &mut Connections,
    session: SessionId,
    id: Option<RequestId>,
    by: Actor,
    request: Request,
) {
    // No subscriber knows the client of a single request over HTTP that does not say who it is.
    let connection = connections.table.at(session.index);
    let is_known =
        connection.flags.has_session() || connection.traits().kind != TransportKind::Http;
    let author = match by {
        Actor::Client if is_known => Author::Client,
        Actor::Client | Actor::Server => Author::Unknown,
    };
    connections.hub.handle(session, id, author, request, &mut connections.hub_outputs);
}
