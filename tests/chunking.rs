//! A codec returns the same frames and the same fault for every split of its input.
//!
//! Each corpus contains valid streams and streams with each fault. Each stream is decoded in one piece, in two pieces
//! at every position, byte by byte, and at random splits; then random mutations are compared in the same way, which
//! also shows that no input panics. A failure prints its seed, and `CHUNKING_SEED` repeats it.

use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use bytes::Bytes;
use fantail::config::{Config, Framing};
use fantail::message::{
    ClientId, NodeId, Origin, Reply, Request, SessionId, SessionRequest, WorkerId,
};
use fantail::protocol::http1::{BodyDecoder, BodyPart, HeadLimits, parse_head};
use fantail::protocol::length_prefix::LengthPrefixDecoder;
use fantail::protocol::line::LineDecoder;
use fantail::protocol::protobuf::schema;
use fantail::protocol::websocket::{
    Fault, Inflater, Limits, MessageDecoder, OpCode, Role, Utf8Check, write_close, write_frame,
    write_header,
};
use fantail::transport::{
    Answers, CommandConversation, CommandEncoding, Context, Conversation, Flow, Output, Service,
    Transport, TransportSettings, WebSocketConversation, WebSocketService,
};
use prost::Message;

/// The results of a codec in order; the last may be a fault.
type Results = Vec<String>;

const MESSAGE_BYTES_MAX: u32 = 400;

#[test]
fn websocket_messages_do_not_depend_on_splits() {
    let mut corpus = websocket_corpus();
    for role in [Role::Server, Role::Client] {
        let decode = |pieces: &[&[u8]]| decode_websocket(pieces, role);
        check_every_split(&corpus, decode);
        check_mutations(&corpus, 25_000, decode);
        corpus = corpus.iter().map(|frames| toggle_first_mask_bit(frames)).collect();
    }
}

#[test]
fn the_corpus_contains_every_websocket_fault() {
    let mut results: Vec<String> = Vec::new();
    for stream in websocket_corpus() {
        results.extend(decode_websocket(&[&stream], Role::Server));
        results.extend(decode_websocket(&[&stream], Role::Client));
    }
    // What is compressed is not looked into by the decoder.
    for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::DeflateInvalid) {
        assert!(results.contains(&format!("{fault:?}")), "{fault:?} is not in the corpus");
    }
}

#[test]
fn a_frame_with_a_64_bit_length_does_not_depend_on_splits() {
    let payload: Vec<u8> = (0..70_000_u32).map(|index| b'a' + (index % 26) as u8).collect();
    let mut stream = masked(OpCode::Text, true, &payload);
    stream.extend(masked(OpCode::Ping, true, b"after"));
    let limits = Limits {
        role: Role::Server,
        message_bytes_max: 70_000,
        fragments_max: 1,
        has_compression: false,
    };
    let decode = |pieces: &[&[u8]]| decode_websocket_within(pieces, &limits);
    let whole = decode(&[&stream]);
    assert_eq!(whole.len(), 2);
    for cut in (0..20)
        .chain([1000, 65_536, 69_999, 70_010, 70_014])
        .chain(stream.len() - 12..=stream.len())
    {
        assert!(decode(&[&stream[..cut], &stream[cut..]]) == whole, "split at {cut}");
    }
    let mut random = Random::seeded();
    for _ in 0..20 {
        assert!(decode(&random.pieces(&stream)) == whole, "seed {}", random.seed);
    }
}

#[test]
fn http_requests_do_not_depend_on_splits() {
    let corpus = http_corpus();
    check_every_split(&corpus, decode_http);
    check_mutations(&corpus, 40_000, decode_http);
}

#[test]
fn lines_do_not_depend_on_splits() {
    let streams: [&[u8]; 6] = [
        b"one\ntwo\r\n\nfour\r\r\nrest",
        b"1234567890\n1234567890\r\nok\n",
        b"12345678901\nok\n",
        b"1234567890\rX\nok\n",
        b"1234567890123456789012345678901234567890\r\nok\r\n",
        b"\r\n\n\r\r\n\0\xFF\n",
    ];
    let corpus: Vec<Vec<u8>> = streams.map(<[u8]>::to_vec).into();
    check_every_split(&corpus, decode_lines);
    check_mutations(&corpus, 20_000, decode_lines);
}

