//! Settings and limits: plain data.
//!
//! **What it is.** [`Config`] has the settings with their defaults; [`limits`] are fixed at compile time.
//! [`SETTINGS`] has a row for each setting: its name, range, flag, and its place in [`Config`]. [`Sources`] are the
//! file, the environment and the flags; reading them gives a checked [`Loaded`] configuration.
//!
//! **In and out.** In: text. Out: checked values, or sentences that name the setting, the value, the range, and where
//! it was set.
//!
//! **Always true.** The file overrides the defaults, the environment the file, flags the environment. A checked
//! configuration satisfies every relation that the other rooms rely on.
//!
//! **Must not know.** How the values are used.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

mod channel_options;
pub mod limits;
mod load;
mod log_levels;
mod namespaces;
mod nearest;
mod setting;
mod settings;
mod units;
mod without_effect;

pub use channel_options::{CHANNEL_OPTIONS, ChannelOption};
pub use load::{FILE_VARIABLE, Given, Loaded, Origin, Sources};
pub use log_levels::{LogLevel, LogLevels, ROOMS};
pub use namespaces::{ChannelOptions, NamespaceId, Namespaces, STATISTICS_CHANNEL, SlowConsumer};
pub use setting::{Kind, Setting};
pub use settings::{SETTINGS, markdown};
pub use units::{parse_count, parse_seconds};

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP and WebSocket addresses.
    pub listen: Vec<SocketAddr>,
    /// Raw TCP addresses, for the command protocol.
    pub tcp: Vec<SocketAddr>,
    /// The framing of commands on raw TCP.
    pub tcp_framing: Framing,
    /// Addresses that echo every WebSocket message.
    pub echo: Vec<SocketAddr>,
    /// Addresses that echo every byte.
    pub echo_tcp: Vec<SocketAddr>,
    /// Worker threads, 1..=[`limits::WORKERS_MAX`]; one per core if not set.
    pub workers: Option<usize>,
    /// The kernel interface.
    pub driver: DriverChoice,
    /// Whether addresses beyond loopback may be served without authentication.
    pub insecure: bool,
    /// The key that calls of the server API and publications over HTTP must carry:
    /// 1..=[`limits::API_KEY_BYTES_MAX`] visible ASCII characters. Without it, every client may call.
    pub api_key: Option<String>,
    /// Maximum number of connections of the process; as many as descriptors allow if not set.
    pub connections_max: Option<usize>,
    /// Memory budget of the process, in bytes, for queues, backlogs, histories and unfinished messages; follows from
    /// the host if not set.
    pub memory_bytes_max: Option<u64>,
    /// Largest message or HTTP body from a client, in bytes.
    pub message_bytes_max: u64,
    /// Largest message from a client on echo addresses, in bytes.
    pub echo_message_bytes_max: u64,
    /// Largest send queue of one client, in bytes; beyond it, the client is disconnected as a slow consumer.
    pub send_queue_bytes_max: u64,
    /// Maximum number of subscriptions of one client.
    pub subscriptions_max: usize,
    /// Time for a client to complete its handshake or one HTTP request.
    pub handshake_timeout: Duration,
    /// Time to receive a whole WebSocket message or command, from its first byte.
    pub message_timeout: Duration,
    /// A client that sends nothing for this long is pinged.
    pub keepalive_interval: Duration,
    /// Time for a client to answer a ping.
    pub keepalive_timeout: Duration,
    /// Maximum idle time between two requests of one HTTP connection.
    pub http_idle_timeout: Duration,
    /// Maximum lifetime of an event stream; each ends after three quarters of it up to the whole.
    pub stream_lifetime: Duration,
    /// Time for a client that is being closed to read its send queue and close its side.
    pub close_timeout: Duration,
    /// Maximum duration of a shutdown.
    pub shutdown_timeout: Duration,
    /// Time before a shutdown in which the server accepts connections while `/health/ready` answers 503.
    pub drain_time: Duration,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The log level of each room.
    pub log_levels: LogLevels,
    /// Bytes of all histories together; each worker has an equal share.
    pub history_bytes_max: u64,
    /// Origins whose scripts may use the HTTP and WebSocket endpoints, as browsers send them (`https://example.org`),
    /// or `*` for any; at most [`limits::ORIGINS_MAX`]. If empty: any, if the server listens on loopback only.
    pub origins: Vec<String>,
    /// Whether the web page, which subscribes and publishes, is served at `/`; if not set, it is if the server listens
    /// on loopback only.
    pub page: Option<bool>,
    /// Whether the statistics are published; see [`Config::serves_statistics`].
    pub statistics: Option<bool>,
    /// The options of channels, by namespace.
    pub namespaces: Namespaces,
}

