//! All connections of a worker and its share of the hub: everything except the kernel.
//!
//! Events go in; what leaves is the turn's `SendBatch`, messages in the mesh, and `Action`s for the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::callback::Caller;
use crate::config::limits::SPARE_CONNECTIONS;
use crate::connection::Stage;
use crate::driver::{Close, End, SocketId};
use crate::hub::{Hub, HubOutput};
use crate::message::{CloseReason, TransportKind};
use crate::telemetry::Counters;
use crate::transport::{Answers, Encoder, Flow, Inflater, Output, Question};

use super::admission::Admission;
use super::announced::Announced;
use super::arrivals::Arrivals;
use super::budget::Budget;
use super::deferred::Deferred;
use super::deliveries::Deliveries;
use super::eviction::Eviction;
use super::held::Held;
use super::logins::Logins;
use super::mesh::Mesh;
use super::outbox::Outbox;
use super::paused_publishers::PausedPublishers;
use super::prefixes::{Prefixes, Rejected};
use super::proxy_headers::ProxyHeaders;
use super::rates::Rates;
use super::relays::Relays;
use super::renewals::Renewals;
use super::settings::{Reload, WarnedUntil, WorkerParts, WorkerSettings};
use super::statistics::{Statistics, withdraw_behind_proxy};
use super::sweep::Sweep;
use super::table::{NEVER, Table};
use super::tls_sessions::{Tls, is_cut_off};
use super::turn::Turn;
use super::users::Users;

/// All connections of a worker.
#[derive(Debug)]
pub struct Connections {
    pub(super) settings: WorkerSettings,
    /// Configurations that came while the worker runs.
    pub(super) reloads: Receiver<Reload>,
    pub(super) table: Table,
    pub(super) hub: Hub,
    /// What the hub wants done; empty between two events.
    pub(super) hub_outputs: VecDeque<HubOutput>,
    pub(super) turn: Turn,
    sweep: Sweep,
    /// The connections of a slice of the sweep.
    due: Vec<u32>,
    pub(super) outbox: Outbox,
    /// Sessions and handshakes of encrypted connections.
    pub(super) tls: Tls,
    pub(super) deliveries: Deliveries,
    pub(super) paused: PausedPublishers,
    /// Commands that came in requests of their own and wait for their client.
    pub(super) relays: Relays,
    /// Headers of the PROXY protocol that came in part.
    pub(super) proxy_headers: ProxyHeaders,
    pub(super) rates: Rates,
    pub(super) deferred: Deferred,
    /// Requests that wait for the backend.
    pub(super) held: Held,
    /// What has expired and the backend was asked about.
    pub(super) renewals: Renewals,
    /// The clients that the backend was notified of.
    pub(super) announced: Announced,
    /// The way to ask it, if it is asked anything.
    pub(super) caller: Option<Caller>,
    pub(super) logins: Logins,
    pub(super) admission: Admission,
    /// Where clients came from lately.
    pub(super) arrivals: Arrivals,
    /// The network prefix of each connection.
    pub(super) prefixes: Prefixes,
    /// The user of each connection.
    pub(super) users: Users,
    pub(super) budget: Budget,
    pub(super) eviction: Eviction,
    /// Heap of all conversations: unfinished messages and requests.
    pub(super) unfinished_bytes: usize,
    /// The messages to and from other workers.
    pub(super) mesh: Mesh,
    /// What a conversation wants done; empty between two steps.
    pub(super) outputs: Vec<Output>,
    /// Long answers that several clients asked for.
    pub(super) answers: Answers,
    /// What inflates the messages of all connections.
    pub(super) inflater: Inflater,
    /// Questions of conversations that have not been answered yet.
    pub(super) questions: Vec<(SocketId, Question)>,
    pub(super) statistics: Statistics,
    /// Until when the workers do not give the same warning again.
    pub(super) warned_until: Arc<WarnedUntil>,
    pub(super) counters: Arc<Counters>,
    pub(super) all_counters: Arc<[Arc<Counters>]>,
}

