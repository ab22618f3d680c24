//! The program in a process of its own, to test signals, limits and exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fantail::config::DriverChoice;

use super::PATIENCE;

/// A running `fantail`, killed on drop.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    /// Addresses that it serves, in the order of its output.
    pub addresses: Vec<SocketAddr>,
    /// The lines of its start message.
    pub output: Vec<String>,
    /// The lines of its log.
    log: Receiver<String>,
    seen: Vec<String>,
}

/// A file of settings, removed on drop.
#[derive(Debug)]
pub struct TempFile(PathBuf);

/// The exit of a program.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl TempFile {
    pub fn new(name: &str, text: &str) -> Self {
        let name = format!("fantail-{}-{name}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.0);
    }
}

/// The name of a driver on the command line.
fn name(driver: DriverChoice) -> &'static str {
    match driver {
        DriverChoice::Auto => "auto",
        DriverChoice::IoUring => "io_uring",
        DriverChoice::Epoll => "epoll",
    }
}

impl Child {
    /// Starts it with `--listen` and `--tcp` on free ports and with more arguments, and waits until it serves.
    #[track_caller]
    pub fn start(driver: DriverChoice, arguments: &[&str]) -> Self {
        Self::start_with(driver, arguments, &[])
    }

    /// Like `start`, with environment variables.
    #[track_caller]
    pub fn start_with(
        driver: DriverChoice,
        arguments: &[&str],
        environment: &[(&str, &PathBuf)],
    ) -> Self {
        Self::start_logging_to(Stdio::piped(), driver, arguments, environment)
    }

    /// Like `start`, with the log redirected, unless it is [`Stdio::piped`].
    #[track_caller]
    pub fn start_logging_to(
        log: Stdio,
        driver: DriverChoice,
        arguments: &[&str],
        environment: &[(&str, &PathBuf)],
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .args(["--driver", name(driver), "--listen", "127.0.0.1:0", "--tcp", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program is built with the tests");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let (mut addresses, mut output) = (Vec::new(), Vec::new());
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).expect("text") == 0 {
                panic!("it did not start: {:?}", finish(child));
            }
            let word = line.split_whitespace().next().unwrap_or_default();
            if let Some((_, address)) = word.split_once("://") {
                addresses.push(address.parse().expect("an address"));
            }
            if line.starts_with("This host ") {
                break;
            }
            output.push(line.trim_end().to_owned());
        }
        let (sender, log) = channel();
        if let Some(errors) = child.stderr.take() {
            std::thread::spawn(move || {
                // Ends with the program, or with the test.
                let mut lines = BufReader::new(errors).lines().map_while(Result::ok);
                lines.all(|line| sender.send(line).is_ok())
            });
        }
        Self { child, addresses, output, log, seen: Vec::new() }
    }

    /// The next line of its log that contains these words; earlier lines are skipped.
    #[track_caller]
    pub fn log_line(&mut self, words: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(left) else {
                panic!("{words:?} is not in the log");
            };
            self.seen.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// All lines of its log, until it ends.
    pub fn whole_log(mut self) -> Vec<String> {
        self.wait();
        self.seen.extend(self.log.iter());
        std::mem::take(&mut self.seen)
    }

    /// Address for HTTP and WebSocket.
    pub fn edge(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Address of the command protocol.
    pub fn commands(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Its process id.
    pub fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).expect("process ids are small")
    }

    /// Its resident memory: current (`VmRSS`) or peak (`VmHWM`).
    pub fn resident_bytes(&self, which: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(which));
        let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)).expect("a number");
        kibibytes.parse::<u64>().expect("a number") * 1024
    }

    /// CPU time of all its threads; other load on the host does not add to it.
    #[expect(unsafe_code, reason = "the clock of another process has no safe wrapper")]
    pub fn cpu_time(&self) -> Duration {
        let mut clock = 0;
        // SAFETY: the pointer is valid for the call; the child has not been waited for.
        assert_eq!(unsafe { libc::clock_getcpuclockid(self.pid(), &raw mut clock) }, 0);
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is valid for the call.
        assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
        Duration::new(
            time.tv_sec.cast_unsigned(),
            u32::try_from(time.tv_nsec).expect("below a second"),
        )
    }

    /// Sends it a signal.
    #[expect(unsafe_code, reason = "signals have no safe wrapper")]
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes no pointers; the child has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Stops the process until `SIGCONT`.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let path = format!("/proc/{}/stat", self.pid());
        super::wait_until("it stands still", || {
            let stat = fs::read_to_string(&path).expect("it runs");
            stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
        });
    }

    /// Sets its limit on open files.
    #[expect(unsafe_code, reason = "limits of another process have no safe wrapper")]
    pub fn limit_files(&self, files: libc::rlim_t) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both pointers are valid or null for the call; the child has not been waited for.
        let result = unsafe {
            libc::prlimit(self.pid(), libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit)
        };
        assert_eq!(result, 0);
        limit.rlim_cur = files.min(limit.rlim_max);
        // SAFETY: as above.
        let result = unsafe {
            libc::prlimit(self.pid(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(result, 0);
    }

    /// Waits until it exits.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail if it has exited already.
        let ended_by_itself = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.seen.extend(self.log.iter());
            let log = self.seen.join("\n");
            eprintln!("the program ended by itself: {ended_by_itself:?}; its log:\n{log}");
        }
    }
}

/// Runs the program until it exits.
#[track_caller]
pub fn run(arguments: &[&str]) -> Ended {
    run_with(&[], arguments)
}

/// Like `run`, with environment variables.
#[track_caller]
pub fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let child = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built with the tests");
    let until = Instant::now() + PATIENCE;
    let mut child = child;
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it does not end: {:?}", finish(child));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    finish(child)
}

fn finish(mut child: std::process::Child) -> Ended {
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        pipe.map(|pipe| pipe.read_to_string(&mut text));
        text
    };
    let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    Ended { status: child.wait().expect("it is our child"), stdout, stderr }
}
