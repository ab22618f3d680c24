//! The host: the report of `fantail doctor`, thread limits, and notifications to a service manager.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Child, Client, EPOLL, Ended, PATIENCE, run};

/// Runs `fantail doctor --json` on this host; returns its report and exit code.
#[track_caller]
fn doctor_json(arguments: &[&str]) -> (Value, Option<i32>) {
    let ended = run(&[&["doctor", "--json"], arguments].concat());
    let json = serde_json::from_str(&ended.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {ended:?}")), ended.status.code())
}

#[test]
fn doctor_prints_json_and_exits_with_1_if_a_fact_is_low() {
    let (json, code) = doctor_json(&[]);
    assert!(json["connections"].as_u64().unwrap() > 0, "{json}");
    assert!(json["workers"].as_u64().unwrap() > 0, "{json}");
    let facts = json["facts"].as_array().unwrap();
    let short = facts.iter().filter(|fact| fact["verdict"] == "low" || fact["verdict"] == "blocks");
    assert_eq!(code, Some(i32::from(short.count() > 0)), "{json}");
    for name in ["open files per worker", "fs.file-max", "memory", "io_uring", "threads", "cores"] {
        assert!(facts.iter().any(|fact| fact["name"] == name), "{name}: {json}");
    }
}

#[test]
fn doctor_accepts_a_goal_equal_to_the_limit_and_rejects_one_more() {
    // Descriptors are the bottleneck here, because free memory and open files vary while tests run.
    let most = |json: &Value| json["connections"].as_u64().unwrap();
    let (json, _) = limited_doctor(1000, &["--workers", "3", "--json"]);
    assert_eq!(json["bottleneck"], "descriptors");
    let most = most(&json);
    for (goal, code) in [(most, 0), (most + 1, 1)] {
        let goal = goal.to_string();
        let arguments = ["--workers", "3", "--json", "--connections", &goal];
        let (json, ended) = limited_doctor(1000, &arguments);
        assert_eq!(ended.status.code(), Some(code), "{json}");
        assert_eq!(json["ok"], code == 0);
    }
    let (json, _) = limited_doctor(1000, &["--workers", "3", "--json", "--connections", "10000"]);
    let better = &json["better_workers"];
    let (workers, held) = (&better["workers"], &better["connections"]);
    assert!(workers.as_u64().unwrap() > 3 && held.as_u64().unwrap() >= 10_000, "{json}");
}

/// Runs the doctor in a shell with an open-file limit of `files`; parses its output as JSON if possible.
#[track_caller]
fn limited_doctor(files: u64, arguments: &[&str]) -> (Value, Ended) {
    let line = format!("ulimit -n {files}; exec \"$0\" doctor \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &line, env!("CARGO_BIN_EXE_fantail")])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let json = serde_json::from_str(&stdout).unwrap_or(Value::Null);
    (json, Ended { status: output.status, stdout, stderr })
}

#[test]
fn doctor_prints_a_table_with_the_verdict_below_it() {
    let (_, ended) = limited_doctor(1000, &["--workers", "1"]);
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("fact ") && lines[0].ends_with(" note"), "{}", ended.stdout);
    assert!(lines[1].starts_with("open files per worker") && lines[1].contains(" low "));
    let verdict = "This host holds 744 connections with 1 worker; the bottleneck is open files";
    assert!(ended.stdout.contains(verdict), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nRemedy: "), "{}", ended.stdout);
}

#[test]
fn the_fix_script_is_valid_shell_that_raises_low_limits() {
    let (_, ended) = limited_doctor(1000, &["--fix-script"]);
    assert!(ended.stdout.contains("\nulimit -n 1048576\n"), "{}", ended.stdout);
    let mut shell = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(ended.stdout.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{}", ended.stdout);
    let commands = ended.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for command in commands {
        let known = command.starts_with("sysctl -w ") || command.starts_with("ulimit -n ");
        assert!(known, "{command}");
    }
}

#[test]
fn doctor_rejects_invalid_arguments() {
    for arguments in [
        &["--workers", "0"][..],
        &["--workers", "129"],
        &["--workers", "many"],
        &["--connections", "0"],
        &["--connections", "-1"],
        &["--connections", "1.5e6"],
        &["--json", "--fix-script"],
        &["--listen", "127.0.0.1:1"],
        &["now"],
    ] {
        let ended = run(&[&["doctor"], arguments].concat());
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.is_empty() && ended.stderr.contains("error"), "{ended:?}");
    }
}

/// Runs the program as a new user that may have at most `threads` processes and threads, because the limit does not
/// apply to root. Returns `None` if the host does not permit that.
fn run_with_threads(threads: u32, arguments: &[&str]) -> Option<(Ended, Duration)> {
    // A copy, because other users may have no access to the build folder.
    let folder = std::env::temp_dir().join(format!("fantail-threads-{}", std::process::id()));
    let program = folder.join(format!("fantail-{threads}"));
    std::fs::create_dir_all(&folder).unwrap();
    // Copied by another process: a program written by this one cannot be executed while a forked child holds the file
    // open.
    let copied = Command::new("cp")
        .args([env!("CARGO_BIN_EXE_fantail").as_ref(), program.as_path()])
        .status();
    assert!(copied.unwrap().success());
    let user = (60_000 + std::process::id() % 5000).to_string();
    let line = format!("ulimit -u {threads} && exec \"$0\" \"$@\"");
    let began = Instant::now();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "bash", "-c", &line])
        .arg(&program)
        .args(arguments)
        .output();
    let taken = began.elapsed();
    std::fs::remove_dir_all(&folder).unwrap();
    let output = output.ok().filter(|output| {
        let words = String::from_utf8_lossy(&output.stderr).to_string();
        !words.contains("setpriv: ") && !words.contains("ulimit: ")
    });
    let Some(output) = output else {
        eprintln!("skipped: this host does not permit switching users");
        return None;
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Some((Ended { status: output.status, stdout, stderr }, taken))
}

#[test]
fn a_thread_limit_that_is_too_low_fails_the_start_at_once_with_a_message() {
    for threads in 1..=11 {
        let arguments = ["--listen", "127.0.0.1:0", "--workers", "8", "--shutdown-timeout", "60"];
        let Some((ended, taken)) = run_with_threads(threads, &arguments) else { return };
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let line = ended.stderr.lines().last().unwrap();
        assert!(line.starts_with("fantail: cannot start the thread"), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        assert!(taken < Duration::from_secs(30), "exit took {taken:?}");
    }
    for (threads, is_enough) in [(12, true), (11, false), (1, false)] {
        let (ended, _) =
            run_with_threads(threads, &["doctor", "--workers", "8", "--json"]).unwrap();
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        let facts = json["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["name"] == "threads").unwrap();
        assert_eq!(fact["verdict"] == "ok", is_enough, "{threads}: {json}");
        assert_eq!(json["bottleneck"] == "threads", !is_enough, "{threads}: {json}");
    }
}

/// Binds the notification socket of a service manager.
fn service_manager(name: &str) -> (UnixDatagram, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("fantail-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

#[track_caller]
fn notification(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = socket.recv(&mut buffer).expect("a notification");
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[test]
fn a_service_manager_is_notified_when_the_server_is_ready_and_when_it_stops() {
    let (socket, path) = service_manager("notify");
    let mut child = Child::start_with(EPOLL, &["--workers", "2"], &[("NOTIFY_SOCKET", &path)]);
    let ready = notification(&socket);
    let mut lines = ready.lines();
    assert_eq!(lines.next(), Some("READY=1"), "{ready}");
    // The doctor's verdict for the number of running workers.
    let status = lines.next().unwrap();
    let (json, _) = doctor_json(&["--workers", "2"]);
    assert!(status.starts_with("STATUS=This host holds ") && status.contains(" 2 workers; "));
    if json["bottleneck"] == "descriptors" {
        let better = format!("--workers {} holds", json["better_workers"]["workers"]);
        assert!(json["better_workers"].is_null() || status.contains(&better), "{status} {json}");
    }
    assert_eq!(Client::connect(child.edge()).get("/health/live").status, 200);
    child.signal(libc::SIGTERM);
    assert_eq!(notification(&socket).lines().next(), Some("STOPPING=1"));
    assert_eq!(child.wait().code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_status_names_connections_max_if_it_is_the_bottleneck() {
    let (socket, path) = service_manager("asked");
    let arguments = ["--workers", "2", "--connections-max", "10"];
    let child = Child::start_with(EPOLL, &arguments, &[("NOTIFY_SOCKET", &path)]);
    let words = "holds 10 connections with 2 workers; the bottleneck is --connections-max. See";
    assert!(notification(&socket).contains(words));
    drop(child);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_server_starts_although_the_service_manager_is_gone() {
    let (socket, path) = service_manager("gone");
    drop(socket);
    let mut child = Child::start_with(EPOLL, &["--workers", "1"], &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(Client::connect(child.edge()).get("/health/live").status, 200);
    child.signal(libc::SIGTERM);
    assert_eq!(child.wait().code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_server_that_fails_to_start_sends_no_ready_notification() {
    let (socket, path) = service_manager("unready");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let status = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(["--listen", &address])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
    std::fs::remove_file(path).unwrap();
}
