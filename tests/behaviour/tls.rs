//! Every door over TLS, with the records of rustls on the client's side.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fantail::config::{Config, DriverChoice, TlsVersion};
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

use crate::support::{
    Child, Client, PATIENCE, TempFile, TestServer, WebSocket, masked, on_both_drivers, run,
    unmasked, wait_until,
};

mod certificates;
mod client;
mod differential;
mod hostile;
mod tickets;

use client::{Offer, TlsClient, over_tls};

fn serve(driver: DriverChoice) -> TestServer {
    serve_with(driver, |_| {})
}

fn serve_with(driver: DriverChoice, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        over_tls(config);
        change(config);
    })
}

const LIVE: &str = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n";

/// A WebSocket on the address that echoes.
fn echo(server: &TestServer) -> TlsClient {
    let mut client = TlsClient::connect(server.echo());
    let (head, _) = client.request(&WebSocket::request("/"));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

/// Waits until a worker has no heap left for handshakes and records.
fn expect_no_heap(server: &TestServer) {
    wait_until("no heap is left", || server.sum(|it| &it.memory_used_bytes) == 0);
}

/// What the server sends to a plain socket, up to its end.
fn rest_of(mut stream: &TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

fn failed(server: &TestServer, reason: &str) -> u64 {
    server.sum(|counters| counters.tls_failed.labelled(reason))
}

/// A record that says no more than its header.
fn header(kind: u8, length: u16) -> Vec<u8> {
    [&[kind, 3, 3][..], &length.to_be_bytes()].concat()
}

/// The alert that ends a connection, as rustls reads it.
#[track_caller]
fn expect_alert(mut client: TlsClient, words: &str) {
    let error = loop {
        if client.tls.read_tls(&mut client.stream).unwrap() == 0 {
            panic!("the connection ends without an alert");
        }
        if let Err(error) = client.tls.process_new_packets() {
            break error;
        }
    };
    assert_eq!(error.to_string(), format!("received fatal alert: {words}"));
}

on_both_drivers! {
    fn the_first_request_of_a_client_under_nagle_does_not_wait_for_a_delayed_acknowledgement(driver) {
        let server = serve(driver);
        let fastest = (0..10).map(|_| {
            let begun = Instant::now();
            let mut client = TlsClient::connect(server.edge());
            client.stream.set_nodelay(false).unwrap();
            client.handshake().unwrap();
            assert!(client.request(LIVE).0.starts_with("HTTP/1.1 200"));
            begun.elapsed()
        }).min().unwrap();
        // Linux delays acknowledgements for 40 ms at least.
        assert!(fastest < Duration::from_millis(35), "{fastest:?}");
    }
}

on_both_drivers! {
    fn every_door_speaks_tls_in_every_version_and_suite(driver) {
        let server = serve(driver);
        for suite in ALL_CIPHER_SUITES {
            let version = if suite.tls13().is_some() { TLSv1_3 } else { TLSv1_2 };
            if format!("{:?}", suite.suite()).contains("RSA") {
                continue;
            }
            let offer = Offer { version, suite: Some(*suite), ..Offer::default() };
            let mut http = TlsClient::with(server.edge(), Offer { alpn: Some("http/1.1"), ..offer });
            for _ in 0..3 {
                let (head, body) = http.request(LIVE);
                assert!(head.starts_with("HTTP/1.1 200"), "{head}{body}");
            }
            assert_eq!(http.tls.negotiated_cipher_suite(), Some(*suite));
            assert_eq!(http.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut bytes = TlsClient::with(server.echo_tcp(), offer);
            bytes.send("hello");
            assert_eq!(bytes.take(5), b"hello");
            let mut commands = TlsClient::with(server.commands(), offer);
            commands.send("{\"id\":1,\"connect\":{}}\n");
            assert!(commands.line().contains("\"connect\""));
            let mut socket = TlsClient::with(server.echo(), offer);
            socket.request(&WebSocket::request("/"));
            socket.send(masked(true, OpCode::Text, b"over TLS"));
            let frame = unmasked(OpCode::Text, b"over TLS");
            assert_eq!(socket.take(frame.len()), frame);
        }
        assert!(server.sum(|it| &it.tls_handshakes) >= 24);
    }

    fn publications_reach_streams_sockets_polls_and_commands(driver) {
        let server = serve(driver);
        let mut stream = TlsClient::connect(server.edge());
        stream.send("GET /events?channel=a HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n");
        assert!(stream.line().starts_with("HTTP/1.1 200"));
        let mut socket = TlsClient::connect(server.edge());
        socket.request(&WebSocket::request("/ws?channel=a"));
        let mut commands = TlsClient::connect(server.commands());
        commands.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n");
        while !commands.line().contains("subscribe") {}
        wait_until("they are subscribed", || server.sum(|it| &it.subscriptions) == 3);
        let mut publisher = TlsClient::connect(server.edge());
        for n in 0..200 {
            let body = format!("{{\"n\":{n}}}");
            let (head, _) = publisher.request(&format!(
                "POST /publish?channel=a HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        for n in 0..200 {
            let body = format!("{{\"n\":{n}}}");
            let frame = unmasked(OpCode::Text, body.as_bytes());
            assert_eq!(socket.take(frame.len()), frame);
            while !stream.line().contains(&body) {}
            let push = commands.line();
            assert!(push.contains(&body), "{push}");
        }
    }

    fn a_client_may_send_a_byte_at_a_time(driver) {
        let server = serve(driver);
        let mut client = TlsClient::connect(server.echo_tcp());
        let bytewise = |client: &mut TlsClient| {
            let mut out = Vec::new();
            while client.tls.wants_write() {
                client.tls.write_tls(&mut out).unwrap();
            }
            for byte in out {
                client.stream.write_all(&[byte]).unwrap();
            }
        };
        while client.tls.is_handshaking() {
            bytewise(&mut client);
            if client.tls.is_handshaking() {
                client.tls.read_tls(&mut client.stream).unwrap();
                client.tls.process_new_packets().unwrap();
            }
        }
        bytewise(&mut client);
        for text in [&b"one"[..], &[7; 1000], b"three"] {
            for byte in client.sealed(text) {
                client.stream.write_all(&[byte]).unwrap();
            }
            assert_eq!(client.take(text.len()), text);
        }
        // Several records in one segment, and the Finished with data behind it.
        let both = [client.sealed(b"one"), client.sealed(b"two")].concat();
        client.stream.write_all(&both).unwrap();
        assert_eq!(client.take(6), b"onetwo");
        drop(client);
        expect_no_heap(&server);
    }

    fn what_the_kernel_does_not_take_goes_on_where_it_ended(driver) {
        let server = serve(driver);
        for suite in [Offer::default(), Offer { version: TLSv1_2, ..Offer::default() }] {
            let mut client = TlsClient::with(server.echo_tcp(), suite);
            client.handshake().unwrap();
            // More than the buffers of both ends take, so that the server has to stop and go on.
            let text: Vec<u8> = (0..24 << 20).map(|at: u32| (at / 251) as u8).collect();
            let mut sealed = Vec::new();
            for chunk in text.chunks(32 * 1024) {
                sealed.extend(client.sealed(chunk));
            }
            let mut stream = client.stream.try_clone().unwrap();
            let writer = thread::spawn(move || stream.write_all(&sealed));
            assert!(client.take(text.len()) == text);
            writer.join().unwrap().unwrap();
        }
        assert!(server.sum(|it| &it.sends_partial) > 0, "some sends were short");
    }

    fn keys_change_in_the_middle_of_data(driver) {
        let server = serve(driver);
        let mut client = TlsClient::connect(server.echo_tcp());
        for n in 0..100 {
            let text = vec![n; 1 + 200 * usize::from(n)];
            client.send(&text);
            client.tls.refresh_traffic_keys().unwrap();
            client.send(b"!");
            assert_eq!(client.take(text.len()), text);
            assert_eq!(client.take(1), b"!");
        }
    }

    fn an_end_that_is_announced_is_answered_and_one_that_is_not_is_a_loss(driver) {
        let server = serve(driver);
        let mut client = TlsClient::connect(server.echo_tcp());
        client.send("last");
        client.end();
        assert_eq!(client.rest(), b"last");
        wait_until("it is closed", || server.closed(CloseReason::ClientClosed) == 1);
        let mut client = TlsClient::connect(server.echo_tcp());
        client.send("last");
        assert_eq!(client.take(4), b"last");
        client.stream.shutdown(Shutdown::Write).unwrap();
        wait_until("it is lost", || server.closed(CloseReason::ClientGone) == 1);
        // A close of the WebSocket is followed by that of TLS.
        let mut client = echo(&server);
        client.send(masked(true, OpCode::Close, &1000_u16.to_be_bytes()));
        let frame = unmasked(OpCode::Close, &1000_u16.to_be_bytes());
        assert_eq!(client.rest(), frame);
        assert_eq!(failed(&server, "record") + failed(&server, "handshake"), 0);
    }

    fn a_stop_ends_every_client_in_its_terms(driver) {
        let server = serve(driver);
        let mut socket = TlsClient::connect(server.edge());
        socket.request(&WebSocket::request("/ws?channel=a"));
        let half_open = TcpStream::connect(server.edge()).unwrap();
        let mut begun = TlsClient::connect(server.commands());
        begun.tls.write_tls(&mut begun.stream).unwrap();
        wait_until("all are accepted", || server.sum(|it| &it.connections_accepted) == 3);
        server.stop();
        let close = socket.rest();
        assert_eq!(close[0], 0x88, "{close:?}");
        assert_eq!(close[2..4], 1001_u16.to_be_bytes());
        assert_eq!(rest_of(&half_open), b"", "nothing is sent that is not encrypted");
    }

    fn records_that_are_not_sound_end_the_connection_with_an_alert(driver) {
        let server = serve(driver);
        let mut expected = 0;
        let mut check = |spoil: &dyn Fn(Vec<u8>) -> Vec<u8>, words: &str| {
            let mut client = echo(&server);
            let frame = masked(true, OpCode::Text, b"text");
            let sealed = client.sealed(&frame);
            client.stream.write_all(&spoil(sealed)).unwrap();
            expect_alert(client, words);
            expected += 1;
            wait_until("it is counted", || failed(&server, "record") == expected);
        };
        check(&|mut record| { record[9] ^= 1; record }, "BadRecordMac");
        check(&|_| header(23, 16_641), "RecordOverflow");
        check(&|_| [header(22, 1), vec![0]].concat(), "UnexpectedMessage");
        check(&|_| [header(20, 1), vec![1]].concat(), "UnexpectedMessage");
        check(&|_| b"GET / HTTP/1.1\r\n\r\n".to_vec(), "UnexpectedMessage");
        // A record that comes a second time, behind data that is served.
        let mut client = echo(&server);
        let frame = masked(true, OpCode::Text, b"text");
        let sealed = client.sealed(&frame);
        client.stream.write_all(&[&sealed[..], &sealed].concat()).unwrap();
        expect_alert(client, "BadRecordMac");
        assert_eq!(server.closed(CloseReason::ProtocolError), 6);
        let mut bystander = echo(&server);
        bystander.send(masked(true, OpCode::Text, b"text"));
        assert_eq!(bystander.take(6), unmasked(OpCode::Text, b"text"));
    }

    fn a_client_without_tls_is_answered(driver) {
        let server = serve(driver);
        let mut client = Client::connect(server.edge());
        let response = client.try_request(LIVE).unwrap();
        assert_eq!(response.status, 400);
        assert_eq!(response.body, b"This address speaks TLS: use https:// or wss://\n");
        client.expect_end();
        wait_until("it is counted", || failed(&server, "not_tls") == 1);
        // Commands are not HTTP: the answer is an alert.
        let mut client = Client::connect(server.commands());
        client.send("{\"id\":1,\"connect\":{}}\n");
        let rest = client.read_to_end();
        assert_eq!((rest[0], rest.len()), (21, 7), "{rest:?}");
        let mut handshake = TlsClient::connect(server.edge());
        assert!(handshake.handshake().is_ok(), "others are served");
        let plain = TestServer::start(driver, 1);
        let mut client = TlsClient::connect(plain.edge());
        assert!(client.handshake().is_err());
    }

    fn handshakes_that_cannot_succeed_end_with_an_alert(driver) {
        let server = serve_with(driver, |config| config.tls_version_min = TlsVersion::Tls13);
        let refused = |offer| TlsClient::with(server.edge(), offer).handshake().unwrap_err();
        let old = refused(Offer { version: TLSv1_2, ..Offer::default() });
        assert!(old.contains("ProtocolVersion"), "{old}");
        let other = refused(Offer { alpn: Some("h2"), ..Offer::default() });
        assert!(other.contains("NoApplicationProtocol"), "{other}");
        assert!(TlsClient::with(server.commands(), Offer { alpn: Some("x"), ..Offer::default() }).handshake().is_ok());
        assert_eq!(failed(&server, "handshake"), 2);
        let stream = TcpStream::connect(server.edge()).unwrap();
        (&stream).write_all(&[header(22, 5), vec![1, 0, 0, 1, 0]].concat()).unwrap();
        let alert = rest_of(&stream);
        assert_eq!((alert[0], alert.len()), (21, 7), "{alert:?}");
        expect_no_heap(&server);
    }

    fn handshakes_that_are_abandoned_leave_nothing(driver) {
        let server = serve_with(driver, |config| {
            config.handshake_timeout = Duration::from_millis(300);
        });
        let mut hello = Vec::new();
        TlsClient::connect(server.edge()).tls.write_tls(&mut hello).unwrap();
        let addresses: [SocketAddr; 4] =
            [server.edge(), server.commands(), server.echo(), server.echo_tcp()];
        let mut kept = Vec::new();
        for at in [0, 1, 5, 100, hello.len() - 1, hello.len()] {
            for address in addresses {
                let mut gone = TcpStream::connect(address).unwrap();
                gone.write_all(&hello[..at]).unwrap();
                kept.push(TcpStream::connect(address).unwrap());
                kept.last_mut().unwrap().write_all(&hello[..at]).unwrap();
            }
        }
        kept.iter().for_each(|stream| drop(rest_of(stream)));
        expect_no_heap(&server);
        // A handshake, or a request, that takes all its time is late as well.
        let mut silent = TlsClient::connect(server.edge());
        silent.handshake().unwrap();
        assert_eq!(server.sum(|it| &it.connections_open), 1);
        rest_of(&silent.stream);
    }

    fn a_proxy_names_the_client_in_front_of_the_handshake(driver) {
        let server = serve_with(driver, |config| {
            config.echo_tcp[0].expects_proxy_header = true;
            config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        });
        for split in [0, 10, 44] {
            let mut client = TlsClient::connect(server.echo_tcp());
            let mut hello = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec();
            client.tls.write_tls(&mut hello).unwrap();
            client.stream.write_all(&hello[..split]).unwrap();
            client.stream.write_all(&hello[split..]).unwrap();
            client.handshake().unwrap();
            client.send("hello");
            assert_eq!(client.take(5), b"hello");
        }
    }

    fn established_clients_are_served_during_a_storm_of_handshakes(driver) {
        let server = TestServer::start_with(driver, 1, over_tls);
        let mut established = echo(&server);
        let mut storm: Vec<_> = (0..200)
            .map(|_| {
                let mut client = TlsClient::connect(server.edge());
                client.tls.write_tls(&mut client.stream).unwrap();
                client
            })
            .collect();
        for _ in 0..50 {
            established.send(masked(true, OpCode::Text, b"text"));
            assert_eq!(established.take(6), unmasked(OpCode::Text, b"text"));
        }
        for client in &mut storm {
            client.handshake().unwrap();
            assert!(client.request(LIVE).0.starts_with("HTTP/1.1 200"));
        }
    }

    fn a_reload_brings_a_new_certificate_and_refuses_one_without_its_key(driver) {
        let name = |what: &str| format!("tls-{driver:?}-{what}");
        let made = |host: &str| {
            let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().to_vec())
        };
        let (first, second) = (made("one.test"), made("two.test"));
        let cert = TempFile::new(&name("cert"), &first.0);
        let key = TempFile::new(&name("key"), &first.1);
        let arguments = ["--tls-cert", cert.path(), "--tls-key", key.path(), "--echo", "127.0.0.1:0 tls"];
        let mut child = Child::start(driver, &arguments);
        let echo = child.addresses[2];
        let shown = || {
            let mut client = TlsClient::connect(echo);
            client.handshake().unwrap();
            client.tls.peer_certificates().unwrap()[0].to_vec()
        };
        assert_eq!(shown(), first.2);
        let mut established = TlsClient::connect(echo);
        established.request(&WebSocket::request("/"));
        cert.write(&second.0);
        child.signal(libc::SIGHUP);
        child.log_line(&["not reloaded", cert.path()]);
        assert_eq!(shown(), first.2);
        key.write(&second.1);
        child.signal(libc::SIGHUP);
        wait_until("the new one is shown", || shown() == second.2);
        established.send(masked(true, OpCode::Text, b"text"));
        assert_eq!(established.take(6), unmasked(OpCode::Text, b"text"));
        let mut plain = Client::connect(child.edge());
        assert_eq!(plain.try_request(LIVE).unwrap().status, 200, "the other addresses do not speak TLS");
    }

    fn a_server_with_a_certificate_of_its_own_prints_how_to_reach_it(driver) {
        let child = Child::start(driver, &["--tls-self-signed"]);
        for address in &child.addresses {
            let mut client = TlsClient::connect(*address);
            client.handshake().unwrap();
        }
        let mut client = TlsClient::connect(child.edge());
        assert!(client.request(LIVE).0.starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn an_address_needs_a_certificate() {
    let ended = run(&["--listen", "127.0.0.1:0 tls"]);
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("127.0.0.1:0 tls has no certificate"), "{}", ended.stderr);
    let missing =
        ["--listen", "127.0.0.1:0 tls", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"];
    assert!(run(&missing).stderr.contains("the file /nowhere cannot be read"));
    let checked = run(&[&["check"], &missing[..]].concat());
    assert!(checked.stdout.contains("would not start: tls.cert: the file /nowhere"), "{checked:?}");
}
