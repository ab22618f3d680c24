//! The host: what `fantail doctor` says of it, what `serve` does, and what a service manager is told.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Child, Client, EPOLL, Ended, PATIENCE, run};

/// The judgement of this host in JSON, whatever it is.
#[track_caller]
fn doctor_json(arguments: &[&str]) -> (Value, Option<i32>) {
    let ended = run(&[&["doctor", "--json"], arguments].concat());
    let json = serde_json::from_str(&ended.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {ended:?}")), ended.status.code())
}

#[test]
fn doctor_prints_json_whose_exit_code_tells() {
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
fn doctor_says_whether_a_goal_is_held_at_it_and_one_past_it() {
    // Descriptors are the bottleneck: this test's own memory and files come and go.
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

/// The doctor in a shell that may open `files` files only; its output as JSON if it is.
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
fn the_fix_script_is_a_script_that_raises_what_is_low() {
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
fn doctor_refuses_what_makes_no_sense() {
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

/// Runs the program where its user may have so many processes and threads; root, whom no such limit binds, as a user
/// that has none. `None` where that cannot be done.
fn run_with_threads(threads: u32, arguments: &[&str]) -> Option<(Ended, Duration)> {
    // A copy, because another user may not enter the folder of the build.
    let folder = std::env::temp_dir().join(format!("fantail-threads-{}", std::process::id()));
    let program = folder.join(format!("fantail-{threads}"));
    std::fs::create_dir_all(&folder).unwrap();
    // By another process: a program that a thread of this one writes cannot be run while a fork has the file open.
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
        eprintln!("skipped: no other user can be had here");
        return None;
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Some((Ended { status: output.status, stdout, stderr }, taken))
}

#[test]
fn where_threads_are_too_few_the_end_comes_at_once_and_with_words() {
    for threads in 1..=11 {
        let arguments = ["--listen", "127.0.0.1:0", "--workers", "8", "--shutdown-timeout", "60"];
        let Some((ended, taken)) = run_with_threads(threads, &arguments) else { return };
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let line = ended.stderr.lines().last().unwrap();
        assert!(line.starts_with("fantail: cannot start the thread"), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        assert!(taken < Duration::from_secs(30), "it lingered for {taken:?}");
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

/// A socket as a service manager has it.
fn manager(name: &str) -> (UnixDatagram, std::path::PathBuf) {
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
fn a_service_manager_is_told_of_the_start_once_it_serves_and_of_the_stop() {
    let (socket, path) = manager("notify");
    let mut child = Child::start_with(EPOLL, &["--workers", "2"], &[("NOTIFY_SOCKET", &path)]);
    let ready = notification(&socket);
    let mut lines = ready.lines();
    assert_eq!(lines.next(), Some("READY=1"), "{ready}");
    // The doctor's verdict, with the workers that run.
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
fn a_server_that_was_told_how_many_to_take_says_so() {
    let (socket, path) = manager("asked");
    let arguments = ["--workers", "2", "--connections-max", "10"];
    let child = Child::start_with(EPOLL, &arguments, &[("NOTIFY_SOCKET", &path)]);
    let words = "holds 10 connections with 2 workers; the bottleneck is --connections-max. See";
    assert!(notification(&socket).contains(words));
    drop(child);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_service_manager_that_is_gone_does_not_keep_it_from_serving() {
    let (socket, path) = manager("gone");
    drop(socket);
    let mut child = Child::start_with(EPOLL, &["--workers", "1"], &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(Client::connect(child.edge()).get("/health/live").status, 200);
    child.signal(libc::SIGTERM);
    assert_eq!(child.wait().code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_server_that_does_not_start_tells_nobody_that_it_is_ready() {
    let (socket, path) = manager("unready");
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
