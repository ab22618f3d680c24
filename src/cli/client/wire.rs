//! A blocking connection to a server.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use fantail::config::limits::MESSAGE_BYTES_CEILING;

use super::server::Server;
use super::tls::Stream;

/// An error in communicating with a server: one line.
#[derive(Debug)]
pub enum Trouble {
    /// The connection failed, or the server did; another attempt may succeed.
    Lost(String),
    /// The server refused the request, or is not a fantail server.
    Refused(String),
}

impl Trouble {
    pub fn into_message(self) -> String {
        match self {
            Trouble::Lost(message) | Trouble::Refused(message) => message,
        }
    }
}

/// A blocking connection, and the bytes received over it and not yet consumed.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    server: Server,
    pub received: Vec<u8>,
}

/// The result of waiting for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Bytes,
    End,
    /// Nothing was received before the timeout.
    Silence,
}

impl Wire {
    /// Connects; `timeout` is the longest wait for a single read or write.
    pub fn connect(server: &Server, timeout: Duration) -> Result<Self, Trouble> {
        let lost = |error: io::Error| Trouble::Lost(format!("cannot reach {server}: {error}"));
        let host = server.host.trim_start_matches('[').trim_end_matches(']');
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, server.port).to_socket_addrs().map_err(lost)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(lost)?;
                    stream.set_read_timeout(Some(timeout)).map_err(lost)?;
                    stream.set_write_timeout(Some(timeout)).map_err(lost)?;
                    let stream = encrypt(stream, host, server)?;
                    return Ok(Self { stream, server: server.clone(), received: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(lost(last))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).map_err(|error| self.lost(&error))
    }

    /// Waits for more bytes in `received`.
    pub fn receive(&mut self) -> Result<Arrival, Trouble> {
        if self.received.len() > RECEIVED_BYTES_MAX {
            return Err(Trouble::Refused(format!(
                "{} sent a message that is too large",
                self.server
            )));
        }
        let start = self.received.len();
        self.received.resize(start + RECEIVE_BYTES, 0);
        let received = loop {
            match self.stream.read(&mut self.received[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        self.received.truncate(start + received.as_ref().map_or(0, |count| *count));
        match received {
            Ok(0) => Ok(Arrival::End),
            Ok(_) => Ok(Arrival::Bytes),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                Ok(Arrival::Silence)
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Waits for more bytes; the end of the connection and a timeout are errors.
    pub fn receive_more(&mut self) -> Result<(), Trouble> {
        match self.receive()? {
            Arrival::Bytes => Ok(()),
            Arrival::End => Err(self.ended()),
            Arrival::Silence => Err(Trouble::Lost(format!("{} does not respond", self.server))),
        }
    }

    /// The error for a connection that the server closed unexpectedly.
    pub fn ended(&self) -> Trouble {
        Trouble::Lost(format!("{} closed the connection", self.server))
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    fn lost(&self, error: &io::Error) -> Trouble {
        Trouble::Lost(format!("the connection to {} is lost: {error}", self.server))
    }
}

fn encrypt(stream: TcpStream, host: &str, server: &Server) -> Result<Stream, Trouble> {
    let Some(tls) = &server.tls else { return Ok(Stream::Plain(stream)) };
    tls.encrypt(stream, host).map_err(|error| match error.kind() {
        // What rustls says.
        io::ErrorKind::InvalidData => {
            Trouble::Refused(format!("TLS with {server}: {error}: see --cacert and --insecure"))
        }
        _ => Trouble::Lost(format!("TLS with {server}: {error}")),
    })
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const RECEIVE_BYTES: usize = 64 * 1024;

/// Bytes of the largest message as JSON, where a byte may become six, and of what encloses it.
const RECEIVED_BYTES_MAX: usize = 6 * MESSAGE_BYTES_CEILING as usize + RECEIVE_BYTES;

/// A server that sends nothing for this long is pinged, or is considered lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
