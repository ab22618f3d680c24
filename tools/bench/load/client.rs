//! WebSocket and event stream clients: opens connections in bulk, writes and reads frames.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::ValueEnum;
use socket2::{Domain, Socket, Type};

use crate::instrument::{Opening, Tls, Tokens, Wire, bind_address_no_port};

/// Protocol of a connection.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// WebSocket (RFC 6455)
    Websocket,
    /// Event stream (SSE)
    Sse,
    /// Command protocol in JSON, over a WebSocket
    Commands,
    /// Command protocol in Protobuf, over a WebSocket
    Protobuf,
    /// WebSocket with permessage-deflate (RFC 7692)
    Deflate,
}

/// Opens connections to one address.
pub struct Connector {
    address: SocketAddr,
    path: String,
    protocol: Protocol,
    /// What each connection shows in its request.
    token: Option<String>,
    /// The same, of which each connection has another one.
    tokens: Option<Tokens>,
    /// If the connections are encrypted.
    tls: Option<Tls>,
    connections_per_address: u32,
    opened: u32,
}

impl Connector {
    pub fn new(address: SocketAddr, path: String) -> Self {
        Self {
            address,
            path,
            protocol: Protocol::Websocket,
            token: None,
            tokens: None,
            tls: None,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            opened: 0,
        }
    }

    /// Sets the protocol and path of the next connections.
    pub fn set_protocol(&mut self, protocol: Protocol, path: &str) {
        self.protocol = protocol;
        path.clone_into(&mut self.path);
    }

    /// Sets the token that the next connections show.
    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// Encrypts the next connections, or not.
    pub fn set_tls(&mut self, tls: Option<Tls>) {
        self.tls = tls;
    }

    /// Has each of the next connections show a token of its own.
    pub fn set_tokens(&mut self, tokens: Option<Tokens>) {
        self.tokens = tokens;
    }

    /// Sets how many of the next connections have the same source address.
    pub fn set_connections_per_address(&mut self, connections: u32) {
        self.connections_per_address = connections;
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The channel that the path names.
    pub fn channel(&self) -> String {
        let (_, channel) = self.path.split_once("channel=").unwrap_or_default();
        channel.split('&').next().unwrap_or(channel).to_owned()
    }

    fn request(&self) -> String {
        let deflate = match self.protocol {
            Protocol::Deflate => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            _ => "",
        };
        let upgrade = match self.protocol {
            Protocol::Sse => "",
            Protocol::Websocket | Protocol::Commands | Protocol::Protobuf | Protocol::Deflate => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            }
        };
        let own = self.tokens.as_ref().map(|tokens| tokens.token(self.opened.into()));
        let token = own.as_ref().or(self.token.as_ref());
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{upgrade}{deflate}{token}\r\n",
            self.path, self.address
        )
    }

    /// Opens `count` blocking connections; returns each with the bytes received after the handshake.
    pub fn open(&mut self, count: usize) -> io::Result<Vec<(Wire, Vec<u8>)>> {
        let mut opened = Vec::with_capacity(count);
        while opened.len() < count {
            // Enough in flight to keep the server busy, and few enough for any accept queue.
            let batch = (count - opened.len()).min(IN_FLIGHT);
            let mut openings = Vec::with_capacity(batch);
            for _ in 0..batch {
                let tcp = self.connect()?;
                openings.push((Opening::begin(tcp, self.tls.as_ref())?, self.request()));
            }
            let mut streams = Vec::with_capacity(batch);
            for (opening, request) in openings {
                let mut stream = opening.finish()?;
                stream.write_all(request.as_bytes())?;
                streams.push(stream);
            }
            for mut stream in streams {
                let rest = read_response(&mut stream, self.protocol)?;
                opened.push((stream, rest));
            }
        }
        Ok(opened)
    }

    /// Opens a blocking connection without a request.
    pub fn connect_wire(&mut self) -> io::Result<Wire> {
        Opening::begin(self.connect()?, self.tls.as_ref())?.finish()
    }

    /// Opens a blocking TCP connection that is reset on drop. Loopback connections use many source addresses, so that
    /// neither ports nor limits per address are exhausted.
    pub fn connect(&mut self) -> io::Result<TcpStream> {
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, Type::STREAM, Some(socket2::Protocol::TCP))?;
        if self.address.ip().is_loopback() && self.address.is_ipv4() {
            bind_address_no_port(&socket)?;
            let [.., third, fourth] = (self.opened / self.connections_per_address).to_be_bytes();
            let source = Ipv4Addr::new(127, 1, third, fourth);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        self.opened += 1;
        // A reset instead of a FIN leaves no port in TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        socket.connect(&self.address.into())?;
        Ok(socket.into())
    }
}

