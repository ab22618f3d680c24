//! Settings from all sources, `fantail check`, reloads and the log.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fantail::config::limits::LOG_LINES_PER_SECOND_MAX;
use fantail::config::{CHANNEL_OPTIONS, SETTINGS, markdown};
use serde_json::Value;

use crate::support::{
    Child, Client, Received, TempFile, WebSocket, on_both_drivers, run, run_with, wait_until,
};

/// The line of a setting in the printed table, with its columns separated by one blank.
fn line_of(stdout: &str, name: &str) -> String {
    let lines = stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.into_iter().find(|words| words.first() == Some(&name));
    line.unwrap_or_else(|| panic!("{name} is not in: {stdout}")).join(" ")
}

#[test]
fn the_settings_reference_is_up_to_date() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (begin, end) =
        ("<!-- settings: printed by `fantail check --markdown` -->\n", "<!-- settings: end -->");
    let list = readme.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0;
    assert_eq!(
        list,
        markdown(),
        "put the output of `fantail check --markdown` into src/config/README.md"
    );
    assert_eq!(run(&["check", "--markdown"]).stdout, markdown());
}

#[test]
fn check_prints_a_note_if_the_server_trusts_local_clients_without_a_key() {
    let note = |arguments: &[&str]| run(arguments).stdout.contains("note: api.key is not set");
    assert!(note(&["check"]));
    assert!(!note(&["check", "--api-key", "secret"]));
    assert!(!note(&["check", "--listen", "0.0.0.0:80", "--insecure"]));
}

#[test]
fn check_prints_every_setting_with_its_value_and_source() {
    let file = TempFile::new(
        "check",
        "workers = 3\ndriver = 'epoll'\n[limits]\nclose_timeout = '1m30s'\n",
    );
    let variables =
        [("FANTAIL_DRIVER", "auto"), ("FANTAIL_CONFIG", file.path()), ("FANTAIL_PORT", "80")];
    let ended = run_with(
        &variables,
        &["check", "--workers", "4", "--tcp", "[::1]:0", "--tcp", "127.0.0.1:0"],
    );
    assert!(ended.status.success(), "{ended:?}");
    for (name, line) in [
        ("workers", "workers 4 flag --workers".to_owned()),
        ("driver", "driver auto env FANTAIL_DRIVER".to_owned()),
        ("limits.close_timeout", format!("limits.close_timeout 90 s file {}:4", file.path())),
        ("limits.keepalive_interval", "limits.keepalive_interval 25 s default".to_owned()),
        ("tcp.listen", "tcp.listen [::1]:0, 127.0.0.1:0 flag --tcp".to_owned()),
        ("warning:", "warning: FANTAIL_PORT is not a setting and has no effect".to_owned()),
    ] {
        assert_eq!(line_of(&ended.stdout, name), line);
    }
    assert_eq!(line_of(&ended.stdout, "history_size"), "history_size 1000");
    // A section of channel options is an empty line, its name, and its options.
    assert_eq!(ended.stdout.lines().count(), SETTINGS.len() + 2 + CHANNEL_OPTIONS.len() + 2);
}

