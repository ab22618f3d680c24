//! Counters, the metrics page and the health pages.

use std::fs;
use std::time::Duration;

use fantail::config::{ChannelOptions, SlowConsumer};
use fantail::message::TransportKind;
use fantail::telemetry::METRICS;
use serde_json::{Value, json};

use crate::support::{Child, Client, TestServer, WebSocket, on_both_drivers, wait_until};

impl TestServer {
    fn connections_of(&self, transport: TransportKind) -> u64 {
        self.sum(|counters| &counters.connections[transport as usize])
    }

    fn failed(&self, cause: &'static str) -> u64 {
        self.sum(|counters| counters.handshakes_failed.labelled(cause))
    }
}

/// The sum of all samples of a metric, over all workers and labels.
fn sum(page: &str, name: &str) -> f64 {
    let of_name = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains("} "))
    });
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

on_both_drivers! {
    fn connections_are_counted_by_transport(driver) {
        let server = TestServer::start(driver, 2);
        let mut http = Client::connect(server.edge());
        assert_eq!(http.get("/health/live").status, 200);
        let mut tcp = Client::connect(server.commands());
        assert_eq!(tcp.command(&json!({"id": 1, "connect": {}}))["id"], 1);
        let mut bytes = Client::connect(server.echo_tcp());
        bytes.send("x");
        assert_eq!(bytes.read_exactly(1), b"x");
        let sockets = [
            WebSocket::connect(server.edge(), "/ws?channel=a"),
            WebSocket::connect(server.edge(), "/ws?channel=b"),
            WebSocket::connect(server.edge(), "/connection/websocket"),
            WebSocket::connect(server.echo(), "/"),
        ];
        use TransportKind::{CommandsTcp, CommandsWebSocket, EchoTcp, EchoWebSocket, Http, WebSocket as Plain};
        let kinds = [Http, CommandsTcp, EchoTcp, Plain, CommandsWebSocket, EchoWebSocket];
        assert_eq!(kinds.map(|kind| server.connections_of(kind)), [1, 1, 1, 2, 1, 1]);
        assert!(http.get("/metrics").text().contains("transport=\"commands_websocket\"} 1\n"));
        drop((http, tcp, bytes, sockets));
        wait_until("all are gone", || kinds.iter().all(|kind| server.connections_of(*kind) == 0));
    }

    fn failed_handshakes_are_counted_by_cause(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.handshake_timeout = Duration::from_millis(100);
        });
        let attempts = [
            (WebSocket::request("/ws").replace("Version: 13", "Version: 8"), "websocket_version_unsupported"),
            ("GET /ws HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), "upgrade_missing"),
            (WebSocket::request("/ws?channel="), "channel_invalid"),
            ("no HTTP at all\r\n\r\n".to_owned(), "bad_request"),
            ("GET / HTTP/1.1\r\n".to_owned(), "timeout"),
        ];
        for (request, cause) in &attempts {
            let mut client = Client::connect(server.edge());
            client.send(request);
            client.read_response();
            assert_eq!(server.failed(cause), 1, "{cause}");
        }
        let mut silent = Client::connect(server.commands());
        silent.read_to_end();
        assert_eq!(server.failed("timeout"), 2);
        let mut known = WebSocket::connect(server.edge(), "/ws?channel=a");
        known.round_trip();
        assert_eq!(server.sum(|counters| &counters.connections_accepted), 7);
        let all = Client::connect(server.edge()).get("/metrics");
        assert_eq!(sum(all.text(), "fantail_handshakes_failed_total"), 6.0);
    }

    fn the_lag_of_every_delivery_and_every_message_are_counted(driver) {
        const SUBSCRIBERS: u64 = 150;
        const PUBLICATIONS: u64 = 20;
        let server = TestServer::start(driver, 2);
        let mut subscribers: Vec<_> =
            (0..SUBSCRIBERS).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut publisher = Client::connect(server.edge());
        for index in 0..PUBLICATIONS {
            publisher.publish("a", index.to_string());
        }
        for subscriber in &mut subscribers {
            for index in 0..PUBLICATIONS {
                subscriber.expect_text(&index.to_string());
            }
        }
        let deliveries = SUBSCRIBERS * PUBLICATIONS;
        assert_eq!(server.sum(|counters| &counters.deliveries), deliveries);
        let page = || publisher_page(&server);
        wait_until("the last turns are over", || {
            sum(&page(), "fantail_delivery_lag_seconds_count") >= deliveries as f64
        });
        let page = page();
        assert_eq!(sum(&page, "fantail_delivery_lag_seconds_count"), deliveries as f64);
        // No delivery took longer than the test, and the sum is plausible.
        let seconds = sum(&page, "fantail_delivery_lag_seconds_sum");
        assert!(seconds > 0.0 && seconds < 20.0 * deliveries as f64, "{seconds}");
        // One request per subscriber and publication, and at least two for the metrics page.
        let requests = (SUBSCRIBERS + PUBLICATIONS) as f64;
        let received = sum(&page, "fantail_received_messages_total");
        assert!(received > requests && received < requests + 10_000.0, "{received}");
        let sent = sum(&page, "fantail_sent_messages_total");
        assert!(sent >= requests + deliveries as f64 && sent <= received + deliveries as f64, "{sent}");
        assert!(sum(&page, "fantail_receives_total") >= requests);
        let turns = sum(&page, "fantail_turn_duration_seconds_count");
        let sleeps = sum(&page, "fantail_sleeps_total");
        // From a later page: the other worker takes turns while a page is written.
        let turns_begun = sum(&publisher_page(&server), "fantail_turns_total");
        assert!(turns > 0.0 && turns <= turns_begun, "{turns}");
        assert!(sleeps <= turns_begun, "{sleeps}");
    }

    fn the_page_has_every_metric_of_the_table_for_each_worker(driver) {
        let server = TestServer::start(driver, 3);
        let page = publisher_page(&server);
        for metric in METRICS {
            let sample = match metric.kind {
                "histogram" => format!("{}_count{{worker=\"2\"", metric.name),
                _ => format!("{}{{worker=\"2\"", metric.name),
            };
            assert!(page.lines().any(|line| line.starts_with(&sample)), "{sample}");
        }
        let buckets: Vec<u64> = page
            .lines()
            .filter(|line| line.starts_with("fantail_turn_duration_seconds_bucket{worker=\"1\""))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(buckets.len() > 10 && buckets.is_sorted(), "{buckets:?}");
    }

    fn kept_and_dropped_publications_are_counted(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let kept = ChannelOptions { history_size: 3, ..ChannelOptions::development() };
            config.namespaces.add("kept", kept).unwrap();
            let rated = ChannelOptions {
                slow_consumer: SlowConsumer::Latest,
                delivery_rate_max: 1,
                history_size: 0,
                ..ChannelOptions::development()
            };
            config.namespaces.add("rated", rated).unwrap();
        });
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=rated:a");
        let mut client = Client::connect(server.edge());
        for index in 0..5 {
            client.publish("kept:a", index.to_string());
            client.publish("rated:a", index.to_string());
        }
        subscriber.expect_text("0");
        subscriber.expect_text("4");
        wait_until("the gauges are up to date", || {
            server.sum(|counters| &counters.history_publications) == 3
        });
        assert!(server.sum(|counters| &counters.history_bytes) > 3);
        assert_eq!(server.sum(|counters| counters.publications_dropped.labelled("rate")), 3);
        assert_eq!(server.sum(|counters| counters.publications_dropped.labelled("slow_subscriber")), 0);
    }

    fn a_server_is_ready_until_it_stops(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let ready = client.get("/health/ready");
        assert_eq!((ready.status, ready.text()), (200, "{\"status\":\"ready\"}\n"));
        // Requests that never end: one of them is answered while the server shuts down, however fast it is.
        let requests = "GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100);
        let mut sender = client.stream().try_clone().expect("a descriptor");
        let sends = std::thread::spawn(move || {
            while std::io::Write::write_all(&mut sender, requests.as_bytes()).is_ok() {}
        });
        assert_eq!(client.read_response().status, 200);
        server.stop();
        let refused = loop {
            let response = client.read_response();
            if response.status != 200 {
                break response;
            }
        };
        // The server may have closed it.
        let _ = client.stream().shutdown(std::net::Shutdown::Both);
        sends.join().expect("no panic");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.json()["error"]["code"], "not_ready");
        assert!(matches!(refused.retry_after(), Some(1..=3)));
    }

    fn a_server_without_descriptors_is_not_ready(driver) {
        let child = Child::start(driver, &["--workers", "1"]);
        let mut client = Client::connect(child.edge());
        assert_eq!(client.get("/health/ready").status, 200);
        child.limit_files(1);
        let waiting = Client::connect(child.edge());
        wait_until("accepting pauses", || client.get("/health/ready").status == 503);
        child.limit_files(libc::rlim_t::MAX);
        wait_until("accepting resumes", || client.get("/health/ready").status == 200);
        drop(waiting);
    }
}

fn publisher_page(server: &TestServer) -> String {
    Client::connect(server.edge()).get("/metrics").text().to_owned()
}

/// Collects the names of metrics in a dashboard's queries, without the suffixes of histogram samples.
fn names_in(dashboard: &Value, found: &mut Vec<String>) {
    match dashboard {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let (true, Some(query)) = (key == "expr" || key == "query", value.as_str()) {
                    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    let names = words.filter(|word| word.starts_with("fantail_"));
                    found.extend(names.map(|name| {
                        let suffixes = ["_bucket", "_sum", "_count"];
                        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                        base.filter(|base| base.ends_with("_seconds")).unwrap_or(name).to_owned()
                    }));
                }
                names_in(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names_in(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_names_metrics_that_exist() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/grafana/fantail.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut names = Vec::new();
    names_in(&dashboard, &mut names);
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not a metric");
    }
    // A histogram is queried by the names of its samples only.
    let text = dashboard.to_string();
    for metric in METRICS.iter().filter(|metric| metric.kind == "histogram") {
        assert!(text.contains(&format!("{}_bucket", metric.name)), "{} is not shown", metric.name);
    }
}
