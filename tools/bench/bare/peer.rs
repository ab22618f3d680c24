//! WebSocket in the bare loops: enough for well-behaved clients, and fast.

use std::os::fd::RawFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use sha1::{Digest, Sha1};

use super::round::Round;

/// What happens to a received frame.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Send it back to its sender
    Echo,
    /// Send it to every open connection
    Fanout,
    /// Like echo, to measure the cost of opening connections
    Accept,
}

/// The state of one connection.
#[derive(Default)]
pub struct Peer {
    /// Whether the handshake is complete.
    pub open: bool,
    /// Bytes of an incomplete frame or request header.
    pub rest: Vec<u8>,
    /// Bytes that the kernel did not take yet.
    pub unsent: Vec<u8>,
    /// Position up to which fan-out frames were sent to it, see `Round`.
    pub seen: u64,
    /// Index in `Peers::open`.
    place: usize,
}

/// All connections by descriptor, and the list of open ones for fan-outs.
#[derive(Default)]
pub struct Peers {
    by_descriptor: Vec<Option<Peer>>,
    open: Vec<RawFd>,
}

/// The result of consuming received bytes.
pub struct Consumed {
    /// Length of the answer at the start of the buffer.
    pub answer_bytes: usize,
    /// Whether to close: the peer sent a close frame or something unsupported.
    pub over: bool,
}

impl Peers {
    pub fn insert(&mut self, fd: RawFd) {
        let index = fd as usize;
        if index >= self.by_descriptor.len() {
            self.by_descriptor.resize_with(index + 1, || None);
        }
        self.by_descriptor[index] = Some(Peer::default());
    }

    pub fn find(&mut self, fd: RawFd) -> Option<&mut Peer> {
        self.by_descriptor.get_mut(fd as usize)?.as_mut()
    }

    pub fn remove(&mut self, fd: RawFd, round: &mut Round) {
        let peer = self.by_descriptor.get_mut(fd as usize).and_then(Option::take);
        if let Some(peer) = peer.filter(|peer| peer.open) {
            self.open.swap_remove(peer.place);
            if let Some(&moved) = self.open.get(peer.place)
                && let Some(moved) = self.find(moved)
            {
                moved.place = peer.place;
            }
            round.rearrange(self.open.len());
        }
    }

    /// Descriptors of the open connections.
    pub fn open(&self) -> &[RawFd] {
        &self.open
    }

    /// Turns the bytes of `buffer` into an answer at its start. An answer is never longer than its input: an echoed
    /// frame has no mask, and a handshake response is shorter than the request. In fan-out mode, frames go to `round`
    /// instead. Incomplete input is kept in the peer.
    pub fn consume(
        &mut self,
        fd: RawFd,
        buffer: &mut [u8],
        mode: Mode,
        round: &mut Round,
    ) -> Consumed {
        let place = self.open.len();
        let fanned_out = round.end();
        let Some(peer) = self.find(fd) else {
            return Consumed { answer_bytes: 0, over: true };
        };
        let mut read = 0;
        let mut written = 0;
        if !peer.open {
            let Some(head_bytes) = find_head_end(buffer) else {
                peer.rest.extend_from_slice(buffer);
                return Consumed { answer_bytes: 0, over: peer.rest.len() > HEAD_BYTES_MAX };
            };
            let Some(response) = handshake(&buffer[..head_bytes]) else {
                return Consumed { answer_bytes: 0, over: true };
            };
            buffer[..response.len()].copy_from_slice(&response);
            written = response.len();
            read = head_bytes;
            peer.open = true;
            peer.place = place;
            peer.seen = fanned_out;
        }
        let mut over = false;
        while let Some(frame) = Frame::parse(&buffer[read..]) {
            if frame.is_close || frame.unknown {
                over = true;
                break;
            }
            if buffer.len() - read < frame.header_bytes + frame.payload_bytes {
                break;
            }
            written = frame.answer(buffer, read, written, mode, &mut round.frames);
            read += frame.header_bytes + frame.payload_bytes;
        }
        if read < buffer.len() && !over {
            peer.rest.extend_from_slice(&buffer[read..]);
        }
        if peer.open && peer.place == place {
            self.open.push(fd);
            round.rearrange(self.open.len());
        }
        if round.end() > fanned_out {
            round.extend(self.open.len());
        }
        Consumed { answer_bytes: written, over }
    }
}

/// The header of a masked frame.
struct Frame {
    first: u8,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: usize,
    is_close: bool,
    unknown: bool,
}

