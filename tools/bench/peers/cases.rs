//! The cases that all servers run.

use clap::ValueEnum;
use serde_json::Value;

/// Groups of measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaseName {
    Echo,
    /// Fan-out to 1,000 subscribers
    Fanout,
    /// Fan-out to 10,000 subscribers
    WideFanout,
    Memory,
    Accept,
    /// The command protocol, in JSON, to a server that speaks it too
    Commands,
    All,
}

/// A load, the same for all servers.
pub struct Case {
    pub group: CaseName,
    pub title: &'static str,
    pub mode: Mode,
    pub load: Vec<String>,
}

/// How a server handles a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Send it back.
    Echo,
    /// Send it to all connections.
    Fanout,
    /// Do what the commands say.
    Commands,
}

/// The figure that is compared.
pub struct Cost {
    pub value: f64,
    pub is_memory: bool,
}

impl Cost {
    /// Returns `None` if the report has neither.
    pub fn of(report: &Value) -> Option<Self> {
        let server = &report["server"];
        let memory = server["rss_bytes_per_connection"].as_f64();
        let value = memory.or(server["cpu_ns_per_op"].as_f64())?;
        Some(Self { value, is_memory: memory.is_some() })
    }
}

pub fn all(seconds: f64) -> Vec<Case> {
    let seconds = &seconds.to_string();
    let case = |group, title, mode, words: &[&str]| {
        let words = words.iter().map(|&word| word.to_owned());
        let path = match mode {
            Mode::Echo => "/",
            Mode::Fanout => "/ws?channel=bench",
            Mode::Commands => "/connection/websocket",
        };
        let load = words.chain(["--path".to_owned(), path.to_owned()]).collect();
        Case { group, title, mode, load }
    };
    let echo = |title, depth| {
        let words = ["echo", "--connections", "100", "--size", "20", "--depth", depth];
        let timing = ["--warm-up", WARM_UP, "--seconds", seconds];
        case(CaseName::Echo, title, Mode::Echo, &[&words[..], &timing].concat())
    };
    let fanout = |group, title, subscribers, outstanding| {
        let words = ["fanout", "--size", "64", "--subscribers", subscribers];
        let timing = ["--outstanding", outstanding, "--warm-up", WARM_UP, "--seconds", seconds];
        case(group, title, Mode::Fanout, &[&words[..], &timing].concat())
    };
    let commands = |title, words: &[&str]| case(CaseName::Commands, title, Mode::Commands, words);
    let delivered = |title, subscribers, outstanding| {
        let words = ["fanout", "--size", "64", "--subscribers", subscribers];
        let ask = ["--protocol", "commands", "--channel", "bench"];
        let timing = ["--outstanding", outstanding, "--warm-up", WARM_UP, "--seconds", seconds];
        commands(title, &[&words[..], &ask, &timing].concat())
    };
    let cycle = ["cycle", "--channel", "bench", "--warm-up", WARM_UP, "--seconds", seconds];
    let (narrow, wide) = (CaseName::Fanout, CaseName::WideFanout);
    let idle = ["idle", "--connections", "15000"];
    let accept = ["accept", "--connections", "5000"];
    vec![
        echo("echo, depth 1", "1"),
        echo("echo, depth 16", "16"),
        fanout(narrow, "delivery to 1,000", "1000", "1"),
        fanout(narrow, "delivery to 1,000, 8 outstanding", "1000", "8"),
        fanout(wide, "delivery to 10,000", "10000", "1"),
        fanout(wide, "delivery to 10,000, 8 outstanding", "10000", "8"),
        case(CaseName::Memory, "RSS per idle connection", Mode::Fanout, &idle),
        case(CaseName::Accept, "accept", Mode::Fanout, &accept),
        delivered("commands: delivery to 1,000", "1000", "1"),
        delivered("commands: delivery to 1,000, 8 outstanding", "1000", "8"),
        delivered("commands: delivery to 10,000", "10000", "1"),
        delivered("commands: delivery to 10,000, 8 outstanding", "10000", "8"),
        commands(
            "commands: RSS per idle subscribed client",
            &["idle", "--connections", "15000", "--protocol", "commands"],
        ),
        commands("commands: connect, subscribe, close", &cycle),
    ]
}

/// Warm-up in seconds, long enough for a just-in-time compiler.
const WARM_UP: &str = "1";
