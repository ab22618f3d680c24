//! The keys that a configuration file of Centrifugo 6.9 may have, their defaults, and why fantail has no setting for
//! some of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::value::{parse_time, scalar};

/// Every key with its default, if that is not empty, 0 or false. One list stands for those that are alike: see
/// [`canonical`].
pub const KEYS: &str = include_str!("keys.txt");

/// Why keys are not carried over: the beginning of their names, in the spelling of [`canonical`], and the reason. The
/// first row counts that fits.
const REASONS: &[(&str, &str)] = &[
    ("broker.", ONE_NODE),
    ("controller.", ONE_NODE),
    ("engine.", ONE_NODE),
    ("presence_manager.", ONE_NODE),
    ("node.", ONE_NODE),
    ("map_broker.", MAPS),
    ("shared_poll.", MAPS),
    ("channel.proxy.shared_poll_refresh.", MAPS),
    ("channel.proxy.map_publish.", MAPS),
    ("channel.proxy.map_remove.", MAPS),
    ("channel.proxy.subscribe_stream.", STREAMS),
    ("channel.without_namespace.map", MAPS),
    ("channel.without_namespace.shared_poll.", MAPS),
    ("channel.without_namespace.subscribe_stream_proxy", STREAMS),
    ("channel.without_namespace.subscribe_proxy_name", NOT_ASKED),
    ("channel.without_namespace.publish_proxy_name", NOT_ASKED),
    ("channel.without_namespace.sub_refresh_proxy_name", NOT_ASKED),
    ("rpc.without_namespace.proxy_name", NOT_ASKED),
    ("rpc.ping.", "there is no built-in RPC: the callback rpc can answer it"),
    ("rpc.proxy.", NOT_ASKED),
    ("proxies[].", NOT_ASKED),
    ("client.proxy.", NOT_ASKED),
    ("rpc.namespace_boundary", "all RPCs go to one backend, whatever their names"),
    ("client.token.", "tokens are not verified with it"),
    ("client.subscription_token.", "one set of keys verifies all tokens: section [auth.keys]"),
    ("client.connect_code_to_unidirectional_disconnect.", CODES),
    ("uni_sse.connect_code_to_http_response.", CODES),
    ("uni_http_stream.connect_code_to_http_response.", CODES),
    (
        "client.subscribe_to_user_personal_channel.",
        "limits.user_connections_max limits the connections of a user: a newer one is rejected",
    ),
    ("client.channel_position_", "there is one node, which loses nothing between its parts"),
    (
        "client.concurrency",
        "commands of one client are done in order; those that wait for a backend hold up no others",
    ),
    ("client.connect_include_server_time", "the reply to connect has no time"),
    (
        "client.connection_rate_limit",
        "limits.prefix_connection_rate_max limits the rate of each network prefix",
    ),
    ("client.expired_sub_close_delay", "auth.expired_close_delay is for subscriptions too"),
    ("client.history_max_publication_limit", ALL_HISTORY),
    ("client.recovery_max_publication_limit", ALL_HISTORY),
    ("client.presence_update_interval", "presence is exact without updates"),
    ("client.insecure_skip_token_signature_verify", "signatures of tokens are always verified"),
    (
        "client.user_id_http_header",
        "name the header in http_headers of [callbacks.connect], whose answer says which user it is",
    ),
    ("channel.publication_data_format", FORMATS),
    ("channel.without_namespace.publication_data_format", FORMATS),
    ("channel.namespace_boundary", "it is always \":\""),
    ("channel.private_prefix", "it is always \"$\""),
    ("channel.user_boundary", "it is always \"#\""),
    ("channel.user_separator", "it is always \",\""),
    ("channel.without_namespace.history_meta_ttl", "limits.position_ttl is for all channels"),
    (
        "channel.without_namespace.auto_cache_recover",
        "a client gets the latest publication if it asks to recover",
    ),
    ("grpc_api.", "there is no gRPC: use the HTTP API"),
    ("uni_grpc.", "there is no gRPC: use /connection/uni_http_stream or another transport"),
    ("webtransport.", "there is no WebTransport"),
    ("http_server.http3.", "there is no HTTP/3"),
    ("http_server.h2c_external", "there is no HTTP/2: a proxy in front may speak it"),
    (
        "http_server.tls_autocert.",
        "an ACME client such as certbot writes the files of tls.cert and tls.key",
    ),
    ("http_server.tls.", "it is not used"),
    ("websocket.disabled", "WebSocket is always there"),
    ("websocket.compression", COMPRESSION),
    ("uni_websocket.compression", COMPRESSION),
    ("websocket.decompressed_message_size_limit", INFLATED),
    ("uni_websocket.decompressed_message_size_limit", INFLATED),
    ("websocket.write_timeout", WRITES),
    ("uni_websocket.write_timeout", WRITES),
    ("websocket.", BUFFERS),
    ("uni_websocket.disable_", "a close frame with code and reason ends every connection"),
    ("uni_websocket.join_push_messages", "each push is a message of its own"),
    ("uni_websocket.", BUFFERS),
    (
        "admin.",
        "there is no admin UI: http.page and statistics turn on the page with statistics; `fantail top`",
    ),
    ("prometheus.", "metrics are at /metrics, with names of their own"),
    ("swagger.", "there is no Swagger UI"),
    ("debug.", "there is no pprof: perf and the page of statistics show what runs"),
    ("init.", "there is no endpoint that only initializes"),
    ("opentelemetry.", "there is no tracing"),
    ("graphite.", "metrics are pulled from /metrics: let a collector send them to Graphite"),
    ("consumers", "fantail consumes no queues: let a program publish with the HTTP API"),
    ("log.file", "the log goes to stderr: let the service manager keep it"),
    ("pid_file", "the service manager knows the process"),
    ("enable_unreleased_features", "it is for features of Centrifugo"),
];

