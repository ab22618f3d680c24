//! The load generator `c1m`: it works against fantail, counts the faults of a faulty server exactly, and ends in bounded
//! time with the cause if the server is unreachable or dies.
//!
//! | module | about |
//! |---|---|
//! | `modes` | every mode against fantail at 10,000 connections, on both drivers |
//! | `accounting` | a server that drops, repeats and reorders messages on purpose |
//! | `bad_input` | servers that are unreachable, wrong or die midway; limits that are too low |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounting;
mod bad_input;
mod modes;

#[expect(dead_code, unused_imports, reason = "the behaviour tests use the rest")]
#[path = "../support/mod.rs"]
mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The result of a run.
#[derive(Debug)]
struct Run {
    success: bool,
    /// The report; null if the run did not start.
    report: Value,
    stderr: String,
}

impl Run {
    /// Reads a number of the report.
    #[track_caller]
    fn number(&self, pointer: &str) -> u64 {
        let value = self.report.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {self:#?}"))
    }

    /// Asserts success, with this many connections open at the end.
    #[track_caller]
    fn expect_success(&self, connections: u64) {
        assert!(self.success, "{self:#?}");
        assert_eq!(self.report["ok"], true);
        assert_eq!(self.number("/connections/open_at_end"), connections);
        assert_eq!(self.number("/connections/lost"), 0);
    }

    /// Asserts failure, with the cause in the last line.
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

/// Waits for the end of c1m and reads its report.
#[track_caller]
fn finish(mut child: Child) -> Run {
    // Read all output first, so that the process cannot block on a full pipe.
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
    assert!(began.elapsed() < RUN_TIME_MAX, "it took {:?}: {stderr}", began.elapsed());
    let report =
        if stdout.is_empty() { Value::Null } else { serde_json::from_str(&stdout).unwrap() };
    Run { success, report, stderr }
}

/// Starts c1m with a JSON report.
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

/// Maximum time of a run, on a busy host too.
const RUN_TIME_MAX: Duration = Duration::from_secs(60);
