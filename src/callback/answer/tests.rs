//! Which bodies are answers, and what they say.

use super::*;
use crate::message::{Overrides, USER_BYTES_MAX};

fn decode(text: &str) -> Result<Answer, Fault> {
    decode_answer(CallbackKind::Rpc, text.as_bytes())
}

fn rpc(data: &str) -> Result<Answer, Fault> {
    let data = Some(Payload::new(PayloadKind::Json, data.to_owned()));
    Ok(Answer::Result(CallbackResult::Rpc { data }))
}

const NOTHING: Result<Answer, Fault> = Ok(Answer::Result(CallbackResult::Rpc { data: None }));

#[test]
fn a_result_has_the_data_as_it_is() {
    assert_eq!(decode(r#"{"result":{"data":{"a": [1]}}}"#), rpc(r#"{"a": [1]}"#));
    assert_eq!(decode(r#"{"x":1,"result":{"y":2,"data":"text"}}"#), rpc(r#""text""#));
    assert_eq!(decode(r#"{"result":{"b64data":"WzFd"}}"#), rpc("[1]"));
    let binary = Some(Payload::new(PayloadKind::Binary, vec![255]));
    assert_eq!(
        decode(r#"{"result":{"b64data":"/w==","data":1}}"#),
        Ok(Answer::Result(CallbackResult::Rpc { data: binary }))
    );
    for empty in ["{}", r#"{"result":null}"#, r#"{"result":{}}"#, r#"{"result":{"data":null}}"#] {
        assert_eq!(decode(empty), NOTHING, "{empty}");
    }
}

#[test]
fn a_disconnect_comes_before_an_error_and_an_error_before_a_result() {
    let [disconnect, error] =
        [r#""disconnect":{"code":4000,"reason":"x"}"#, r#""error":{"code":50,"message":"m"}"#];
    let code = |text: &str| match decode(text).unwrap() {
        Answer::Disconnect(disconnect) => u32::from(disconnect.disconnect_code()),
        Answer::Error(error) => error.code,
        Answer::Result(_) => 0,
    };
    assert_eq!(code(&format!(r#"{{"result":{{}},{error},{disconnect}}}"#)), 4000);
    assert_eq!(code(&format!(r#"{{"result":{{}},{error},"disconnect":null}}"#)), 50);
    assert_eq!(code(r#"{"error":null,"result":{}}"#), 0);
    let temporary = decode(r#"{"error":{"code":1000,"message":"m","temporary":true}}"#);
    let expected = BackendError { code: 1000, message: "m".into(), is_temporary: true };
    assert_eq!(temporary, Ok(Answer::Error(expected)));
}

#[test]
fn a_disconnect_has_a_code_and_a_reason_that_a_close_frame_can_carry() {
    let of = |code: &str, reason: &str| {
        let text = format!(r#"{{"disconnect":{{"code":{code},"reason":"{reason}"}}}}"#);
        match decode(&text) {
            Ok(Answer::Disconnect(one)) => (one.disconnect_code(), one.text().to_owned()),
            other => panic!("{other:?}"),
        }
    };
    for code in [3000, 4000, 4999] {
        assert_eq!(of(&code.to_string(), "out"), (code, "out".to_owned()));
    }
    let own = CloseReason::Backend;
    for code in ["0", "100", "2999", "5000", "65536", "4294967295"] {
        assert_eq!(of(code, "out").0, own.disconnect_code(), "{code}");
    }
    assert_eq!(of("4000", &"x".repeat(123)).1, "x".repeat(123));
    for reason in [&*"x".repeat(124), "a\\nb", ""] {
        assert_eq!(of("4000", reason).1, own.label(), "{reason}");
    }
}

#[test]
fn what_is_not_an_answer_is_a_fault() {
    let deep = |depth: usize| {
        format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert!(decode(&deep(PAYLOAD_DEPTH_MAX)).is_ok());
    let message =
        |bytes: usize| format!(r#"{{"error":{{"code":1000,"message":"{}"}}}}"#, "x".repeat(bytes));
    assert!(decode(&message(CALLBACK_ERROR_BYTES_MAX)).is_ok());
    for text in [
        "",
        "not json",
        "[]",
        "null",
        "1",
        r#"{"result":[]}"#,
        r#"{"result":1}"#,
        r#"{"result":{}} x"#,
        r#"{"result":{"b64data":"?"}}"#,
        r#"{"result":{"b64data":1}}"#,
        r#"{"result":{},"result":{}}"#,
        r#"{"error":"no"}"#,
        r#"{"error":{"code":-1}}"#,
        r#"{"error":{"code":"1"}}"#,
        r#"{"error":{"code":1.5}}"#,
        r#"{"error":{"code":4294967296}}"#,
        r#"{"disconnect":[4000,"x"]}"#,
        r#"{"disconnect":{"code":null,"reason":7}}"#,
        &deep(PAYLOAD_DEPTH_MAX + 1),
        &deep(100_000),
        &message(CALLBACK_ERROR_BYTES_MAX + 1),
    ] {
        assert_eq!(decode(text), Err(Fault), "{}", &text[..text.len().min(100)]);
    }
    assert_eq!(decode_answer(CallbackKind::Rpc, b"{\"result\":{\"data\":\"\xff\"}}"), Err(Fault));
}

#[test]
fn a_publication_is_allowed_as_it_is_or_with_other_data() {
    let publish = |text: &str| match decode_answer(CallbackKind::Publish, text.as_bytes()) {
        Ok(Answer::Result(CallbackResult::Publish { payload, tags, options: None })) => {
            Ok((payload, tags.map(|tags| tags.iter().map(|(a, b)| format!("{a}={b}")).collect())))
        }
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    };
    let tagged = |tags: &[&str]| Some(tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>());
    assert_eq!(publish("{}"), Ok((None, None)));
    let json = Payload::new(PayloadKind::Json, "[1]");
    let text = r#"{"result":{"data":[1],"tags":{"b":"2","a":"1"}}}"#;
    assert_eq!(publish(text), Ok((Some(json.clone()), tagged(&["a=1", "b=2"]))));
    assert_eq!(publish(r#"{"result":{"b64data":"WzFd","tags":{}}}"#), Ok((Some(json), None)));
    let binary = Payload::new(PayloadKind::Binary, "hi");
    assert_eq!(publish(r#"{"result":{"b64data":"aGk="}}"#), Ok((Some(binary), None)));
    let many = |count: usize, bytes: usize| {
        let tags: Vec<_> =
            (0..count).map(|n| format!("\"{n:0>4}\":\"{}\"", "x".repeat(bytes))).collect();
        publish(&format!(r#"{{"result":{{"tags":{{{}}}}}}}"#, tags.join(",")))
    };
    assert!(many(TAGS_MAX, 1).is_ok() && many(1, TAGS_BYTES_MAX - 4).is_ok());
    assert_eq!(many(TAGS_MAX + 1, 1), Err(Fault));
    assert_eq!(many(1, TAGS_BYTES_MAX - 3), Err(Fault));
    for text in [
        r#"{"result":{"tags":{"event":"join"}}}"#,
        r#"{"result":{"tags":{"a":1}}}"#,
        r#"{"result":{"tags":[]}}"#,
        r#"{"result":{"skip_history":1}}"#,
        r#"{"result":{"version":"1"}}"#,
        r#"{"result":{"version":-1}}"#,
        r#"{"result":{"data":1,"data":2}}"#,
    ] {
        assert_eq!(publish(text), Err(Fault), "{text}");
    }
}

#[test]
fn a_publication_may_have_a_key_and_a_version() {
    let options = |text: String| match decode_answer(CallbackKind::Publish, text.as_bytes()) {
        Ok(Answer::Result(CallbackResult::Publish { options, .. })) => Ok(options),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    };
    let of = |key: usize, epoch: usize| {
        let [key, epoch] = [key, epoch].map(|bytes| "x".repeat(bytes));
        let members = format!(r#""idempotency_key":"{key}","version_epoch":"{epoch}""#);
        options(format!(r#"{{"result":{{"version":7,"skip_history":false,{members}}}}}"#))
    };
    let version = Version { number: NonZeroU64::new(7).unwrap(), epoch: "xx".into() };
    let expected = PublishOptions {
        idempotency_key: Some("x".into()),
        version: Some(version),
        ..PublishOptions::default()
    };
    assert_eq!(of(1, 2), Ok(Some(Arc::new(expected))));
    let unkept = PublishOptions { skip_history: true, ..PublishOptions::default() };
    let text = r#"{"result":{"skip_history":true}}"#.to_owned();
    assert_eq!(options(text), Ok(Some(Arc::new(unkept))));
    assert!(of(IDEMPOTENCY_KEY_BYTES_MAX, VERSION_EPOCH_BYTES_MAX).is_ok());
    assert_eq!(of(IDEMPOTENCY_KEY_BYTES_MAX + 1, 0), Err(Fault));
    assert_eq!(of(0, VERSION_EPOCH_BYTES_MAX + 1), Err(Fault));
    assert_eq!(options(r#"{"result":{"version":0,"idempotency_key":""}}"#.to_owned()), Ok(None));
}

#[test]
fn a_subscription_is_allowed_with_what_is_said_about_it() {
    let subscribe = |text: &str| match decode_answer(CallbackKind::Subscribe, text.as_bytes()) {
        Ok(Answer::Result(CallbackResult::Subscribe { options })) => Ok(*options),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    };
    assert_eq!(subscribe("{}"), Ok(SubscriptionOptions::default()));
    let text = r#"{"result":{"info":{"a":1},"data":[2],"expire_at":1700000000,"x":1,
        "override":{"presence":{"value":true},"force_recovery":{"value":false},"x":1}}}"#;
    let expected = SubscriptionOptions {
        info: Some("{\"a\":1}".into()),
        data: Some("[2]".into()),
        expires_at: Some(1_700_000_000),
        is_renewed_by_backend: false,
        overrides: Overrides {
            presence: Some(true),
            force_recovery: Some(false),
            ..Overrides::default()
        },
    };
    assert_eq!(subscribe(text), Ok(expected));
    for never in ["0", "-1", "null"] {
        let text = format!(r#"{{"result":{{"expire_at":{never}}}}}"#);
        assert_eq!(subscribe(&text), Ok(SubscriptionOptions::default()), "{never}");
    }
    let info = |bytes: usize| {
        subscribe(&format!(r#"{{"result":{{"info":"{}"}}}}"#, "x".repeat(bytes - 2)))
    };
    assert!(info(INFO_BYTES_MAX).is_ok());
    assert_eq!(info(INFO_BYTES_MAX + 1), Err(Fault));
    for text in [
        r#"{"result":{"expire_at":"1"}}"#,
        r#"{"result":{"expire_at":1.5}}"#,
        r#"{"result":{"override":{"presence":true}}}"#,
        r#"{"result":{"b64info":"?"}}"#,
    ] {
        assert_eq!(subscribe(text), Err(Fault), "{text}");
    }
}

#[test]
fn a_client_is_who_the_backend_says() {
    let connect = |text: &str| match decode_answer(CallbackKind::Connect, text.as_bytes()) {
        Ok(Answer::Result(CallbackResult::Connect(result))) => Ok(result.map(|result| *result)),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault),
    };
    assert_eq!(connect("{}"), Ok(None), "it does not say");
    assert_eq!(connect(r#"{"result":null}"#), Ok(None));
    assert_eq!(connect(r#"{"result":{"user":""}}"#), Ok(Some(ConnectResult::default())));
    let text = r#"{"result":{"user":"u","expire_at":7,"info":[1],"b64data":"WzJd","meta":{},
        "caps":[],"channels":["b","a","b"],"subs":{"a":{"data":3}}}}"#;
    let channel = |name: &str| ChannelName::new(name).unwrap();
    let options = SubscriptionOptions { data: Some("3".into()), ..Default::default() };
    let expected = ConnectResult {
        identity: Identity {
            user: Some("u".into()),
            info: Some("[1]".into()),
            expires_at: Some(7),
        },
        data: Some("[2]".into()),
        meta: Some("{}".into()),
        subscriptions: vec![(channel("a"), options), (channel("b"), Default::default())],
    };
    assert_eq!(connect(text), Ok(Some(expected)));
    let user =
        |bytes: usize| connect(&format!(r#"{{"result":{{"user":"{}"}}}}"#, "x".repeat(bytes)));
    assert!(user(USER_BYTES_MAX).is_ok());
    assert_eq!(user(USER_BYTES_MAX + 1), Err(Fault));
    for text in [
        r#"{"result":{"user":7}}"#,
        r#"{"result":{"channels":"a"}}"#,
        r#"{"result":{"channels":[""]}}"#,
        r#"{"result":{"subs":["a"]}}"#,
        r#"{"result":{"subs":{"a":{},"a":{}}}}"#,
        r#"{"result":{"subs":{"a":{"info":1,"info":2}}}}"#,
    ] {
        assert_eq!(connect(text), Err(Fault), "{text}");
    }
}

#[test]
fn a_client_or_a_subscription_goes_on_or_not() {
    for kind in [CallbackKind::Refresh, CallbackKind::SubRefresh] {
        let renewal = |text: &str| match decode_answer(kind, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Renewal { renewal, .. })) => Ok(renewal),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        };
        for expired in [
            "{}",
            r#"{"result":null}"#,
            r#"{"result":{"expired":true,"expire_at":9999999999}}"#,
            r#"{"error":{"code":1000,"message":"no"}}"#,
            r#"{"disconnect":{"code":4500,"reason":"out"}}"#,
        ] {
            assert_eq!(renewal(expired), Ok(Renewal::Expired), "{expired}");
        }
        let until = |expires_at, info: Option<&'static str>| {
            Ok(Renewal::Prolonged { expires_at, info: info.map(Bytes::from) })
        };
        assert_eq!(renewal(r#"{"result":{}}"#), until(None, None));
        assert_eq!(renewal(r#"{"result":{"expired":false,"expire_at":7}}"#), until(Some(7), None));
        assert_eq!(renewal(r#"{"result":{"expire_at":0,"info":[1]}}"#), until(None, Some("[1]")));
        // A disconnect beside a result has no meaning here, as with Centrifugo.
        let both = r#"{"result":{"expire_at":7},"disconnect":{"code":4500,"reason":"out"}}"#;
        assert_eq!(renewal(both), until(Some(7), None));
        let info = |bytes: usize| {
            renewal(&format!(r#"{{"result":{{"info":"{}"}}}}"#, "x".repeat(bytes - 2)))
        };
        assert!(info(INFO_BYTES_MAX).is_ok());
        assert_eq!(info(INFO_BYTES_MAX + 1), Err(Fault));
        for text in [
            r#"{"result":[]}"#,
            r#"{"result":{"expired":1}}"#,
            r#"{"result":{"expire_at":"7"}}"#,
            r#"{"result":{"b64info":"?"}}"#,
            r#"{"error":"no"}"#,
        ] {
            assert_eq!(renewal(text), Err(Fault), "{text}");
        }
    }
}

#[test]
fn what_the_backend_keeps_with_a_connection_has_a_maximum() {
    let meta = |kind, bytes: usize| {
        let text = format!(r#"{{"result":{{"meta":"{}"}}}}"#, "x".repeat(bytes - 2));
        match decode_answer(kind, text.as_bytes()) {
            Ok(Answer::Result(CallbackResult::Connect(Some(result)))) => Ok(result.meta),
            Ok(Answer::Result(CallbackResult::Renewal { meta, .. })) => Ok(meta),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault),
        }
    };
    for kind in [CallbackKind::Connect, CallbackKind::Refresh] {
        let most = meta(kind, INFO_BYTES_MAX).unwrap().unwrap();
        assert_eq!(most.len(), INFO_BYTES_MAX);
        assert_eq!(meta(kind, INFO_BYTES_MAX + 1), Err(Fault));
    }
}
