//! The options that all modes share, and the parsers of option values.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use fantail::config::{self, Secret, parse_seconds};
use fantail::message::INFO_BYTES_MAX;

use crate::instrument::Tokens;

/// The options that all modes share.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// HTTP and WebSocket address of the server; in echo mode, address of the echo service
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000", value_parser = parse_address)]
    pub target: SocketAddr,
    /// Raw TCP address of the server; echo mode uses --target only
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8001", value_parser = parse_address)]
    pub tcp_target: SocketAddr,
    /// Protocol of the connections
    #[arg(long, value_enum, default_value = "ws")]
    pub protocol: Protocol,
    /// Path and query to request; {channel} stands for the channel [default: /ws?channel={channel} or
    /// /events?channel={channel}]
    #[arg(long)]
    pub path: Option<String>,
    /// Prefix of channel names, followed by "-0", "-1" and so on
    #[arg(long, value_name = "NAME", default_value = "c1m")]
    pub channel_prefix: String,
    /// Number of channels; each connection subscribes to one of them, in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=CHANNELS_MAX))]
    pub channels: u32,
    /// Number of connections
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = parse_count)]
    pub connections: usize,
    /// Connections to open per second; 0 means as fast as possible
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = parse_rate)]
    pub connect_rate: f64,
    /// Maximum number of handshakes in flight; the server's accept queue should hold as many
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = number::<usize>(1..=CONNECTIONS_MAX))]
    pub in_flight: usize,
    /// Timeout for connecting, and again for the handshake
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    pub connect_timeout: Duration,
    /// Number of failed or lost connections after which the run ends
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = number::<u64>(0..=u64::MAX))]
    pub failures_max: u64,
    /// Number of threads [default: one per core, more if the open-file limit requires it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=250))]
    pub threads: Option<u16>,
    /// Local source address; may be repeated [default for a loopback server: all of 127.0.0.0/8]
    #[arg(long, value_name = "ADDR")]
    pub source: Vec<IpAddr>,
    /// Encrypt the connections with TLS 1.3; the certificate of the server is not verified
    #[arg(long)]
    pub tls: bool,
    /// Secret of the server (auth.hmac_secret) to sign a token for each connection with
    #[arg(long, value_name = "SECRET")]
    pub token_hmac_secret: Option<Secret>,
    /// Number of users that the connections belong to, in turn; 0 makes each a user of its own
    #[arg(long, value_name = "N", default_value_t = 100, requires = "token_hmac_secret", value_parser = number::<u32>(0..=CONNECTIONS_MAX))]
    pub token_users: u32,
    /// Bytes of the info of each user, a JSON string; 0 for no info
    #[arg(long, value_name = "BYTES", default_value_t = 0, requires = "token_hmac_secret", value_parser = number::<usize>(0..=INFO_BYTES_MAX as u64))]
    pub token_info_bytes: usize,
    /// Process id of the server on this host, to report its CPU and memory
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write plots of connections, memory and latency to this directory, as SVG
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
}

impl Common {
    /// What the token of each connection is made of.
    pub fn tokens(&self) -> Option<Tokens> {
        self.token_hmac_secret.clone().map(|secret| Tokens {
            secret,
            users: self.token_users,
            info_bytes: self.token_info_bytes,
        })
    }
}

/// Protocol of the connections. Another protocol is a variant here and its bytes in `endpoint.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// WebSocket (RFC 6455)
    Ws,
    /// Raw TCP: one JSON object per line; in echo mode, echoed lines
    Tcp,
    /// Event streams (SSE); they cannot echo, and the canaries of a storm use WebSocket
    Sse,
}

/// Parses an address or a host name with a port, optionally as a URL such as `http://127.0.0.1:8000`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let schemes = ["http://", "ws://", "tcp://"];
    let plain = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    let mut addresses = plain.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the host name has no address".to_owned())
}

/// Parses whole numbers in a range; `1_000_000` and `1e6` are accepted.
pub fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = config::parse_count(text)?;
        let in_range = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        in_range.ok_or_else(|| format!("it must be from {} to {}", range.start(), range.end()))
    }
}

/// Parses a number of connections.
pub fn parse_count(text: &str) -> Result<usize, String> {
    number(1..=CONNECTIONS_MAX)(text)
}

/// Parses a rate per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.replace('_', "").parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=RATE_MAX).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("it must be from 0 to {RATE_MAX}"))
    }
}

const CONNECTIONS_MAX: u64 = 4_000_000;
const CHANNELS_MAX: u64 = 1_000_000;
const RATE_MAX: f64 = 1e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates_are_checked_against_their_limits() {
        assert_eq!(parse_count("1_000_000"), Ok(1_000_000));
        assert!(parse_count("0").is_err() && parse_count("4000001").is_err());
        assert!(parse_count("-1").is_err() && parse_count("many").is_err());
        assert_eq!(number::<u16>(0..=70_000)("1_000"), Ok(1000));
        assert!(number::<u16>(0..=70_000)("70_000").is_err() && number::<u16>(7..=8)("6").is_err());
        assert_eq!(parse_rate("0"), Ok(0.0));
        assert!(
            parse_rate("-1").is_err() && parse_rate("NaN").is_err() && parse_rate("inf").is_err()
        );
    }
}
