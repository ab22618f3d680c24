//! Every key of Centrifugo is carried over, named, or known to mean nothing here.

use super::{Map, Value, converted, json, keys};

/// Keys that say what is always so here, and so change nothing.
const ALWAYS_SO: &[&str] = &[
    "channel.without_namespace.allow_positioning",
    "channel.without_namespace.force_positioning",
    "health.enabled",
    "http_stream.enabled",
    "prometheus.enabled",
    "rpc.namespaces[].name",
    "sse.enabled",
    "uni_http_stream.enabled",
    "uni_sse.enabled",
    "uni_websocket.enabled",
    "usage_stats.disabled",
    // The proxy of a section is named where it is used.
    "proxies[].name",
];

/// Puts a value at a path. A list has one table.
fn put(root: &mut Value, path: &str, value: Value) {
    let mut place = root;
    let parts: Vec<_> = path.split('.').collect();
    for part in &parts[..parts.len() - 1] {
        let table = place.as_object_mut().unwrap();
        place = match part.split_once('[') {
            Some((name, _)) => &mut table.entry(name).or_insert_with(|| json!([{}]))[0],
            None => table.entry(*part).or_insert_with(|| Value::Object(Map::new())),
        };
    }
    place.as_object_mut().unwrap().insert(parts[parts.len() - 1].to_owned(), value);
}

/// Values that a key may have, whatever its type.
fn candidates(default: &str) -> Vec<Value> {
    if let Ok(number) = default.parse::<i64>() {
        return vec![json!(number + 7), json!(number - 7)];
    }
    let texts =
        ["7s", "x", "cache", "map", "error", "redis", "nats", "transport", "http://127.0.0.1:1/"];
    let plain =
        [json!(true), json!(false), json!(7), json!(["x"]), json!(["fossil"]), json!({"a": "b"})];
    texts.into_iter().map(|text| json!(text)).chain(plain).collect()
}

/// Where a key stands, and what makes it mean something.
fn place(name: &str) -> (String, Value) {
    let mut base = json!({"client": {}});
    let path = match name.strip_prefix("rpc.proxy.") {
        Some(rest) => {
            put(&mut base, "client.proxy.connect.enabled", json!(true));
            put(&mut base, "client.proxy.connect.endpoint", json!("http://127.0.0.1:1/connect"));
            format!("client.proxy.connect.{rest}")
        }
        None => name.replace("[]", "[0]"),
    };
    if name.starts_with("channel.without_namespace.") {
        for (option, value) in [
            ("history_size", json!(10)),
            ("history_ttl", json!("60s")),
            ("join_leave", json!(true)),
            ("force_recovery", json!(true)),
        ] {
            put(&mut base, &format!("channel.without_namespace.{option}"), value);
        }
        if name.ends_with("allow_recovery") {
            put(&mut base, "channel.without_namespace.force_recovery", json!(false));
        }
        for proxy in ["subscribe_proxy", "publish_proxy", "sub_refresh_proxy"] {
            if name.contains(&format!(".{proxy}_")) {
                let kind = proxy.trim_end_matches("_proxy");
                put(
                    &mut base,
                    &format!("channel.proxy.{kind}.endpoint"),
                    json!("http://127.0.0.1:1/"),
                );
                let enabled = format!("channel.without_namespace.{proxy}_enabled");
                put(&mut base, &enabled, json!(name.ends_with("_name")));
            }
        }
    }
    if name.starts_with("rpc.without_namespace.") {
        put(&mut base, "rpc.proxy.endpoint", json!("http://127.0.0.1:1/rpc"));
        put(&mut base, "rpc.without_namespace.proxy_enabled", json!(name.ends_with("_name")));
    }
    for (start, key, value) in [
        ("client.token.hmac_previous", "client.token.hmac_previous_secret_key", json!("previous")),
        ("http_server.tls.", "http_server.tls.enabled", json!(true)),
        ("websocket.compression_", "websocket.compression", json!(true)),
        ("http_server.tls_external", "http_server.tls.enabled", json!(true)),
        ("http_server.internal_a", "http_server.internal_port", json!("9000")),
        ("http_server.tls_external", "http_server.internal_port", json!("9000")),
        ("http_api.external", "http_server.internal_port", json!("9000")),
        ("admin.external", "http_server.internal_port", json!("9000")),
    ] {
        if name.starts_with(start) && name != key {
            put(&mut base, key, value);
        }
    }
    if name.contains(".tls.") && name.starts_with("rpc.proxy.") && !name.ends_with(".enabled") {
        put(&mut base, "client.proxy.connect.http.tls.enabled", json!(true));
    }
    if let Some(need) = keys::need(&path) {
        let value = if need.ends_with("type") { json!("redis") } else { json!(true) };
        put(&mut base, &need, value);
    }
    (path, base)
}