fn read_response(stream: &mut Wire, protocol: Protocol) -> io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("closed during the handshake"));
        }
        response.extend_from_slice(&buffer[..count]);
        if let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") {
            let status: &[u8] = match protocol {
                Protocol::Sse => b"HTTP/1.1 200",
                _ => b"HTTP/1.1 101",
            };
            if !response.starts_with(status) {
                let text = String::from_utf8_lossy(&response).into_owned();
                return Err(io::Error::other(format!("refused: {text}")));
            }
            return Ok(response.split_off(end + 4));
        }
    }
}

/// Encodes a masked client frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ ..=125 => frame.push(0x80 | length as u8),
        length @ ..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Decodes an event stream whose events have one line of data.
#[derive(Default)]
pub struct EventReader {
    rest: Vec<u8>,
}

impl EventReader {
    /// Calls `take` with the data of each complete event.
    pub fn read(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        self.rest.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(end) = self.rest[used..].iter().position(|byte| *byte == b'\n') {
            // Other lines are fields or chunk sizes.
            match self.rest[used..used + end].strip_prefix(b"data: ") {
                // `{}` is the position event at the start of the stream.
                None | Some(b"{}") => {}
                Some(data) => take(data),
            }
            used += end + 1;
        }
        self.rest.drain(..used);
    }
}

/// Decodes server frames.
#[derive(Default)]
pub struct FrameReader {
    rest: Vec<u8>,
}

impl FrameReader {
    /// Calls `take` with opcode and payload of each complete frame; [`COMPRESSED`] is added to the opcode.
    pub fn read(&mut self, bytes: &[u8], mut take: impl FnMut(u8, &[u8])) {
        if self.rest.is_empty() {
            let used = take_frames(bytes, &mut take);
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = take_frames(&self.rest, &mut take);
            self.rest.drain(..used);
        }
    }
}

fn take_frames(bytes: &[u8], take: &mut impl FnMut(u8, &[u8])) -> usize {
    let mut used = 0;
    while let Some((opcode, header_bytes, payload_bytes)) = parse_header(&bytes[used..]) {
        let start = used + header_bytes;
        let Some(payload) = bytes.get(start..start + payload_bytes) else { break };
        take(opcode, payload);
        used = start + payload_bytes;
    }
    used
}

fn parse_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let &[first, second, ref after @ ..] = bytes else { return None };
    let opcode = first & (0x0f | COMPRESSED);
    Some(match second & 0x7f {
        126 => (opcode, 4, usize::from(u16::from_be_bytes(*after.first_chunk()?))),
        127 => (opcode, 10, u64::from_be_bytes(*after.first_chunk()?) as usize),
        short => (opcode, 2, usize::from(short)),
    })
}

/// The bit of a compressed message.
pub const COMPRESSED: u8 = 0x40;

/// Handshakes in flight at once.
const IN_FLIGHT: usize = 256;

const CONNECTIONS_PER_ADDRESS: u32 = 1000;

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A constant mask costs nothing to generate.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_masked_as_in_the_rfc() {
        assert_eq!(frame(1, b"Hello"), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn frames_are_cut_wherever_the_bytes_split() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let bytes = [b"\x81\x02ab".to_vec(), long, b"\x8a\x00".to_vec()].concat();
        for split in 0..=bytes.len() {
            let mut reader = FrameReader::default();
            let mut frames = Vec::new();
            for part in [&bytes[..split], &bytes[split..]] {
                reader.read(part, |opcode, payload| frames.push((opcode, payload.len())));
            }
            assert_eq!(frames, [(1, 2), (2, 256), (10, 0)], "{split}");
        }
    }
}