const ONE_NODE: &str = "there is one node, which has all its state in memory";
const MAPS: &str = "there are no maps, shared polls or presence channels: error 108";
const STREAMS: &str = "a backend cannot stream publications: it publishes with the HTTP API";
const NOT_ASKED: &str = "no callback needs it";
const CODES: &str = "codes are not translated";
const ALL_HISTORY: &str = "a client gets all that is kept, in parts";
const FORMATS: &str = "publications are any bytes, which JSON clients get as JSON or a string";
const COMPRESSION: &str =
    "what is compressed, and how, is alike for all: deflate.message_bytes_min";
const INFLATED: &str = "limits.message_bytes_max is for what is inflated, too";
const WRITES: &str = "a client that does not read is limited by limits.send_queue_bytes_max";
const BUFFERS: &str = "buffers grow and shrink as they are used";
const PATHS: &str = "paths are fixed: let a proxy in front rewrite them";

/// Keys that turn on what is always there.
const ALWAYS: &[&str] = &[
    "health.enabled",
    "http_stream.enabled",
    "prometheus.enabled",
    "sse.enabled",
    "uni_http_stream.enabled",
    "uni_sse.enabled",
    "uni_websocket.enabled",
    "usage_stats.disabled",
];

/// Groups of keys that mean nothing unless another key has a value.
const NEEDS: &[(&str, &str)] = &[
    ("admin.", "admin.enabled"),
    ("broker.", "broker.enabled"),
    ("channel.without_namespace.map.", "channel.without_namespace.subscription_type"),
    ("channel.without_namespace.shared_poll.", "channel.without_namespace.subscription_type"),
    (
        "client.subscribe_to_user_personal_channel.",
        "client.subscribe_to_user_personal_channel.enabled",
    ),
    ("client.subscription_token.", "client.subscription_token.enabled"),
    ("controller.", "controller.enabled"),
    ("debug.", "debug.enabled"),
    ("engine.redis.", "engine.type"),
    ("graphite.", "graphite.enabled"),
    ("grpc_api.", "grpc_api.enabled"),
    ("http_server.tls_autocert.", "http_server.tls_autocert.enabled"),
    ("init.", "init.enabled"),
    ("map_broker.", "map_broker.type"),
    ("opentelemetry.", "opentelemetry.enabled"),
    ("presence_manager.", "presence_manager.enabled"),
    ("rpc.ping.", "rpc.ping.enabled"),
    ("swagger.", "swagger.enabled"),
    ("uni_grpc.", "uni_grpc.enabled"),
    ("webtransport.", "webtransport.enabled"),
];