impl Frame {
    /// Returns `None` while the header is incomplete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ref after @ ..] = bytes else { return None };
        let (payload_bytes, extended) = match second & 0x7f {
            126 => {
                let length = after.first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), 2)
            }
            short => (usize::from(short), 0),
        };
        let mask = *after.get(extended..)?.first_chunk::<4>()?;
        Some(Self {
            first,
            mask,
            header_bytes: 2 + extended + 4,
            payload_bytes,
            is_close: first & 0x0f == 8,
            // Unmasked, or with a 64-bit length.
            unknown: second & 0x80 == 0 || second & 0x7f == 127,
        })
    }

    /// Writes the unmasked frame at `written`, or to `frames`; returns the new end of the answer.
    fn answer(
        &self,
        buffer: &mut [u8],
        read: usize,
        written: usize,
        mode: Mode,
        frames: &mut Vec<u8>,
    ) -> usize {
        let payload = read + self.header_bytes..read + self.header_bytes + self.payload_bytes;
        let (header, header_bytes) = self.unmasked_header();
        let header = &header[..header_bytes];
        if mode == Mode::Fanout {
            frames.extend_from_slice(header);
            let start = frames.len();
            frames.extend_from_slice(&buffer[payload]);
            unmask(&mut frames[start..], self.mask);
            return written;
        }
        buffer[written..written + header_bytes].copy_from_slice(header);
        let start = written + header_bytes;
        buffer.copy_within(payload, start);
        unmask(&mut buffer[start..start + self.payload_bytes], self.mask);
        start + self.payload_bytes
    }

    fn unmasked_header(&self) -> ([u8; 4], usize) {
        match u8::try_from(self.payload_bytes) {
            Ok(short @ ..=125) => ([self.first, short, 0, 0], 2),
            _ => {
                let [high, low] = (self.payload_bytes as u16).to_be_bytes();
                ([self.first, 126, high, low], 4)
            }
        }
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn find_head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// The response to an upgrade request; `None` without a key.
fn handshake(head: &[u8]) -> Option<Vec<u8>> {
    let key = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(KEY_HEADER.len())?;
        name.eq_ignore_ascii_case(KEY_HEADER).then(|| value.trim_ascii())
    })?;
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let accept = STANDARD.encode(digest);
    Some(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
    .filter(|response| response.len() <= head.len())
}

const KEY_HEADER: &[u8] = b"sec-websocket-key:";

/// The GUID of RFC 6455 1.3.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const HEAD_BYTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] =
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    const HELLO_MASKED: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

    fn opened() -> Peers {
        let mut peers = Peers::default();
        peers.insert(3);
        let mut request = REQUEST.to_vec();
        let consumed = peers.consume(3, &mut request, Mode::Echo, &mut Round::default());
        // Key and response are those of RFC 6455 1.3.
        assert!(
            request[..consumed.answer_bytes].ends_with(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        );
        peers
    }

    #[test]
    fn frames_of_one_read_are_echoed_in_one_answer() {
        let mut peers = opened();
        let mut buffer = [HELLO_MASKED, HELLO_MASKED, &HELLO_MASKED[..4]].concat();
        let consumed = peers.consume(3, &mut buffer, Mode::Echo, &mut Round::default());
        assert_eq!(&buffer[..consumed.answer_bytes], b"\x81\x05Hello\x81\x05Hello");
        assert_eq!(peers.find(3).unwrap().rest, HELLO_MASKED[..4]);
    }

    #[test]
    fn fan_out_frames_are_not_answered() {
        let mut peers = opened();
        let mut round = Round::default();
        let mut buffer = [HELLO_MASKED, HELLO_MASKED].concat();
        let consumed = peers.consume(3, &mut buffer, Mode::Fanout, &mut round);
        assert_eq!(consumed.answer_bytes, 0);
        assert_eq!(round.frames, b"\x81\x05Hello\x81\x05Hello");
        assert_eq!(round.next(1), 0..1);
        assert_eq!(peers.open(), [3]);
    }

    #[test]
    fn removal_keeps_the_list_of_open_connections_dense() {
        let mut peers = opened();
        for fd in [4, 5] {
            peers.insert(fd);
            peers.consume(fd, &mut REQUEST.to_vec(), Mode::Echo, &mut Round::default());
        }
        peers.remove(3, &mut Round::default());
        assert_eq!(peers.open(), [5, 4]);
        peers.remove(5, &mut Round::default());
        peers.remove(4, &mut Round::default());
        assert!(peers.open().is_empty());
    }
}
