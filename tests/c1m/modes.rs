//! Every mode at 10,000 connections.

use serde_json::Value;

use crate::c1m;
use crate::support::{TestServer, on_both_drivers};

const CONNECTIONS: u64 = 10_000;

on_both_drivers! {
    fn idle_connections_stay_open_and_answer_pings(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.keepalive_interval = std::time::Duration::from_millis(1500);
        });
        let pid = std::process::id().to_string();
        let run = c1m("idle", server.edge(), &["-n", "10000", "--duration", "3 s", "--server-pid", &pid]);
        run.expect_success(CONNECTIONS);
        assert_eq!(run.number("/connections/opened"), CONNECTIONS);
        assert!(run.number("/connections/pings_answered") >= CONNECTIONS, "{run:#?}");
        let own = run.report["memory"]["c1m_bytes_per_connection"].as_f64().unwrap();
        assert!(own <= 200.0, "{own} bytes a connection");
        assert!(run.report["server"]["cpu_seconds"].as_f64().unwrap() > 0.0);
        assert!(run.report["connections"]["server_cpu_ns_per_opening"].as_f64().unwrap() > 0.0);
    }

    fn idle_event_streams_and_tcp_connections_stay_open_and_receive_heartbeats(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.keepalive_interval = std::time::Duration::from_millis(1500);
        });
        let tcp = server.commands().to_string();
        for protocol in ["sse", "tcp"] {
            let run = c1m("idle", server.edge(), &[
                "--protocol", protocol, "--tcp-target", &tcp, "-n", "1_000", "--duration", "3 s",
            ]);
            run.expect_success(1000);
            assert!(run.number("/connections/pings_answered") >= 1000, "{run:#?}");
        }
    }

    fn connections_with_tokens_open_where_others_are_refused(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some("a-secret-of-32-characters-or-more".into());
        });
        let tcp = server.commands().to_string();
        for protocol in ["ws", "sse", "tcp"] {
            let arguments = [
                "--protocol", protocol, "--tcp-target", &tcp, "-n", "100", "--duration", "100 ms",
                "--token-users", "0", "--token-info-bytes", "32", "--token-hmac-secret",
            ];
            for (secret, is_right) in [("a-secret-of-32-characters-or-more", true), ("another", false)] {
                let run = c1m("idle", server.edge(), &[&arguments[..], &[secret]].concat());
                assert_eq!(run.success, is_right, "{protocol}: {run:#?}");
            }
        }
    }

    fn echoes_come_back_beside_idle_connections(driver) {
        let server = TestServer::start(driver, 2);
        let idle = server.edge().to_string();
        let run = c1m("echo", server.echo(), &[
            "-n", "100", "--depth", "4", "--size", "200", "--idle", "9900", "--idle-target", &idle,
            "--duration", "500 ms", "--warm-up", "100 ms",
        ]);
        run.expect_success(CONNECTIONS);
        expect_all_received(&run.report, "/messages/sent");
        assert!(run.number("/work/latency/count") > 0);
        let lines = c1m("echo", server.echo_tcp(), &[
            "--protocol", "tcp", "-n", "50", "--duration", "300 ms", "--warm-up", "100 ms",
        ]);
        lines.expect_success(50);
        expect_all_received(&lines.report, "/messages/sent");
    }

    fn publications_reach_every_subscriber(driver) {
        let server = TestServer::start(driver, 2);
        let run = c1m("fanout", server.edge(), &[
            "-n", "10000", "--channels", "3", "--rate", "40", "--count", "12",
        ]);
        run.expect_success(CONNECTIONS);
        // 3,334 subscribe to the first channel, 3,333 to each of the others.
        assert_eq!(run.number("/messages/expected"), 4 * CONNECTIONS);
        expect_all_received(&run.report, "/messages/expected");
        assert_eq!(run.number("/work/last_subscriber/count"), 12);
        let once = c1m("fanout", server.edge(), &["-n", "10000", "--once", "--via", "ws"]);
        once.expect_success(CONNECTIONS);
        assert_eq!(once.number("/messages/received"), CONNECTIONS);
    }

    fn every_way_to_publish_reaches_every_protocol(driver) {
        let server = TestServer::start(driver, 2);
        let tcp = server.commands().to_string();
        for via in ["ws", "tcp", "http"] {
            for protocol in ["ws", "tcp", "sse"] {
                let run = c1m("fanout", server.edge(), &[
                    "--tcp-target", &tcp, "-n", "100", "--channels", "4", "--count", "200", "--rate", "2000",
                    "--via", via, "--protocol", protocol,
                ]);
                run.expect_success(100);
                assert_eq!(run.number("/messages/received"), 200 / 4 * 100, "{via} to {protocol}");
            }
        }
    }

    fn every_message_arrives_over_tls(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.self_signed = true;
            for addresses in [&mut config.listen, &mut config.tcp, &mut config.echo, &mut config.echo_tcp] {
                addresses.iter_mut().for_each(|address| address.is_encrypted = true);
            }
        });
        let tcp = server.commands().to_string();
        for (via, protocol) in [("ws", "ws"), ("tcp", "tcp"), ("http", "sse")] {
            let run = c1m("fanout", server.edge(), &[
                "--tls", "--tcp-target", &tcp, "-n", "100", "--channels", "4", "--count", "200", "--rate", "2000",
                "--via", via, "--protocol", protocol,
            ]);
            run.expect_success(100);
            assert_eq!(run.number("/messages/received"), 200 / 4 * 100, "{via} to {protocol}");
        }
        let large = ["--tls", "-n", "20", "--depth", "2", "--size", "40000", "--duration", "300 ms"];
        for (echo, protocol) in [(server.echo(), "ws"), (server.echo_tcp(), "tcp")] {
            let run = c1m("echo", echo, &[&large[..], &["--protocol", protocol]].concat());
            run.expect_success(20);
            expect_all_received(&run.report, "/messages/sent");
        }
        let storm = c1m("storm", server.edge(), &["--tls", "-n", "500", "--canaries", "5"]);
        storm.expect_success(505);
        let plain = c1m("idle", server.edge(), &["-n", "1", "--duration", "1 s"]);
        assert!(!plain.success, "{plain:#?}");
    }

    fn slow_subscribers_are_closed_and_the_others_miss_nothing(driver) {
        // A thousand: the data in flight to ten thousand would exceed the memory limit of TCP.
        let server = TestServer::start_with(driver, 2, |config| config.send_queue_bytes_max = 128 * 1024);
        let run = c1m("slow", server.edge(), &[
            "-n", "1000", "--slow-fraction", "0.1", "--size", "16384", "--count", "16", "--rate", "16",
            "--settle", "1500 ms",
        ]);
        run.expect_success(900);
        assert_eq!(run.number("/messages/received"), 16 * 900);
        assert_eq!(run.number("/slow/closed_by_server"), 100);
    }

    fn slow_subscribers_that_catch_up_miss_nothing_either(driver) {
        let server = TestServer::start(driver, 2);
        let run = c1m("slow", server.edge(), &[
            "-n", "10000", "--slow-fraction", "0.5", "--count", "5", "--rate", "20", "--settle", "1 s",
        ]);
        run.expect_success(CONNECTIONS);
        assert_eq!(run.number("/slow/received"), 5 * CONNECTIONS / 2);
        assert_eq!(run.number("/slow/closed_by_server"), 0);
    }

    fn slow_event_streams_and_tcp_subscribers_catch_up_too(driver) {
        let server = TestServer::start(driver, 2);
        let tcp = server.commands().to_string();
        for protocol in ["sse", "tcp"] {
            let run = c1m("slow", server.edge(), &[
                "--protocol", protocol, "--tcp-target", &tcp, "-n", "100", "--slow-fraction", "0.5", "--count", "5",
                "--rate", "50", "--settle", "500 ms",
            ]);
            run.expect_success(100);
            assert_eq!(run.number("/messages/received") + run.number("/slow/received"), 5 * 100, "{protocol}");
        }
    }

    fn all_connections_reopen_after_a_storm(driver) {
        let server = TestServer::start(driver, 2);
        let tcp = server.commands().to_string();
        for (protocol, how) in [("ws", "--storms=1"), ("tcp", "--reset"), ("sse", "--canary-core=0")] {
            let run = c1m("storm", server.edge(), &[
                "--tcp-target", &tcp, "--protocol", protocol, how, "-n", "9900", "--canaries", "100", "--baseline", "300 ms",
            ]);
            run.expect_success(CONNECTIONS);
            assert_eq!(run.number("/storm_1/returned"), 9900);
            assert_eq!(run.number("/connections/opened"), 10_000 + 9900);
            assert!(run.number("/storm_1/canaries_baseline/count") > 0);
            assert!(run.report["storm_1"]["longest_accept_stall_us"].as_f64().unwrap() > 0.0);
        }
    }
}

#[track_caller]
fn expect_all_received(report: &Value, expected: &str) {
    assert_eq!(report["messages"]["received"], *report.pointer(expected).unwrap(), "{report:#}");
    for fault in ["lost", "duplicated", "reordered", "unclassified", "unexpected"] {
        assert_eq!(report["messages"][fault], 0, "{report:#}");
    }
}

#[test]
fn plots_are_drawn() {
    let server = TestServer::start(crate::support::EPOLL, 1);
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("c1m-plots");
    let _ = std::fs::remove_dir_all(&directory);
    let plot = directory.to_str().unwrap();
    let run = c1m(
        "fanout",
        server.edge(),
        &["-n", "100", "--rate", "20", "--duration", "2100 ms", "--plot", plot],
    );
    run.expect_success(100);
    for name in ["connections.svg", "memory.svg", "latency.svg"] {
        let svg = std::fs::read_to_string(directory.join(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("<polyline"), "{name}: {svg}");
    }
}
