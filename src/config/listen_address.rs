//! The addresses that a server listens on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address to listen on, written as the address alone, or followed by ` tls`, ` no-tickets`, ` proxy`, ` deflate` or
/// several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Where it listens.
    pub bind: BindAddress,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub expects_proxy_header: bool,
    /// Whether its connections speak TLS, behind such a header.
    pub is_encrypted: bool,
    /// Whether WebSockets may negotiate permessage-deflate.
    pub offers_deflate: bool,
    /// Whether clients over TLS get tickets to come back with.
    pub has_tickets: bool,
}

/// What a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// A TCP address and port.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address and port, if it is not a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self.bind {
            BindAddress::Ip(address) => Some(address),
            BindAddress::Unix(_) => None,
        }
    }

    /// Whether only this host can connect to it.
    pub(super) fn is_local(&self) -> bool {
        self.ip().is_none_or(|address| address.ip().is_loopback())
    }

    /// Whether it serves this host alone: no other host can connect, and no proxy is expected.
    pub(super) fn serves_this_host_only(&self) -> bool {
        self.is_local() && !self.expects_proxy_header
    }

    /// Whether the kernel chooses its port.
    pub(super) fn is_any_port(&self) -> bool {
        self.ip().is_some_and(|address| address.port() == 0)
    }
}

impl From<BindAddress> for ListenAddress {
    fn from(bind: BindAddress) -> Self {
        Self {
            bind,
            expects_proxy_header: false,
            is_encrypted: false,
            has_tickets: true,
            offers_deflate: false,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        BindAddress::Ip(address).into()
    }
}

impl From<PathBuf> for ListenAddress {
    fn from(path: PathBuf) -> Self {
        BindAddress::Unix(path).into()
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut address, mut given) = (text, [false; WORDS.len()]);
        while let Some((at, rest)) =
            WORDS.iter().enumerate().find_map(|(at, word)| Some((at, address.strip_suffix(word)?)))
        {
            if std::mem::replace(&mut given[at], true) {
                return Err(format!("'{text}' says the same twice"));
            }
            address = rest.trim_end();
        }
        let [is_encrypted, has_no_tickets, expects_proxy_header, offers_deflate] = given;
        if has_no_tickets && !is_encrypted {
            return Err(format!("'{text}' has tickets over TLS only: write{TLS}{NO_TICKETS}"));
        }
        let bind = match address.strip_prefix(UNIX) {
            Some(path) => parse_path(text, Path::new(path)).map(BindAddress::Unix)?,
            None => parse_address(address).map(BindAddress::Ip)?,
        };
        let has_tickets = !has_no_tickets;
        Ok(Self { bind, expects_proxy_header, is_encrypted, has_tickets, offers_deflate })
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "{UNIX}{}", path.display()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bind.fmt(out)?;
        let given =
            [self.is_encrypted, !self.has_tickets, self.expects_proxy_header, self.offers_deflate];
        let mut words = WORDS.iter().zip(given).filter(|(_, is_given)| *is_given);
        words.try_for_each(|(word, _)| out.write_str(word))
    }
}

/// Behind an address: each connection begins with a header of the PROXY protocol.
const PROXY: &str = " proxy";

/// Behind an address: its connections speak TLS.
const TLS: &str = " tls";
/// Behind an address: clients over TLS get no tickets.
const NO_TICKETS: &str = " no-tickets";
/// All of them, in the order in which they are shown.
const WORDS: [&str; 4] = [TLS, NO_TICKETS, PROXY, DEFLATE];

/// Behind an address: WebSockets may negotiate permessage-deflate.
const DEFLATE: &str = " deflate";

const UNIX: &str = "unix:";

/// The longest path of a Unix socket: `sun_path` has 108 bytes, and the last one is zero (unix(7)).
const PATH_BYTES_MAX: usize = 107;

fn parse_path(text: &str, path: &Path) -> Result<PathBuf, String> {
    let bytes = path.as_os_str().len();
    if !path.is_absolute() {
        return Err(format!("'{text}' has no absolute path: write unix:/run/fantail.sock"));
    }
    if bytes > PATH_BYTES_MAX {
        return Err(format!(
            "'{text}' has a path of {bytes} bytes; the path of a Unix socket has at most {PATH_BYTES_MAX}"
        ));
    }
    if path.as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_control) {
        return Err(format!("'{}' has control characters in its path", text.escape_debug()));
    }
    Ok(path.to_owned())
}

