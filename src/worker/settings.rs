//! What a worker needs to begin: its settings, and its share of what all workers have.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::auth::{
    ApiRefusal, Authentication, PrefixLimits, PrefixTable, Rate, SessionKey, TokenError, UserTable,
};
use crate::callback::{Caller, OUTCOMES};
use crate::config::limits::{
    API_WARNING_INTERVAL, CLOSING_BYTES_MAX, PROXY_WARNING_INTERVAL, SEND_QUEUE_BYTES_HIGH,
    SPARE_CONNECTIONS, TOKEN_WARNING_INTERVAL,
};
use crate::config::{CallbackKind, Callbacks, Config};
use crate::connection::Service;
use crate::connection::tls::Identity;
use crate::hub::{ChannelHash, Drops, HubLimits, HubSettings};
use crate::message::{CloseReason, NodeId, TransportKind, WorkerId};
use crate::telemetry::{Counters, Labels};
use crate::transport::{HandshakeFailure, TransportSettings};

use super::admission::Rejection;
use super::budget::Budget;
use super::mesh::Mesh;
use super::proxy_headers::ProxyRefusal;
use super::table::ticks;
use super::tls_sessions::TlsFailure;

/// The configuration of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The settings of its share of the hub.
    pub hub: HubSettings,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// The settings of all its conversations.
    pub transport: TransportSettings,
    /// What the backend is asked.
    pub callbacks: Arc<Callbacks>,
    /// Whether the configuration says if there are statistics: a proxy in front then changes nothing.
    pub statistics_are_configured: bool,
    /// Each listener, in the order of the driver's.
    pub listeners: Vec<Listener>,
    /// What the connections of one network prefix may be.
    pub prefixes: PrefixLimits,
    /// Connections that one user may have; no limit if not set.
    pub user_connections_max: Option<usize>,
    /// Connections it may hold, without spare ones.
    pub connections_max: usize,
    /// Bytes waiting for one client at which it is a slow consumer.
    pub send_queue_bytes_max: u32,
    /// Bytes waiting for one client at which nothing more is read from it.
    pub send_queue_bytes_high: u32,
    /// Bytes of the smallest message that is compressed for clients that negotiated it.
    pub deflate_bytes_min: usize,
    /// How much work a compressed message is worth, 1 to 9.
    pub deflate_level: u32,
    /// For a message that was begun.
    pub message_timeout: Duration,
    /// For a closing client to take what is queued and close its end.
    pub close_timeout: Duration,
    /// Bytes that are read from a closing client.
    pub closing_bytes_max: u32,
    /// For all of them when the server shuts down.
    pub shutdown_timeout: Duration,
    /// Before that, for balancers to see that the server is not ready.
    pub drain_time: Duration,
}

/// What a worker does with the connections of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// The service of its connections.
    pub service: Service,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub expects_proxy_header: bool,
    /// Whether its connections speak TLS, behind such a header.
    pub is_encrypted: bool,
    /// Whether it offers compression to WebSockets.
    pub offers_deflate: bool,
    /// Whether clients get tickets to come back with.
    pub has_tickets: bool,
}

/// Which worker it is.
#[derive(Clone, Copy, Debug)]
pub struct WorkerPlace {
    /// The id of its node.
    pub node: NodeId,
    /// Its number there.
    pub worker: WorkerId,
    /// How many workers the node has.
    pub workers: u16,
}

impl WorkerSettings {
    /// The part of a configuration that a worker needs.
    pub fn new(
        config: &Config,
        place: WorkerPlace,
        connections_max: usize,
        listeners: Vec<Listener>,
        hash: ChannelHash,
    ) -> Self {
        let WorkerPlace { node, worker, workers } = place;
        let send_queue_bytes_max =
            u32::try_from(config.send_queue_bytes_max).expect("checked with the configuration");
        // RFC 6455 5.5.1: a peer may end its message before it answers a close.
        let message_bytes_max = config.message_bytes_max.max(config.echo_message_bytes_max);
        let closing_bytes_max = u32::try_from(CLOSING_BYTES_MAX + message_bytes_max)
            .expect("checked with the configuration");
        let mut namespaces = config.namespaces.clone();
        namespaces.limit_names(config.channel_bytes_max);
        if config.serves_statistics() {
            namespaces.add_statistics();
        }
        Self {
            hub: HubSettings {
                node,
                worker,
                workers,
                sessions_max: connections_max + SPARE_CONNECTIONS,
                limits: HubLimits {
                    subscriptions_max: config.subscriptions_max,
                    answer_bytes_max: config.answer_bytes_max(),
                    backlog_bytes_max: config.answer_bytes_max(),
                    history_bytes_max: config.history_bytes_max / u64::from(workers),
                    position_ttl: config.position_ttl,
                    expired_close_delay: config.expired_close_delay,
                },
                hash,
                namespaces: Arc::new(namespaces),
            },
            authentication: Authentication::new(config),
            transport: TransportSettings::new(config),
            callbacks: Arc::new(config.callbacks.clone()),
            statistics_are_configured: config.statistics.is_some(),
            listeners,
            prefixes: PrefixLimits::new(config),
            user_connections_max: config.user_connections_max,
            connections_max,
            send_queue_bytes_max,
            send_queue_bytes_high: send_queue_bytes_max.min(SEND_QUEUE_BYTES_HIGH),
            deflate_bytes_min: usize::try_from(config.deflate_bytes_min).unwrap_or(usize::MAX),
            deflate_level: u32::try_from(config.deflate_level).unwrap_or(1),
            message_timeout: config.message_timeout,
            close_timeout: config.close_timeout,
            closing_bytes_max,
            shutdown_timeout: config.shutdown_timeout,
            drain_time: config.drain_time,
        }
    }

