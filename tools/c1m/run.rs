//! The coordinator of one run: starts the threads, sets steps, takes samples, and ends the run when it cannot succeed
//! any more. Every wait is bounded.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use fantail::driver::raise_limit;
use fantail::server::host::Grouped;
use fantail::telemetry::Counter;
use serde_json::json;

use crate::arguments::{Common, Protocol};
use crate::endpoint::{Endpoint, WireProtocol};
use crate::engine;
use crate::engine::state::Settings;
use crate::instrument::Tls;
use crate::plan::{Group, Resources, Sources};
use crate::progress::{Progress, Share};
use crate::report::{Report, Sample, Samples, latencies_json, merge};
use crate::shared::{Recorder, Shared, Step, Tally};
use crate::usage::{Clocks, Memory};

/// A run in progress.
pub struct Run {
    pub shared: Arc<Shared>,
    pub report: Report,
    pub samples: Samples,
    threads: Vec<JoinHandle<io::Result<()>>>,
    requested: u64,
    failures_max: u64,
    stall_timeout: Duration,
    server_pid: Option<u32>,
    interrupted: Arc<AtomicBool>,
    progress: Progress,
    /// Latencies recorded since the last call of `take_latencies`.
    window: Recorder,
    before: Memory,
    began: Clocks,
    work_began: Option<(Clocks, SchedulerTimes)>,
}

/// CPU time that the threads used, and time that they waited for a core, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct SchedulerTimes {
    cpu_ns: u64,
    waited_ns: u64,
}

