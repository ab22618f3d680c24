//! Builds workers from a configuration; starts and stops them.
//!
//! **What it is.** [`Server`]: the threads, one per worker, each pinned to a core, with a descriptor table and
//! listeners of its own. [`StopSignals`] and [`Reloader`] control it while it runs, [`notify_ready`] notifies a service
//! manager. [`Log`]: the log of the process. [`host`]: the number of connections that the host can hold.
//!
//! **In and out.** In: a [`Config`], and signals while it runs. Out: addresses, or a [`StartError`] that says what to
//! do.
//!
//! **Always true.** When `start` returns a server, every worker listens; when it returns an error, none does. What
//! workers share (wakers) is opened before the first of them leaves the shared descriptor table.
//!
//! **Must not know.** Command lines, protocols, the steps of a worker's turn.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tracing::{error, info, warn};

use crate::callback::{Setup, Setups};
use crate::config::limits::{
    CHURN_PER_SHARED_TURN_MAX, CHURN_PER_TURN_MAX, CONNECTIONS_PER_WORKER_MAX, SPARE_CONNECTIONS,
    WORKERS_MAX,
};
use crate::config::{Config, ConfigError, DriverChoice};
use crate::connection::Service;
use crate::connection::tls::{Identity, TicketSecrets};
use crate::driver::{
    Driver, DriverKind, DriverSettings, EpollDriver, RESERVED_DESCRIPTORS, UringDriver, Waker,
    choose, make_private, raise_limit,
};
use crate::hub::ChannelHash;
use crate::message::{NodeId, WorkerId};
use crate::telemetry::Counters;
use crate::worker::{
    Budget, Mesh, PrefixTable, Reload, STEPS_TO_END, UserTable, Worker, WorkerParts, WorkerPlace,
    WorkerSettings, WorkerShares, new_counters,
};

mod callbacks;
pub mod host;
mod listeners;
mod log;
mod memory;
mod port_user;
mod reload;
mod service_manager;
mod signal;
mod tls;

use callbacks::Callbacks;
use listeners::{Listeners, Pending};

pub use listeners::Endpoint;
pub use log::Log;
pub use reload::Reloader;
pub use service_manager::notify_ready;
pub use signal::StopSignals;

/// A running server.
#[derive(Debug)]
pub struct Server {
    threads: Vec<JoinHandle<()>>,
    controls: Controls,
    ended: Receiver<Ended>,
    /// The thread of the callbacks, if there is one.
    callbacks: Option<JoinHandle<()>>,
    listeners: Listeners,
    counters: Arc<[Arc<Counters>]>,
    driver: &'static str,
    driver_reason: String,
    connections_max: usize,
}

/// The means to stop or reconfigure a running server.
#[derive(Clone, Debug)]
struct Controls {
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    reloads: Vec<Sender<Reload>>,
    /// The way to change what the thread of the callbacks asks, if there is one.
    setups: Option<Setups>,
    /// The secrets of session tickets if the configuration has none.
    tickets: TicketSecrets,
}

/// Why a server did not start: a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

/// How a worker ended.
#[derive(Debug)]
struct Ended {
    worker: WorkerId,
    /// `None` for a panic: its message has been printed.
    result: Option<io::Result<()>>,
}

/// Everything a worker's thread needs.
struct Job {
    kind: DriverKind,
    core: Option<core_affinity::CoreId>,
    listeners: Vec<Pending>,
    driver: DriverSettings,
    waker: Waker,
    worker: WorkerSettings,
    parts: WorkerParts,
}

/// Checks the certificates and keys of TLS, as the start of a server does. Returns warnings about them.
pub fn check_certificates(config: &Config) -> Result<Vec<String>, StartError> {
    tls::load(config, &TicketSecrets::random()).map(|(_, warnings)| warnings).map_err(StartError)
}