/// The framing of commands and replies on a raw TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each ends with a line feed.
    Line,
    /// Each has a length prefix of 32 bits, big-endian.
    LengthPrefix,
}

/// Which driver to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if it works, else epoll.
    Auto,
    /// io_uring only: without it, the server does not start.
    IoUring,
    /// epoll, without trying io_uring.
    Epoll,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a person to read.
    Text,
    /// One JSON object per line.
    Json,
}

impl Framing {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Line, Self::LengthPrefix];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["line", "length"];
}

impl DriverChoice {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 3] = [Self::Auto, Self::IoUring, Self::Epoll];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["auto", "io_uring", "epoll"];
}

impl LogFormat {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["text", "json"];
}

/// The faults of a configuration: at least one, each a sentence that names the setting, the value and the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

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
            api_key: None,
            connections_max: None,
            memory_bytes_max: None,
            message_bytes_max: 1024 * 1024,
            echo_message_bytes_max: 16 * 1024 * 1024,
            send_queue_bytes_max: 4 * 1024 * 1024,
            subscriptions_max: 128,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(25),
            keepalive_timeout: Duration::from_secs(10),
            // Proxies keep idle connections for up to two minutes, and must be the first to close them.
            http_idle_timeout: Duration::from_secs(130),
            stream_lifetime: Duration::from_secs(60 * 60),
            close_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(10),
            // A server stopped in a terminal should end at once; behind a load balancer it is set.
            drain_time: Duration::ZERO,
            log_format: LogFormat::Text,
            log_levels: LogLevels::all(LogLevel::Info),
            history_bytes_max: 1024 * 1024 * 1024,
            origins: Vec::new(),
            page: None,
            statistics: None,
            namespaces: Namespaces::default(),
        }
    }
}