impl Connections {
    /// No connections yet.
    pub fn new(mut settings: WorkerSettings, parts: WorkerParts, now: Instant) -> Self {
        let shared = parts.shared;
        settings.transport.now.is_behind_proxy = shared.is_behind_proxy;
        settings.transport.now.session_key = shared.session_key;
        let counters = shared.counters[usize::from(parts.mesh.worker().0)].clone();
        let sweep = Sweep::new(*shared.clock.get_or_init(|| now));
        let mut turn = Turn::default();
        turn.begin(0, sweep.microseconds(now));
        let mut mesh = parts.mesh;
        mesh.set_load_high(parts.budget.fan_out_bytes_max());
        let mut hub = Hub::new(settings.hub.clone());
        hub.set_limits(parts.budget.hub_limits(settings.hub.limits));
        let encoder = Encoder::new(settings.deflate_bytes_min, settings.deflate_level);
        let places = settings.connections_max + SPARE_CONNECTIONS;
        Self {
            reloads: parts.reloads,
            table: Table::new(places),
            hub,
            hub_outputs: VecDeque::new(),
            turn,
            sweep,
            due: Vec::new(),
            outbox: Outbox::new(places),
            tls: Tls::new(shared.identity, places),
            deliveries: Deliveries::new(encoder),
            paused: PausedPublishers::default(),
            relays: Relays::default(),
            proxy_headers: ProxyHeaders::new(mesh.worker()),
            rates: Rates::default(),
            deferred: Deferred::default(),
            held: Held::default(),
            renewals: Renewals::default(),
            announced: Announced::default(),
            caller: shared.caller,
            logins: Logins::default(),
            admission: Admission::new(shared.open, shared.open_max),
            users: Users::new(shared.users, places),
            arrivals: Arrivals::new(settings.callbacks.include_addresses()),
            prefixes: Prefixes::new(shared.prefixes, places, counters.clone()),
            budget: parts.budget,
            eviction: Eviction::default(),
            unfinished_bytes: 0,
            mesh,
            outputs: Vec::new(),
            answers: Answers::default(),
            inflater: Inflater::default(),
            questions: Vec::new(),
            statistics: Statistics::default(),
            warned_until: shared.warned_until,
            counters,
            all_counters: shared.counters,
            settings,
        }
    }

    /// Begins a turn: its time, and what is due by now.
    pub fn begin_turn(
        &mut self,
        now: Instant,
        is_stopping: bool,
        wall_clock: impl FnOnce() -> Duration,
    ) {
        self.turn.begin(self.sweep.tick(now), self.sweep.microseconds(now));
        if let Some(since_epoch) = self.turn.new_second(wall_clock) {
            self.settings.transport.set_date(since_epoch);
        }
        self.settings.transport.now.is_stopping = is_stopping;
        withdraw_behind_proxy(&self.settings, &mut self.hub);
        self.account();
        self.hub.tick(self.turn.began_us, &mut self.hub_outputs);
        let Self { settings, budget, .. } = self;
        let room =
            self.renewals.room(&settings.callbacks, settings.hub.workers, budget.is_critical());
        self.hub.expire(self.turn.unix_seconds, room, &mut self.hub_outputs);
        self.counters.turns.add(1);
        self.turn.begin_work();
        self.deferred.begin_turn();
    }

    /// The turn is over: the kernel has taken what it sends, unless more waits than one batch takes.
    pub fn end_turn(&mut self, now: Instant) {
        self.counters.turns_budget_exhausted.add(self.turn.is_full().into());
        let now_us = self.sweep.microseconds(now);
        self.counters.turn_duration.observe(now_us.saturating_sub(self.turn.began_us), 1);
        let is_all = self.outbox.is_empty();
        self.deliveries.lags.observe(now_us, is_all, &self.counters.delivery_lag);
    }