/// Whether a key changes the settings, or is named, with some value that is not of the wrong type.
fn is_handled(name: &str) -> bool {
    let (path, base) = place(name);
    let before = converted(&base.to_string());
    let is_sound = |notes: &[String]| {
        notes.iter().all(|note| {
            !(note.starts_with(&path)
                && (note.contains(" is not a ") || note.contains("is not true or")))
        })
    };
    candidates(keys::default_of(&path)).into_iter().any(|value| {
        let mut with = base.clone();
        put(&mut with, &path, value);
        let after = converted(&with.to_string());
        is_sound(&after.1) && after != before
    })
}

#[test]
fn every_key_is_carried_over_or_named() {
    assert!(keys::names().count() > 400);
    let lost: Vec<_> =
        keys::names().filter(|name| !ALWAYS_SO.contains(name) && !is_handled(name)).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn options_of_namespaces_are_those_of_channels_without_one() {
    let options = keys::names().filter_map(|name| name.strip_prefix("channel.without_namespace."));
    for option in options {
        let of = |path: &str, name: &str| {
            let mut root = json!({"client": {}});
            let start = path.trim_end_matches(option);
            put(&mut root, &format!("{start}history_size"), json!(10));
            put(&mut root, &format!("{start}history_ttl"), json!("1m"));
            put(&mut root, "channel.namespaces[0].name", json!("chat"));
            put(&mut root, path, json!(true));
            let (settings, notes) = converted(&root.to_string());
            let lines = settings.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
            let section: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let section = section.join("\n");
            (section, notes.join("\n").replace(start, "").replace(&format!("[{name}]"), ""))
        };
        let without = of(&format!("channel.without_namespace.{option}"), "channels");
        let named = of(&format!("channel.namespaces[0].{option}"), "namespaces.chat");
        assert_eq!(without, named, "{option}");
    }
}

#[test]
fn keys_with_their_defaults_are_silent() {
    let mut root = json!({});
    for name in keys::names().filter(|name| !name.contains('[')) {
        let default = keys::default_of(name);
        let value = match default {
            "" => json!(""),
            text => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        };
        put(&mut root, name, value);
    }
    assert_eq!(converted(&root.to_string()), converted("{}"));
}

#[test]
fn unknown_keys_are_named() {
    let text = r#"{"client": {"alowed_origins": ["*"], "token": {"hmac_secret_key": "s", "secret": 1}},
        "channel": {"namespaces": [{"name": "chat", "histroy_size": 1}]}, "colour": "blue",
        "http_server": {"hmac_secret_key": ""}}"#;
    let (_, notes) = converted(text);
    let expected = [
        "channel.namespaces[0].histroy_size: Centrifugo 6.9 has no such key",
        "client.alowed_origins: Centrifugo 6.9 has no such key",
        "client.token.secret: Centrifugo 6.9 has no such key, did you mean admin.secret?",
        "colour: Centrifugo 6.9 has no such key",
        "http_server.hmac_secret_key: Centrifugo 6.9 has no such key, did you mean client.token.hmac_secret_key?",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn channels_of_users_are_carried_over() {
    let of = |enabled: bool, namespace: &str| {
        let section = json!({"enabled": enabled, "personal_channel_namespace": namespace});
        let client = json!({"subscribe_to_user_personal_channel": section});
        let channel = json!({"namespaces": [{"name": "own"}]});
        let (settings, notes) =
            converted(&json!({"client": client, "channel": channel}).to_string());
        assert_eq!(notes, [""; 0]);
        let loaded = super::load(&settings);
        (loaded.config.personal.are_on, loaded.config.personal.namespace)
    };
    assert_eq!(of(true, "own"), (true, Some("own".to_owned())));
    assert_eq!(of(true, ""), (true, None));
    assert_eq!(of(false, "own"), (false, None));
}
