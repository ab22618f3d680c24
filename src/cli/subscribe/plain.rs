//! Plain WebSocket messages: payloads without a position in their channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::printer::{Done, Printer};
use crate::cli::access::Tokens;
use crate::cli::client::{Frame, SILENCE_MAX, Server, Trouble, WebSocket, Wire, channels_query};

pub fn listen(
    server: &Server,
    channels: &[String],
    tokens: &Tokens,
    printer: &mut Printer,
) -> Result<Done, Trouble> {
    let target = format!("/ws?{}", channels_query(channels));
    let token = tokens.connection().map_err(Trouble::Refused)?;
    let wire = Wire::connect(server, SILENCE_MAX)?;
    let mut socket = WebSocket::open(wire, &target, token.as_ref())?;
    printer.welcome();
    loop {
        let done = match socket.next()? {
            Frame::Text(text) => printer.print_payload(&String::from_utf8_lossy(&text)),
            Frame::Binary(payload) => printer.print_line(&STANDARD.encode(payload)),
            Frame::Close { code, reason } => return Err(closed(server, code, &reason)),
        };
        if let Some(done) = done {
            return Ok(done);
        }
    }
}

/// Whether a client may reconnect after a close code (RFC 6455 7.4.1): protocol errors would recur.
fn closed(server: &Server, code: Option<u16>, reason: &str) -> Trouble {
    let message = format!("{server} closed the connection: {reason}");
    match code {
        Some(1002 | 1003 | 1007..=1010 | 3500..=3999 | 4500..=4999) => Trouble::Refused(message),
        _ => Trouble::Lost(message),
    }
}