#[test]
fn length_prefixed_frames_do_not_depend_on_splits() {
    let streams: [&[u8]; 4] = [
        b"\0\0\0\x05hello\0\0\0\0\0\0\0\x01!\0\0\0\x03cu",
        b"\0\0\0\x0A0123456789\0\0\0\x0B",
        b"\0\0\0\x01a\xFF\xFF\xFF\xFFrest",
        b"\0\0\0",
    ];
    let corpus: Vec<Vec<u8>> = streams.map(<[u8]>::to_vec).into();
    check_every_split(&corpus, decode_length_prefixed);
    check_mutations(&corpus, 20_000, decode_length_prefixed);
}

#[test]
fn commands_do_not_depend_on_splits() {
    let lines: Vec<Vec<u8>> =
        command_corpus().into_iter().map(|lines| lines.join("\n").into()).collect();
    let over_lines = |pieces: &[&[u8]]| {
        let mut conversation = CommandConversation::new(Framing::Line);
        feed(pieces, |bytes, context| receive(&mut conversation, bytes, context))
    };
    check_every_split(&lines, over_lines);
    check_mutations(&lines, 20_000, over_lines);
    let prefixed = |line: &&str| {
        let len = u32::try_from(line.len()).expect("a line is short");
        [&len.to_be_bytes(), line.as_bytes()].concat()
    };
    let frames: Vec<Vec<u8>> =
        command_corpus().iter().map(|lines| lines.iter().flat_map(prefixed).collect()).collect();
    let over_frames = |pieces: &[&[u8]]| {
        let mut conversation = CommandConversation::new(Framing::LengthPrefix);
        feed(pieces, |bytes, context| receive(&mut conversation, bytes, context))
    };
    check_every_split(&frames, over_frames);
    check_mutations(&frames, 20_000, over_frames);
}

#[test]
fn commands_in_messages_do_not_depend_on_splits() {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for lines in command_corpus() {
        let each = lines.iter().flat_map(|line| masked(OpCode::Text, true, line.as_bytes()));
        corpus.push(each.chain(masked(OpCode::Close, true, b"\x03\xE8")).collect());
        let joined = lines.join("\n");
        let (front, back) = joined.as_bytes().split_at(joined.len() / 2);
        let parts = [
            masked(OpCode::Text, false, front),
            masked(OpCode::Ping, true, b"there?"),
            masked(OpCode::Continuation, true, back),
        ];
        corpus.push(parts.concat());
        corpus.push([parts.concat(), masked(OpCode::Binary, true, b"{}")].concat());
    }
    let decode = |pieces: &[&[u8]]| {
        let service = WebSocketService::Commands(CommandEncoding::Json);
        let mut conversation = WebSocketConversation::new(service);
        feed(pieces, |bytes, context| receive(&mut conversation, bytes, context))
    };
    check_every_split(&corpus, decode);
    check_mutations(&corpus, 25_000, decode);
}

