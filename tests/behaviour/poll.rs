//! Long polls: `GET /poll`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fantail::config::{ChannelOptions, Namespaces};
use fantail::message::TransportKind;

use crate::support::{Client, Response, TestServer, on_both_drivers, wait_until};

/// Polls from a position until `count` publications arrived.
pub fn poll_all(edge: SocketAddr, channel: &str, mut since: String, count: usize) -> Vec<String> {
    let mut client = Client::connect(edge);
    let mut got = Vec::new();
    while got.len() < count {
        let answer = client.get(&format!("/poll?channel={channel}&since={since}")).json();
        got.extend(texts(&answer));
        answer["position"].as_str().expect("a position").clone_into(&mut since);
        assert_eq!(answer.get("recovered"), None, "{answer}");
    }
    got
}

fn texts(answer: &Value) -> Vec<String> {
    let publications = answer["publications"].as_array().expect("a list");
    publications.iter().map(|item| item["data"].as_str().expect("text").to_owned()).collect()
}

/// The position of a channel, by a poll that does not wait.
fn position(edge: SocketAddr, query: &str) -> String {
    let mut client = Client::connect(edge);
    client.send(format!("HEAD /poll?{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let etag = client.read_response_head().header("etag").expect("an entity tag").to_owned();
    etag.trim_matches('"').to_owned()
}

fn send_poll(client: &mut Client, query: &str) {
    client.send(format!("GET /poll?{query} HTTP/1.1\r\nHost: t\r\n\r\n"));
}

/// Number of subscriptions, including unfinished ones, whose polls may miss the next publication if they have no
/// position.
fn waiting_polls(server: &TestServer) -> u64 {
    server.sum(|counters| &counters.subscriptions)
}

/// Number of polls whose subscriptions are complete and that are not yet answered.
fn answerable_polls(server: &TestServer) -> u64 {
    server.sum(|counters| &counters.connections[TransportKind::LongPoll as usize])
}

/// A simple polling loop with a browser's cookies.
struct Browser {
    client: Client,
    cookie: String,
}

impl Browser {
    fn poll(&mut self, target: &str) -> Response {
        let cookie = &self.cookie;
        self.client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"));
        let response = self.client.read_response();
        let set =
            response.header("set-cookie").expect("a cookie").split_once(';').expect("attributes");
        set.0.clone_into(&mut self.cookie);
        response
    }
}

on_both_drivers! {
    fn a_poll_is_answered_by_the_next_publication(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let mut publisher = Client::connect(server.edge());
        for round in 1..=20_u64 {
            let since = position(server.edge(), "channel=a");
            send_poll(&mut client, &format!("channel=a&since={since}"));
            wait_until("the poll waits", || waiting_polls(&server) == 1);
            let published = publisher.publish("a", format!("{{\"round\":{round}}}"));
            let answer = client.read_response();
            assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store, no-transform")));
            let position = format!("{}:{}", round, published["epoch"].as_str().unwrap());
            assert_eq!(answer.header("etag"), Some(&*format!("\"{position}\"")));
            assert_eq!(answer.json(), json!({
                "publications": [{"channel": "a", "offset": round, "data": {"round": round}}],
                "position": position,
            }));
            wait_until("the poll is over", || waiting_polls(&server) == 0);
        }
    }

    fn a_poll_ends_at_its_timeout_and_can_be_repeated(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        let mut since = position(server.edge(), "channel=a&channel=b");
        for _ in 0..2 {
            let began = Instant::now();
            let answer = client.get(&format!("/poll?channel=a&channel=b&since={since}&timeout=1"));
            // Proxies with the same timeout must have the response by then, so it is sent up to one sweep earlier.
            assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
            let body = answer.json();
            assert_eq!((&body["publications"], &body["timeout"]), (&json!([]), &json!(true)));
            body["position"].as_str().expect("a position").clone_into(&mut since);
        }
        assert_eq!(waiting_polls(&server), 0);
    }

    fn no_publication_is_lost_between_two_polls(driver) {
        let server = TestServer::start(driver, 2);
        let edge = server.edge();
        const COUNT: usize = 2000;
        let both = position(edge, "channel=a&channel=b");
        let since = both.split('_').next().expect("two").to_owned();
        std::thread::scope(|scope| {
            let pollers: Vec<_> = (0..4)
                .map(|_| {
                    let since = since.clone();
                    scope.spawn(move || poll_all(edge, "a", since, COUNT))
                })
                .collect();
            let both = scope.spawn(move || {
                let mut client = Client::connect(edge);
                let (mut got, mut tag) = (Vec::new(), both);
                while got.len() < COUNT {
                    client.send(format!(
                        "GET /poll?channel=a&channel=b HTTP/1.1\r\nHost: t\r\nIf-None-Match: \"{tag}\"\r\n\r\n"
                    ));
                    let answer = client.read_response();
                    got.extend(texts(&answer.json()));
                    answer.header("etag").expect("a tag").trim_matches('"').clone_into(&mut tag);
                }
                got
            });
            scope.spawn(move || {
                let mut publisher = Client::connect(edge);
                for number in 0..COUNT {
                    publisher.publish("a", format!("n{number}"));
                }
            });
            let expected: Vec<String> = (0..COUNT).map(|number| format!("n{number}")).collect();
            for poller in pollers.into_iter().chain([both]) {
                assert_eq!(poller.join().expect("polls"), expected);
            }
        });
    }

    fn thousands_of_polls_are_answered_by_one_publication_and_poll_again(driver) {
        let server = TestServer::start(driver, 2);
        let edge = server.edge();
        const POLLS: usize = 2000;
        const ROUNDS: u64 = 20;
        let since = position(edge, "channel=a");
        let epoch = since.split_once(':').expect("a position").1.to_owned();
        let mut clients: Vec<_> = (0..POLLS).map(|_| Client::connect(edge)).collect();
        for client in &mut clients {
            send_poll(client, &format!("channel=a&since={since}"));
        }
        let mut publisher = Client::connect(edge);
        for round in 1..=ROUNDS {
            // Some polls wait by now and some are on their way: all must be answered alike.
            publisher.publish("a", round.to_string());
            for client in &mut clients {
                let answer = client.read_response().json();
                assert_eq!(answer["position"], format!("{round}:{epoch}"));
                assert_eq!(answer["publications"].as_array().map(Vec::len), Some(1));
                assert_eq!(answer["publications"][0]["data"], json!(round));
                send_poll(client, &format!("channel=a&since={round}:{epoch}"));
            }
        }
        drop(clients);
        wait_until("everything is freed", || waiting_polls(&server) == 0);
    }

    fn a_simple_loop_receives_each_publication_once(driver) {
        let server = TestServer::start(driver, 2);
        let edge = server.edge();
        for target in ["/poll", "/poll?channel=a&channel=lobby"] {
            let mut browser = Browser { client: Client::connect(edge), cookie: "theme=dark".to_owned() };
            let first = browser.poll(&format!("{target}{}timeout=1", if target.contains('?') { "&" } else { "?" }));
            assert_eq!(first.json()["data"], Value::Null);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut publisher = Client::connect(edge);
                    for number in 0..300 {
                        publisher.publish("lobby", number.to_string());
                    }
                    stop.store(true, Ordering::Relaxed);
                });
                for number in 0..300 {
                    let answer = browser.poll(target).json();
                    assert_eq!(answer["data"], json!(number), "{answer}");
                    assert_eq!(answer["publications"].as_array().map(Vec::len), Some(1));
                }
            });
        }
    }

    fn a_failed_recovery_is_reported_with_the_kept_or_the_next_publications(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        let mut publisher = Client::connect(server.edge());
        let epoch = publisher.publish("a", "one")["epoch"].as_str().unwrap().to_owned();
        let foreign = ["1:ffffffff".to_owned(), format!("99:{epoch}"), "x".to_owned()];
        for since in &foreign {
            let answer = client.get(&format!("/poll?channel=a&since={since}")).json();
            assert_eq!((&answer["recovered"], texts(&answer)), (&json!(false), vec!["one".to_owned()]));
            assert_eq!(answer["position"], format!("1:{epoch}"));
        }
        assert_eq!(publisher.call("history_remove", &json!({"channel": "a"})), json!({"result": {}}));
        for (since, number) in foreign.iter().zip(2..) {
            send_poll(&mut client, &format!("channel=a&since={since}"));
            wait_until("the poll waits", || answerable_polls(&server) == 1);
            publisher.publish("a", "next");
            let answer = client.read_response().json();
            assert_eq!((&answer["recovered"], &answer["publications"][0]["data"]), (&json!(false), &json!("next")));
            assert_eq!(answer["position"], format!("{number}:{epoch}"));
            publisher.call("history_remove", &json!({"channel": "a"}));
        }
        publisher.publish("a", "last");
        let answer = client.get(&format!("/poll?channel=a&since=4:{epoch}")).json();
        assert_eq!(texts(&answer), ["last"]);
    }

    /// A channel without history or recovery does not know what followed a position. A polling loop still receives new
    /// publications, is informed of a possible gap, and does not spin.
    fn a_loop_receives_publications_of_channels_without_history(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            let open = ChannelOptions::development();
            let mut namespaces = Namespaces::new(open.clone());
            namespaces.add("none", ChannelOptions { history_size: 0, ..open.clone() }).unwrap();
            namespaces.add("off", ChannelOptions { recovery: false, ..open }).unwrap();
            config.namespaces = namespaces;
        });
        let mut publisher = Client::connect(server.edge());
        for query in ["channel=none:a", "channel=off:a", "channel=a&channel=none:a", "channel=off:a&channel=a"] {
            let last = query.rsplit('=').next().unwrap();
            let channel = query.split(['=', '&']).find(|part| part.contains(':')).unwrap_or(last).to_owned();
            let mut client = Client::connect(server.edge());
            let first = client.get(&format!("/poll?{query}&timeout=0")).json();
            let mut since = first["position"].as_str().unwrap().to_owned();
            for way in ["since", "header", "tag"] {
                for round in 0..3 {
                    let (target, header) = match way {
                        "since" => (format!("&since={since}"), String::new()),
                        "header" => (String::new(), format!("Last-Event-ID: {since}\r\n")),
                        _ => (String::new(), format!("If-None-Match: W/\"{since}-gzip\"\r\n")),
                    };
                    client.send(format!("GET /poll?{query}{target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
                    wait_until("the poll waits", || answerable_polls(&server) == 1);
                    publisher.publish(&channel, format!("{way} {round}"));
                    let answer = client.read_response().json();
                    assert_eq!(texts(&answer), [format!("{way} {round}")], "{query}");
                    answer["position"].as_str().unwrap().clone_into(&mut since);
                    wait_until("the poll is over", || waiting_polls(&server) == 0);
                }
            }
            // A publication between two polls is lost, and the gap is reported.
            publisher.publish(&channel, "lost");
            let answer = client.get(&format!("/poll?{query}&since={since}&timeout=1")).json();
            assert_eq!((&answer["recovered"], &answer["timeout"]), (&json!(false), &json!(true)), "{query}");
        }
    }

    /// WHATWG Fetch and RFC 9111 4.3.2: caches turn HEAD into GET, so the position is requested by GET.
    fn a_poll_with_timeout_0_returns_the_position(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.edge());
        let epoch = client.publish("a", "one")["epoch"].as_str().unwrap().to_owned();
        let began = Instant::now();
        let answer = client.get("/poll?channel=a&timeout=0");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
        assert_eq!((&answer.json()["position"], &answer.json()["timeout"]), (&json!(format!("1:{epoch}")), &json!(true)));
        let missed = client.get(&format!("/poll?channel=a&timeout=0&since=0:{epoch}")).json();
        assert_eq!((texts(&missed), missed.get("timeout")), (vec!["one".to_owned()], None));
    }

    fn aborted_polls_leave_nothing_behind(driver) {
        let server = TestServer::start(driver, 2);
        for way in 0..2 {
            let mut clients: Vec<_> = (0..50).map(|_| Client::connect(server.edge())).collect();
            for client in &mut clients {
                send_poll(client, "channel=a&channel=b&timeout=120");
            }
            wait_until("all polls wait", || waiting_polls(&server) == 100);
            for client in clients {
                // A client that closes both halves answers further data with a reset.
                match way {
                    0 => client.reset(),
                    _ => drop(client),
                }
            }
            wait_until("everything is freed", || {
                waiting_polls(&server) == 0
                    && server.sum(|counters| &counters.connections_open) == 0
                    && server.sum(|counters| &counters.channels) == 0
            });
        }
    }

    fn a_client_that_half_closes_after_its_poll_still_receives_missed_publications(driver) {
        let server = TestServer::start(driver, 2);
        let epoch = Client::connect(server.edge()).publish("a", "one")["epoch"].as_str().unwrap().to_owned();
        let mut client = Client::connect(server.edge());
        send_poll(&mut client, &format!("channel=a&since=0:{epoch}"));
        client.end();
        assert_eq!(texts(&client.read_response().json()), ["one"]);
        client.expect_end();
        wait_until("everything is freed", || waiting_polls(&server) == 0);
    }

    /// `printf ... | nc -N` is a client. RFC 9110 15.2: interim responses may precede the final one.
    fn a_half_closed_client_is_answered_by_the_next_publication(driver) {
        let server = TestServer::start(driver, 2);
        let mut publisher = Client::connect(server.edge());
        let waits_for = [Duration::ZERO, Duration::from_millis(1800)];
        for (version, ends_late, waits) in [
            ("1.1", false, waits_for[0]),
            ("1.1", true, waits_for[0]),
            ("1.1", true, waits_for[1]),
            ("1.0", true, waits_for[1]),
        ] {
            let mut client = Client::connect(server.edge());
            client.send(format!("GET /poll?channel=a&since=&timeout=60 HTTP/{version}\r\nHost: t\r\n\r\n"));
            if ends_late {
                wait_until("the poll waits", || answerable_polls(&server) == 1);
            }
            client.end();
            wait_until("the poll waits", || answerable_polls(&server) == 1);
            std::thread::sleep(waits);
            publisher.publish("a", "x");
            let mut answer = client.read_response();
            while answer.status == 100 {
                assert_eq!(version, "1.1");
                answer = client.read_response();
            }
            assert_eq!(texts(&answer.json()), ["x"]);
            client.expect_end();
        }
        // It is answered at its timeout if nothing is published.
        let mut client = Client::connect(server.edge());
        send_poll(&mut client, "channel=a&timeout=3");
        client.end();
        let began = Instant::now();
        let mut answer = client.read_response();
        while answer.status == 100 {
            answer = client.read_response();
        }
        assert_eq!(answer.json()["timeout"], true);
        assert!((1500..3500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        wait_until("everything is freed", || waiting_polls(&server) == 0);
    }

    fn requests_pipelined_after_a_poll_are_answered_after_it(driver) {
        let server = TestServer::start(driver, 2);
        let places = ["a", "b", "c"].map(|channel| {
            format!("channel={channel}&since={}", position(server.edge(), &format!("channel={channel}")))
        });
        let mut client = Client::connect(server.edge());
        send_poll(&mut client, &places[0]);
        client.send("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
        send_poll(&mut client, &places[1]);
        wait_until("the poll waits", || waiting_polls(&server) == 1);
        let mut publisher = Client::connect(server.edge());
        publisher.publish("a", "x");
        assert_eq!(texts(&client.read_response().json()), ["x"]);
        assert_eq!(client.read_response().json()["status"], "live");
        wait_until("the next poll waits", || waiting_polls(&server) == 1);
        publisher.publish("b", "y");
        assert_eq!(texts(&client.read_response().json()), ["y"]);
        // More than may be buffered: it is read once the poll is answered.
        send_poll(&mut client, &places[2]);
        wait_until("the poll waits", || waiting_polls(&server) == 1);
        for _ in 0..2000 {
            client.send("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        publisher.publish("c", "z");
        assert_eq!(texts(&client.read_response().json()), ["z"]);
        for _ in 0..2000 {
            assert_eq!(client.read_response().json()["status"], "live");
        }
    }

    /// RFC 9112 9.3.2: pipelined requests are all answered; 9.6: also those of a half-closed client.
    fn a_poll_pipelined_after_one_that_two_channels_answer_at_once_is_answered_too(driver) {
        let server = TestServer::start(driver, 1);
        let mut api = Client::connect(server.edge());
        for _ in 0..5 {
            let mut client = Client::connect(server.edge());
            let polls = ["channel=a&channel=b&since=", "channel=a&since="];
            client.send(polls.map(|query| format!("GET /poll?{query} HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n")).concat());
            wait_until("the poll waits", || answerable_polls(&server) == 1);
            client.end();
            api.call("broadcast", &json!({"channels": ["a", "b"], "data": "first"}));
            assert_eq!(texts(&client.read_response().json()), ["first"]);
            wait_until("the next poll waits", || answerable_polls(&server) == 1);
            api.call("publish", &json!({"channel": "a", "data": "second"}));
            assert_eq!(texts(&client.read_response().json()), ["second"]);
            client.expect_end();
        }
    }

    fn a_stopping_server_answers_waiting_polls(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = Client::connect(server.edge());
        send_poll(&mut client, "channel=a&timeout=120");
        wait_until("the poll waits", || waiting_polls(&server) == 1);
        server.stop();
        let answer = client.read_response();
        assert_eq!((answer.header("connection"), &answer.json()["timeout"]), (Some("close"), &json!(true)));
        client.expect_end();
    }

    fn unknown_namespaces_and_invalid_queries_are_rejected(driver) {
        let server = TestServer::start(driver, 2);
        for path in ["/poll", "/events"] {
            for (query, status) in [
                ("channel=nowhere:1", 404),
                ("channel=a&channel=nowhere:1", 404),
                ("channel=", 400),
            ] {
                let mut client = Client::connect(server.edge());
                let answer = client.get(&format!("{path}?{query}"));
                assert_eq!(answer.status, status, "{path}?{query}");
                assert_eq!(answer.json()["error"]["status"], status);
                if status == 404 {
                    client.expect_end();
                } else {
                    assert_eq!(client.get("/health/live").status, 200, "{path}?{query}");
                }
            }
        }
        wait_until("everything is freed", || waiting_polls(&server) == 0);
    }
}
