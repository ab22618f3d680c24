//! `POST /emulation`: commands of a client whose replies are the answer to another request, perhaps of another worker.

use bytes::Bytes;

use super::error::HttpError;
use crate::message::{Actor, Control, Request, Ticket};
use crate::protocol::json::{Emulation, decode_emulation};
use crate::transport::context::Context;

/// Has the worker of a session take the commands of a body. Returns false if there is nothing to be done: the session
/// has not been given to anyone, or there are no commands.
pub(super) fn relay(body: &[u8], context: &mut Context<'_>) -> Result<bool, HttpError> {
    let Ok(Emulation { session, node, commands }) = decode_emulation(body) else {
        let message = "the body is not a JSON object with session, node and data";
        return Err(HttpError::new(400, "json_invalid", message));
    };
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
