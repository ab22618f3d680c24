use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::config::limits::RETRY_AFTER_OVERLOADED_SECONDS;
use crate::message::{
    ChannelName, ClientId, ClientInfo, Epoch, Item, NodeId, Origin, Payload, PayloadKind,
    Publication, Recovery, Refusal, Request, SessionId, SessionRequest, Ticket, WorkerId,
};
use crate::protocol::websocket::Inflater;
use crate::transport::answers::Answers;
use crate::transport::prepared::{Encoder, Prepared};
use crate::transport::settings::{Origins, TransportSettings};
use crate::transport::sse::EventStream;

mod poll;
mod stream;

/// A conversation without a server: what is said and asked is looked at, and the hub's part is made up.
struct Talk {
    http: HttpConversation,
    stream: Option<EventStream>,
    session: SessionId,
    settings: TransportSettings,
    out: Vec<u8>,
    outputs: Vec<Output>,
    answers: Answers,
    inflater: Inflater,
    is_overloaded: bool,
    is_spare: bool,
    out_bytes_high: usize,
}

impl Talk {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Self {
            http: HttpConversation::new(HttpService::Edge),
            stream: None,
            session: SessionId { index: 0, generation: 1 },
            settings: TransportSettings::new(&config),
            out: Vec::new(),
            outputs: Vec::new(),
            answers: Answers::default(),
            inflater: Inflater::default(),
            is_overloaded: false,
            is_spare: false,
            out_bytes_high: usize::MAX,
        }
    }

    fn step(
        &mut self,
        step: impl FnOnce(&mut HttpConversation, &mut Context<'_>) -> HttpFlow,
    ) -> &'static str {
        let (http, _, mut context) = self.parts();
        match step(http, &mut context) {
            HttpFlow::Receive => "receive",
            HttpFlow::AwaitReply => "await",
            HttpFlow::AwaitDrain => "await drain",
            HttpFlow::Closed => "closed",
            HttpFlow::Hold(_) => "hold",
            HttpFlow::Become { next: HttpNext::WebSocket(_), .. } => "upgrade",
            HttpFlow::Become { next: HttpNext::CommandStream(_), .. } => "commands",
            HttpFlow::Become { next: HttpNext::EventStream(stream), .. } => {
                self.stream = Some(stream);
                "stream"
            }
        }
    }

    fn of_stream<T>(&mut self, step: impl FnOnce(&mut EventStream, &mut Context<'_>) -> T) {
        let (_, stream, mut context) = self.parts();
        step(stream.as_mut().expect("it has begun"), &mut context);
    }

    fn parts(&mut self) -> (&mut HttpConversation, &mut Option<EventStream>, Context<'_>) {
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session: self.session };
        let Self { settings, answers, inflater, out, outputs, .. } = self;
        let context = Context {
            overloaded: self.is_overloaded,
            is_spare: self.is_spare,
            out_bytes_high: self.out_bytes_high,
            ..Context::new(client, settings, (answers, inflater), out, outputs)
        };
        (&mut self.http, &mut self.stream, context)
    }

    fn get(&mut self, target: &str, headers: &str) -> &'static str {
        self.receive(&format!("GET {target} HTTP/1.1\r\nHost: t\r\n{headers}\r\n"))
    }

    fn receive(&mut self, text: &str) -> &'static str {
        self.step(|http, context| http.receive(&mut text.as_bytes().to_vec(), context))
    }

    fn reply(&mut self, ticket: u32, reply: &Reply) -> &'static str {
        let origin = Ticket::new(ticket).map_or(Origin::Server, Origin::Client);
        self.step(|http, context| http.reply(origin, reply, context))
    }

    /// One batch, as the fan-out delivers it.
    fn deliver(&mut self, publications: &[Arc<Publication>]) {
        let items: Vec<_> = publications.iter().cloned().map(Item::Publication).collect();
        self.deliver_items(publications[0].channel.as_str(), &items);
    }

    fn deliver_items(&mut self, channel: &str, items: &[Item]) {
        let channel = ChannelName::new(channel).unwrap();
        let mut prepared = Prepared::default();
        let mut encoder = Encoder::default();
        let mut batch = prepared.of_client(&channel, items, 0, &mut encoder);
        let delivered = match &mut self.stream {
            Some(stream) => stream.deliver(&mut batch, &mut self.out, &self.settings),
            None => self.http.deliver(&mut batch, &mut self.out, &self.settings),
        };
        if let Some(frame) = delivered.frame {
            self.out.extend_from_slice(frame.as_bytes());
        }
        if delivered.completes_answer {
            self.step(HttpConversation::drained);
        }
    }

    /// What was said since the last look.
    fn said(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).unwrap()
    }

    /// The same as an HTTP answer: its head and its body.
    fn answer(&mut self) -> (String, serde_json::Value) {
        let said = self.said();
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{said}"));
        (head.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{said}")))
    }

    /// What was asked since the last look, in short.
    fn asked(&mut self) -> Vec<String> {
        self.outputs
            .drain(..)
            .map(|output| match output {
                Output::Request(SessionRequest {
                    origin: Some(Origin::Client(ticket)),
                    request: Request::Subscribe { channel, since, .. },
                    ..
                }) => {
                    let since = since.map_or_else(|| "now".to_owned(), |since| since.to_string());
                    format!("{} {} {since}", ticket.number(), channel.as_str())
                }
                other => format!("{other:?}"),
            })
            .collect()
    }
}

