//! The table of settings: one row each.
//!
//! Everything about a setting follows from its row: its key in the file, its environment variable, its flag and help,
//! the check of its range, the output of `fantail check`, the tables in `README.md`, and whether a reload applies it.

use std::time::Duration;

use super::api_keys::api_keys_markdown;
use super::callbacks::callback_options_markdown;
use super::channel_options::channel_options_markdown;
use super::setting::SettingKind::{
    Addresses, Bytes, BytesIfGiven, Choice, Count, CountIfGiven, Levels, Networks, Origins, Secret,
    Switch, SwitchIfGiven, Text, Time,
};
use super::token_keys::token_keys_markdown;
use super::{DriverChoice, Framing, LogFormat, Setting, UnixMode, limits};

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
        "Listen on addresses other than loopback although there is no authentication",
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
        "auth.hmac_secret",
        "token-hmac-secret",
        "Secret that tokens of clients are signed with by HS256, HS384 or HS512; other algorithms: auth.keys",
        Secret(1, limits::TOKEN_SECRET_BYTES_MAX, |config| &mut config.hmac_secret),
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
        "auth.expired_close_delay",
        "expired-close-delay",
        "Time that a client has for showing a new token after its token expired, before it is disconnected",
        Time(Duration::ZERO, TIME_MAX, |config| &mut config.expired_close_delay),
    )
    .reloadable(),
    Setting::row(
        "http.origins",
        "origin",
        "Origins allowed to use the HTTP and WebSocket endpoints from a browser: https://example.org, or * for any",
        Origins(limits::ORIGINS_MAX, |config| &mut config.origins),
    )
    .by_default("any if it listens on loopback only, and no proxy is seen")
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