impl Run {
    /// Plans and starts the threads, which begin to open connections. `publications` is their maximum number.
    pub fn start(
        mode: &str,
        common: &Common,
        groups: &[Group],
        publications: usize,
        adjust: impl FnOnce(&mut Settings),
    ) -> Result<Self, String> {
        let server_pid = common.server_pid;
        if let Some(pid) = server_pid.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            return Err(format!("--server-pid {pid}: no process {pid} on this host"));
        }
        for source in &common.source {
            if let Err(error) = TcpListener::bind((*source, 0)) {
                return Err(format!("--source {source} is not an address of this host: {error}"));
            }
        }
        let before = Memory::read(server_pid).map_err(|error| error.to_string())?;
        let began = Clocks::read(server_pid).map_err(|error| error.to_string())?;
        let descriptors = raise_limit().map_err(|error| error.to_string())?;
        let threads = common.threads.map(usize::from);
        let resources = Resources::of_this_host(descriptors, threads, common.source.clone());
        let mut settings = settings(common);
        adjust(&mut settings);
        let plan = resources.plan(groups, common.channels, settings.endpoint.address)?;
        let count = plan.parts.len();
        settings.sources = plan.sources;
        settings.rate /= count as f64;
        settings.in_flight_max = settings.in_flight_max.div_ceil(count);
        let shared = Arc::new(Shared::new(count, common.channels, publications));
        let settings = Arc::new(settings);
        let mut threads = Vec::with_capacity(count);
        for (index, parts) in plan.parts.into_iter().enumerate() {
            let (shared, settings) = (Arc::clone(&shared), Arc::clone(&settings));
            let thread = thread::Builder::new()
                .name(format!("c1m-{index}"))
                .spawn(move || engine::run(index, &parts, shared, settings));
            threads.push(thread.map_err(|error| format!("cannot start a thread: {error}"))?);
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(|error| error.to_string())?;
        }
        let protocol = match common.protocol {
            Protocol::Ws => "ws",
            Protocol::Tcp => "tcp",
            Protocol::Sse => "sse",
        };
        let mut report = Report::new(mode);
        report.set("protocol", json!(protocol));
        report.set("target", json!(settings.endpoint.address.to_string()));
        Ok(Self {
            shared,
            report,
            samples: Samples::every(SAMPLE_INTERVAL),
            threads,
            requested: groups.iter().map(|group| group.count as u64).sum(),
            failures_max: common.failures_max,
            stall_timeout: 2 * common.connect_timeout + Duration::from_secs(5),
            server_pid,
            interrupted,
            progress: Progress::new(),
            window: Recorder::default(),
            before,
            began,
            work_began: None,
        })
    }

    /// Waits until every connection has been opened or has failed. A failure ends the run.
    pub fn open_all(&mut self) -> Result<(), String> {
        let requested = self.requested;
        let tried = |shared: &Shared| shared.sum(|t| &t.opened) + shared.sum(|t| &t.failed);
        let result = self.wait_while_progressing("opening", self.stall_timeout, tried, |shared| {
            tried(shared) >= requested
        });
        let opened = self.shared.sum(|tally| &tally.opened);
        self.report_opening(opened);
        result?;
        match self.shared.sum(|tally| &tally.failed) {
            0 => {}
            _ if opened == 0 => {
                return Err(format!("no connection was opened: {}", self.main_cause()));
            }
            failed => {
                return Err(format!("{failed} connections failed to open: {}", self.main_cause()));
            }
        }
        // Subscriptions may still be in flight between workers of the server.
        self.wait("settling", SETTLING, |_| false)?;
        self.read_memory("memory")
    }

    fn report_opening(&mut self, opened: u64) {
        let from = self.began;
        // The server may have ended meanwhile.
        let to = Clocks::read(self.server_pid).or_else(|_| Clocks::read(None));
        let seconds = from.at.elapsed().as_secs_f64();
        let mut opening = json!({
            "seconds_to_open": seconds,
            "opened_per_second": opened as f64 / seconds,
            "opening": self.take_latencies().opening.to_json(),
        });
        if let Ok(to) = to {
            if let (Some(from), Some(to), 1..) = (from.server_ns, to.server_ns, opened) {
                opening["server_cpu_ns_per_opening"] = json!((to - from) as f64 / opened as f64);
            }
            let cpu_cores = (to.own_ns - from.own_ns) as f64 / 1e9 / seconds;
            opening["c1m_cpu_cores"] = json!(cpu_cores);
            // A shorter time does not prove a bottleneck.
            if seconds >= OPENING_SECONDS_MIN {
                self.check_cpu("while opening, ", cpu_cores, SchedulerTimes::default());
            }
        }
        self.report.add("connections", opening);
    }

    /// Waits at most `time` until `done`; returns whether it is.
    pub fn wait(
        &mut self,
        what: &str,
        time: Duration,
        done: impl FnMut(&Shared) -> bool,
    ) -> Result<bool, String> {
        let of = self.requested;
        let share = |shared: &Shared, _| Share { done: shared.sum(|t| &t.open), of, unit: "open" };
        self.wait_showing(what, time, share, done)
    }

    /// Waits for all of `time`.
    pub fn sleep(&mut self, what: &str, time: Duration) -> Result<(), String> {
        let of = time.as_secs();
        let share = |_: &Shared, passed: Duration| Share { done: passed.as_secs(), of, unit: "s" };
        self.wait_showing(what, time, share, |_| false).map(|_| ())
    }

    /// Like `wait`, with another measure of progress.
    pub fn wait_showing(
        &mut self,
        what: &str,
        time: Duration,
        share: impl Fn(&Shared, Duration) -> Share,
        mut done: impl FnMut(&Shared) -> bool,
    ) -> Result<bool, String> {
        let began = Instant::now();
        loop {
            if done(&self.shared) {
                return Ok(true);
            }
            if began.elapsed() >= time {
                return Ok(false);
            }
            self.supervise(what, share(&self.shared, began.elapsed()))?;
            sleep(CHECK_INTERVAL.min(time));
        }
    }

    /// Waits until `done`; an error if a count does not change for `stall_timeout`.
    pub fn wait_while_progressing(
        &mut self,
        what: &str,
        stall_timeout: Duration,
        count: impl Fn(&Shared) -> u64,
        done: impl Fn(&Shared) -> bool,
    ) -> Result<(), String> {
        loop {
            let before = count(&self.shared);
            let moved =
                self.wait(what, stall_timeout, |shared| done(shared) || count(shared) != before)?;
            if done(&self.shared) {
                return Ok(());
            }
            if !moved {
                return Err(format!("{what}: no progress for {} s", stall_timeout.as_secs_f64()));
            }
        }
    }

    /// Sets a step and waits until all threads have started it.
    pub fn set_step(&mut self, step: Step) -> Result<(), String> {
        self.shared.set_step(step);
        let followed = self.wait("starting the next step", STEP_TIMEOUT, Shared::all_at_step)?;
        if followed { Ok(()) } else { Err("a thread of c1m does not respond".to_owned()) }
    }

    /// Holds all connections idle before the work begins, and reports the cost.
    pub fn hold(&mut self, time: Duration) -> Result<(), String> {
        if time.is_zero() {
            return Ok(());
        }
        let answered = self.shared.sum(|tally| &tally.pongs);
        let from = Clocks::read(self.server_pid).map_err(|error| self.server_error(&error))?;
        self.sleep("holding", time)?;
        let to = Clocks::read(self.server_pid).map_err(|error| self.server_error(&error))?;
        let seconds = (to.at - from.at).as_secs_f64();
        let answered = self.shared.sum(|tally| &tally.pongs) - answered;
        let mut hold = json!({ "seconds": seconds, "pings_answered": answered });
        if let (Some(from), Some(to)) = (from.server_ns, to.server_ns) {
            hold["server_cpu_cores"] = json!((to - from) as f64 / 1e9 / seconds);
        }
        self.report.add("hold", hold);
        Ok(())
    }

    /// From now on failures and losses do not end the run: those connections reconnect.
    pub fn tolerate_failures(&mut self) {
        self.failures_max = u64::MAX;
    }

    /// Latencies recorded since the last call.
    pub fn take_latencies(&mut self) -> Recorder {
        self.window.add(&self.shared.take_latencies());
        std::mem::take(&mut self.window)
    }

    /// Starts to measure the CPU time and latencies of the work.
    pub fn begin_work(&mut self) -> Result<(), String> {
        self.take_latencies();
        let clocks = Clocks::read(self.server_pid).map_err(|error| self.server_error(&error))?;
        self.work_began = Some((clocks, self.waits()));
        Ok(())
    }

    /// Reports the operations and cost since `begin_work`; returns the latencies.
    pub fn end_work(&mut self, operation: &str, operations: u64) -> Result<Recorder, String> {
        let (from, waits) = self.work_began.take().expect("work that ends has begun");
        let to = Clocks::read(self.server_pid).map_err(|error| self.server_error(&error))?;
        let seconds = (to.at - from.at).as_secs_f64();
        let latencies = self.take_latencies();
        let mut work = json!({
            "operation": operation,
            "seconds": seconds,
            "operations": operations,
            "operations_per_second": operations as f64 / seconds,
        });
        merge(&mut work, latencies_json(&latencies));
        self.report.add("work", work);
        if let (Some(from), Some(to)) = (from.server_ns, to.server_ns) {
            let spent = (to - from) as f64;
            let mut server =
                json!({ "cpu_seconds": spent / 1e9, "cpu_cores": spent / 1e9 / seconds });
            if operations > 0 {
                server["cpu_ns_per_operation"] = json!(spent / operations as f64);
            }
            self.report.add("server", server);
        }
        self.report_own((to.own_ns - from.own_ns) as f64 / 1e9, seconds, waits, &latencies);
        Ok(latencies)
    }

    fn report_own(
        &mut self,
        cpu_seconds: f64,
        seconds: f64,
        from: SchedulerTimes,
        latencies: &Recorder,
    ) {
        let cpu_cores = cpu_seconds / seconds;
        let waiting_share = self.check_cpu("", cpu_cores, from);
        let turn_p99 = latencies.turn.quantile(0.99);
        let latency_p99 = latencies.latency.quantile(0.99);
        if latencies.latency.count() > 0 && turn_p99 >= TURN_NS_MAX && 2 * turn_p99 >= latency_p99 {
            self.report.bottleneck(format!(
                "messages waited up to {:.1} ms (p99) inside c1m",
                turn_p99 as f64 / 1e6
            ));
        }
        self.report.add(
            "c1m",
            json!({
                "threads": self.shared.threads.len(),
                "cpu_cores": cpu_cores,
                "waiting_share": waiting_share,
                "turn": latencies.turn.to_json(),
            }),
        );
    }

    /// Reports a bottleneck if c1m lacked CPU since `from`; returns the share of its time that it waited for a core.
    fn check_cpu(&mut self, when: &str, cpu_cores: f64, from: SchedulerTimes) -> f64 {
        let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
        let to = self.waits();
        let (used, waited) = (to.cpu_ns - from.cpu_ns, to.waited_ns - from.waited_ns);
        let waiting_share = waited as f64 / (used + waited).max(1) as f64;
        if cpu_cores >= CPU_SHARE_MAX * cores {
            self.report.bottleneck(format!("{when}c1m used {cpu_cores:.2} of {cores} cores"));
        }
        if waiting_share >= WAITING_SHARE_MAX && cpu_cores >= BUSY_SHARE_MIN * cores {
            self.report.bottleneck(format!(
                "{when}all cores were busy: c1m's threads waited for a core {:.0}% of the time",
                waiting_share * 100.0
            ));
        }
        waiting_share
    }

    /// Reads what memory is in use now, and what of it a connection takes.
    pub fn read_memory(&mut self, name: &str) -> Result<(), String> {
        let now = Memory::read(self.server_pid).map_err(|error| self.server_error(&error))?;
        let open = self.shared.sum(|tally| &tally.open).max(1) as f64;
        // Memory that other programs released meanwhile is noise: a negative increase is not reported.
        let each = |before: u64, now: u64| {
            Some((now as f64 - before as f64) / open).filter(|each| *each >= 0.0)
        };
        let mut memory = json!({
            "c1m_bytes": now.own,
            "c1m_bytes_per_connection": each(self.before.own, now.own),
            "kernel_bytes_per_connection": each(self.before.kernel(), now.kernel()),
            "kernel_objects_bytes": now.kernel_objects,
            "kernel_tcp_bytes": now.kernel_tcp,
            "host_bytes_per_connection": each(now.available, self.before.available),
        });
        if self.server_pid.is_some() {
            memory["server_bytes"] = json!(now.server);
            memory["server_bytes_per_connection"] = json!(each(self.before.server, now.server));
        }
        self.report.set(name, memory);
        Ok(())
    }

    /// Ends the threads and completes the report with all counts, whether the run succeeded or not.
    pub fn finish(mut self, result: Result<(), String>) -> (Report, Samples) {
        let mut cause = result.err();
        if cause.is_some() {
            self.wait_until_idle();
            self.report_unfinished_work();
        }
        // The counts of a thread that failed are included.
        self.shared.set_step(Step::Stop);
        for thread in self.threads.drain(..) {
            if let Err(error) = join(thread) {
                cause.get_or_insert(error);
            }
        }
        self.progress.finish();
        let sum = |counter: fn(&Tally) -> &Counter| self.shared.sum(counter);
        let causes = self.shared.causes();
        self.report.add(
            "connections",
            json!({
                "requested": self.requested,
                "opened": sum(|tally| &tally.opened),
                "open_at_end": sum(|tally| &tally.open),
                "failed": sum(|tally| &tally.failed),
                "failed_by_cause": causes.failed,
                "lost": sum(|tally| &tally.lost),
                "lost_by_cause": causes.lost,
                "pings_answered": sum(|tally| &tally.pongs),
            }),
        );
        let expected = self.shared.expected();
        if expected > 0 {
            self.report.add("messages", json!({ "expected": expected }));
        }
        self.report.add(
            "messages",
            json!({ "sent": sum(|tally| &tally.sent), "received": sum(|tally| &tally.received) }),
        );
        let [faults, _] = self.shared.faults();
        self.report.set_faults(faults);
        self.report.conclude(cause, sum(|tally| &tally.lost));
        (self.report, self.samples)
    }

    /// After a run that ended early: waits until messages in flight have arrived and lost connections are detected, so
    /// that the counts are final.
    fn wait_until_idle(&mut self) {
        self.shared.set_step(Step::Read);
        // A second interrupt ends the wait.
        self.interrupted.store(false, Ordering::Relaxed);
        let counts = |shared: &Shared| {
            let counters: [fn(&Tally) -> &Counter; 6] = [
                |t| &t.open,
                |t| &t.failed,
                |t| &t.lost,
                |t| &t.received,
                |t| &t.received_slow,
                |t| &t.closed_slow,
            ];
            counters.map(|counter| shared.sum(counter))
        };
        let began = Instant::now();
        let (mut before, mut moved_at) = (counts(&self.shared), began);
        // Without open connections nothing more arrives.
        while before[0] > 0
            && moved_at.elapsed() < IDLE_AFTER
            && began.elapsed() < IDLE_WAIT_MAX
            && !self.interrupted.load(Ordering::Relaxed)
        {
            sleep(CHECK_INTERVAL);
            let now = counts(&self.shared);
            if now != before {
                (before, moved_at) = (now, Instant::now());
            }
        }
    }

    /// Reports the measurements of work that was not completed.
    fn report_unfinished_work(&mut self) {
        let Some((from, _)) = self.work_began.take() else { return };
        let latencies = self.take_latencies();
        let mut work = json!({ "seconds": from.at.elapsed().as_secs_f64() });
        merge(&mut work, latencies_json(&latencies));
        self.report.add("work", work);
    }

    /// Takes samples, shows progress, and checks that the threads, the server and enough connections are alive.
    fn supervise(&mut self, what: &str, share: Share) -> Result<(), String> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        if let Some(index) = self.threads.iter().position(JoinHandle::is_finished) {
            join(self.threads.swap_remove(index))?;
            return Err("a thread of c1m ended".to_owned());
        }
        if let Some(pid) = self.server_pid
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            return Err("the server process ended".to_owned());
        }
        let shared = &self.shared;
        let (open, failed, lost) =
            (shared.sum(|t| &t.open), shared.sum(|t| &t.failed), shared.sum(|t| &t.lost));
        if failed.saturating_add(lost) > self.failures_max {
            let cause = self.main_cause();
            return Err(match shared.sum(|tally| &tally.opened) {
                0 => format!("no connection was opened: {cause}"),
                _ => format!(
                    "more than {} connections failed or were lost: {cause}",
                    self.failures_max
                ),
            });
        }
        if open == 0 && lost > 0 {
            return Err(format!("all connections were lost: {}", self.main_cause()));
        }
        let received = shared.sum(|t| &t.received);
        self.progress.show(|| {
            let mut line = format!("{what} {share}");
            let more = [(open, "open"), (failed, "failed"), (lost, "lost"), (received, "received")];
            for (count, what) in more.into_iter().filter(|(n, what)| *n > 0 && *what != share.unit)
            {
                line += &format!(", {} {what}", Grouped(count));
            }
            line
        });
        if self.samples.are_due() {
            let latencies = self.shared.take_latencies();
            let memory =
                Memory::read(self.server_pid).map_err(|error| self.server_error(&error))?;
            self.samples.add(Sample {
                seconds: self.shared.now_ns() as f64 / 1e9,
                open,
                memory,
                p50_ns: latencies.latency.quantile(0.5),
                p99_ns: latencies.latency.quantile(0.99),
                count: latencies.latency.count(),
            });
            self.window.add(&latencies);
        }
        Ok(())
    }

    fn waits(&self) -> SchedulerTimes {
        SchedulerTimes {
            cpu_ns: self.shared.sum(|tally| &tally.cpu_ns),
            waited_ns: self.shared.sum(|tally| &tally.waited_ns),
        }
    }

    /// The most frequent cause of failure.
    fn main_cause(&self) -> String {
        let causes = self.shared.causes();
        let all = causes.failed.iter().chain(&causes.lost);
        all.max_by_key(|(_, count)| **count).map_or_else(String::new, |(cause, _)| cause.clone())
    }

    fn server_error(&self, error: &io::Error) -> String {
        match self.server_pid {
            Some(pid) if !Path::new(&format!("/proc/{pid}")).exists() => {
                "the server process ended".to_owned()
            }
            _ => format!("cannot read clocks and memory: {error}"),
        }
    }
}

