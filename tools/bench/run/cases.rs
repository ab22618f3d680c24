//! The cases of `bench run` and their bounds.

use clap::ValueEnum;

/// Groups of measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaseName {
    Echo,
    Fanout,
    Accept,
    Memory,
    Yield,
    Flood,
    /// A crowd that connects at once while the backend of the connect callback is slow, or hangs
    Callbacks,
    /// A crowd that connects at once with tokens, for each algorithm
    Tokens,
    /// Floods from one network prefix, beside clients of others
    Prefixes,
    All,
}

/// A load on fantail and on the bare loop.
pub struct Comparison {
    pub case: CaseName,
    pub name: &'static str,
    pub listener: Listener,
    /// Value of `--mode` for the bare loop.
    pub bare_mode: &'static str,
    pub load: Vec<String>,
    /// Maximum ratio of CPU time per operation to that of the bare loop; `None` without such a bound.
    pub ratio_max: Option<f64>,
    /// Maximum ratio of CPU time per operation to that of an earlier comparison, with the name of that one.
    pub over_earlier: Option<(&'static str, f64)>,
}

/// A load on fantail alone.
pub struct Solo {
    pub case: CaseName,
    pub listener: Listener,
    pub server: ServerSetup,
    pub load: Vec<String>,
    pub figures: Vec<Figure>,
}

/// How the server of a load is started.
#[derive(Default)]
pub struct ServerSetup {
    /// Workers, if there is more than one.
    pub workers: Option<u16>,
    /// A file of settings; [`BACKEND`] stands for the address of the backend, in the load too.
    pub settings: Option<String>,
    /// Whether it runs before all else on its core, so that its turns can be measured.
    pub is_prioritized: bool,
}

/// One number of the report of a load.
pub struct Figure {
    pub name: String,
    /// Path of keys in the report.
    pub path: &'static [&'static str],
    pub unit: &'static str,
    pub bound: Option<Bound>,
}

/// Bound of a figure.
#[derive(Clone, Copy)]
pub enum Bound {
    /// Maximum of the median.
    AtMost(f64),
    /// Minimum of every turn.
    AtLeast(f64),
}

/// The listener of the server that a load connects to.
#[derive(Clone, Copy)]
pub enum Listener {
    /// The listener for HTTP and WebSocket
    Listen,
    Tcp,
    Echo,
}

pub fn comparisons(seconds: f64) -> Vec<Comparison> {
    let echo = |name, depth: &str, idle: &str, over_earlier| Comparison {
        case: CaseName::Echo,
        name,
        listener: Listener::Echo,
        bare_mode: "echo",
        load: words(&[
            "echo",
            "--size",
            "20",
            "--connections",
            "100",
            "--depth",
            depth,
            "--idle",
            idle,
            "--seconds",
            &seconds.to_string(),
        ]),
        ratio_max: over_earlier_or(over_earlier, 1.05),
        over_earlier,
    };
    let fanout = |name, subscribers: &str, outstanding: &str, ratio_max, over_earlier| Comparison {
        case: CaseName::Fanout,
        name,
        listener: Listener::Listen,
        bare_mode: "fanout",
        load: words(&[
            "fanout",
            "--size",
            "64",
            "--subscribers",
            subscribers,
            "--outstanding",
            outstanding,
            "--path",
            "/ws?channel=bench",
            "--seconds",
            &seconds.to_string(),
        ]),
        ratio_max,
        over_earlier,
    };
    vec![
        echo("echo 20 B, depth 1", "1", "0", None),
        echo("echo 20 B, depth 16", "16", "0", None),
        echo("echo 20 B, depth 1, 15,000 idle", "1", "15000", Some(("echo 20 B, depth 1", 1.25))),
        echo(
            "echo 20 B, depth 16, 15,000 idle",
            "16",
            "15000",
            Some(("echo 20 B, depth 16", 1.25)),
        ),
        fanout("fan-out 64 B to 1,000", "1000", "1", None, None),
        fanout("fan-out 64 B to 1,000, 8 outstanding", "1000", "8", None, None),
        fanout("fan-out 64 B to 10,000", "10000", "1", Some(1.05), None),
        fanout(
            "fan-out 64 B to 10,000, 8 outstanding",
            "10000",
            "8",
            None,
            Some(("fan-out 64 B to 10,000", 0.30)),
        ),
        Comparison {
            case: CaseName::Accept,
            name: "accept 10,000 handshakes",
            listener: Listener::Listen,
            bare_mode: "accept",
            load: words(&["accept", "--connections", "10000", "--path", "/ws?channel=bench"]),
            ratio_max: Some(1.25),
            over_earlier: None,
        },
        Comparison {
            case: CaseName::Accept,
            name: "connect, subscribe, close, 64 in flight",
            listener: Listener::Listen,
            bare_mode: "accept",
            load: words(&[
                "cycle",
                "--in-flight",
                "64",
                "--path",
                "/ws?channel=bench",
                "--seconds",
                &seconds.to_string(),
            ]),
            ratio_max: Some(1.06),
            over_earlier: None,
        },
    ]
}

/// A case with a bound relative to an earlier one has none relative to the bare loop.
fn over_earlier_or(over_earlier: Option<(&str, f64)>, ratio_max: f64) -> Option<f64> {
    over_earlier.is_none().then_some(ratio_max)
}

