//! The thread of the callbacks: it takes the calls of all workers, and hands each the answers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{
    Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::answer::{Answer, CallbackResult};
use super::call::{Answered, Call, Failure};
use super::delivery::Delivery;
use super::endpoint::Endpoint;
use super::event::Event;
use super::keys::KeySource;
use super::setup::{Current, Setup};
use crate::auth::KeySet;
use crate::config::CallbackKind;
use crate::config::limits::{
    CALLBACK_BYTES_MAX, CALLBACK_LOG_INTERVAL, CALLBACK_RESOLVERS_MAX, CALLBACKS_QUEUED_MAX,
    EVENT_FLUSH_TIMEOUT,
};
use crate::message::{NodeId, SessionId};

/// Where a worker gets its answers.
pub trait Inbox: Send {
    /// Hands answers to the worker, and wakes it. Gives them back if it has too much to do.
    fn deliver(&mut self, answers: Vec<Answered>) -> Result<(), Vec<Answered>>;

    /// Hands keys of tokens to the worker, or that they could not be fetched, and wakes it. Returns false if it has too
    /// much to do.
    fn set_keys(&mut self, keys: Option<&Arc<KeySet>>) -> bool;
}

/// A worker's way to ask, and to notify.
#[derive(Clone, Debug)]
pub struct Caller {
    calls: Sender<Box<Call>>,
    events: Sender<Event>,
    /// Events that were dropped, of all workers.
    dropped: Arc<AtomicU64>,
    /// Notified when a token names a key that is not known.
    keys_wanted: Arc<Notify>,
}

impl Caller {
    /// Asks the backend, without waiting. Gives the call back if too many wait to be taken.
    pub fn call(&self, call: Box<Call>) -> Result<(), Box<Call>> {
        self.calls.try_send(call).map_err(|error| error.into_inner())
    }

    /// Has the backend notified, without waiting. Returns false if the event is dropped, because as many wait as may.
    pub fn notify(&self, event: Event) -> bool {
        let is_taken = self.events.try_send(event).is_ok();
        if !is_taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Has the published keys of tokens fetched, unless they were within this second.
    pub fn fetch_keys(&self) {
        self.keys_wanted.notify_one();
    }
}

/// The way to have a running service use another setup.
#[derive(Clone, Debug)]
pub struct Setups(UnboundedSender<Setup>);

impl Setups {
    /// Has later calls use a setup; those that are under way end as they began.
    pub fn replace(&self, setup: Setup) {
        // A service that has ended needs none.
        let _ = self.0.send(setup);
    }
}

/// What the thread of the callbacks does.
pub struct Service {
    runtime: Runtime,
    setup: Setup,
    /// Setups that reloads bring.
    setups: UnboundedReceiver<Setup>,
    calls: Receiver<Box<Call>>,
    delivery: Delivery,
    dropped: Arc<AtomicU64>,
    keys_wanted: Arc<Notify>,
    /// Bytes of requests and answers that may be under way.
    bytes_max: usize,
}

impl Service {
    /// A service with a setup, a way to ask it, and one to change it. It opens descriptors that workers use, so it is
    /// made before a worker leaves the shared descriptor table. So many events may wait.
    pub fn new(
        setup: Setup,
        node: NodeId,
        events_max: usize,
        memory_bytes_max: u64,
    ) -> Result<(Service, Caller, Setups), String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(CALLBACK_RESOLVERS_MAX)
            .thread_name("fantail-resolver")
            .build()
            .map_err(|error| format!("the thread of the callbacks cannot start: {error}"))?;
        let (sender, calls) = channel(CALLBACKS_QUEUED_MAX);
        let (events, incoming) = channel(events_max);
        let (new_setups, setups) = unbounded_channel();
        let delivery = Delivery::new(node, incoming);
        let dropped = Arc::<AtomicU64>::default();
        let keys_wanted = Arc::<Notify>::default();
        let (most, part) = CALLBACK_BYTES_MAX;
        let bytes_max = usize::try_from(memory_bytes_max / part).unwrap_or(most).min(most);
        let caller = Caller {
            calls: sender,
            events,
            dropped: dropped.clone(),
            keys_wanted: keys_wanted.clone(),
        };
        let service =
            Service { runtime, setup, setups, calls, delivery, dropped, keys_wanted, bytes_max };
        Ok((service, caller, Setups(new_setups)))
    }

