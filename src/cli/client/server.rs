//! The address of a server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::tls::{Tls, Trust};

/// A server's address: `http://HOST[:PORT]`, `tcp://HOST[:PORT]` for raw TCP, `HOST:PORT` for either; over TLS
/// `https://` and `tls://`.
#[derive(Clone, Debug)]
pub struct Server {
    scheme: Option<Scheme>,
    pub(super) host: String,
    pub(super) port: u16,
    is_encrypted: bool,
    /// How it is encrypted, once it is known whose certificates are believed.
    pub(super) tls: Option<Tls>,
}

/// The protocol of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Tcp,
}

impl Server {
    /// The server at an address.
    pub fn at(scheme: Scheme, address: SocketAddr, is_encrypted: bool) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { scheme: Some(scheme), host, port: address.port(), is_encrypted, tls: None }
    }

    /// The address with a scheme; `None` if it has another one.
    pub fn speaking(self, scheme: Scheme) -> Option<Self> {
        let fits = self.scheme.is_none_or(|own| own == scheme);
        fits.then_some(Self { scheme: Some(scheme), ..self })
    }

    /// The server, which is reached over TLS if its address says so.
    pub fn trusting(self, trust: &Trust) -> Result<Self, String> {
        let tls = if self.is_encrypted { Some(trust.tls()?) } else { None };
        Ok(Self { tls, ..self })
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
        let (scheme, default_port, is_encrypted) = match scheme {
            "" => (None, None, false),
            "http" => (Some(Scheme::Http), Some(80), false),
            "https" => (Some(Scheme::Http), Some(443), true),
            "tcp" => (Some(Scheme::Tcp), Some(8001), false),
            "tls" => (Some(Scheme::Tcp), Some(8001), true),
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
        Ok(Self { scheme, host: host.to_owned(), port, is_encrypted, tls: None })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

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
        assert!(speaking("http://a:1", Scheme::Tcp).is_none());
        for bad in ["127.0.0.1", "", "http://", "http://a b", "http://a:x", "ftp://a", "http://a/b"]
        {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        for address in ["127.0.0.1:8000", "[::1]:9"] {
            let server = Server::at(Scheme::Http, address.parse().unwrap(), true);
            assert_eq!(server.to_string(), address);
        }
        assert_eq!(parsed("https://example.com").as_deref(), Ok("example.com:443"));
        let is_encrypted = |text: &str| text.parse::<Server>().unwrap().is_encrypted;
        let encrypted = ["https://a", "tls://a", "http://a", "tcp://a", "a:1"].map(is_encrypted);
        assert_eq!(encrypted, [true, true, false, false, false]);
    }
}