    /// Whether the address of a client may come from this peer. Behind a Unix socket, which has no addresses, its
    /// permissions decide who connects.
    pub(super) fn trusts_proxy(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.transport.trusts_proxy(peer))
    }

    /// Takes from another configuration what may change while a worker runs.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        let WorkerSettings { hub, listeners, connections_max, .. } = self.clone();
        let HubSettings { node, worker, workers, hash, .. } = hub;
        let now = std::mem::take(&mut self.transport.now);
        let before = self.authentication.clone();
        let place = WorkerPlace { node, worker, workers };
        *self = Self::new(config, place, connections_max, listeners, hash);
        self.transport.now = now;
        self.authentication.adopt_keys(&before);
    }
}

/// What a worker has beside its settings.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its end of the mesh.
    pub mesh: Mesh,
    /// Configurations that come while it runs; it looks here when it is woken.
    pub reloads: Receiver<Reload>,
    /// Its account in the memory budget.
    pub budget: Budget,
    /// What it shares with others.
    pub shared: WorkerShares,
}

/// What a reload brings.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The settings; a worker takes those that may change while it runs.
    pub config: Arc<Config>,
    /// The certificate of new TLS handshakes; `None` leaves it as it is.
    pub identity: Option<Identity>,
}

/// What all workers share.
#[derive(Clone, Debug, Default)]
pub struct WorkerShares {
    /// The counters of all workers, in their order.
    pub counters: Arc<[Arc<Counters>]>,
    /// Set when the server shuts down.
    pub stop: Arc<AtomicBool>,
    /// The way to ask the backend, if it is asked anything.
    pub caller: Option<Caller>,
    /// Connections of all workers.
    pub open: Arc<AtomicUsize>,
    /// As many as there may be of them.
    pub open_max: usize,
    /// The connections of each network prefix, of all workers.
    pub prefixes: Arc<PrefixTable>,
    /// The connections of each user, of all workers.
    pub users: Arc<UserTable>,
    /// When the first of them began: what they all count time from.
    pub clock: Arc<OnceLock<Instant>>,
    /// Steps of shutting down that workers have taken, all together.
    pub steps: Arc<AtomicUsize>,
    /// The certificate of TLS handshakes, until a reload brings another one.
    pub identity: Option<Identity>,
    /// A proxy brings requests of others to this host.
    pub is_behind_proxy: Arc<AtomicBool>,
    /// What opens the sessions of clients whose commands come in requests of their own.
    pub session_key: SessionKey,
    /// When events that clients can repeat at will are logged again, by any worker.
    pub warned_until: Arc<WarnedUntil>,
    /// Several workers run on a core: they have their turns in between.
    pub shares_core: bool,
}

/// The ticks until which events that clients can repeat at will are not logged.
#[derive(Debug, Default)]
pub struct WarnedUntil([AtomicU32; 3]);

/// An event that clients can repeat at will, and that is logged once in a while, whatever worker it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A request to the server API is refused.
    Api,
    /// A token is rejected.
    Token,
    /// A proxy is misconfigured.
    Proxy,
}

impl WarnedUntil {
    /// Whether an event may be logged in this tick.
    pub fn may_warn(&self, warning: Warning, now: u32) -> bool {
        let (until, order) = (&self.0[warning as usize], Ordering::Relaxed);
        let interval = match warning {
            Warning::Api => API_WARNING_INTERVAL,
            Warning::Token => TOKEN_WARNING_INTERVAL,
            Warning::Proxy => PROXY_WARNING_INTERVAL,
        };
        let (last, next) = (until.load(order), now.saturating_add(ticks(interval)));
        now >= last && until.compare_exchange(last, next, order, order).is_ok()
    }
}

/// What a worker counts, all zero.
pub fn new_counters() -> Counters {
    Counters::new(Labels {
        connections: TransportKind::LABELS,
        connections_rejected: Rejection::LABELS,
        connections_closed: CloseReason::LABELS,
        handshakes_failed: HandshakeFailure::LABELS,
        api_refused: ApiRefusal::LABELS,
        rates_exceeded: Rate::LABELS,
        tokens_rejected: TokenError::LABELS,
        publications_dropped: Drops::LABELS,
        proxy_headers_rejected: ProxyRefusal::LABELS,
        tls_failed: TlsFailure::LABELS,
        callbacks: (CallbackKind::WORDS, OUTCOMES),
    })
}
