//! Fantail beside other servers: the same load, in turns, on one core; the load on another.
//!
//! A round is one turn of fantail, then one of each peer; ratios are taken within a round. A peer is a folder with a
//! program `start` that serves: `start echo|fanout PORT`. `tools/bench/peers/install` makes them; a peer that is not
//! there is skipped, and said.

mod cases;
mod plot;
mod report;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use self::cases::{Case, CaseName, Mode};
use self::report::{FANTAIL, Outcome, Report};
use crate::process::{Server, free_address, sibling};
use crate::run::turn::Stage;
use fantail::driver::raise_limit;

/// Compare fantail with other servers, in alternating turns.
#[derive(Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    cases: Vec<CaseName>,
    /// Beside whom; by default all that are installed
    #[arg(long = "peer", value_parser = PEERS.map(|peer| peer.name))]
    peers: Vec<String>,
    /// Rounds; each gives every server one turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of the interval that counts in each turn
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Fantail's driver
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Fantail's program; by default `fantail` beside this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Where the peers are; by default `peers` in the build's target folder
    #[arg(long)]
    installed: Option<PathBuf>,
    /// The servers' core
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The load's core
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Measure nothing: take what earlier runs wrote with `--json` (may be given several times)
    #[arg(long)]
    from: Vec<PathBuf>,
    /// Where to write the tables; they go to standard output too
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Where to write the ratios as an SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Where to write every turn's figures
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A server that is not ours.
#[derive(Clone, Copy)]
struct Peer {
    /// Of its folder, and in tables.
    name: &'static str,
    echoes: bool,
    /// What is started only watches the process that serves.
    serves_in_child: bool,
}

const PEERS: [Peer; 6] = [
    Peer::new("tungstenite"),
    Peer::new("fastwebsockets"),
    Peer::new("bun"),
    Peer::new("node-ws"),
    Peer { echoes: false, serves_in_child: true, ..Peer::new("nchan") },
    Peer::new("python-websockets"),
];

impl Peer {
    const fn new(name: &'static str) -> Self {
        Self { name, echoes: true, serves_in_child: false }
    }
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let report =
        if arguments.from.is_empty() { measure(arguments)? } else { gather(&arguments.from)? };
    let markdown = report.to_markdown();
    print!("{markdown}");
    if let Some(path) = &arguments.json {
        fs::write(path, report.to_json().to_string())?;
    }
    if let Some(path) = &arguments.markdown {
        fs::write(path, markdown)?;
    }
    if let Some(path) = &arguments.plot {
        fs::write(path, plot::draw(&report)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(files: &[PathBuf]) -> io::Result<Report> {
    let mut report = Report::default();
    for path in files {
        let named = |error: &dyn Display| io::Error::other(format!("{}: {error}", path.display()));
        let bytes = fs::read(path).map_err(|error| named(&error))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| named(&error))?;
        report.add_json(&value).ok_or_else(|| named(&"not written by peers --json"))?;
    }
    Ok(report)
}

fn measure(arguments: &Arguments) -> io::Result<Report> {
    raise_limit()?;
    let stage = Stage {
        fantail: arguments.server.clone().map_or_else(|| sibling("fantail"), Ok)?,
        before: None,
        bench: std::env::current_exe()?,
        control: false,
        server_core: arguments.server_core,
        load_core: arguments.load_core,
        spin: false,
    };
    let folder = match &arguments.installed {
        Some(folder) => folder.clone(),
        // target/release/bench → target/peers
        None => sibling("..")?.join("peers"),
    };
    let mut report = Report::of_this_host();
    let peers = installed(arguments, &folder, &mut report);
    let wanted = |group| arguments.cases.iter().any(|&case| case == group || case == CaseName::All);
    for case in cases::all(arguments.seconds).into_iter().filter(|case| wanted(case.group)) {
        for round in 0..usize::from(arguments.rounds) {
            let fantail = turn_of_fantail(&stage, &case, &arguments.driver)?;
            report.add(&case, FANTAIL, round, Outcome::Measured(fantail));
            for peer in &peers {
                report.add(&case, peer.name, round, turn_of_peer(&stage, &case, peer, &folder));
            }
        }
    }
    Ok(report)
}

/// The peers that can take part; the report notes who they are and who is missing.
fn installed(arguments: &Arguments, folder: &Path, report: &mut Report) -> Vec<Peer> {
    report.note_server(FANTAIL, env!("CARGO_PKG_VERSION"));
    let wanted =
        |name| arguments.peers.is_empty() || arguments.peers.iter().any(|peer| peer == name);
    let mut peers = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| wanted(peer.name)) {
        let home = folder.join(peer.name);
        if home.join("start").is_file() {
            let version = fs::read_to_string(home.join("version")).unwrap_or_default();
            report.note_server(peer.name, version.trim());
            peers.push(peer);
        } else {
            eprintln!(
                "skipped {}: not installed (tools/bench/peers/install {})",
                peer.name, peer.name
            );
            report.note_skipped(peer.name);
        }
    }
    peers
}

fn turn_of_fantail(stage: &Stage, case: &Case, driver: &str) -> io::Result<Value> {
    let doors = stage.start_fantail(&stage.fantail, driver)?;
    let address = match case.mode {
        Mode::Echo => doors.echo,
        Mode::Fanout => doors.listen,
    };
    stage.load(&case.load, address, doors.server.pid())
}

/// What a peer cannot do is a result too.
fn turn_of_peer(stage: &Stage, case: &Case, peer: &Peer, folder: &Path) -> Outcome {
    let mode = match case.mode {
        Mode::Echo if !peer.echoes => return Outcome::Failed("does not echo".to_owned()),
        Mode::Echo => "echo",
        Mode::Fanout => "fanout",
    };
    let turn = || {
        let address = free_address()?;
        let start = folder.join(peer.name).join("start");
        let words = [mode.to_owned(), address.port().to_string()];
        let core = stage.server_core.to_string();
        let server = Server::start(&start, &words, Some(&core), address)?;
        let pid = if peer.serves_in_child { server.worker_pid()? } else { server.pid() };
        stage.load(&case.load, address, pid)
    };
    turn().map_or_else(|error| Outcome::Failed(error.to_string()), Outcome::Measured)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let fits = seconds > 0.0 && seconds <= SECONDS_MAX;
    if fits {
        Ok(seconds)
    } else {
        Err(format!("it must be more than 0, and at most {SECONDS_MAX}"))
    }
}

const SECONDS_MAX: f64 = 3600.0;
