//! The configuration: the settings of a server, their defaults, and what follows from several of them.

use std::time::Duration;

use super::api_keys::ApiKey;
use super::callbacks::{CallbackKind, Callbacks};
use super::listen_address::ListenAddress;
use super::log_levels::{LogLevel, LogLevels};
use super::namespaces::Namespaces;
use super::network::Network;
use super::secret::Secret;
use super::token_keys::TokenKey;

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP and WebSocket addresses.
    pub listen: Vec<ListenAddress>,
    /// Addresses for administration: the server API, metrics, health checks and the page. If empty, `listen` serves
    /// them.
    pub admin: Vec<ListenAddress>,
    /// Raw TCP addresses, for the command protocol.
    pub tcp: Vec<ListenAddress>,
    /// The framing of commands on raw TCP.
    pub tcp_framing: Framing,
    /// Addresses that echo every WebSocket message.
    pub echo: Vec<ListenAddress>,
    /// Addresses that echo every byte.
    pub echo_tcp: Vec<ListenAddress>,
    /// The certificates and secrets of TLS.
    pub tls: TlsConfig,
    /// The lowest version of TLS that is spoken.
    pub tls_version_min: TlsVersion,
    /// Whether every address speaks TLS, with a certificate that is made at the start.
    pub self_signed: bool,
    /// Which users of this host may connect to Unix sockets.
    pub unix_mode: UnixMode,
    /// Networks whose proxies are believed when they name the address of a client; at most
    /// [`NETWORKS_MAX`](super::limits::NETWORKS_MAX).
    pub trusted_proxies: Vec<Network>,
    /// The header in which they name it.
    pub client_header: ClientHeader,
    /// Worker threads, 1..=[`WORKERS_MAX`](super::limits::WORKERS_MAX); one per core if not set.
    pub workers: Option<usize>,
    /// The kernel interface.
    pub driver: DriverChoice,
    /// Whether addresses beyond loopback may be served without authentication.
    pub insecure: bool,
    /// The key with all rights to the server API and to publishing over HTTP:
    /// 1..=[`API_KEY_BYTES_MAX`](super::limits::API_KEY_BYTES_MAX) visible ASCII characters.
    pub api_key: Option<Secret>,
    /// Where calls of the server API have their errors, unless they say it themselves.
    pub api_error_mode: ErrorMode,
    /// Further keys, each with its rights; at most [`API_KEYS_MAX`](super::limits::API_KEYS_MAX). Without any key,
    /// every client may call the server API.
    pub api_keys: Vec<ApiKey>,
    /// What a backend is asked.
    pub callbacks: Callbacks,
    /// The secret that tokens of clients may be signed with by HMAC:
    /// 1..=[`TOKEN_SECRET_BYTES_MAX`](super::limits::TOKEN_SECRET_BYTES_MAX) visible ASCII characters.
    pub hmac_secret: Option<Secret>,
    /// Further keys that tokens of clients may be signed with; at most
    /// [`TOKEN_KEYS_MAX`](super::limits::TOKEN_KEYS_MAX).
    pub token_keys: Vec<TokenKey>,
    /// What the claim `aud` of a token must contain.
    pub audience: Option<String>,
    /// What the claim `iss` of a token must be.
    pub issuer: Option<String>,
    /// By how much the clocks of this host and of the one that made a token may differ.
    pub leeway: Duration,
    /// Whether a client may connect without a token; see [`Config::allows_anonymous`].
    pub anonymous: Option<bool>,
    /// The name of a cookie that may have a token: 1..=[`COOKIE_NAME_BYTES_MAX`](super::limits::COOKIE_NAME_BYTES_MAX)
    /// characters of a token of HTTP.
    pub cookie: Option<String>,
    /// Whether the parameter `token` of a query may have a token.
    pub token_in_query: bool,
    /// How long a client whose token has expired may take to show a new one.
    pub expired_close_delay: Duration,
    /// The channels of users.
    pub personal: PersonalChannels,
    /// Maximum number of connections of the process; as many as descriptors allow if not set.
    pub connections_max: Option<usize>,
    /// Memory budget of the process, in bytes, for queues, backlogs, histories and unfinished messages; follows from
    /// the host if not set.
    pub memory_bytes_max: Option<u64>,
    /// Largest message or HTTP body from a client, in bytes.
    pub message_bytes_max: u64,
    /// Largest message from a client on echo addresses, in bytes.
    pub echo_message_bytes_max: u64,
    /// Smallest message that is compressed for clients that negotiated it, in bytes.
    pub deflate_bytes_min: u64,
    /// How much work a compressed message is worth, 1 to 9.
    pub deflate_level: usize,
    /// Largest send queue of one client, in bytes; beyond it, the client is disconnected as a slow consumer.
    pub send_queue_bytes_max: u64,
    /// Bytes of the longest channel name that clients may use.
    pub channel_bytes_max: usize,
    /// Maximum number of subscriptions of one client.
    pub subscriptions_max: usize,
    /// Leading bits of an IPv4 address that make up its network prefix, 1..=32.
    pub prefix_v4_bits: usize,
    /// Leading bits of an IPv6 address that make up its network prefix, 1..=128. A provider assigns a site at least a
    /// /64.
    pub prefix_v6_bits: usize,
    /// Connections per second of one network prefix, on all workers; no limit if not set.
    pub prefix_connection_rate_max: Option<usize>,
    /// Connections of one network prefix, on all workers; no limit if not set.
    pub prefix_connections_max: Option<usize>,
    /// Connections of one network prefix whose handshake is not complete, on all workers; no limit if not set.
    pub prefix_handshakes_max: Option<usize>,
    /// Connections of one user, on all workers; no limit if not set.
    pub user_connections_max: Option<usize>,
    /// Commands per second of one client; no limit if not set.
    pub client_command_rate_max: Option<usize>,
    /// Publications per second of one client; no limit if not set.
    pub client_publication_rate_max: Option<usize>,
    /// Subscriptions per second that one client makes; no limit if not set.
    pub client_subscription_rate_max: Option<usize>,
    /// Bytes per second that are received from one client; no limit if not set.
    pub client_byte_rate_max: Option<u64>,
    /// Time for a client to complete its handshake or one HTTP request.
    pub handshake_timeout: Duration,
    /// Time to receive a whole WebSocket message or command, from its first byte.
    pub message_timeout: Duration,
    /// A client that sends nothing for this long is pinged.
    pub keepalive_interval: Duration,
    /// Time for a client to answer a ping.
    pub keepalive_timeout: Duration,
    /// Maximum idle time between two requests of one HTTP connection. Proxies keep idle connections for up to two
    /// minutes, and must be the first to close them.
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
    /// How long the position of a channel is kept after its history; zero for no longer.
    pub position_ttl: Duration,
    /// Origins whose scripts may use the HTTP and WebSocket endpoints, as browsers send them (`https://example.org`),
    /// or `*` for any; at most [`ORIGINS_MAX`](super::limits::ORIGINS_MAX). If empty: any, if the server listens on
    /// loopback only.
    pub origins: Vec<String>,
    /// Whether the web page, which subscribes and publishes, is served at `/`; if not set, it is if the server listens
    /// on loopback only.
    pub page: Option<bool>,
    /// Whether the statistics are published; see [`Config::serves_statistics`].
    pub statistics: Option<bool>,
    /// The options of channels, by namespace.
    pub namespaces: Namespaces,
}