impl Server {
    /// Starts a server. A port of 0 is replaced by one that the kernel chooses.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        config.check()?;
        let (kind, driver_reason) = probe(config.driver)?;
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let workers = config.workers.unwrap_or(cores.len()).clamp(1, WORKERS_MAX);
        let (per_worker, connections_max) = connections_max(config, workers)?;
        let shares_core = workers > cores.len();
        let listeners = Listeners::resolve(config).map_err(StartError)?;
        let wakers: Vec<Waker> = (0..workers).map(|_| Waker::new()).collect::<io::Result<_>>()?;
        let (tickets, identity) = identity(config)?;
        let (hash, node) = (ChannelHash::default(), draw_node());
        let of = u16::try_from(workers).expect("at most WORKERS_MAX");

        let ((ended_sender, ended), (ready_sender, ready)) = (channel(), channel());
        let (reloads, reload_inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel()).unzip();
        let mut threads = Vec::new();
        let (meshes, budgets) = (Mesh::new(&wakers), budgets(config, workers));
        let (callbacks, caller) =
            Callbacks::new(config, node, &budgets, &meshes).map_err(StartError)?.unzip();
        let shared = WorkerShares {
            counters: (0..workers).map(|_| Arc::new(new_counters())).collect(),
            caller,
            open_max: connections_max,
            prefixes: Arc::new(PrefixTable::new(connections_max)),
            users: Arc::new(UserTable::new(connections_max)),
            shares_core,
            identity,
            ..WorkerShares::default()
        };
        let meshes = meshes.into_iter().zip(reload_inboxes);
        for ((mesh, reloads), budget) in meshes.zip(budgets) {
            let (worker, index) = (mesh.worker(), usize::from(mesh.worker().0));
            let parts = WorkerParts { mesh, reloads, budget, shared: shared.clone() };
            let place = WorkerPlace { node, worker, workers: of };
            let job = Job {
                kind,
                core: cores.get(index % cores.len().max(1)).copied(),
                listeners: listeners.of_worker().map_err(StartError)?,
                driver: driver_settings(per_worker, shares_core),
                waker: wakers[index].clone(),
                worker: WorkerSettings::new(
                    config,
                    place,
                    per_worker,
                    listeners.policies().collect(),
                    hash,
                ),
                parts,
            };
            let ended = EndedGuard { worker, ended: ended_sender.clone() };
            threads.extend(job.spawn(ready_sender.clone(), ended));
        }
        drop((ready_sender, ended_sender));
        // The thread of the callbacks ends when no worker can ask it.
        let WorkerShares { stop, steps, counters, .. } = shared;
        let server = Server {
            threads,
            controls: Controls { stop, wakers, reloads, setups: None, tickets },
            callbacks: None,
            ended,
            listeners,
            counters,
            driver: kind.name(),
            driver_reason,
            connections_max,
        };
        let mut server = server.when_ready(&ready, &steps)?.with_callbacks(callbacks)?;
        server.listeners.release_ports();
        Ok(server)
    }

    /// Starts the thread of the callbacks, if there is one. If that fails, all workers have ended when this returns.
    fn with_callbacks(mut self, callbacks: Option<Callbacks>) -> Result<Server, StartError> {
        let Some(callbacks) = callbacks else { return Ok(self) };
        self.controls.setups = Some(callbacks.setups());
        let controls = self.controls.clone();
        match spawn("fantail-callbacks", move || callbacks.run(|| controls.stop())) {
            Ok(thread) => {
                self.callbacks = Some(thread);
                Ok(self)
            }
            Err(error) => {
                self.stop();
                self.join().and(Err(error))
            }
        }
    }

    /// Waits until every worker listens. If one cannot, all of them have ended when this returns.
    fn when_ready(
        self,
        ready: &Receiver<Result<(), StartError>>,
        steps: &AtomicUsize,
    ) -> Result<Server, StartError> {
        let workers = self.workers();
        // A worker that ends before it is ready has sent its error, or panicked and dropped its sender.
        let ready: Vec<_> = ready.iter().take(workers).collect();
        if ready.len() == workers && ready.iter().all(Result::is_ok) {
            info!(driver = self.driver, reason = self.driver_reason, workers, "serving");
            return Ok(self);
        }
        // The running workers must not wait for the shutdown steps of those that did not start.
        let missing = workers - ready.iter().filter(|ready| ready.is_ok()).count();
        steps.fetch_add(missing * STEPS_TO_END, Ordering::Release);
        self.stop();
        for thread in self.threads {
            // Its panic has been printed.
            let _ = thread.join();
        }
        let said = ready.into_iter().find_map(Result::err);
        Err(said.unwrap_or_else(|| StartError("a worker ended while it was starting".into())))
    }

    /// Each service with its address, in the order of the configuration.
    pub fn addresses(&self) -> &[Endpoint] {
        &self.listeners.endpoints
    }

    /// The first address of a service that is not a Unix socket.
    pub fn address(&self, service: Service) -> Option<SocketAddr> {
        let of_service = self.addresses().iter().filter(|(of, _)| *of == service);
        of_service.filter_map(|(_, address)| address.ip()).next()
    }

    /// The driver's name, and why it was chosen.
    pub fn driver(&self) -> (&'static str, &str) {
        (self.driver, &self.driver_reason)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.controls.wakers.len()
    }

    /// The number of connections that the server accepts at most.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// The counters of each worker.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Makes the workers stop accepting, disconnect their clients and end. Returns at once.
    pub fn stop(&self) {
        self.controls.stop();
    }

    fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Waits until all workers have ended, which takes at most the shutdown timeout after `stop`. A worker that
    /// fails stops the others.
    pub fn join(self) -> Result<(), StartError> {
        let mut failure = None;
        for _ in 0..self.threads.len() {
            let Ok(Ended { worker, result }) = self.ended.recv() else { break };
            let sentence = match result {
                Some(Ok(())) => continue,
                Some(Err(error)) => format!("worker {} failed: {error}", worker.0),
                None => format!("worker {} panicked", worker.0),
            };
            error!("{sentence}");
            self.stop();
            failure.get_or_insert(StartError(sentence));
        }
        for thread in self.threads {
            // The message of a panic has been printed.
            let _ = thread.join();
        }
        if self.callbacks.is_some_and(|thread| thread.join().is_err()) {
            failure.get_or_insert(StartError("the thread of the callbacks panicked".to_owned()));
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Controls {
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Has workers take a configuration, and the thread of the callbacks a setup, if it is another one.
    fn reconfigure(&self, config: &Config, identity: Option<Identity>, setup: Option<Setup>) {
        // Before a worker asks what only this one has.
        if let (Some(setups), Some(setup)) = (&self.setups, setup) {
            setups.replace(setup);
        }
        let reload = Reload { config: Arc::new(config.clone()), identity };
        for worker in &self.reloads {
            // A worker that has ended needs no configuration.
            let _ = worker.send(reload.clone());
        }
        self.wake();
    }

    fn wake(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// Reports the end of a worker's thread, whether it returns or panics.
struct EndedGuard {
    worker: WorkerId,
    ended: Sender<Ended>,
}

impl EndedGuard {
    fn report(&self, result: Option<io::Result<()>>) {
        // Without a receiver, the server has been dropped.
        let _ = self.ended.send(Ended { worker: self.worker, result });
    }
}

impl Drop for EndedGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.report(None);
        }
    }
}

impl Job {
    /// Starts the thread. That it cannot start is reported like a failure of the worker itself: the running workers
    /// are stopped.
    fn spawn(
        self,
        ready: Sender<Result<(), StartError>>,
        ended: EndedGuard,
    ) -> Option<JoinHandle<()>> {
        let name = format!("fantail-{}", ended.worker.0);
        let reports = ready.clone();
        let thread = spawn(&name, move || self.run(&ready, &ended));
        // Sending cannot fail: the receiver lives until every worker has reported.
        thread.map_err(|error| reports.send(Err(error))).ok()
    }

    fn run(self, ready: &Sender<Result<(), StartError>>, ended: &EndedGuard) {
        let result = match self.kind {
            DriverKind::IoUring => self.run_with(ready, UringDriver::new),
            DriverKind::Epoll => self.run_with(ready, EpollDriver::new),
        };
        ended.report(Some(result));
    }

    fn run_with<D: Driver>(
        self,
        ready: &Sender<Result<(), StartError>>,
        new_driver: impl FnOnce(&DriverSettings, Vec<OwnedFd>, Waker) -> io::Result<D>,
    ) -> io::Result<()> {
        if let Some(core) = self.core {
            core_affinity::set_for_current(core);
        }
        // Comes first, so that what the worker opens is in its own descriptor table only.
        let private = make_private().map_err(StartError::from);
        let listeners = private.and_then(|()| {
            self.listeners.into_iter().map(|pending| pending.open().map_err(StartError)).collect()
        });
        let driver = listeners.and_then(|listeners| {
            new_driver(&self.driver, listeners, self.waker)
                .map_err(|error| StartError(format!("the {} driver: {error}", self.kind.name())))
        });
        // Sending cannot fail: the receiver lives until every worker has reported.
        match driver {
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
            Ok(driver) => {
                let mut worker = Worker::new(driver, self.worker, self.parts);
                let _ = ready.send(Ok(()));
                worker.run()
            }
        }
    }
}

/// Chooses the driver, on a thread of its own: the kernel tears a ring down shortly after it is closed, which
/// interrupts a later blocking call of the thread that used it.
fn probe(asked: DriverChoice) -> Result<(DriverKind, String), StartError> {
    let probe = spawn("fantail-probe", move || choose(asked))?;
    probe.join().expect("a probe does not panic").map_err(StartError)
}

/// Starts a thread. The error says how to raise the limit on threads.
fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        StartError(format!(
            "cannot start the thread {name} ({error}): raise the limit on threads (TasksMax= or LimitNPROC= in a \
             unit, --pids-limit of a container, ulimit -u), or start fewer --workers; fantail doctor says how many"
        ))
    })
}

