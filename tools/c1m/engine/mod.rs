//! One thread with its own descriptor table, its own epoll and its share of the connections.
//!
//! A turn: check the coordinator's step → open connections → send due pings → wait → handle events. Connections are
//! registered once, edge-triggered, so an idle one costs nothing until data arrives. Threads wake up for events, and
//! regularly to check the step.

mod attempts;
mod encryption;
mod messages;
mod opening;
mod records;
pub mod state;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use core_affinity::CoreId;
use fantail::driver::make_private;
use mio::{Events, Poll};
use socket2::SockRef;

use crate::connection::{Connection, Role, State};
use crate::endpoint::Endpoint;
use crate::instrument::preempt_others;
use crate::plan::Part;
use crate::shared::{PerThread, Recorder, Shared, Step};
use crate::stream::Faults;

use attempts::Attempts;
use encryption::Encryption;
use state::{Canaries, Engine, Settings};

/// Runs a thread until [`Step::Stop`].
pub fn run(
    index: usize,
    parts: &[Part],
    shared: Arc<Shared>,
    settings: Arc<Settings>,
) -> io::Result<()> {
    make_private()?;
    let connections: Vec<Connection> = parts
        .iter()
        .flat_map(|part| part.channels().map(|channel| Connection::new(part.role, channel)))
        .collect();
    let indexes: Vec<usize> =
        (0..connections.len()).filter(|&i| connections[i].role == Role::Canary).collect();
    if !indexes.is_empty() {
        // Other threads must not delay the measured pongs. Without the privilege, they may.
        let _ = preempt_others();
        if let Some(id) = settings.canary_core
            && !core_affinity::set_for_current(CoreId { id })
        {
            return Err(io::Error::other(format!("cannot run on core {id}")));
        }
    }
    let engine = Engine {
        index,
        poll: Poll::new()?,
        attempts: Attempts::new(index),
        encryption: settings
            .endpoint
            .tls
            .clone()
            .map(|tls| Encryption::new(tls, connections.len())),
        connections,
        unread: HashMap::new(),
        unsent: HashMap::new(),
        buffer: vec![0; RECEIVE_BUFFER_BYTES],
        out: Vec::new(),
        payload: Vec::new(),
        canaries: Canaries { indexes, ..Canaries::default() },
        step: Step::Open,
        step_number: 0,
        faults: [Faults::default(); 2],
        accounted_ns: 0,
        endpoint: Rc::new(settings.endpoint.clone()),
        idle_endpoint: Rc::new(settings.idle_endpoint.clone()),
        shared,
        settings,
    };
    engine.turns()
}

impl Engine {
    fn turns(mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let own = &shared.threads[self.index];
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        loop {
            self.follow_step(own);
            if self.step == Step::Stop {
                return Ok(());
            }
            self.fail_late_handshakes();
            self.open_more();
            self.ping_due();
            match self.poll.poll(&mut events, Some(self.wait_max())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let began_ns = self.shared.now_ns();
            let mut recorder = own.recorder();
            for event in &events {
                self.handle(event, &mut recorder);
            }
            self.account(own, recorder, began_ns, !events.is_empty());
        }
    }

    /// Starts the step that the coordinator has set, once.
    fn follow_step(&mut self, own: &PerThread) {
        let (step, number) = self.shared.step();
        if number == self.step_number && number != 0 {
            return;
        }
        self.step = step;
        self.step_number = number;
        match step {
            Step::Open | Step::Rest => {}
            Step::Work => self.begin_work(),
            Step::Drop => {
                self.drop_all();
                // The time that closing takes here does not count as a delay of the server.
                self.shared.watch_gaps_from(self.shared.now_ns());
            }
            Step::Read => self.resume_slow_readers(&mut own.recorder()),
            Step::Stop => self.finish(),
        }
        own.set_faults(self.faults);
        own.tally.step.set(u64::from(number));
    }

    fn begin_work(&mut self) {
        self.canaries.due_ns = self.shared.now_ns();
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.role == Role::Echo && connection.state == State::Open {
                for _ in 0..self.settings.depth {
                    self.write_echo(index);
                }
                self.send(index);
            }
        }
    }

