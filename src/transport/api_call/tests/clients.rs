//! Methods that concern connected clients.

use super::*;
use crate::config::limits::WHITELIST_MAX;
use crate::message::{
    CloseReason, Control, Disconnect, INFO_BYTES_MAX, Selection, SubscriptionOptions,
    USER_BYTES_MAX,
};

#[test]
fn clients_are_controlled_by_name() {
    let asked = |method, body: &str| match single(method, body).requests.pop() {
        Some(SessionRequest {
            request: Request::Control { client, control, user: None }, ..
        }) => (client.to_string(), control),
        other => panic!("{other:?}"),
    };
    let channel = ChannelName::new("a").unwrap();
    let body = r#"{"client":"00000000-0001-8001-8000-000200000003","user":"","channel":"a",
        "recover_since":{"offset":7,"epoch":"000000ab"}}"#;
    let control =
        Control::Subscribe { channel: channel.clone(), since: Some(position(7)), options: None };
    assert_eq!(
        asked(ApiMethod::Subscribe, body),
        ("00000000-0001-8001-8000-000200000003".to_owned(), control)
    );
    let body = r#"{"client":"00000000-0001-8001-8000-000200000003","channel":"a"}"#;
    assert_eq!(asked(ApiMethod::Unsubscribe, body).1, Control::Unsubscribe { channel });
    let disconnect = |disconnect: &str| {
        let body = format!(
            r#"{{"client":"00000000-0001-8001-8000-000200000003","disconnect":{disconnect}}}"#
        );
        match asked(ApiMethod::Disconnect, &body).1 {
            Control::Disconnect(disconnect) => disconnect,
            other => panic!("{other:?}"),
        }
    };
    for (code, reason) in [
        (3000, CloseReason::ForcedToReconnect),
        (3499, CloseReason::ForcedToReconnect),
        (3500, CloseReason::Forced),
        (3999, CloseReason::Forced),
        (4000, CloseReason::ForcedToReconnect),
        (4499, CloseReason::ForcedToReconnect),
        (4500, CloseReason::Forced),
        (4999, CloseReason::Forced),
    ] {
        let expected = Disconnect { reason, code: Some(code), text: Some("because".into()) };
        assert_eq!(disconnect(&format!(r#"{{"code":{code},"reason":"because"}}"#)), expected);
    }
    for plain in ["null", "{}", r#"{"code":0,"reason":""}"#] {
        assert_eq!(disconnect(plain), CloseReason::Forced.into());
    }
    let body = r#"{"client":"00000000-0001-8001-8000-000200000003"}"#;
    let forced = Control::Disconnect(CloseReason::Forced.into());
    assert_eq!(asked(ApiMethod::Disconnect, body).1, forced);
}

const CLIENT: &str = "00000000-0001-8001-8000-000200000003";

/// What a call asks for, without the braces around its parameters.
#[track_caller]
fn asked(method: ApiMethod, parameters: &str) -> Request {
    let mut asked = single(method, &format!("{{{parameters}}}"));
    let [SessionRequest { by: Actor::Server, .. }] = &asked.requests[..] else {
        panic!("{parameters}: {:?}", asked.requests);
    };
    asked.requests.pop().unwrap().request
}

#[test]
fn the_clients_of_a_user_are_controlled_together() {
    use ApiMethod::{Disconnect, Refresh, Subscribe, Unsubscribe};
    let of_user = |method, parameters: &str| match asked(method, parameters) {
        Request::ControlUser(command) => *command,
        other => panic!("{other:?}"),
    };
    let command = of_user(Unsubscribe, r#""user":"ann","channel":"a""#);
    let channel = ChannelName::new("a").unwrap();
    assert_eq!((&*command.user, command.except.len()), ("ann", 0));
    assert_eq!(command.control, Control::Unsubscribe { channel: channel.clone() });
    // The empty name is that of all anonymous clients, and has to be given.
    assert_eq!(&*of_user(Disconnect, r#""user":"""#).user, "");
    let whitelist = format!(r#""user":"ann","whitelist":["{CLIENT}"]"#);
    assert_eq!(of_user(Disconnect, &whitelist).except, [CLIENT.parse().unwrap()]);
    let expired = of_user(Refresh, r#""user":"ann","expired":true"#).control;
    assert_eq!(expired, Control::Disconnect(CloseReason::Expired.into()));
    let control = of_user(Refresh, r#""user":"ann","expire_at":99,"info":{"n":1}"#).control;
    assert_eq!(control, Control::Refresh { expires_at: Some(99), info: Some("{\"n\":1}".into()) });
    let never = Control::Refresh { expires_at: None, info: None };
    assert_eq!(of_user(Refresh, r#""user":"ann","expire_at":0"#).control, never);
    let subscribe = r#""user":"ann","channel":"a","expire_at":7,"b64info":"eyJhIjoxfQ==",
        "b64data":"/w==","info":1,"data":2"#;
    let options = SubscriptionOptions {
        info: Some("{\"a\":1}".into()),
        data: Some("\"/w==\"".into()),
        expires_at: Some(7),
        ..SubscriptionOptions::default()
    };
    let options = Some(Box::new(options));
    let control = of_user(Subscribe, subscribe).control;
    assert_eq!(control, Control::Subscribe { channel, since: None, options });
}

#[test]
fn one_client_is_named_by_its_id_or_its_session_and_may_have_to_be_a_users() {
    let one = |parameters: &str| match asked(ApiMethod::Disconnect, parameters) {
        Request::Control { client, user, .. } => (client.to_string(), user),
        other => panic!("{other:?}"),
    };
    let (client, session) = (format!(r#""client":"{CLIENT}""#), format!(r#""session":"{CLIENT}""#));
    for parameters in [client.clone(), session.clone(), format!("{client},{session}")] {
        assert_eq!(one(&parameters), (CLIENT.to_owned(), None));
        let of_ann = format!(r#"{parameters},"user":"ann""#);
        assert_eq!(one(&of_ann), (CLIENT.to_owned(), Some("ann".into())));
        assert_eq!(one(&format!(r#"{parameters},"user":"""#)).1, None);
    }
}

#[test]
fn connections_are_listed_by_user_or_channel_and_users_are_blocked() {
    let listed = |parameters: &str| match asked(ApiMethod::Connections, parameters) {
        Request::Connections { selection, with_channels } => (selection, with_channels),
        other => panic!("{other:?}"),
    };
    let channel = ChannelName::new("a").unwrap();
    assert_eq!(listed(""), (Selection::All, false));
    assert_eq!(listed(r#""user":"ann""#), (Selection::User("ann".into()), false));
    assert_eq!(listed(r#""user":"","channels":true"#), (Selection::User("".into()), true));
    assert_eq!(listed(r#""channel":"a""#), (Selection::Channel(channel), false));
    let blocked = |method, parameters: &str| match asked(method, parameters) {
        Request::Block { user, until } => (user.to_string(), until),
        other => panic!("{other:?}"),
    };
    let ann = "ann".to_owned();
    let until = blocked(ApiMethod::BlockUser, r#""user":"ann","expire_at":99"#);
    assert_eq!(until, (ann.clone(), 99));
    assert_eq!(blocked(ApiMethod::BlockUser, r#""user":"ann""#), (ann.clone(), u64::MAX));
    assert_eq!(blocked(ApiMethod::UnblockUser, r#""user":"ann""#), (ann, 0));
}

#[test]
fn parameters_of_clients_that_make_no_sense_are_refused() {
    use ApiMethod::{BlockUser, Connections, Disconnect, Refresh, Subscribe, UnblockUser};
    let (other, long) = ("00000000-0001-8001-8000-000200000004", "u".repeat(USER_BYTES_MAX + 1));
    let ids = format!("\"{CLIENT}\",").repeat(WHITELIST_MAX);
    let info = "1".repeat(INFO_BYTES_MAX + 1);
    for (method, parameters, expected) in [
        (Disconnect, String::new(), 107),
        (Disconnect, format!(r#""user":"{long}""#), 107),
        (Disconnect, r#""client":"x""#.to_owned(), 107),
        (Disconnect, format!(r#""client":"{CLIENT}","session":"{other}""#), 107),
        (Disconnect, r#""user":"ann","whitelist":["x"]"#.to_owned(), 107),
        (Disconnect, format!(r#""user":"ann","whitelist":[{ids}"{other}"]"#), 107),
        (Disconnect, format!(r#""client":"{CLIENT}","whitelist":["{CLIENT}"]"#), 107),
        (Disconnect, r#""user":"ann","expired":true"#.to_owned(), 107),
        (Disconnect, r#""user":"ann","label_filter":{"a":1}"#.to_owned(), 108),
        (Refresh, r#""user":"ann","expire_at":-1"#.to_owned(), 107),
        (Refresh, r#""user":"ann","channel":"a""#.to_owned(), 107),
        (Subscribe, r#""user":"ann""#.to_owned(), 107),
        (Subscribe, r#""user":"ann","channel":"a","b64info":"?""#.to_owned(), 107),
        (Subscribe, format!(r#""user":"ann","channel":"a","info":{info}"#), 107),
        (Subscribe, r#""user":"ann","channel":"a","override":{"presence":5}"#.to_owned(), 107),
        (Subscribe, r#""user":"ann","channel":"a","override":{"presence":[true]}"#.to_owned(), 107),
        (Refresh, r#""user":"ann","override":{}"#.to_owned(), 107),
        (Connections, r#""user":"ann","channel":"a""#.to_owned(), 107),
        (Connections, r#""user":"ann","expression":"x""#.to_owned(), 108),
        (BlockUser, r#""user":"""#.to_owned(), 107),
        (BlockUser, r#""expire_at":1"#.to_owned(), 107),
        (UnblockUser, r#""user":"ann","expire_at":1"#.to_owned(), 107),
    ] {
        assert_eq!(code(method, &format!("{{{parameters}}}")), expected, "{method:?} {parameters}");
    }
    let most = format!("{}\"{other}\"", format!("\"{CLIENT}\",").repeat(WHITELIST_MAX - 1));
    asked(Disconnect, &format!(r#""user":"{}","whitelist":[{most}]"#, "u".repeat(USER_BYTES_MAX)));
    let info = "1".repeat(INFO_BYTES_MAX);
    asked(Subscribe, &format!(r#""user":"ann","channel":"a","info":{info}"#));
}
