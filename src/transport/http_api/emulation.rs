//! `POST /emulation`: commands of a client whose replies are the answer to another request, perhaps of another worker.

use bytes::Bytes;

use super::error::HttpError;
use crate::message::{Actor, Control, Request, Ticket};
use crate::protocol::command::{Emulation, InvalidEmulation};
use crate::protocol::{json, protobuf};
use crate::transport::context::Context;

/// Has the worker of a session take the commands of a body. Returns false if there is nothing to be done: the session
/// has not been given to anyone, or there are no commands.
pub(super) fn relay(
    body: &[u8],
    is_protobuf: bool,
    context: &mut Context<'_>,
) -> Result<bool, HttpError> {
    let decoded = match is_protobuf {
        false => json::decode_emulation(body),
        true => protobuf::decode_emulation(body),
    };
    let Emulation { session, node, commands } = decoded.map_err(|InvalidEmulation| {
        let (code, message) = match is_protobuf {
            false => ("json_invalid", "the body is not a JSON object with session, node and data"),
            true => ("protobuf_invalid", "the body is not an EmulationRequest"),
        };
        HttpError::new(400, code, message)
    })?;
    if *node != context.client.node.to_string() {
        return Err(HttpError::new(404, "node_unknown", "this server is not that node"));
    }
    let client = context.settings.now.session_key.client_of(&session);
    let (Some(client), Some(commands)) = (client, commands) else { return Ok(false) };
    let control = Control::Take(Bytes::from(commands.into_owned()));
    // The name of the session is the right to it.
    let request = Request::Control { client, user: None, control };
    context.request(Some(Ticket::FIRST), Actor::Server, request);
    Ok(true)
}
