//! The page at `/` and the statistics that it shows: which clients receive them, that clients cannot forge them, and
//! that they cost nothing without subscribers.

use std::time::{Duration, Instant};

use fantail::config::{Config, STATISTICS_CHANNEL};
use serde_json::{Value, json};

use crate::support::{
    Child, Client, EventStream, TestServer, WebSocket, on_both_drivers, wait_until,
};

const EVENTS: &str = "/events?channel=fantail:statistics";

/// A statistics message.
#[derive(Debug)]
struct Statistics(Value);

impl Statistics {
    fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("statistics are JSON"))
    }

    fn uptime_ms(&self) -> u64 {
        self.0["uptime_ms"].as_u64().expect("a time")
    }

    /// The sum of a number over all workers.
    fn sum(&self, name: &str) -> u64 {
        let workers = self.0["workers"].as_array().expect("workers");
        workers.iter().map(|worker| worker.pointer(name).and_then(Value::as_u64).unwrap()).sum()
    }
}

/// Waits, for checks that nothing happens.
fn let_pass(time: Duration) {
    let began = Instant::now();
    wait_until("time passes", || began.elapsed() > time);
}

on_both_drivers! {
    fn the_page_is_revalidated_by_its_entity_tag(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        let page = client.get("/");
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.text().starts_with("<!doctype html>") && page.text().ends_with("</html>\n"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        let etag = page.header("etag").unwrap();
        for (tags, status) in [(etag, 304), (&format!("\"x\", W/{etag}"), 304), ("*", 304), ("\"x\"", 200)] {
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nIf-None-Match: {tags}\r\n\r\n"));
            let response = client.read_response();
            assert_eq!((response.status, response.header("etag")), (status, Some(etag)), "{tags}");
            assert_eq!(response.body.is_empty(), status == 304);
        }
        client.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = client.read_response_head();
        let length = page.body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
        assert_eq!(client.get("/health/live").status, 200, "only the head was sent");
    }

    fn other_methods_are_rejected_and_an_upgrade_joins_the_lobby(driver) {
        let server = TestServer::start(driver, 2);
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let mut client = Client::connect(server.edge());
            client.send(format!("{method} / HTTP/1.1\r\nHost: t\r\n\r\n"));
            let response = client.read_response();
            assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
            assert_eq!(response.json()["error"]["code"], "method_not_allowed");
        }
        let mut client = Client::connect(server.edge());
        client.send("GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.read_response().status, 400);
        let mut lobby = WebSocket::connect(server.edge(), "/");
        let mut client = Client::connect(server.edge());
        client.publish("lobby", "hello");
        lobby.expect_text("hello");
    }

    fn page_and_statistics_can_be_turned_off(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.page = Some(false);
            config.statistics = Some(false);
        });
        let mut client = Client::connect(server.edge());
        let text = client.get("/");
        assert_eq!((text.status, text.header("content-type")), (200, Some("text/plain; charset=utf-8")));
        client.send(format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let refused = client.read_response();
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (404, Some("namespace_unknown")));
    }

    fn page_and_statistics_for_the_local_host_are_withheld_behind_a_proxy(driver) {
        for header in ["X-Forwarded-For: 1.2.3.4", "forwarded: for=1.2.3.4", "Via: 1.1 varnish", "X-Real-IP: 1.2.3.4", "X-Forwarded-Proto: https"] {
            let server = TestServer::start(driver, 2);
            let mut mine = EventStream::connect(server.edge(), EVENTS);
            Statistics::parse(&mine.read().data);
            let direct = Client::connect(server.edge()).get("/");
            assert_eq!(direct.header("content-type"), Some("text/html; charset=utf-8"));
            // The first proxied request already gets neither.
            let mut proxied = Client::connect(server.edge());
            proxied.send(format!("GET / HTTP/1.1\r\nHost: t\r\nOrigin: http://a\r\n{header}\r\n\r\n"));
            let text = proxied.read_response();
            assert_eq!((text.status, text.header("content-type")), (200, Some("text/plain; charset=utf-8")), "{header}");
            assert_eq!((text.header("access-control-allow-origin"), text.header("vary")), (None, Some("Origin")));
            // The same holds on every worker, and for requests without the proxy's headers.
            for _ in 0..8 {
                let mut client = Client::connect(server.edge());
                assert_eq!(client.get("/").header("content-type"), Some("text/plain; charset=utf-8"));
                client.send(format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\n\r\n"));
                assert_eq!(client.read_response().json()["error"]["code"], "namespace_unknown");
                let mut client = Client::connect(server.edge());
                client.send(WebSocket::request("/ws").replace("Host: ", "Origin: http://a\r\nHost: "));
                assert_eq!(client.read_response().json()["error"]["code"], "origin_refused");
            }
            let publications = || server.sum(|counters| &counters.publications);
            let published = publications();
            let_pass(Duration::from_millis(1500));
            assert_eq!(publications(), published, "existing subscribers receive no more statistics");
            let mut socket = WebSocket::connect(server.edge(), "/ws?channel=a");
            Client::connect(server.edge()).publish("a", "hello");
            socket.expect_text("hello");
        }
        let server = TestServer::start(driver, 2);
        let mut proxied = Client::connect(server.edge());
        proxied.send(format!("GET {EVENTS} HTTP/1.1\r\nHost: t\r\nVia: 1.1 a\r\n\r\n"));
        assert_eq!(proxied.read_response().json()["error"]["code"], "namespace_unknown", "the first request is refused too");
    }

    fn explicit_settings_hold_behind_a_proxy(driver) {
        type Change = fn(&mut Config);
        let changes: [Change; 2] = [
            |config| config.api_key = Some("secret".into()),
            |config| {
                config.page = Some(true);
                config.statistics = Some(true);
                config.origins = vec!["*".to_owned()];
            },
        ];
        for change in changes {
            let server = TestServer::start_with(driver, 2, change);
            for _ in 0..4 {
                let mut proxied = Client::connect(server.edge());
                proxied.send("GET / HTTP/1.1\r\nHost: t\r\nOrigin: http://a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
                let page = proxied.read_response();
                assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
                assert_eq!(page.header("access-control-allow-origin"), Some("*"));
            }
            let mut events = EventStream::connect(server.edge(), EVENTS);
            Statistics::parse(&events.read().data);
        }
    }

    fn a_proxy_is_logged_once(driver) {
        let mut child = Child::start(driver, &["--workers", "2"]);
        for _ in 0..20 {
            let mut client = Client::connect(child.edge());
            client.send("GET /health/live HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
            assert_eq!(client.read_response().status, 200);
        }
        child.log_line(&["WARN", "came through a proxy", "api.key is not set", "http.page"]);
        child.signal(libc::SIGTERM);
        let lines = child.whole_log().iter().filter(|line| line.contains("came through a proxy")).count();
        assert_eq!(lines, 1);
    }

    fn every_transport_gets_the_statistics_of_all_workers(driver) {
        let server = TestServer::start(driver, 2);
        let mut events = EventStream::connect(server.edge(), EVENTS);
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=fantail:statistics");
        let mut commands = Client::connect(server.commands());
        commands.command(&json!({"id": 1, "connect": {}}));
        let subscribed = commands.command(&json!({"id": 2, "subscribe": {"channel": STATISTICS_CHANNEL}}));
        assert_eq!(subscribed["id"], 2);
        let mut others: Vec<_> = (0..8).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut publisher = Client::connect(server.edge());
        for number in 0..10 {
            publisher.publish("a", number.to_string());
            others.iter_mut().for_each(|other| other.expect_text(&number.to_string()));
        }
        let mut statistics = Statistics::parse(&events.read().data);
        for _ in 0..3 {
            let next = Statistics::parse(&events.read().data);
            assert!((990..5000).contains(&(next.uptime_ms() - statistics.uptime_ms())), "{next:?} after {statistics:?}");
            statistics = next;
        }
        assert!(statistics.sum("/deliveries") >= 80);
        assert_eq!(statistics.0["workers"].as_array().map(Vec::len), Some(2));
        assert_eq!(statistics.sum("/connections/websocket"), 9);
        assert_eq!((statistics.sum("/connections/sse"), statistics.sum("/connections/commands_tcp")), (1, 1));
        assert!(statistics.sum("/publications") >= 10 && statistics.sum("/sent_bytes") > 0);
        assert!((0..2).all(|worker| statistics.0["workers"][worker]["memory_max_bytes"].as_u64() > Some(0)));
        let lags: Vec<_> = (0..21).map(|bucket| statistics.sum(&format!("/delivery_lag/{bucket}"))).collect();
        assert!(lags.iter().sum::<u64>() >= 80, "{lags:?}");
        assert!(Statistics::parse(&socket.read_text()).uptime_ms() > 0);
        let push = commands.read_json();
        assert!(push["push"]["pub"]["data"]["uptime_ms"].is_u64(), "{push}");
        let poll = publisher.get("/poll?channel=fantail:statistics").json();
        assert!(poll["data"]["uptime_ms"].is_u64(), "{poll}");
    }

    fn a_stream_of_statistics_resumes_without_loss(driver) {
        let server = TestServer::start(driver, 2);
        let mut stays = EventStream::connect(server.edge(), EVENTS);
        let mut leaves = EventStream::connect(server.edge(), EVENTS);
        leaves.read();
        let id = leaves.last_id.clone();
        drop(leaves);
        for _ in 0..10 {
            if stays.last_id != id {
                stays.read();
            }
        }
        assert_eq!(stays.last_id, id);
        let missed = stays.read().data;
        EventStream::resume(server.edge(), EVENTS, &id).expect(&missed);
    }

    fn clients_cannot_publish_to_the_statistics_channel(driver) {
        for key in [None, Some("secret")] {
            let server = TestServer::start_with(driver, 2, |config| config.api_key = key.map(Into::into));
            let mut events = EventStream::connect(server.edge(), EVENTS);
            let mut socket = WebSocket::connect(server.edge(), "/ws?channel=fantail:statistics");
            socket.send_text("forged");
            let mut client = Client::connect(server.edge());
            let key = key.map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
            let body = format!("{{\"channel\":\"{STATISTICS_CHANNEL}\",\"data\":\"forged\"}}");
            let mut post = |target: &str| {
                let length = body.len();
                client.send(format!("POST {target} HTTP/1.1\r\nHost: t\r\n{key}Content-Length: {length}\r\n\r\n{body}"));
                client.read_response()
            };
            assert_eq!(post("/publish?channel=fantail:statistics").status, 403);
            assert_eq!(post("/publish?channel=fantail:other").status, 403, "the rest of the namespace is refused too");
            assert_eq!(post("/api/publish").json()["error"]["code"], 103);
            let mut commands = Client::connect(server.commands());
            commands.command(&json!({"id": 1, "connect": {}}));
            let publish = json!({"id": 2, "publish": {"channel": STATISTICS_CHANNEL, "data": "forged"}});
            assert_eq!(commands.command(&publish)["error"]["code"], 103);
            for _ in 0..2 {
                let data = events.read().data;
                assert!(!data.contains("forged"), "{data}");
                Statistics::parse(&socket.read_text());
            }
        }
    }

    fn without_subscribers_no_statistics_are_published(driver) {
        let server = TestServer::start(driver, 2);
        let turns = || server.sum(|counters| &counters.turns);
        let publications = || server.sum(|counters| &counters.publications);
        let idle = turns();
        let_pass(Duration::from_millis(1500));
        assert_eq!((turns(), publications()), (idle, 0), "no client has subscribed yet");
        let mut events = EventStream::connect(server.edge(), EVENTS);
        Statistics::parse(&events.read().data);
        Statistics::parse(&events.read().data);
        assert!(publications() >= 2);
        drop(events);
        wait_until("the connection is gone", || server.sum(|counters| &counters.subscriptions) == 0);
        let published = publications();
        let_pass(Duration::from_millis(2500));
        assert!(publications() <= published + 1, "one may have been in flight");
        // A client of another channel changes nothing.
        let _other = WebSocket::connect(server.edge(), "/ws?channel=a");
        let published = publications();
        let_pass(Duration::from_millis(1500));
        assert_eq!(publications(), published);
    }
}
