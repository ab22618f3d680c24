//! Commands that come behind `connect` and wait for its reply.

use super::*;

/// What each step of a conversation says, and how much it asks: bytes come with `connect` and before the reply to it.
fn connect_with_others_behind(
    mut conversation: impl Transport<Next = Infallible>,
    pieces: [&[u8]; 2],
    reply: &Reply,
) -> [(String, Vec<Output>, Flow); 3] {
    let mut client = Client::new();
    let mut run = |what: usize| {
        let mut flow = Flow::Receive;
        let (out, outputs) = client.step(|_, context| {
            flow = match pieces.get(what) {
                Some(piece) => conversation.receive(&mut piece.to_vec(), context),
                None => conversation.reply(Origin::Client(Ticket::FIRST), reply, context),
            };
        });
        (String::from_utf8_lossy(&out).into_owned(), outputs, flow)
    };
    [run(0), run(1), run(2)]
}

const PING: &str = r#"{"id":2,"ping":{}}"#;
const SUBSCRIBE: &str = r#"{"id":3,"subscribe":{"channel":"a"}}"#;

/// Commands over lines; and over a WebSocket, in the message of `connect` and in others behind it.
fn pipelines(reply: &Reply) -> [[(String, Vec<Output>, Flow); 3]; 2] {
    let lines = [format!("{CONNECT}\n{PING}\n"), format!("{SUBSCRIBE}\n")];
    let frame = |opcode, text: &str| {
        let mut out = Vec::new();
        write_masked_frame(&mut out, opcode, text.as_bytes(), [1, 2, 3, 4]);
        out
    };
    let first = frame(OpCode::Text, &format!("{CONNECT}\n{PING}\n"));
    let frames = [[first, frame(OpCode::Ping, "")].concat(), frame(OpCode::Text, SUBSCRIBE)];
    let tcp = CommandConversation::new(Framing::Line);
    let websocket = WebSocketConversation::new(WebSocketService::Commands(CommandEncoding::Json));
    [
        connect_with_others_behind(tcp, lines.each_ref().map(|line| line.as_bytes()), reply),
        connect_with_others_behind(websocket, frames.each_ref().map(|frame| &frame[..]), reply),
    ]
}

#[test]
fn commands_behind_connect_wait_for_its_reply_in_order() {
    for [first, second, last] in pipelines(&connected()) {
        assert_eq!(
            (&*first.0, first.2),
            ("", Flow::AwaitReply),
            "nothing is answered before connect"
        );
        assert!(matches!(only_request(first.1, 1), Request::Connect(_)));
        assert_eq!((&*second.0, second.1.len(), second.2), ("", 0, Flow::AwaitReply));
        let (said, mut asked, flow) = last;
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{said}"));
        assert!(at("\"connect\":{\"client\"") < at("\"id\":2,\"ping\":{}"), "{said}");
        assert_eq!(flow, Flow::Receive);
        let subscribe = asked.split_off(1);
        assert!(matches!(asked[..], [Output::Deadline(_)]));
        assert!(matches!(only_request(subscribe, 3), Request::Subscribe { .. }));
    }
}

#[test]
fn a_client_whose_connect_is_refused_may_ask_for_nothing_else() {
    let [tcp, websocket] = pipelines(&Reply::Refused(Refusal::Overloaded));
    for ([.., last], answers_rest) in [(tcp, true), (websocket, false)] {
        let (said, asked, flow) = last;
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{said}"));
        // The rest of a WebSocket's message is dropped; on TCP each line is a message of its own.
        assert_eq!(said.contains("\"id\":2,\"ping\":{}"), answers_rest, "{said}");
        assert!(
            at("\"id\":1,\"error\":{\"code\":111") < at("\"id\":3,\"error\":{\"code\":107"),
            "{said}"
        );
        assert_eq!((asked.len(), flow), (0, Flow::Receive));
    }
}

/// What waits is counted while it waits, and gone once it is taken, or the connection closes.
#[test]
fn what_is_pipelined_behind_connect_is_counted() {
    let mut client = Client::new();
    let mut message = Vec::new();
    let text = format!("{CONNECT}\n{PING}");
    write_masked_frame(&mut message, OpCode::Text, text.as_bytes(), [1, 2, 3, 4]);
    let mut websocket =
        WebSocketConversation::new(WebSocketService::Commands(CommandEncoding::Json));
    let mut tcp = CommandConversation::new(Framing::Line);
    let lines = format!("{CONNECT}\n{PING}\n");
    for (conversation, first) in [
        (&mut websocket as &mut dyn Transport<Next = Infallible>, &message[..]),
        (&mut tcp, lines.as_bytes()),
    ] {
        for closes in [false, true] {
            client.step(|_, context| {
                assert_eq!(conversation.heap_bytes(), 0);
                assert_eq!(conversation.receive(&mut first.to_vec(), context), Flow::AwaitReply);
                let (kept, more) = (conversation.heap_bytes(), [b'x'; 1000]);
                assert!(kept >= PING.len(), "{kept}");
                assert_eq!(conversation.receive(&mut more.clone(), context), Flow::AwaitReply);
                assert!(conversation.heap_bytes() >= PING.len() + 1000);
                match closes {
                    true => conversation.release(),
                    false => {
                        let refused = Reply::Refused(Refusal::Overloaded);
                        conversation.reply(Origin::Client(Ticket::FIRST), &refused, context);
                    }
                }
            });
            client.step(|_, _| conversation.release());
        }
    }
}
