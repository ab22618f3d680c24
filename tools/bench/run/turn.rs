//! One turn: a server, a load, a report.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::cases::{CaseName, Comparison, Door, PROBE_ECHO, Solo};
use crate::process::{Server, free_address};

/// What all turns share.
pub struct Stage {
    pub fantail: PathBuf,
    pub before: Option<PathBuf>,
    pub bench: PathBuf,
    /// The bare loop takes fantail's place.
    pub control: bool,
    pub server_core: usize,
    pub load_core: usize,
    pub spin: bool,
}

/// The reports of neighbouring turns.
pub struct Pair {
    pub fantail: Value,
    pub bare: Value,
    /// An earlier build's.
    pub before: Option<Value>,
    /// Pings beside a fan-out, of fantail and of the earlier build, in turns of their own.
    pub pings: Option<[Value; 2]>,
}

/// A running server and its listeners.
pub struct Doors {
    pub server: Server,
    pub listen: SocketAddr,
    pub tcp: SocketAddr,
    pub echo: SocketAddr,
}

impl Stage {
    pub fn compare(
        &self,
        comparison: &Comparison,
        driver: &str,
        pairs: usize,
    ) -> io::Result<Vec<Pair>> {
        let mut done = Vec::new();
        for number in 1..=pairs {
            let under_test = if self.control {
                self.start_bare(driver, comparison.bare_mode)?
            } else {
                self.start_fantail(&self.fantail, driver)?
            };
            let fantail = self.load_door(&comparison.load, &under_test, comparison.door)?;
            drop(under_test);
            let bare = self.start_bare(driver, comparison.bare_mode)?;
            let bare = self.load_door(&comparison.load, &bare, comparison.door)?;
            let before = self
                .before
                .as_ref()
                .map(|before| self.load_program(before, driver, &comparison.load, comparison.door));
            let before = before.transpose()?;
            let pings = self.before.as_ref().filter(|_| comparison.case == CaseName::Fanout);
            let pings = pings.map(|before| {
                let load = [&comparison.load[..], &["--probe-ping".to_owned()]].concat();
                io::Result::Ok([
                    self.load_program(&self.fantail, driver, &load, comparison.door)?,
                    self.load_program(before, driver, &load, comparison.door)?,
                ])
            });
            let pings = pings.transpose()?;
            let cost = |report: &Value| report["server"]["cpu_ns_per_op"].as_f64().unwrap_or(0.0);
            let said = before.as_ref().map(|before| format!(", before {:.0} ns", cost(before)));
            eprintln!(
                "{driver} {} pair {number}: {:.0} ns, bare {:.0} ns{}",
                comparison.name,
                cost(&fantail),
                cost(&bare),
                said.unwrap_or_default(),
            );
            done.push(Pair { fantail, bare, before, pings });
        }
        Ok(done)
    }

    pub fn repeat(&self, solo: &Solo, driver: &str, turns: usize) -> io::Result<Vec<Value>> {
        let turn = |_| {
            let server = self.start_fantail(&self.fantail, driver)?;
            let mut load = solo.load.clone();
            if load.last().is_some_and(|word| word == PROBE_ECHO) {
                load.push(server.echo.to_string());
            }
            self.load_door(&load, &server, solo.door)
        };
        (0..turns).map(turn).collect()
    }

    pub fn start_fantail(&self, program: &Path, driver: &str) -> io::Result<Doors> {
        let (listen, tcp, echo) = (free_address()?, free_address()?, free_address()?);
        // Of the log, what is worth an operator's look: starts and stops are our own.
        let words = ["serve", "--workers", "1", "--driver", driver, "--log-level", "warn"];
        let words = words.map(str::to_owned);
        let doors = [("--listen", listen), ("--tcp", tcp), ("--echo", echo)];
        let doors = doors.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
        let arguments = [words.to_vec(), doors.concat()].concat();
        let cores = self.server_core.to_string();
        let server = Server::start(program, &arguments, Some(&cores), listen)?;
        Ok(Doors { server, listen, tcp, echo })
    }

    fn start_bare(&self, driver: &str, mode: &str) -> io::Result<Doors> {
        let listen = free_address()?;
        let address = listen.to_string();
        let words = ["bare", "--driver", driver, "--mode", mode, "--listen", &address];
        let cores = self.server_core.to_string();
        let server = Server::start(&self.bench, &words.map(str::to_owned), Some(&cores), listen)?;
        Ok(Doors { server, listen, tcp: listen, echo: listen })
    }

    fn load_program(
        &self,
        program: &Path,
        driver: &str,
        words: &[String],
        door: Door,
    ) -> io::Result<Value> {
        self.load_door(words, &self.start_fantail(program, driver)?, door)
    }

    fn load_door(&self, words: &[String], doors: &Doors, door: Door) -> io::Result<Value> {
        let address = match door {
            Door::Listen => doors.listen,
            Door::Tcp => doors.tcp,
            Door::Echo => doors.echo,
        };
        self.load(words, address, doors.server.pid())
    }

    /// Puts a load on the server at `address`, whose CPU time is that of process `pid`; gives back its report.
    pub fn load(&self, words: &[String], address: SocketAddr, pid: u32) -> io::Result<Value> {
        let output = Command::new(&self.bench)
            .arg("load")
            .args(words)
            .args(["--address", &address.to_string()])
            .args(["--server-pid", &pid.to_string()])
            .args(["--server-core", &self.server_core.to_string()])
            .args(["--core", &self.load_core.to_string()])
            .args(self.spin.then_some("--spin"))
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().trim_start_matches("bench: ");
            return Err(io::Error::other(format!("load {}: {said}", words.join(" "))));
        }
        serde_json::from_slice(&output.stdout).map_err(io::Error::other)
    }
}