/// The number of threads of a server in addition to its workers: main, signals, and two for the log.
const OWN_THREADS: u64 = 4;

/// The memory budget of each worker: accounts of one shared total.
fn budgets(config: &Config, workers: usize) -> Vec<Budget> {
    let bytes_max = config.memory_bytes_max.unwrap_or_else(memory::bytes_by_default);
    info!(bytes_max, "memory budget");
    Budget::of_workers(workers, bytes_max)
}

/// The maximum number of connections per worker and of the server.
fn connections_max(config: &Config, workers: usize) -> Result<(usize, usize), StartError> {
    let open_files = raise_limit()?;
    let descriptors = open_files.saturating_sub(RESERVED_DESCRIPTORS);
    let per_worker =
        usize::try_from(descriptors).unwrap_or(usize::MAX).min(CONNECTIONS_PER_WORKER_MAX);
    let possible = per_worker.saturating_mul(workers);
    match config.connections_max {
        Some(asked) if asked > possible => Err(StartError(format!(
            "--connections-max {asked} needs more descriptors than there are: the limit of {open_files} open files \
             holds for each of {workers} workers, which makes {possible} connections; raise it (ulimit -n, or \
             LimitNOFILE= in a unit) or add workers"
        ))),
        Some(asked) => Ok((per_worker.min(asked), asked)),
        None if possible == 0 => Err(StartError(format!(
            "the limit of {open_files} open files leaves none for connections, because {RESERVED_DESCRIPTORS} of each \
             worker's are its own: raise it (ulimit -n, or LimitNOFILE= in a unit)"
        ))),
        None => Ok((per_worker, possible)),
    }
}

/// What handshakes of TLS have, and the secrets of session tickets for this run. Logs warnings about certificates.
fn identity(config: &Config) -> Result<(TicketSecrets, Option<Identity>), StartError> {
    let tickets = TicketSecrets::random();
    let (identity, warnings) = tls::load(config, &tickets).map_err(StartError)?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    Ok((tickets, identity))
}

/// A random id for this run of the server: the standard library draws the keys of its hasher from the system's source
/// of randomness.
fn draw_node() -> NodeId {
    NodeId::new(RandomState::new().hash_one("node"))
}

fn driver_settings(connections_max: usize, shares_core: bool) -> DriverSettings {
    let sockets_max = u32::try_from(connections_max + SPARE_CONNECTIONS)
        .expect("at most CONNECTIONS_PER_WORKER_MAX");
    let churn_per_turn_max =
        if shares_core { CHURN_PER_SHARED_TURN_MAX } else { CHURN_PER_TURN_MAX };
    DriverSettings { sockets_max, churn_per_turn_max, ..DriverSettings::default() }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self(format!("the system refuses a resource that the server needs: {error}"))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