fn join(thread: JoinHandle<io::Result<()>>) -> Result<(), String> {
    match thread.join() {
        Ok(result) => result.map_err(|error| format!("a thread of c1m failed: {error}")),
        Err(_) => Err("a thread of c1m panicked".to_owned()),
    }
}

/// Settings from the common options; modes adjust the rest.
fn settings(common: &Common) -> Settings {
    let endpoint = endpoint_for(common, common.protocol);
    Settings {
        idle_endpoint: endpoint.clone(),
        endpoint,
        sources: Sources::Any,
        rate: common.connect_rate,
        in_flight_max: common.in_flight.max(1),
        opening_timeout: common.connect_timeout,
        size: 0,
        depth: 1,
        ping_interval: Duration::from_millis(100),
        canary_core: None,
        slow_receive_buffer: 4096,
        drop_resets: false,
    }
}

/// The endpoint of the server for a protocol.
pub fn endpoint_for(common: &Common, protocol: Protocol) -> Endpoint {
    let (wire, address, path): (WireProtocol, SocketAddr, &str) = match protocol {
        Protocol::Ws => (WireProtocol::WebSocket, common.target, "/ws?channel={channel}"),
        Protocol::Tcp => (WireProtocol::Commands, common.tcp_target, ""),
        Protocol::Sse => (WireProtocol::Events, common.target, "/events?channel={channel}"),
    };
    let given = common.path.as_deref().filter(|_| protocol == common.protocol);
    Endpoint {
        address,
        protocol: wire,
        path: given.unwrap_or(path).to_owned(),
        channel_prefix: common.channel_prefix.clone(),
        tokens: common.tokens(),
        tls: common.tls.then(Tls::new),
    }
}

const SETTLING: Duration = Duration::from_millis(500);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// Counts that do not change for this long are final; after `IDLE_WAIT_MAX` they are taken as they are.
const IDLE_AFTER: Duration = Duration::from_secs(1);
const IDLE_WAIT_MAX: Duration = Duration::from_secs(10);
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Share of all cores above which CPU is the bottleneck.
const CPU_SHARE_MAX: f64 = 0.9;
/// Share of time waiting for a core above which the host is overloaded, if c1m uses at least `BUSY_SHARE_MIN`.
const WAITING_SHARE_MAX: f64 = 0.3;
const BUSY_SHARE_MIN: f64 = 0.3;
const OPENING_SECONDS_MIN: f64 = 1.0;
const TURN_NS_MAX: u64 = 2_000_000;
