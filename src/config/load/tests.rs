use std::time::Duration;

use super::*;
use crate::config::ClientRight;

mod secrets;
mod sections;

fn flag(flag: &str, text: &str) -> Given {
    let setting = SETTINGS.iter().find(|setting| setting.flag == flag).unwrap();
    Given { setting, texts: vec![text.to_owned()], origin: Origin::Flag(setting.flag) }
}

fn variable(name: &str, value: &str) -> Variable {
    (name.to_owned(), Some(value.to_owned()))
}

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, String> {
    let environment = environment.iter().map(|(name, value)| variable(name, value)).collect();
    let flags: Vec<_> = flags.iter().map(|(name, text)| flag(name, text)).collect();
    assemble(Some(("f.toml", file)), environment, &flags, Vec::new())
        .map_err(|error| error.to_string())
}

/// The text and origin of a setting.
fn value(loaded: &Loaded, name: &str) -> (String, String) {
    let row = SETTINGS.iter().position(|setting| setting.name == name).unwrap();
    (SETTINGS[row].text(&loaded.config), loaded.origins[row].to_string())
}

/// A value that differs from the default, as text and as it is written in a file.
fn another(setting: &Setting, n: usize) -> (String, String) {
    let text = match setting.kind {
        SettingKind::Addresses(_) => format!("127.0.0.1:{}", 1000 + n),
        SettingKind::Networks(..) => format!("10.0.0.{n}"),
        SettingKind::Choice(words, ..) => words[n % words.len()].to_owned(),
        SettingKind::Switch(_) | SettingKind::SwitchIfGiven(_) => (n % 2 == 1).to_string(),
        SettingKind::Count(_, max, _) | SettingKind::CountIfGiven(_, max, _) => {
            (max.min(12) - n as u64).to_string()
        }
        SettingKind::Bytes(..) => format!("{} KiB", 10 + n),
        SettingKind::BytesIfGiven(..) => format!("{} MiB", 10 + n),
        SettingKind::Time(..) => format!("{} s", 11 + n),
        SettingKind::Secret(..) => "hidden".to_owned(),
        // Any files with a word.
        SettingKind::SecretFile(..) => {
            format!("/proc/sys/kernel/{}", ["ostype", "osrelease", "pid_max"][n % 3])
        }
        SettingKind::Text(..) | SettingKind::Files(..) => format!("text {n}"),
        SettingKind::Origins(..) => format!("https://example{n}.org"),
        SettingKind::Levels(_) => ["error", "debug", "trace"][n % 3].to_owned(),
    };
    let in_file = match setting.kind {
        SettingKind::Count(..)
        | SettingKind::CountIfGiven(..)
        | SettingKind::Switch(_)
        | SettingKind::SwitchIfGiven(_) => text.clone(),
        SettingKind::Addresses(_)
        | SettingKind::Files(..)
        | SettingKind::Origins(..)
        | SettingKind::Networks(..) => {
            format!("[\"{text}\"]")
        }
        _ => format!("\"{text}\""),
    };
    (text, in_file)
}

#[test]
fn the_later_source_wins_for_every_setting() {
    for setting in SETTINGS {
        let [file, environment, flag] = [0, 1, 2].map(|n| another(setting, n));
        let line = format!("# a comment\n{} = {}\n", setting.name, file.1);
        let name = setting.variable();
        let in_environment = [(name.as_str(), environment.0.as_str())];
        let in_flags = [(setting.flag, flag.0.as_str())];
        let dashed = format!("--{}", setting.flag);
        for (loaded, text, origin) in [
            (load("", &[], &[]), None, "default"),
            (load(&line, &[], &[]), Some(&file.0), "f.toml:2"),
            (load(&line, &in_environment, &[]), Some(&environment.0), name.as_str()),
            (load(&line, &[], &in_flags), Some(&flag.0), dashed.as_str()),
            (load(&line, &in_environment, &in_flags), Some(&flag.0), dashed.as_str()),
            (load("", &in_environment, &[]), Some(&environment.0), name.as_str()),
        ] {
            let (is, from) = value(&loaded.unwrap(), setting.name);
            assert_eq!(from, origin, "{}", setting.name);
            if let Some(text) = text {
                assert_eq!(&is, text, "{} from {origin}", setting.name);
            }
        }
    }
}

