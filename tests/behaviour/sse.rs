//! Event streams: `GET /events`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fantail::message::CloseReason;
use serde_json::json;

use crate::support::{
    Client, Event, EventStream, StreamEnd, TestServer, WebSocket, on_both_drivers, wait_until,
};

/// The text of the next publication on a connection of the command protocol.
fn pushed(client: &mut Client) -> String {
    let push = client.read_json();
    push["push"]["pub"]["data"].as_str().expect("text").to_owned()
}

/// A subscriber of the command protocol.
fn subscribe_tcp(server: &TestServer, channel: &str) -> Client {
    let mut tcp = Client::connect(server.commands());
    tcp.command(&json!({"id": 1, "connect": {}}));
    tcp.command(&json!({"id": 2, "subscribe": {"channel": channel}}));
    tcp
}

/// Default history size of a channel without a settings file.
const KEPT: u64 = 1000;

on_both_drivers! {
    /// An event id that exceeds the head limit would end the stream for good at a reconnect, because its client stops
    /// at any status other than 200, such as 431 (WHATWG HTML 9.2.3).
    fn an_event_id_fits_into_the_head_of_a_reconnect(driver) {
        const HEAD_BYTES_MAX: usize = 16 * 1024;
        let server = TestServer::start_with(driver, 1, |config| config.subscriptions_max = 1000);
        let farthest = "18446744073709551615:ffffffff";
        let request = |endpoint: &str, count: usize, padding: usize, id: &str| {
            let channels: Vec<_> = (0..count).map(|index| format!("channel={index}")).collect();
            let padding = "x".repeat(padding);
            let target = format!("{endpoint}{}", channels.join("&"));
            let id = if id.is_empty() { String::new() } else { format!("{id}\r\n") };
            format!("GET {target} HTTP/1.1\r\nHost: t\r\n{id}X: {padding}\r\n\r\n")
        };
        let status = |request: &str| {
            let mut client = Client::connect(server.edge());
            client.send(request);
            client.read_response_head().status
        };
        for (endpoint, header) in [("/events?", "Last-Event-ID: "), ("/poll?timeout=0&since=0:00000001&", "If-None-Match: \"")] {
            let end = if header.ends_with('"') { "\"" } else { "" };
            for count in [1, 128, 300] {
                // The server assumes that each position has its maximum length, plus separators.
                let room = HEAD_BYTES_MAX - 64 - count * (farthest.len() + 1);
                let padding = room - request(endpoint, count, 0, "").len();
                assert_eq!(status(&request(endpoint, count, padding, "")), 200, "{endpoint} {count}");
                let mut client = Client::connect(server.edge());
                client.send(request(endpoint, count, padding + 1, ""));
                let refused = client.read_response();
                assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &"channel_invalid".into()));
                // So even the longest position can be sent back.
                let id = format!("{header}{}{end}", vec![farthest; count].join("_"));
                let back = request(endpoint, count, padding, &id);
                assert!(back.len() <= HEAD_BYTES_MAX);
                assert_eq!(status(&back), 200, "{endpoint} {count}");
            }
        }
        // RFC 6265 6.1: browsers keep cookies of 4096 bytes, name and value.
        assert_eq!(status(&request("/poll?timeout=0&", 135, 0, "")), 200);
        assert_eq!(status(&request("/poll?timeout=0&", 136, 0, "")), 400);
        assert_eq!(status(&request("/poll?timeout=0&since=x&", 136, 0, "")), 200);
    }

    fn publications_of_every_payload_kind_are_sent_as_events(driver) {
        let server = TestServer::start(driver, 2);
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a");
        assert!(stream.retry.is_some_and(|retry| (2000..=5000).contains(&retry)), "{:?}", stream.retry);
        for (name, value) in [
            ("transfer-encoding", "chunked"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
            ("connection", "keep-alive"),
        ] {
            assert_eq!(stream.head.header(name), Some(value));
        }
        let mut publisher = Client::connect(server.edge());
        for (payload, data) in [
            (&b"hello"[..], "hello"),
            (b"two\nlines\r\nand\rmore", "two\nlines\nand\nmore"),
            (b"{\"x\":\n1}", "{\"x\": 1}"),
            (b"\xff\x00", "/wA="),
            (b"", ""),
            (b"data: x\n\nid: 7", "data: x\n\nid: 7"),
        ] {
            publisher.publish("a", payload);
            stream.expect(data);
        }
        assert!(stream.last_id.starts_with("6:"), "{}", stream.last_id);
    }

    fn without_a_channel_a_stream_joins_the_lobby(driver) {
        let server = TestServer::start(driver, 1);
        let mut stream = EventStream::connect(server.edge(), "/events");
        WebSocket::connect(server.edge(), "/ws").send_text("hello");
        stream.expect("hello");
    }

    fn several_channels_share_a_stream_and_each_event_id_has_all_positions(driver) {
        let server = TestServer::start(driver, 2);
        let target = "/events?channel=a&channel=b&channel=c";
        let mut stream = EventStream::connect(server.edge(), target);
        assert_eq!(stream.last_id.split('_').count(), 3);
        let mut publisher = Client::connect(server.edge());
        for round in 1..=50 {
            for (at, channel) in ["a", "b", "c"].into_iter().enumerate() {
                publisher.publish(channel, format!("{channel} {round}"));
                stream.expect(&format!("{channel} {round}"));
                let place = stream.last_id.split('_').nth(at).expect("a place");
                assert!(place.starts_with(&format!("{round}:")), "{}", stream.last_id);
            }
        }
    }

    fn every_transport_receives_the_same_order(driver) {
        let server = TestServer::start(driver, 2);
        const COUNT: usize = 300;
        // Two of each, so that both workers have connections.
        let mut sockets: Vec<_> = (0..4).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let mut streams: Vec<_> =
            (0..4).map(|_| EventStream::connect(server.edge(), "/events?channel=a")).collect();
        let mut pairs: Vec<_> =
            (0..4).map(|_| EventStream::connect(server.edge(), "/events?channel=b&channel=a")).collect();
        let mut lines: Vec<_> = (0..4).map(|_| subscribe_tcp(&server, "a")).collect();
        let since = streams[0].last_id.clone();
        let edge = server.edge();
        let orders = std::thread::scope(|scope| {
            for publisher in 0..3 {
                scope.spawn(move || {
                    let mut client = Client::connect(edge);
                    for number in 0..COUNT / 3 {
                        client.publish("a", format!("{publisher} {number}"));
                    }
                });
            }
            let mut readers = Vec::new();
            for socket in &mut sockets {
                readers.push(scope.spawn(|| (0..COUNT).map(|_| socket.read_text()).collect::<Vec<_>>()));
            }
            for stream in streams.iter_mut().chain(&mut pairs) {
                readers.push(scope.spawn(|| (0..COUNT).map(|_| stream.read().data).collect()));
            }
            for line in &mut lines {
                readers.push(scope.spawn(|| (0..COUNT).map(|_| pushed(line)).collect()));
            }
            for _ in 0..4 {
                let since = since.clone();
                readers.push(scope.spawn(move || super::poll::poll_all(edge, "a", since, COUNT)));
            }
            readers.into_iter().map(|reader| reader.join().expect("reads")).collect::<Vec<_>>()
        });
        for order in &orders[1..] {
            assert_eq!(*order, orders[0]);
        }
    }

    fn a_client_that_reconnects_receives_each_publication_exactly_once(driver) {
        let server = TestServer::start(driver, 2);
        let (stop, seen) = (AtomicBool::new(false), AtomicU64::new(0));
        let edge = server.edge();
        for target in ["/events?channel=a", "/events?channel=b&channel=a"] {
            stop.store(false, Ordering::Relaxed);
            seen.store(0, Ordering::Relaxed);
            let mut stream = EventStream::connect(edge, target);
            std::thread::scope(|scope| {
                let (stop, seen) = (&stop, &seen);
                let publisher = scope.spawn(move || {
                    let mut client = Client::connect(edge);
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Missed publications must still be in the history.
                        if number < seen.load(Ordering::Relaxed) + KEPT / 2 {
                            client.publish("a", number.to_string());
                            number += 1;
                        }
                    }
                });
                let mut next: Option<u64> = None;
                for visit in 0..60 {
                    for _ in 0..visit % 7 {
                        let number = stream.read().data.parse().expect("a number");
                        assert_eq!(number, *next.get_or_insert(number), "visit {visit}");
                        next = Some(number + 1);
                        seen.store(number, Ordering::Relaxed);
                    }
                    let last_id = std::mem::take(&mut stream.last_id);
                    match visit % 2 {
                        0 => stream.client.reset(),
                        _ => drop(stream),
                    }
                    stream = EventStream::resume(edge, target, &last_id);
                }
                stop.store(true, Ordering::Relaxed);
                publisher.join().expect("publishes");
            });
        }
        wait_until("everything is freed", || server.sum(|counters| &counters.subscriptions) == 0);
    }

    fn a_failed_recovery_sends_a_gap_event(driver) {
        let server = TestServer::start(driver, 2);
        let mut publisher = Client::connect(server.edge());
        let first = publisher.publish("a", "one");
        let epoch = first["epoch"].as_str().expect("an epoch").to_owned();
        let gap = Event { kind: "gap".to_owned(), data: "{\"recovered\":false}".to_owned() };
        let foreign = ["5", "null", "1700000000:0", "b3f1c0de-2f1e-4d7c-9a55-0f6a5e1b2c3d", "a\u{e9}"];
        let ours = ["1:ffffffff".to_owned(), format!("99:{epoch}"), format!("0:{epoch}_0:{epoch}")];
        for id in ours.into_iter().chain(foreign.map(str::to_owned)) {
            let mut stream = EventStream::resume(server.edge(), "/events?channel=a", &id);
            assert_eq!(stream.read(), gap);
            assert_ne!(stream.last_id, id, "the stream continues from the current position");
            publisher.publish("a", "two");
            while stream.read().data != "two" {}
        }
    }

    /// A history may exceed the send queue of a client: it is sent in parts, as fast as the client reads.
    fn a_complete_history_can_be_recovered(driver) {
        const COUNT: usize = 300;
        let server = TestServer::start(driver, 2);
        let mut publisher = Client::connect(server.edge());
        let padding = "x".repeat(30_000);
        let epoch = publisher.publish("a", "0 x")["epoch"].as_str().unwrap().to_owned();
        for number in 1..COUNT {
            publisher.publish("a", format!("{number} {padding}"));
        }
        let number_of = |data: &str| data.split(' ').next().unwrap().parse::<usize>().unwrap();
        for (target, since) in [
            ("/events?channel=a", format!("0:{epoch}")),
            ("/events?channel=a", "17:fffffffe".to_owned()),
            ("/events?channel=b&channel=a", format!("0:fffffffe_0:{epoch}")),
        ] {
            let mut stream = EventStream::resume(server.edge(), target, &since);
            let mut first = None;
            if since.contains("fffffffe") {
                assert_eq!(stream.read().kind, "gap");
                first = (!target.contains('b')).then(|| number_of(&stream.read().data));
                // After a gap, the newest publications that fit.
                assert!(first.is_none_or(|first| first > 0), "{first:?}");
            }
            for number in first.map_or(0, |first| first + 1)..COUNT {
                assert_eq!(number_of(&stream.read().data), number, "{target}");
            }
            let live = "live".to_owned();
            publisher.publish("a", &live);
            while stream.read().data != live {}
        }
        // By polls.
        let got = super::poll::poll_all(server.edge(), "a", format!("0:{epoch}"), COUNT);
        assert!(got.iter().take(COUNT).enumerate().all(|(at, text)| number_of(text) == at));
        // By commands: a client subscribes again if the server requests it.
        let mut tcp = Client::connect(server.commands());
        tcp.command(&json!({"id": 1, "connect": {}}));
        let mut at = 0;
        loop {
            let recover = json!({"channel": "a", "recover": true, "epoch": epoch, "offset": at});
            let reply = tcp.command(&json!({"id": 2, "subscribe": recover}));
            assert_eq!(reply["subscribe"]["recovered"], true);
            for item in reply["subscribe"]["publications"].as_array().expect("publications") {
                at += 1;
                assert_eq!(item["offset"], at);
            }
            if at >= COUNT {
                break;
            }
            assert_eq!(tcp.read_json()["push"]["unsubscribe"]["code"], 2500);
        }
        publisher.publish("a", "last");
        assert_eq!(tcp.read_json()["push"]["pub"]["data"], "last");
    }

    fn http_1_0_and_head_are_answered(driver) {
        let server = TestServer::start(driver, 1);
        let mut old = Client::connect(server.edge());
        old.send("GET /events HTTP/1.0\r\n\r\n");
        let head = old.read_response_head();
        assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
        old.read_until(b"\n\n");
        Client::connect(server.edge()).publish("lobby", "hello");
        assert!(old.read_until(b"\n\n").ends_with(b"data: hello\n\n"));
        let mut client = Client::connect(server.edge());
        client.send("HEAD /events HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = client.read_response_head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        client.expect_end();
        drop(old);
        wait_until("all subscriptions are gone", || server.sum(|counters| &counters.subscriptions) == 0);
    }

    fn a_client_that_leaves_is_unsubscribed(driver) {
        let server = TestServer::start(driver, 2);
        for way in 0..3 {
            let mut stream = EventStream::connect(server.edge(), "/events?channel=a&channel=b");
            assert!(server.sum(|counters| &counters.connections_open) > 0);
            match way {
                0 => stream.client.end(),
                1 => stream.client.reset(),
                _ => drop(stream),
            }
            wait_until("the subscription is gone", || {
                server.sum(|counters| &counters.subscriptions) == 0 && server.sum(|counters| &counters.connections_open) == 0
            });
        }
    }

    fn data_after_the_request_is_ignored(driver) {
        let server = TestServer::start(driver, 1);
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a");
        stream.client.send("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
        stream.client.send(vec![b'x'; 1 << 20]);
        Client::connect(server.edge()).publish("a", "hello");
        stream.expect("hello");
    }

    fn an_idle_stream_is_kept_alive_by_lines_without_an_event(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.keepalive_interval = Duration::from_millis(200);
        });
        for headers in ["", "Connection: close\r\n"] {
            let mut stream = EventStream::connect_with(server.edge(), "/events", headers);
            for _ in 0..3 {
                let line = String::from_utf8(stream.read_until(b"\n")).expect("text");
                assert_eq!(line, format!("retry: {}\n", stream.retry.expect("a time")));
            }
            Client::connect(server.edge()).publish("lobby", "hello");
            stream.expect("hello");
        }
    }

    fn a_slow_consumer_is_disconnected_and_others_are_not(driver) {
        let server = TestServer::start_with(driver, 1, |config| {
            config.send_queue_bytes_max = 64 * 1024;
            config.namespaces = fantail::config::Namespaces::new(fantail::config::ChannelOptions {
                history_size: 0,
                ..fantail::config::ChannelOptions::development()
            });
        });
        for target in ["/events?channel=a", "/events?channel=a&channel=b"] {
            let slow = EventStream::over(Client::connect_narrow(server.edge()), target, "");
            let mut fast = EventStream::connect(server.edge(), target);
            let mut publisher = Client::connect(server.edge());
            let before = server.closed(CloseReason::SlowConsumer);
            let payload = "x".repeat(8 * 1024);
            let mut published = 0;
            wait_until("the slow consumer is disconnected", || {
                publisher.publish("a", &payload);
                fast.expect(&payload);
                published += 1;
                server.closed(CloseReason::SlowConsumer) > before
            });
            assert!(published > 7, "{published}: its send queue was used");
            publisher.publish("a", "still here");
            fast.expect("still here");
            drop(slow);
        }
    }

    /// http-proxy 1.18 keeps the stream of a client that has left open without reading it.
    fn a_stream_ends_after_its_maximum_lifetime_and_resumes_without_loss(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.stream_lifetime = Duration::from_secs(2));
        let mut publisher = Client::connect(server.edge());
        let mut stream = EventStream::connect(server.edge(), "/events?channel=a");
        publisher.publish("a", "one");
        stream.expect("one");
        let (rest, end) = stream.read_to_end();
        assert_eq!(rest, "event: disconnect\ndata: {\"code\":3000,\"reason\":\"stream lifetime\"}\n\n");
        assert_eq!((end, server.closed(CloseReason::StreamLifetime)), (StreamEnd::NoLastChunk, 1));
        publisher.publish("a", "two");
        EventStream::resume(server.edge(), "/events?channel=a", &stream.last_id).expect("two");
        // A stream whose client does not read its send queue ends too.
        let narrow = Client::connect_narrow(server.edge());
        let mut unread = EventStream::over(narrow, "/events?channel=a", "");
        for _ in 0..30 {
            publisher.publish("a", "x".repeat(64 * 1024));
        }
        wait_until("the stream is closed", || server.closed(CloseReason::StreamLifetime) == 2);
        wait_until("everything is freed", || server.sum(|counters| &counters.subscriptions) == 0);
        unread.client.expect_gone();
    }

    /// r3labs/sse 2.10 does not reconnect after a regular end of the response, and go-sse 0.12 not after one that
    /// follows a comment.
    fn a_stopping_server_aborts_its_streams_so_that_clients_reconnect(driver) {
        let server = TestServer::start(driver, 2);
        let mut streams = [
            EventStream::connect(server.edge(), "/events"),
            EventStream::connect(server.edge(), "/events?channel=a&channel=b"),
            EventStream::connect_with(server.edge(), "/events", "Connection: close\r\n"),
        ];
        server.stop();
        for stream in &mut streams {
            let (rest, end) = stream.read_to_end();
            assert_eq!(rest, "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\"}\n\n");
            assert_ne!(end, StreamEnd::LastChunk);
        }
    }

    fn a_client_disconnected_for_good_gets_204_when_it_reconnects(driver) {
        let server = TestServer::start(driver, 2);
        let mut api = Client::connect(server.edge());
        for (headers, expected) in [("", StreamEnd::LastChunk), ("Connection: close\r\n", StreamEnd::Close)] {
            let mut stream = EventStream::connect_with(server.edge(), "/events?channel=a", headers);
            let presence = api.call("presence", &json!({"channel": "a"}));
            let clients = presence["result"]["presence"].as_object().expect("clients").clone();
            for client in clients.keys() {
                api.call("disconnect", &json!({"client": client}));
            }
            let (rest, end) = stream.read_to_end();
            let disconnect = "event: disconnect\ndata: {\"code\":3503,\"reason\":\"force disconnect\"}\n\n";
            assert_eq!((rest, end), (format!("id: ended\n{disconnect}"), expected));
            let mut again = Client::connect(server.edge());
            again.send("GET /events?channel=a HTTP/1.1\r\nHost: t\r\nLast-Event-ID: ended\r\n\r\n");
            assert_eq!(again.read_response().status, 204);
            wait_until("everything is freed", || server.sum(|counters| &counters.subscriptions) == 0);
        }
    }
}