fn expire(http: &mut HttpConversation, context: &mut Context<'_>) -> HttpFlow {
    http.expire(Duration::ZERO, false, context)
}

/// More than fits a small queue.
fn much() -> Vec<Arc<Publication>> {
    (1..=10).map(|offset| publication("a", offset, &"x".repeat(1000))).collect()
}

fn at(offset: u64) -> Position {
    Position { epoch: Epoch(1), offset }
}

fn publication(channel: &str, offset: u64, text: &str) -> Arc<Publication> {
    Arc::new(Publication {
        channel: ChannelName::new(channel).unwrap(),
        position: at(offset),
        payload: Payload::new(PayloadKind::Text, text.to_owned()),
        info: None,
        accepted_us: 0,
        excludes: None,
        in_stream: true,
    })
}

fn item(channel: &str, offset: u64, text: &str) -> Item {
    Item::Publication(publication(channel, offset, text))
}

fn joined() -> Item {
    let session = SessionId { index: 1, generation: 2 };
    let client = ClientId { node: NodeId::new(3), worker: WorkerId(0), session };
    Item::Joined(Arc::new(ClientInfo::anonymous(client)))
}

fn subscribed(channel: &str, offset: u64, recovery: Option<Recovery>) -> Reply {
    let channel = ChannelName::new(channel).unwrap();
    let position = at(offset);
    Reply::Subscribed {
        channel,
        position,
        recoverable: true,
        recovery,
        delta: false,
        options: None,
    }
}

fn recovered(publications: &[Arc<Publication>]) -> Option<Recovery> {
    Some(Recovery { is_complete: true, publications: publications.into(), has_more: false })
}

fn impossible() -> Option<Recovery> {
    Some(Recovery::impossible())
}

const E: &str = "00000001";

