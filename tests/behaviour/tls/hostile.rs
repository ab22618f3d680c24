//! Clients that break the protocol, stop in the middle of it, or take all the time that there is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use fantail::message::CloseReason;

use super::client::{Offer, TlsClient};
use super::{LIVE, echo, expect_alert, expect_no_heap, failed, header, rest_of, serve, serve_with};
use crate::support::{TestServer, on_both_drivers, wait_until};
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};

/// The next flight of a client.
fn flight(client: &mut TlsClient) -> Vec<u8> {
    let mut out = Vec::new();
    while client.tls.wants_write() {
        client.tls.write_tls(&mut out).unwrap();
    }
    out
}

/// The last record of what a server has sent.
fn last_record(mut bytes: &[u8]) -> &[u8] {
    loop {
        let len = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        if bytes.len() == len {
            return bytes;
        }
        bytes = &bytes[len..];
    }
}

on_both_drivers! {
    fn a_handshake_that_is_abandoned_at_any_message_leaves_nothing(driver) {
        let server = serve(driver);
        for version in [TLSv1_3, TLSv1_2] {
            for parts in [0, 1, 2, 3] {
                let mut client = TlsClient::with(server.edge(), Offer { version, ..Offer::default() });
                let hello = flight(&mut client);
                client.stream.write_all(&hello).unwrap();
                client.tls.read_tls(&mut client.stream).unwrap();
                client.tls.process_new_packets().unwrap();
                // ChangeCipherSpec and Finished, or ClientKeyExchange, ChangeCipherSpec, Finished.
                let last = flight(&mut client);
                client.stream.write_all(&last[..last.len() * parts / 4]).unwrap();
            }
        }
        wait_until("they are closed", || server.sum(|it| &it.connections_open) == 0);
        expect_no_heap(&server);
        assert_eq!(server.sum(|it| &it.tls_handshakes), 0);
    }

    fn a_hello_that_comes_a_byte_at_a_time_ends_with_its_deadline(driver) {
        let server = serve_with(driver, |config| {
            config.handshake_timeout = Duration::from_millis(300);
        });
        let mut slow = TlsClient::connect(server.edge());
        let hello = flight(&mut slow);
        let mut sent = 0;
        for byte in &hello {
            if slow.stream.write_all(&[*byte]).is_err() {
                break;
            }
            sent += 1;
            thread::sleep(Duration::from_millis(10));
        }
        assert!(sent < hello.len(), "{sent} bytes were taken");
        wait_until("it is closed", || server.closed(CloseReason::HandshakeTimeout) == 1);
        expect_no_heap(&server);
    }

    fn what_comes_out_of_order_in_a_handshake_ends_it(driver) {
        let server = serve(driver);
        let check = |what: &str, bytes: &[&[u8]]| {
            let before = failed(&server, "handshake");
            let stream = TcpStream::connect(server.edge()).unwrap();
            (&stream).write_all(&bytes.concat()).unwrap();
            let rest = rest_of(&stream);
            let last = last_record(&rest);
            // Behind the server's hello of TLS 1.3 it is encrypted: two bytes, the type, and the tag.
            let is_alert = (last[0] == 21 && last[5] == 2) || (last[0] == 23 && last.len() == 5 + 2 + 1 + 16);
            assert!(is_alert, "{what}: {last:?} is a fatal alert");
            wait_until(what, || failed(&server, "handshake") == before + 1);
        };
        let hello = flight(&mut TlsClient::connect(server.edge()));
        let data = [header(23, 4), vec![0; 4]].concat();
        check("data without a handshake", &[&data]);
        check("early data that was not announced", &[&hello, &data]);
        check("a second hello", &[&hello, &hello]);
        check("an empty message", &[&header(22, 0)]);
        check("a record that is too long", &[&header(22, 0xffff), &[0; 100]]);
        check("another message first", &[&header(22, 4), &[16, 0, 0, 0]]);
        let change = [header(20, 1), vec![1]].concat();
        // What is not read any more resets the connection, and the alert may be lost with that.
        let before = failed(&server, "handshake");
        let stream = TcpStream::connect(server.edge()).unwrap();
        (&stream).write_all(&[hello, change.repeat(64)].concat()).unwrap();
        rest_of(&stream);
        wait_until("it is counted", || failed(&server, "handshake") == before + 1);
        expect_no_heap(&server);
    }

    fn key_updates_without_data_are_limited(driver) {
        let server = serve(driver);
        let mut client = TlsClient::connect(server.echo_tcp());
        client.handshake().unwrap();
        for _ in 0..4 {
            for _ in 0..30 {
                client.tls.refresh_traffic_keys().unwrap();
            }
            client.send("data");
            assert_eq!(client.take(4), b"data");
        }
        for _ in 0..100 {
            client.tls.refresh_traffic_keys().unwrap();
        }
        let bytes = flight(&mut client);
        client.stream.write_all(&bytes).unwrap();
        expect_alert(client, "UnexpectedMessage");
        wait_until("it is counted", || failed(&server, "record") == 1);
    }

    fn a_client_that_speaks_tls_where_there_is_none_gets_a_plain_answer(driver) {
        let server = TestServer::start(driver, 1);
        let hello = flight(&mut TlsClient::connect(server.edge()));
        let mut stream = TcpStream::connect(server.edge()).unwrap();
        stream.write_all(&hello).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
    }

    fn unfinished_handshakes_of_a_prefix_are_limited(driver) {
        let server = serve_with(driver, |config| config.prefix_handshakes_max = Some(4));
        // The connection that this client has is not one of the server's.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let hello = flight(&mut TlsClient::connect(other.local_addr().unwrap()));
        let mut stalled: Vec<_> = (0..10)
            .map(|_| {
                let mut stream = TcpStream::connect(server.edge()).unwrap();
                // Those that are refused may be gone already.
                let _ = stream.write_all(&hello[..hello.len() / 2]);
                stream
            })
            .collect();
        wait_until("the others are rejected", || server.rejected("prefix_handshakes") == 6);
        assert_eq!(server.sum(|it| &it.connections_open), 4);
        stalled.clear();
        wait_until("they are gone", || server.sum(|it| &it.connections_open) == 0);
        let mut client = TlsClient::connect(server.edge());
        assert!(client.request(LIVE).0.starts_with("HTTP/1.1 200"));
        expect_no_heap(&server);
    }

    fn records_that_are_cut_off_are_a_loss(driver) {
        let server = serve(driver);
        for (lost, keep) in (1..).zip([1, 4, 5, 6, 20]) {
            let mut client = echo(&server);
            let sealed = client.sealed(b"not a whole record");
            client.stream.write_all(&sealed[..keep]).unwrap();
            drop(client);
            wait_until("it is lost", || server.closed(CloseReason::ClientGone) == lost);
        }
        expect_no_heap(&server);
    }
}