/// The name under which a key stands in [`KEYS`]: all namespaces, proxies, and settings of TLS have the same keys.
pub fn canonical(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    // Without the numbers in brackets.
    let mut is_index = false;
    for character in path.chars() {
        is_index = (is_index || character == '[') && character != ']';
        if !is_index || character == '[' {
            name.push(character);
        }
    }
    for (from, to) in ALIKE {
        if let Some(rest) = name.strip_prefix(from)
            && is_listed(&format!("{to}{rest}"))
        {
            return format!("{to}{rest}");
        }
    }
    let of_tls = name.split_once("tls.").map(|(_, rest)| format!("http_server.tls.{rest}"));
    of_tls.filter(|_| !is_listed(&name)).unwrap_or(name)
}

/// Beginnings of names that stand in [`KEYS`] with another beginning.
const ALIKE: &[(&str, &str)] = &[
    ("channel.namespaces[].", "channel.without_namespace."),
    ("rpc.namespaces[].", "rpc.without_namespace."),
    ("proxies[].", "rpc.proxy."),
    ("client.proxy.connect.", "rpc.proxy."),
    ("client.proxy.refresh.", "rpc.proxy."),
    ("channel.proxy.subscribe.", "rpc.proxy."),
    ("channel.proxy.publish.", "rpc.proxy."),
    ("channel.proxy.sub_refresh.", "rpc.proxy."),
    ("channel.proxy.subscribe_stream.", "rpc.proxy."),
    ("channel.proxy.map_publish.", "rpc.proxy."),
    ("channel.proxy.map_remove.", "rpc.proxy."),
    ("channel.proxy.shared_poll_refresh.", "rpc.proxy."),
    ("client.subscription_token.", "client.token."),
];

/// [`KEYS`], to look them up.
static LISTED: LazyLock<BTreeMap<&'static str, &'static str>> =
    LazyLock::new(|| KEYS.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect());

fn is_listed(name: &str) -> bool {
    LISTED.contains_key(name)
}

/// Whether a key is one of Centrifugo's.
pub fn is_known(path: &str) -> bool {
    path.starts_with("consumers[") || is_listed(&canonical(path))
}

/// The names of all keys.
pub fn names() -> impl Iterator<Item = &'static str> {
    LISTED.keys().copied()
}

/// The default of a key; empty for none, 0 and false.
pub fn default_of(path: &str) -> &'static str {
    LISTED.get(canonical(path).as_str()).copied().unwrap_or_default()
}

/// Whether a value is the default of its key.
pub fn is_default(path: &str, value: &Value) -> bool {
    let default = default_of(path);
    match value {
        Value::Array(values) => match values.as_slice() {
            [] => true,
            [one] => scalar(one).as_deref() == Some(default),
            _ => false,
        },
        Value::Object(table) => table.is_empty(),
        value => {
            let text = scalar(value).unwrap_or_default();
            let is_empty = matches!(text.as_str(), "" | "0" | "false");
            let same_time = || parse_time(&text).is_some_and(|t| Some(t) == parse_time(default));
            text == default || (is_empty && default.is_empty()) || same_time()
        }
    }
}

/// The group of keys that a key is in, and the key which has to be set to make it mean something.
pub fn need(path: &str) -> Option<String> {
    let name = canonical(path);
    let (_, key) = NEEDS.iter().find(|(group, _)| {
        // Those of TLS have a name of their own in the list.
        name.starts_with(group) || path.starts_with(group)
    })?;
    let own = path.find(']').map_or("", |at| &path[..=at]);
    let rest = key.strip_prefix("channel.without_namespace.");
    match rest {
        Some(rest) if !own.is_empty() => Some(format!("{own}.{rest}")),
        _ => Some(*key).filter(|key| *key != name).map(str::to_owned),
    }
}

/// Whether a key turns on what is always there.
pub fn is_always(path: &str) -> bool {
    ALWAYS.contains(&path)
}

/// Why a key is not carried over.
pub fn reason(path: &str) -> &'static str {
    if path.ends_with(".handler_prefix") {
        return PATHS;
    }
    let name = canonical(path);
    // What a group is for says more than what its keys are.
    let rows = REASONS.iter().find(|(start, _)| path.starts_with(start) || name.starts_with(start));
    rows.map_or("fantail has nothing like it", |(_, reason)| reason)
}
