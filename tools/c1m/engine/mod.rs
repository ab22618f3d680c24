//! One thread: its own descriptor table, its own epoll, its share of the connections.
//!
//! A turn: follow the coordinator's step → open what may be opened → ping what is due → wait → handle events. Edges are
//! registered once for each connection, so an idle one costs nothing until its server speaks. Threads sleep; nothing
//! wakes them but events and the time for a look at the step.

mod attempts;
mod conversation;
mod opening;
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
use crate::door::Door;
use crate::instrument::preempt_others;
use crate::plan::Part;
use crate::shared::{PerThread, Recorder, Shared, Step};
use crate::stream::Faults;

use attempts::Attempts;
use state::{Engine, Settings, Stayers};

/// The thread's work from its beginning to [`Step::Stop`].
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
        (0..connections.len()).filter(|&i| connections[i].role == Role::Stayer).collect();
    if !indexes.is_empty() {
        // The others' work must not make the answer look late. Without the right to do so, it may.
        let _ = preempt_others();
        if let Some(id) = settings.stayers_core
            && !core_affinity::set_for_current(CoreId { id })
        {
            return Err(io::Error::other(format!("cannot run on core {id}")));
        }
    }
    let engine = Engine {
        index,
        poll: Poll::new()?,
        attempts: Attempts::new(index),
        connections,
        unread: HashMap::new(),
        unsent: HashMap::new(),
        buffer: vec![0; RECEIVE_BUFFER_BYTES],
        out: Vec::new(),
        payload: Vec::new(),
        stayers: Stayers { indexes, ..Stayers::default() },
        step: Step::Open,
        step_number: 0,
        faults: [Faults::default(); 2],
        accounted_ns: 0,
        door: Rc::new(settings.door.clone()),
        idle_door: Rc::new(settings.idle_door.clone()),
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
            self.follow(own);
            if self.step == Step::Stop {
                return Ok(());
            }
            self.give_up_late_ones();
            self.open_more();
            self.ping_due();
            match self.poll.poll(&mut events, Some(self.patience())) {
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

    /// Begins the step that the coordinator ordered, once.
    fn follow(&mut self, own: &PerThread) {
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
                // Our own closing is not the server's delay.
                self.shared.watch_gaps_from(self.shared.now_ns());
            }
            Step::Read => self.read_slow_ones(&mut own.recorder()),
            Step::Stop => self.finish(),
        }
        own.set_faults(self.faults);
        own.tally.step.set(u64::from(number));
    }

    fn begin_work(&mut self) {
        self.stayers.due_ns = self.shared.now_ns();
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

    fn read_slow_ones(&mut self, recorder: &mut Recorder) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.role == Role::Slow && connection.state == State::Open {
                self.receive(index, true, recorder);
            }
        }
    }

    /// Counts what did not come, and ends every connection so that no port stays behind.
    fn finish(&mut self) {
        for connection in &mut self.connections {
            let slow = connection.role == Role::Slow;
            let last = match connection.role {
                Role::Echo => connection.sent,
                Role::Subscriber | Role::Slow => {
                    let channel = &self.shared.channels[connection.channel as usize];
                    channel.published.load(Ordering::Acquire)
                }
                Role::Idle | Role::Stayer => 0,
            };
            // One that was closed for being slow has no claim to the rest.
            if connection.was_served && (!slow || connection.state == State::Open) {
                connection.stream.finish(last, &mut self.faults[usize::from(slow)]);
            }
            if let Some(socket) = connection.socket.take() {
                // It fails only for what is gone already.
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Pings one stayer after the other, so that each has its turn once in `ping_every`.
    fn ping_due(&mut self) {
        let works = matches!(self.step, Step::Work | Step::Drop);
        let count = self.stayers.indexes.len();
        if !works || count == 0 {
            return;
        }
        let pause_ns = (self.settings.ping_every.as_nanos() as u64 / count as u64).max(1);
        for _ in 0..count {
            let now_ns = self.shared.now_ns();
            if self.stayers.due_ns > now_ns {
                return;
            }
            self.stayers.due_ns += pause_ns;
            let index = self.stayers.indexes[self.stayers.next];
            self.stayers.next = (self.stayers.next + 1) % count;
            if self.connections[index].state != State::Open {
                continue;
            }
            if self.stayers.asked_ns.contains_key(&index) {
                self.shared.threads[self.index].tally.pings_skipped.add(1);
                continue;
            }
            self.stayers.asked_ns.insert(index, now_ns);
            self.write_ping(index);
            self.send(index);
        }
        // After a pause of our own, pings that were missed are not made up for.
        self.stayers.due_ns = self.stayers.due_ns.max(self.shared.now_ns());
    }

    /// How long to sleep.
    fn patience(&self) -> Duration {
        let until_ping = if self.stayers.indexes.is_empty() || self.step == Step::Open {
            PATIENCE
        } else {
            Duration::from_nanos(self.stayers.due_ns.saturating_sub(self.shared.now_ns()))
        };
        PATIENCE.min(until_ping).min(self.until_opening())
    }

    fn door(&self, index: usize) -> Rc<Door> {
        match self.connections[index].role {
            Role::Idle => Rc::clone(&self.idle_door),
            Role::Echo | Role::Subscriber | Role::Slow | Role::Stayer => Rc::clone(&self.door),
        }
    }

    fn account(
        &mut self,
        own: &PerThread,
        mut recorder: MutexGuard<'_, Recorder>,
        began_ns: u64,
        worked: bool,
    ) {
        let now_ns = self.shared.now_ns();
        if worked {
            recorder.turn.record(now_ns - began_ns);
        }
        drop(recorder);
        if worked {
            own.set_faults(self.faults);
        }
        if now_ns - self.accounted_ns >= ACCOUNT_EVERY_NS {
            self.accounted_ns = now_ns;
            // A kernel without it says nothing, and then neither do we.
            let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
            let mut numbers = schedstat.split(' ').filter_map(|number| number.parse().ok());
            own.tally.cpu_ns.set(numbers.next().unwrap_or(0));
            own.tally.waited_ns.set(numbers.next().unwrap_or(0));
        }
    }
}

const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_PER_TURN_MAX: usize = 512;

/// Between two looks at the step. Sixty threads that look twenty times a second take well under a hundredth of a core.
const PATIENCE: Duration = Duration::from_millis(50);

const ACCOUNT_EVERY_NS: u64 = 500_000_000;