    fn resume_slow_readers(&mut self, recorder: &mut Recorder) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.role == Role::Slow && connection.state == State::Open {
                self.receive(index, true, recorder);
            }
        }
    }

    /// Counts missing messages and resets every connection, which leaves no port in TIME_WAIT.
    fn finish(&mut self) {
        for connection in &mut self.connections {
            let slow = connection.role == Role::Slow;
            let last = match connection.role {
                Role::Echo => connection.sent,
                Role::Subscriber | Role::Slow => {
                    let channel = &self.shared.channels[connection.channel as usize];
                    channel.published.load(Ordering::Acquire)
                }
                Role::Idle | Role::Canary => 0,
            };
            // A connection that was closed as a slow consumer does not miss the rest.
            if connection.was_open && (!slow || connection.state == State::Open) {
                connection.stream.finish(last, &mut self.faults[usize::from(slow)]);
            }
            if let Some(socket) = connection.socket.take() {
                // It fails only if the connection is already closed.
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Pings one canary after another, so that each is pinged once per `ping_interval`.
    fn ping_due(&mut self) {
        let is_working = matches!(self.step, Step::Work | Step::Drop);
        let count = self.canaries.indexes.len();
        if !is_working || count == 0 {
            return;
        }
        let pause_ns = (self.settings.ping_interval.as_nanos() as u64 / count as u64).max(1);
        for _ in 0..count {
            let now_ns = self.shared.now_ns();
            if self.canaries.due_ns > now_ns {
                return;
            }
            self.canaries.due_ns += pause_ns;
            let index = self.canaries.indexes[self.canaries.next];
            self.canaries.next = (self.canaries.next + 1) % count;
            if self.connections[index].state != State::Open {
                continue;
            }
            if self.canaries.pinged_ns.contains_key(&index) {
                self.shared.threads[self.index].tally.pings_skipped.add(1);
                continue;
            }
            self.canaries.pinged_ns.insert(index, now_ns);
            self.write_ping(index);
            self.send(index);
        }
        // Pings that were missed in a pause of this thread are not made up for.
        self.canaries.due_ns = self.canaries.due_ns.max(self.shared.now_ns());
    }

    /// How long this turn may wait for events.
    fn wait_max(&self) -> Duration {
        let until_ping = if self.canaries.indexes.is_empty() || self.step == Step::Open {
            SLEEP_MAX
        } else {
            Duration::from_nanos(self.canaries.due_ns.saturating_sub(self.shared.now_ns()))
        };
        SLEEP_MAX.min(until_ping).min(self.until_opening())
    }

    fn endpoint(&self, index: usize) -> Rc<Endpoint> {
        match self.connections[index].role {
            Role::Idle => Rc::clone(&self.idle_endpoint),
            Role::Echo | Role::Subscriber | Role::Slow | Role::Canary => Rc::clone(&self.endpoint),
        }
    }

    fn account(
        &mut self,
        own: &PerThread,
        mut recorder: MutexGuard<'_, Recorder>,
        began_ns: u64,
        had_events: bool,
    ) {
        let now_ns = self.shared.now_ns();
        if had_events {
            recorder.turn.record(now_ns - began_ns);
        }
        drop(recorder);
        if had_events {
            own.set_faults(self.faults);
        }
        if now_ns - self.accounted_ns >= ACCOUNT_INTERVAL_NS {
            self.accounted_ns = now_ns;
            // Where the kernel does not provide it, no times are reported.
            let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
            let mut numbers = schedstat.split(' ').filter_map(|number| number.parse().ok());
            own.tally.cpu_ns.set(numbers.next().unwrap_or(0));
            own.tally.waited_ns.set(numbers.next().unwrap_or(0));
        }
    }
}

const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_PER_TURN_MAX: usize = 512;

/// Time between two checks of the step. Sixty threads that check twenty times a second use well under 1% of a core.
const SLEEP_MAX: Duration = Duration::from_millis(50);

const ACCOUNT_INTERVAL_NS: u64 = 500_000_000;
