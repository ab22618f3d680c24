//! Settings and limits: plain data.
//!
//! **What it is.** [`Config`] is everything that can be chosen, with its defaults; [`limits`] is what cannot. Text
//! becomes values here ([`parse_bytes`], [`parse_seconds`]), and a whole configuration is judged here
//! ([`Config::check`]).
//!
//! **In and out.** Text in; checked values or a sentence that names the setting, the value and the range out.
//!
//! **Always true.** A checked configuration satisfies every relation that the other rooms rely on.
//!
//! **Must not know.** Where values come from, what is done with them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub mod limits;
mod units;

pub use units::{parse_bytes, parse_seconds};

/// Everything that can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP and WebSocket addresses.
    pub listen: Vec<SocketAddr>,
    /// Raw TCP addresses: the command protocol, one JSON object a line.
    pub tcp: Vec<SocketAddr>,
    /// What delimits the commands there.
    pub tcp_framing: Framing,
    /// Addresses where every WebSocket message is echoed.
    pub echo: Vec<SocketAddr>,
    /// Addresses where every byte is echoed.
    pub echo_tcp: Vec<SocketAddr>,
    /// Threads that serve, 1..=[`limits::WORKERS_MAX`]; one per core when none is given.
    pub workers: Option<usize>,
    /// Which driver.
    pub driver: DriverChoice,
    /// Whether addresses beyond loopback may be served without authentication.
    pub insecure: bool,
    /// Connections of the whole process; as many as descriptors allow when none is given.
    pub connections_max: Option<usize>,
    /// Bytes of one message from a client, or of one HTTP body.
    pub message_bytes_max: u64,
    /// The same on echo addresses.
    pub echo_message_bytes_max: u64,
    /// Bytes waiting for one client at which it is closed as a slow consumer.
    pub send_queue_bytes_max: u64,
    /// Subscriptions of one client.
    pub subscriptions_max: usize,
    /// Time for a client to finish its handshake, or one HTTP request.
    pub handshake_timeout: Duration,
    /// Silence after which a WebSocket client is pinged; a second one of `keepalive_timeout` closes it.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
    /// Silence between two requests of one HTTP connection.
    pub http_idle_timeout: Duration,
    /// Time for a closing client to take what is queued for it and close its end.
    pub close_timeout: Duration,
    /// Time that shutting down may take.
    pub shutdown_timeout: Duration,
}

/// What delimits commands and replies on a raw TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each ends in a line feed.
    Line,
    /// Each follows its length, 32 bits, big-endian.
    LengthPrefix,
}

