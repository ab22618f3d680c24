//! permessage-deflate (RFC 7692): what is negotiated, sent and taken.

use fantail::config::DriverChoice;
use fantail::message::CloseReason;
use fantail::protocol::websocket::OpCode;
use serde_json::json;

use crate::support::{Client, Received, TestServer, WebSocket, masked, on_both_drivers};

/// A server whose address for HTTP and whose echo offer compression, with messages of at most 64 KiB.
fn server(driver: DriverChoice) -> TestServer {
    TestServer::start_with(driver, 2, |config| {
        config.listen[0].offers_deflate = true;
        config.echo[0].offers_deflate = true;
        config.message_bytes_max = 64 * 1024;
        config.echo_message_bytes_max = 64 * 1024;
    })
}

/// A frame whose message is compressed.
fn compressed(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked(fin, opcode, payload);
    frame[0] |= 0x40;
    frame
}

/// Stored blocks of RFC 1951 3.2.4, of which only the last header is left to the flush.
fn stored(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in text.chunks(60_000) {
        let len = u16::try_from(chunk.len()).unwrap();
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out.push(0);
    out
}

/// "Hello" in RFC 7692 7.2.3.1.
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

on_both_drivers! {
    fn publications_are_compressed_for_those_who_negotiated_it(driver) {
        let server = server(driver);
        let mut plain = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut packed: Vec<_> =
            (0..3).map(|_| WebSocket::connect_deflated(server.edge(), "/ws?channel=a")).collect();
        let mut commands = WebSocket::connect_deflated(server.edge(), "/connection/websocket");
        commands.send_text("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}");
        commands.read_text();
        commands.read_text();
        let text = json!({"prices": vec![json!({"bid": 1.2345, "ask": 1.2346}); 30]}).to_string();
        let mut http = Client::connect(server.edge());
        for (at, text) in [text.clone(), "short".to_owned(), text].iter().enumerate() {
            http.publish("a", text);
            plain.expect_text(text);
            for socket in &mut packed {
                socket.expect_text(text);
                assert_eq!(socket.compressed, 1 + at / 2, "short messages are not compressed");
            }
            let push = commands.read_text();
            assert!(push.contains(&text[1..text.len() - 1]), "{push}");
            assert_eq!(commands.compressed, 1 + at / 2);
        }
    }

    fn a_client_is_answered_what_it_may_be_sent(driver) {
        let server = server(driver);
        let offers = [
            ("x-other, permessage-deflate; server_max_window_bits=16, permessage-deflate", Some(""), 1),
            ("permessage-deflate; server_max_window_bits=9", Some("; server_max_window_bits=9"), 0),
            ("permessage-deflate; mystery", None, 0),
            ("x-webkit-deflate-frame", None, 0),
        ];
        let text = "the same again and ".repeat(100);
        for (offer, answer, compressed) in offers {
            let mut socket = WebSocket::over(Client::connect(server.edge()));
            let offer = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
            socket.client.send(WebSocket::request("/ws?channel=a").replace("\r\n\r\n", &offer));
            let response = socket.read_upgrade();
            let base = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
            let expected = answer.map(|rest| format!("{base}{rest}"));
            assert_eq!(response.header("sec-websocket-extensions"), expected.as_deref(), "{offer}");
            Client::connect(server.edge()).publish("a", &text);
            socket.expect_text(&text);
            assert_eq!(socket.compressed, compressed, "{offer}");
        }
        // An address that does not offer it.
        let server = TestServer::start(driver, 1);
        let mut socket = WebSocket::over(Client::connect(server.edge()));
        let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        socket.client.send(WebSocket::request("/ws?channel=a").replace("\r\n\r\n", offer));
        assert_eq!(socket.read_upgrade().header("sec-websocket-extensions"), None);
        socket.client.send(compressed_hello());
        socket.expect_close(1002);
    }

    fn compressed_messages_of_clients_are_taken(driver) {
        let server = server(driver);
        let mut listener = WebSocket::connect(server.edge(), "/ws?channel=a");
        let mut socket = WebSocket::connect_deflated(server.edge(), "/ws?channel=a");
        let mut both = |socket: &mut WebSocket, text: &str| {
            socket.expect_text(text);
            listener.expect_text(text);
        };
        socket.client.send(compressed_hello());
        both(&mut socket, "Hello");
        // A byte at a time, in fragments with a ping between them, and not compressed.
        for byte in compressed_hello() {
            socket.client.send([byte]);
        }
        both(&mut socket, "Hello");
        socket.client.send(compressed(false, OpCode::Text, &HELLO[..3]));
        socket.send_frame(true, OpCode::Ping, b"there?");
        socket.send_frame(false, OpCode::Continuation, b"");
        socket.send_frame(true, OpCode::Continuation, &HELLO[3..]);
        assert_eq!(socket.read(), Received::Pong(b"there?".to_vec()));
        both(&mut socket, "Hello");
        socket.send_text("plain");
        both(&mut socket, "plain");
        socket.client.send(compressed(true, OpCode::Text, b"\x00"));
        both(&mut socket, "");
        // Commands, and an echo of binary messages.
        let mut commands = WebSocket::connect_deflated(server.edge(), "/connection/websocket");
        let connect = stored(b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"ping\":{}}");
        commands.client.send(compressed(true, OpCode::Text, &connect));
        assert!(commands.read_text().contains("\"connect\""));
        assert!(commands.read_text().contains("\"ping\""));
        let mut echo = WebSocket::connect_deflated(server.echo(), "/");
        echo.client.send(compressed(true, OpCode::Binary, &stored(&[7; 60_000])));
        assert!(echo.read() == Received::Binary(vec![7; 60_000]));
    }

    fn what_cannot_be_inflated_ends_the_connection(driver) {
        let server = server(driver);
        let ended = [HELLO, b"\x00"].concat();
        // 16 MiB in 16 KiB.
        let bomb = bomb();
        assert!(bomb.len() < 32 * 1024, "{}", bomb.len());
        let cases: [(Vec<u8>, u16); 9] = [
            (compressed(true, OpCode::Text, &HELLO[..4]), 1007),
            (compressed(true, OpCode::Text, b"\x07\x00\x00"), 1007),
            (compressed(true, OpCode::Text, &[b"\xf3\x48\xcd\xc9\xc9\x07\x00", &ended[..]].concat()), 1007),
            (compressed(true, OpCode::Text, &stored(b"\xff\xfe")), 1007),
            (compressed(true, OpCode::Text, &stored(&[b'a'; 64 * 1024 + 1])), 1009),
            (compressed(true, OpCode::Binary, &bomb), 1009),
            (compressed(true, OpCode::Ping, HELLO), 1002),
            ([compressed(false, OpCode::Text, HELLO), compressed(true, OpCode::Continuation, b"")].concat(), 1002),
            ([vec![0xA1, 0x80], vec![0; 4]].concat(), 1002),
        ];
        for (at, (bytes, code)) in cases.iter().enumerate() {
            for path in ["/ws?channel=a", "/connection/websocket"] {
                let mut socket = WebSocket::connect_deflated(server.edge(), path);
                socket.client.send(bytes);
                assert!(
                    matches!(socket.read(), Received::Close(Some(is), _) if is == *code),
                    "case {at} at {path}"
                );
            }
        }
        assert!(server.closed(CloseReason::MessageTooBig) >= 4);
        let mut other = WebSocket::connect_deflated(server.edge(), "/ws?channel=a");
        other.client.send(compressed_hello());
        other.expect_text("Hello");
    }

    fn an_idle_client_that_negotiated_it_owns_nothing(driver) {
        let server = server(driver);
        let mut socket = WebSocket::connect_deflated(server.edge(), "/ws?channel=a");
        for byte in compressed_hello() {
            socket.client.send([byte]);
        }
        socket.expect_text("Hello");
        socket.send_frame(true, OpCode::Ping, b"");
        assert_eq!(socket.read(), Received::Pong(Vec::new()));
        crate::support::wait_until("nothing is held", || {
            server.sum(|counters| &counters.unfinished_message_bytes) == 0
        });
    }
}

fn compressed_hello() -> Vec<u8> {
    compressed(true, OpCode::Text, HELLO)
}

/// 16 MiB of zeros, compressed.
fn bomb() -> Vec<u8> {
    let mut out = Vec::new();
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    out.reserve(1 << 20);
    let zeros = vec![0; 16 << 20];
    compress.compress_vec(&zeros, &mut out, flate2::FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}