const TIME_MIN: Duration = Duration::from_millis(100);
const TIME_MAX: Duration = Duration::from_secs(86_400);

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
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::units;

    fn parse(setting: &Setting, text: &str, config: &mut Config) -> Result<(), String> {
        setting.parse(&[text.to_owned()], config)
    }

    #[test]
    fn names_flags_and_variables_are_distinct() {
        type Name = fn(&Setting) -> String;
        let names: [Name; 3] = [|row| row.name.into(), |row| row.flag.into(), Setting::variable];
        for name in names {
            let mut all: Vec<_> = SETTINGS.iter().map(name).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), SETTINGS.len());
        }
        let row = Setting::named("limits.message_bytes_max").unwrap();
        assert_eq!(row.variable(), "FANTAIL_LIMITS_MESSAGE_BYTES_MAX");
    }

    #[test]
    fn every_setting_parses_shows_and_copies_its_value_alone() {
        for setting in SETTINGS {
            let other = match setting.kind {
                Addresses(_) => "127.0.0.1:1",
                Choice(words, ..) => words[1],
                Switch(_) | SwitchIfGiven(_) => "true",
                Count(..) | CountIfGiven(..) => "7",
                Bytes(..) | BytesIfGiven(..) => "5 KiB",
                Time(..) => "7 s",
                // The text that is shown of it.
                Secret(..) => "hidden",
                Text(..) => "some text",
                Origins(..) => "https://example.org",
                Networks(..) => "10.0.0.0/8",
                Levels(_) => "warn,driver=debug",
            };
            let (mut config, mut copy) = (Config::default(), Config::default());
            parse(setting, other, &mut config).unwrap();
            assert_eq!(setting.text(&config), other, "{}", setting.name);
            setting.copy(&config, &mut copy);
            assert_eq!(setting.text(&copy), other, "{}", setting.name);
            for row in SETTINGS.iter().filter(|row| row.name != setting.name) {
                let untouched = row.text(&Config::default());
                assert_eq!(row.text(&copy), untouched, "{} in {}", row.name, setting.name);
            }
        }
    }

    #[test]
    fn defaults_are_in_range_and_ranges_include_both_ends() {
        for setting in SETTINGS {
            assert_eq!(setting.check(&mut Config::default()), Ok(()), "{}", setting.name);
            let ends: [(String, bool); 4] = match setting.kind {
                Count(min, max, _) | CountIfGiven(min, max, _) => [
                    (min.to_string(), true),
                    (max.to_string(), true),
                    ((min - 1).to_string(), false),
                    ((max + 1).to_string(), false),
                ],
                Bytes(min, max, _) | BytesIfGiven(min, max, _) => [
                    (min.to_string(), true),
                    (max.to_string(), true),
                    ((min - 1).to_string(), false),
                    ((max + 1).to_string(), false),
                ],
                Time(min, max, _) => [
                    (units::Time(min).to_string(), true),
                    (units::Time(max).to_string(), true),
                    // Zero is the lowest duration, so nothing is below that range.
                    (format!("{} ms", min.as_millis().saturating_sub(1)), min.is_zero()),
                    (format!("{} ms", max.as_millis() + 1), false),
                ],
                Secret(min, max, _) => [
                    ("x".repeat(min), true),
                    ("x".repeat(max), true),
                    ("x y".to_owned(), false),
                    ("x".repeat(max + 1), false),
                ],
                Text(min, max, _) => [
                    ("x".repeat(min), true),
                    ("x".repeat(max), true),
                    ("x\ny".to_owned(), false),
                    ("x".repeat(max + 1), false),
                ],
                Addresses(_) | Choice(..) | Switch(_) | SwitchIfGiven(_) | Origins(..)
                | Networks(..) | Levels(_) => {
                    continue;
                }
            };
            for (text, is_in_range) in ends {
                let mut config = Config::default();
                parse(setting, &text, &mut config).unwrap();
                let judged = setting.check(&mut config);
                assert_eq!(judged.is_ok(), is_in_range, "{} = {text}", setting.name);
                if let Err(sentence) = judged {
                    let (value, range) = (setting.text(&config), setting.range());
                    assert!(sentence.contains(setting.name), "{sentence}");
                    assert!(sentence.contains(&value) && sentence.contains(&range), "{sentence}");
                }
            }
        }
    }

    #[test]
    fn an_invalid_address_says_what_to_write_instead() {
        let listen = Setting::named("listen").unwrap();
        for (text, words) in [
            ("localhost:8000", "write 127.0.0.1:8000, [::1]:8000, or both"),
            ("example.org:80", "host names are not resolved"),
            (":8000", "127.0.0.1:8000 listens for this host only, 0.0.0.0:8000 on all"),
            ("*:80", "0.0.0.0:80 on all"),
            ("8000", "write 127.0.0.1:8000 to listen for this host only"),
            ("127.0.0.1", "has no port: write 127.0.0.1:8000"),
            ("[::1]", "has no port: write [::1]:8000"),
            ("::1:8000", "an IPv6 address is written in brackets"),
            ("::1", "an IPv6 address is written in brackets"),
            ("127.0.0.1:65536", "'65536' is not a port"),
            ("[fe80::1]:8000", "needs the index of its interface"),
            ("[fe80::1%eth0]:8000", "needs the index of its interface"),
            ("http://127.0.0.1:80", "is not IP:PORT"),
            ("", "'' is not IP:PORT"),
        ] {
            let fault = parse(listen, text, &mut Config::default()).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
        // RFC 4291 2.5.5.2: an IPv4-mapped address represents the address of an IPv4 node.
        for (text, shown) in [
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
            ("[::]:0", "[::]:0"),
        ] {
            let mut config = Config::default();
            parse(listen, text, &mut config).unwrap();
            assert_eq!(listen.text(&config), shown);
        }
    }

    #[test]
    fn an_invalid_value_is_quoted() {
        for (name, text) in [
            ("listen", "localhost"),
            ("listen", "127.0.0.1"),
            ("tcp.framing", "lines"),
            ("workers", "-1"),
            ("workers", "1.5"),
            ("workers", "99999999999999999999"),
            ("insecure", "yes"),
            ("http.page", "maybe"),
            ("limits.message_bytes_max", "1 parsec"),
            ("limits.close_timeout", "soon"),
            ("log.level", "loud"),
            ("log.level", "info,kitchen=debug"),
        ] {
            let setting = Setting::named(name).unwrap();
            let fault = parse(setting, text, &mut Config::default()).unwrap_err();
            let word = text.rsplit([' ', '=', ',']).next().unwrap();
            assert!(fault.contains(word) || fault.contains("kitchen"), "{name}: {fault}");
        }
        let two = ["1".to_owned(), "2".to_owned()];
        let workers = Setting::named("workers").unwrap();
        assert!(workers.parse(&two, &mut Config::default()).unwrap_err().contains("not a list"));
    }
}
