//! The table of settings: one row each.
//!
//! Everything about a setting follows from its row: its key in the file, its environment variable, its flag and help,
//! the check of its range, the output of `fantail check`, the tables in `README.md`, and whether a reload applies it.

use std::time::Duration;

use super::api_keys::api_keys_markdown;
use super::callbacks::callback_options_markdown;
use super::channel_options::channel_options_markdown;
use super::setting::PATH_BYTES_MAX;
use super::setting::SettingKind::{
    Addresses, Bytes, BytesIfGiven, Choice, Count, CountIfGiven, Files, Levels, Networks, Origins,
    Secret, SecretFile, Switch, SwitchIfGiven, Text, Time,
};
use super::token_keys::token_keys_markdown;
use super::{
    ClientAuth, ClientHeader, DriverChoice, ErrorMode, Framing, LogFormat, Setting, TlsVersion,
    UnixMode, limits,
};

/// Every setting, in the order in which they are listed.
pub const SETTINGS: &[Setting] = &[
    Setting::row(
        "listen",
        "listen",
        "Addresses for HTTP and WebSocket",
        Addresses(|config| &mut config.listen),
    )
    .by_default("127.0.0.1:8000 if no address but admin.listen is set"),
    Setting::row(
        "admin.listen",
        "admin",
        "Addresses for the server API, metrics, health checks and the page, which listen then serves no longer",
        Addresses(|config| &mut config.admin),
    ),
    Setting::row(
        "tcp.listen",
        "tcp",
        "Addresses for the command protocol over raw TCP",
        Addresses(|config| &mut config.tcp),
    )
    .by_default("127.0.0.1:8001 if no address but admin.listen is set"),
    Setting::row(
        "tcp.framing",
        "tcp-framing",
        "Command framing on raw TCP: newline-delimited, or a 32-bit big-endian length prefix",
        Choice(
            Framing::WORDS,
            |config| config.tcp_framing as usize,
            |config, index| config.tcp_framing = Framing::ALL[index],
        ),
    ),
    Setting::row(
        "echo.listen",
        "echo",
        "Addresses that echo every WebSocket message",
        Addresses(|config| &mut config.echo),
    ),
    Setting::row(
        "echo.tcp_listen",
        "echo-tcp",
        "Addresses that echo every byte",
        Addresses(|config| &mut config.echo_tcp),
    ),
    Setting::row(
        "proxy.trusted",
        "trusted-proxy",
        "Networks of the proxies that may name the address of a client; those behind a Unix socket always may",
        Networks(limits::NETWORKS_MAX, |config| &mut config.trusted_proxies),
    )
    .reloadable(),
    Setting::row(
        "proxy.client_header",
        "client-header",
        "HTTP header in which trusted proxies name the address of a client: X-Forwarded-For, or Forwarded (RFC 7239)",
        Choice(
            ClientHeader::WORDS,
            |config| config.client_header as usize,
            |config, index| config.client_header = ClientHeader::ALL[index],
        ),
    )
    .reloadable(),
    Setting::row(
        "tls.cert",
        "tls-cert",
        "Certificates for addresses followed by ` tls`: PEM files, each with a server's own, then intermediate ones",
        Files(CERTIFICATES_MAX, |config| &mut config.tls.cert),
    )
    .reloadable(),
    Setting::row(
        "tls.key",
        "tls-key",
        "Files of the keys of these certificates, in the same order, in PEM",
        Files(CERTIFICATES_MAX, |config| &mut config.tls.key),
    )
    .reloadable(),
    Setting::row(
        "tls.client_ca",
        "tls-client-ca",
        "PEM file of the authorities that certify clients over TLS, which are the user of their common name",
        Text(1, PATH_BYTES_MAX, |config| &mut config.tls.client_ca),
    )
    .reloadable(),
    Setting::row(
        "tls.client_auth",
        "tls-client-auth",
        "Whether every client over TLS needs such a certificate",
        Choice(
            ClientAuth::WORDS,
            |config| config.tls.client_auth as usize,
            |config, index| config.tls.client_auth = ClientAuth::ALL[index],
        ),
    )
    .reloadable(),
    Setting::row(
        "tls.version_min",
        "tls-version-min",
        "Lowest version of TLS that is spoken",
        Choice(
            TlsVersion::WORDS,
            |config| config.tls_version_min as usize,
            |config, index| config.tls_version_min = TlsVersion::ALL[index],
        ),
    )
    .reloadable(),
    Setting::row(
        "tls.ticket_secret",
        "tls-ticket-secret",
        "Secrets of session tickets, separated by commas: the first issues, all are accepted; random if not set",
        Secret(1, limits::TOKEN_SECRET_BYTES_MAX, |config| &mut config.tls.ticket_secret),
    )
    .reloadable(),
    Setting::row(
        "tls.ticket_secret_file",
        "tls-ticket-secret-file",
        "File that contains tls.ticket_secret; white space around it is ignored",
        SecretFile(1, limits::TOKEN_SECRET_BYTES_MAX, |config| &mut config.tls.ticket_secret),
    )
    .reloadable(),
    Setting::row(
        "tls.self_signed",
        "tls-self-signed",
        "Serve every address over TLS with a certificate made at the start, which clients cannot verify: to try it out",
        Switch(|config| &mut config.self_signed),
    ),
    Setting::row(
        "unix.mode",
        "unix-mode",
        "Permissions of Unix sockets: the user of the server, its group too, or every user of this host",
        Choice(
            UnixMode::WORDS,
            |config| config.unix_mode as usize,
            |config, index| config.unix_mode = UnixMode::ALL[index],
        ),
    ),
    Setting::row(
        "workers",
        "workers",
        "Worker threads, each pinned to a core",
        CountIfGiven(1, limits::WORKERS_MAX as u64, |config| &mut config.workers),
    )
    .by_default("one per core"),
    Setting::row(
        "driver",
        "driver",
        "Kernel interface; auto tries io_uring and falls back to epoll",
        Choice(
            DriverChoice::WORDS,
            |config| config.driver as usize,
            |config, index| config.driver = DriverChoice::ALL[index],
        ),
    ),
    Setting::row(
        "insecure",
        "insecure",
        "Listen on addresses other than loopback although clients, or calls of the server API, prove nothing",
        Switch(|config| &mut config.insecure),
    ),
    Setting::row(
        "api.key",
        "api-key",
        "API key with all rights, required in X-API-Key by the server API and POST /publish; further keys: api.keys",
        Secret(1, limits::API_KEY_BYTES_MAX, |config| &mut config.api_key),
    )
    .reloadable(),
    Setting::row(
        "api.key_file",
        "api-key-file",
        "File that contains api.key; white space around it is ignored",
        SecretFile(1, limits::API_KEY_BYTES_MAX, |config| &mut config.api_key),
    )
    .reloadable(),
    Setting::row(
        "api.error_mode",
        "api-error-mode",
        "Where a call of the server API has its error: in the body of an answer with status 200, or in its status",
        Choice(
            ErrorMode::WORDS,
            |config| config.api_error_mode as usize,
            |config, index| config.api_error_mode = ErrorMode::ALL[index],
        ),
    )
    .reloadable(),
    Setting::row(
        "auth.hmac_secret",
        "token-hmac-secret",
        "Secret that tokens of clients are signed with by HS256, HS384 or HS512; other algorithms: auth.keys",
        Secret(1, limits::TOKEN_SECRET_BYTES_MAX, |config| &mut config.hmac_secret),
    )
    .reloadable(),
    Setting::row(
        "auth.hmac_secret_file",
        "token-hmac-secret-file",
        "File that contains auth.hmac_secret; white space around it is ignored",
        SecretFile(1, limits::TOKEN_SECRET_BYTES_MAX, |config| &mut config.hmac_secret),
    )
    .reloadable(),
    Setting::row(
        "auth.audience",
        "token-audience",
        "Audience that a token must have among its claim aud; without it, the claim is not looked at",
        Text(1, limits::TOKEN_PARTY_BYTES_MAX, |config| &mut config.audience),
    )
    .reloadable(),
    Setting::row(
        "auth.issuer",
        "token-issuer",
        "Issuer that a token must have as its claim iss; without it, the claim is not looked at",
        Text(1, limits::TOKEN_PARTY_BYTES_MAX, |config| &mut config.issuer),
    )
    .reloadable(),
    Setting::row(
        "auth.leeway",
        "token-leeway",
        "Difference between the clocks of this host and the issuer's that is tolerated in the claims exp and nbf",
        Time(Duration::ZERO, Duration::from_secs(3600), |config| &mut config.leeway),
    )
    .reloadable(),
    Setting::row(
        "auth.anonymous",
        "anonymous",
        "Let clients connect without a token, with the rights that channels give to anonymous clients",
        SwitchIfGiven(|config| &mut config.anonymous),
    )
    .by_default("true if there is no key for tokens, and no callback connect")
    .reloadable(),
    Setting::row(
        "auth.cookie",
        "token-cookie",
        "Name of a cookie that may have the token, for pages of the origins that http.origins lists",
        Text(1, limits::COOKIE_NAME_BYTES_MAX, |config| &mut config.cookie),
    )
    .reloadable(),
    Setting::row(
        "auth.token_in_query",
        "token-in-query",
        "Take the token from the parameter token of a URL as well, where logs and the history of browsers have it",
        Switch(|config| &mut config.token_in_query),
    )
    .reloadable(),
    Setting::row(
        "auth.expired_close_delay",
        "expired-close-delay",
        "Time that a client has for showing a new token after its token expired, before it is disconnected",
        Time(Duration::ZERO, TIME_MAX, |config| &mut config.expired_close_delay),
    )
    .reloadable(),
    Setting::row(
        "auth.personal_channel",
        "personal-channel",
        "Subscribe each client that has a user to the channel #USER as it connects, whatever its rights",
        Switch(|config| &mut config.personal.are_on),
    )
    .reloadable(),
    Setting::row(
        "auth.personal_channel_namespace",
        "personal-channel-namespace",
        "Namespace of these channels, which are NAMESPACE:#USER then",
        Text(1, 64, |config| &mut config.personal.namespace),
    )
    .reloadable(),
    Setting::row(
        "http.origins",
        "origin",
        "Origins allowed to use the HTTP and WebSocket endpoints from a browser: https://example.org, or * for any",
        Origins(limits::ORIGINS_MAX, |config| &mut config.origins),
    )
    .by_default("any if it listens on loopback only, no proxy is seen, and callbacks have no cookies")
    .reloadable(),
    Setting::row(
        "http.page",
        "page",
        "Serve the web page at /, which subscribes, publishes and shows statistics",
        SwitchIfGiven(|config| &mut config.page),
    )
    .by_default("true if it is served on loopback only, and no proxy is seen")
    .reloadable(),
    Setting::row(
        "statistics",
        "statistics",
        "Publish server statistics to the channel fantail:statistics, once a second while it has subscribers",
        SwitchIfGiven(|config| &mut config.statistics),
    )
    .by_default("true if it listens on loopback only, and no proxy is seen"),
    Setting::row(
        "limits.connections_max",
        "connections-max",
        "Maximum number of connections; beyond it, only health checks and metrics are served",
        CountIfGiven(1, u32::MAX as u64 / 2, |config| &mut config.connections_max),
    )
    .by_default("as many as the open-file limit allows"),
    Setting::row(
        "limits.memory_bytes_max",
        "memory-bytes-max",
        "Memory budget for send queues, backlogs, histories and unfinished messages",
        BytesIfGiven(limits::MEMORY_BYTES_FLOOR, limits::MEMORY_BYTES_CEILING, |config| {
            &mut config.memory_bytes_max
        }),
    )
    .by_default("60 % of the memory available at the start"),
    Setting::row(
        "limits.message_bytes_max",
        "message-bytes-max",
        "Largest message or HTTP body from a client",
        Bytes(1, limits::MESSAGE_BYTES_CEILING, |config| &mut config.message_bytes_max),
    )
    .reloadable(),
    Setting::row(
        "echo.message_bytes_max",
        "echo-message-bytes-max",
        "Largest message from a client on echo addresses",
        Bytes(1, limits::MESSAGE_BYTES_CEILING, |config| &mut config.echo_message_bytes_max),
    )
    .reloadable(),
    Setting::row(
        "deflate.message_bytes_min",
        "deflate-message-bytes-min",
        "Smallest WebSocket message that is compressed for clients of addresses followed by ` deflate`",
        Bytes(1, limits::MESSAGE_BYTES_CEILING, |config| &mut config.deflate_bytes_min),
    ),
    Setting::row(
        "deflate.level",
        "deflate-level",
        "How much work a compressed message is worth: 1 is fast, 9 is small",
        Count(1, 9, |config| &mut config.deflate_level),
    ),
    Setting::row(
        "limits.send_queue_bytes_max",
        "send-queue-bytes-max",
        "Largest send queue of one client; beyond it, the client is disconnected as a slow consumer",
        Bytes(limits::SEND_QUEUE_BYTES_FLOOR, limits::SEND_QUEUE_BYTES_CEILING, |config| {
            &mut config.send_queue_bytes_max
        }),
    )
    .reloadable(),
    Setting::row(
        "limits.history_bytes_max",
        "history-bytes-max",
        "Memory of all channel histories together; each worker has an equal share",
        Bytes(4 * 1024, 1 << 50, |config| &mut config.history_bytes_max),
    ),
    Setting::row(
        "limits.position_ttl",
        "position-ttl",
        "How long a channel's offset and epoch are kept after its history, for clients that missed nothing; 0 for no \
         longer",
        Time(Duration::ZERO, POSITION_TTL_MAX, |config| &mut config.position_ttl),
    )
    .reloadable(),
    Setting::row(
        "limits.channel_bytes_max",
        "channel-bytes-max",
        "Longest channel name that clients may use, in bytes; the server API may use up to 255",
        Count(1, 255, |config| &mut config.channel_bytes_max),
    ),
    Setting::row(
        "limits.subscriptions_max",
        "subscriptions-max",
        "Maximum number of channels that one client is subscribed to",
        Count(1, limits::SUBSCRIPTIONS_CEILING, |config| &mut config.subscriptions_max),
    )
    .reloadable(),
    Setting::row(
        "limits.prefix_v4_bits",
        "prefix-v4-bits",
        "Leading bits of an IPv4 address that are its network prefix: addresses with the same prefix share its limits",
        Count(1, 32, |config| &mut config.prefix_v4_bits),
    )
    .reloadable(),
    Setting::row(
        "limits.prefix_v6_bits",
        "prefix-v6-bits",
        "Leading bits of an IPv6 address that are its network prefix",
        Count(1, 128, |config| &mut config.prefix_v6_bits),
    )
    .reloadable(),
    Setting::row(
        "limits.prefix_connection_rate_max",
        "prefix-connection-rate-max",
        "Maximum number of new connections per second from one network prefix",
        CountIfGiven(1, limits::RATE_CEILING, |config| &mut config.prefix_connection_rate_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.prefix_connections_max",
        "prefix-connections-max",
        "Maximum number of connections from one network prefix",
        CountIfGiven(1, u32::MAX as u64 / 2, |config| &mut config.prefix_connections_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.prefix_handshakes_max",
        "prefix-handshakes-max",
        "Maximum number of connections from one network prefix whose handshake or first request is not complete",
        CountIfGiven(1, u32::MAX as u64 / 2, |config| &mut config.prefix_handshakes_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.user_connections_max",
        "user-connections-max",
        "Maximum number of connections of one user; anonymous clients are not counted",
        CountIfGiven(1, u32::MAX as u64 / 2, |config| &mut config.user_connections_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.client_command_rate_max",
        "client-command-rate-max",
        "Maximum number of commands per second from one client; beyond it, error 111",
        CountIfGiven(1, limits::RATE_CEILING, |config| &mut config.client_command_rate_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.client_publication_rate_max",
        "client-publication-rate-max",
        "Maximum number of publications per second from one client; beyond it, error 111 or status 429",
        CountIfGiven(1, limits::RATE_CEILING, |config| &mut config.client_publication_rate_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.client_subscription_rate_max",
        "client-subscription-rate-max",
        "Maximum number of subscriptions per second that one client makes; beyond it, error 111 or status 429",
        CountIfGiven(1, limits::RATE_CEILING, |config| &mut config.client_subscription_rate_max),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.client_byte_rate_max",
        "client-byte-rate-max",
        "Maximum number of bytes per second from one client; beyond it, the client is not read for a while",
        BytesIfGiven(*limits::BYTE_RATE_RANGE.start(), *limits::BYTE_RATE_RANGE.end(), |config| {
            &mut config.client_byte_rate_max
        }),
    )
    .by_default("no limit")
    .reloadable(),
    Setting::row(
        "limits.handshake_timeout",
        "handshake-timeout",
        "Time to complete a handshake or one HTTP request",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.handshake_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.message_timeout",
        "message-timeout",
        "Time to receive a whole WebSocket message or command, from its first byte",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.message_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.keepalive_interval",
        "keepalive-interval",
        "A client that sends nothing for this long is pinged",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.keepalive_interval),
    )
    .reloadable(),
    Setting::row(
        "limits.keepalive_timeout",
        "keepalive-timeout",
        "Time to answer a ping",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.keepalive_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.http_idle_timeout",
        "http-idle-timeout",
        "Idle time between two HTTP requests on one connection",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.http_idle_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.stream_lifetime",
        "stream-lifetime",
        "Maximum lifetime of an event stream; its client then reconnects. Some proxies never report that a client left",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.stream_lifetime),
    )
    .reloadable(),
    Setting::row(
        "limits.close_timeout",
        "close-timeout",
        "Time for a closing client to read its send queue and close its side",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.close_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.shutdown_timeout",
        "shutdown-timeout",
        "Maximum duration of a shutdown",
        Time(TIME_MIN, TIME_MAX, |config| &mut config.shutdown_timeout),
    )
    .reloadable(),
    Setting::row(
        "limits.drain_time",
        "drain-time",
        "Time before a shutdown in which it accepts while /health/ready answers 503; clients then leave gradually",
        Time(Duration::ZERO, TIME_MAX, |config| &mut config.drain_time),
    )
    .reloadable(),
    Setting::row(
        "log.format",
        "log-format",
        "Format of the log: text, or one JSON object per line",
        Choice(
            LogFormat::WORDS,
            |config| config.log_format as usize,
            |config, index| config.log_format = LogFormat::ALL[index],
        ),
    ),
    Setting::row(
        "log.level",
        "log-level",
        "Log level: off, error, warn, info, debug or trace; per module: info,worker=debug",
        Levels(|config| &mut config.log_levels),
    )
    .reloadable(),
];

/// Files in `tls.cert`: each takes a few kilobytes.
const CERTIFICATES_MAX: usize = 1024;
const TIME_MIN: Duration = Duration::from_millis(100);
const TIME_MAX: Duration = Duration::from_secs(86_400);
const POSITION_TTL_MAX: Duration = Duration::from_secs(365 * 86_400);

impl Setting {
    /// The setting with a name.
    pub fn named(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// The tables of `README.md` beside this file.
pub fn markdown() -> String {
    let mut table = "| setting | flag | default | range | reload | what it is |\n".to_owned()
        + "|---|---|---|---|---|---|\n";
    for setting in SETTINGS {
        table.push_str(&format!(
            "| `{}` | `--{}` | {} | {} | {} | {} |\n",
            setting.name,
            setting.flag,
            setting.default_text(),
            setting.range(),
            if setting.is_reloadable { "yes" } else { "" },
            setting.doc
        ));
    }
    table.push('\n');
    table.push_str(&channel_options_markdown());
    table.push('\n');
    table.push_str(&api_keys_markdown());
    table.push('\n');
    table.push_str(&callback_options_markdown());
    table.push('\n');
    table + &token_keys_markdown()
}

#[cfg(test)]
mod tests;
