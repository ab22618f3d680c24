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
fn every_secret_can_be_read_from_a_file() {
    for setting in SETTINGS {
        let Some(other) = setting.other_way() else { continue };
        let other = Setting::named(&other).expect("it is a row too");
        assert_eq!(other.other_way().as_deref(), Some(setting.name));
        assert_eq!(other.is_reloadable, setting.is_reloadable);
        assert_eq!(matches!(setting.kind, Secret(..)), matches!(other.kind, SecretFile(..)));
    }
    let secrets = SETTINGS.iter().filter(|setting| matches!(setting.kind, Secret(..)));
    assert!(secrets.clone().count() >= 2 && secrets.clone().all(|it| it.other_way().is_some()));
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
            // Any file with a word.
            SecretFile(..) => "/proc/sys/kernel/ostype",
            Text(..) | Files(..) => "some text",
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
            Files(..) => [
                ("x".to_owned(), true),
                ("x".repeat(PATH_BYTES_MAX), true),
                ("x\ny".to_owned(), false),
                ("x".repeat(PATH_BYTES_MAX + 1), false),
            ],
            Addresses(_) | Choice(..) | Switch(_) | SwitchIfGiven(_) | Origins(..)
            | Networks(..) | Levels(_) | SecretFile(..) => {
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
