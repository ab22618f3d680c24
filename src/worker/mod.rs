//! The thread that joins driver, connections, hub and mesh.
//!
//! **What it is.** [`Worker`] owns one driver and all of its connections; its turn is all there is to the event loop:
//! ```text
//!    wait(sends, deadline) → settle the sends
//!                          → for each event: bytes → connection → hub
//!                          → for each message from another worker: → hub
//!                          → one step of a TLS handshake
//!                          → requests that waited for the long answers of others: → hub
//!                          → the next slice of the fan-outs in progress
//!                          → the next slice of the sweep: keepalives, timeouts
//!                          → what the memory budget asks for
//!                          → fill the batch: one send per connection that has bytes
//! ```
//! **In and out.** In: what the driver reports, what other workers send. Out: sends, with the next wait; messages.
//!
//! **Always true.** Each loop is bounded by a limit of its own, so a turn is short and nothing waits for more than a
//! few turns. The clock is read once a turn, and once more before a sleep, by the driver. Nothing here blocks but
//! `wait`.
//!
//! **Must not know.** Which driver it has, protocols, how threads are started.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::config::limits::{INBOX_LOAD_PER_TURN_MAX, SHUTDOWN_CLOSES_PER_TURN_MAX};
use crate::driver::{Driver, Event, ListenerId};

mod accept;
mod admission;
mod announced;
mod arrivals;
mod author;
mod backpressure;
mod budget;
mod callbacks;
mod calls;
mod closing;
mod connections;
mod deferred;
mod deliveries;
mod events;
mod evict;
mod eviction;
mod expirations;
mod fan_out;
mod flush;
mod held;
mod lags;
mod login;
mod logins;
mod mesh;
mod outbox;
mod paused_publishers;
mod prefixes;
mod proxy_headers;
mod rates;
mod relay;
mod relays;
mod renewals;
mod reports;
mod requests;
mod sealing;
mod settings;
mod statistics;
mod survey;
mod sweep;
mod table;
mod tls;
mod tls_sessions;
mod turn;
mod users;

pub use crate::auth::{PrefixTable, UserTable};
pub use budget::{Budget, Level};
pub use mesh::{Mesh, MeshInbox};
pub use settings::{
    Listener, Reload, WarnedUntil, WorkerParts, WorkerPlace, WorkerSettings, WorkerShares,
    new_counters,
};

use admission::Place;
use connections::Connections;
use proxy_headers::ProxyRefusal;
use table::Action;

/// One driver and all of its connections.
#[derive(Debug)]
pub struct Worker<D: Driver> {
    driver: D,
    connections: Connections,
    listeners: Vec<Listener>,
    accepting: Accepting,
    stop: Arc<AtomicBool>,
    drain: Option<Drain>,
    shutdown: Option<Shutdown>,
    steps: Arc<AtomicUsize>,
    workers: usize,
    shares_core: bool,
    /// Whether all messages of the last turn were handed over.
    is_flushed: bool,
    /// Whether the last turn left nothing in the inbox.
    is_inbox_empty: bool,
}

/// Listeners that ran out of descriptors or memory.
#[derive(Debug, Default)]
struct Accepting {
    paused: Vec<ListenerId>,
    retry_at: Option<Instant>,
    /// A failure before this moment belongs to an episode that has been logged.
    quiet_until: Option<Instant>,
}

/// A stop that has yet to become a shutdown. First load balancers see that the server is not ready, while it still
/// accepts connections. Then it stops listening, and connections are closed gradually, so that their clients do not all
/// reconnect to another server at once; the others are served as before.
#[derive(Debug)]
struct Drain {
    listens_until: Instant,
    is_listening: bool,
    /// Slots whose connections have been closed.
    closed_slots: usize,
}

