//! The client commands: publish, subscribe, top.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use fantail::config::ChannelOptions;
use fantail::message::{CloseReason, TransportKind};
use serde_json::json;

use crate::support::{
    Client, Ended, EventStream, PATIENCE, TestServer, WebSocket, on_both_drivers, run, run_with,
    wait_until,
};

/// A `fantail subscribe` process, killed on drop.
struct Subscriber {
    child: std::process::Child,
    lines: Receiver<String>,
    notes: Receiver<String>,
}

impl Subscriber {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .arg("subscribe")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let notes = lines_of(child.stderr.take().unwrap());
        Self { child, lines, notes }
    }

    #[track_caller]
    fn expect(&self, line: &str) {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(got) => assert_eq!(got, line),
            Err(_) => {
                panic!("{line:?} is not printed; {:?}", self.notes.try_iter().collect::<Vec<_>>())
            }
        }
    }

    #[track_caller]
    fn expect_note(&self, words: &str) {
        loop {
            let note = self.notes.recv_timeout(PATIENCE);
            let note = note.unwrap_or_else(|_| panic!("no note contains {words:?}"));
            if note.contains(words) {
                return;
            }
        }
    }

    #[track_caller]
    fn expect_end(mut self) {
        wait_until("the process exits", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.lines.try_iter().next(), None, "nothing follows");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // Both fail if the process has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    lines
}

fn http(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// All transports: name, server URL, and kind in the server's counters.
fn transports(server: &TestServer) -> [(&'static str, String, TransportKind); 5] {
    let edge = http(server.edge());
    [
        ("websocket", edge.clone(), TransportKind::WebSocket),
        ("commands", edge.clone(), TransportKind::CommandsWebSocket),
        ("tcp", format!("tcp://{}", server.commands()), TransportKind::CommandsTcp),
        ("sse", edge.clone(), TransportKind::Sse),
        ("poll", edge, TransportKind::LongPoll),
    ]
}

fn with_history(driver: fantail::config::DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.namespaces.set_default(ChannelOptions::development()).unwrap();
    })
}

/// Waits until the channel's home worker knows of this many subscribers, so that they receive what is published next.
/// The counter of subscriptions counts each before its home worker has heard of it.
fn await_subscribers(server: &TestServer, channel: &str, count: u64) {
    let mut client = Client::connect(server.edge());
    wait_until("the home worker knows of all subscribers", || {
        let stats = client.call("presence_stats", &json!({"channel": channel}));
        stats["result"]["num_clients"] == count
    });
}

#[track_caller]
fn expect_failure(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {ended:?}");
    }
}

