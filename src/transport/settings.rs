//! What all conversations of a worker share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::auth::{ApiKeys, RateLimits, SessionKey};
use crate::config::limits::FRAGMENTS_PER_MESSAGE_MAX;
use crate::config::{ClientHeader, Config, ErrorMode, Network};
use crate::protocol::http1::{HeadLimits, date_text};
use crate::protocol::websocket;

/// The origins whose scripts may use the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any origin, without cookies.
    Any,
    /// These origins, with their cookies.
    Listed(Vec<String>),
}

/// How clients show who they are with an HTTP request.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whether they are asked: otherwise every client is anonymous.
    pub are_taken: bool,
    /// Whether a request without any is refused.
    pub are_required: bool,
    /// The name of the cookie that may have a token.
    pub cookie: Option<String>,
    /// Whether the parameter `token` may have a token.
    pub in_query: bool,
}

/// What all conversations of a worker share.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Limits of the heads of HTTP requests.
    pub head: HeadLimits,
    /// The keys of the server API.
    pub api_keys: ApiKeys,
    /// Where the errors of its calls are, unless a call says otherwise.
    pub api_errors: ErrorMode,
    /// How clients show who they are with an HTTP request.
    pub credentials: Credentials,
    /// Networks whose proxies are believed when they name the address of a client.
    pub trusted_proxies: Arc<[Network]>,
    /// The header in which they name it.
    pub client_header: ClientHeader,
    /// The headers of HTTP requests that callbacks send on, in lower case.
    pub forwarded_headers: Arc<[Arc<str>]>,
    /// Bytes of the largest HTTP body.
    pub body_bytes_max: u64,
    /// Limits of the messages of a WebSocket that publishes and subscribes.
    pub messages: websocket::Limits,
    /// Limits of the messages of a WebSocket that is echoed.
    pub echo_messages: websocket::Limits,
    /// Bytes of the largest command.
    pub command_bytes_max: u32,
    /// The rates of requests of each client.
    pub rates: RateLimits,
    /// Most subscriptions of one session.
    pub subscriptions_max: usize,
    /// From the first byte of a request to its last; from the connection's start to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Between two requests of a connection.
    pub http_idle_timeout: Duration,
    /// Silence after which a peer is pinged.
    pub keepalive_interval: Duration,
    /// Silence after the ping.
    pub keepalive_timeout: Duration,
    /// The longest life of an event stream.
    pub stream_lifetime: Duration,
    /// Bytes of missed publications in one answer, which may be exceeded by one publication.
    pub recovery_bytes_max: usize,
    /// The origins whose scripts may use it, if they are set: see [`TransportSettings::origins`].
    pub origins: Option<Origins>,
    /// Whether callbacks have what browsers add to the requests of every page: see [`TransportSettings::origins`].
    pub sends_on_credentials: bool,
    /// Whether the page is at `/`, if that is set: see [`TransportSettings::serves_page`].
    pub page: Option<bool>,
    /// Whether nothing but loopback addresses is listened on.
    pub is_loopback: bool,
    /// Whether what is for administration is served on loopback addresses only.
    pub is_admin_loopback: bool,
    /// What the worker keeps up to date.
    pub now: Now,
}

/// Settings that the worker derives while it runs, rather than from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The time of the calendar, in seconds since 1970.
    pub unix_seconds: u64,
    /// The value of `Date`. Empty if the time is not known: then the header is left out.
    pub date: String,
    /// The server is stopping: HTTP connections are closed after their answer.
    pub is_stopping: bool,
    /// A proxy on this host forwards requests of other hosts. The same for all workers.
    pub is_behind_proxy: Arc<AtomicBool>,
    /// The key of the sessions of clients whose commands come in requests of their own. The same for all workers.
    pub session_key: SessionKey,
}

impl TransportSettings {
    /// The part of a configuration that conversations need.
    pub fn new(config: &Config) -> Self {
        let messages = |bytes_max| websocket::Limits {
            message_bytes_max: u32::try_from(bytes_max).expect("checked with the configuration"),
            fragments_max: FRAGMENTS_PER_MESSAGE_MAX,
            has_compression: false,
            role: websocket::Role::Server,
        };
        Self {
            head: HeadLimits::default(),
            api_keys: ApiKeys::new(config),
            api_errors: config.api_error_mode,
            credentials: Credentials {
                are_taken: config.verifies_tokens()
                    || config.asks_who_connects()
                    || config.asks_for_certificates()
                    || !config.allows_anonymous(),
                are_required: !config.allows_anonymous()
                    && !config.asks_who_connects()
                    && !config.asks_for_certificates(),
                cookie: config.cookie.clone(),
                in_query: config.token_in_query,
            },
            trusted_proxies: config.trusted_proxies.clone().into(),
            client_header: config.client_header,
            forwarded_headers: config
                .callbacks
                .http_headers()
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            body_bytes_max: config.message_bytes_max,
            messages: messages(config.message_bytes_max),
            echo_messages: messages(config.echo_message_bytes_max),
            command_bytes_max: u32::try_from(config.message_bytes_max)
                .expect("checked with the configuration"),
            rates: RateLimits::new(config),
            subscriptions_max: config.subscriptions_max,
            handshake_timeout: config.handshake_timeout,
            http_idle_timeout: config.http_idle_timeout,
            keepalive_interval: config.keepalive_interval,
            keepalive_timeout: config.keepalive_timeout,
            stream_lifetime: config.stream_lifetime,
            recovery_bytes_max: usize::try_from(config.answer_bytes_max())
                .expect("checked with the configuration"),
            origins: config.allows_any_origin().map(|any| match any {
                true => Origins::Any,
                false => Origins::Listed(config.origins.clone()),
            }),
            sends_on_credentials: config.callbacks.sends_on_credentials(),
            page: config.page,
            is_loopback: config.is_loopback(),
            is_admin_loopback: config.is_admin_loopback(),
            now: Now::default(),
        }
    }

    /// The origins whose scripts may use what is served: those that are listed; without a list, any if only this host
    /// is served, and no backend takes a page for its user because of what the browser adds to its requests.
    pub fn origins(&self) -> &Origins {
        match &self.origins {
            Some(origins) => origins,
            None if self.serves_this_host_only() && !self.sends_on_credentials => &Origins::Any,
            None => &NO_ORIGINS,
        }
    }

    /// Whether an address is that of a trusted proxy.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Brings the time of the calendar up to date, and the value of `Date`, which changes once a second.
    pub fn set_date(&mut self, since_epoch: Duration) {
        self.now.unix_seconds = since_epoch.as_secs();
        self.now.date = date_text(since_epoch);
    }

    /// Whether `/` is the page rather than plain text; by default only if this host alone is served.
    pub fn serves_page(&self) -> bool {
        self.page.unwrap_or_else(|| self.serves_this_host_only())
    }

    /// The same on an address for administration. Where it is not set: to this host only, and without an API key not
    /// through a proxy.
    pub(super) fn serves_page_to_admin(&self, is_forwarded: bool) -> bool {
        let is_trusted = self.api_keys.are_required() || !is_forwarded;
        self.page.unwrap_or(self.is_admin_loopback && is_trusted)
    }

    /// Whether only this host is served: on loopback addresses, and not through a proxy.
    pub(super) fn serves_this_host_only(&self) -> bool {
        self.is_loopback && !self.now.is_behind_proxy.load(Ordering::Relaxed)
    }
}

static NO_ORIGINS: Origins = Origins::Listed(Vec::new());