#[test]
fn a_file_has_sections_lists_and_units() {
    let file = "
        listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]
        workers = 0x10
        tcp.framing = 'length'
        [limits]
        message_bytes_max = 65_536
        close_timeout = 1.5
        keepalive_interval = \"1m30s\"
        [echo]
        message_bytes_max = \"64 KiB\"
    ";
    let loaded = load(file, &[], &[]).unwrap();
    for (name, text, line) in [
        ("listen", "127.0.0.1:1, 127.0.0.1:2", 2),
        ("workers", "16", 3),
        ("tcp.framing", "length", 4),
        ("limits.message_bytes_max", "64 KiB", 6),
        ("limits.close_timeout", "1.5 s", 7),
        ("limits.keepalive_interval", "90 s", 8),
        ("echo.message_bytes_max", "64 KiB", 10),
    ] {
        assert_eq!(value(&loaded, name), (text.to_owned(), format!("f.toml:{line}")));
    }
}

#[test]
fn the_default_addresses_are_used_if_no_other_address_is_set() {
    let usual = load("", &[], &[]).unwrap().config;
    assert_eq!((usual.listen.len(), usual.tcp.len()), (1, 1));
    let only = load("", &[("FANTAIL_ECHO_LISTEN", "127.0.0.1:7, [::1]:7")], &[]).unwrap().config;
    assert_eq!((only.listen.len(), only.tcp.len(), only.echo.len()), (0, 0, 2));
    let admin = load("admin.listen = '127.0.0.1:9000'", &[], &[]).unwrap().config;
    assert_eq!((admin.admin.len(), admin.listen.len(), admin.tcp.len()), (1, 1, 1));
}

#[test]
fn an_empty_variable_is_ignored_and_an_unknown_one_is_a_warning() {
    let environment = [
        ("FANTAIL_WORKERS", ""),
        ("FANTAIL_CONFIG", "somewhere"),
        ("FANTAIL_PORT", "tcp://10.0.0.1:80"),
        ("FANTAIL_SERVICE_HOST", "10.0.0.1"),
        ("FANTAIL_ECHO", "1"),
        ("FANTAIL_WORKER", "1"),
    ];
    let loaded = load("", &environment, &[]).unwrap();
    assert_eq!(loaded.config.workers, None);
    let [echo, worker] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(echo.starts_with("FANTAIL_ECHO is not a setting"), "{echo}");
    assert!(worker.ends_with("did you mean FANTAIL_WORKERS?"), "{worker}");
    let not_utf8 = vec![("FANTAIL_X".to_owned(), None), ("FANTAIL_WORKERS".to_owned(), None)];
    let fault = assemble(None, not_utf8, &[], Vec::new()).unwrap_err().to_string();
    assert_eq!(fault, "FANTAIL_WORKERS: its value is not UTF-8");
}

#[test]
fn settings_without_effect_are_warned_of() {
    let warnings = |file: &str| load(file, &[], &[]).unwrap().warnings;
    for (file, warning) in [
        (
            "[channels]\nhistory_ttl = 5",
            "f.toml:2: channels.history_ttl has no effect: history_size is 0",
        ),
        (
            "[namespaces.a]\nhistory_bytes = 5000",
            "f.toml:2: namespaces.a.history_bytes has no effect: history_size is 0",
        ),
        (
            "[channels]\nrecovery = true",
            "f.toml:2: channels.recovery has no effect: history_size is 0",
        ),
        (
            "[channels]\nallow_history_for_client = true",
            "f.toml:2: channels.allow_history_for_client has no effect: history_size is 0",
        ),
        (
            "[channels]\nallow_presence_for_subscriber = true",
            "f.toml:2: channels.allow_presence_for_subscriber has no effect: presence is false",
        ),
        (
            "[channels]\nallow_publish_for_anonymous = true",
            "f.toml:2: channels.allow_publish_for_anonymous has no effect: clients with a user do not have this right",
        ),
        (
            "[echo]\nlisten = '[::1]:1'\n[api.keys.a]\nkey = 'a'",
            "api.keys has no effect: listen is not set",
        ),
        (
            "[channels]\nbacklog_size = 5",
            "f.toml:2: channels.backlog_size has no effect: slow_consumer is not drop_oldest",
        ),
        (
            "[tcp]\nframing = 'length'\n[echo]\nlisten = '[::1]:1'",
            "f.toml:2: tcp.framing has no effect: tcp.listen is not set",
        ),
        (
            "[api]\nkey = 'a'\n[tcp]\nlisten = '[::1]:1'",
            "f.toml:2: api.key has no effect: listen is not set",
        ),
        (
            "[echo]\nmessage_bytes_max = 5",
            "f.toml:2: echo.message_bytes_max has no effect: echo.listen is not set",
        ),
    ] {
        assert_eq!(warnings(file), [warning]);
    }
    for file in [
        "[channels]\nhistory_size = 1\nhistory_ttl = 5\nhistory_bytes = 5000\nrecovery = true\n\
         allow_history_for_client = true",
        "[channels]\nrecovery = false\nallow_history_for_client = false\nallow_history_for_anonymous = false",
        "[channels]\nallow_publish_for_anonymous = true\nallow_publish_for_subscriber = true",
        "[channels]\nbacklog_size = 5\nslow_consumer = 'drop_oldest'",
        "[tcp]\nframing = 'length'",
        "api.key = 'a'",
    ] {
        assert_eq!(warnings(file), [""; 0], "{file}");
    }
}

