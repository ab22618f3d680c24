//! One turn: starts a server, runs a load, returns its report.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::cases::{self, BACKEND, CaseName, Comparison, Listener, PROBE_ECHO, Solo};
use crate::process::{Server, free_address, free_addresses};

/// Programs and cores of all turns.
pub struct Setup {
    pub fantail: PathBuf,
    pub before: Option<PathBuf>,
    pub bench: PathBuf,
    /// Whether the bare loop is measured instead of fantail.
    pub control: bool,
    pub server_core: usize,
    pub load_core: usize,
    pub spin: bool,
}

/// The reports of a pair of turns.
pub struct Pair {
    pub fantail: Value,
    pub bare: Value,
    /// Report of an earlier build.
    pub before: Option<Value>,
    /// Ping latency during a fan-out, of fantail and of the earlier build, in separate turns.
    pub pings: Option<[Value; 2]>,
}

/// A running server and the addresses of its listeners.
pub struct RunningServer {
    pub server: Server,
    pub listen: SocketAddr,
    pub tcp: SocketAddr,
    pub echo: SocketAddr,
}

impl Setup {
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
            let fantail = self.load_listener(&comparison.load, &under_test, comparison.listener)?;
            drop(under_test);
            let bare = self.start_bare(driver, comparison.bare_mode)?;
            let bare = self.load_listener(&comparison.load, &bare, comparison.listener)?;
            let before = self.before.as_ref().map(|before| {
                self.load_program(before, driver, &comparison.load, comparison.listener)
            });
            let before = before.transpose()?;
            let pings = self.before.as_ref().filter(|_| comparison.case == CaseName::Fanout);
            let pings = pings.map(|before| {
                let load = [&comparison.load[..], &["--probe-ping".to_owned()]].concat();
                io::Result::Ok([
                    self.load_program(&self.fantail, driver, &load, comparison.listener)?,
                    self.load_program(before, driver, &load, comparison.listener)?,
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
            let backend = free_address()?.to_string();
            let server = self.start_fantail_with(&self.fantail, driver, &solo.server, &backend)?;
            let mut load: Vec<_> =
                solo.load.iter().map(|word| word.replace(BACKEND, &backend)).collect();
            if load.last().is_some_and(|word| word == PROBE_ECHO) {
                load.push(server.echo.to_string());
            }
            self.load_listener(&load, &server, solo.listener)
        };
        (0..turns).map(turn).collect()
    }

    pub fn start_fantail(&self, program: &Path, driver: &str) -> io::Result<RunningServer> {
        self.start_fantail_with(program, driver, &cases::ServerSetup::default(), "")
    }

    fn start_fantail_with(
        &self,
        program: &Path,
        driver: &str,
        setup: &cases::ServerSetup,
        backend: &str,
    ) -> io::Result<RunningServer> {
        let [listen, tcp, echo] = free_addresses()?;
        let workers = setup.workers.unwrap_or(1).to_string();
        // Warnings only: starts and stops are expected.
        let words = ["serve", "--workers", &workers, "--driver", driver, "--log-level", "warn"];
        let mut words = words.map(str::to_owned).to_vec();
        if let Some(settings) = &setup.settings {
            let name = format!("fantail-bench-{}.toml", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, settings.replace(BACKEND, backend))?;
            words.extend(["--config".to_owned(), path.display().to_string()]);
        }
        let server = [("--listen", listen), ("--tcp", tcp), ("--echo", echo)];
        let server = server.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
        let arguments = [words, server.concat()].concat();
        let cores = self.server_core.to_string();
        let server = Server::start(program, &arguments, Some(&cores), listen)?;
        if setup.is_prioritized {
            server.prioritize(self.load_core)?;
        }
        Ok(RunningServer { server, listen, tcp, echo })
    }

    fn start_bare(&self, driver: &str, mode: &str) -> io::Result<RunningServer> {
        let listen = free_address()?;
        let address = listen.to_string();
        let words = ["bare", "--driver", driver, "--mode", mode, "--listen", &address];
        let cores = self.server_core.to_string();
        let server = Server::start(&self.bench, &words.map(str::to_owned), Some(&cores), listen)?;
        Ok(RunningServer { server, listen, tcp: listen, echo: listen })
    }

    fn load_program(
        &self,
        program: &Path,
        driver: &str,
        words: &[String],
        listener: Listener,
    ) -> io::Result<Value> {
        self.load_listener(words, &self.start_fantail(program, driver)?, listener)
    }

    fn load_listener(
        &self,
        words: &[String],
        server: &RunningServer,
        listener: Listener,
    ) -> io::Result<Value> {
        let address = match listener {
            Listener::Listen => server.listen,
            Listener::Tcp => server.tcp,
            Listener::Echo => server.echo,
        };
        self.load(words, address, server.server.pid())
    }

    /// Runs a load against the server at `address` with process id `pid`; returns its report.
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
