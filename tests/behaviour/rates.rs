//! Rates of one client: commands, publications, subscriptions, bytes.

use std::thread;
use std::time::{Duration, Instant};

use fantail::auth::TokenError;
use fantail::config::{Config, DriverChoice};
use fantail::connection::Service;
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;
use serde_json::{Value, json};

use crate::support::{
    Client, EventStream, Received, SECRET, TestServer, WebSocket, masked, on_both_drivers, token,
};

/// Requests per second in these tests: few enough that none is refilled while a test sends some more.
const MAX: usize = 3;

/// After this time, all requests of a second are allowed again.
const REFILLED: Duration = Duration::from_millis(1050);

fn serve(driver: DriverChoice, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(driver, 1, change)
}

fn exceeded(server: &TestServer, rate: &str) -> u64 {
    server.sum(|counters| counters.rates_exceeded.labelled(rate))
}

/// A client of the command protocol over TCP, whose `connect` was answered.
fn connect(server: &TestServer) -> Client {
    let mut client = Client::connect(server.commands());
    assert!(client.command(&json!({"id": 1, "connect": {}}))["connect"].is_object());
    client
}

/// A client of the command protocol over a WebSocket.
fn connect_websocket(server: &TestServer) -> WebSocket {
    let mut socket = WebSocket::connect(server.edge(), "/connection/websocket");
    assert!(command(&mut socket, &json!({"id": 1, "connect": {}}))["connect"].is_object());
    socket
}

fn command(socket: &mut WebSocket, command: &Value) -> Value {
    socket.send_text(&command.to_string());
    serde_json::from_str(&socket.read_text()).unwrap()
}

/// The number of commands that are done of a number that is sent together; the others are refused with error 111.
fn done(replies: &[Value], method: &str) -> usize {
    let (done, refused): (Vec<_>, Vec<_>) =
        replies.iter().partition(|reply| reply[method].is_object());
    assert!(refused.iter().all(|reply| reply["error"]["code"] == 111), "{refused:?}");
    done.len()
}

/// The code with which a WebSocket is closed, whatever comes before.
fn close_code(socket: &mut WebSocket) -> Option<u16> {
    loop {
        if let Received::Close(code, _) = socket.read() {
            return code;
        }
    }
}