/// Parses IP:PORT; the error says what to write instead. An IPv4-mapped IPv6 address becomes the IPv4 address,
/// because each listener accepts one IP version.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            return Err(link_local(text));
        }
        Ok(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => {
            return Ok(SocketAddr::new(v6.ip().to_canonical(), v6.port()));
        }
        Ok(address) => return Ok(address),
        Err(_) => {}
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let has_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    Err(match host {
        _ if has_port && port.parse::<u16>().is_err() => {
            format!("'{port}' is not a port, which is from 0 to 65535")
        }
        _ if text.contains('%') => link_local(text),
        _ if is_ipv6(text) || is_ipv6(host) => {
            format!("'{text}' is not IP:PORT: an IPv6 address is written in brackets, [::1]:8000")
        }
        _ if text.parse::<IpAddr>().is_ok() || (text.starts_with('[') && text.ends_with(']')) => {
            format!("'{text}' has no port: write {text}:8000")
        }
        "" | "*" if has_port => format!(
            "'{text}' has no address: 127.0.0.1:{port} listens for this host only, 0.0.0.0:{port} on all IPv4 \
             addresses, [::]:{port} on all IPv6 addresses"
        ),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            format!("'{text}' is not IP:PORT: write 127.0.0.1:{text} to listen for this host only")
        }
        "localhost" if has_port => {
            format!("'{text}' is not IP:PORT: write 127.0.0.1:{port}, [::1]:{port}, or both")
        }
        _ if has_port => format!("'{text}' is not IP:PORT: host names are not resolved"),
        _ => format!("'{text}' is not IP:PORT or unix:PATH"),
    })
}

fn link_local(text: &str) -> String {
    format!(
        "'{text}' needs the index of its interface, as `ip link` lists it: [fe80::1%2]:8000 for index 2"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_has_an_absolute_path_of_limited_length() {
        let parsed = |text: &str| text.parse::<ListenAddress>();
        let socket = parsed("unix:/run/fantail.sock").unwrap();
        assert_eq!(socket, PathBuf::from("/run/fantail.sock").into());
        assert_eq!(socket.to_string(), "unix:/run/fantail.sock");
        assert!(socket.is_local() && socket.ip().is_none() && !socket.is_any_port());
        for (text, words) in [
            ("unix:fantail.sock", "no absolute path"),
            ("unix:", "no absolute path"),
            ("unix:@fantail", "no absolute path"),
            ("unix:/run/a\nb", "control characters"),
        ] {
            let fault = parsed(text).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
        let path = |bytes| format!("unix:/{}", "x".repeat(bytes - 1));
        assert!(parsed(&path(PATH_BYTES_MAX)).is_ok());
        assert!(parsed(&path(PATH_BYTES_MAX + 1)).unwrap_err().contains("108 bytes"));
    }

    #[test]
    fn an_address_may_expect_the_proxy_protocol() {
        for text in ["127.0.0.1:8000", "[::1]:8000", "unix:/run/fantail.sock"] {
            let plain: ListenAddress = text.parse().unwrap();
            assert!(!plain.expects_proxy_header && plain.serves_this_host_only(), "{text}");
            let proxied: ListenAddress = format!("{text} proxy").parse().unwrap();
            assert!(proxied.expects_proxy_header && !proxied.serves_this_host_only(), "{text}");
            assert_eq!(proxied.to_string(), format!("{text} proxy"));
            assert_eq!(proxied.is_local(), plain.is_local());
            assert_eq!(proxied.bind, plain.bind);
        }
        assert!("127.0.0.1:8000 h2".parse::<ListenAddress>().is_err());
        assert!("proxy".parse::<ListenAddress>().is_err());
    }

    #[test]
    fn an_address_may_speak_tls() {
        for (text, shown, is_proxied) in [
            ("127.0.0.1:443 tls", "127.0.0.1:443 tls", false),
            ("127.0.0.1:443  tls proxy", "127.0.0.1:443 tls proxy", true),
            ("unix:/run/fantail.sock proxy tls", "unix:/run/fantail.sock tls proxy", true),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert!(address.is_encrypted && address.expects_proxy_header == is_proxied, "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        let address: ListenAddress = "127.0.0.1:443 no-tickets proxy tls".parse().unwrap();
        assert!(address.is_encrypted && !address.has_tickets && address.expects_proxy_header);
        assert_eq!(address.to_string(), "127.0.0.1:443 tls no-tickets proxy");
        let fault = "127.0.0.1:443 no-tickets".parse::<ListenAddress>().unwrap_err();
        assert!(fault.contains("write tls no-tickets"), "{fault}");
        for text in ["127.0.0.1:443 tls tls", "127.0.0.1:443 proxy tls proxy", "tls"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