    /// Answers calls until no worker can make one. `inboxes` are those of the workers, in their order.
    pub fn run(self, inboxes: Vec<Box<dyn Inbox>>) {
        let Service {
            runtime,
            setup,
            mut setups,
            mut calls,
            delivery,
            dropped,
            keys_wanted,
            bytes_max,
        } = self;
        let outboxes = inboxes.into_iter().map(Outbox::new).collect();
        let (bytes, began) = (Rc::<Cell<usize>>::default(), Instant::now());
        let (current, sources) = setup.begin(bytes.clone(), bytes_max, began);
        let current = RefCell::new(Rc::new(current));
        let desk = Rc::new(Desk { current, outboxes, logged: Cell::new(None) });
        let tasks = LocalSet::new();
        runtime.block_on(tasks.run_until(async {
            let events = spawn_local(desk.clone().deliver_events(delivery, dropped));
            spawn_local(desk.clone().pass_on(keys_wanted));
            let mut fetching = desk.keep_all_keys(sources);
            loop {
                // A setup goes first: workers ask by the new settings only after it was sent.
                let next = poll_fn(|context| match setups.poll_recv(context) {
                    Poll::Ready(Some(setup)) => Poll::Ready(Next::Setup(Box::new(setup))),
                    _ => calls.poll_recv(context).map(|call| call.map_or(Next::End, Next::Call)),
                });
                match next.await {
                    Next::Call(call) => drop(spawn_local(desk.clone().answer(call))),
                    Next::Setup(setup) => {
                        fetching.iter().for_each(JoinHandle::abort);
                        let (current, sources) = setup.begin(bytes.clone(), bytes_max, began);
                        desk.current.replace(Rc::new(current));
                        fetching = desk.keep_all_keys(sources);
                    }
                    Next::End => break,
                }
            }
            // What is left then is lost.
            let _ = timeout(EVENT_FLUSH_TIMEOUT, events).await;
        }));
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Service").finish_non_exhaustive()
    }
}

/// What comes to the thread.
enum Next {
    Call(Box<Call>),
    Setup(Box<Setup>),
    /// No worker can make a call any more.
    End,
}

/// What all tasks of the thread share.
struct Desk {
    current: RefCell<Rc<Current>>,
    outboxes: Vec<Outbox>,
    /// When a failure was logged last.
    logged: Cell<Option<Instant>>,
}

/// Answers on their way to one worker.
struct Outbox {
    inbox: RefCell<Box<dyn Inbox>>,
    waiting: RefCell<Vec<Answered>>,
    /// Whether a task hands them over.
    is_flushing: Cell<bool>,
}

impl Outbox {
    fn new(inbox: Box<dyn Inbox>) -> Self {
        let waiting = RefCell::default();
        Self { inbox: RefCell::new(inbox), waiting, is_flushing: Cell::new(false) }
    }
}

/// Before an inbox that was full is tried again.
const RETRY: Duration = Duration::from_millis(1);

impl Desk {
    /// What the last reload brought.
    fn current(&self) -> Rc<Current> {
        self.current.borrow().clone()
    }

    async fn answer(self: Rc<Self>, call: Box<Call>) {
        let (began, kind, current) = (Instant::now(), call.ask.kind(), self.current());
        let result = match &current.endpoints[kind as usize] {
            None => Err(Failure::Rejected),
            Some(endpoint) => {
                let (result, has_opened) = endpoint.ask(&current.shared, &call).await;
                self.log(kind, endpoint, &result, has_opened);
                result
            }
        };
        let worker = usize::from(call.client.worker.0);
        let (session, serial) = (call.client.session, call.serial);
        let answered = Answered { session, serial, kind, result, took: began.elapsed() };
        self.hand_over(worker, answered);
    }

