//! A client's end of a connection.

use fantail::driver::{PeerId, SimulatedNetwork};
use fantail::message::Position;
use fantail::protocol::websocket::MessageDecoder;

/// One connection of a client.
pub struct Link {
    pub peer: PeerId,
    /// The client id that the server assigned.
    pub name: Option<String>,
    pub bytes: Vec<u8>,
    /// What has come of a body, without what delimits chunks.
    pub body: Vec<u8>,
    pub decoder: MessageDecoder,
    /// Whether the handshake, or the response head, is complete.
    pub is_open: bool,
    /// The positions in its request, until the response.
    pub since: Option<Vec<Position>>,
}

impl Link {
    pub fn new(peer: PeerId) -> Self {
        let decoder = MessageDecoder::new();
        let (bytes, body) = (Vec::new(), Vec::new());
        Self { peer, name: None, bytes, body, decoder, is_open: false, since: None }
    }

    /// Takes the bytes before `end`, if it has arrived.
    pub fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        take_until(&mut self.bytes, end)
    }

    /// Takes the data of the next chunk (RFC 9112 7.1), if it is complete.
    pub fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = find(&self.bytes, b"\r\n")?;
        let size = std::str::from_utf8(&self.bytes[..line_end]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("hexadecimal digits");
        let end = line_end + 2 + size;
        if self.bytes.len() < end + 2 {
            return None;
        }
        let mut taken: Vec<u8> = self.bytes.drain(..end + 2).collect();
        assert_eq!(taken[end..], *b"\r\n");
        taken.truncate(end);
        Some(taken.split_off(line_end + 2))
    }

    /// Buffers received bytes; returns their number.
    pub fn read(&mut self, network: &SimulatedNetwork) -> usize {
        let mut bytes = network.read(self.peer);
        let count = bytes.len();
        self.bytes.append(&mut bytes);
        count
    }

    /// Takes the body of an HTTP response, if it is complete. `Err` if the server is overloaded or the request timed
    /// out.
    pub fn take_response(&mut self) -> Option<Result<Vec<u8>, Vec<u8>>> {
        let end = find(&self.bytes, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.bytes[..end]).expect("a head is text");
        let is_late = head.starts_with("HTTP/1.1 408 ");
        let is_busy = head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: ");
        let is_refused = is_late || is_busy;
        assert!(is_refused || head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        if self.bytes.len() < end + 4 + length {
            return None;
        }
        let mut taken: Vec<u8> = self.bytes.drain(..end + 4 + length).collect();
        let body = taken.split_off(end + 4);
        Some(if is_refused { Err(body) } else { Ok(body) })
    }
}

/// Takes the bytes before `end`, if that is there.
pub fn take_until(bytes: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    let at = find(bytes, end)?;
    let mut taken: Vec<u8> = bytes.drain(..at + end.len()).collect();
    taken.truncate(at);
    Some(taken)
}

fn find(bytes: &[u8], end: &[u8]) -> Option<usize> {
    let last = *end.last().expect("the delimiter is not empty");
    let ends = (0..bytes.len()).filter(|at| bytes[*at] == last && bytes[..=*at].ends_with(end));
    ends.map(|at| at + 1 - end.len()).next()
}