on_both_drivers! {
    fn each_transport_prints_one_publication_per_line(driver) {
        let server = with_history(driver);
        let subscribers = transports(&server).map(|(transport, address, kind)| {
            let arguments = ["a b", "b", "--transport", transport, "--server", &address, "--count", "7"];
            let subscriber = Subscriber::start(&arguments);
            wait_until(transport, || server.sum(|counters| &counters.connections[kind as usize]) == 1);
            subscriber
        });
        await_subscribers(&server, "a b", 5);
        await_subscribers(&server, "b", 5);
        let mut client = Client::connect(server.edge());
        client.publish("b", "plain text");
        for subscriber in &subscribers {
            subscriber.expect("plain text");
        }
        client.publish("a%20b", "{\"n\":\n1, \"n\": 1.0}");
        client.publish("a%20b", "two\nlines");
        // The event type is not part of the payload.
        client.publish("b&event=note", "é");
        // JSON that some parsers reject (RFC 8259, sections 6 and 8.2), and a JSON string.
        client.publish("b", "[1e400, \"\\ud800\"]");
        client.publish("b", "\"a \\u00e9\"");
        for (subscriber, (transport, ..)) in subscribers.iter().zip(transports(&server)) {
            let lines = ["{\"n\": 1, \"n\": 1.0}", "\"two\\nlines\"", "é", "[1e400, \"\\ud800\"]", "a é"];
            let mut rest = lines.map(str::to_owned).to_vec();
            for _ in 0..5 {
                let line = subscriber.lines.recv_timeout(PATIENCE).unwrap();
                let at = rest.iter().position(|it| *it == line);
                rest.remove(at.unwrap_or_else(|| panic!("{transport}: {line:?} is not in {rest:?}")));
            }
        }
        let mut bytes = Client::connect(server.edge());
        bytes.send(
            "POST /publish?channel=b HTTP/1.1\r\nHost: t\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: 2\r\n\r\n",
        );
        bytes.send([0xff, 0x00]);
        for subscriber in subscribers {
            subscriber.expect("/wA=");
            subscriber.expect_end();
        }
    }

    fn a_subscriber_that_loses_its_connection_reconnects_and_misses_nothing(driver) {
        let server = with_history(driver);
        // Connections go through a relay that can be cut while the server keeps running.
        for (transport, address, _) in transports(&server).into_iter().skip(1) {
            let (scheme, to) = address.split_once("://").unwrap();
            let relay = Relay::open(to.parse().unwrap());
            let through = format!("{scheme}://{}", relay.address);
            let subscriber = Subscriber::start(&["a", "--transport", transport, "--server", &through, "--count", "4"]);
            await_subscribers(&server, "a", 1);
            let mut client = Client::connect(server.edge());
            client.publish("a", "one");
            subscriber.expect("one");
            // The poll transport is between two polls or waits again.
            relay.cut();
            subscriber.expect_note("reconnecting");
            for missed in ["two", "three"] {
                client.publish("a", missed);
            }
            relay.pass();
            subscriber.expect("two");
            subscriber.expect("three");
            client.publish("a", "four");
            subscriber.expect("four");
            subscriber.expect_end();
            await_subscribers(&server, "a", 0);
        }
    }

    fn a_poll_that_is_cut_before_the_first_publication_misses_nothing(driver) {
        let server = with_history(driver);
        let relay = Relay::open(server.edge());
        let through = http(relay.address);
        let subscriber = Subscriber::start(&["a", "--transport", "poll", "--server", &through, "--count", "1"]);
        wait_until("the second poll arrives", || server.sum(|counters| &counters.received_messages) == 2);
        relay.cut();
        subscriber.expect_note("reconnecting");
        Client::connect(server.edge()).publish("a", "missed");
        relay.pass();
        subscriber.expect("missed");
        subscriber.expect_end();
    }

    fn published_payloads_arrive_with_their_payload_kind_and_event_type(driver) {
        let server = TestServer::start_with(driver, 2, |config| config.api_key = Some("secret".into()));
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a%26b");
        let mut events = EventStream::connect(server.edge(), "/events?channel=a%26b");
        wait_until("both are subscribed", || server.sum(|counters| &counters.subscriptions) == 2);
        let edge = http(server.edge());
        let refused = run(&["publish", "a&b", "x", "--server", &edge]);
        expect_failure(&refused, &["401", "key"]);
        let published = run(&["publish", "a&b", "hello", "--event", "my type", "--api-key", "secret", "--server", &edge]);
        assert!(published.status.success(), "{published:?}");
        let position: serde_json::Value = serde_json::from_str(&published.stdout).unwrap();
        assert_eq!(position["offset"], 1);
        subscriber.expect_text("hello");
        let event = events.read_until(b"data: hello\n");
        assert!(String::from_utf8_lossy(&event).contains("event: my type\n"));
        let key = [("FANTAIL_API_KEY", "secret")];
        // Child processes of a test have an empty standard input.
        let published = run_with(&key, &["publish", "a&b", "--server", &edge]);
        assert!(published.status.success(), "{published:?}");
        subscriber.expect_text("");
        let mut child = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .args(["publish", "a&b", "-", "--api-key", "secret", "--server", &edge])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"\xff\xfe").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(subscriber.read(), crate::support::Received::Binary(vec![0xff, 0xfe]));
    }

    fn top_once_prints_the_rates_of_one_second(driver) {
        let server = TestServer::start(driver, 2);
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let edge = http(server.edge());
        let (sender, stop) = channel();
        let publisher = std::thread::spawn({
            let edge = server.edge();
            move || {
                let mut client = Client::connect(edge);
                while stop.try_recv().is_err() {
                    client.publish("a", "x");
                    subscriber.expect_text("x");
                }
            }
        });
        let top = run(&["top", "--once", "--server", &edge]);
        sender.send(()).unwrap();
        publisher.join().unwrap();
        assert!(top.status.success(), "{top:?}");
        let line = |start: &str| {
            let found = top.stdout.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("no {start} in {}", top.stdout)).to_owned()
        };
        assert!(line("fantail ").contains("workers 2"));
        assert!(line("connections ").contains("websocket 1"));
        let publications = line("publications/s");
        let numbers: Vec<f64> =
            publications.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[0] > 0.0 && numbers[1] > 0.0 && numbers[2] == 0.0, "{publications}");
        assert!(line("lag").contains("µs") || line("lag").contains("ms"), "{}", line("lag"));
        let workers = top.stdout.lines().filter(|line| line.trim_end().ends_with('%'));
        assert_eq!(workers.count(), 2, "{}", top.stdout);
        assert!(!top.stdout.contains('\x1b'), "output for scripts is plain text");
    }

    fn a_client_command_that_fails_prints_the_reason_in_one_line(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.subscriptions_max = 1);
        let edge = http(server.edge());
        let tcp = format!("tcp://{}", server.commands());
        for transport in ["websocket", "sse", "poll"] {
            let ended = run(&["subscribe", "a", "b", "--transport", transport, "--server", &edge]);
            expect_failure(&ended, &["400", "at most 1"]);
        }
        expect_failure(&run(&["subscribe", "a", "b", "--transport", "tcp", "--server", &tcp]), &["refused"]);
        expect_failure(&run(&["subscribe", "a", "--transport", "commands", "--server", &tcp]), &["http://"]);
        expect_failure(&run(&["publish", "", "x", "--server", &edge]), &["400"]);
        expect_failure(&run(&["publish", "a", "x", "--server", &tcp]), &["http://"]);
        // A port that serves another protocol.
        let echo = http(server.echo_tcp());
        expect_failure(&run(&["publish", "a", "x", "--server", &echo]), &["fantail server"]);
        expect_failure(&run(&["top", "--once", "--server", &http(server.echo())]), &["426"]);
        let closed = http(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        for command in [&["publish", "a", "x"][..], &["subscribe", "a"], &["top", "--once"]] {
            let ended = run(&[command, &["--server", &closed]].concat());
            expect_failure(&ended, &[closed.strip_prefix("http://").unwrap()]);
        }
        assert_eq!(server.closed(CloseReason::SlowConsumer), 0);
    }
}