on_both_drivers! {
    fn what_is_not_a_command_counts_as_one(driver) {
        let server = serve(driver, |config| config.client_command_rate_max = Some(MAX));
        let mut client = connect(&server);
        thread::sleep(REFILLED);
        client.send("x\n".repeat(MAX + 2) + "{\"id\":9,\"ping\":{}}\n");
        for _ in 0..MAX {
            assert_eq!(client.read_json()["error"]["code"], 107);
        }
        let refused = client.read_json();
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(9), &json!(111)));
        client.send("x\n".repeat(20 * MAX));
        let rest = String::from_utf8(client.read_to_end()).unwrap();
        assert!(rest.contains("3013"), "{rest}");
        let mut socket = connect_websocket(&server);
        socket.send_text(&"x\n".repeat(20 * MAX));
        assert_eq!(close_code(&mut socket), Some(3013));
    }

    fn commands_past_the_rate_are_refused_and_the_session_goes_on(driver) {
        let server = serve(driver, |config| config.client_command_rate_max = Some(MAX));
        let (mut tcp, mut socket) = (connect(&server), connect_websocket(&server));
        thread::sleep(REFILLED);
        let ping = |id| json!({"id": id, "ping": {}});
        let mut over_tcp = || (2..9).map(|id| tcp.command(&ping(id))).collect::<Vec<_>>();
        assert_eq!(done(&over_tcp(), "ping"), MAX);
        thread::sleep(REFILLED);
        assert_eq!(done(&over_tcp(), "ping"), MAX);
        // In one message, and answered in order.
        let lines: Vec<_> = (2..9).map(|id| ping(id).to_string()).collect();
        socket.send_text(&lines.join("\n"));
        let replies: Vec<Value> = (2..9).map(|_| serde_json::from_str(&socket.read_text()).unwrap()).collect();
        assert_eq!(done(&replies, "ping"), MAX);
        assert_eq!(exceeded(&server, "commands"), 3 * 4);
        // Answers to pings are not commands.
        thread::sleep(REFILLED);
        (0..50).for_each(|_| socket.send_text("{}"));
        assert!(command(&mut socket, &ping(9))["ping"].is_object());
    }

    fn a_client_that_goes_on_past_the_rate_is_disconnected(driver) {
        let server = serve(driver, |config| config.client_command_rate_max = Some(MAX));
        let (mut tcp, mut socket) = (connect(&server), connect_websocket(&server));
        // Ten seconds' worth may be refused.
        let commands = 10 * MAX + 5;
        let line = json!({"id": 2, "ping": {}}).to_string();
        tcp.send(format!("{line}\n").repeat(commands));
        let said = tcp.read_to_end();
        let said = String::from_utf8(said).unwrap();
        assert!(said.ends_with("{\"push\":{\"disconnect\":{\"code\":3013,\"reason\":\"too many requests\"}}}\n"), "{said}");
        assert!((8 * MAX..=10 * MAX).contains(&said.matches("\"code\":111").count()), "{said}");
        socket.client.send(masked(true, OpCode::Text, line.as_bytes()).repeat(commands));
        assert_eq!(close_code(&mut socket), Some(3013));
        assert_eq!(server.closed(CloseReason::TooManyRequests), 2);
    }

    fn publications_have_a_rate_on_every_transport(driver) {
        let server = serve(driver, |config| config.client_publication_rate_max = Some(MAX));
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut expect = |count: usize, what: &str| {
            (0..count).for_each(|_| assert_eq!(subscriber.read_text(), what));
            subscriber.round_trip();
        };
        let publish = |id: usize, data| json!({"id": id, "publish": {"channel": "a", "data": data}});

        let mut tcp = connect(&server);
        let replies: Vec<_> = (2..9).map(|id| tcp.command(&publish(id, "tcp"))).collect();
        assert_eq!(done(&replies, "publish"), MAX);
        expect(MAX, "\"tcp\"");

        let mut socket = connect_websocket(&server);
        let replies: Vec<_> = (2..9).map(|id| command(&mut socket, &publish(id, "ws"))).collect();
        assert_eq!(done(&replies, "publish"), MAX);
        expect(MAX, "\"ws\"");

        // Without an id there is no answer.
        let mut silent = connect(&server);
        (0..7).for_each(|_| silent.send(format!("{}\n", json!({"publish": {"channel": "a", "data": "silent"}}))));
        assert!(silent.command(&json!({"id": 9, "ping": {}}))["ping"].is_object());
        expect(MAX, "\"silent\"");

        let mut http = Client::connect(server.edge());
        let post = "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nhttp";
        let responses: Vec<_> = (0..7).map(|_| { http.send(post); http.read_response() }).collect();
        for (index, response) in responses.iter().enumerate() {
            assert_eq!(response.status, if index < MAX { 200 } else { 429 });
            assert_eq!(response.header("retry-after").is_some(), index >= MAX);
        }
        assert_eq!(responses[MAX].json()["error"]["code"], "rate_exceeded");
        expect(MAX, "http");
        thread::sleep(REFILLED);
        http.send(post);
        assert_eq!(http.read_response().status, 200, "on the same connection");
        expect(1, "http");
        assert_eq!(exceeded(&server, "publications"), 4 * 4);
    }

    fn no_token_is_verified_for_a_publication_past_the_rate(driver) {
        let server = serve(driver, |config| {
            config.client_publication_rate_max = Some(MAX);
            config.hmac_secret = Some(SECRET.into());
        });
        let mut http = Client::connect(server.edge());
        // An expired token keeps its connection.
        let expired = token(&json!({"sub": "ann", "exp": 1}));
        let post = format!(
            "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {expired}\r\nContent-Length: 1\r\n\r\n1"
        );
        let mut status = || { http.send(&post); http.read_response().status };
        let statuses: Vec<_> = (0..MAX + 3).map(|_| status()).collect();
        assert_eq!(statuses, [[401; MAX], [429; 3]].concat());
        let verified = server.sum(|counters| &counters.tokens_rejected[TokenError::Expired as usize]);
        assert_eq!(verified, MAX as u64);
    }

    fn a_plain_websocket_drops_publications_past_the_rate_and_is_closed_if_it_goes_on(driver) {
        let server = serve(driver, |config| config.client_publication_rate_max = Some(MAX));
        let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut publisher = WebSocket::connect(server.edge(), "/ws?channel=a");
        (0..MAX + 4).for_each(|n| publisher.send_text(&n.to_string()));
        publisher.send_frame(true, OpCode::Ping, b"");
        while publisher.read() != Received::Pong(Vec::new()) {}
        (0..MAX).for_each(|n| assert_eq!(subscriber.read_text(), n.to_string()));
        subscriber.round_trip();
        assert_eq!(exceeded(&server, "publications"), 4);
        publisher.client.send(masked(true, OpCode::Text, b"more").repeat(10 * MAX));
        assert_eq!(close_code(&mut publisher), Some(1008));
        assert_eq!(server.closed(CloseReason::TooManyRequests), 1);
    }

    fn subscriptions_have_a_rate_on_every_transport(driver) {
        let server = serve(driver, |config| config.client_subscription_rate_max = Some(MAX));
        let subscribe = |id: usize| json!({"id": id, "subscribe": {"channel": format!("c{id}")}});
        let mut tcp = connect(&server);
        let replies: Vec<_> = (2..9).map(|id| tcp.command(&subscribe(id))).collect();
        assert_eq!(done(&replies, "subscribe"), MAX);
        let mut socket = connect_websocket(&server);
        let replies: Vec<_> = (2..9).map(|id| command(&mut socket, &subscribe(id))).collect();
        assert_eq!(done(&replies, "subscribe"), MAX);

        // One request may exceed the rate, and then has to be made up for.
        let mut poll = Client::connect(server.edge());
        let target = "/poll?channel=a&channel=b&channel=c&channel=d&timeout=0";
        assert_eq!(poll.get(target).status, 200);
        let response = poll.get("/poll?channel=a&timeout=0");
        assert_eq!((response.status, response.header("retry-after").is_some()), (429, true));
        poll.expect_end();

        let mut stream = Client::connect(server.edge());
        assert_eq!(stream.get(target).status, 200);
        let mut stream = EventStream::over(stream, "/events?channel=a", "");
        let event = stream.read();
        assert_eq!(event.kind, "disconnect");
        assert!(event.data.contains("too many requests"), "{event:?}");

        let mut upgrade = Client::connect(server.edge());
        assert_eq!(upgrade.get(target).status, 200);
        upgrade.send(WebSocket::request("/ws?channel=a"));
        let response = upgrade.read_response();
        assert_eq!((response.status, response.header("retry-after").is_some()), (429, true));
        assert_eq!(exceeded(&server, "subscriptions"), 2 * 4 + 3);
        let failed = server.sum(|it| it.handshakes_failed.labelled("rate_exceeded"));
        assert_eq!(failed, 1);
    }

    fn a_client_whose_bytes_come_too_fast_is_not_read_for_a_while(driver) {
        let rate = 64 * 1024;
        let server = serve(driver, |config| config.client_byte_rate_max = Some(rate));
        let mut fast = WebSocket::connect(server.echo(), "/");
        let began = Instant::now();
        let message = vec![b'x'; rate as usize];
        let sent = masked(true, OpCode::Binary, &message);
        for _ in 0..3 {
            fast.client.send(&sent);
        }
        for _ in 0..3 {
            assert_eq!(fast.read(), Received::Binary(message.clone()));
        }
        // A second's worth comes at once, and what is received at a time may exceed it by a buffer.
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(exceeded(&server, "bytes") > 0);
        let before = exceeded(&server, "bytes");
        let mut slow = WebSocket::connect(server.echo(), "/");
        slow.send_text("hello");
        assert_eq!(slow.read_text(), "hello");
        assert_eq!(exceeded(&server, "bytes"), before, "others have a rate of their own");
    }

    fn administration_and_requests_with_a_key_have_no_rates(driver) {
        let server = serve(driver, |config| {
            config.admin = config.listen.clone();
            config.client_publication_rate_max = Some(1);
            config.client_byte_rate_max = Some(1024);
        });
        let mut admin = Client::connect(server.address(Service::Admin));
        for _ in 0..9 {
            admin.publish("a", [b'x'; 1000]);
        }
        let server = serve(driver, |config| {
            config.api_key = Some("k".into());
            config.client_publication_rate_max = Some(1);
        });
        let mut backend = Client::connect(server.edge());
        let post = "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nX-API-Key: k\r\nContent-Length: 1\r\n\r\nx";
        for _ in 0..9 {
            backend.send(post);
            assert_eq!(backend.read_response().status, 200);
        }
        let call = json!({"channel": "a", "data": 1}).to_string();
        for _ in 0..9 {
            let response = backend.call_with("publish", "X-API-Key: k\r\n", &call);
            assert!(response.json()["result"].is_object());
        }
    }
}
