//! What is converted, and what is named.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use fantail::config::{Loaded, Sources};
use serde_json::{Map, Value, json};

use super::value::parse_time;
use super::{Format, convert, keys};

mod every_key;
mod files;

fn converted(text: &str) -> (String, Vec<String>) {
    let converted = convert(text, Format::Json, "config.json", "made-up").unwrap();
    (converted.settings, converted.notes)
}

/// The settings as the server reads them.
fn load(settings: &str) -> Loaded {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = env::temp_dir().join(format!("fantail-{}-{count}.toml", process::id()));
    fs::write(&path, settings).unwrap();
    let loaded = Sources { file: Some(path.clone()), flags: Vec::new() }.load();
    fs::remove_file(path).unwrap();
    loaded.unwrap_or_else(|fault| panic!("{fault}\n{settings}"))
}

#[test]
fn an_empty_file_becomes_settings_with_the_defaults_of_centrifugo() {
    let (settings, notes) = converted("{}");
    assert_eq!(notes, [""; 0]);
    let expected = "\
# Made from config.json, a configuration of Centrifugo 6.

listen = [\"0.0.0.0:8000\"]
# \"[::]:8000\" beside it serves IPv6, as Centrifugo does where it can
# admin.listen = [\"127.0.0.1:8002\"] keeps the server API and /metrics from other hosts
statistics = false
# clients prove nothing, as with Centrifugo
insecure = true

[log]
level = \"info\"

[api]
# made up, so that no request is served, as with http_api.key
key = \"made-up\"

[limits]
shutdown_timeout = \"30 s\"
send_queue_bytes_max = \"1 MiB\"
keepalive_timeout = \"8 s\"

[http]
page = false
# the pages of no site
origins = [\"https://none.invalid\"]

[auth]
anonymous = false

[channels]
";
    assert_eq!(settings, expected);
    assert!(!load(&settings).config.allows_anonymous());
}

#[test]
fn files_of_centrifugo_5_are_refused() {
    for text in [r#"{"token_hmac_secret_key": "x", "namespaces": []}"#, r#"{"Port": "8000"}"#] {
        let fault = convert(text, Format::Json, "config.json", "made-up").unwrap_err();
        assert!(fault.contains("Centrifugo 5") && fault.contains("migration_v6"), "{fault}");
    }
    let (_, notes) = converted(r#"{"client": {}, "api_key": "x"}"#);
    assert!(notes[0].starts_with("api_key: Centrifugo 6.9 has no such key"), "{notes:?}");
}

#[test]
fn faults_of_a_file_have_their_place() {
    for (format, text, words) in [
        (Format::Json, "{\n \"client\": }", "line 2 column 12"),
        (Format::Json, "[1]", "not a table"),
        (Format::Yaml, "a: 1\nb: [1\nc: }", "at line 3 column"),
        (Format::Yaml, "a: 1\n---\nb: 2", "a second document at line 2 column 1"),
        (Format::Yaml, "- 1", "not a table"),
        (Format::Yaml, "a: *b", "at line 1 column 4"),
        (Format::Toml, "a = 1\nb = [1,,2]", "at line 2 column"),
        (Format::Toml, "a = 1\na = 2", "at line 2 column 1"),
    ] {
        let fault = convert(text, format, "file", "made-up").unwrap_err();
        assert!(fault.contains(words), "{text}: {fault}");
    }
    for (name, format) in
        [("a.json", Format::Json), ("a.YML", Format::Yaml), ("a.b.toml", Format::Toml)]
    {
        assert_eq!(Format::of(Path::new(name)), Ok(format));
    }
    assert!(Format::of(Path::new("config")).unwrap_err().contains(".json"));
}

#[test]
fn deep_and_growing_files_are_refused() {
    let deep = "[".repeat(300_000);
    for format in [Format::Json, Format::Yaml, Format::Toml] {
        let text = if format == Format::Toml { format!("a = {deep}") } else { deep.clone() };
        assert!(convert(&text, format, "file", "made-up").is_err(), "{format:?}");
    }
    let nested = format!("{{\"a\": {}1{}}}", "[".repeat(40), "]".repeat(40));
    let fault = convert(&nested, Format::Json, "file", "made-up").unwrap_err();
    assert!(fault.contains("32 levels"), "{fault}");
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    let fault = convert(&laughs, Format::Yaml, "file", "made-up").unwrap_err();
    assert!(fault.contains("100000 values"), "{fault}");
    let circle = convert("a: &a [*a]", Format::Yaml, "file", "made-up").unwrap_err();
    assert!(circle.contains("itself") || circle.contains("anchor"), "{circle}");
}

#[test]
fn times_are_read_as_go_reads_them() {
    for (text, milliseconds) in [
        ("25s", Some(25_000)),
        ("1h30m", Some(5_400_000)),
        ("1.5s", Some(1500)),
        ("1000ms", Some(1000)),
        ("720h", Some(2_592_000_000)),
        ("2000000000", Some(2000)),
        ("0", None),
        ("-1s", None),
        ("", None),
    ] {
        let time = parse_time(text).unwrap();
        assert_eq!(time.map(|time| time.as_millis()), milliseconds, "{text}");
    }
    for text in ["s", "5", "1x", "1s2", "ten", "1h 2m"] {
        assert!(parse_time(text).is_none() || text == "5", "{text}");
    }
}