pub fn solos(seconds: f64) -> Vec<Solo> {
    let yielding = |probe, figures| Solo {
        case: CaseName::Yield,
        listener: Listener::Listen,
        server: ServerSetup::default(),
        load: words(&[
            "fanout",
            "--size",
            "64",
            "--subscribers",
            "15000",
            "--path",
            "/ws?channel=bench",
            "--seconds",
            &seconds.to_string(),
            probe,
        ]),
        figures,
    };
    let p50 = |name| figure(name, &["probe", "p50_us"], "us", None);
    let p99 = |name| figure(name, &["probe", "p99_us"], "us", Some(Bound::AtMost(5000.0)));
    let max = |name| figure(name, &["probe", "max_us"], "us", None);
    let mut solos = memory();
    solos.extend([
        yielding("--probe-ping", vec![p50("ping, p50"), p99("ping, p99"), max("ping, max")]),
        yielding(PROBE_ECHO, vec![p50("echo, p50"), p99("echo, p99"), max("echo, max")]),
        flood(seconds),
    ]);
    solos
}

/// Idle connections, which are subscribed: the growth from 2,000 of them to 17,000. Half of the descriptors of one
/// process would not do for more.
fn memory() -> Vec<Solo> {
    let idle = |listener, options: &[&str], name: &str, kernel: Option<&str>, rss_max| {
        let rss = &["server", "rss_bytes_per_connection"];
        let mut figures = vec![figure(name, rss, "bytes", Some(Bound::AtMost(rss_max)))];
        // Both ends are included: client and server share this kernel.
        let slab = &["kernel_slab_bytes_per_pair"];
        figures.extend(kernel.map(|name| figure(name, slab, "bytes", None)));
        let load = ["idle", "--connections", "15000", "--path", "/ws?channel=bench"];
        Solo {
            case: CaseName::Memory,
            listener,
            server: ServerSetup::default(),
            load: words(&[&load, options].concat()),
            figures,
        }
    };
    // What a handshake takes is not counted, once so many were made.
    let over_tls = |name, rss_max| {
        let settings = Some("tls.self_signed = true\n".to_owned());
        let server = ServerSetup { settings, ..ServerSetup::default() };
        Solo { server, ..idle(Listener::Listen, &["--tls"], name, None, rss_max) }
    };
    let with_tokens = |options: &[&str], name, rss_max| {
        let options = [&["--token-hmac-secret", SECRET], options].concat();
        let settings = Some(format!("auth.hmac_secret = \"{SECRET}\"\n"));
        let server = ServerSetup { settings, ..ServerSetup::default() };
        Solo { server, ..idle(Listener::Listen, &options, name, None, rss_max) }
    };
    vec![
        idle(
            Listener::Listen,
            &[],
            "RSS per idle WebSocket",
            Some("kernel slab per WebSocket, both ends"),
            160.0,
        ),
        with_tokens(&[], "RSS per idle WebSocket, 100 users", 160.0),
        with_tokens(
            &["--token-users", "0", "--token-info-bytes", "32"],
            "RSS per idle WebSocket, users of their own, 32 bytes of info",
            224.0,
        ),
        over_tls("RSS per idle WebSocket over TLS", 290.0),
        idle(
            Listener::Tcp,
            &["--protocol", "tcp"],
            "RSS per idle raw TCP",
            Some("kernel slab per raw TCP, both ends"),
            160.0,
        ),
    ]
}

/// Signs tokens of a server that is started for a measurement.
const SECRET: &str = "a-secret-of-32-characters-or-more";

/// Ten times as long as other loads, since new clients connect one after another and a p99 needs many of them.
fn flood(seconds: f64) -> Solo {
    const NEW_CLIENTS: f64 = 1000.0;
    let figures = vec![
        figure(
            "flood: new clients served",
            &["new_clients", "served"],
            "connections",
            Some(Bound::AtLeast(NEW_CLIENTS)),
        ),
        figure("flood: accept, p50", &["accept", "p50_us"], "us", None),
        figure("flood: accept, p99", &["accept", "p99_us"], "us", Some(Bound::AtMost(20_000.0))),
        figure("flood: accept, max", &["accept", "max_us"], "us", None),
        figure("flood: ping, p50", &["ping", "p50_us"], "us", None),
        figure("flood: ping, p99", &["ping", "p99_us"], "us", Some(Bound::AtMost(10_000.0))),
        figure("flood: ping, max", &["ping", "max_us"], "us", None),
        figure("flood: publications", &["ops_per_second"], "/s", None),
        figure(
            "flood: turns at their limit",
            &["turns_full", "more"],
            "turns",
            Some(Bound::AtLeast(1.0)),
        ),
    ];
    Solo {
        case: CaseName::Flood,
        listener: Listener::Listen,
        server: ServerSetup::default(),
        load: words(&[
            "flood",
            "--new-clients",
            &NEW_CLIENTS.to_string(),
            "--path",
            "/ws?channel=bench",
            "--seconds",
            &(10.0 * seconds).to_string(),
        ]),
        figures,
    }
}

pub(super) fn figure(
    name: impl Into<String>,
    path: &'static [&'static str],
    unit: &'static str,
    bound: Option<Bound>,
) -> Figure {
    Figure { name: name.into(), path, unit, bound }
}

/// Placeholder for the address of a backend.
pub const BACKEND: &str = "{backend}";

/// Placeholder for `--probe-echo ADDRESS`: the address is known once the server runs.
pub const PROBE_ECHO: &str = "--probe-echo";

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