#[test]
fn a_fault_names_its_place_and_the_range() {
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let faults: [(&str, Pairs<'_>, Pairs<'_>, &str); 22] = [
        ("\nworkers = 129", &[], &[], "f.toml:2: workers is 129; it must be from 1 to 128"),
        (
            "workers = \"many\"",
            &[],
            &[],
            "f.toml:1: workers: 'many' is not a whole number; it must be from 1 to 128",
        ),
        (
            "workers = [1, 2]",
            &[],
            &[],
            "f.toml:1: workers: it takes one value, not a list; it must be",
        ),
        (
            "workers = 99999999999999999999",
            &[],
            &[],
            "f.toml:1: workers is a number that is too large; it must be",
        ),
        ("workers = 2026-01-01", &[], &[], "f.toml:1: workers is a date; it must be"),
        ("[workers]\nmax = 1", &[], &[], "f.toml:1: workers is a section; it must be"),
        ("limits = 1", &[], &[], "f.toml:1: limits is a section: write [limits]"),
        ("\n\n[limit]\nx = 1", &[], &[], "f.toml:3: unknown section [limit], did you mean limits?"),
        (
            "[chats.x]",
            &[],
            &[],
            "f.toml:1: unknown section [chats] (admin, tcp, echo, proxy, tls, unix, api, auth, http, limits, deflate, \
             log, api.keys.NAME, auth.keys.NAME, callbacks, callbacks.KIND, channels, namespaces.NAME)",
        ),
        (
            "[limits]\nmessage_byte_max = 1",
            &[],
            &[],
            "f.toml:2: unknown setting limits.message_byte_max, did you mean limits.message_bytes_max?",
        ),
        (
            "keepalive_interval = 1",
            &[],
            &[],
            "f.toml:1: unknown setting keepalive_interval, did you mean limits.keepalive_interval?",
        ),
        (
            "[limits]\nstream_time = '1 h'",
            &[],
            &[],
            "f.toml:2: unknown setting limits.stream_time, did you mean limits.stream_lifetime?",
        ),
        ("colour = 1", &[], &[], "f.toml:1: unknown setting colour"),
        ("workers = 1\nworkers = 2", &[], &[], "f.toml:2: duplicate key"),
        ("\nworkers =", &[], &[], "f.toml:2: "),
        (
            "",
            &[("FANTAIL_WORKERS", "0")],
            &[],
            "FANTAIL_WORKERS: workers is 0; it must be from 1 to 128",
        ),
        (
            "",
            &[("FANTAIL_LISTEN", "127.0.0.1:1,here")],
            &[],
            "FANTAIL_LISTEN: listen: 'here' is not IP:PORT",
        ),
        (
            "",
            &[],
            &[("close-timeout", "99 ms")],
            "--close-timeout: limits.close_timeout is 99 ms; it must be from 100 ms to 1 d",
        ),
        (
            "",
            &[],
            &[("message-bytes-max", "65 MiB")],
            "--message-bytes-max: limits.message_bytes_max is 65 MiB; it must be from 1 B to 64 MiB",
        ),
        ("insecure = 'yes'", &[], &[], "f.toml:1: insecure: 'yes' is not true or false"),
        ("listen = [\"0.0.0.0:1\"]", &[], &[], "0.0.0.0:1 can be reached from other hosts"),
        ("listen = [\"0.0.0.0:1\"]", &[], &[], "(set: listen by f.toml:1)"),
    ];
    for (file, environment, flags, sentence) in faults {
        let fault = load(file, environment, flags).unwrap_err();
        assert!(fault.contains(sentence), "{fault}\nis not\n{sentence}");
        assert_eq!(fault.lines().count(), 1, "{fault}");
    }
}

