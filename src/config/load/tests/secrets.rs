//! Secrets from files, and environment variables in values.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::config::limits::API_KEY_BYTES_MAX;

/// A file with a secret, removed on drop.
struct SecretFile(PathBuf);

impl SecretFile {
    fn new(name: &str, secret: &str, mode: u32) -> Self {
        let path = env::temp_dir().join(format!("fantail-load-{name}-{}", std::process::id()));
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_secret_is_read_from_a_file_each_time() {
    let file = SecretFile::new("each-time", "first\n", 0o600);
    let path = file.path();
    let text = format!("api.key_file = '{path}'");
    let first = load(&text, &[], &[]).unwrap();
    assert_eq!(first.config.api_key, Some("first".into()));
    assert_eq!(value(&first, "api.key_file"), (path.to_owned(), "f.toml:1".to_owned()));
    assert_eq!(value(&first, "api.key"), (String::new(), "default".to_owned()));
    assert!(!format!("{:?}", first.config).contains("first"));
    assert_eq!(first.warnings, [] as [&str; 0]);
    fs::write(path, "second").unwrap();
    let second = load(&text, &[], &[]).unwrap();
    assert_eq!(second.config.api_key, Some("second".into()));
    let [key, key_file] = ["api.key", "api.key_file"].map(|name| Setting::named(name).unwrap());
    assert!(key_file.differs(&first.config, &second.config), "a reload takes it");
    assert!(!key.differs(&first.config, &second.config));
    assert!(!key_file.differs(&first.config, &first.config));

    // Flags override the environment, and that the file, whichever way each sets it.
    let environment = [("FANTAIL_API_KEY", "third")];
    let loaded = load(&text, &environment, &[]).unwrap();
    assert_eq!(loaded.config.api_key, Some("third".into()));
    let loaded = load("api.key = 'x'", &[("FANTAIL_API_KEY_FILE", path)], &[]).unwrap();
    assert_eq!(loaded.config.api_key, Some("second".into()));
    let loaded = load("", &environment, &[("api-key-file", path)]).unwrap();
    assert_eq!(loaded.config.api_key, Some("second".into()));
    let loaded = load(&format!("auth.hmac_secret_file = '{path}'"), &[], &[]).unwrap();
    assert_eq!(loaded.config.hmac_secret, Some("second".into()));
}

#[test]
fn a_faulty_file_of_a_secret_is_named_without_its_content() {
    let longest = "x".repeat(API_KEY_BYTES_MAX);
    for (name, secret, is_fit) in [
        ("longest", format!("{longest}\r\n"), true),
        ("too-long", longest + "x", false),
        ("empty", "\n".to_owned(), false),
        ("two-words", "hush hush".to_owned(), false),
    ] {
        let file = SecretFile::new(name, &secret, 0o600);
        let text = format!("\napi.key_file = '{}'", file.path());
        match load(&text, &[], &[]) {
            Ok(_) => assert!(is_fit, "{name}"),
            Err(fault) => {
                assert!(!is_fit, "{fault}");
                let expected = format!("f.toml:2: api.key_file is {}; it must be", file.path());
                assert!(fault.starts_with(&expected) && !fault.contains("hush"), "{fault}");
            }
        }
    }
    let fault = load("api.key_file = '/nowhere'", &[], &[]).unwrap_err();
    assert!(fault.starts_with("f.toml:1: api.key_file: the file /nowhere cannot be"), "{fault}");
    let file = SecretFile::new("twice", "hush", 0o600);
    let text = format!("[api]\nkey = 'hush'\nkey_file = '{}'", file.path());
    let fault = load(&text, &[], &[]).unwrap_err();
    let expected = "f.toml:3: api.key_file and api.key (set by f.toml:2) exclude each other";
    assert_eq!(fault, expected);
}

#[test]
fn a_file_that_every_user_can_read_causes_a_warning() {
    let file = SecretFile::new("exposed", "hush-hush-hush-hush-hush-hush-hush-hush", 0o644);
    let path = file.path();
    let text = format!(
        "api.key_file = '{path}'\n[api.keys.a]\nkey = 'b'\n[auth.keys.b]\nalgorithm = 'HS256'\nkey_file = '{path}'"
    );
    let warnings = load(&text, &[], &[]).unwrap().warnings;
    let expected = ["api.key_file", "[auth.keys.b]: key_file"].map(|name| {
        format!("{name}: every user of this host can read {path}: set its mode to 600 or 640")
    });
    assert_eq!(warnings, expected);
}

#[test]
fn any_value_of_the_file_may_hold_variables() {
    let file = SecretFile::new("variables", "from-a-file", 0o600);
    let environment = [
        ("ADDRESS", "127.0.0.1"),
        ("KEYS", file.path()),
        ("KEY", "from-a-variable"),
        ("COUNT", "3"),
        ("NESTED", "${KEY}"),
    ];
    let text = "workers = '${COUNT}'\nlisten = ['${ADDRESS}:80', '${ADDRESS}:81']\napi.key = '${KEY}'\n\
        [api.keys.a]\nkey_file = '${KEYS}'\n[api.keys.b]\nkey = '${NESTED}'\n\
        [channels]\nhistory_size = '${COUNT}'\nchannel_regex = '^[a-z]+$'\n[auth]\naudience = '$${KEY}'\n";
    let config = load(text, &environment, &[]).unwrap().config;
    assert_eq!(config.workers, Some(3));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.api_key, Some("from-a-variable".into()));
    assert_eq!(config.api_keys[0].secret, "from-a-file".into());
    assert_eq!(config.api_keys[1].secret, "${KEY}".into(), "it is not looked at again");
    assert_eq!(config.namespaces.all()[0].history_size, 3);
    assert_eq!(config.audience.as_deref(), Some("${KEY}"));
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_line() {
    let text = "workers = 1\napi.key = '${NO_KEY}'\nlisten = [\n  '127.0.0.1:1',\n  '${NO_ADDRESS}:2'\n]\n\
        [api.keys.a]\nkey = '${'\n";
    let fault = load(text, &[], &[]).unwrap_err();
    let lines: Vec<_> = fault.lines().collect();
    assert_eq!(lines.len(), 3, "{fault}");
    let mut lines = lines.into_iter();
    let mut has = |expected: &str| {
        let line = lines.next().unwrap();
        assert!(line.starts_with(expected), "{line}");
    };
    has("f.toml:2: the environment variable NO_KEY is not set");
    has("f.toml:8: ${ is followed by the name");
    has("f.toml:5: the environment variable NO_ADDRESS is not set");
}

#[test]
fn a_given_secret_is_not_shown() {
    let given = flag("api-key", "hush");
    assert!(!format!("{given:?}").contains("hush"), "{given:?}");
    assert!(format!("{:?}", flag("workers", "7")).contains('7'));
}