/// A shutdown in progress: steps that all workers take together. A worker takes the next one when nothing waits for it
/// and every worker has taken the last; so what was on its way when publishers were paused goes one hop
/// further with each.
#[derive(Debug)]
struct Shutdown {
    /// Taken by this worker.
    steps: usize,
    /// When connections are closed, even if something is still to be delivered.
    close_at: Instant,
    until: Instant,
    /// Slots whose connections have been closed.
    closed_slots: usize,
    /// The time is up.
    is_over: bool,
}

/// Between two attempts to accept after descriptors or memory ran out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Without a failure for this long, the next one is logged again.
const ACCEPT_QUIET: Duration = Duration::from_secs(10);

/// Steps before connections are closed: publishers are paused; what they published is at its home worker; it is with
/// the workers that have subscribers, and its publishers are answered; it is delivered.
const STEPS_TO_CLOSE: usize = 4;

/// Once all connections are closed, no worker needs another one.
pub const STEPS_TO_END: usize = STEPS_TO_CLOSE + 1;

/// Before a batch that found an inbox full, or a paused publisher, is looked at again.
const RETRY: Duration = Duration::from_millis(1);

impl<D: Driver> Worker<D> {
    /// A worker without connections.
    pub fn new(driver: D, settings: WorkerSettings, parts: WorkerParts) -> Self {
        let WorkerShares { stop, steps, shares_core, counters, .. } = parts.shared.clone();
        counters[usize::from(parts.mesh.worker().0)].accepting.set(1);
        let (workers, listeners) = (usize::from(settings.hub.workers), settings.listeners.clone());
        let connections = Connections::new(settings, parts, driver.now());
        // Other workers report the counters of one that has not begun its first turn.
        connections.count();
        Self {
            steps,
            workers,
            listeners,
            connections,
            shares_core,
            driver,
            accepting: Accepting::default(),
            stop,
            drain: None,
            shutdown: None,
            is_flushed: true,
            is_inbox_empty: true,
        }
    }

