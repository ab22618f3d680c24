//! Plain WebSockets: messages of a client are published, and publications are sent to clients.

use fantail::config::limits::FRAGMENTS_PER_MESSAGE_MAX;
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;

use crate::support::{
    Client, Received, TestServer, WebSocket, masked, on_both_drivers, unmasked, wait_until,
};

/// A WebSocket client of another implementation.
#[track_caller]
fn tungstenite(server: &TestServer, target: &str) -> tungstenite::WebSocket<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(server.edge()).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let url = format!("ws://{}{target}", server.edge());
    tungstenite::client(url, stream).expect("the handshake succeeds").0
}

/// Sends bytes after the handshake and expects a close with this code.
#[track_caller]
fn expect_fault(server: &TestServer, bytes: &[u8], code: u16) {
    for bytewise in [false, true] {
        let mut socket = WebSocket::connect(server.edge(), "/ws?channel=fault");
        if bytewise && bytes.len() < 1000 {
            // The write fails if the server has already closed the connection.
            for byte in bytes {
                if std::io::Write::write_all(&mut socket.client.stream(), &[*byte]).is_err() {
                    break;
                }
            }
        } else {
            socket.client.send(bytes);
        }
        socket.expect_close(code);
    }
}

on_both_drivers! {
    // centrifuge-js 5.8 sends connect and its subscribes in one message, and interprets incoming messages as replies.
    fn a_client_of_the_command_protocol_is_referred_to_its_endpoint(driver) {
        let server = TestServer::start(driver, 2);
        let mut listener = WebSocket::connect(server.edge(), "/ws?channel=a");
        for command in [
            "{\"connect\":{\"token\":\"secret\"},\"id\":1}",
            "{\"connect\":{},\"id\":1}\n{\"subscribe\":{\"channel\":\"a\",\"flag\":1},\"id\":2}",
            "{\"id\": 1, \"connect\": {\"name\": \"python\"}}",
        ] {
            let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
            client.send_text(command);
            let reason = "that is a command; commands are taken at /connection/websocket".to_owned();
            assert_eq!(client.read(), Received::Close(Some(3501), reason));
        }
        // Anything else is a message, and so is a later command.
        for text in ["{\"connect\":{}}", "{\"id\":1,\"connect\":[]}", "{\"id\":1,\"ping\":{}}", "{\"id\":1,\"connect\":{}} x"] {
            let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
            for text in [text, "{\"id\":1,\"connect\":{}}"] {
                client.send_text(text);
                client.expect_text(text);
                listener.expect_text(text);
            }
        }
    }

    fn the_lobby_is_a_chat(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients: Vec<WebSocket> =
            ["/", "/ws", "/?x=y", "/ws?channel=lobby"].map(|target| WebSocket::connect(server.edge(), target)).into();
        for from in 0..clients.len() {
            let text = format!("hello from {from}");
            clients[from].send_text(&text);
            for client in &mut clients {
                client.expect_text(&text);
            }
        }
    }

    fn tungstenite_clients_can_chat(driver) {
        let server = TestServer::start(driver, 2);
        let mut one = tungstenite(&server, "/ws?channel=a");
        let mut two = tungstenite(&server, "/ws?channel=a");
        one.send("text".into()).unwrap();
        two.send(tungstenite::Message::Binary(vec![0, 255].into())).unwrap();
        for client in [&mut one, &mut two] {
            let mut got = [client.read().unwrap(), client.read().unwrap()];
            got.sort_by_key(tungstenite::Message::is_text);
            assert_eq!(got[0].clone().into_data()[..], [0, 255]);
            assert_eq!(got[1].to_text().unwrap(), "text");
        }
        one.close(Some(tungstenite::protocol::CloseFrame { code: 4001.into(), reason: "bye".into() })).unwrap();
        match one.read().unwrap() {
            tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 4001),
            other => panic!("{other:?}"),
        }
        assert!(matches!(one.read(), Err(tungstenite::Error::ConnectionClosed)));
    }

    fn messages_are_published_to_the_first_channel(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a&channel=b&channel=a&channel=c%20d");
        let mut others = ["a", "b", "c%20d", "e"].map(|channel| {
            WebSocket::connect(server.edge(), &format!("/ws?channel={channel}"))
        });
        client.send_text("to a");
        client.expect_text("to a");
        others[0].expect_text("to a");
        for (index, other) in others.iter_mut().enumerate() {
            let text = format!("from {index}");
            other.send_text(&text);
            other.expect_text(&text);
            if index < 3 {
                client.expect_text(&text);
            }
        }
        client.round_trip();
    }

    fn text_stays_text_and_binary_stays_binary(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut other = WebSocket::connect(server.edge(), "/ws?channel=a");
        client.send_text("ж€😀");
        client.send_binary("ж€😀".as_bytes());
        client.send_text("");
        client.send_binary(b"");
        client.send_binary(&[0xff, 0xfe]);
        for socket in [&mut client, &mut other] {
            socket.expect_text("ж€😀");
            assert_eq!(socket.read(), Received::Binary("ж€😀".as_bytes().to_vec()));
            socket.expect_text("");
            assert_eq!(socket.read(), Received::Binary(vec![]));
            assert_eq!(socket.read(), Received::Binary(vec![0xff, 0xfe]));
        }
    }

    fn fragments_are_reassembled_with_pings_between_them(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        client.send_frame(false, OpCode::Text, "ж".as_bytes().split_at(1).0);
        client.send_frame(true, OpCode::Ping, b"1");
        client.send_frame(false, OpCode::Continuation, "ж".as_bytes().split_at(1).1);
        client.send_frame(false, OpCode::Continuation, b"");
        client.send_frame(true, OpCode::Pong, b"unasked");
        client.send_frame(true, OpCode::Continuation, b"!");
        assert_eq!(client.read(), Received::Pong(b"1".to_vec()));
        client.expect_text("ж!");
    }

    fn pings_are_answered_with_their_payload(driver) {
        let server = TestServer::start(driver, 1);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        for len in [0, 1, 124, 125] {
            let payload = vec![7; len];
            client.send_frame(true, OpCode::Ping, &payload);
            assert_eq!(client.read(), Received::Pong(payload));
        }
    }

    fn frames_may_arrive_byte_by_byte(driver) {
        let server = TestServer::start(driver, 2);
        let mut client = WebSocket::over(Client::connect(server.edge()));
        let mut bytes = WebSocket::request("/ws?channel=a").into_bytes();
        bytes.extend(masked(false, OpCode::Text, "один ".as_bytes()));
        bytes.extend(masked(true, OpCode::Ping, b"ping"));
        bytes.extend(masked(true, OpCode::Continuation, "два".as_bytes()));
        bytes.extend(masked(true, OpCode::Binary, &[9; 300]));
        client.client.send_bytewise(&bytes);
        client.read_upgrade();
        let mut got = [client.read(), client.read(), client.read()];
        got.sort_by_key(|received| !matches!(received, Received::Pong(_)));
        assert_eq!(got, [
            Received::Pong(b"ping".to_vec()),
            Received::Text("один два".into()),
            Received::Binary(vec![9; 300]),
        ]);
    }

    fn frames_may_be_split_anywhere(driver) {
        let server = TestServer::start(driver, 1);
        let mut frames = masked(true, OpCode::Text, "für alle".as_bytes());
        frames.extend(masked(true, OpCode::Binary, &[5; 200]));
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        for at in 1..frames.len() {
            client.client.send(&frames[..at]);
            client.client.send(&frames[at..]);
            client.expect_text("für alle");
            assert_eq!(client.read(), Received::Binary(vec![5; 200]));
        }
    }

    fn frames_may_be_sent_with_the_handshake(driver) {
        let server = TestServer::start(driver, 2);
        // The channels' home workers differ.
        for channel in ["a", "b", "c", "d", "e", "f"] {
            let mut client = WebSocket::over(Client::connect(server.edge()));
            let mut bytes = WebSocket::request(&format!("/ws?channel={channel}")).into_bytes();
            for n in 0..10 {
                bytes.extend(masked(true, OpCode::Text, format!("{n}").as_bytes()));
            }
            client.client.send(&bytes);
            client.read_upgrade();
            for n in 0..10 {
                client.expect_text(&n.to_string());
            }
        }
    }

    fn a_request_may_be_pipelined_before_the_handshake(driver) {
        let server = TestServer::start(driver, 2);
        for channel in ["a", "b", "c", "d"] {
            let mut client = WebSocket::over(Client::connect(server.edge()));
            let mut bytes = format!(
                "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx"
            ).into_bytes();
            bytes.extend(WebSocket::request(&format!("/ws?channel={channel}&channel=other")).into_bytes());
            bytes.extend(masked(true, OpCode::Text, b"hello"));
            client.client.send(&bytes);
            assert_eq!(client.client.read_response().status, 200);
            client.read_upgrade();
            client.expect_text("hello");
        }
    }

    fn a_large_message_reaches_every_subscriber(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients: Vec<WebSocket> =
            (0..4).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let text = "0123456789abcdef".repeat(65_536);
        clients[0].send_text(&text);
        for client in &mut clients {
            assert!(client.read() == Received::Text(text.clone()));
        }
        // The same in fragments of an odd size.
        let bytes = text.as_bytes();
        for (index, piece) in bytes.chunks(9973).enumerate() {
            let opcode = if index == 0 { OpCode::Text } else { OpCode::Continuation };
            let fin = (index + 1) * 9973 >= bytes.len();
            clients[1].send_frame(fin, opcode, piece);
        }
        for client in &mut clients {
            assert!(client.read() == Received::Text(text.clone()));
        }
    }

    fn a_message_at_the_size_limit_is_accepted_and_a_larger_one_closes_with_1009(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_bytes_max = 70_000);
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        let largest = vec![1; 70_000];
        client.send_binary(&largest);
        assert_eq!(client.read(), Received::Binary(largest.clone()));
        client.send_frame(false, OpCode::Binary, &largest[1..]);
        client.send_frame(true, OpCode::Continuation, &largest[..1]);
        assert_eq!(client.read(), Received::Binary(largest.clone()));

        expect_fault(&server, &masked(true, OpCode::Binary, &vec![1; 70_001]), 1009);
        let mut fragments = masked(false, OpCode::Binary, &largest);
        fragments.extend(masked(true, OpCode::Continuation, b"x"));
        expect_fault(&server, &fragments, 1009);
        // Rejected by its announced length, before it arrives.
        expect_fault(&server, &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71, 1, 2, 3, 4], 1009);
        assert_eq!(server.closed(CloseReason::MessageTooBig), 6);
    }

    // RFC 6455 5.4: a fragment may be empty. Autobahn 9.3.1 sends 4 MiB in fragments of 64 bytes.
    fn a_message_with_the_maximum_number_of_fragments_is_accepted_and_one_more_closes_with_1009(driver) {
        let server = TestServer::start_with(driver, 1, |config| config.message_bytes_max = 4 << 20);
        let of = |first: &[u8], more: usize, piece: &[u8], last: &[u8]| {
            let mut bytes = masked(false, OpCode::Binary, first);
            bytes.extend(masked(false, OpCode::Continuation, piece).repeat(more));
            bytes.extend(masked(true, OpCode::Continuation, last));
            bytes
        };
        let most = FRAGMENTS_PER_MESSAGE_MAX as usize;
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        client.client.send(of(b"", most - 2, b"", b"x"));
        assert_eq!(client.read(), Received::Binary(b"x".to_vec()));
        client.client.send(of(&[7; 64], 65_535, &[7; 64], b""));
        assert!(client.read() == Received::Binary(vec![7; 4 << 20]));

        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        client.client.send(of(b"", most - 1, b"", b"x"));
        let reason = "message in too many fragments".to_owned();
        assert_eq!(client.read(), Received::Close(Some(1009), reason));
        client.client.expect_end();
        assert_eq!(server.closed(CloseReason::MessageTooBig), 1);
    }

    fn each_protocol_error_closes_with_1002(driver) {
        let server = TestServer::start(driver, 1);
        let frame = |first: u8| {
            let mut frame = masked(true, OpCode::Text, b"hello");
            frame[0] = first;
            frame
        };
        expect_fault(&server, &unmasked(OpCode::Text, b"hello"), 1002);
        expect_fault(&server, &unmasked(OpCode::Ping, b""), 1002);
        for reserved_bit in [0x10, 0x20, 0x40] {
            expect_fault(&server, &frame(0x81 | reserved_bit), 1002);
        }
        for reserved_opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            expect_fault(&server, &frame(0x80 | reserved_opcode), 1002);
        }
        for fragmented_control in [0x08, 0x09, 0x0a] {
            expect_fault(&server, &frame(fragmented_control), 1002);
        }
        let mut long_ping = masked(true, OpCode::Binary, &[0; 126]);
        long_ping[0] = 0x89;
        expect_fault(&server, &long_ping, 1002);
        expect_fault(&server, &masked(true, OpCode::Continuation, b"x"), 1002);
        expect_fault(&server, &masked(false, OpCode::Continuation, b"x"), 1002);
        let mut interrupted = masked(false, OpCode::Text, b"x");
        interrupted.extend(masked(true, OpCode::Text, b"y"));
        expect_fault(&server, &interrupted, 1002);
        // Lengths that are not minimally encoded, or negative.
        expect_fault(&server, &[0x82, 0xfe, 0, 125, 1, 2, 3, 4], 1002);
        expect_fault(&server, &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], 1002);
        expect_fault(&server, &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002);
        // Invalid close frames.
        expect_fault(&server, &masked(true, OpCode::Close, b"x"), 1002);
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            expect_fault(&server, &masked(true, OpCode::Close, &code.to_be_bytes()), 1002);
        }
    }

    fn invalid_utf_8_closes_with_1007(driver) {
        let server = TestServer::start(driver, 1);
        for text in [&b"\xff"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
            expect_fault(&server, &masked(true, OpCode::Text, text), 1007);
            expect_fault(&server, &masked(true, OpCode::Close, &[&1000_u16.to_be_bytes(), text].concat()), 1007);
        }
        let mut split = masked(false, OpCode::Text, b"\xe2\x82");
        split.extend(masked(true, OpCode::Continuation, b"x"));
        expect_fault(&server, &split, 1007);
        // As soon as it is detected, although the message is unfinished.
        expect_fault(&server, &masked(false, OpCode::Text, b"\xff"), 1007);
        assert_eq!(server.closed(CloseReason::InvalidUtf8), 24);
    }

    fn valid_close_codes_are_echoed(driver) {
        let server = TestServer::start(driver, 1);
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            let mut client = WebSocket::connect(server.edge(), "/ws");
            client.send_close(code);
            client.expect_close(code);
        }
        let mut client = WebSocket::connect(server.edge(), "/ws");
        client.send_frame(true, OpCode::Close, b"");
        assert_eq!(client.read(), Received::Close(None, String::new()));
        client.client.expect_end();
        let mut client = WebSocket::connect(server.edge(), "/ws");
        client.send_frame(true, OpCode::Close, &[&1000_u16.to_be_bytes()[..], &[b'x'; 123]].concat());
        client.expect_close(1000);
        assert_eq!(server.closed(CloseReason::ClientClosed), 18);
    }

    fn messages_before_a_close_are_published_and_later_ones_are_not(driver) {
        let server = TestServer::start(driver, 2);
        let mut reader = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut bytes = masked(true, OpCode::Text, b"before");
        bytes.extend(masked(true, OpCode::Close, &1000_u16.to_be_bytes()));
        bytes.extend(masked(true, OpCode::Text, b"after"));
        client.client.send(&bytes);
        reader.expect_text("before");
        reader.send_text("last");
        reader.expect_text("last");
    }

    fn messages_before_a_fault_are_published(driver) {
        let server = TestServer::start(driver, 2);
        let mut reader = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut client = WebSocket::connect(server.edge(), "/ws?channel=b&channel=a");
        let mut publisher = WebSocket::connect(server.edge(), "/ws?channel=a");
        publisher.client.send([masked(true, OpCode::Text, b"before"), unmasked(OpCode::Text, b"x")].concat());
        reader.expect_text("before");
        client.expect_text("before");
        client.round_trip();
    }

    fn a_client_that_leaves_without_a_close_is_removed(driver) {
        let server = TestServer::start(driver, 2);
        let mut stays = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut ends = WebSocket::connect(server.edge(), "/ws?channel=a");
        ends.client.end();
        ends.client.expect_end();
        let resets = WebSocket::connect(server.edge(), "/ws?channel=a");
        resets.client.reset();
        wait_until("both subscriptions are gone", || server.sum(|counters| &counters.subscriptions) == 1);
        stays.send_text("still here");
        stays.expect_text("still here");
        assert_eq!(server.closed(CloseReason::ClientGone), 2);
    }

    fn messages_of_a_client_that_half_closes_with_its_handshake_are_published(driver) {
        let server = TestServer::start(driver, 2);
        let channels = ["a", "b", "c", "d", "e", "f"];
        let mut readers = channels.map(|channel| {
            WebSocket::connect(server.edge(), &format!("/ws?channel={channel}"))
        });
        for (channel, reader) in channels.iter().zip(&mut readers) {
            let mut client = Client::connect(server.edge());
            let mut bytes = WebSocket::request(&format!("/ws?channel={channel}")).into_bytes();
            bytes.extend(masked(true, OpCode::Text, b"bye"));
            client.send(&bytes);
            client.end();
            reader.expect_text("bye");
            wait_until("only the readers are left", || {
                server.sum(|counters| &counters.subscriptions) == 6
            });
            client.expect_gone();
        }
    }

    fn many_subscribers_receive_the_order_of_one_publisher(driver) {
        let server = TestServer::start(driver, 2);
        let mut clients: Vec<WebSocket> =
            (0..20).map(|_| WebSocket::connect(server.edge(), "/ws?channel=a")).collect();
        let frames: Vec<u8> =
            (0..1000).flat_map(|n| masked(true, OpCode::Text, format!("{n}").as_bytes())).collect();
        clients[7].client.send(&frames);
        for client in &mut clients {
            for n in 0..1000 {
                client.expect_text(&n.to_string());
            }
        }
    }

    fn a_client_receives_every_publication_made_after_its_handshake(driver) {
        let server = TestServer::start(driver, 2);
        // On both workers, independent of the channel's home.
        let mut publishers: Vec<Client> = (0..4).map(|_| Client::connect(server.edge())).collect();
        for round in 0..400 {
            let channel = format!("r{round}");
            let publisher = &mut publishers[round % 4];
            let mut subscriber = WebSocket::connect(server.edge(), &format!("/ws?channel=x{round}&channel={channel}"));
            let published = publisher.publish(&channel, "now");
            assert_eq!(published["offset"], 1);
            subscriber.expect_text("now");
        }
    }

    fn a_client_that_leaves_receives_nothing_and_offsets_continue(driver) {
        let server = TestServer::start(driver, 2);
        let mut publisher = Client::connect(server.edge());
        let mut epochs = Vec::new();
        for round in 0..3 {
            let mut subscriber = WebSocket::connect(server.edge(), "/ws?channel=a");
            let first = publisher.publish("a", "x");
            // The history of a channel outlives its subscribers, so its offsets continue.
            assert_eq!(first["offset"], 3 * round + 1);
            assert_eq!(publisher.publish("a", "y")["offset"], 3 * round + 2);
            epochs.push(first["epoch"].as_str().unwrap().to_owned());
            subscriber.expect_text("x");
            subscriber.expect_text("y");
            subscriber.send_close(1000);
            subscriber.expect_close(1000);
            publisher.publish("a", "without subscribers");
        }
        epochs.dedup();
        assert_eq!(epochs.len(), 1);
    }
}
