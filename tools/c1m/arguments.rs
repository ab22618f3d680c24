//! The options that every mode has, and how the values of options are read.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use fantail::config::{self, parse_seconds};

/// What every mode wants to know.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The server's HTTP and WebSocket address; the echo service's in echo mode
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000", value_parser = parse_address)]
    pub target: SocketAddr,
    /// The server's raw TCP address; not for echo mode, which has one --target
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8001", value_parser = parse_address)]
    pub tcp_target: SocketAddr,
    /// What connections speak
    #[arg(long, value_enum, default_value = "ws")]
    pub protocol: Protocol,
    /// Path and query to ask for, {channel} being a channel's name [default: /ws?channel={channel} or
    /// /events?channel={channel}]
    #[arg(long)]
    pub path: Option<String>,
    /// Channels are called so, then "-0", "-1" ...
    #[arg(long, value_name = "NAME", default_value = "c1m")]
    pub channel_prefix: String,
    /// How many channels; connections subscribe to one each, in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=CHANNELS_MAX))]
    pub channels: u32,
    /// How many connections
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = parse_count)]
    pub connections: usize,
    /// Connections opened a second; 0 is as fast as possible
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = parse_rate)]
    pub connect_rate: f64,
    /// Handshakes under way at once; the server's accept queue should hold as many
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = number::<usize>(1..=CONNECTIONS_MAX))]
    pub in_flight: usize,
    /// Time for a connection to be served
    #[arg(long, value_name = "TIME", default_value = "10 s", value_parser = parse_seconds)]
    pub connect_timeout: Duration,
    /// Connections that may fail, or be lost, before c1m gives up
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = number::<u64>(0..=u64::MAX))]
    pub failures_max: u64,
    /// Threads [default: one per core, and as many as descriptors demand]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=250))]
    pub threads: Option<u16>,
    /// Local address to leave from; may be given more than once [default: all of 127.0.0.0/8 to loopback servers]
    #[arg(long, value_name = "ADDR")]
    pub source: Vec<IpAddr>,
    /// The server's process on this host, to report its CPU and memory
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Draw ramp, memory and latency into this directory, as SVG
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
}

/// What connections speak. A further protocol is a variant here, and what it says in `door.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// WebSocket
    Ws,
    /// Raw TCP: one JSON object a line; in echo mode, lines that come back
    Tcp,
    /// Event streams (SSE); they cannot echo, and those that stay in a storm speak WebSocket
    Sse,
}

/// An address, or a name that has one; also as the banner of a server prints it, http://127.0.0.1:8000.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let schemes = ["http://", "ws://", "tcp://"];
    let plain = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    let mut addresses = plain.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the name has no address".to_owned())
}

/// Reads whole numbers, 1_000_000 and 1e6 too.
pub fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = config::parse_count(text)?;
        let in_range = range.contains(&number).then(|| T::try_from(number).ok()).flatten();
        in_range.ok_or_else(|| format!("it must be from {} to {}", range.start(), range.end()))
    }
}

/// A number of connections.
pub fn parse_count(text: &str) -> Result<usize, String> {
    number(1..=CONNECTIONS_MAX)(text)
}

/// A number a second.
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
    fn counts_and_rates_are_judged_at_their_limits() {
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
