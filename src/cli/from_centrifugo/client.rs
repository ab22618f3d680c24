//! How clients prove who they are, and their limits.

use super::conversion::Conversion;
use super::settings_file::{Written, literal, with_variables};

/// Converts `client` without its proxies, `websocket` and the other transports.
pub fn convert(c: &mut Conversion) {
    origins(c);
    authentication(c);
    keys(c);
    claims(c);
    personal_channels(c);
    limits(c);
    keepalive(c);
    message_size(c);
}

fn origins(c: &mut Conversion) {
    let key = "client.allowed_origins";
    let given = c.from.list(key);
    let (patterns, origins): (Vec<_>, Vec<_>) = given
        .iter()
        .map(|origin| origin.to_ascii_lowercase())
        .partition(|origin| origin != "*" && origin.contains(['*', '?', '[', '{', '\\']));
    for pattern in &patterns {
        c.note(key, &format!("{pattern}: http.origins has no patterns: list each origin"));
    }
    let (mut origins, slashed): (Vec<_>, Vec<_>) =
        origins.into_iter().partition(|origin| !origin.ends_with('/'));
    for origin in slashed {
        c.note(key, &format!("{origin}: no browser sends a slash at the end"));
    }
    if origins.iter().any(|origin| origin == "*") {
        origins = vec!["*".to_owned()];
    }
    if origins.is_empty() {
        c.to.comment("http", "the pages of no site");
        origins.push("https://none.invalid".to_owned());
    }
    let written = Written::List(origins.iter().map(|origin| with_variables(origin)).collect());
    c.set(key, "http.origins", &written);
}

fn authentication(c: &mut Conversion) {
    let anonymous = c.from.switch("client.allow_anonymous_connect_without_token");
    let insecure = c.from.switch("client.insecure");
    if insecure {
        c.note(
            "client.insecure",
            "expired tokens are not accepted; every client has every right, as it had",
        );
        c.is_open = true;
    }
    c.set("client.insecure", "auth.anonymous", &(anonymous || insecure).into());
    let disallows = "client.disallow_anonymous_connection_tokens";
    if c.from.switch(disallows) {
        c.note(
            disallows,
            "a token without a user is accepted: make none, or allow anonymous clients nothing",
        );
    }
}

const HMAC: &[&str] = &["HS256", "HS384", "HS512"];
const RSA: &[&str] = &["RS256", "RS384", "RS512"];
const PUBLISHED: &[&str] = &["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"];

fn keys(c: &mut Conversion) {
    let of = |name: &str| format!("client.token.{name}");
    let jwks = c.from.text(&of("jwks_public_endpoint"));
    let secret = c.from.text(&of("hmac_secret_key"));
    let previous = c.from.text(&of("hmac_previous_secret_key"));
    let until = c.from.number(&of("hmac_previous_secret_key_valid_until"));
    let rsa = c.from.text(&of("rsa_public_key"));
    let ecdsa = c.from.text(&of("ecdsa_public_key"));
    let given = [
        ("hmac_secret_key", &secret),
        ("hmac_previous_secret_key", &previous),
        ("rsa_public_key", &rsa),
        ("ecdsa_public_key", &ecdsa),
    ];
    if !jwks.is_empty() {
        for (name, _) in given.iter().filter(|(_, value)| !value.is_empty()) {
            c.note(&of(name), "not carried over: Centrifugo ignores it with jwks_public_endpoint");
        }
        published(c, &of("jwks_public_endpoint"), &jwks);
        return;
    }
    if !secret.is_empty() {
        c.has_proof = true;
        c.set(&of("hmac_secret_key"), "auth.hmac_secret", &Written::Text(with_variables(&secret)));
    }
    if !previous.is_empty() {
        key(c, "previous", HMAC, &previous);
        if until != 0 {
            let why = format!("remove [auth.keys.previous] after {until} (seconds since 1970)");
            c.note(&of("hmac_previous_secret_key_valid_until"), &why);
        }
    }
    if !rsa.is_empty() {
        key(c, "rsa", RSA, &rsa);
    }
    if !ecdsa.is_empty() {
        // What a public key in PEM begins with, by its curve.
        let body: String = ecdsa.lines().filter(|line| !line.contains("-----")).collect();
        match body.as_str() {
            body if body.starts_with("MFkw") => key(c, "ecdsa", &["ES256"], &ecdsa),
            body if body.starts_with("MHYw") => key(c, "ecdsa", &["ES384"], &ecdsa),
            body if body.starts_with("MIGbM") => {
                c.note(&of("ecdsa_public_key"), "not carried over: there is no ES512");
            }
            _ => key(c, "ecdsa", &["ES256", "ES384"], &ecdsa),
        }
    }
}

fn key(c: &mut Conversion, name: &str, algorithms: &[&str], key: &str) {
    let section = format!("auth.keys.{name}");
    c.has_proof = true;
    c.to.set(&section, "algorithm", &list(algorithms));
    c.to.set(&section, "key", &Written::Text(with_variables(key.trim())));
}

fn published(c: &mut Conversion, key: &str, url: &str) {
    if url.contains("{{") {
        c.note(key, "not carried over: jwks_url has no variables; write a section for each URL");
        return;
    }
    c.has_proof = true;
    c.to.set("auth.keys.published", "algorithm", &list(PUBLISHED));
    c.to.set("auth.keys.published", "jwks_url", &Written::Text(with_variables(url)));
    c.from.take("client.token.insecure_skip_jwks_endpoint_safety_check");
}