#[test]
fn commands_in_protobuf_do_not_depend_on_splits() {
    let of_channel = || Some(schema::OfChannel { channel: "a".into() });
    let command = schema::Command::default;
    let connect = schema::Command {
        id: 1,
        connect: Some(schema::ConnectRequest { name: "x".into(), ..Default::default() }),
        ..command()
    };
    let data = Bytes::from_static(b"\xff\0{}");
    let publish = Some(schema::PublishRequest { channel: "a".into(), data: data.clone() });
    let rpc = Some(schema::RpcRequest { data, method: "m".into() });
    let subscribe = Some(schema::SubscribeRequest {
        channel: "a".into(),
        recover: true,
        offset: 300,
        epoch: "000000ff".into(),
        ..Default::default()
    });
    let commands = [
        connect,
        schema::Command { id: 300, subscribe, ..command() },
        schema::Command { id: 3, publish: publish.clone(), ..command() },
        schema::Command { publish, ..command() },
        command(),
        schema::Command { id: 4, rpc, ..command() },
        schema::Command { id: 5, presence: of_channel(), ..command() },
        schema::Command { id: 6, ping: Some(schema::Empty {}), ..command() },
        schema::Command { id: 7, unsubscribe: of_channel(), ..command() },
    ];
    let framed: Vec<Vec<u8>> = commands.map(|it| it.encode_length_delimited_to_vec()).into();
    let joined = framed.concat();
    let (front, back) = joined.split_at(joined.len() / 2);
    let mut corpus: Vec<Vec<u8>> = vec![
        framed.iter().flat_map(|command| masked(OpCode::Binary, true, command)).collect(),
        masked(OpCode::Binary, true, &joined),
        [masked(OpCode::Binary, false, front), masked(OpCode::Continuation, true, back)].concat(),
        masked(OpCode::Text, true, &framed[0]),
    ];
    // Cut, longer than its message, and of the wrong type.
    for bad in [&b"\x05\x08"[..], b"\x80", b"\x02\x0a\x01", b"\x03\x08\x01\x20"] {
        corpus.push(masked(OpCode::Binary, true, &[&framed[0], bad].concat()));
    }
    let decode = |pieces: &[&[u8]]| {
        let service = WebSocketService::Commands(CommandEncoding::Protobuf);
        let mut conversation = WebSocketConversation::new(service);
        feed(pieces, |bytes, context| receive(&mut conversation, bytes, context))
    };
    check_every_split(&corpus, decode);
    check_mutations(&corpus, 25_000, decode);
}

