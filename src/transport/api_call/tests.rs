use serde_json::{Value, json};

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::*;
use crate::config::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, PAYLOAD_DEPTH_MAX, TAGS_BYTES_MAX, TAGS_MAX, VERSION_EPOCH_BYTES_MAX,
};
use crate::config::{ApiMethods, ApiRight, ApiRights, Config};
use crate::message::{
    Actor, ChannelName, ChannelPattern, ClientId, Epoch, NodeId, Origin, Payload, PayloadKind,
    Position, Publication, PublishOptions, Refusal, SessionId, SessionRequest, Version, WorkerId,
};
use crate::protocol::websocket::Inflater;
use crate::transport::answers::Answers;
use crate::transport::context::{Output, Question};
use crate::transport::settings::TransportSettings;

mod clients;

/// A call and what it asked.
struct Asked {
    call: Result<ApiCall, ApiFault>,
    requests: Vec<SessionRequest>,
    asks_info: usize,
    refusals: usize,
}

fn ask(route: ApiRoute, body: &str) -> Asked {
    ask_with(ApiRights::all(), route, body)
}

fn ask_with(rights: ApiRights, route: ApiRoute, body: &str) -> Asked {
    let grant = Arc::new(ApiGrant::new(rights));
    let settings = TransportSettings::new(&Config::default());
    let (mut out, mut outputs) = (Vec::new(), Vec::new());
    let session = SessionId { index: 0, generation: 0 };
    let (mut answers, mut inflater) = (Answers::default(), Inflater::default());
    let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
    let mut context =
        Context::new(client, &settings, (&mut answers, &mut inflater), &mut out, &mut outputs);
    let call = ApiCall::begin(route, grant, body.as_bytes(), &mut context);
    assert!(out.is_empty(), "a call says nothing before its answer");
    let (mut requests, mut asks_info, mut refusals) = (Vec::new(), 0, 0);
    for output in outputs {
        match output {
            Output::Request(request) => requests.push(request),
            Output::Ask(Question::NodeInfo) => asks_info += 1,
            Output::ApiRefused(ApiRefusal::RightMissing) => refusals += 1,
            other => panic!("{other:?}"),
        }
    }
    Asked { call, requests, asks_info, refusals }
}

fn single(method: ApiMethod, body: &str) -> Asked {
    ask(ApiRoute::Single(method), body)
}

fn answer(call: &ApiCall) -> Value {
    assert!(call.is_answered());
    serde_json::from_slice(&call.answer().1).unwrap()
}

/// The code of the one error that a call is.
#[track_caller]
fn code(method: ApiMethod, body: &str) -> u64 {
    let Asked { call, requests, .. } = single(method, body);
    assert!(requests.is_empty(), "{body}");
    let answer = answer(&call.unwrap());
    assert!(answer["error"]["message"].is_string(), "{answer}");
    answer["error"]["code"].as_u64().unwrap()
}

fn position(offset: u64) -> Position {
    Position { epoch: Epoch(0xab), offset }
}

fn ticket_of(number: u32) -> Ticket {
    Ticket::new(number).expect("above 0")
}