/// The channels that the server subscribes the clients of a user to.
#[derive(Clone, Debug, Default)]
pub struct PersonalChannels {
    /// Whether each user has one.
    pub are_on: bool,
    /// The namespace that they are in; `None` for channels without one.
    pub namespace: Option<String>,
}

impl PersonalChannels {
    /// What precedes the user in the name of its channel; `None` if users have none.
    pub fn prefix(&self) -> Option<String> {
        let namespace = self.namespace.as_ref();
        let prefix = || namespace.map_or("#".to_owned(), |namespace| format!("{namespace}:#"));
        self.are_on.then(prefix)
    }
}

/// The framing of commands and replies on a raw TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each ends with a line feed.
    Line,
    /// Each has a length prefix of 32 bits, big-endian.
    LengthPrefix,
}

/// The certificates and secrets of TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// The files of the certificates for addresses that speak TLS, in PEM: in each, the server's own first.
    pub cert: Vec<String>,
    /// The file of the key of the first one of each of them, in PEM.
    pub key: Vec<String>,
    /// The file of the authorities that issue the certificates of clients; if not set, they are not asked for one.
    pub client_ca: Option<String>,
    /// Whether a client needs such a certificate.
    pub client_auth: ClientAuth,
    /// What session tickets are encrypted with: several secrets are separated by commas. The first issues tickets, all
    /// are accepted. If not set, one is drawn at random for each run.
    pub ticket_secret: Option<Secret>,
}