#[test]
fn commands_over_http_do_not_depend_on_splits() {
    let command = r#"{"id":1,"connect":{"token":"t","data":{"a":[1]},"name":"js"}}"#;
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let of_length = |path: &str, body: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}", body.len());
        [head.as_bytes(), b"\r\n\r\n", body].concat()
    };
    for lines in command_corpus().into_iter().chain([vec![command], vec!["{}"], vec![]]) {
        let body = lines.join("\n");
        for path in ["/connection/http_stream", "/connection/sse"] {
            corpus.push(of_length(path, body.as_bytes()));
            let (front, back) = body.split_at(body.len() / 3);
            let (front_len, back_len) = (front.len(), back.len());
            corpus.push(
                format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                     {front_len:x}\r\n{front}\r\n{back_len:x}\r\n{back}\r\n0\r\n\r\n"
                )
                .into_bytes(),
            );
        }
    }
    let escaped: String = command.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let get = format!("GET /connection/sse?cf_connect={escaped} HTTP/1.1\r\nHost: a\r\n\r\n");
    corpus.push(get.into_bytes());
    let node = NodeId::new(1);
    let emulation = format!(r#"{{"session":"s","node":"{node}","data":"{{}}\n"}}"#);
    for body in
        [&*emulation, r#"{"session":"s","node":"x","data":"{}"}"#, r#"{"data":7}"#, "[]", ""]
    {
        let ping = of_length("/emulation", body.as_bytes());
        corpus.push([&ping[..], &ping, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    }
    let connect = Some(schema::ConnectRequest { name: "x".into(), ..Default::default() });
    let connect = schema::Command { id: 1, connect, ..schema::Command::default() };
    let mut body = connect.encode_length_delimited_to_vec();
    body.extend_from_slice(b"\x00\x02\x08\x07");
    let request = of_length("/connection/http_stream", &body);
    let kind: &[u8] = b"\r\nContent-Type: application/octet-stream\r\n\r\n";
    let at = request.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
    corpus.push([&request[..at], kind, &body].concat());
    corpus.push([&request[..at], kind, &body[..body.len() - 1], b"\xff"].concat());
    // A request that comes in pieces has a deadline of its own.
    let decode = |pieces: &[&[u8]]| {
        let results = decode_edge(pieces);
        results.into_iter().filter(|result| !result.starts_with("Deadline")).collect()
    };
    check_every_split(&corpus, decode);
}

#[test]
fn utf_8_validation_does_not_depend_on_splits() {
    let texts: [&[u8]; 5] = [
        "κόσμε – naïve 😀 €, and ASCII up to more than one vector of sixty-four bytes 😀"
            .as_bytes(),
        b"a\xED\xA0\x80b",
        b"\xF4\x90\x80\x80",
        b"\xE2\x82",
        b"\x80",
    ];
    let corpus: Vec<Vec<u8>> = texts.map(<[u8]>::to_vec).into();
    let judge = |pieces: &[&[u8]]| {
        let mut check = Utf8Check::new();
        let valid = pieces.iter().all(|piece| check.push(piece)) && check.is_complete();
        assert_eq!(valid, std::str::from_utf8(&pieces.concat()).is_ok());
        vec![format!("{valid}")]
    };
    check_every_split(&corpus, judge);
    check_mutations(&corpus, 20_000, judge);
}

fn check_every_split(corpus: &[Vec<u8>], decode: impl Fn(&[&[u8]]) -> Results) {
    let mut random = Random::seeded();
    for stream in corpus {
        let whole = decode(&[stream]);
        let text = String::from_utf8_lossy(stream);
        for cut in 0..=stream.len() {
            let results = decode(&[&stream[..cut], &stream[cut..]]);
            assert_eq!(results, whole, "split at {cut} of {text:?}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode(&bytes), whole, "byte by byte, {text:?}");
        for _ in 0..50 {
            let pieces = random.pieces(stream);
            assert_eq!(decode(&pieces), whole, "seed {}, {pieces:?}", random.seed);
        }
    }
}

fn check_mutations(corpus: &[Vec<u8>], count: usize, decode: impl Fn(&[&[u8]]) -> Results) {
    let mut random = Random::seeded();
    for _ in 0..count {
        let stream = random.mutation(corpus);
        let whole = decode(&[&stream]);
        let pieces = random.pieces(&stream);
        assert_eq!(decode(&pieces), whole, "seed {}, {pieces:?}", random.seed);
    }
}

fn decode_websocket(pieces: &[&[u8]], role: Role) -> Results {
    let message_bytes_max = MESSAGE_BYTES_MAX;
    decode_websocket_within(
        pieces,
        &Limits { role, message_bytes_max, fragments_max: 4, has_compression: false },
    )
}

fn decode_websocket_within(pieces: &[&[u8]], limits: &Limits) -> Results {
    let mut decoder = MessageDecoder::new();
    let mut results = Results::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(message)) => results.push(format!("{message:?}")),
                Ok(None) => break assert!(input.is_empty(), "input is left over"),
                Err(fault) => return faulted(results, fault),
            }
        }
        assert!(!decoder.is_between_messages() || decoder.buffered_bytes() == 0);
    }
    results
}

/// Decodes requests like a connection does: a head from the buffered bytes, then its body, then the next head.
fn decode_http(pieces: &[&[u8]]) -> Results {
    let limits = HeadLimits { head_bytes_max: 200, uri_bytes_max: 40, headers_max: 5 };
    let mut results = Results::new();
    let mut gathered: Vec<u8> = Vec::new();
    let mut body: Option<(BodyDecoder, Vec<u8>)> = None;
    for piece in pieces {
        gathered.extend_from_slice(piece);
        loop {
            let taken = match &mut body {
                None => match parse_head(&gathered, &limits) {
                    Ok(None) => break,
                    Err(fault) => return faulted(results, fault),
                    Ok(Some(head)) => {
                        results.push(describe(&head));
                        match BodyDecoder::new(head.body, 30) {
                            Ok(decoder) => body = Some((decoder, Vec::new())),
                            Err(fault) => return faulted(results, fault),
                        }
                        head.head_bytes
                    }
                },
                Some((decoder, data)) => {
                    let mut input = gathered.as_slice();
                    match decoder.next(&mut input) {
                        Err(fault) => return faulted(results, fault),
                        Ok(BodyPart::Data(part)) => data.extend_from_slice(part),
                        Ok(BodyPart::NeedMore) => {
                            gathered.clear();
                            break;
                        }
                        Ok(BodyPart::End) => {
                            results.push(format!("body {data:?}"));
                            body = None;
                        }
                    }
                    gathered.len() - input.len()
                }
            };
            gathered.drain(..taken);
        }
    }
    results
}

fn describe(head: &fantail::protocol::http1::Head<'_>) -> String {
    let headers: Vec<_> = head.headers().collect();
    format!(
        "{:?} {:?} {:?} {:?} {} {:?} {} {} {headers:?}",
        head.method,
        head.path,
        head.query,
        head.version,
        head.keep_alive,
        head.body,
        head.expect_continue,
        head.head_bytes
    )
}

fn decode_lines(pieces: &[&[u8]]) -> Results {
    let mut decoder = LineDecoder::new();
    let mut results = Results::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, 10) {
                Ok(Some(line)) => results.push(format!("{line:?}")),
                Ok(None) => break assert!(input.is_empty(), "input is left over"),
                Err(fault) => results.push(format!("{fault:?}")),
            }
        }
        assert!(decoder.buffered_bytes() < 100, "a line is buffered beyond its limit");
    }
    results
}