#[test]
fn a_publication_is_asked_for_with_all_that_it_has() {
    let body = r#"{"channel":"a","data": {"x":1},"tags":{"event":"e"},"idempotency_key":"k","delta":true,
        "skip_history":true,
        "version":18446744073709551615,"version_epoch":"e","exclude":"00000000-0001-8000-8000-000000000000"}"#;
    let Asked { call, requests, .. } = single(ApiMethod::Publish, body);
    let [
        SessionRequest {
            origin: Some(Origin::Client(ticket)),
            by,
            request: Request::Publish { channel: Some(channel), payload, options: Some(options) },
        },
    ] = &*requests
    else {
        panic!("{requests:?}")
    };
    assert_eq!((channel.as_str(), *by), ("a", Actor::Server));
    let version = Version { number: NonZeroU64::MAX, epoch: "e".into() };
    let expected = PublishOptions {
        idempotency_key: Some("k".into()),
        version: Some(version),
        exclude: Some("00000000-0001-8000-8000-000000000000".parse().unwrap()),
        delta: true,
        skip_history: true,
    };
    assert_eq!(**options, expected);
    assert_eq!((payload.kind, &*payload.bytes), (PayloadKind::Json, &br#"{"x":1}"#[..]));
    assert_eq!(payload.event(), Some("e"));
    let mut call = call.unwrap();
    assert!(!call.is_answered());
    // A reply that was not asked for, or came before, fills nothing.
    for stray in [2, u32::MAX] {
        call.take_reply(ticket_of(stray), &Reply::Done);
        assert!(!call.is_answered());
    }
    call.take_reply(*ticket, &Reply::Published { position: position(7) });
    call.take_reply(*ticket, &Reply::Refused(Refusal::Overloaded));
    assert_eq!(answer(&call), json!({"result": {"offset": 7, "epoch": "000000ab"}}));
}

#[test]
fn the_result_says_that_an_outdated_publication_was_dropped() {
    let body = r#"{"channel":"a","data":1,"version":1}"#;
    let mut call = single(ApiMethod::Publish, body).call.unwrap();
    call.take_reply(ticket_of(1), &Reply::Outdated { position: position(7) });
    let result =
        json!({"offset": 7, "epoch": "000000ab", "suppressed": true, "suppress_reason": "version"});
    assert_eq!(answer(&call), json!({"result": result}));
}

#[test]
fn a_version_of_zero_stands_for_no_version() {
    for body in [
        r#"{"channel":"a","data":1}"#,
        r#"{"channel":"a","data":1,"version":0,"version_epoch":"e"}"#,
        r#"{"channel":"a","data":1,"version":null,"version_epoch":null,"idempotency_key":"","exclude":""}"#,
    ] {
        let Asked { requests, .. } = single(ApiMethod::Publish, body);
        let [SessionRequest { request: Request::Publish { options, .. }, .. }] = &*requests else {
            panic!("{requests:?}")
        };
        assert_eq!(*options, None, "{body}");
    }
}

#[test]
fn base64_is_binary_and_goes_before_data() {
    let body = r#"{"channel":"a","data":1,"b64data":"aGk="}"#;
    let Asked { requests, .. } = single(ApiMethod::Publish, body);
    let [SessionRequest { request: Request::Publish { payload, .. }, .. }] = &*requests else {
        panic!("{requests:?}")
    };
    assert_eq!(*payload, Payload::new(PayloadKind::Binary, &b"hi"[..]));
}

#[test]
fn parameters_that_a_method_does_not_take_are_refused_with_its_code() {
    let publish = |body: &str| code(ApiMethod::Publish, body);
    for body in [
        "{}",
        "[]",
        "null",
        r#"{"channel":"a"}"#,
        r#"{"data":1}"#,
        r#"{"channel":"","data":1}"#,
        r#"{"channel":1,"data":1}"#,
        r#"{"channel":null,"data":1}"#,
        r#"{"channel":"a","b64data":"?"}"#,
        r#"{"channel":"a","data":1,"tags":{"event":"a\nb"}}"#,
        r#"{"channel":"a","data":1,"tags":{"event":1}}"#,
        r#"{"channel":"a","channel":"b","data":1}"#,
        r#"{"channel":"a","data":1,"exclude":"a"}"#,
        r#"{"channel":"a","data":1,"exclude":["00000000-0001-8000-8000-000000000000"]}"#,
    ] {
        assert_eq!(publish(body), 107, "{body}");
    }
    let long = "x".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1);
    let keyed = |key: &str| format!(r#"{{"channel":"a","data":1,"idempotency_key":"{key}"}}"#);
    assert_eq!(publish(&keyed(&long)), 107);
    assert_eq!(single(ApiMethod::Publish, &keyed(&long[1..])).requests.len(), 1);
    let epoch = "x".repeat(VERSION_EPOCH_BYTES_MAX + 1);
    let of_epoch = |epoch: &str| {
        format!(r#"{{"channel":"a","data":1,"version":1,"version_epoch":"{epoch}"}}"#)
    };
    assert_eq!(publish(&of_epoch(&epoch)), 107);
    assert_eq!(single(ApiMethod::Publish, &of_epoch(&epoch[1..])).requests.len(), 1);
    for version in ["-1", "1.5", "18446744073709551616", "\"1\""] {
        assert_eq!(publish(&format!(r#"{{"channel":"a","data":1,"version":{version}}}"#)), 107);
    }
    assert_eq!(code(ApiMethod::Broadcast, r#"{"channel":"a","data":1}"#), 107);
    assert_eq!(code(ApiMethod::Broadcast, r#"{"channels":[],"data":1}"#), 107);
    assert_eq!(code(ApiMethod::Broadcast, r#"{"channels":["a"]}"#), 107);
    assert_eq!(code(ApiMethod::Subscribe, r#"{"client":"x","channel":"a"}"#), 107);
    assert_eq!(
        code(ApiMethod::Subscribe, r#"{"client":"00000000-0001-8000-8000-000000000000"}"#),
        107
    );
    let since = r#"{"client":"00000000-0001-8000-8000-000000000000","channel":"a",
        "recover_since":{"offset":1,"epoch":"x"}}"#;
    assert_eq!(code(ApiMethod::Subscribe, since), 112);
    for disconnect in [
        "7",
        "[3000]",
        r#"{"code":1000}"#,
        r#"{"code":2999}"#,
        r#"{"code":5000}"#,
        r#"{"code":70000}"#,
        r#"{"code":3000,"reason":"two\nlines"}"#,
        &format!(r#"{{"code":3000,"reason":"{}"}}"#, "x".repeat(124)),
    ] {
        let body = format!(
            r#"{{"client":"00000000-0001-8000-8000-000000000000","disconnect":{disconnect}}}"#
        );
        assert_eq!(code(ApiMethod::Disconnect, &body), 107, "{body}");
    }
    assert_eq!(code(ApiMethod::History, r#"{"channel":"a","limit":"all"}"#), 107);
    assert_eq!(
        code(ApiMethod::History, r#"{"channel":"a","since":{"offset":1,"epoch":"x"}}"#),
        112
    );
    for since in ["[]", r#"[0,""]"#, "7"] {
        let body = format!(r#"{{"channel":"a","since":{since}}}"#);
        assert_eq!(code(ApiMethod::History, &body), 107, "{body}");
        let body = format!(
            r#"{{"client":"00000000-0001-8000-8000-000000000000","channel":"a","recover_since":{since}}}"#
        );
        assert_eq!(code(ApiMethod::Subscribe, &body), 107, "{body}");
    }
    let nested = |depth| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"channel":"a","data":{data}}}"#)
    };
    assert_eq!(publish(&nested(PAYLOAD_DEPTH_MAX + 1)), 107);
    assert_eq!(single(ApiMethod::Publish, &nested(PAYLOAD_DEPTH_MAX)).requests.len(), 1);
    assert_eq!(code(ApiMethod::Presence, "{}"), 107);
    assert_eq!(code(ApiMethod::Channels, r#"{"pattern":1}"#), 107);
    assert_eq!(code(ApiMethod::Info, "7"), 107);
    assert_eq!(code(ApiMethod::Rpc, r#"{"method":"x"}"#), 108);
    for body in ["", "{", "nul", "{}{}", "\u{0}"] {
        let call = single(ApiMethod::Publish, body).call;
        assert!(matches!(call, Err(ApiFault::NotJson(_))), "{body}");
    }
}

#[test]
fn a_history_has_centrifugos_limits() {
    let query = |more: &str| {
        let body = format!(r#"{{"channel":"a"{more}}}"#);
        match single(ApiMethod::History, &body).requests.pop() {
            Some(SessionRequest {
                by: Actor::Server,
                request: Request::History { query, .. },
                ..
            }) => query,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(query("").limit, Some(0));
    assert_eq!(query(r#","limit":0"#).limit, Some(0));
    assert_eq!(query(r#","limit":7,"reverse":true"#).limit, Some(7));
    assert!(query(r#","reverse":true"#).reverse);
    assert_eq!(query(r#","limit":-1"#).limit, None);
    assert_eq!(query(r#","limit":99999999999"#).limit, Some(u32::MAX));
    let start = Position { epoch: Epoch::ANY, offset: 0 };
    assert_eq!(query(r#","since":{"offset":0,"epoch":""}"#).since, Some(start));
    let since = query(r#","since":{"offset":7,"epoch":"000000ab"}"#).since;
    assert_eq!(since, Some(position(7)));
}

#[test]
fn a_broadcast_answers_for_each_channel_in_order() {
    let body = r#"{"channels":["a","","b"],"data":1,"idempotency_key":"k"}"#;
    let Asked { call, requests, .. } = single(ApiMethod::Broadcast, body);
    let mut call = call.unwrap();
    assert_eq!(requests.len(), 2);
    call.take_reply(ticket_of(3), &Reply::Refused(Refusal::NamespaceUnknown));
    call.take_reply(ticket_of(1), &Reply::Published { position: position(1) });
    let answer = answer(&call);
    let responses = answer["result"]["responses"].as_array().unwrap();
    assert_eq!(responses[0]["result"]["offset"], 1);
    assert_eq!(responses[1]["error"]["code"], 107);
    assert_eq!(responses[2]["error"]["code"], 102);
    assert_eq!(responses.len(), 3);
}

#[test]
fn a_batch_answers_for_each_command_in_order() {
    let body = r#"{"parallel":true,"commands":[
        {"publish":{"channel":"a","data":1}}, {"dance":{}}, {}, {"publish":{}}, 7,
        {"broadcast":{"channels":["a","b"],"data":1}}, {"info":{}}, {"presence_stats":{"channel":"a"}},
        {"history_remove":{"channel":"a"}}, {"channels":{"pattern":"a*"}}, {"info":{}}]}"#;
    let Asked { call, requests, asks_info, .. } = ask(ApiRoute::Batch, body);
    let mut call = call.unwrap();
    assert_eq!((requests.len(), asks_info), (6, 1));
    for request in requests.into_iter().rev() {
        let Some(Origin::Client(ticket)) = request.origin else { panic!("{request:?}") };
        let reply = match request.request {
            Request::Publish { .. } => Reply::Published { position: position(1) },
            Request::Presence { list_max: 0, .. } => {
                Reply::PresenceStats { client_count: 5, user_count: 2 }
            }
            Request::HistoryRemove { .. } => Reply::Done,
            Request::Channels { pattern } => {
                assert_eq!(*pattern, ChannelPattern::new("a*").unwrap());
                // Not what channels are answered with.
                Reply::Published { position: position(1) }
            }
            other => panic!("{other:?}"),
        };
        call.take_reply(ticket, &reply);
    }
    assert!(!call.is_answered());
    let uptime = std::time::Duration::ZERO;
    call.take_info(&NodeInfo {
        node: NodeId::new(1),
        clients: 0,
        users: 1,
        channels: 0,
        subscriptions: 0,
        uptime,
    });
    let answer = answer(&call);
    let replies = answer["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 11);
    assert_eq!(replies[0]["publish"]["offset"], 1);
    let codes = [1, 2, 3, 4, 9].map(|index| replies[index]["error"]["code"].as_u64().unwrap());
    assert_eq!(codes, [104, 104, 107, 107, 100]);
    assert_eq!(replies[5]["broadcast"]["responses"].as_array().unwrap().len(), 2);
    assert_eq!(replies[6]["info"]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(replies[7]["presence_stats"], json!({"num_clients": 5, "num_users": 2}));
    assert_eq!(replies[8]["history_remove"], json!({}));
    assert_eq!(replies[10]["info"], replies[6]["info"]);
}

#[test]
fn a_body_that_is_not_a_batch_is_refused() {
    for body in ["{}", "[]", r#"{"commands":{}}"#, r#"{"commands":null}"#] {
        let call = ask(ApiRoute::Batch, body).call;
        assert!(matches!(call, Err(ApiFault::BatchInvalid(_))), "{body}");
    }
    assert!(matches!(ask(ApiRoute::Batch, r#"{"commands":[{}"#).call, Err(ApiFault::NotJson(_))));
    let empty = ask(ApiRoute::Batch, r#"{"commands":[]}"#).call.unwrap();
    assert_eq!(answer(&empty), json!({"replies": []}));
}

#[test]
fn a_call_asks_for_so_many_things_and_no_more() {
    let batch_of = |command: &str, count| {
        let commands = vec![command; count].join(",");
        ask(ApiRoute::Batch, &format!(r#"{{"commands":[{commands}]}}"#))
    };
    let publish = r#"{"publish":{"channel":"a","data":1}}"#;
    let most = batch_of(publish, API_REQUESTS_MAX);
    assert_eq!(most.requests.len(), API_REQUESTS_MAX);
    assert!(most.call.is_ok());
    let past = batch_of(publish, API_REQUESTS_MAX + 1);
    assert!(past.requests.is_empty());
    assert!(matches!(past.call, Err(ApiFault::BatchInvalid(_))));

    let channels = |count| vec![r#""a""#; count].join(",");
    let broadcast = |count| format!(r#"{{"channels":[{}],"data":1}}"#, channels(count));
    let most = single(ApiMethod::Broadcast, &broadcast(API_REQUESTS_MAX));
    assert_eq!(most.requests.len(), API_REQUESTS_MAX);
    assert_eq!(code(ApiMethod::Broadcast, &broadcast(API_REQUESTS_MAX + 1)), 106);

    // Together in one batch: what fits is done, what does not is refused.
    let half = format!(r#"{{"broadcast":{}}}"#, broadcast(API_REQUESTS_MAX / 2));
    let Asked { call, requests, .. } = batch_of(&half, 3);
    assert_eq!(requests.len(), API_REQUESTS_MAX);
    let mut call = call.unwrap();
    for number in 1..=API_REQUESTS_MAX {
        call.take_reply(ticket_of(number as u32), &Reply::Published { position: position(1) });
    }
    assert_eq!(answer(&call)["replies"][2]["error"]["code"], 106);
}

#[test]
fn an_answer_past_its_maximum_is_refused_in_its_place() {
    let history = r#"{"history":{"channel":"a","limit":10}}"#;
    let body = format!(r#"{{"commands":[{history},{history}]}}"#);
    let mut call = ask(ApiRoute::Batch, &body).call.unwrap();
    let publication = |bytes| {
        Arc::new(Publication {
            channel: ChannelName::new("a").unwrap(),
            position: position(1),
            payload: Payload::new(PayloadKind::Text, vec![b'x'; bytes]),
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        })
    };
    let reply = |count, bytes| Reply::History {
        position: position(1),
        publications: vec![publication(bytes); count].into(),
    };
    call.take_reply(ticket_of(1), &reply(3, API_ANSWER_BYTES_MAX / 2));
    call.take_reply(ticket_of(2), &reply(2, 10));
    let answer = answer(&call);
    assert_eq!(answer["replies"][0]["error"]["code"], 106);
    let publications = answer["replies"][1]["history"]["publications"].as_array().unwrap();
    assert_eq!(publications.len(), 2);
}

#[test]
fn what_the_key_does_not_allow_is_refused_command_by_command_and_channel_by_channel() {
    let rights = ApiRights {
        methods: ApiMethods::parse(&["publish".to_owned(), "channels".to_owned()]).unwrap(),
        namespaces: Some(vec!["chat".to_owned()]),
    };
    let body = r#"{"commands":[{"publish":{"channel":"chat:a","data":1}},{"publish":{"channel":"a","data":1}},
        {"broadcast":{"channels":["chat:a","b:1","chat:b"],"data":1}},{"info":{}},{"history":{"channel":"chat:a"}},
        {"disconnect":{"client":"x"}},{"channels":{}}]}"#;
    let Asked { call, requests, asks_info, refusals } = ask_with(rights, ApiRoute::Batch, body);
    assert_eq!((requests.len(), asks_info, refusals), (4, 0, 5));
    let mut call = call.unwrap();
    for request in requests {
        let Some(Origin::Client(ticket)) = request.origin else { panic!("{request:?}") };
        let channels = ["chat:a", "a", "chats:a"];
        let reply = match request.request {
            Request::Channels { .. } => Reply::Channels {
                channels: channels.map(|name| (ChannelName::new(name).unwrap(), 1)).to_vec(),
            },
            _ => Reply::Published { position: position(1) },
        };
        call.take_reply(ticket, &reply);
    }
    let denied = json!({"error": {"code": 103, "message": "permission denied"}});
    let done = json!({"offset": 1, "epoch": "000000ab"});
    assert_eq!(
        answer(&call),
        json!({"replies": [
            {"publish": done},
            denied,
            {"broadcast": {"responses": [{"result": done}, denied, {"result": done}]}},
            denied,
            denied,
            denied,
            {"channels": {"channels": {"chat:a": {"num_clients": 1}}}},
        ]})
    );
    // The right is judged before the parameters.
    let rights = ApiRights { methods: ApiMethods::of(ApiRight::Info), namespaces: None };
    for body in ["{", r#"{"channel":1}"#] {
        let asked = ask_with(rights.clone(), ApiRoute::Single(ApiMethod::Publish), body);
        assert_eq!(answer(&asked.call.unwrap()), denied, "{body}");
    }
}

#[test]
fn tags_are_taken_up_to_their_limits() {
    let body = |tags: &Value| json!({"channel": "a", "data": 1, "tags": tags}).to_string();
    let many =
        |count: usize| json!((0..count).map(|n| (n.to_string(), "")).collect::<BTreeMap<_, _>>());
    let long = |bytes: usize| json!({"k": "x".repeat(bytes - 1)});
    for tags in [json!({"colour": "red", "event": "e"}), many(TAGS_MAX), long(TAGS_BYTES_MAX)] {
        let Asked { requests, .. } = single(ApiMethod::Publish, &body(&tags));
        let [SessionRequest { request: Request::Publish { payload, .. }, .. }] = &*requests else {
            panic!("{requests:?}")
        };
        let kept = payload.tags.as_ref().expect("there are some");
        assert_eq!(json!(kept.iter().collect::<BTreeMap<_, _>>()), tags);
    }
    for tags in [many(TAGS_MAX + 1), long(TAGS_BYTES_MAX + 1)] {
        assert_eq!(code(ApiMethod::Publish, &body(&tags)), 107);
    }
}