/// Which driver to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// What is wrong with a configuration: a sentence that names the setting, the value and the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tcp: Vec::new(),
            tcp_framing: Framing::Line,
            echo: Vec::new(),
            echo_tcp: Vec::new(),
            workers: None,
            driver: DriverChoice::Auto,
            insecure: false,
            connections_max: None,
            message_bytes_max: 1024 * 1024,
            echo_message_bytes_max: 16 * 1024 * 1024,
            send_queue_bytes_max: 4 * 1024 * 1024,
            subscriptions_max: 128,
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(25),
            keepalive_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(75),
            close_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Judges the whole.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        in_range("workers", self.workers.unwrap_or(1) as u64, 1, limits::WORKERS_MAX as u64)?;
        in_range(
            "connections-max",
            self.connections_max.unwrap_or(1) as u64,
            1,
            u32::MAX as u64 / 2,
        )?;
        in_range("message-bytes-max", self.message_bytes_max, 1, limits::MESSAGE_BYTES_CEILING)?;
        in_range(
            "echo-message-bytes-max",
            self.echo_message_bytes_max,
            1,
            limits::MESSAGE_BYTES_CEILING,
        )?;
        in_range(
            "send-queue-bytes-max",
            self.send_queue_bytes_max,
            4 * 1024,
            limits::SEND_QUEUE_BYTES_CEILING,
        )?;
        in_range(
            "subscriptions-max",
            self.subscriptions_max as u64,
            1,
            limits::SUBSCRIPTIONS_CEILING,
        )?;
        for (name, value) in [
            ("handshake-timeout", self.handshake_timeout),
            ("keepalive-interval", self.keepalive_interval),
            ("keepalive-timeout", self.keepalive_timeout),
            ("http-idle-timeout", self.http_idle_timeout),
            ("close-timeout", self.close_timeout),
            ("shutdown-timeout", self.shutdown_timeout),
        ] {
            if value < DURATION_MIN || value > DURATION_MAX {
                return Err(error(&format!(
                    "--{name} is {} s; it must be from 0.1 s to 86400 s",
                    value.as_secs_f64()
                )));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let addresses =
            || self.listen.iter().chain(&self.tcp).chain(&self.echo).chain(&self.echo_tcp);
        if addresses().next().is_none() {
            return Err(error(
                "there is no address to listen on: give --listen, --tcp, --echo or --echo-tcp",
            ));
        }
        if addresses().count() > usize::from(u8::MAX) {
            return Err(error("more than 255 addresses to listen on"));
        }
        // Listeners share their ports among workers, so the kernel would deal connections out to both services.
        let mut seen = Vec::new();
        for address in addresses().filter(|address| address.port() != 0) {
            if seen.contains(&address) {
                return Err(error(&format!(
                    "{address} is given twice: each address has one service"
                )));
            }
            seen.push(address);
        }
        if let Some(open) = addresses().find(|address| !address.ip().is_loopback())
            && !self.insecure
        {
            return Err(error(&format!(
                "{open} can be reached from other hosts, and this version has no authentication: bind to a \
                 loopback address, or pass --insecure to let anyone connect, subscribe and publish"
            )));
        }
        Ok(())
    }
}

const DURATION_MIN: Duration = Duration::from_millis(100);
const DURATION_MAX: Duration = Duration::from_secs(86_400);

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(error(&format!("--{name} is {value}; it must be from {min} to {max}")))
}

fn error(sentence: &str) -> ConfigError {
    ConfigError(sentence.to_owned())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() }
    }

    #[test]
    fn the_defaults_pass_and_an_address_is_needed() {
        assert_eq!(config().check(), Ok(()));
        assert!(Config::default().check().unwrap_err().0.contains("--listen"));
    }

    #[test]
    fn an_address_has_one_service() {
        let mut twice = config();
        twice.tcp.push("127.0.0.1:0".parse().unwrap());
        assert_eq!(twice.check(), Ok(()), "the kernel chooses two ports");
        twice.echo.push("127.0.0.1:9000".parse().unwrap());
        assert_eq!(twice.check(), Ok(()));
        twice.tcp.push("127.0.0.1:9000".parse().unwrap());
        assert!(twice.check().unwrap_err().0.contains("127.0.0.1:9000 is given twice"));
    }

    #[test]
    fn an_open_address_needs_insecure() {
        let mut open = config();
        open.tcp.push("0.0.0.0:8001".parse().unwrap());
        assert!(open.check().unwrap_err().0.contains("--insecure"));
        open.insecure = true;
        assert_eq!(open.check(), Ok(()));
    }

    #[test]
    fn values_are_judged_at_their_limits_and_one_past() {
        let with = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check()
        };
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX)).is_ok());
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX + 1)).is_err());
        assert!(with(|c| c.workers = Some(0)).is_err());
        assert!(with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING).is_ok());
        let past = with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING + 1).unwrap_err();
        assert!(past.0.contains("message-bytes-max") && past.0.contains("67108865"), "{past}");
        assert!(with(|c| c.send_queue_bytes_max = 4096).is_ok());
        assert!(with(|c| c.send_queue_bytes_max = 4095).is_err());
        assert!(with(|c| c.close_timeout = DURATION_MIN).is_ok());
        assert!(with(|c| c.close_timeout = Duration::ZERO).is_err());
        assert!(with(|c| c.close_timeout = DURATION_MAX).is_ok());
        assert!(with(|c| c.close_timeout = DURATION_MAX + DURATION_MIN).is_err());
    }
}