#[test]
fn an_invalid_flag_is_reported_once() {
    for (flag, value, words) in [
        ("--page", "yes", "invalid value 'yes' for '--page <BOOL>': it is not true or false\n"),
        ("--listen", ":80", "invalid value ':80' for '--listen <ADDR>': it has no address: "),
    ] {
        let ended = run(&["serve", flag, value]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}

#[test]
fn check_and_serve_report_the_same_faults() {
    let file = TempFile::new("faults", "workers = 0\nlisten = ['127.0.0.1:0']\nworker = 1\n");
    for command in ["check", "serve"] {
        let ended = run(&[command, "--config", file.path()]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for line in [
            format!("{}:1: workers is 0; it must be from 1 to 128", file.path()),
            format!("{}:3: unknown setting worker, did you mean workers?", file.path()),
        ] {
            assert!(ended.stderr.contains(&line), "{line} is not in: {}", ended.stderr);
        }
        let missing = run(&[command, "--config", "/nowhere/fantail.toml"]);
        assert_eq!(missing.status.code(), Some(1), "{missing:?}");
        assert!(missing.stderr.contains("/nowhere/fantail.toml: "), "{missing:?}");
        let usage = run(&[command, "--worker", "1"]);
        assert_eq!(usage.status.code(), Some(2), "{usage:?}");
        assert!(usage.stderr.contains("'--workers'"), "{usage:?}");
    }
}

/// The status of the response to a publication of 100 bytes.
fn publish(child: &Child) -> u16 {
    let mut client = Client::connect(child.edge());
    client.send(format!(
        "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{}",
        "x".repeat(100)
    ));
    client.read_response().status
}

on_both_drivers! {
    fn a_reload_applies_to_later_decisions(driver) {
        let name = format!("reload-{driver:?}");
        let file = TempFile::new(&name, "[limits]\nkeepalive_interval = '1 d'\nmessage_bytes_max = 100\n");
        let mut child = Child::start(driver, &["--workers", "1", "--config", file.path()]);
        let mut old = WebSocket::connect(child.edge(), "/ws?channel=b");
        assert_eq!(publish(&child), 200);

        file.write("[limits]\nkeepalive_interval = '200 ms'\nkeepalive_timeout = '300 ms'\nmessage_bytes_max = 99\n");
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "limits.message_bytes_max", "100 B", "99 B"]);
        child.log_line(&["a setting changed", "limits.keepalive_interval", "1 d", "200 ms"]);
        wait_until("the new limit holds", || publish(&child) == 413);
        let began = Instant::now();
        let mut silent = WebSocket::connect(child.edge(), "/ws?channel=a");
        assert_eq!(silent.read(), Received::Ping(String::new().into()));
        silent.expect_close(1011);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // Its next deadline is a day away, and the reload does not affect it. The new limit applies to its messages.
        old.send_text("hello");
        old.expect_text("hello");
        old.send_text(&"x".repeat(100));
        old.expect_close(1009);
    }

    fn a_reload_reads_the_files_of_secrets_again(driver) {
        let secret = TempFile::new(&format!("secret-{driver:?}"), "first\n");
        let text = format!("[api]\nkey_file = '${{SECRETS}}/{}'\n", secret.path().trim_start_matches('/'));
        let file = TempFile::new(&format!("secrets-{driver:?}"), &text);
        let root = PathBuf::from("/.");
        let mut child =
            Child::start_with(driver, &["--config", file.path()], &[("SECRETS", &root)]);
        let status = |key: &str| {
            let mut client = Client::connect(child.edge());
            client.send(format!(
                "POST /api/info HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
            ));
            client.read_response().status
        };
        assert_eq!([status("first"), status("second")], [200, 401]);
        secret.write("second");
        child.signal(libc::SIGHUP);
        wait_until("the new key holds", || status("second") == 200);
        wait_until("the old key holds at no worker", || status("first") == 401);
        secret.write("two words");
        child.signal(libc::SIGHUP);
        child.log_line(&["ERROR", "all of them stay as they are", "api.key_file"]);
        wait_until("the old key holds", || {
            let mut client = Client::connect(child.edge());
            client.send("POST /api/info HTTP/1.1\r\nHost: t\r\nX-API-Key: second\r\nContent-Length: 2\r\n\r\n{}");
            client.read_response().status == 200
        });
        child.signal(libc::SIGTERM);
        let log = child.whole_log().join("\n");
        assert!(log.contains("api.key_file"), "{log}");
        for hidden in ["first", "second", "two words"] {
            assert!(!log.contains(hidden), "{log}");
        }
    }

    fn a_reload_of_an_invalid_file_changes_nothing(driver) {
        let file = TempFile::new(&format!("fault-{driver:?}"), "limits.message_bytes_max = 100\n");
        let mut child = Child::start(driver, &["--config", file.path()]);
        for (text, fault) in [
            ("limits.message_bytes_max = 10\nlimits.close_timeout = 0\n", ":2: limits.close_timeout is 0 s; it must be"),
            ("limits.message_bytes_max = 10\n[limit]\n", ":2: unknown section [limit], did you mean limits?"),
            ("limits.message_bytes_max = 10\nlisten", ":2: "),
        ] {
            file.write(text);
            child.signal(libc::SIGHUP);
            let line = child.log_line(&["ERROR", "all of them stay as they are"]);
            assert!(line.contains(&format!("{}{fault}", file.path())), "{line}");
            assert_eq!(publish(&child), 200);
        }
        fs::remove_file(file.path()).unwrap();
        child.signal(libc::SIGHUP);
        child.log_line(&["ERROR", "all of them stay as they are", "cannot be read"]);
        file.write("limits.message_bytes_max = 100\n");
        child.signal(libc::SIGHUP);
        child.log_line(&["nothing changed"]);
        assert_eq!(publish(&child), 200);
        child.signal(libc::SIGTERM);
        assert_eq!(child.wait().code(), Some(0));
    }

    fn a_reload_logs_settings_that_need_a_restart(driver) {
        let file = TempFile::new(&format!("restart-{driver:?}"), "");
        let mut child = Child::start(driver, &["--config", file.path(), "--close-timeout", "1 s"]);
        file.write("workers = 100\n[limits]\nclose_timeout = '9 s'\nmessage_bytes_max = 10\n");
        for _ in 0..2 {
            child.signal(libc::SIGHUP);
            child.log_line(&["WARN", "takes effect at the next start", "workers", "one per core", "100"]);
        }
        wait_until("the setting that can be reloaded applies", || publish(&child) == 413);
        child.signal(libc::SIGTERM);
        let log = child.whole_log();
        assert!(!log.iter().any(|line| line.contains("close_timeout")), "the flag overrides the file: {log:?}");
    }

    fn a_reload_that_ends_a_drain_keeps_the_shutdown_timeout(driver) {
        let name = format!("drain-{driver:?}");
        let file = TempFile::new(&name, "limits.drain_time = '1 h'\nlimits.shutdown_timeout = '1 s'\n");
        let mut child = Child::start(driver, &["--workers", "2", "--config", file.path()]);
        let mut stalled = WebSocket::over(Client::connect_narrow(child.edge()));
        stalled.client.send(WebSocket::request("/ws?channel=a"));
        stalled.read_upgrade();
        let mut publisher = Client::connect(child.edge());
        for _ in 0..20 {
            publisher.publish("a", "x".repeat(100_000));
        }
        child.signal(libc::SIGTERM);
        wait_until("the server drains", || publisher.get("/health/ready").status == 503);
        file.write("limits.drain_time = 0\nlimits.shutdown_timeout = '1 s'\n");
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "drain_time"]);
        let began = Instant::now();
        assert_eq!(child.wait().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        drop(stalled);
    }

    fn log_levels_of_modules_change_with_a_reload(driver) {
        let file = TempFile::new(&format!("levels-{driver:?}"), "log.level = 'info'\n");
        let mut child = Child::start(driver, &["--config", file.path()]);
        assert_eq!(Client::connect(child.edge()).get("/before").status, 404);
        file.write("log.level = 'info,transport=debug'\n");
        child.signal(libc::SIGHUP);
        child.log_line(&["a setting changed", "log.level", "info,transport=debug"]);
        assert_eq!(Client::connect(child.edge()).get("/after").status, 404);
        child.log_line(&["DEBUG", "not_found", "an HTTP request is refused"]);
        child.signal(libc::SIGTERM);
        let log = child.whole_log();
        assert_eq!(log.iter().filter(|line| line.contains("not_found")).count(), 1, "{log:?}");
        assert!(!log.iter().any(|line| line.contains("a connection ends")), "{log:?}");
    }

    fn a_flood_of_errors_writes_few_log_lines_of_valid_json(driver) {
        const REQUESTS: usize = 400;
        let arguments = ["--log-format", "json", "--log-level", "debug", "--workers", "1"];
        let mut child = Child::start(driver, &arguments);
        let began = Instant::now();
        for _ in 0..REQUESTS {
            assert_eq!(Client::connect(child.edge()).get("/nowhere").status, 404);
        }
        child.log_line(&["log lines were dropped", "an HTTP request is refused: not_found"]);
        let seconds = began.elapsed().as_secs() as usize + 1;
        child.signal(libc::SIGTERM);
        let lines: Vec<Value> =
            child.whole_log().iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        for line in &lines {
            for field in ["timestamp", "level", "message", "target"] {
                assert!(line[field].is_string(), "{line}");
            }
        }
        let refused = lines.iter().filter(|line| line["reason"] == "not_found").count();
        let written = LOG_LINES_PER_SECOND_MAX as usize;
        assert!((written..=(seconds + 1) * written).contains(&refused), "{refused} in {seconds} s");
        let dropped = lines.iter().filter(|line| line["message"].as_str().unwrap().contains("log lines were dropped"));
        let dropped: u64 = dropped.map(|line| line["lines"].as_u64().unwrap()).sum();
        assert!(dropped > 0 && refused + dropped as usize <= 3 * REQUESTS, "{refused} and {dropped}");
        // Lines about the server itself are never dropped.
        for message in ["serving", "stopping", "shutting down"] {
            assert!(lines.iter().any(|line| line["message"] == message), "{message}: {lines:?}");
        }
    }

    fn a_log_pipe_that_is_not_read_does_not_block_the_server(driver) {
        /// The capacity of a pipe, minus the lines written at start.
        const FILLED: usize = 65_536 - 2048;
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b' '; FILLED]).unwrap();
        let arguments = ["--log-format", "json", "--log-level", "trace", "--workers", "1"];
        let mut child = Child::start_logging_to(writer.into(), driver, &arguments, &[]);
        for target in ["/nowhere", "/poll?timeout=x", "/poll?channel=", "/events?channel="] {
            for _ in 0..10 {
                assert_ne!(Client::connect(child.edge()).get(target).status, 200);
            }
        }
        // The server waits for a while for its last lines to be read, and then exits.
        child.signal(libc::SIGTERM);
        assert_eq!(child.wait().code(), Some(0));
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        assert!(log.len() > FILLED + 1024 && log.len() <= 65_536, "{}", log.len());
        assert!(log.trim_start().starts_with("{\"timestamp\""), "{log}");
    }

    fn each_close_is_logged_with_its_reason(driver) {
        let arguments = ["--log-level", "debug", "--handshake-timeout", "200 ms", "--workers", "1"];
        let mut child = Child::start(driver, &arguments);
        let mut faulty = WebSocket::connect(child.edge(), "/ws");
        faulty.client.send([0xFF, 0x80]);
        faulty.expect_close(1002);
        child.log_line(&["a WebSocket frame is refused", "reason="]);
        child.log_line(&["a connection ends", "reason=\"bad request\"", "worker=0"]);
        let mut polite = WebSocket::connect(child.edge(), "/ws");
        polite.send_close(1000);
        child.log_line(&["a connection ends", "reason=\"connection closed\""]);
        let silent = Client::connect(child.edge());
        child.log_line(&["a connection ends", "reason=\"stale\""]);
        let mut commands = Client::connect(child.commands());
        commands.send("nonsense\n");
        child.log_line(&["a command is refused", "reason=\"bad request\""]);
        drop(silent);
    }
}

#[test]
fn a_disabled_log_prints_nothing() {
    let mut child = Child::start(fantail::config::DriverChoice::Epoll, &["--log-level", "off"]);
    assert_eq!(Client::connect(child.edge()).get("/nowhere").status, 404);
    child.signal(libc::SIGTERM);
    child.wait();
    assert_eq!(child.whole_log(), Vec::<String>::new());
}