    /// Hands events to the backend until no more can come.
    async fn deliver_events(self: Rc<Self>, mut delivery: Delivery, dropped: Arc<AtomicU64>) {
        let kind = CallbackKind::Events;
        while let Some(events) = delivery.gather(|| self.current().events.clone()).await {
            let report = |current: &Current, result: Result<(), Failure>, took| {
                let result = result.map(|()| Answer::Result(CallbackResult::Events));
                if let Some(endpoint) = &current.endpoints[kind as usize] {
                    self.log(kind, endpoint, &result, false);
                }
                // The first worker counts it.
                let session = SessionId { index: u32::MAX, generation: u32::MAX };
                self.hand_over(0, Answered { session, serial: 0, kind, result, took });
            };
            let lost = dropped.load(Ordering::Relaxed);
            delivery.send(|| self.current(), &events, lost, report).await;
        }
    }

    fn hand_over(self: &Rc<Self>, worker: usize, answered: Answered) {
        let outbox = &self.outboxes[worker];
        outbox.waiting.borrow_mut().push(answered);
        if !outbox.is_flushing.replace(true) {
            spawn_local(self.clone().flush(worker));
        }
    }

    /// Hands over what is answered, and what other tasks answer meanwhile, as one batch.
    async fn flush(self: Rc<Self>, worker: usize) {
        let Outbox { inbox, waiting, is_flushing } = &self.outboxes[worker];
        loop {
            yield_now().await;
            let answers = waiting.take();
            if answers.is_empty() {
                is_flushing.set(false);
                return;
            }
            let delivered = inbox.borrow_mut().deliver(answers);
            if let Err(mut answers) = delivered {
                answers.append(&mut waiting.borrow_mut());
                waiting.replace(answers);
                sleep(RETRY).await;
            }
        }
    }

    /// Has all sources of keys asked when a token names a key that is not known.
    async fn pass_on(self: Rc<Self>, keys_wanted: Arc<Notify>) {
        loop {
            keys_wanted.notified().await;
            self.current().wanted.iter().for_each(|wanted| wanted.notify_one());
        }
    }

    fn keep_all_keys(self: &Rc<Self>, sources: Vec<KeySource>) -> Vec<JoinHandle<()>> {
        sources.into_iter().map(|source| spawn_local(self.clone().keep_keys(source))).collect()
    }

    /// Keeps the keys that are published at a URL as they are there.
    async fn keep_keys(self: Rc<Self>, mut source: KeySource) {
        loop {
            let fetched = source.fetch(&self.current().shared.client).await;
            // The first worker counts what fails.
            let count = if fetched.is_some() { self.outboxes.len() } else { 1 };
            for outbox in self.outboxes.iter().take(count) {
                while !outbox.inbox.borrow_mut().set_keys(fetched.as_ref()) {
                    sleep(RETRY).await;
                }
            }
            source.pause(fetched.is_none()).await;
        }
    }

    fn log(
        &self,
        kind: CallbackKind,
        endpoint: &Endpoint,
        result: &Result<Answer, Failure>,
        has_opened: bool,
    ) {
        let (callback, uri) = (kind.word(), &endpoint.shown_uri);
        if has_opened {
            info!(callback, %uri, "the backend fails: it is asked less often until it answers");
        }
        let Err(failure) = result else { return };
        let is_quiet = self.logged.get().is_some_and(|at| at.elapsed() < CALLBACK_LOG_INTERVAL);
        if !is_quiet {
            self.logged.set(Some(Instant::now()));
            warn!(reason = failure.label(), callback, %uri, "a callback failed");
        }
    }
}
