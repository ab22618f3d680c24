//! The thread of the callbacks: it takes the calls of all workers, and hands each the answers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::answer::Answer;
use super::call::{Answered, Call, Failure};
use super::client::{HttpClient, new_client};
use super::endpoint::{Endpoint, Shared};
use crate::config::limits::{CALLBACK_LOG_INTERVAL, CALLBACK_RESOLVERS_MAX, CALLBACKS_QUEUED_MAX};
use crate::config::{CallbackKind, Callbacks};

/// Where a worker gets its answers.
pub trait Inbox: Send {
    /// Hands answers to the worker, and wakes it. Gives them back if it has too much to do.
    fn deliver(&mut self, answers: Vec<Answered>) -> Result<(), Vec<Answered>>;
}

/// A worker's way to ask.
#[derive(Clone, Debug)]
pub struct Caller(Sender<Box<Call>>);

impl Caller {
    /// Asks the backend, without waiting. Gives the call back if too many wait to be taken.
    pub fn call(&self, call: Box<Call>) -> Result<(), Box<Call>> {
        self.0.try_send(call).map_err(|error| error.into_inner())
    }
}

/// What the thread of the callbacks does.
pub struct Service {
    runtime: Runtime,
    client: HttpClient,
    /// In the order of [`CallbackKind::ALL`].
    endpoints: Vec<Option<Endpoint>>,
    calls: Receiver<Box<Call>>,
}

impl Service {
    /// A service of what is configured, and a way to ask it. It opens descriptors that workers use, so it is made
    /// before a worker leaves the shared descriptor table.
    pub fn new(callbacks: &Callbacks) -> Result<(Service, Caller), String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(CALLBACK_RESOLVERS_MAX)
            .thread_name("fantail-resolver")
            .build()
            .map_err(|error| format!("the thread of the callbacks cannot start: {error}"))?;
        let of = |kind: &CallbackKind| Endpoint::new(*kind, callbacks);
        let endpoints: Vec<_> = CallbackKind::ALL.iter().map(of).collect();
        let idle_max = callbacks.kinds().map(|kind| callbacks.of(kind).connections_max).sum();
        let needs_tls = endpoints.iter().flatten().any(Endpoint::needs_tls);
        let client = new_client(idle_max, needs_tls, callbacks.ca_file.as_deref())?;
        let (sender, calls) = channel(CALLBACKS_QUEUED_MAX);
        Ok((Service { runtime, client, endpoints, calls }, Caller(sender)))
    }

    /// Answers calls until no worker can make one. `inboxes` are those of the workers, in their order.
    pub fn run(self, inboxes: Vec<Box<dyn Inbox>>) {
        let Service { runtime, client, endpoints, mut calls } = self;
        let outboxes = inboxes.into_iter().map(Outbox::new).collect();
        let shared = Shared { client, bytes: Cell::new(0), began: Instant::now() };
        let desk = Rc::new(Desk { shared, endpoints, outboxes, logged: Cell::new(None) });
        let tasks = LocalSet::new();
        runtime.block_on(tasks.run_until(async {
            while let Some(call) = calls.recv().await {
                spawn_local(desk.clone().answer(call));
            }
        }));
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Service").finish_non_exhaustive()
    }
}

/// What all tasks of the thread share.
struct Desk {
    shared: Shared,
    /// In the order of [`CallbackKind::ALL`].
    endpoints: Vec<Option<Endpoint>>,
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
    async fn answer(self: Rc<Self>, call: Box<Call>) {
        let (began, kind) = (Instant::now(), call.ask.kind());
        let result = match &self.endpoints[kind as usize] {
            None => Err(Failure::Rejected),
            Some(endpoint) => {
                let (result, has_opened) = endpoint.ask(&self.shared, &call).await;
                self.log(kind, endpoint, &result, has_opened);
                result
            }
        };
        let worker = usize::from(call.client.worker.0);
        let (session, serial) = (call.client.session, call.serial);
        let answered = Answered { session, serial, kind, result, took: began.elapsed() };
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
