//! The requests that carry the commands of a client whose replies and pushes are an HTTP answer: one after the other,
//! each on a connection of its own, which may reach another worker than that of the answer.

use fantail::driver::SimulatedNetwork;
use serde_json::{Value, json};

use crate::link::Link;
use crate::world::EDGE;

/// The commands of one client, and the request that carries some of them.
#[derive(Default)]
pub struct Relay {
    /// Session and node, as the reply to `connect` has them.
    session: Option<[Value; 2]>,
    /// Commands for it that are not sent yet, a line each.
    waiting: String,
    request: Option<Request>,
}

struct Request {
    link: Link,
    /// What the network has not accepted yet.
    rest: Vec<u8>,
    /// Whether its session is that of the client.
    is_current: bool,
}

/// The server has not taken the commands: it is low on memory or connections, or the session has too many.
pub struct Refused;

impl Relay {
    /// A session begins, with the reply to `connect`.
    pub fn begin(&mut self, connected: &Value) {
        self.session = Some(["session", "node"].map(|member| connected[member].clone()));
    }

    pub fn push(&mut self, command: &str) {
        self.waiting.push_str(command);
        self.waiting.push('\n');
    }

    /// The session has ended. What is sent already may still be taken, in vain.
    pub fn cut(&mut self) {
        (self.session, self.waiting) = (None, String::new());
        if let Some(request) = &mut self.request {
            request.is_current = false;
        }
    }

    /// Sends and receives. Returns how many bytes there were; the end of a connection counts as one.
    pub fn step(&mut self, network: &SimulatedNetwork) -> Result<usize, Refused> {
        self.send_waiting(network)?;
        let Some(Request { link, rest, is_current }) = &mut self.request else { return Ok(0) };
        let sent = network.write(link.peer, rest);
        rest.drain(..sent);
        let count = sent + link.read(network);
        let head = link.take_until(b"\r\n\r\n");
        let is_over = network.ended(link.peer).is_some();
        if head.is_none() && !is_over {
            return Ok(count);
        }
        let is_taken = head.is_some_and(|head| {
            let is_taken = head.starts_with(b"HTTP/1.1 204 ");
            let is_refused = [&b"503 "[..], b"408 "].contains(&&head[9..13]);
            assert!(is_taken || is_refused, "{}", head.escape_ascii());
            is_taken
        });
        let is_lost = *is_current && !is_taken;
        network.close(link.peer);
        self.request = None;
        if is_lost { Err(Refused) } else { Ok(count + 1) }
    }

    fn send_waiting(&mut self, network: &SimulatedNetwork) -> Result<(), Refused> {
        let Some([session, node]) = &self.session else { return Ok(()) };
        if self.request.is_some() || self.waiting.is_empty() {
            return Ok(());
        }
        // A server that stops has no listeners.
        let peer = network.connect(EDGE).ok_or(Refused)?;
        let fitting = self.waiting.match_indices('\n').map(|(at, _)| at + 1);
        let fitting = fitting.take_while(|end| *end <= COMMAND_BYTES_MAX).last();
        let data: String = self.waiting.drain(..fitting.expect("a command is short")).collect();
        let body = json!({"session": session, "node": node, "data": data}).to_string();
        let length = body.len();
        let text = format!(
            "POST /emulation HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let rest = text.into_bytes();
        self.request = Some(Request { link: Link::new(peer), rest, is_current: true });
        Ok(())
    }
}

/// Bytes of the commands in one request: its body fits every limit that a world may have.
const COMMAND_BYTES_MAX: usize = 1500;
