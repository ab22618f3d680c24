//! Subscriptions that get something other than all publications as they are: deltas, filters, the latest publication.

use std::collections::VecDeque;

use serde_json::{Value, json};

use fantail::config::{ChannelOptions, Namespaces, RecoveryMode, SlowConsumer};
use fantail::message::TagsFilter;

use crate::support::{Client, SECRET, TestServer, WebSocket, on_both_drivers, token, wait_until};

/// A client of the command protocol that applies deltas as centrifuge-js does.
struct Subscriber {
    socket: WebSocket,
    /// Pushes received before a reply.
    pushes: VecDeque<Value>,
    /// The text of the last publication.
    text: Option<String>,
    /// The bytes of all pushes.
    bytes: usize,
}

/// A publication as its application sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    offset: u64,
    data: Value,
    is_delta: bool,
}

impl Subscriber {
    #[track_caller]
    fn connected(server: &TestServer) -> Self {
        Self::over(WebSocket::connect(server.edge(), "/connection/websocket"))
    }

    #[track_caller]
    fn open(server: &TestServer) -> Self {
        let socket = WebSocket::connect(server.edge(), "/connection/websocket");
        Self { socket, pushes: VecDeque::new(), text: None, bytes: 0 }
    }

    #[track_caller]
    fn over(socket: WebSocket) -> Self {
        let mut client = Self { socket, pushes: VecDeque::new(), text: None, bytes: 0 };
        client.ask(&json!({"id": 1, "connect": {}}));
        client
    }

    /// Subscribes with more members; returns the reply.
    #[track_caller]
    fn subscribe(&mut self, channel: &str, more: &Value) -> Value {
        let mut parameters = json!({"channel": channel});
        let members = more.as_object().unwrap().clone();
        parameters.as_object_mut().unwrap().extend(members);
        self.ask(&json!({"id": 2, "subscribe": parameters}))
    }

    #[track_caller]
    fn ask(&mut self, command: &Value) -> Value {
        self.socket.send_text(&command.to_string());
        loop {
            let object: Value = serde_json::from_str(&self.socket.read_text()).unwrap();
            if object.get("push").is_none() {
                return object;
            }
            self.pushes.push_back(object);
        }
    }

    /// The next publication, of a subscription with deltas.
    #[track_caller]
    fn read(&mut self) -> Seen {
        let push = self.push();
        self.apply(&push)
    }

    #[track_caller]
    fn push(&mut self) -> Value {
        let push = self.pushes.pop_front().unwrap_or_else(|| {
            let text = self.socket.read_text();
            self.bytes += text.len();
            serde_json::from_str(&text).unwrap()
        });
        push["push"]["pub"].clone()
    }

    #[track_caller]
    fn apply(&mut self, publication: &Value) -> Seen {
        let text = publication["data"].as_str().expect("with deltas, data is a string");
        let is_delta = publication["delta"] == true;
        let text = match is_delta {
            true => apply(self.text.as_deref().expect("the first one is whole"), text),
            false => text.to_owned(),
        };
        let seen = Seen {
            offset: publication["offset"].as_u64().unwrap(),
            data: serde_json::from_str(&text).unwrap(),
            is_delta,
        };
        self.text = Some(text);
        seen
    }
}

/// Applies a Fossil delta.
fn apply(source: &str, delta: &str) -> String {
    const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let mut rest = delta;
    let mut target = String::new();
    let number = |rest: &mut &str| {
        let end = rest.find(|digit| !DIGITS.contains(digit)).unwrap();
        let number =
            rest[..end].chars().fold(0, |all, digit| all * 64 + DIGITS.find(digit).unwrap());
        let mark = rest.as_bytes()[end];
        *rest = &rest[end + 1..];
        (number, mark)
    };
    let (len, _) = number(&mut rest);
    loop {
        let (count, mark) = number(&mut rest);
        match mark {
            b'@' => {
                let (from, _) = number(&mut rest);
                target.push_str(&source[from..from + count]);
            }
            b':' => {
                let (literal, left) = rest.split_at(count);
                target.push_str(literal);
                rest = left;
            }
            _ => {
                assert_eq!((target.len(), rest), (len, ""));
                return target;
            }
        }
    }
}

fn document(value: u64) -> Value {
    let rows: Vec<Value> = (0..30).map(|row| json!({"row": row, "name": "é\n\"x\""})).collect();
    json!({"value": value, "rows": rows})
}

fn with(server_options: ChannelOptions) -> impl FnOnce(&mut fantail::config::Config) {
    move |config| config.namespaces = Namespaces::new(server_options)
}