/// A TCP relay to a server that can be cut: open connections are closed and new ones are rejected.
struct Relay {
    address: SocketAddr,
    commands: std::sync::mpsc::Sender<bool>,
}

impl Relay {
    fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (commands, inbox) = channel::<bool>();
        std::thread::spawn(move || {
            let mut is_open = true;
            let mut pairs: Vec<[std::net::TcpStream; 2]> = Vec::new();
            loop {
                match inbox.try_recv() {
                    Ok(open) => is_open = open,
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
                if !is_open {
                    for pair in pairs.drain(..) {
                        let _ = pair.map(|end| end.shutdown(std::net::Shutdown::Both));
                    }
                }
                match listener.accept() {
                    Ok((client, _)) if is_open => {
                        client.set_nonblocking(false).unwrap();
                        let server = std::net::TcpStream::connect(to).unwrap();
                        for (mut from, mut into) in [
                            (client.try_clone().unwrap(), server.try_clone().unwrap()),
                            (server.try_clone().unwrap(), client.try_clone().unwrap()),
                        ] {
                            std::thread::spawn(move || {
                                let _ = std::io::copy(&mut from, &mut into);
                                let _ = into.shutdown(std::net::Shutdown::Both);
                            });
                        }
                        pairs.push([client, server]);
                    }
                    // While the relay is cut, it closes new connections at once.
                    Ok((client, _)) => drop(client.shutdown(std::net::Shutdown::Both)),
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
                }
            }
        });
        Self { address, commands }
    }

    fn cut(&self) {
        self.commands.send(false).unwrap();
    }

    fn pass(&self) {
        self.commands.send(true).unwrap();
    }
}
