//! The client of the commands that connect to a server: addresses, a blocking connection, HTTP and WebSocket over it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use fantail::config::limits::MESSAGE_BYTES_CEILING;

mod http;
mod websocket;

pub use http::{Head, Request, encoded, error_of};
pub use websocket::{Frame, WebSocket};

/// A server's address: `http://HOST[:PORT]`, `tcp://HOST[:PORT]` for raw TCP, `HOST:PORT` for either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    scheme: Option<Scheme>,
    host: String,
    port: u16,
}

/// The protocol of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Tcp,
}

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

impl Server {
    /// The address with a scheme; `None` if it has another one.
    pub fn speaking(self, scheme: Scheme) -> Option<Self> {
        let fits = self.scheme.is_none_or(|own| own == scheme);
        fits.then_some(Self { scheme: Some(scheme), ..self })
    }

    /// The scheme of the address; HTTP if it has none.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::Http)
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not an address such as http://127.0.0.1:8000");
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (scheme, default_port) = match scheme {
            "" => (None, None),
            "http" => (Some(Scheme::Http), Some(80)),
            "tcp" => (Some(Scheme::Tcp), Some(8001)),
            "https" | "wss" => return Err("there is no TLS here: use http://".to_owned()),
            _ => return Err(fault()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // An IPv6 address has colons too, and is therefore in brackets.
        let port_at = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&rest[..at], rest[at + 1..].parse().map_err(|_| fault())?),
            None => (rest, default_port.ok_or_else(fault)?),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(fault());
        }
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

/// A blocking connection, and the bytes received over it and not yet consumed.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
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
            return Err(Trouble::Refused(format!("{} sends more than a message has", self.server)));
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
            Arrival::Silence => Err(Trouble::Lost(format!("{} does not answer", self.server))),
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const RECEIVE_BYTES: usize = 64 * 1024;

/// Bytes of the largest message as JSON, where a byte may become six, and of what encloses it.
const RECEIVED_BYTES_MAX: usize = 6 * MESSAGE_BYTES_CEILING as usize + RECEIVE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_perhaps_a_port() {
        let parsed = |text: &str| text.parse::<Server>().map(|server| server.to_string());
        assert_eq!(parsed("http://127.0.0.1:8000").as_deref(), Ok("127.0.0.1:8000"));
        assert_eq!(parsed("http://example.com/").as_deref(), Ok("example.com:80"));
        assert_eq!(parsed("tcp://[::1]").as_deref(), Ok("[::1]:8001"));
        assert_eq!(parsed("http://[::1]:9").as_deref(), Ok("[::1]:9"));
        assert_eq!(parsed("127.0.0.1:8000").as_deref(), Ok("127.0.0.1:8000"));
        assert_eq!(parsed("[::1]:8000").as_deref(), Ok("[::1]:8000"));
        let speaking = |text: &str, scheme| text.parse::<Server>().unwrap().speaking(scheme);
        assert_eq!(speaking("a:1", Scheme::Tcp).map(|server| server.scheme()), Some(Scheme::Tcp));
        assert_eq!(speaking("http://a:1", Scheme::Tcp), None);
        for bad in ["127.0.0.1", "", "http://", "http://a b", "http://a:x", "ftp://a", "http://a/b"]
        {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert!(parsed("https://a").unwrap_err().contains("TLS"));
    }
}
