//! Tests of what tokens claim.

use bytes::Bytes;

use super::*;
use crate::config::limits::PAYLOAD_DEPTH_MAX;
use crate::message::{ChannelName, INFO_BYTES_MAX, Overrides, SubscriptionOptions, USER_BYTES_MAX};

#[test]
fn a_token_is_valid_from_nbf_until_before_exp() {
    let verify = |claims: &str, leeway: u64| {
        fault(&tokens(|config| config.leeway = Duration::from_secs(leeway)), &token(claims))
    };
    let (expired, early) = (Some(TokenError::Expired), Some(TokenError::NotYetValid));
    for (claims, leeway, expected) in [
        (r#"{"exp":1800000001}"#, 0, None),
        (r#"{"exp":1800000000}"#, 0, expired),
        (r#"{"exp":1800000000.5}"#, 0, None),
        (r#"{"exp":1.8e9}"#, 0, expired),
        (r#"{"exp":0}"#, 0, expired),
        (r#"{"exp":-1}"#, 0, expired),
        (r#"{"exp":99999999999999999999}"#, 0, None),
        (r#"{"exp":null}"#, 0, None),
        (r#"{"exp":1799999996}"#, 5, None),
        (r#"{"exp":1799999995}"#, 5, expired),
        (r#"{"nbf":1800000000}"#, 0, None),
        (r#"{"nbf":1800000001}"#, 0, early),
        (r#"{"nbf":1800000000.5}"#, 0, early),
        (r#"{"nbf":1800000005}"#, 5, None),
        (r#"{"nbf":1800000006}"#, 5, early),
        (r#"{"nbf":1e300}"#, 5, early),
        (r#"{"nbf":0,"exp":1800000001,"iat":1900000000}"#, 0, None),
        (r#"{"nbf":1800000009,"exp":1700000000}"#, 0, expired),
    ] {
        assert_eq!(verify(claims, leeway), expected, "{claims} {leeway}");
    }
    for bad in [
        r#"{"exp":"1800000001"}"#,
        r#"{"nbf":"0"}"#,
        r#"{"iat":"0"}"#,
        r#"{"exp":true}"#,
        r#"{"exp":[1800000001]}"#,
        r#"{"exp":1e999}"#,
        r#"{"exp":1800000001,"exp":1900000000}"#,
        r#"{"nbf":0,"nbf":1900000000}"#,
    ] {
        assert_eq!(verify(bad, 0), Some(TokenError::Claims), "{bad}");
    }
}

#[test]
fn a_token_is_for_the_audience_and_by_the_issuer_that_are_set() {
    let any = tokens(|_| {});
    let set = tokens(|config| {
        (config.audience, config.issuer) = (Some("chat".into()), Some("shop".into()));
    });
    let (audience, issuer) = (Some(TokenError::Audience), Some(TokenError::Issuer));
    for (claims, expected) in [
        (r#"{"aud":"chat","iss":"shop"}"#, None),
        (r#"{"aud":["chat"],"iss":"shop"}"#, None),
        (r#"{"aud":["a","chat"],"iss":"shop"}"#, None),
        (r#"{"aud":"a","iss":"shop"}"#, audience),
        (r#"{"aud":"Chat","iss":"shop"}"#, audience),
        (r#"{"aud":"chat ","iss":"shop"}"#, audience),
        (r#"{"aud":["a","b"],"iss":"shop"}"#, audience),
        (r#"{"aud":[],"iss":"shop"}"#, audience),
        (r#"{"aud":null,"iss":"shop"}"#, audience),
        (r#"{"iss":"shop"}"#, audience),
        (r#"{"AUD":"chat","iss":"shop"}"#, audience),
        (r#"{"aud":"chat"}"#, issuer),
        (r#"{"aud":"chat","iss":"a"}"#, issuer),
        (r#"{"aud":"chat","iss":""}"#, issuer),
        // The audience is checked before the time is.
        (r#"{"aud":"a","iss":"shop","exp":1}"#, audience),
    ] {
        assert_eq!(fault(&set, &token(claims)), expected, "{claims}");
        let without = fault(&any, &token(claims));
        assert_eq!(without.filter(|fault| *fault != TokenError::Expired), None, "{claims}");
    }
    for bad in [
        r#"{"aud":5}"#,
        r#"{"aud":["chat",5]}"#,
        r#"{"aud":{"chat":1}}"#,
        r#"{"iss":5}"#,
        r#"{"iss":["shop"]}"#,
        r#"{"aud":"a","aud":"chat"}"#,
    ] {
        assert_eq!(fault(&any, &token(bad)), Some(TokenError::Claims), "{bad}");
    }
}

/// Its client is not disconnected, and could have any number of them verified.
#[test]
fn a_token_that_is_not_valid_at_this_time_does_not_cost_a_signature() {
    let tokens = tokens(|config| config.audience = Some("chat".into()));
    let forge = |claims: &str| token(claims).rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
    for (claims, expected) in [
        (r#"{"aud":"chat","exp":1}"#, TokenError::Expired),
        (r#"{"aud":"chat","expire_at":1}"#, TokenError::Expired),
        (r#"{"aud":"chat","nbf":1800000001}"#, TokenError::NotYetValid),
        // Whatever ends the connection is found out behind the signature.
        (r#"{"aud":"chat","exp":1800000001}"#, TokenError::Signature),
        (r#"{"aud":"a","exp":1}"#, TokenError::Signature),
        (r#"{"aud":"chat","exp":1,"exp":1}"#, TokenError::Signature),
        (r#"{"aud":"chat","exp":"#, TokenError::Signature),
    ] {
        assert_eq!(fault(&tokens, &forge(claims)), Some(expected), "{claims}");
    }
}

fn claims_of(claims: &str) -> Result<ConnectionClaims, TokenError> {
    tokens(|_| {}).verify_connection(&token(claims), NOW)
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

#[test]
fn a_client_is_who_its_token_says() {
    let user = |text: &str| Some(text.into());
    let longest = "u".repeat(USER_BYTES_MAX);
    for (claims, expected) in [
        ("{}".to_owned(), None),
        (r#"{"sub":null}"#.to_owned(), None),
        (r#"{"sub":""}"#.to_owned(), None),
        (r#"{"sub":"42"}"#.to_owned(), user("42")),
        (r#"{"sub":"\u00e9 \"x\""}"#.to_owned(), user("\u{e9} \"x\"")),
        (format!(r#"{{"sub":"{longest}"}}"#), user(&longest)),
    ] {
        assert_eq!(claims_of(&claims).unwrap().identity.user, expected, "{claims}");
    }
    for bad in [
        r#"{"sub":42}"#.to_owned(),
        r#"{"sub":["42"]}"#.to_owned(),
        r#"{"sub":"1","sub":"2"}"#.to_owned(),
        format!(r#"{{"sub":"{longest}u"}}"#),
        // A token of a subscription.
        r#"{"sub":"42","channel":"a"}"#.to_owned(),
    ] {
        assert_eq!(claims_of(&bad), Err(TokenError::Claims), "{bad}");
    }
    assert_eq!(claims_of(r#"{"sub":"42","channel":""}"#).unwrap().identity.user, user("42"));
}

#[test]
fn an_identity_expires_at_expire_at_or_with_its_token() {
    for (claims, expected) in [
        ("{}", None),
        (r#"{"exp":1800000060}"#, Some(NOW + 60)),
        (r#"{"exp":1800000060.1}"#, Some(NOW + 61)),
        (r#"{"exp":1800000060,"expire_at":1800000090}"#, Some(NOW + 90)),
        (r#"{"exp":1800000060,"expire_at":1800000030}"#, Some(NOW + 30)),
        (r#"{"exp":1800000060,"expire_at":0}"#, None),
        (r#"{"exp":1800000060,"expire_at":-5}"#, None),
        (r#"{"exp":1800000060,"expire_at":null}"#, Some(NOW + 60)),
        (r#"{"expire_at":1800000001}"#, Some(NOW + 1)),
        (r#"{"expire_at":1e300}"#, Some(u64::MAX)),
    ] {
        assert_eq!(claims_of(claims).unwrap().identity.expires_at, expected, "{claims}");
    }
    assert_eq!(claims_of(r#"{"expire_at":"1800000090"}"#), Err(TokenError::Claims));
    for over in [r#"{"expire_at":1}"#, r#"{"exp":1800000060,"expire_at":1800000000}"#] {
        assert_eq!(claims_of(over), Err(TokenError::Expired), "{over}");
    }
    // What expires with its token does not expire before.
    let lenient = tokens(|config| config.leeway = Duration::from_secs(5));
    let expires_at = |claims: &str| {
        lenient.verify_connection(&token(claims), NOW).map(|claims| claims.identity.expires_at)
    };
    assert_eq!(expires_at(r#"{"exp":1799999996}"#), Ok(Some(NOW + 1)));
    assert_eq!(expires_at(r#"{"exp":1799999996,"expire_at":1800000060}"#), Ok(Some(NOW + 60)));
}

#[test]
fn info_is_json_on_one_line_and_bytes_that_are_not_json_stay_in_base64() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deepest = deep(PAYLOAD_DEPTH_MAX);
    let in_base64 = |bytes: &[u8]| format!(r#"{{"b64info":"{}"}}"#, BASE64_STANDARD.encode(bytes));
    for (claims, expected) in [
        ("{}".to_owned(), None),
        (r#"{"info":null}"#.to_owned(), None),
        (r#"{"info":{"name":"A"}}"#.to_owned(), Some(r#"{"name":"A"}"#)),
        (r#"{"info":"x"}"#.to_owned(), Some(r#""x""#)),
        (r#"{"info":12345678901234567890.5}"#.to_owned(), Some("12345678901234567890.5")),
        ("{\"info\":[1,\r\n2]}".to_owned(), Some("[1,  2]")),
        (format!(r#"{{"info":{deepest}}}"#), Some(&deepest)),
        (r#"{"b64info":"","info":1}"#.to_owned(), Some("1")),
        (r#"{"b64info":"WzFd","info":2}"#.to_owned(), Some("[1]")),
        (in_base64(b"{\"a\":\n1}"), Some("{\"a\": 1}")),
        (in_base64(b"\xff\n"), Some("\"/wo=\"")),
        (in_base64(deep(PAYLOAD_DEPTH_MAX + 1).as_bytes()), None),
    ] {
        let info = claims_of(&claims).unwrap().identity.info;
        if claims.len() > 130 && expected.is_none() {
            assert!(info.unwrap().starts_with(b"\"W1tb"), "too deep, so that it is not read");
        } else {
            assert_eq!(info, expected.map(|text| Bytes::copy_from_slice(text.as_bytes())));
        }
    }
    for bad in [
        format!(r#"{{"info":{}}}"#, deep(PAYLOAD_DEPTH_MAX + 1)),
        r#"{"b64info":5}"#.to_owned(),
        r#"{"b64info":"WzFd="}"#.to_owned(),
        r#"{"b64info":"Wz Fd"}"#.to_owned(),
        r#"{"b64info":"-_-_"}"#.to_owned(),
        r#"{"info":1,"info":2}"#.to_owned(),
        r#"{"meta":1,"meta":2}"#.to_owned(),
    ] {
        assert_eq!(claims_of(&bad), Err(TokenError::Claims), "{bad}");
    }
    let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (length, is_good) in [(INFO_BYTES_MAX, true), (INFO_BYTES_MAX + 1, false)] {
        let info = claims_of(&format!(r#"{{"info":{}}}"#, long(length)));
        assert_eq!(info.is_ok(), is_good);
        let subs = claims_of(&format!(r#"{{"subs":{{"a":{{"info":{}}}}}}}"#, long(length)));
        assert_eq!(subs.is_ok(), is_good);
        assert!(claims_of(&format!(r#"{{"meta":{}}}"#, long(length))).is_ok());
    }
    let meta = claims_of(r#"{"meta":{"a": 1}}"#).unwrap().meta;
    assert_eq!(meta.as_deref(), Some(&br#"{"a": 1}"#[..]));
}

#[test]
fn a_token_subscribes_its_client_to_channels() {
    let plain = |names: &[&str]| {
        names.iter().map(|text| (name(text), SubscriptionOptions::default())).collect::<Vec<_>>()
    };
    for (claims, expected) in [
        ("{}", plain(&[])),
        (r#"{"channels":null,"subs":null}"#, plain(&[])),
        (r#"{"channels":[]}"#, plain(&[])),
        (r#"{"channels":["b","a:1","b"]}"#, plain(&["b", "a:1"])),
        (r#"{"subs":{"b":{},"a:1":null}}"#, plain(&["b", "a:1"])),
        (r#"{"subs":{"b":{"x":1}},"channels":["a"]}"#, plain(&["b"])),
        (r#"{"subs":{},"channels":["a"]}"#, plain(&["a"])),
    ] {
        assert_eq!(claims_of(claims).unwrap().subscriptions, expected, "{claims}");
    }
    let claims = r#"{"subs":{"a":{"info":{"x":1},"b64data":"WzFd","override":{"presence":{"value":true},
        "join_leave":{"value":false},"force_push_join_leave":{},"force_positioning":null}}}}"#;
    let options = SubscriptionOptions {
        is_renewed_by_backend: false,
        info: Some(Bytes::from_static(br#"{"x":1}"#)),
        data: Some(Bytes::from_static(b"[1]")),
        expires_at: None,
        overrides: Overrides {
            presence: Some(true),
            join_leave: Some(false),
            force_push_join_leave: Some(false),
            force_positioning: None,
            force_recovery: None,
        },
    };
    assert_eq!(claims_of(claims).unwrap().subscriptions, [(name("a"), options)]);
    for bad in [
        r#"{"channels":"a"}"#,
        r#"{"channels":[5]}"#,
        r#"{"channels":[""]}"#,
        r#"{"channels":["a\u0000"]}"#,
        r#"{"channels":["a"],"channels":["b"]}"#,
        r#"{"subs":["a"]}"#,
        r#"{"subs":{"":{}}}"#,
        r#"{"subs":{"a":{},"a":{}}}"#,
        r#"{"subs":{"a":[]}}"#,
        r#"{"subs":{"a":true}}"#,
        r#"{"subs":{"a":{"info":1,"info":2}}}"#,
        r#"{"subs":{"a":{"override":{"presence":true}}}}"#,
        r#"{"subs":{"a":{"override":{"presence":{"value":"true"}}}}}"#,
        r#"{"subs":{"a":{"b64data":"?"}}}"#,
    ] {
        assert_eq!(claims_of(bad), Err(TokenError::Claims), "{bad}");
    }
}

#[test]
fn a_token_of_a_subscription_is_for_one_channel() {
    let verify = |claims: &str| tokens(|_| {}).verify_subscription(&token(claims), NOW);
    let claims = r#"{"sub":"42","channel":"$a:1","exp":1800000060,"expire_at":1800000090,"info":1,"data":2,
        "client":"c","override":{"force_recovery":{"value":true}},"channels":5,"subs":5}"#;
    let overrides = Overrides { force_recovery: Some(true), ..Overrides::default() };
    let options = SubscriptionOptions {
        is_renewed_by_backend: false,
        info: Some(Bytes::from_static(b"1")),
        data: Some(Bytes::from_static(b"2")),
        expires_at: Some(NOW + 90),
        overrides,
    };
    let expected = SubscriptionClaims {
        user: Some("42".into()),
        channel: name("$a:1"),
        client: Some("c".to_owned()),
        options,
    };
    assert_eq!(verify(claims), Ok(expected));
    let least = SubscriptionClaims {
        user: None,
        channel: name("a"),
        client: None,
        options: SubscriptionOptions::default(),
    };
    assert_eq!(verify(r#"{"channel":"a","client":"","expire_at":0}"#), Ok(least));
    for (claims, expected) in [
        ("{}", TokenError::Claims),
        (r#"{"channel":null}"#, TokenError::Claims),
        (r#"{"channel":""}"#, TokenError::Claims),
        (r#"{"channel":5}"#, TokenError::Claims),
        (r#"{"channel":"a","channel":"b"}"#, TokenError::Claims),
        (r#"{"channel":"a","client":5}"#, TokenError::Claims),
        (r#"{"channel":"a","sub":5}"#, TokenError::Claims),
        (r#"{"channel":"a","data":1,"data":1}"#, TokenError::Claims),
        (r#"{"channel":"a","override":[]}"#, TokenError::Claims),
        (r#"{"channel":"a","exp":1800000000}"#, TokenError::Expired),
        (r#"{"channel":"a","nbf":1800000001}"#, TokenError::NotYetValid),
    ] {
        assert_eq!(verify(claims), Err(expected), "{claims}");
    }
}

#[test]
fn claims_are_an_object() {
    for bad in ["", "null", "5", "\"x\"", "[]", "[\"42\"]", "{", "{}{}", "{\"sub\":\"\\ud800\"}"] {
        assert_eq!(claims_of(bad), Err(TokenError::Claims), "{bad}");
    }
    let binary = signed(r#"{"alg":"HS256"}"#, b"{\"sub\":\"\xff\"}");
    assert_eq!(fault(&tokens(|_| {}), &binary), Some(TokenError::Claims));
    let deep = "[".repeat(8000) + &"]".repeat(8000 / 2);
    assert!(fault(&tokens(|_| {}), &token(&format!(r#"{{"x":{deep}"#))).is_some());
}