fn options() -> ChannelOptions {
    ChannelOptions::development()
}

fn publish_tagged(http: &mut Client, tag: &str, data: u64) {
    let tags = json!({"lang": tag});
    let reply = http.call("publish", &json!({"channel": "a", "data": data, "tags": tags}));
    assert!(reply.get("result").is_some(), "{reply}");
}

on_both_drivers! {
    fn subscribers_with_deltas_get_the_same_as_others_in_fewer_bytes(driver) {
        let server = TestServer::start_with(driver, 2, with(options()));
        let mut http = Client::connect(server.edge());
        let mut plain = Subscriber::connected(&server);
        assert_eq!(plain.subscribe("a", &json!({}))["subscribe"].get("delta"), None);
        let mut readers: Vec<Subscriber> = (0..6).map(|_| Subscriber::connected(&server)).collect();
        for reader in &mut readers {
            assert_eq!(reader.subscribe("a", &json!({"delta": "fossil"}))["subscribe"]["delta"], true);
        }
        let mut line = Client::connect(server.commands());
        line.command(&json!({"id": 1, "connect": {}}));
        assert_eq!(line.command(&json!({"id": 2, "subscribe": {"channel": "a", "delta": "fossil"}}))["subscribe"]["delta"], true);
        for offset in 1..=20 {
            http.publish("a", document(offset).to_string());
            assert_eq!(plain.push(), json!({"data": document(offset), "offset": offset}));
            for reader in &mut readers {
                assert_eq!(reader.read(), Seen { offset, data: document(offset), is_delta: offset > 1 });
            }
            let push = line.read_json();
            assert_eq!(push["push"]["pub"]["delta"] == true, offset > 1, "{push}");
        }
        assert!(readers[0].bytes < plain.bytes / 5, "{} of {}", readers[0].bytes, plain.bytes);
        // A newcomer starts with a whole one, and the others go on.
        let mut newcomer = Subscriber::connected(&server);
        newcomer.subscribe("a", &json!({"delta": "fossil"}));
        http.publish("a", document(7).to_string());
        assert!(!newcomer.read().is_delta && readers[0].read().is_delta);
        // What is not JSON, and what has nothing in common with the one before.
        http.publish("a", "some text, \"é\"");
        assert_eq!(readers[0].read().data, json!("some text, \"é\""));
        http.publish("a", b"\xff\x00");
        assert_eq!(readers[0].read(), Seen { offset: 23, data: json!("/wA="), is_delta: false });
        // An unknown format ends the session; deltas that the channel does not allow are not given.
        let mut other = Subscriber::connected(&server);
        other.socket.send_text(r#"{"id":2,"subscribe":{"channel":"a","delta":"xor"}}"#);
        other.socket.expect_close(3501);
        let closed = ChannelOptions { allows_deltas: false, ..options() };
        let server = TestServer::start_with(driver, 1, with(closed));
        let mut without = Subscriber::connected(&server);
        assert_eq!(without.subscribe("a", &json!({"delta": "fossil"}))["subscribe"].get("delta"), None);
        Client::connect(server.edge()).publish("a", "[1]");
        assert_eq!(without.push(), json!({"data": [1], "offset": 1}));
    }

    fn deltas_are_made_of_publications_whose_publisher_asks_for_them(driver) {
        let asked = ChannelOptions { delta_publish: false, ..options() };
        let server = TestServer::start_with(driver, 1, with(asked));
        let mut http = Client::connect(server.edge());
        let mut reader = Subscriber::connected(&server);
        reader.subscribe("a", &json!({"delta": "fossil"}));
        for (offset, delta) in (1..).zip([true, true, false, true]) {
            http.call("publish", &json!({"channel": "a", "data": document(offset), "delta": delta}));
            let expected = Seen { offset, data: document(offset), is_delta: delta && offset > 1 };
            assert_eq!(reader.read(), expected);
        }
        let body = json!({"channels": ["a", "b"], "data": document(5), "delta": true});
        http.call("broadcast", &body);
        assert!(reader.read().is_delta);
    }

    fn a_subscriber_that_was_excluded_gets_the_next_publication_whole(driver) {
        let server = TestServer::start_with(driver, 2, with(options()));
        let mut http = Client::connect(server.edge());
        let mut readers = [0, 1].map(|_| Subscriber::connected(&server));
        let mut ids = Vec::new();
        for reader in &mut readers {
            reader.subscribe("a", &json!({"delta": "fossil"}));
            let presence = reader.ask(&json!({"id": 3, "presence": {"channel": "a"}}));
            ids = presence["presence"]["presence"].as_object().unwrap().keys().cloned().collect();
        }
        http.publish("a", document(1).to_string());
        assert!(readers.iter_mut().all(|reader| !reader.read().is_delta));
        http.call("publish", &json!({"channel": "a", "data": document(2), "exclude": ids[0]}));
        http.publish("a", document(3).to_string());
        let mut seen = readers.map(|mut reader| {
            let first = reader.read();
            let rest = if first.offset == 2 { reader.read() } else { Seen { offset: 0, ..reader_of(&first) } };
            (first.offset, first.is_delta, rest.offset, rest.is_delta)
        });
        seen.sort_unstable();
        assert_eq!(seen, [(2, true, 3, true), (3, false, 0, false)]);
    }

    fn a_slow_subscriber_that_catches_up_applies_what_it_gets(driver) {
        for slow_consumer in [SlowConsumer::DropOldest, SlowConsumer::Latest] {
            let server = TestServer::start_with(driver, 1, |config| {
                config.namespaces = Namespaces::new(ChannelOptions { slow_consumer, ..options() });
                config.send_queue_bytes_max = 64 * 1024;
            });
            let mut http = Client::connect(server.edge());
            let mut socket = WebSocket::over(Client::connect_narrow(server.edge()));
            socket.client.send(WebSocket::request("/connection/websocket"));
            socket.read_upgrade();
            let mut slow = Subscriber::over(socket);
            slow.subscribe("a", &json!({"delta": "fossil"}));
            // Nothing of one publication is in another, so that they are sent whole, and the socket gets full.
            let large = |offset: u64| {
                let mut seed = offset;
                let digits = std::iter::repeat_with(|| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    format!("{:016x}", seed)
                });
                json!({"n": offset, "noise": digits.take(2000).collect::<String>()})
            };
            for offset in 1..=200 {
                http.publish("a", large(offset).to_string());
            }
            let mut last = slow.read();
            while last.offset < 200 {
                let push = slow.push();
                if push.is_null() {
                    // A gap, of which this client reads what follows.
                    continue;
                }
                let seen = slow.apply(&push);
                assert!(seen.offset > last.offset, "{} after {}", seen.offset, last.offset);
                assert_eq!(seen.data["n"], seen.offset);
                last = seen;
            }
            for offset in 201..=203 {
                http.publish("a", document(offset).to_string());
                assert_eq!(slow.read().data, document(offset));
            }
            assert!(slow.text.is_some());
        }
    }

    fn a_recovery_has_deltas_and_the_next_publication_is_applied_to_it(driver) {
        let server = TestServer::start_with(driver, 2, with(options()));
        let mut http = Client::connect(server.edge());
        for offset in 1..=10 {
            http.publish("a", document(offset).to_string());
        }
        for since in [0, 5, 10] {
            let mut reader = Subscriber::connected(&server);
            let reply = reader.subscribe("a", &json!({"delta": "fossil", "recover": true, "offset": since}));
            let reply = &reply["subscribe"];
            assert_eq!((&reply["recovered"], &reply["delta"]), (&json!(true), &json!(true)));
            let list = reply["publications"].as_array().unwrap();
            for (offset, publication) in (since + 1..).zip(list) {
                let expected = Seen { offset, data: document(offset), is_delta: offset > since + 1 };
                assert_eq!(reader.apply(publication), expected);
            }
            assert_eq!(list.len() as u64, 10 - since);
            let mut plain = Subscriber::connected(&server);
            let reply = plain.subscribe("a", &json!({"recover": true, "offset": since}));
            let data: Vec<&Value> = reply["subscribe"]["publications"].as_array().unwrap().iter().map(|it| &it["data"]).collect();
            let expected: Vec<Value> = (since + 1..=10).map(document).collect();
            assert_eq!(data, expected.iter().collect::<Vec<_>>());
        }
        let mut reader = Subscriber::connected(&server);
        reader.subscribe("a", &json!({"delta": "fossil", "recover": true, "offset": 10}));
        for offset in 11..=12 {
            http.publish("a", document(offset).to_string());
            assert_eq!(reader.read(), Seen { offset, data: document(offset), is_delta: offset > 11 });
        }
        // The history is for everybody alike.
        let reply = reader.ask(&json!({"id": 4, "history": {"channel": "a", "limit": 1}}));
        assert_eq!(reply["history"]["publications"][0]["data"], document(1));
    }

    fn a_publication_behind_a_position_that_is_gone_is_whole(driver) {
        let server = TestServer::start_with(driver, 2, with(ChannelOptions { history_size: 3, ..options() }));
        let mut http = Client::connect(server.edge());
        for offset in 1..=10 {
            http.publish("a", document(offset).to_string());
        }
        let mut offset = 10;
        for since in [json!({"offset": 2}), json!({"offset": 99}), json!({"offset": 9, "epoch": "00000000"})] {
            let mut reader = Subscriber::connected(&server);
            let mut asked = json!({"delta": "fossil", "recover": true});
            asked.as_object_mut().unwrap().extend(since.as_object().unwrap().clone());
            let reply = reader.subscribe("a", &asked);
            let reply = &reply["subscribe"];
            assert_eq!((&reply["recovered"], &reply["delta"]), (&json!(false), &json!(true)), "{since}");
            assert_eq!(reply["publications"], json!([]));
            for is_delta in [false, true] {
                offset += 1;
                http.publish("a", document(offset).to_string());
                assert_eq!(reader.read(), Seen { offset, data: document(offset), is_delta });
            }
        }
    }

    fn a_client_that_connects_takes_deltas_of_channels_that_the_server_subscribes_it_to(driver) {
        let server = TestServer::start_with(driver, 2, |config| {
            config.hmac_secret = Some(SECRET.into());
            config.namespaces = Namespaces::new(options());
        });
        let mut http = Client::connect(server.edge());
        let mut publish = |channel: &str, offset| {
            let reply = http.call("publish", &json!({"channel": channel, "data": document(offset)}));
            assert!(reply.get("result").is_some(), "{reply}");
        };
        (1..=3).for_each(|offset| publish("a", offset));
        let mut reader = Subscriber::open(&server);
        let token = token(&json!({"sub": "ann", "channels": ["a", "b", "c"]}));
        let recover = json!({"recover": true, "offset": 1, "delta": "fossil"});
        let subs = json!({"a": recover, "b": {"delta": "unknown"}, "nowhere": {"delta": "fossil"}});
        let reply = reader.ask(&json!({"id": 1, "connect": {"token": token, "subs": subs}}));
        let subs = &reply["connect"]["subs"];
        let has_deltas = |channel: &str| subs[channel]["delta"] == true;
        assert_eq!(["a", "b", "c"].map(has_deltas), [true, false, false], "{reply}");
        for (offset, publication) in (2..).zip(subs["a"]["publications"].as_array().unwrap()) {
            let expected = Seen { offset, data: document(offset), is_delta: offset == 3 };
            assert_eq!(reader.apply(publication), expected);
        }
        for offset in 4..=5 {
            publish("a", offset);
            assert_eq!(reader.read(), Seen { offset, data: document(offset), is_delta: offset == 5 });
        }
        publish("b", 1);
        assert_eq!(reader.push()["data"], document(1));
    }

    fn a_filter_selects_publications_by_their_tags(driver) {
        let server = TestServer::start_with(driver, 2, with(options()));
        let mut http = Client::connect(server.edge());
        let is = |tag: &str| json!({"tf": {"key": "lang", "cmp": "eq", "val": tag}});
        let mut all = Subscriber::connected(&server);
        all.subscribe("a", &json!({}));
        let mut readers: Vec<(Subscriber, &str)> = ["en", "de", "en", "fr"].into_iter().map(|tag| {
            let mut reader = Subscriber::connected(&server);
            let reply = reader.subscribe("a", &is(tag));
            assert_eq!(reply["subscribe"]["offset"], 0, "{reply}");
            (reader, tag)
        }).collect();
        let tags = ["en", "de", "en", "it", "de", "en"];
        for (data, tag) in (1..).zip(tags) {
            publish_tagged(&mut http, tag, data);
        }
        for (data, tag) in (1..).zip(tags) {
            assert_eq!(all.push(), json!({"data": data, "offset": data, "tags": {"lang": tag}}));
            for (reader, _) in readers.iter_mut().filter(|(_, wanted)| *wanted == tag) {
                assert_eq!(reader.push()["offset"], data);
            }
        }
        // Recovered publications are filtered too; a history is not.
        let (reader, _) = &mut readers[1];
        reader.ask(&json!({"id": 3, "unsubscribe": {"channel": "a"}}));
        let reply = reader.subscribe("a", &json!({"recover": true, "offset": 2, "tf": {"op": "not", "nodes": [is("en")["tf"]]}}));
        let list = reply["subscribe"]["publications"].as_array().unwrap();
        let offsets: Vec<&Value> = list.iter().map(|it| &it["offset"]).collect();
        assert_eq!((offsets, &reply["subscribe"]["recovered"]), (vec![&json!(4), &json!(5)], &json!(true)));
        let history = reader.ask(&json!({"id": 4, "history": {"channel": "a", "limit": -1}}));
        assert_eq!(history["history"]["publications"].as_array().unwrap().len(), 6);
    }

    fn a_filter_that_is_not_valid_or_not_allowed_is_refused_with_107(driver) {
        let server = TestServer::start_with(driver, 1, with(options()));
        let mut client = Subscriber::connected(&server);
        let is = json!({"key": "a", "cmp": "eq", "val": "1"});
        let wide = |count| json!({"op": "or", "nodes": vec![is.clone(); count]});
        let deep = |depth| (1..depth).fold(is.clone(), |inner, _| json!({"op": "not", "nodes": [inner]}));
        for filter in [
            json!({}),
            json!([]),
            json!("lang"),
            json!({"key": "a", "cmp": "like", "val": "1"}),
            json!({"op": "xor", "nodes": [is]}),
            json!({"op": "not", "nodes": []}),
            json!({"key": "a", "cmp": "in", "vals": []}),
            wide(TagsFilter::NODES_MAX),
            deep(TagsFilter::DEPTH_MAX + 1),
            json!({"key": "a", "cmp": "eq", "val": "x".repeat(TagsFilter::BYTES_MAX)}),
        ] {
            let reply = client.subscribe("a", &json!({"tf": filter}));
            assert_eq!(reply["error"]["code"], 107, "{filter} got {reply}");
        }
        for filter in [wide(TagsFilter::NODES_MAX - 1), deep(TagsFilter::DEPTH_MAX), Value::Null] {
            let reply = client.subscribe("a", &json!({"tf": filter}));
            assert_eq!(reply["subscribe"]["positioned"], true, "{reply}");
            client.ask(&json!({"id": 3, "unsubscribe": {"channel": "a"}}));
        }
        // Maps and polls by key are subscriptions of other types.
        for kind in 1..=4 {
            assert_eq!(client.subscribe("a", &json!({"type": kind}))["error"]["code"], 108);
        }
        let server = TestServer::start_with(driver, 1, with(ChannelOptions { allow_tags_filter: false, ..options() }));
        let mut client = Subscriber::connected(&server);
        let reply = client.subscribe("a", &json!({"tf": is}));
        assert_eq!(reply["error"]["code"], 107, "{reply}");
        assert!(client.subscribe("a", &json!({})).get("subscribe").is_some(), "it is not subscribed");
        wait_until("one is subscribed", || server.sum(|counters| &counters.sent_messages) >= 3);
    }

    fn a_channel_that_is_a_cache_recovers_the_latest_publication(driver) {
        let cache = ChannelOptions { recovery_mode: RecoveryMode::Cache, history_size: 5, ..options() };
        let server = TestServer::start_with(driver, 2, with(cache));
        let mut http = Client::connect(server.edge());
        let recover = |client: &mut Subscriber, channel: &str, more: Value| {
            let mut parameters = more;
            parameters["recover"] = json!(true);
            let reply = client.subscribe(channel, &parameters);
            client.ask(&json!({"id": 3, "unsubscribe": {"channel": channel}}));
            let reply = &reply["subscribe"];
            let list = reply["publications"].as_array().cloned().unwrap_or_default();
            let offsets: Vec<u64> = list.iter().map(|it| it["offset"].as_u64().unwrap()).collect();
            (reply["recovered"].as_bool().unwrap(), offsets)
        };
        let mut client = Subscriber::connected(&server);
        assert_eq!(recover(&mut client, "a", json!({})), (false, vec![]), "it is empty");
        for (data, tag) in (1..).zip(["en", "de", "en", "de"]) {
            publish_tagged(&mut http, tag, data);
        }
        for more in [json!({}), json!({"offset": 1}), json!({"offset": 99, "epoch": "abcd"})] {
            assert_eq!(recover(&mut client, "a", more.clone()), (true, vec![4]), "{more}");
        }
        let filter = json!({"tf": {"key": "lang", "cmp": "eq", "val": "en"}});
        assert_eq!(recover(&mut client, "a", filter), (true, vec![3]));
        let history = client.ask(&json!({"id": 4, "history": {"channel": "a"}}));
        let epoch = &history["history"]["epoch"];
        let latest = recover(&mut client, "a", json!({"offset": 4, "epoch": epoch}));
        assert_eq!(latest, (true, vec![]), "it has it");
    }
}

fn reader_of(seen: &Seen) -> Seen {
    Seen { offset: seen.offset, data: seen.data.clone(), is_delta: false }
}