fn list(texts: &[&str]) -> Written {
    Written::List(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// Claims that tokens must have. Where one cannot be carried over, no token is accepted.
fn claims(c: &mut Conversion) {
    for (name, setting) in [("audience", "auth.audience"), ("issuer", "auth.issuer")] {
        let key = format!("client.token.{name}");
        let given = c.from.text(&key);
        let pattern_key = format!("{key}_regex");
        let pattern = c.from.text(&pattern_key);
        if !given.is_empty() {
            c.set(&key, setting, &Written::Text(with_variables(&given)));
        }
        if pattern.is_empty() {
            continue;
        }
        let inner = pattern.strip_prefix('^').and_then(|text| text.strip_suffix('$'));
        let plain = inner
            .map(|text| text.replace("\\.", "\u{0}"))
            .filter(|text| text.chars().all(|c| c.is_alphanumeric() || "\u{0}-_:/".contains(c)));
        match plain {
            Some(text) => {
                let text = text.replace('\u{0}', ".");
                c.set(&pattern_key, setting, &Written::Text(text));
            }
            None => {
                if given.is_empty() {
                    c.to.comment(
                        "auth",
                        &format!("one {name}, instead of the expression {pattern}"),
                    );
                    c.set(&pattern_key, setting, &Written::Text(literal(&pattern)));
                }
                c.note(
                    &pattern_key,
                    &format!("{setting} is one text, not an expression: NO token is accepted until you set it"),
                );
            }
        }
    }
    let claim = c.from.text("client.token.user_id_claim");
    if !claim.is_empty() && claim != "sub" {
        c.note(
            "client.token.user_id_claim",
            &format!("the user is the claim sub: have tokens made with it instead of {claim}"),
        );
    }
}

fn personal_channels(c: &mut Conversion) {
    let enabled = "client.subscribe_to_user_personal_channel.enabled";
    if !c.from.switch(enabled) {
        return;
    }
    c.set(enabled, "auth.personal_channel", &true.into());
    let key = "client.subscribe_to_user_personal_channel.personal_channel_namespace";
    let namespace = c.from.text(key);
    if !namespace.is_empty() {
        let written = Written::Text(with_variables(&namespace));
        c.set(key, "auth.personal_channel_namespace", &written);
    }
}

fn limits(c: &mut Conversion) {
    for (key, setting) in [
        ("client.channel_limit", "limits.subscriptions_max"),
        ("client.connection_limit", "limits.connections_max"),
        ("client.user_connection_limit", "limits.user_connections_max"),
    ] {
        let number = c.from.number(key);
        if number > 0 {
            c.set(key, setting, &number.into());
        }
    }
    let bytes = c.from.number("client.queue_max_size");
    c.set("client.queue_max_size", "limits.send_queue_bytes_max", &Written::bytes(bytes));
    for (key, setting) in [
        ("client.expired_close_delay", "auth.expired_close_delay"),
        ("client.stale_close_delay", "limits.handshake_timeout"),
        ("channel.history_meta_ttl", "limits.position_ttl"),
    ] {
        match c.from.time(key) {
            Some(time) => c.set(key, setting, &time.into()),
            None => c.note(key, &format!("no time: {setting} keeps its default")),
        }
    }
    let max = c.from.number("channel.max_length");
    if max > 255 {
        c.note("channel.max_length", "names of channels have at most 255 bytes");
    } else {
        c.set("channel.max_length", "limits.channel_bytes_max", &max.into());
    }
}

fn keepalive(c: &mut Conversion) {
    let (interval, timeout) = ("client.ping_interval", "client.pong_timeout");
    match c.from.time(interval) {
        Some(time) => c.set(interval, "limits.keepalive_interval", &time.into()),
        None => {
            c.note(interval, "pings cannot be turned off: one a day");
            c.set(interval, "limits.keepalive_interval", &"1 d".into());
        }
    }
    match c.from.time(timeout) {
        Some(time) => c.set(timeout, "limits.keepalive_timeout", &time.into()),
        None => {
            c.note(timeout, "pongs are always waited for: for a day");
            c.set(timeout, "limits.keepalive_timeout", &"1 d".into());
        }
    }
}

/// One limit is for the messages of clients and for requests of the server API, which Centrifugo does not limit.
fn message_size(c: &mut Conversion) {
    const BYTES: i64 = 1 << 20;
    let keys = [
        "websocket.message_size_limit",
        "sse.max_request_body_size",
        "http_stream.max_request_body_size",
        "emulation.max_request_body_size",
        "uni_sse.max_request_body_size",
        "uni_http_stream.max_request_body_size",
        "uni_websocket.message_size_limit",
    ];
    let mut max = BYTES;
    for key in keys {
        let differs = c.from.differs(key);
        let bytes = c.from.number(key);
        max = max.max(bytes);
        if differs && bytes < BYTES {
            c.note(
                key,
                "limits.message_bytes_max is for clients and for the server API, so it is 1 MiB: lower it if \
                 nothing is published that is larger",
            );
        }
    }
    c.set("websocket.message_size_limit", "limits.message_bytes_max", &Written::bytes(max));
}
