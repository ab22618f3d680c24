//! What is measured, and what it must show.

use clap::ValueEnum;

/// A group of measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaseName {
    Echo,
    Fanout,
    Accept,
    Memory,
    Yield,
    Flood,
    All,
}

/// The same load on fantail and on the bare loop.
pub struct Comparison {
    pub case: CaseName,
    pub name: &'static str,
    pub door: Door,
    /// The bare loop's `--mode`.
    pub bare_mode: &'static str,
    pub load: Vec<String>,
    /// Fantail's CPU per operation over the bare loop's; `None` where only another bound is set.
    pub ratio_max: Option<f64>,
    /// A bound on fantail's CPU per operation over that of an earlier comparison.
    pub over_earlier: Option<(&'static str, f64)>,
}

/// A load on fantail alone.
pub struct Solo {
    pub case: CaseName,
    pub door: Door,
    pub load: Vec<String>,
    pub figures: Vec<Figure>,
}

/// One number of a load's report.
pub struct Figure {
    pub name: &'static str,
    /// Where the report has it: a path of keys.
    pub path: &'static [&'static str],
    pub unit: &'static str,
    pub bound: Option<Bound>,
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Bound {
    /// By the median of the turns.
    AtMost(f64),
    /// In every turn.
    AtLeast(f64),
}

/// Which of the server's listeners the load goes to.
#[derive(Clone, Copy)]
pub enum Door {
    /// HTTP and WebSocket
    Listen,
    Tcp,
    Echo,
}

pub fn comparisons(seconds: f64) -> Vec<Comparison> {
    let echo = |name, depth: &str, idle: &str, over_earlier| Comparison {
        case: CaseName::Echo,
        name,
        door: Door::Echo,
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
        door: Door::Listen,
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
            door: Door::Listen,
            bare_mode: "accept",
            load: words(&["accept", "--connections", "10000", "--path", "/ws?channel=bench"]),
            ratio_max: Some(1.25),
            over_earlier: None,
        },
        Comparison {
            case: CaseName::Accept,
            name: "connect, subscribe, close, 64 in flight",
            door: Door::Listen,
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

/// A case that is held to an earlier one is not held to the bare loop too.
fn over_earlier_or(over_earlier: Option<(&str, f64)>, ratio_max: f64) -> Option<f64> {
    over_earlier.is_none().then_some(ratio_max)
}

pub fn solos(seconds: f64) -> Vec<Solo> {
    let memory = |door, protocol, figures| Solo {
        case: CaseName::Memory,
        door,
        load: words(&[
            "idle",
            "--connections",
            "15000",
            "--path",
            "/ws?channel=bench",
            "--protocol",
            protocol,
        ]),
        figures,
    };
    let yielding = |probe, figures| Solo {
        case: CaseName::Yield,
        door: Door::Listen,
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
    let rss = |name| {
        let bound = Some(Bound::AtMost(160.0));
        figure(name, &["server", "rss_bytes_per_connection"], "bytes", bound)
    };
    // Of both ends: client and server share this kernel.
    let slab = |name| figure(name, &["kernel_slab_bytes_per_pair"], "bytes", None);
    let p50 = |name| figure(name, &["probe", "p50_us"], "us", None);
    let p99 = |name| figure(name, &["probe", "p99_us"], "us", Some(Bound::AtMost(5000.0)));
    let max = |name| figure(name, &["probe", "max_us"], "us", None);
    vec![
        memory(
            Door::Listen,
            "websocket",
            vec![rss("RSS per idle WebSocket"), slab("kernel slab per WebSocket, both ends")],
        ),
        memory(
            Door::Tcp,
            "tcp",
            vec![rss("RSS per idle raw TCP"), slab("kernel slab per raw TCP, both ends")],
        ),
        yielding("--probe-ping", vec![p50("ping, p50"), p99("ping, p99"), max("ping, max")]),
        yielding(PROBE_ECHO, vec![p50("echo, p50"), p99("echo, p99"), max("echo, max")]),
        flood(seconds),
    ]
}

/// Ten times as long as other loads: newcomers come one after another, and 99 % of them are not few.
fn flood(seconds: f64) -> Solo {
    const NEWCOMERS: f64 = 1000.0;
    let figures = vec![
        figure(
            "flood: newcomers served",
            &["newcomers", "served"],
            "connections",
            Some(Bound::AtLeast(NEWCOMERS)),
        ),
        figure("flood: accept, p50", &["accept", "p50_us"], "us", None),
        figure("flood: accept, p99", &["accept", "p99_us"], "us", Some(Bound::AtMost(20_000.0))),
        figure("flood: accept, max", &["accept", "max_us"], "us", None),
        figure("flood: ping, p50", &["ping", "p50_us"], "us", None),
        figure("flood: ping, p99", &["ping", "p99_us"], "us", Some(Bound::AtMost(10_000.0))),
        figure("flood: ping, max", &["ping", "max_us"], "us", None),
        figure("flood: publications", &["ops_per_second"], "/s", None),
        figure(
            "flood: turns that took all they may",
            &["turns_full", "more"],
            "turns",
            Some(Bound::AtLeast(1.0)),
        ),
    ];
    Solo {
        case: CaseName::Flood,
        door: Door::Listen,
        load: words(&[
            "flood",
            "--newcomers",
            &NEWCOMERS.to_string(),
            "--path",
            "/ws?channel=bench",
            "--seconds",
            &(10.0 * seconds).to_string(),
        ]),
        figures,
    }
}

fn figure(
    name: &'static str,
    path: &'static [&'static str],
    unit: &'static str,
    bound: Option<Bound>,
) -> Figure {
    Figure { name, path, unit, bound }
}

/// Stands for `--probe-echo ADDRESS`: the address is known when the server runs.
pub const PROBE_ECHO: &str = "--probe-echo";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
