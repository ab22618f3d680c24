//! A run that cannot succeed ends in bounded time, with the cause, the counts so far and an exit code other than 0.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::support::{Client, EPOLL, TestServer, wait_until};
use crate::{c1m, finish, piped, start};

fn unused_address() -> SocketAddr {
    // The port was free a moment ago.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_refused_connection_is_the_cause() {
    for mode in ["idle", "echo", "fanout", "slow", "storm"] {
        let run = c1m(mode, unused_address(), &["-n", "50"]);
        run.expect_failure("connection refused");
        assert_eq!(run.report["mode"], mode);
        assert!(run.number("/connections/failed_by_cause/connection refused") >= 50, "{run:#?}");
        assert_eq!(run.number("/connections/opened"), 0);
    }
}

#[test]
fn many_failures_end_the_run_before_all_connections_were_attempted() {
    let run = c1m("idle", unused_address(), &["-n", "1000000", "--failures-max", "7"]);
    run.expect_failure("connection refused");
    assert!(run.number("/connections/failed") < 1_000_000, "{run:#?}");
}

#[test]
fn a_server_that_never_answers_is_a_handshake_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let run = c1m("idle", address, &["-n", "20", "--connect-timeout", "500 ms"]);
    run.expect_failure("handshake timeout");
    assert_eq!(run.number("/connections/failed"), 20);
}

#[test]
fn a_wrong_path_or_protocol_is_the_cause() {
    let server = TestServer::start(EPOLL, 1);
    let run = c1m("idle", server.edge(), &["-n", "50", "--path", "/nowhere"]);
    run.expect_failure("refused with HTTP status 404");
    assert_eq!(run.number("/connections/failed_by_cause/refused with HTTP status 404"), 50);
    let tcp = server.edge().to_string();
    let run = c1m("idle", server.edge(), &["-n", "5", "--protocol", "tcp", "--tcp-target", &tcp]);
    run.expect_failure("not JSON");
    let stream = ["-n", "5", "--protocol", "sse", "--path", "/nowhere"];
    c1m("idle", server.edge(), &stream).expect_failure("refused with HTTP status 404");
    let run = c1m(
        "fanout",
        server.edge(),
        &["-n", "5", "--via", "tcp", "--tcp-target", &unused_address().to_string()],
    );
    run.expect_failure("publishing failed");
    assert_eq!(run.number("/connections/opened"), 5);
}

#[test]
fn an_echo_run_ends_if_the_target_does_not_echo() {
    let server = TestServer::start(EPOLL, 1);
    // The edge publishes each message to all subscribers of the channel, which is not an echo.
    let run =
        c1m("echo", server.edge(), &["-n", "3", "--duration", "300 ms", "--warm-up", "100 ms"]);
    run.expect_failure("the target does not echo");
    assert!(
        run.number("/messages/duplicated") + run.number("/messages/unexpected") > 0,
        "{run:#?}"
    );
    assert!(run.number("/messages/received") < 10_000, "it ended at once: {run:#?}");
}

#[test]
fn a_limit_that_is_too_low_is_the_cause() {
    let limited = |limit: &str| {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_c1m"), "idle", "-n", "1000", "--json"]);
        finish(piped(&mut command))
    };
    limited("50").expect_failure("too few file descriptors");
    limited("66").expect_failure("ulimit -Hn");
    let run = c1m("idle", unused_address(), &["-n", "1000000", "--source", "127.0.0.1"]);
    run.expect_failure("net.ipv4.ip_local_port_range");
    let run = c1m("idle", unused_address(), &["-n", "1", "--source", "192.0.2.1"]);
    run.expect_failure("--source 192.0.2.1 is not an address of this host");
    let run = c1m("idle", unused_address(), &["-n", "1", "--source", "::1"]);
    run.expect_failure("one is IPv4, the other IPv6");
    let run = c1m("idle", unused_address(), &["-n", "1", "--server-pid", "4194305"]);
    run.expect_failure("no process 4194305 on this host");
    let run = c1m("storm", unused_address(), &["-n", "1", "--canary-core", "1023"]);
    run.expect_failure("cannot run on core 1023");
}