#[test]
fn every_fault_has_a_line_of_its_own() {
    let fault =
        load("workers = 0\ncolour = 1", &[("FANTAIL_DRIVER", "kqueue")], &[("workers", "200")]);
    let fault = fault.unwrap_err();
    let starts = ["f.toml:1: ", "f.toml:2: ", "FANTAIL_DRIVER: ", "--workers: "];
    let lines: Vec<_> = fault.lines().collect();
    assert_eq!(lines.len(), starts.len(), "{fault}");
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start} is not in\n{fault}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let load = |path: &str| Sources { file: Some(path.into()), flags: Vec::new() }.load();
    for (path, words) in
        [("/nowhere/f.toml", "cannot be read"), ("/", "cannot be read"), ("/dev/zero", "at most")]
    {
        let fault = load(path).unwrap_err().to_string();
        assert!(fault.starts_with(&format!("{path}: ")) && fault.contains(words), "{fault}");
    }
}

#[test]
fn channels_have_sections_of_their_own() {
    let file = "[channels]\nallow_publish_for_subscriber = true\n\n\
                [namespaces.chat]\nhistory_size = 7\nhistory_ttl = \"1m30s\"\n\
                slow_consumer = \"latest\"\ndelivery_rate_max = 5\n";
    let namespaces = load(file, &[], &[]).unwrap().config.namespaces;
    let of = |name| namespaces.options(namespaces.find(name).unwrap()).clone();
    let allow_publish = ClientRight { subscriber: true, ..ClientRight::NONE };
    assert_eq!(of("lobby"), ChannelOptions { allow_publish, ..ChannelOptions::closed() });
    let chat = ChannelOptions {
        history_size: 7,
        history_ttl: Duration::from_secs(90),
        slow_consumer: super::super::SlowConsumer::Latest,
        delivery_rate_max: 5,
        ..ChannelOptions::closed()
    };
    assert_eq!(of("chat:1"), chat);
    assert_eq!(namespaces.find("other:1"), None);
    let plain = load("[limits]\nsubscriptions_max = 5\n", &[], &[]).unwrap().config.namespaces;
    assert_eq!(plain, Namespaces::default());
}

#[test]
fn faults_in_sections_of_channels_name_their_line() {
    for (file, expected) in [
        ("channels = 1", "f.toml:1: channels is a section: write [channels]"),
        ("\nnamespaces = 1", "f.toml:2: namespaces is a section: write [namespaces.NAME]"),
        (
            "[namespaces]\nchat = 1",
            "f.toml:2: namespaces.chat is a section: write [namespaces.chat]",
        ),
        ("[namespaces.\"a:b\"]", "f.toml:1: [namespaces.a:b]: a name has"),
        (
            "[channels]\nhistorysize = 1",
            "f.toml:2: [channels]: unknown option historysize, did you mean history_size?",
        ),
        (
            "[channels]\nhistory_size = 65537",
            "f.toml:2: channels.history_size: it is out of range; it must be from 0 to 65536",
        ),
        (
            "[channels]\ndelivery_rate_max = 5",
            "f.toml:1: [channels]: delivery_rate_max needs slow_consumer",
        ),
        ("[channels]\npresence = [true]", "f.toml:2: channels.presence: "),
        (
            "[channels]\npublish = true",
            "f.toml:2: [channels]: unknown option publish, did you mean allow_publish_for_client?",
        ),
        (
            "[channels]\nallow_publish_for_clients = true",
            "f.toml:2: [channels]: unknown option allow_publish_for_clients, did you mean \
             allow_publish_for_client?",
        ),
        ("[channels.x]\npublish = 1", "f.toml:1: [channels]: unknown option x"),
    ] {
        let error = load(file, &[], &[]).unwrap_err();
        assert!(error.starts_with(expected), "{file}\n{error}");
    }
}