/// Whether clients need a certificate of one of the authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without one is refused.
    #[default]
    Required,
    /// A client without one is served too.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, which RFC 5246 defines.
    Tls12,
    /// TLS 1.3, which RFC 8446 defines.
    Tls13,
}

/// The header in which trusted proxies name the address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHeader {
    /// `X-Forwarded-For`, which most proxies write.
    XForwardedFor,
    /// `Forwarded`, which RFC 7239 defines.
    Forwarded,
}

/// Where a call of one method of the server API has its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMode {
    /// In the body of an answer with status 200.
    Body,
    /// In the status of the answer, whose body is the error.
    Transport,
}

/// The permissions of the files of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixMode {
    /// The server's user may connect.
    User,
    /// The server's user and group may connect.
    Group,
    /// Every user of this host may connect.
    All,
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

impl ClientAuth {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Required, Self::Optional];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["required", "optional"];
}

impl TlsVersion {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["1.2", "1.3"];
}

impl ErrorMode {
    /// All modes, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::Body, Self::Transport];
    /// The names of the modes in settings.
    pub const WORDS: &[&str] = &["body", "transport"];
}

impl ClientHeader {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 2] = [Self::XForwardedFor, Self::Forwarded];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["x_forwarded_for", "forwarded"];
}

impl UnixMode {
    /// All values, in the order of [`Self::WORDS`].
    pub const ALL: [Self; 3] = [Self::User, Self::Group, Self::All];
    /// The names of the values in settings.
    pub const WORDS: &[&str] = &["600", "660", "666"];

    /// The bits of the file's mode.
    pub fn bits(self) -> u32 {
        match self {
            Self::User => 0o600,
            Self::Group => 0o660,
            Self::All => 0o666,
        }
    }
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

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            admin: Vec::new(),
            tcp: Vec::new(),
            tcp_framing: Framing::Line,
            echo: Vec::new(),
            echo_tcp: Vec::new(),
            tls: TlsConfig::default(),
            tls_version_min: TlsVersion::Tls12,
            self_signed: false,
            unix_mode: UnixMode::Group,
            trusted_proxies: Vec::new(),
            client_header: ClientHeader::XForwardedFor,
            workers: None,
            driver: DriverChoice::Auto,
            insecure: false,
            api_key: None,
            api_error_mode: ErrorMode::Body,
            api_keys: Vec::new(),
            callbacks: Callbacks::default(),
            hmac_secret: None,
            token_keys: Vec::new(),
            audience: None,
            issuer: None,
            leeway: Duration::ZERO,
            anonymous: None,
            cookie: None,
            token_in_query: false,
            expired_close_delay: Duration::from_secs(25),
            personal: PersonalChannels::default(),
            connections_max: None,
            memory_bytes_max: None,
            message_bytes_max: 1024 * 1024,
            echo_message_bytes_max: 16 * 1024 * 1024,
            deflate_bytes_min: 200,
            deflate_level: 6,
            send_queue_bytes_max: 4 * 1024 * 1024,
            channel_bytes_max: 255,
            subscriptions_max: 128,
            prefix_v4_bits: 32,
            prefix_v6_bits: 64,
            prefix_connection_rate_max: None,
            prefix_connections_max: None,
            prefix_handshakes_max: None,
            user_connections_max: None,
            client_command_rate_max: None,
            client_publication_rate_max: None,
            client_subscription_rate_max: None,
            client_byte_rate_max: None,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(25),
            keepalive_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(130),
            stream_lifetime: Duration::from_secs(60 * 60),
            close_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(10),
            // A server stopped in a terminal should end at once; behind a load balancer it is set.
            drain_time: Duration::ZERO,
            log_format: LogFormat::Text,
            log_levels: LogLevels::all(LogLevel::Info),
            history_bytes_max: 1024 * 1024 * 1024,
            position_ttl: Duration::from_secs(30 * 86_400),
            origins: Vec::new(),
            page: None,
            statistics: None,
            namespaces: Namespaces::default(),
        }
    }
}