#[test]
fn invalid_arguments_are_refused() {
    for arguments in [
        &["idle", "-n", "0"][..],
        &["idle", "--target", "nowhere"],
        &["idle", "--threads", "0"],
        &["idle", "--channels", "1_000_001"],
        &["idle", "--in-flight", "0"],
        &["idle", "--connect-rate", "-1"],
        &["echo", "--size", "19"],
        &["fanout", "--once", "--count", "2"],
        &["slow", "--slow-fraction", "1.5"],
        &["storm", "--storms", "0"],
        &["storm", "--canary-core", "1024"],
        &["idle", "--protocol", "smtp"],
    ] {
        let run = finish(start(arguments));
        assert!(!run.success && run.report.is_null(), "{arguments:?}: {run:#?}");
        assert!(run.stderr.starts_with("error: "), "{arguments:?}: {run:#?}");
    }
}

#[test]
fn the_server_dies_midway() {
    for mode in ["idle", "echo", "fanout", "storm"] {
        let mut server =
            crate::support::Child::start(EPOLL, &["--workers", "1", "--echo", "127.0.0.1:0"]);
        let target = if mode == "echo" { server.addresses[2] } else { server.edge() };
        let pid = server.pid().to_string();
        // The canaries are opened in addition.
        let (duration, all) =
            if mode == "storm" { ("--baseline", 300) } else { ("--duration", 200) };
        let c1m = start(&[
            mode,
            "-n",
            "200",
            "--target",
            &target.to_string(),
            duration,
            "1 min",
            "--server-pid",
            &pid,
        ]);
        let edge = server.edge();
        wait_until("all are open", || {
            let response = Client::connect(edge).get("/metrics");
            let metrics = response.text();
            ["websocket", "echo_websocket"].iter().any(|transport| {
                let name =
                    format!("fantail_connections{{worker=\"0\",transport=\"{transport}\"}} ");
                let open = metrics.lines().find_map(|line| line.strip_prefix(&name));
                open.is_some_and(|open| open.parse::<u64>().unwrap() >= all)
            })
        });
        server.signal(libc::SIGKILL);
        server.wait();
        let run = finish(c1m);
        run.expect_failure("");
        let words = ["lost", "server process ended"];
        assert!(words.iter().any(|word| run.stderr.contains(word)), "{run:#?}");
        // The counts are final, not those of the moment of detection.
        assert!(run.number("/connections/opened") > 0, "{run:#?}");
        assert_eq!(run.number("/connections/lost"), run.number("/connections/opened"), "{run:#?}");
        assert_eq!(run.number("/connections/open_at_end"), 0);
    }
}

#[test]
fn messages_in_flight_at_an_interrupt_are_not_lost() {
    let server = TestServer::start(EPOLL, 1);
    let target = server.echo().to_string();
    let c1m =
        start(&["echo", "-n", "50", "--depth", "64", "--target", &target, "--warm-up", "0 s"]);
    // It settles for half a second, then works for ten.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(Command::new("kill").args(["-INT", &c1m.id().to_string()]).status().unwrap().success());
    let run = finish(c1m);
    run.expect_failure("interrupted");
    assert_eq!(run.number("/messages/received"), run.number("/messages/sent"), "{run:#?}");
    assert_eq!(run.number("/messages/lost"), 0);
    assert!(run.number("/work/latency/count") > 0, "{run:#?}");
}

#[test]
fn the_idle_target_is_named_in_its_failures() {
    let server = TestServer::start(EPOLL, 1);
    let idle = unused_address().to_string();
    let run = c1m("echo", server.echo(), &["-n", "5", "--idle", "5", "--idle-target", &idle]);
    run.expect_failure(&format!("connection refused (idle target {idle})"));
    assert_eq!(run.number("/connections/opened"), 5);
}