fn body_of(said: &str) -> &str {
    said.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn requests_wait_while_much_is_to_be_read() {
    let live = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut talk = Talk::new();
    talk.out_bytes_high = 200;
    assert_eq!(talk.receive(&live.repeat(5)), "await drain");
    let answer_count = |said: &str| said.matches("\"live\"").count();
    assert_eq!(answer_count(&talk.said()), 2, "one is past the mark");
    // What still comes waits behind them.
    talk.out_bytes_high = 0;
    talk.out.push(b'.');
    assert_eq!(talk.receive(&live[..9]), "await drain");
    talk.out.clear();
    talk.out_bytes_high = 200;
    assert_eq!(talk.step(HttpConversation::drained), "await drain");
    assert_eq!(answer_count(&talk.said()), 2);
    assert_eq!(talk.step(HttpConversation::drained), "receive");
    assert_eq!(answer_count(&talk.said()), 1);
    assert_eq!(talk.receive(&live[9..]), "receive");
    assert_eq!(answer_count(&talk.said()), 1);
    assert!(matches!(talk.http.state, State::Idle));
}

#[test]
fn a_client_that_does_not_read_is_sent_nothing_about_the_next_request() {
    let mut talk = Talk::new();
    talk.out_bytes_high = 0;
    let live = "GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n";
    assert_eq!(talk.receive(&live.repeat(2)), "await drain");
    talk.said();
    assert_eq!(talk.step(expire), "closed");
    assert_eq!(talk.said(), "");
}

#[test]
fn a_subscription_that_is_refused_refuses_the_request() {
    for path in ["/events", "/poll"] {
        for (refusal, status) in [
            (Refusal::NamespaceUnknown, 404),
            (Refusal::ChannelInvalid, 400),
            (Refusal::PermissionDenied, 403),
            (Refusal::SubscriptionsExhausted, 400),
        ] {
            let mut talk = Talk::new();
            talk.get(&format!("{path}?channel=a&channel=b"), "");
            assert_eq!(talk.reply(1, &subscribed("a", 7, None)), "await");
            assert_eq!(talk.reply(2, &Reply::Refused(refusal)), "closed");
            let (head, body) = talk.answer();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(body["error"]["status"], status);
        }
    }
}

#[test]
fn an_invalid_request_is_answered_with_a_status() {
    for path in ["/events", "/poll"] {
        // What is whole leaves the connection as it is, unless the protocol itself is broken.
        for (method, query, headers, status, flow) in [
            ("POST", "", "Content-Length: 0\r\n", 405, "receive"),
            ("POST", "", "", 405, "receive"),
            ("POST", "", "Content-Length: 2\r\n", 405, "closed"),
            ("GET", "", "Content-Length: 2\r\n", 400, "closed"),
            ("GET", "", "Transfer-Encoding: chunked\r\n\r\n1\r\n", 400, "closed"),
            ("GET", "?channel=", "", 400, "receive"),
            ("GET", "?channel=%zz", "", 400, "closed"),
        ] {
            let mut talk = Talk::new();
            let request = format!("{method} {path}{query} HTTP/1.1\r\nHost: t\r\n{headers}\r\n");
            assert_eq!(talk.receive(&request), flow, "{request}");
            let (head, body) = talk.answer();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
            assert!(body["error"]["code"].is_string(), "{request} {body}");
            if status == 405 {
                assert!(head.contains("Allow: GET, HEAD, OPTIONS"), "{head}");
            }
        }
    }
    for timeout in ["121", "-1", "+5", "1.5", "x", "", "99999999999999999999"] {
        let mut talk = Talk::new();
        assert_eq!(talk.get(&format!("/poll?timeout={timeout}"), ""), "receive", "{timeout}");
        assert_eq!(talk.answer().1["error"]["code"], "timeout_invalid");
    }
}

/// Whether an answer names a time after which an overloaded server is to be asked again.
fn names_a_later_time(head: &str) -> bool {
    let value = head.split("Retry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let seconds = value.and_then(|value| value.parse().ok());
    seconds.is_some_and(|seconds| RETRY_AFTER_OVERLOADED_SECONDS.contains(&seconds))
}

#[test]
fn new_subscribers_are_refused_while_memory_is_low() {
    let mut talk = Talk::new();
    talk.is_overloaded = true;
    assert_eq!(talk.get("/poll", ""), "closed");
    let (head, body) = talk.answer();
    assert!(head.starts_with("HTTP/1.1 503 ") && names_a_later_time(&head), "{head}");
    assert_eq!(body["error"]["code"], "overloaded");
    assert!(talk.asked().contains(&"Refused".to_owned()));
    let mut talk = poll::waiting("", "");
    talk.step(|http, context| {
        http.disconnect(&CloseReason::Overloaded.into(), false, context);
        HttpFlow::Closed
    });
    assert_eq!(talk.answer().1["error"]["code"], "overloaded");
}

/// Balancers and orchestrators would take a server that is full for a dead one.
#[test]
fn beyond_the_maximum_only_health_checks_and_metrics_are_answered() {
    let spare = || {
        let mut talk = Talk::new();
        talk.is_spare = true;
        talk
    };
    let mut talk = spare();
    assert_eq!(talk.get("/health/live", ""), "closed");
    let (head, body) = talk.answer();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Connection: close"), "{head}");
    assert_eq!(body["status"], "live");
    for (target, asked) in [("/health/ready", "Ask(Readiness)"), ("/metrics", "Ask(Metrics)")] {
        let mut talk = spare();
        assert_eq!(talk.get(target, ""), "await");
        assert_eq!(talk.asked(), [asked]);
        assert_eq!(
            talk.step(|http, context| http.answer(&Answer::Metrics("x"), context)),
            "closed"
        );
    }
    for target in ["/", "/poll", "/ws", "/connection/websocket", "/nothing", "/health/other"] {
        let mut talk = spare();
        assert_eq!(talk.get(target, ""), "closed", "{target}");
        let (head, body) = talk.answer();
        assert!(head.starts_with("HTTP/1.1 503 ") && names_a_later_time(&head), "{head}");
        assert_eq!(body["error"]["code"], "connections_exhausted", "{target}");
        assert_eq!(talk.asked(), ["HttpError", "Close(HttpDone)"], "{target}");
    }
    // WHATWG HTML 9.2.3: a status other than 200 would end a stream for good; 204 ends one that is over.
    let mut talk = spare();
    assert_eq!(talk.get("/events", ""), "closed");
    let said = talk.said();
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("retry: "), "{said}");
    assert_eq!(talk.asked(), ["Close(HttpDone)"]);
    let mut talk = spare();
    assert_eq!(talk.get("/events", "Last-Event-ID: ended\r\n"), "closed");
    assert!(talk.said().starts_with("HTTP/1.1 204 "));
}

#[test]
fn a_head_request_has_the_head_of_the_answer() {
    let mut talk = Talk::new();
    talk.receive("HEAD /events HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(talk.reply(1, &subscribed("lobby", 7, None)), "closed");
    let said = talk.said();
    assert!(said.contains("text/event-stream") && said.ends_with("\r\n\r\n"), "{said}");
    assert!(said.contains("Connection: close\r\n"), "{said}");
    let mut talk = Talk::new();
    talk.receive("HEAD /poll HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(talk.reply(1, &subscribed("lobby", 7, None)), "receive");
    let said = talk.said();
    assert!(said.contains("ETag: \"7:00000001\"") && said.ends_with("\r\n\r\n"), "{said}");
}

#[test]
fn answers_that_are_collected_are_counted() {
    let mut talk = Talk::new();
    let history = "{\"history\":{\"channel\":\"a\",\"limit\":-1}}";
    let batch = format!("{{\"commands\":[{history},{history}]}}");
    let head = format!("POST /api/batch HTTP/1.1\r\nHost: t\r\nContent-Length: {}", batch.len());
    assert_eq!(talk.receive(&format!("{head}\r\n\r\n{batch}")), "await");
    let asked = talk.http.heap_bytes();
    assert!(asked > 0);
    let all = Reply::History { position: at(10), publications: much().into() };
    assert_eq!(talk.reply(1, &all), "await");
    assert!(talk.http.heap_bytes() >= asked + 10 * 1000, "{}", talk.http.heap_bytes());
    assert_eq!(talk.reply(2, &all), "receive");
    assert_eq!(talk.http.heap_bytes(), 0);

    talk.get("/poll?channel=a&channel=b&since=0:00000001_0:00000001", "");
    assert_eq!(talk.reply(1, &subscribed("a", 10, recovered(&much()))), "await");
    assert!(talk.http.heap_bytes() >= 10 * 1000, "{}", talk.http.heap_bytes());
    assert_eq!(talk.reply(2, &subscribed("b", 0, recovered(&[]))), "receive");
    assert_eq!(talk.http.heap_bytes(), 0);
}

#[test]
fn scripts_of_the_listed_origins_may_read_the_answers() {
    let listed =
        || Talk::with(|config| config.origins = vec!["https://a".into(), "https://b".into()]);
    for (talk, origin, allowed) in [
        (Talk::new(), "Origin: https://x\r\n", Some("*")),
        (Talk::new(), "", None),
        (listed(), "Origin: https://b\r\n", Some("https://b")),
        (listed(), "Origin: https://x\r\n", None),
        (listed(), "Origin: null\r\n", None),
    ] {
        let mut talk = talk;
        let is_listed = matches!(talk.settings.origins(), Origins::Listed(_));
        let check = |head: &str| {
            let got =
                head.lines().find_map(|line| line.strip_prefix("Access-Control-Allow-Origin: "));
            assert_eq!(got, allowed, "{origin} {head}");
            // Fetch, "CORS protocol and HTTP caches": also where this origin is not allowed.
            assert_eq!(head.contains("Vary: Origin"), is_listed, "{head}");
        };
        for path in ["/events", "/poll", "/publish", "/api/publish"] {
            talk.receive(&format!("OPTIONS {path} HTTP/1.1\r\nHost: t\r\n{origin}\r\n"));
            let said = talk.said();
            assert!(said.starts_with("HTTP/1.1 204 ") && said.contains("Allow: "), "{said}");
            assert_eq!(
                said.contains("Access-Control-Allow-Methods: "),
                allowed.is_some(),
                "{said}"
            );
            check(&said);
        }
        talk.asked();
        talk.get("/poll", origin);
        talk.reply(1, &subscribed("lobby", 1, None));
        talk.deliver(&[publication("lobby", 2, "x")]);
        check(&talk.answer().0);
        talk.get("/events", origin);
        talk.reply(1, &subscribed("lobby", 1, None));
        check(&talk.said());
    }
    let mut talk = Talk::new();
    talk.get("/poll?timeout=x", "Origin: https://x\r\n");
    assert!(talk.said().contains("Access-Control-Allow-Origin: *"), "errors can be read too");
}

#[test]
fn requests_that_subscribe_do_not_depend_on_the_cuts() {
    let texts = [
        format!("GET /events?channel=a&since=3:{E} HTTP/1.1\r\nHost: t\r\n\r\n"),
        format!(
            "GET /poll?channel=a&channel=b&timeout=5 HTTP/1.1\r\nHost: t\r\nIf-None-Match: \"1:{E}_2:{E}\"\r\n\r\n"
        ),
        "OPTIONS /poll HTTP/1.1\r\nHost: t\r\nOrigin: http://x\r\n\r\nGET /poll HTTP/1.0\r\n\r\n"
            .to_owned(),
        "GET /poll?timeout=500 HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
    ];
    for text in texts {
        let run = |pieces: &[&str]| {
            let mut talk = Talk::new();
            for piece in pieces {
                talk.receive(piece);
            }
            let asked: Vec<_> = talk
                .asked()
                .into_iter()
                .filter(|it| it.contains(' ') || it == "HttpError")
                .collect();
            (talk.said(), asked)
        };
        let whole = run(&[&text]);
        for cut in 0..=text.len() {
            assert_eq!(run(&[&text[..cut], &text[cut..]]), whole, "cut at {cut} of {text}");
        }
        let bytes: Vec<&str> = (0..text.len()).map(|at| &text[at..=at]).collect();
        assert_eq!(run(&bytes), whole, "byte by byte, {text}");
    }
}