impl Config {
    /// Whether every origin is allowed; `None` if `http.origins` is not set.
    pub fn allows_any_origin(&self) -> Option<bool> {
        let is_any = |origin: &String| origin == ANY_ORIGIN;
        (!self.origins.is_empty()).then(|| self.origins.iter().any(is_any))
    }

    /// Whether tokens of clients are verified: there is a key for them.
    pub fn verifies_tokens(&self) -> bool {
        self.hmac_secret.is_some() || !self.token_keys.is_empty()
    }

    /// Whether a client may connect without a token; by default only if there is no key for tokens, and no callback
    /// that says who clients are.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous.unwrap_or_else(|| !self.verifies_tokens() && !self.asks_who_connects())
    }

    /// Whether the backend says who a client is that has no token.
    pub fn asks_who_connects(&self) -> bool {
        self.callbacks.asks(CallbackKind::Connect)
    }

    /// Whether the statistics are published to `STATISTICS_CHANNEL`; by default only if the server listens on loopback
    /// alone, as its load should not be visible to other hosts.
    pub fn serves_statistics(&self) -> bool {
        self.statistics.unwrap_or_else(|| self.is_loopback())
    }

    /// Whether the server listens on loopback addresses only and expects no proxy: it then serves this host alone,
    /// unless a proxy on it forwards requests of others.
    pub fn is_loopback(&self) -> bool {
        self.addresses().all(|address| address.serves_this_host_only())
    }

    /// Whether the server API is served on loopback addresses only, and no proxy is expected there.
    pub fn is_admin_loopback(&self) -> bool {
        let admin = if self.admin.is_empty() {
            self.addresses().collect()
        } else {
            self.admin.iter().collect::<Vec<_>>()
        };
        admin.iter().all(|address| address.serves_this_host_only())
    }

    /// Whether every client that reaches a loopback address may call the server API.
    pub fn trusts_this_host(&self) -> bool {
        let serves_api = !self.listen.is_empty() || !self.admin.is_empty();
        self.is_admin_loopback() && !self.has_api_key() && serves_api
    }

    /// Whether calls of the server API and publications over HTTP must show a key.
    pub fn has_api_key(&self) -> bool {
        self.api_key.is_some() || !self.api_keys.is_empty()
    }

    /// Bytes of publications in one answer, and in the backlog of one channel: half a send queue, so that there is room
    /// for what is published meanwhile.
    pub fn answer_bytes_max(&self) -> u64 {
        self.send_queue_bytes_max / 2
    }

    /// Whether the certificate of a client may say who it is.
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.client_ca.is_some()
    }

    /// Whether every client that comes from another host needs a certificate.
    pub(super) fn demands_certificates(&self) -> bool {
        let is_demanded =
            self.asks_for_certificates() && self.tls.client_auth == ClientAuth::Required;
        is_demanded && self.addresses().all(|address| address.is_local() || address.is_encrypted)
    }

    /// The secrets of session tickets, the one that issues them first; `None` if one is to be drawn at random.
    pub fn ticket_secrets(&self) -> Option<Vec<&str>> {
        let secrets = self.tls.ticket_secret.as_ref()?.expose().split(',');
        Some(secrets.filter(|secret| !secret.is_empty()).collect())
    }

    /// The addresses that speak TLS.
    pub fn encrypted_addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.addresses().filter(|address| address.is_encrypted)
    }

    /// Has every address speak TLS.
    pub(super) fn encrypt_all(&mut self) {
        for addresses in
            [&mut self.listen, &mut self.admin, &mut self.tcp, &mut self.echo, &mut self.echo_tcp]
        {
            addresses.iter_mut().for_each(|address| address.is_encrypted = true);
        }
    }

    /// The addresses that the server listens on.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listen
            .iter()
            .chain(&self.admin)
            .chain(&self.tcp)
            .chain(&self.echo)
            .chain(&self.echo_tcp)
    }
}

/// The value of `http.origins` that allows every origin.
pub(super) const ANY_ORIGIN: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() }
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
        let admin = Config { admin: config().listen, ..open };
        assert!(admin.trusts_this_host(), "the server API is on loopback");
        assert!(!admin.is_loopback() && admin.is_admin_loopback());
        let open_admin = Config { admin: vec!["0.0.0.0:81".parse().unwrap()], ..config() };
        assert!(!open_admin.trusts_this_host() && !open_admin.is_loopback());
    }
}