    /// Turns until the server is stopped and all connections are closed, or the driver fails.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            self.turn(Duration::MAX)?;
            if self.shares_core {
                // A turn is short, a scheduler's slice is not.
                std::thread::yield_now();
            }
        }
        self.connections.count();
        Ok(())
    }

    /// One turn; sleeps at most `sleep_max`, and not at all while there is work.
    pub fn turn(&mut self, sleep_max: Duration) -> io::Result<()> {
        let mut timeout = self.timeout().min(sleep_max);
        if !timeout.is_zero() && !self.connections.mesh.prepare_sleep() {
            timeout = Duration::ZERO;
        }
        // A wait that does not sleep tells by its end when the sends were done. Where it may, the clock is read before,
        // unless there is much to send: then another turn sleeps.
        let Connections { deliveries, outbox, .. } = &self.connections;
        if deliveries.lags.times(outbox.batch.items().len()) {
            timeout = Duration::ZERO;
        }
        let ended = (!timeout.is_zero()).then(|| self.driver.read_clock());
        self.connections.counters.sleeps.add(ended.is_some().into());
        let timeout = (timeout != Duration::MAX).then_some(timeout);
        let waited = self.driver.wait(&mut self.connections.outbox.batch, timeout);
        self.connections.mesh.end_sleep();
        waited?;
        let now = self.driver.now();
        self.connections.end_turn(ended.unwrap_or(now));
        // Asked before the inbox is emptied: what was published before the server was stopped is in there by then.
        let stops = self.stop.load(Ordering::Acquire);
        let steps_of_all = self.steps.load(Ordering::Acquire);
        self.connections.begin_turn(now, stops, || self.driver.wall_clock());
        self.connections.settle();
        self.act();
        self.handle_events(now);
        self.is_inbox_empty = self.empty_inbox();
        tls::step_handshake(&mut self.connections);
        self.connections.publish_statistics();
        self.connections.ask_deferred();
        self.connections.fan_out();
        self.connections.sweep(now);
        let accepts = self.accepting.paused.is_empty() && !stops;
        self.connections.counters.accepting.set(accepts.into());
        self.connections.answer_questions();
        self.retry_accepting(now);
        if stops && (self.is_shutting_down() || self.drain(now)) {
            self.shut_down(now, steps_of_all);
        }
        self.connections.evict();
        self.connections.account();
        self.connections.regulate();
        relay::resume(&mut self.connections);
        // Nothing is written behind this: the batch lends the kernel what was.
        let Connections { outbox, table, tls, .. } = &mut self.connections;
        outbox.fill(table, tls);
        self.connections.count();
        self.is_flushed = self.connections.mesh.flush();
        self.act();
        Ok(())
    }

    /// Whether the server was stopped, and all connections of this worker are closed and no worker can want anything
    /// of it any more; or the time for that is up.
    pub fn is_done(&self) -> bool {
        let Some(shutdown) = &self.shutdown else { return false };
        let is_alone = self.steps.load(Ordering::Acquire) >= STEPS_TO_END * self.workers;
        let is_idle = self.connections.table.is_empty() && self.is_flushed && self.is_inbox_empty;
        shutdown.is_over || (is_alone && is_idle)
    }

    /// The driver of this worker, for tests that play the kernel.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    fn timeout(&self) -> Duration {
        let has_work = self.connections.is_urgent() || !self.is_inbox_empty;
        if has_work || self.stop.load(Ordering::Relaxed) != self.is_stopping() {
            return Duration::ZERO;
        }
        let Connections { paused, relays, mesh, .. } = &self.connections;
        let is_congested =
            !paused.is_empty() || mesh.is_counted() || (!relays.is_empty() && mesh.is_congested());
        let is_stepping =
            self.shutdown.as_ref().is_some_and(|shutdown| shutdown.steps < STEPS_TO_END);
        if !self.is_flushed || is_congested || is_stepping || self.connections.budget.is_critical()
        {
            return RETRY;
        }
        let kept = self.connections.hub.measures();
        let is_timed = !self.connections.table.is_empty()
            || kept.history_bytes > 0
            || kept.key_bytes > 0
            || self.connections.budget.is_unsettled()
            || self.accepting.retry_at.is_some()
            || self.is_stopping();
        let slice = if is_timed { sweep::SLICE } else { Duration::MAX };
        let of_hub = self.connections.hub.next_tick().map(Duration::from_millis);
        let Connections { statistics, hub, paused, turn, rates, .. } = &self.connections;
        let of_statistics = statistics.wait(hub, paused, turn.began_us);
        let of_rates = rates.wait_us(turn.began_us).map(Duration::from_micros);
        let waits = [of_hub, of_statistics, of_rates, Some(slice)];
        waits.into_iter().flatten().min().expect("there is one")
    }

    fn is_stopping(&self) -> bool {
        self.drain.is_some() || self.is_shutting_down()
    }

    fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    fn handle_events(&mut self, now: Instant) {
        while !self.connections.turn.is_full()
            && let Some(event) = self.driver.next_event()
        {
            match event {
                Event::Received { id, bytes } => self.connections.receive(id, bytes),
                Event::Sendable { id } => {
                    let Connections { table, outbox, .. } = &mut self.connections;
                    let connection = table.at(id.index);
                    connection.flags.set_blocked(false);
                    outbox.mark(connection, id.index);
                }
                Event::Ended { id, end } => self.connections.end(id, end),
                Event::Closed { id } => self.connections.remove(id),
                Event::Woken => self.reconfigure(),
                Event::Accepted { listener, socket, peer } => {
                    self.accept(listener, socket, peer, now);
                }
                Event::AcceptFailed { listener, error } => {
                    self.accepting.pause(listener, &error, now, &self.connections);
                }
            }
            self.act();
        }
    }

    /// Takes a new connection; a socket without a place is closed by being dropped.
    fn accept(
        &mut self,
        listener: ListenerId,
        socket: D::Socket,
        peer: Option<SocketAddr>,
        now: Instant,
    ) {
        let Listener { service, expects_proxy_header, is_encrypted, has_tickets, offers_deflate } =
            self.listeners[usize::from(listener.0)];
        let address = peer.map(|peer| peer.ip());
        let is_trusted = self.connections.settings.trusts_proxy(address);
        if expects_proxy_header && !is_trusted {
            let Connections { proxy_headers, turn, counters, .. } = &mut self.connections;
            return proxy_headers.refuse(ProxyRefusal::Untrusted, peer, turn.tick, counters);
        }
        let Connections { prefixes, settings, turn, .. } = &self.connections;
        let Ok(counted) = prefixes.accept(peer, service, settings, turn.began_us) else { return };
        let Some((id, place)) = self.connections.admit(service) else {
            self.connections.prefixes.give_back(counted);
            return self.accepting.refuse(now, &self.connections);
        };
        self.driver.attach(id, socket);
        let Connections { table, turn, settings, prefixes, arrivals, tls, .. } =
            &mut self.connections;
        let flags = &mut table.at(id.index).flags;
        prefixes.assign(id.index, counted, flags);
        // Behind a header of the PROXY protocol it is the peer that the header names.
        flags.set_proxied(!expects_proxy_header && is_trusted);
        if !is_trusted {
            arrivals.note(id, address);
        }
        // What is logged of the connection later has its number.
        let worker = settings.hub.worker.0;
        debug!(worker, connection = id.index, peer = peer.map(display), "accepted");
        flags.set_listener(is_encrypted, offers_deflate);
        flags.set_awaits_tls(is_encrypted);
        flags.set_awaits_proxy_header(expects_proxy_header);
        if is_encrypted && !has_tickets {
            tls.without_tickets.insert(id.index);
        }
        if expects_proxy_header || is_encrypted {
            // An echo of bytes has no handshake of its own, and therefore no deadline yet.
            let timeout = settings.transport.handshake_timeout;
            table.set_deadline_after(id.index, turn.tick, timeout);
        }
        match place {
            Place::Regular if self.connections.budget.is_critical() => {
                self.connections.turn_away(id, service);
            }
            Place::Regular => {}
            Place::Spare => {
                self.connections.turn_away(id, service);
                self.accepting.refuse(now, &self.connections);
            }
        }
    }

    /// Takes what may change from the newest configuration, if one came. Deadlines that are set already stay.
    fn reconfigure(&mut self) {
        let Connections { reloads, settings, hub, budget, tls, arrivals, .. } =
            &mut self.connections;
        if let Some(Reload { config, identity }) = reloads.try_iter().last() {
            settings.reconfigure(&config);
            arrivals.keep_all(settings.callbacks.include_addresses());
            tls.identity = identity.or(tls.identity.take());
            hub.set_limits(budget.hub_limits(settings.hub.limits));
        }
    }

    /// Has the driver do what follows from the last step.
    fn act(&mut self) {
        for action in self.connections.table.actions.drain(..) {
            match action {
                Action::Pause(id) => self.driver.pause(id),
                Action::Resume(id) => self.driver.resume(id),
                Action::Acknowledge(id) => self.driver.acknowledge(id),
                Action::ShutdownWrite(id) => self.driver.shutdown_write(id),
                Action::Close(id, how) => self.driver.close(id, how),
            }
        }
    }

    fn retry_accepting(&mut self, now: Instant) {
        if self.accepting.retry_at.is_some_and(|at| at <= now) {
            self.accepting.retry_at = None;
            for listener in self.accepting.paused.drain(..) {
                self.driver.resume_accepting(listener);
            }
        }
    }

    /// Takes what other workers sent, up to this turn's limits; returns whether that was all.
    fn empty_inbox(&mut self) -> bool {
        let mut load = 0;
        while load < INBOX_LOAD_PER_TURN_MAX
            && !self.connections.deferred.is_turn_full()
            && !self.connections.turn.has_enough_answers()
        {
            let Some((message, message_load)) = self.connections.mesh.receive() else {
                return true;
            };
            load += message_load;
            self.connections.receive_message(message);
        }
        false
    }

    /// Goes on with the drain; returns whether it is over. Half of the shutdown timeout is for clients to leave.
    fn drain(&mut self, now: Instant) -> bool {
        let time = self.connections.settings.drain_time;
        if time.is_zero() {
            return true;
        }
        let drain = self.drain.get_or_insert_with(|| {
            info!(connections = self.connections.table.len(), "draining: not ready, but accepting");
            Drain { listens_until: now + time, is_listening: true, closed_slots: 0 }
        });
        if now < drain.listens_until {
            return false;
        }
        if std::mem::replace(&mut drain.is_listening, false) {
            self.driver.stop_listening();
            info!(connections = self.connections.table.len(), "closing connections gradually");
        }
        let spread = self.connections.settings.shutdown_timeout / 2;
        let share = (now - drain.listens_until).as_secs_f64() / spread.as_secs_f64();
        let slots = self.connections.table.slots();
        let due = (slots as f64 * share.min(1.0)).ceil() as usize;
        let count = due.saturating_sub(drain.closed_slots).min(SHUTDOWN_CLOSES_PER_TURN_MAX);
        self.connections.close_for_shutdown(drain.closed_slots, count);
        drain.closed_slots += count;
        share >= 1.0 || self.connections.table.is_empty()
    }

    fn shut_down(&mut self, now: Instant, steps_of_all: usize) {
        let timeout = self.connections.settings.shutdown_timeout;
        let shutdown = self.shutdown.get_or_insert_with(|| {
            // What is left of the time where clients have been leaving already. A reload may have ended the drain.
            let began = self.drain.as_ref().map_or(now, |drain| drain.listens_until.min(now));
            let until = began + timeout;
            self.driver.stop_listening();
            self.connections.paused.pause_all();
            self.connections.hub.stop_pacing();
            info!(connections = self.connections.table.len(), "shutting down");
            Shutdown {
                close_at: now + until.saturating_duration_since(now) / 2,
                until,
                steps: 0,
                closed_slots: 0,
                is_over: false,
            }
        });
        shutdown.is_over = now >= shutdown.until;
        if shutdown.steps >= STEPS_TO_END {
            return;
        }
        // What was accepted is delivered first, as far as there is time for it.
        let is_idle = self.is_inbox_empty
            && self.connections.mesh.is_flushed()
            && !self.connections.hub.wants_fan_out();
        let all_took_it = steps_of_all >= shutdown.steps * self.workers;
        let mut taken = 0;
        if shutdown.steps < STEPS_TO_CLOSE {
            if is_idle && all_took_it {
                taken = 1;
            } else if now >= shutdown.close_at {
                taken = STEPS_TO_CLOSE - shutdown.steps;
            }
        } else if all_took_it || now >= shutdown.close_at {
            let left = self
                .connections
                .close_for_shutdown(shutdown.closed_slots, SHUTDOWN_CLOSES_PER_TURN_MAX);
            shutdown.closed_slots += SHUTDOWN_CLOSES_PER_TURN_MAX;
            taken = usize::from(left == 0);
        }
        shutdown.steps += taken;
        self.steps.fetch_add(taken, Ordering::Release);
    }
}

impl Accepting {
    fn refuse(&mut self, now: Instant, connections: &Connections) {
        if self.quiet_until.is_none_or(|until| until <= now) {
            warn!(
                connections = connections.table.len(),
                "connections are rejected: connection limit reached (--connections-max, or the open-file limit)"
            );
        }
        self.quiet_until = Some(now + ACCEPT_QUIET);
    }

    fn pause(
        &mut self,
        listener: ListenerId,
        error: &io::Error,
        now: Instant,
        connections: &Connections,
    ) {
        connections.counters.accept_pauses.add(1);
        if self.quiet_until.is_none_or(|until| until <= now) {
            warn!(
                %error,
                connections = connections.table.len(),
                "accepting is paused until file descriptors or memory are available; open connections are not affected"
            );
        }
        self.quiet_until = Some(now + ACCEPT_QUIET);
        self.paused.push(listener);
        self.retry_at = Some(now + ACCEPT_RETRY);
    }
}
