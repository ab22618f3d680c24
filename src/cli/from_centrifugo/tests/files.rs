//! Files as they are in use, in each format.

use fantail::config::CallbackKind;

use super::{Format, convert, load};

/// A chat: tokens, namespaces with history, presence and joins.
const CHAT: &str = r#"{
  "http_server": {"port": "8000", "internal_port": "9000", "internal_address": "127.0.0.1"},
  "client": {
    "token": {"hmac_secret_key": "a-secret-of-32-characters-or-more", "audience": "chat"},
    "allowed_origins": ["https://chat.example.org", "https://*.example.com"],
    "user_connection_limit": 5,
    "history_max_publication_limit": 100
  },
  "channel": {
    "without_namespace": {"allow_user_limited_channels": true},
    "namespaces": [
      {"name": "rooms", "presence": true, "join_leave": true, "force_push_join_leave": true,
       "history_size": 50, "history_ttl": "24h", "force_recovery": true,
       "allow_subscribe_for_client": true, "allow_publish_for_subscriber": true,
       "allow_presence_for_subscriber": true, "allow_history_for_subscriber": true,
       "channel_regex": "^[a-z0-9_]+$"},
      {"name": "typing", "allow_subscribe_for_client": true, "allow_publish_for_client": true}
    ]
  },
  "http_api": {"key": "an-api-key"},
  "admin": {"enabled": true, "password": "p", "secret": "s"},
  "prometheus": {"enabled": true},
  "health": {"enabled": true}
}"#;

const CHAT_SETTINGS: &str = r#"# Made from config.json, a configuration of Centrifugo 6.

listen = ["0.0.0.0:8000"]
# "[::]:8000" beside it serves IPv6, as Centrifugo does where it can
statistics = false

[admin]
listen = ["127.0.0.1:9000"]

[log]
level = "info"

[api]
key = "an-api-key"

[limits]
shutdown_timeout = "30 s"
user_connections_max = 5
send_queue_bytes_max = "1 MiB"
keepalive_timeout = "8 s"

[http]
page = false
origins = ["https://chat.example.org"]

[auth]
anonymous = false
hmac_secret = "a-secret-of-32-characters-or-more"
audience = "chat"

[channels]
allow_user_limited_channels = true

[namespaces.rooms]
history_size = 50
history_ttl = "1 d"
presence = true
join_leave = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
channel_regex = "^[a-z0-9_]+$"

[namespaces.typing]
allow_subscribe_for_client = true
allow_publish_for_client = true
"#;