    /// Takes bytes that a socket received.
    pub fn receive(&mut self, id: SocketId, bytes: &mut [u8]) {
        self.counters.receives.add(1);
        self.counters.received_bytes.add(bytes.len() as u64);
        let tick = self.turn.tick;
        if self.settings.transport.rates.limits_bytes() {
            let Self { rates, settings, turn, table, counters, .. } = self;
            let limits = &settings.transport.rates;
            rates.pace(id, bytes.len(), limits, turn.began_us, table, counters);
        }
        let connection = self.table.at(id.index);
        match connection.flags.stage() {
            Stage::Open => {
                connection.received = tick;
                let (mut bytes, mut kept) = (bytes, Vec::new());
                if connection.flags.awaits_proxy_header() {
                    let flags = &mut connection.flags;
                    match self.proxy_headers.receive(id.index, flags, bytes, &mut kept) {
                        Ok(Some((rest, client))) => {
                            bytes = rest;
                            self.arrivals.note(id, client.map(|client| client.ip()));
                            let Self { prefixes, settings, turn, .. } = self;
                            if let Err(Rejected) =
                                prefixes.name(id.index, client, flags, settings, turn.began_us)
                            {
                                self.kill(id.index, CloseReason::ConnectionLimit, Close::Orderly);
                                return self.drain_hub_outputs();
                            }
                        }
                        Ok(None) => return,
                        Err(refusal) => {
                            self.proxy_headers.refuse(refusal, None, tick, &self.counters);
                            self.kill(id.index, CloseReason::ProtocolError, Close::Orderly);
                            return self.drain_hub_outputs();
                        }
                    }
                    let is_encrypted = connection.flags.is_encrypted();
                    if connection.traits().kind == TransportKind::EchoTcp && !is_encrypted {
                        self.table.set_deadline(id.index, NEVER);
                    }
                    if bytes.is_empty() {
                        return;
                    }
                }
                if self.table.at(id.index).flags.is_encrypted() {
                    self.receive_encrypted(id, bytes);
                } else {
                    receive_data(self, id, bytes);
                }
            }
            // RFC 6455 1.4, RFC 9112 9.6: reading goes on, so that a reset does not overtake what was sent. The bytes
            // are discarded, and bounded.
            Stage::Closing => {
                connection.received = connection.received.saturating_add(bytes.len() as u32);
                if connection.received > self.settings.closing_bytes_max {
                    self.kill(id.index, CloseReason::ClientGone, Close::Abort);
                }
            }
            Stage::Dead => {}
        }
    }

    /// Has an open connection take bytes.
    pub(super) fn receive_open(&mut self, id: SocketId, bytes: &mut [u8]) {
        let flow = self.step_connection(id.index, |connection, context| {
            connection.receive(&mut *bytes, context)
        });
        if let Flow::Hold(count) = flow {
            self.pause_publisher(id, &bytes[bytes.len() - count..]);
        }
        self.drain_hub_outputs();
    }

    /// Takes the end of what a peer sends.
    pub fn end(&mut self, id: SocketId, end: End) {
        let connection = self.table.at(id.index);
        match (end, connection.flags.stage()) {
            (_, Stage::Dead) => {}
            (End::Reset, _) => self.kill(id.index, CloseReason::ClientGone, Close::Orderly),
            (End::Eof, Stage::Open) => match is_cut_off(connection.flags) {
                Some(true) => self.kill(id.index, CloseReason::ClientGone, Close::Orderly),
                Some(false) => {
                    connection.flags.set_ended();
                    self.step_connection(id.index, |connection, context| connection.end(context));
                }
                None => {}
            },
            (End::Eof, Stage::Closing) => {
                connection.flags.set_ended();
                self.outbox.mark(connection, id.index);
            }
        }
        self.drain_hub_outputs();
    }

    /// The next slice of the sweep.
    pub fn sweep(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.sweep.collect(now, &mut self.table, &mut due);
        for index in due.drain(..) {
            if self.table.is_watched(index as usize) {
                self.check_message(index);
            }
            if self.table.deadline(index as usize) <= self.turn.tick {
                self.table.set_deadline(index, NEVER);
                self.expire(index);
            }
        }
        self.due = due;
        self.drain_hub_outputs();
    }

    /// Whether the next wait must return at once.
    pub fn is_urgent(&self) -> bool {
        self.outbox.is_urgent()
            || !self.questions.is_empty()
            || self.hub.wants_fan_out()
            || self.hub.has_overdue()
            || self.deferred.is_urgent()
            || self.relays.is_urgent()
            || self.tls.is_urgent()
            || self.sweep.is_urgent()
    }
}

/// Has an open connection take bytes of its client, unless all publishers are paused.
pub(super) fn receive_data(connections: &mut Connections, id: SocketId, bytes: &mut [u8]) {
    if connections.paused.pauses_all() && connections.table.at(id.index).traits().publishes {
        connections.pause_publisher(id, bytes);
    } else {
        connections.receive_open(id, bytes);
    }
}