fn decode_length_prefixed(pieces: &[&[u8]]) -> Results {
    let mut decoder = LengthPrefixDecoder::new();
    let mut results = Results::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, 10) {
                Ok(Some(payload)) => results.push(format!("{payload:?}")),
                Ok(None) => break assert!(input.is_empty(), "input is left over"),
                Err(fault) => return faulted(results, fault),
            }
        }
    }
    results
}

/// Sessions of commands, one command on each line; the last session has invalid ones.
fn command_corpus() -> Vec<Vec<&'static str>> {
    let session = vec![
        r#"{"id":1,"connect":{"token":"t","data":{"a":[1]},"name":"js"}}"#,
        r#"{"id":2,"subscribe":{"channel":"é","recover":true,"epoch":"000000ff","offset":7,"flag":1}}"#,
        "",
        r#"{"id":3,"publish":{"channel":"a","data":{"x":"\ud83d\ude00"}}}"#,
        r#"{"id":4,"history":{"channel":"a","limit":3,"since":{"offset":1,"epoch":"00000001"}}}"#,
        "{}",
        r#"{"id":5,"presence_stats":{"channel":"a"}}"#,
        r#"{"id":6,"rpc":{}}"#,
    ];
    let mut broken = vec![r#"{"id":1,"subscribe":{"channel":"early"}}"#];
    broken.extend(&session[..2]);
    broken.extend([r#"{"id":7,"presence":{"channel":7}}"#, r#"{"id":8,"dance":{}}"#, "[1]", "{}"]);
    vec![session, broken]
}

/// Replies to a `connect` at once, if the last step of a conversation asks for one.
fn replied(
    flow: Flow,
    context: &mut Context<'_>,
    reply: impl FnOnce(Origin, &Reply, &mut Context<'_>) -> Flow,
) -> Flow {
    match context.outputs.last() {
        Some(Output::Request(SessionRequest {
            origin: Some(origin),
            request: Request::Connect(_),
            ..
        })) => reply(*origin, &Reply::Connected(Box::default()), context),
        _ => flow,
    }
}

/// Runs a step of a conversation and replies to a `connect` at once.
fn receive(
    conversation: &mut impl Transport<Next = Infallible>,
    bytes: &mut [u8],
    context: &mut Context<'_>,
) -> Flow {
    let flow = conversation.receive(bytes, context);
    replied(flow, context, |origin, reply, context| conversation.reply(origin, reply, context))
}

/// What a connection to the edge writes and asks for. A `connect` is replied to at once.
fn decode_edge(pieces: &[&[u8]]) -> Results {
    let mut conversation = Conversation::new(Service::Edge);
    feed(pieces, |bytes, context| {
        let flow = conversation.receive(bytes, context);
        replied(flow, context, |origin, reply, context| conversation.reply(origin, reply, context))
    })
}

/// Returns the output, the requests and the final flow of a conversation.
fn feed(pieces: &[&[u8]], mut receive: impl FnMut(&mut [u8], &mut Context<'_>) -> Flow) -> Results {
    // All have one, because names of sessions are made with its key.
    static SETTINGS: LazyLock<TransportSettings> = LazyLock::new(|| {
        let message_bytes_max = 2 * u64::from(MESSAGE_BYTES_MAX);
        TransportSettings::new(&Config { message_bytes_max, ..Config::default() })
    });
    let (mut out, mut outputs) = (Vec::new(), Vec::new());
    let (mut answers, mut inflater) = (Answers::default(), Inflater::default());
    let session = SessionId { index: 1, generation: 2 };
    let mut results = Results::new();
    for piece in pieces {
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        let kept = (&mut answers, &mut inflater);
        let mut context = Context::new(client, &SETTINGS, kept, &mut out, &mut outputs);
        let flow = receive(&mut piece.to_vec(), &mut context);
        if flow != Flow::Receive {
            results.push(format!("{flow:?}"));
            break;
        }
    }
    results.push(String::from_utf8_lossy(&out).into_owned());
    results.extend(outputs.iter().map(|output| format!("{output:?}")));
    results
}

fn faulted(mut results: Results, fault: impl Debug) -> Results {
    results.push(format!("{fault:?}"));
    results
}

fn masked(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [0x9A, 0x12, 0xFF, 0x00];
    let mut out = Vec::new();
    write_header(&mut out, opcode, fin, payload.len());
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Streams for a server and some for a client. Each role rejects those of the other.
fn websocket_corpus() -> Vec<Vec<u8>> {
    let text = "naïve 😀 text";
    let (front, back) = text.as_bytes().split_at(9);
    let start = masked(OpCode::Text, false, b"start");
    let long = [b'x'; MESSAGE_BYTES_MAX as usize];
    let valid = [
        masked(OpCode::Text, true, text.as_bytes()),
        masked(OpCode::Binary, true, &[]),
        masked(OpCode::Ping, true, &[b'p'; 125]),
        masked(OpCode::Text, false, front),
        masked(OpCode::Pong, true, b""),
        masked(OpCode::Continuation, false, b""),
        masked(OpCode::Ping, true, b"in between"),
        masked(OpCode::Continuation, true, back),
        masked(OpCode::Binary, true, &long),
        masked(OpCode::Close, true, b"\x03\xE8bye"),
    ]
    .concat();
    let mut corpus = vec![valid];
    let after_text = |frame: &[u8]| [&masked(OpCode::Text, true, b"ok"), frame].concat();
    for frame in [
        vec![0xC1, 0x80, 1, 2, 3, 4],
        vec![0x83, 0x80, 1, 2, 3, 4],
        vec![0x09, 0x80, 1, 2, 3, 4],
        vec![0x89, 0xFE, 0, 126, 1, 2, 3, 4],
        vec![0x82, 0xFE, 0, 125, 1, 2, 3, 4],
        vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4],
        vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
        masked(OpCode::Continuation, true, b"lost"),
        [start.clone(), masked(OpCode::Binary, true, b"new")].concat(),
        masked(OpCode::Close, true, b"\x03"),
        masked(OpCode::Close, true, b"\x03\xED"),
        masked(OpCode::Close, true, b"\x03\xE8\xFF"),
        masked(OpCode::Close, true, b""),
        masked(OpCode::Text, true, b"surrogate \xED\xA0\x80 and more"),
        masked(OpCode::Text, true, b"unfinished \xF0\x9F\x98"),
        [start.clone(), masked(OpCode::Continuation, false, b"\xF4\x90 is past the end")].concat(),
        [start.clone(), masked(OpCode::Continuation, true, b"\xE2\x82")].concat(),
        [start.clone(), masked(OpCode::Continuation, true, &long)].concat(),
        [start, masked(OpCode::Continuation, false, b"").repeat(4)].concat(),
        masked(OpCode::Binary, true, &[b'x'; MESSAGE_BYTES_MAX as usize + 1]),
    ] {
        corpus.push(after_text(&frame));
    }
    let mut from_server = Vec::new();
    write_frame(&mut from_server, OpCode::Text, text.as_bytes());
    write_header(&mut from_server, OpCode::Binary, false, 3);
    from_server.extend_from_slice(b"one");
    write_frame(&mut from_server, OpCode::Ping, b"");
    write_frame(&mut from_server, OpCode::Continuation, &[0; 200]);
    write_close(&mut from_server, 1001, "going away");
    corpus.push(from_server);
    corpus
}

/// Makes the first frame valid for the other role; the rest becomes noise, which must be decoded consistently.
fn toggle_first_mask_bit(stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    stream[1] ^= 0x80;
    stream
}

fn http_corpus() -> Vec<Vec<u8>> {
    let host = "Host: a\r\n";
    let get = format!("GET / HTTP/1.1\r\n{host}\r\n");
    let mut texts = vec![
        format!("\r\nGET /a?b=c HTTP/1.1\r\n{host}Connection: close\r\n\r\n{get}"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello{get}"),
        format!(
            "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n\
             5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n{get}"
        ),
        format!("GET http://h/p HTTP/1.0\r\n\r\n{get}"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 31\r\n\r\n"),
        "\r\n\r\n\r\nGET / HTTP/1.1\r\n".to_owned(),
        "\rGET / HTTP/1.0\r\n\r\n".to_owned(),
        "BREW / HTTP/1.1\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\n\r\n".to_owned(),
        "GET nowhere HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\n{host}\r\n", "u".repeat(40)),
        "GET / HTTP/2.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nX: a\0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(200)),
        format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(5)),
        // Two faults in one request: the first must be reported, for every split.
        format!("GET /{} HTTP/3.0\nX : {}", "u".repeat(60), "x".repeat(300)),
        format!("GET / HTTP/1.1\r\n{host}X: {}\0\r\n\r\n", "x".repeat(300)),
        format!("GET / HTTP/1.1\r\n{host}\n{}", "x".repeat(300)),
    ];
    for header in [
        "Host: b",
        "Content-Length: +1",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "X: a\r\n folded",
        "X: a\rb",
    ] {
        texts.push(format!("POST / HTTP/1.1\r\n{host}{header}\r\n\r\n"));
    }
    for body in [
        "x",
        "5\nhello",
        "5\r\nhelloX",
        "5\r\nhello\r\n\r\n",
        "1f\r\n",
        "0\r\n x\r\n",
        "0;\0",
        "0\r\n\rX",
    ] {
        texts.push(format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{body}"));
    }
    texts.into_iter().map(String::into_bytes).collect()
}

/// SplitMix64 random numbers.
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn seeded() -> Self {
        let seed = match std::env::var("CHUNKING_SEED") {
            Ok(seed) => seed.parse().expect("CHUNKING_SEED is a number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        println!("CHUNKING_SEED={seed}");
        Self { seed, state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pieces<'s>(&mut self, mut stream: &'s [u8]) -> Vec<&'s [u8]> {
        let piece_bytes_max = [2, 5, 20, 100, 20_000][self.below(5)];
        let mut pieces = Vec::new();
        while !stream.is_empty() {
            let (piece, rest) = stream.split_at(self.below(piece_bytes_max + 1).min(stream.len()));
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }

    /// A stream of the corpus with some bytes changed, removed, duplicated or moved, or pure noise.
    fn mutation(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let index = self.below(corpus.len());
        let mut stream = corpus[index].clone();
        if self.below(20) == 0 {
            stream.fill_with(|| self.next() as u8);
        }
        for _ in 0..=self.below(4) {
            let at = self.below(stream.len());
            let end = (at + self.below(10)).min(stream.len());
            match self.below(6) {
                0 => stream.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (end % 8)),
                1 => stream.iter_mut().skip(at).take(1).for_each(|byte| *byte = end as u8),
                2 => drop(stream.drain(at..end)),
                3 => stream.extend_from_within(at..end),
                4 => stream.truncate(end),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let to = (from + self.below(20)).min(other.len());
                    stream.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        stream
    }
}