impl Config {
    /// Checks the range of every setting, and what settings need of one another. The error has the first fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        let ranges = SETTINGS.iter().try_for_each(|setting| setting.check(&mut copy));
        ranges.and_then(|()| self.check_relations()).map_err(|fault| ConfigError(vec![fault]))
    }

    /// Whether every origin is allowed; `None` if `http.origins` is not set.
    pub fn allows_any_origin(&self) -> Option<bool> {
        let is_any = |origin: &String| origin == setting::ANY_ORIGIN;
        (!self.origins.is_empty()).then(|| self.origins.iter().any(is_any))
    }

    /// Whether the statistics are published to [`STATISTICS_CHANNEL`]; by default only if the server listens on
    /// loopback alone, as its load should not be visible to other hosts.
    pub fn serves_statistics(&self) -> bool {
        self.statistics.unwrap_or_else(|| self.is_loopback())
    }

    /// Whether the server listens on loopback addresses only: it then serves this host alone, unless a proxy on it
    /// forwards requests of others.
    pub fn is_loopback(&self) -> bool {
        self.addresses().all(|address| address.ip().is_loopback())
    }

    /// Whether every client that reaches a loopback address may publish over HTTP and call the server API.
    pub fn trusts_this_host(&self) -> bool {
        self.is_loopback() && self.api_key.is_none() && !self.listen.is_empty()
    }

    fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.listen.iter().chain(&self.tcp).chain(&self.echo).chain(&self.echo_tcp)
    }

    /// Checks the relations between settings.
    fn check_relations(&self) -> Result<(), String> {
        let addresses = || self.addresses();
        if addresses().next().is_none() {
            return Err(
                "no address to listen on: set --listen, --tcp, --echo or --echo-tcp".to_owned()
            );
        }
        if addresses().count() > usize::from(u8::MAX) {
            return Err("more than 255 addresses to listen on".to_owned());
        }
        // Listeners share their ports among workers, so the kernel would deal connections out to both services.
        let mut seen = Vec::new();
        for address in addresses().filter(|address| address.port() != 0) {
            if seen.contains(&address) {
                return Err(format!("{address} is set twice: each address has one service"));
            }
            seen.push(address);
        }
        if let Some(open) = addresses().find(|address| !address.ip().is_loopback())
            && !self.insecure
        {
            return Err(format!(
                "{open} can be reached from other hosts, and this version has no authentication: bind to a \
                 loopback address, or pass --insecure to let anyone connect, subscribe and publish"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("\n"))
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
        assert!(Config::default().check().unwrap_err().to_string().contains("--listen"));
    }

    #[test]
    fn an_address_has_one_service() {
        let mut twice = config();
        twice.tcp.push("127.0.0.1:0".parse().unwrap());
        assert_eq!(twice.check(), Ok(()), "the kernel chooses two ports");
        twice.echo.push("127.0.0.1:9000".parse().unwrap());
        assert_eq!(twice.check(), Ok(()));
        twice.tcp.push("127.0.0.1:9000".parse().unwrap());
        assert!(twice.check().unwrap_err().to_string().contains("127.0.0.1:9000 is set twice"));
    }

    #[test]
    fn an_open_address_needs_insecure() {
        let mut open = config();
        open.tcp.push("0.0.0.0:8001".parse().unwrap());
        assert!(open.check().unwrap_err().to_string().contains("--insecure"));
        open.insecure = true;
        assert_eq!(open.check(), Ok(()));
    }

    #[test]
    fn statistics_are_not_published_to_other_hosts_unless_set() {
        assert!(config().serves_statistics(), "only this host is served");
        let open = Config { listen: vec!["0.0.0.0:80".parse().unwrap()], ..config() };
        assert!(!open.serves_statistics());
        assert!(Config { statistics: Some(true), ..open }.serves_statistics());
        assert!(!Config { statistics: Some(false), ..config() }.serves_statistics());
    }

    #[test]
    fn this_host_is_trusted_on_loopback_and_without_a_key() {
        assert!(config().trusts_this_host());
        let open = Config { listen: vec!["0.0.0.0:80".parse().unwrap()], ..config() };
        assert!(!open.trusts_this_host(), "it needs --insecure");
        assert!(!Config { api_key: Some("k".into()), ..config() }.trusts_this_host());
        let tcp = Config { tcp: config().listen, listen: Vec::new(), ..config() };
        assert!(!tcp.trusts_this_host(), "there is no HTTP");
    }

    #[test]
    fn origins_are_accepted_as_browsers_send_them() {
        let with = |origins: &[&str]| {
            let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
            Config { origins, ..config() }
        };
        assert_eq!(config().allows_any_origin(), None);
        assert_eq!(with(&["http://a", "*"]).allows_any_origin(), Some(true));
        let listed = with(&["https://example.org", "http://[::1]:8080", "capacitor://localhost"]);
        assert_eq!(listed.check(), Ok(()));
        assert_eq!(listed.allows_any_origin(), Some(false));
        for bad in [
            "",
            "example.org",
            "https://a/",
            "https://",
            "://a",
            "https://A",
            "http://a b",
            "http://a,b",
            "https://a:443",
            "http://a:80",
            "https://*.a",
            "*://a",
        ] {
            let fault = with(&[bad]).check().unwrap_err();
            assert!(fault.to_string().contains("http.origins"), "{bad}: {fault}");
        }
        let many = vec!["http://a"; limits::ORIGINS_MAX + 1];
        assert!(with(&many).check().is_err());
    }

    #[test]
    fn values_are_accepted_at_their_limits_and_refused_one_past() {
        let with = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check()
        };
        let with_key = |key: &str| Config { api_key: Some(key.to_owned()), ..config() }.check();
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX)).is_ok());
        assert!(with(|c| c.workers = Some(limits::WORKERS_MAX + 1)).is_err());
        assert!(with(|c| c.workers = Some(0)).is_err());
        assert!(with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING).is_ok());
        let past = with(|c| c.message_bytes_max = limits::MESSAGE_BYTES_CEILING + 1)
            .unwrap_err()
            .to_string();
        assert!(past.contains("message_bytes_max") && past.contains("67108865"), "{past}");
        assert!(with(|c| c.send_queue_bytes_max = 4096).is_ok());
        assert!(with(|c| c.send_queue_bytes_max = 4095).is_err());
        assert!(with(|c| c.api_key = Some("x".repeat(limits::API_KEY_BYTES_MAX))).is_ok());
        assert!(with(|c| c.api_key = Some("x".repeat(limits::API_KEY_BYTES_MAX + 1))).is_err());
        for bad in ["", "a b", "é", "a\n"] {
            let fault = with_key(bad).unwrap_err().to_string();
            assert!(fault.contains("api.key is hidden"), "{bad:?}: {fault}");
        }
        assert!(with(|c| c.close_timeout = Duration::from_millis(100)).is_ok());
        assert!(with(|c| c.close_timeout = Duration::ZERO).is_err());
        assert!(with(|c| c.close_timeout = Duration::from_secs(86_400)).is_ok());
        assert!(with(|c| c.close_timeout = Duration::from_secs(86_401)).is_err());
    }
}
