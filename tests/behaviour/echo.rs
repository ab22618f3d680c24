//! The echo services, with up to a thousand concurrent clients.

use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{Client, Received, TestServer, WebSocket, on_both_drivers, wait_until};

/// Bytes in which missing or reordered parts are detected.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Sends and receives concurrently, which is necessary if the data exceeds the socket buffers.
#[track_caller]
fn exchange(client: &mut Client, bytes: &[u8]) -> Vec<u8> {
    let mut sender = client.stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut sender, bytes).unwrap());
        client.read_exactly(bytes.len())
    })
}

on_both_drivers! {
    fn bytes_are_echoed(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.echo_tcp());
        client.send("hello");
        assert_eq!(client.read_exactly(5), b"hello");
        client.send_bytewise("one at a time");
        assert_eq!(client.read_exactly(13), b"one at a time");
    }

    fn large_data_is_echoed_completely(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.echo_tcp());
        let bytes = pattern(8 << 20);
        assert!(exchange(&mut client, &bytes) == bytes);
    }

    fn a_half_closed_client_receives_the_complete_echo(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect(server.echo_tcp());
        client.send("hello");
        client.end();
        assert_eq!(client.read_to_end(), b"hello");

        // More than one receive buffer, and the end of the stream while much output is still queued.
        let mut client = Client::connect_narrow(server.echo_tcp());
        let bytes = pattern(4 << 20);
        let sent = client.send_some(&bytes);
        client.end();
        assert!(client.read_to_end() == bytes[..sent]);
    }

    fn a_peer_that_does_not_read_gets_backpressure_and_loses_nothing(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = Client::connect_narrow(server.echo_tcp());
        let bytes = pattern(64 << 20);
        let mut sent = client.send_some(&bytes);
        // The server accepts only as much as fits into its send queue and the kernel's buffers.
        loop {
            let before = server.sum(|counters| &counters.received_bytes);
            std::thread::sleep(std::time::Duration::from_millis(100));
            sent += client.send_some(&bytes[sent..]);
            if server.sum(|counters| &counters.received_bytes) == before {
                break;
            }
        }
        assert!(sent < bytes.len(), "backpressure reaches the sender");
        assert!(server.sum(|counters| &counters.send_queue_bytes) < 1 << 20);
        assert!(client.read_exactly(sent) == bytes[..sent]);
        assert!(exchange(&mut client, b"and continues") == b"and continues");
    }

    fn websocket_messages_of_every_length_are_echoed(driver) {
        let server = TestServer::start(driver, 1);
        let mut socket = WebSocket::connect(server.echo(), "/any/path");
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let bytes = pattern(len);
            socket.send_binary(&bytes);
            assert!(socket.read() == Received::Binary(bytes), "{len}");
            let text = "x".repeat(len);
            socket.send_text(&text);
            assert!(socket.read() == Received::Text(text), "{len}");
        }
    }

    fn a_message_of_16_mib_is_echoed_and_one_byte_more_is_rejected(driver) {
        let server = TestServer::start(driver, 1);
        let mut socket = WebSocket::connect(server.echo(), "/");
        let bytes = pattern(16 << 20);
        socket.send_binary(&bytes);
        assert!(socket.read() == Received::Binary(bytes));
        socket.client.send([0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1]);
        socket.client.send([1, 2, 3, 4]);
        socket.expect_close(1009);
    }

    fn pipelined_websocket_messages_are_echoed_in_order(driver) {
        let server = TestServer::start(driver, 1);
        let mut socket = WebSocket::connect(server.echo(), "/");
        let mut sender = socket.client.stream().try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..20_000_u32 {
                    let frame = crate::support::masked(true, OpCode::Binary, &n.to_be_bytes());
                    std::io::Write::write_all(&mut sender, &frame).unwrap();
                }
            });
            for n in 0..20_000_u32 {
                assert_eq!(socket.read(), Received::Binary(n.to_be_bytes().to_vec()));
            }
        });
    }

    fn a_thousand_concurrent_clients_are_echoed(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients: Vec<Client> =
            (0..1000).map(|_| Client::connect(server.echo_tcp())).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("hello {n}\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read_until(b"\n"), format!("hello {n}\n").into_bytes());
        }
        assert_eq!(server.sum(|counters| &counters.connections_accepted), 1000);
    }

    fn all_connections_are_freed_after_a_thousand_clients_leave_at_once(driver) {
        let server = TestServer::start(driver, 2);
        let mut stays = Client::connect(server.echo_tcp());
        for how in [Client::reset, drop::<Client>] {
            let mut clients: Vec<Client> =
                (0..1000).map(|_| Client::connect(server.echo_tcp())).collect();
            for client in &mut clients {
                client.send("hello");
            }
            for client in &mut clients {
                client.read_exactly(5);
            }
            for mut client in clients {
                // Some leave while an echo is on its way to them.
                client.send("bye");
                how(client);
            }
            wait_until("all but one have left", || server.sum(|counters| &counters.connections_open) == 1);
            stays.send("there?");
            assert_eq!(stays.read_exactly(6), b"there?");
        }
        let gone = server.closed(CloseReason::ClientGone) + server.closed(CloseReason::ClientClosed);
        assert_eq!(gone, 2000);
    }
}
