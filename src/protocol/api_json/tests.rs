use std::time::Duration;

use super::*;
use crate::message::{ClientId, Epoch, NodeId, Payload, PayloadKind, SessionId, Tags, WorkerId};
use serde_json::{Value, json};

type PublishOfTwo<'a> = Publish<'a, 2>;

#[test]
fn methods_are_found_by_their_names() {
    for name in
        ["publish", "broadcast", "subscribe", "unsubscribe", "disconnect", "history", "info"]
    {
        assert_eq!(ApiMethod::from_name(name).unwrap().name(), name);
    }
    for name in ["", "Publish", "batch", "publish/", "history-remove"] {
        assert_eq!(ApiMethod::from_name(name), None, "{name}");
    }
}

#[test]
fn data_is_kept_as_it_was_written_and_null_is_data() {
    let publish: PublishOfTwo = decode(r#"{"channel":"a","data": {"x": [1, 2]} }"#).unwrap();
    assert_eq!(publish.data.unwrap().get(), r#"{"x": [1, 2]}"#);
    assert!(matches!(publish.channel, Some(Text(Cow::Borrowed("a")))));
    let publish: PublishOfTwo = decode(r#"{"channel":"\u00e9","data":null}"#).unwrap();
    assert_eq!(publish.data.unwrap().get(), "null");
    assert_eq!(publish.channel.unwrap().0, "é");
    let publish: PublishOfTwo = decode(r#"{"tags":null,"b64data":null}"#).unwrap();
    assert!(publish.data.is_none() && publish.tags.is_none() && publish.b64data.is_none());
}

#[test]
fn invalid_json_and_unfit_parameters_are_different_errors() {
    for text in ["", "{", r#"{"channel":}"#, "{}x", "[7", "nul", r#"{"channel":"\ud800"}"#] {
        let error = decode::<PublishOfTwo>(text).unwrap_err();
        assert!(matches!(error, ParametersError::NotJson(_)), "{text}: {error:?}");
    }
    for text in ["[]", "null", "1", r#"{"channel":1}"#, r#"{"channels":"a"}"#, r#"{"tags":[]}"#] {
        let error = decode::<PublishOfTwo>(text).unwrap_err();
        assert!(matches!(error, ParametersError::Unfit(_)), "{text}: {error:?}");
    }
    let error = decode::<OfChannel<'_>>("{}").unwrap_err();
    assert!(matches!(error, ParametersError::Unfit(why) if why.contains("channel")));
    for text in ["[]", "null", "1", r#"["a"]"#] {
        let error = decode::<OfChannel<'_>>(text).unwrap_err();
        assert!(matches!(error, ParametersError::Unfit(why) if why.contains("expected an object")));
    }
}

#[test]
fn a_list_is_read_up_to_its_maximum() {
    let list = |text| {
        serde_json::from_str::<List<u32, 2>>(text).map(|list| (list.items, list.is_too_long))
    };
    assert_eq!(list("[]").unwrap(), (vec![], false));
    assert_eq!(list("[1,2]").unwrap(), (vec![1, 2], false));
    assert_eq!(list("[1,2,3]").unwrap(), (vec![1, 2], true));
    assert_eq!(list("[1,2,{},[],null]").unwrap(), (vec![1, 2], true));
    assert!(list("[1,2,3").is_err());
    assert!(list("[1,\"2\"]").is_err());
}

#[test]
fn a_command_of_a_batch_has_one_method() {
    let method = |text| decode::<BatchCommand<'_>>(text).map(|command| command.0);
    let (name, parameters) = method(r#"{"publish":{"channel":"a"}}"#).unwrap().unwrap();
    assert_eq!((&*name, parameters.get()), ("publish", r#"{"channel":"a"}"#));
    let (name, _) = method(r#"{"broadcast":null,"info":{}}"#).unwrap().unwrap();
    assert_eq!(name, "info");
    assert!(method("{}").unwrap().is_none());
    assert!(method(r#"{"info":{},"publish":{}}"#).is_err());
    assert!(method("[]").is_err());
}

#[test]
fn a_position_is_one_of_ours_or_of_whichever_epoch_or_nowhere() {
    let since = |text| decode::<Since<'_>>(text).unwrap();
    let position = Position { epoch: Epoch(0xab), offset: 7 };
    assert_eq!(since(r#"{"offset":7,"epoch":"000000ab"}"#).position(), position);
    assert_eq!(since(r#"{"offset":7,"epoch":"qFhv"}"#).position(), Position::NOWHERE);
    let any = |offset| Position { epoch: Epoch::ANY, offset };
    assert_eq!(since(r#"{"offset":0,"epoch":""}"#).position(), any(0));
    assert_eq!(since("{}").position(), any(0));
    assert_eq!(since(r#"{"offset":1}"#).position(), any(1));
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn results_have_centrifugos_shapes() {
    let position = Position { epoch: Epoch(1), offset: 2 };
    assert_eq!(
        written(|out| write_published(out, position, false)),
        json!({"offset": 2, "epoch": "00000001"})
    );
    let publication = |kind, bytes: &'static [u8]| Publication {
        channel: ChannelName::new("a").unwrap(),
        position,
        payload: Payload {
            tags: Tags::new([("event", "e")]).unwrap(),
            ..Payload::new(kind, bytes)
        },
        info: None,
        accepted_us: 0,
        excludes: None,
        in_stream: true,
    };
    let publications =
        [publication(PayloadKind::Json, b"{}"), publication(PayloadKind::Text, b"x")];
    let tags = json!({"event": "e"});
    assert_eq!(
        written(|out| write_history(out, position, publications.iter(), usize::MAX)),
        json!({"offset": 2, "epoch": "00000001", "publications": [
            {"data": {}, "offset": 2, "tags": tags}, {"data": "x", "offset": 2, "tags": tags}
        ]})
    );
    let cut = written(|out| write_history(out, position, publications.iter(), 20));
    assert_eq!(cut["publications"].as_array().unwrap().len(), 1);
    let session = SessionId { index: 1, generation: 2 };
    let clients = [0, 1].map(|worker| {
        let (node, worker) = (NodeId::new(3), WorkerId(worker));
        ClientInfo::anonymous(ClientId { node, worker, session })
    });
    let (one, two) =
        ("00000000-0003-8000-8000-000100000002", "00000000-0003-8001-8000-000100000002");
    assert_eq!(
        written(|out| write_presence(out, &clients, 5)),
        json!({"num_clients": 5, "presence": {
            one: {"client": one, "user": ""}, two: {"client": two, "user": ""}
        }})
    );
    assert_eq!(
        written(|out| write_presence_stats(out, 5, 2)),
        json!({"num_clients": 5, "num_users": 2})
    );
    let channels = ["a", "b\"c"].map(|name| (ChannelName::new(name).unwrap(), 3));
    assert_eq!(
        written(|out| write_channels(out, &channels)),
        json!({"channels": {"a": {"num_clients": 3}, "b\"c": {"num_clients": 3}}})
    );
    let uptime = Duration::from_secs(7);
    let node = NodeId::new(1);
    let info = NodeInfo { node, clients: 9, users: 2, channels: 3, subscriptions: 4, uptime };
    let node = written(|out| write_info(out, &info))["nodes"][0].clone();
    assert_eq!(node["uid"], "00000000-0001");
    assert_eq!((&node["num_clients"], &node["num_users"]), (&json!(9), &json!(2)));
    assert_eq!(node["uptime"], 7);
    assert_eq!((&node["num_channels"], &node["num_subs"]), (&json!(3), &json!(4)));
    assert_eq!(
        written(|out| write_error(out, CommandError::BadRequest, Some("a \"b\""))),
        json!({"code": 107, "message": "bad request: a \"b\""})
    );
}
