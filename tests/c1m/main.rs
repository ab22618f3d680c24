//! The instrument `c1m`: that it works against fantail, that it counts exactly what a faulty server does, and that it
//! ends in bounded time with the cause when there is nobody to work with.
//!
//! | module | about |
//! |---|---|
//! | `modes` | every mode against fantail at 10,000 connections, on both drivers |
//! | `accounting` | a server that drops, repeats and reorders on purpose |
//! | `bad_input` | unreachable, wrong, too little of something, dead midway |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounting;
mod bad_input;
mod modes;

#[expect(dead_code, unused_imports, reason = "what the behaviour tests need beside")]
#[path = "../support/mod.rs"]
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a run ended.
#[derive(Debug)]
struct Run {
    success: bool,
    /// Its report; null if it never began.
    report: Value,
    stderr: String,
}

impl Run {
    /// A number of the report.
    #[track_caller]
    fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {self:#?}"))
    }

    /// It was a success, and this many were served and are still there.
    #[track_caller]
    fn expect_success(&self, connections: u64) {
        assert!(self.success, "{self:#?}");
        assert_eq!(self.report["ok"], true);
        assert_eq!(self.number("/connections/open_at_end"), connections);
        assert_eq!(self.number("/connections/lost"), 0);
    }

    /// It was none, and the last line says why.
    #[track_caller]
    fn expect_failure(&self, cause: &str) {
        assert!(!self.success, "{self:#?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("c1m: ") && line.contains(cause), "{cause} is not in: {self:#?}");
        if !self.report.is_null() {
            assert_eq!(self.report["ok"], false);
            assert!(self.report["ended"].as_str().unwrap().contains(cause));
        }
    }
}

/// Runs a program that is c1m, or becomes it, to its end.
#[track_caller]
fn finish(mut child: Child) -> Run {
    // Its output is read to the end first: what it waits for then is only us.
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        pipe.unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let began = Instant::now();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let stdout = read(Some(&mut out));
    let stderr = errors.join().unwrap();
    let success = child.wait().unwrap().success();
    assert!(began.elapsed() < BOUND, "it took {:?}: {stderr}", began.elapsed());
    let report =
        if stdout.is_empty() { Value::Null } else { serde_json::from_str(&stdout).unwrap() };
    Run { success, report, stderr }
}

/// Starts c1m.
#[track_caller]
fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m"));
    command.args(arguments).arg("--json");
    piped(&mut command)
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs c1m in a mode against a WebSocket address.
#[track_caller]
fn c1m(mode: &str, target: SocketAddr, arguments: &[&str]) -> Run {
    let target = target.to_string();
    finish(start(&[&[mode, "--target", &target], arguments].concat()))
}

/// Nothing that is tested here may take longer, whatever else this host does.
const BOUND: Duration = Duration::from_secs(60);