#[test]
fn a_chat_in_json() {
    let converted = convert(CHAT, Format::Json, "config.json", "made-up").unwrap();
    assert_eq!(converted.settings, CHAT_SETTINGS);
    let notes = converted.notes.join("\n");
    for part in [
        "client.allowed_origins: https://*.example.com: http.origins has no patterns",
        "admin.enabled, admin.password, admin.secret: there is no admin UI",
        "client.history_max_publication_limit: a client gets all that is kept",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(converted.notes.len(), 3, "{notes}");
    let warnings = load(&converted.settings).warnings;
    assert_eq!(warnings, [""; 0]);
}

/// Notifications: public keys, a backend that is asked, variables, an engine.
const NOTIFICATIONS: &str = r#"
# comments stay behind
http_server:
  address: "::1"
  tls: &tls
    enabled: true
    cert_pem: /etc/ssl/cert.pem
    key_pem: /etc/ssl/key.pem
log:
  level: debug
engine:
  type: redis
  redis:
    address: ["redis://cache:6379"]
client:
  allowed_origins: ["*"]
  ping_interval: 10s
  pong_timeout: 5s
  token:
    jwks_public_endpoint: https://id.example.org/keys
    issuer_regex: ^https://id\.example\.org$
  proxy:
    connect: &backend
      enabled: yes
      endpoint: https://backend.example.org/connect
      timeout: 3s
      http_headers: [Cookie, X-Real-Ip]
      http:
        tls: {enabled: true, server_ca_pem: /etc/ssl/ca.pem}
        static_headers:
          - {key: X-Key, value: "${CENTRIFUGO_VAR_KEY}"}
    refresh:
      <<: *backend
      enabled: true
      endpoint: https://backend.example.org/refresh
channel:
  proxy:
    subscribe: {endpoint: "https://backend.example.org/subscribe", include_connection_meta: true}
  namespaces:
    - name: personal
      subscribe_proxy_enabled: true
    - name: news.all
      subscribe_proxy_enabled: true
      subscribe_proxy_name: other
      allow_subscribe_for_client: true
rpc:
  proxy: {endpoint: "grpc://backend:4000"}
  without_namespace: {proxy_enabled: true}
proxies:
  - name: other
    endpoint: https://other.example.org/
http_api:
  key: ${API_KEY}
"#;

const NOTIFICATIONS_SETTINGS: &str = r#"# Made from config.yaml, a configuration of Centrifugo 6.

listen = ["[::1]:8000 tls"]
statistics = false

[tls]
cert = "/etc/ssl/cert.pem"
key = "/etc/ssl/key.pem"

[log]
level = "debug"

[api]
key = "${API_KEY}"

[limits]
shutdown_timeout = "30 s"
send_queue_bytes_max = "1 MiB"
keepalive_interval = "10 s"
keepalive_timeout = "5 s"

[http]
page = false
origins = ["*"]

[auth]
anonymous = false
issuer = "https://id.example.org"

[auth.keys.published]
algorithm = ["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"]
jwks_url = "https://id.example.org/keys"

[channels]

[namespaces.personal]
callback_subscribe = true

[namespaces."news.all"]
allow_subscribe_for_client = true

[callbacks.refresh]
endpoint = "https://backend.example.org/refresh"
timeout = "3 s"
http_headers = ["Cookie", "X-Real-Ip"]
static_headers = ["X-Key: ${CENTRIFUGO_VAR_KEY}"]

[callbacks.subscribe]
endpoint = "https://backend.example.org/subscribe"
include_connection_meta = true

[callbacks]
ca_file = "/etc/ssl/ca.pem"
"#;

#[test]
fn notifications_in_yaml() {
    let converted = convert(NOTIFICATIONS, Format::Yaml, "config.yaml", "made-up").unwrap();
    assert_eq!(converted.settings, NOTIFICATIONS_SETTINGS, "{:#?}", converted.notes);
    let notes = converted.notes.join("\n");
    for part in [
        "client.proxy.connect.enabled: \"yes\" is not true or false",
        "engine.redis.address, engine.type: there is one node",
        "channel.namespaces[1].subscribe_proxy_name: one backend is asked for all channels, default",
        "rpc.proxy.endpoint: there is no gRPC: [callbacks.rpc] needs a backend over HTTP",
        "proxies[0].endpoint",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

/// Dashboards: histories, deltas, caches; no tokens.
const DASHBOARDS: &str = r#"
[client]
allow_anonymous_connect_without_token = true
allowed_origins = ["http://localhost:3000"]
queue_max_size = 4_194_304

[http_api]
insecure = true

[http_server]
address = "127.0.0.1"
port = 8100

[websocket]
message_size_limit = 2097152

[[channel.namespaces]]
name = "metrics"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 1
history_ttl = "1h"
force_recovery = true
force_recovery_mode = "cache"
allowed_delta_types = ["fossil"]
delta_publish = true
allow_tags_filter = true

[[channel.namespaces]]
name = "log"
history_size = 100000
history_ttl = "300s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

const DASHBOARDS_SETTINGS: &str = r#"# Made from config.toml, a configuration of Centrifugo 6.

listen = ["127.0.0.1:8100"]
statistics = false

[log]
level = "info"

[limits]
shutdown_timeout = "30 s"
keepalive_timeout = "8 s"
message_bytes_max = "2 MiB"

[http]
page = false
origins = ["http://localhost:3000"]

[auth]
anonymous = true

[channels]

[namespaces.metrics]
history_size = 1
history_ttl = "1 h"
force_recovery_mode = "cache"
delta_publish = true
allow_tags_filter = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allowed_delta_types = ["fossil"]

[namespaces.log]
history_size = 65536
history_ttl = "5 min"
recovery = false
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

#[test]
fn dashboards_in_toml() {
    let converted = convert(DASHBOARDS, Format::Toml, "config.toml", "made-up").unwrap();
    assert_eq!(converted.settings, DASHBOARDS_SETTINGS, "{:#?}", converted.notes);
    let expected = [
        "http_api.insecure: every client that reaches the server API may call it",
        "channel.namespaces[1].history_size: 100000: a channel keeps at most 65536 publications",
    ];
    assert_eq!(converted.notes, expected);
    let loaded = load(&converted.settings);
    assert_eq!(loaded.warnings, [""; 0]);
    assert!(!loaded.config.callbacks.asks(CallbackKind::Connect));
}

const PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEE1oi+6awI62l0Uf4nkEPoJ5biXYY
kh4qaPLiiGrrku59VhU+Dm7Nu8MeJ+I7OFdJ5CUpoxJRRjG2RiQi8xZe4g==
-----END PUBLIC KEY-----
";

#[test]
fn secrets_keys_and_certificates_in_the_file() {
    let text = r#"{"client": {"token": {"hmac_secret_key": "${SECRET}", "hmac_previous_secret_key": "old${",
        "hmac_previous_secret_key_valid_until": 1800000000, "ecdsa_public_key":
        "PEM",
        "audience_regex": "^(a|b)$", "user_id_claim": "uid"}},
        "http_server": {"tls": {"enabled": true, "cert_pem": "-----BEGIN CERTIFICATE-----\nx", "key_pem": "k.pem"}},
        "http_api": {"key": "k"}}"#;
    let text = text.replace("PEM", &PUBLIC_KEY.replace('\n', "\\n"));
    let converted = convert(&text, Format::Json, "config.json", "made-up").unwrap();
    for part in [
        "hmac_secret = \"${SECRET}\"\n",
        "[auth.keys.previous]\nalgorithm = [\"HS256\", \"HS384\", \"HS512\"]\nkey = \"old$${\"\n",
        "[auth.keys.ecdsa]\nalgorithm = [\"ES256\"]\nkey = \"\"\"\n-----BEGIN PUBLIC KEY-----\nMFkw",
        "audience = \"^(a|b)$\"\n",
        "cert = \"/etc/fantail/fullchain.pem\"\nkey = \"k.pem\"\n",
    ] {
        assert!(converted.settings.contains(part), "{part}: {}", converted.settings);
    }
    let notes = converted.notes.join("\n");
    for part in [
        "http_server.tls.cert_pem: put it into a file",
        "remove [auth.keys.previous] after 1800000000",
        "client.token.audience_regex: auth.audience is one text, not an expression: NO token is accepted",
        "client.token.user_id_claim: the user is the claim sub",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    load(&converted.settings.replace("${SECRET}", "s"));
}
