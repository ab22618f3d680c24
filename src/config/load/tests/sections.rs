//! Tests of the sections of keys and callbacks.

use std::time::Duration;

use super::*;
use crate::config::CallbackKind;
use crate::config::limits::{
    API_KEYS_MAX, TOKEN_KEYS_MAX, TOKEN_KEYS_TRIED_MAX, TOKEN_SECRET_BYTES_SAFE,
};

#[test]
fn keys_of_the_server_api_have_sections_of_their_own() {
    let path = env::temp_dir().join(format!("fantail-key-{}", std::process::id()));
    std::fs::write(&path, "  from-a-file\r\n").unwrap();
    let file = format!(
        "[api]
        key = 'root'
        [api.keys.writer]
        key = 'w'
        methods = ['publish', 'presence']
        namespaces = ['chat', '']
        [api.keys.monitor]
        key_file = '{}'
        methods = 'info'
        [api.keys.second]
        key = 's'
        [namespaces.chat]",
        path.display()
    );
    let config = load(&file, &[], &[]).unwrap().config;
    std::fs::remove_file(&path).unwrap();
    let keys: Vec<_> = config
        .api_keys
        .iter()
        .map(|key| {
            let [(_, methods), (_, namespaces)] = key.rights.texts();
            (key.name.as_str(), key.secret.expose(), methods, namespaces)
        })
        .collect();
    let row = |name, secret, methods: &str, namespaces: &str| {
        (name, secret, methods.to_owned(), namespaces.to_owned())
    };
    assert_eq!(
        keys,
        [
            row("monitor", "from-a-file", "info", "all"),
            row("second", "s", "all", "all"),
            row("writer", "w", "publish, presence", "\"chat\", \"\""),
        ]
    );
    assert!(config.has_api_key());
}

#[test]
fn a_faulty_key_of_the_server_api_is_named_without_its_secret() {
    for (section, words) in [
        ("", "f.toml:1: [api.keys.a]: it needs either key or key_file"),
        ("key = 'hush'\nkey_file = '/dev/null'", "[api.keys.a]: it needs either key or key_file"),
        (
            "key_file = '/nowhere'",
            "f.toml:2: api.keys.a.key_file: the file /nowhere cannot be read",
        ),
        ("key_file = '/dev/null'", "[api.keys.a]: its key must be 1 to 1024 visible"),
        ("key = 'hu sh'", "[api.keys.a]: its key must be 1 to 1024 visible"),
        ("key = ['hush', 'b']", "f.toml:2: api.keys.a.key: it takes one value, not a list"),
        ("key = {}", "f.toml:2: api.keys.a.key: it is a section"),
        ("key = 'hush'\nmethod = 'publish'", "unknown option method, did you mean methods?"),
        (
            "key = 'hush'\nmethods = ['publsh']",
            "f.toml:3: api.keys.a.methods: 'publsh' is not a method",
        ),
        ("key = 'hush'\nmethods = []", "f.toml:3: api.keys.a.methods: it names no method"),
        ("key = 'hush'\nnamespaces = ['chta']", "unknown namespace 'chta', did you mean chat?"),
        ("key = 'hush'\nnamespaces = []", "namespaces: it must be 1 to 257 names"),
        ("key = 'hush'\nmethods = 'info'\nnamespaces = ['chat']", "info does not concern channels"),
        ("key = 'hush'\n[api.keys.b]\nkey = 'hush'", "[api.keys.b]: a has the same key"),
        ("key = 'hush'\n[api]\nkey = 'hush'", "[api.keys.a]: api.key has the same key"),
        ("key = 'hush'\n[api.key]", "api.key is a section"),
    ] {
        let file = format!("[api.keys.a]\n{section}\n[namespaces.chat]");
        let faults = load(&file, &[], &[]).unwrap_err();
        assert!(faults.contains(words), "{section}: {faults}");
        assert!(!faults.contains("hush") && !faults.contains("hu sh"), "{faults}");
    }
    for (file, words) in [
        ("api.keys = 1", "api.keys is a section: write [api.keys.NAME]"),
        ("api.keys.a = 'hush'", "api.keys.a is a section: write [api.keys.a]"),
        ("[api.key.a]\nkey = 'hush'", "api.key is a section"),
    ] {
        let faults = load(file, &[], &[]).unwrap_err();
        assert!(faults.contains(words) && !faults.contains("hush"), "{faults}");
    }
    let many = |count: usize| {
        let sections = (0..count).map(|n| format!("[api.keys.k{n}]\nkey = 'secret{n}'\n"));
        load(&sections.collect::<String>(), &[], &[])
    };
    assert_eq!(many(API_KEYS_MAX).unwrap().config.api_keys.len(), API_KEYS_MAX);
    assert!(many(API_KEYS_MAX + 1).unwrap_err().contains("there are at most 64"));
}

#[test]
fn callbacks_have_sections_of_their_own() {
    let file = "[callbacks.rpc]
        timeout = '2 s'
        endpoint = 'http://127.0.0.1:3000/rpc'
        [callbacks]
        ca_file = '/etc/ca.pem'
        timeout = '3 s'
        pending_max = 5
        static_headers = ['X-Key: hush']";
    let callbacks = load(file, &[], &[]).unwrap().config.callbacks;
    assert_eq!(callbacks.ca_file.as_deref(), Some("/etc/ca.pem"));
    let rpc = callbacks.of(CallbackKind::Rpc);
    assert_eq!((rpc.timeout, rpc.pending_max), (Duration::from_secs(2), 5));
    assert!(callbacks.asks(CallbackKind::Rpc) && rpc.static_headers.len() == 1);
    for (file, words) in [
        ("callbacks = 1", "f.toml:1: callbacks is a section: write [callbacks]"),
        ("callbacks.rpc = 1", "f.toml:1: callbacks.rpc is a section: write [callbacks.rpc]"),
        ("[callbacks.rcp]", "unknown section [callbacks.rcp], did you mean rpc?"),
        ("[callbacks]\nendpoint = 'http://a'", "f.toml:2: [callbacks]: unknown option endpoint"),
        ("[callbacks]\ntimeuot = '1 s'", "unknown option timeuot, did you mean timeout?"),
        ("[callbacks]\ntimeout = '61 s'", "f.toml:2: callbacks.timeout: it is out of range"),
        ("[callbacks]\nca_file = ['a', 'b']", "f.toml:2: callbacks.ca_file: it takes one value"),
        ("[callbacks.rpc]\nend_point = 'http://a'", "did you mean endpoint?"),
        (
            "[callbacks.rpc]\nendpoint = 'a'",
            "f.toml:2: callbacks.rpc.endpoint: 'a' is not an http or https URL",
        ),
        (
            "[callbacks.rpc]\nstatic_headers = ['Host: hush']",
            "f.toml:2: callbacks.rpc.static_headers: 'Host' is set by the server itself",
        ),
        ("[callbacks.rpc]\npending_max = true", "f.toml:2: callbacks.rpc.pending_max: "),
    ] {
        let faults = load(file, &[], &[]).unwrap_err();
        assert!(faults.contains(words) && !faults.contains("hush"), "{file}: {faults}");
    }
}

#[test]
fn keys_of_tokens_have_sections_of_their_own() {
    let path = env::temp_dir().join(format!("fantail-token-key-{}", std::process::id()));
    std::fs::write(&path, "  from-a-file\n\n").unwrap();
    let file = format!(
        "[auth]
        hmac_secret = 'root'
        audience = 'chat'
        [auth.keys.first]
        algorithm = 'HS256'
        key = 'f'
        [auth.keys.second]
        algorithm = ['HS384', 'HS512']
        key_file = '{}'
        kid = '2'",
        path.display()
    );
    let config = load(&file, &[], &[]).unwrap().config;
    std::fs::remove_file(&path).unwrap();
    assert_eq!(config.hmac_secret, Some("root".into()));
    assert_eq!(config.audience.as_deref(), Some("chat"));
    let keys: Vec<_> = config
        .token_keys
        .iter()
        .map(|key| {
            let [(_, algorithms), (_, shown), _, (_, id)] = key.texts();
            (key.name.as_str(), key.key.expose(), algorithms, shown, id)
        })
        .collect();
    let row = |name, key, algorithms: &str, id: &str| {
        (name, key, algorithms.to_owned(), "hidden".to_owned(), id.to_owned())
    };
    assert_eq!(
        keys,
        [row("first", "f", "HS256", "none"), row("second", "from-a-file", "HS384, HS512", "2"),]
    );
}

#[test]
fn a_faulty_key_of_tokens_is_named_and_not_shown() {
    for (section, words) in [
        ("", "f.toml:1: [auth.keys.a]: it needs one of key"),
        ("key = 'hush'\nkey_file = '/dev/null'", "[auth.keys.a]: it needs one of key"),
        ("key = 'hush'", "f.toml:1: [auth.keys.a]: algorithm: it is needed"),
        ("algorithm = 'HS256'\nkey_file = '/nowhere'", "the file /nowhere cannot be read"),
        ("algorithm = 'HS256'\nkey_file = '/dev/null'", "key: a secret has 1 to 1024 bytes"),
        ("algorithm = 'HS256'\nkey = ['hush', 'b']", "f.toml:3: auth.keys.a.key: it takes one"),
        ("algorithm = 'HS25'\nkey = 'hush'", "f.toml:2: auth.keys.a.algorithm: 'HS25' is not"),
        ("algorithm = []\nkey = 'hush'", "algorithm: it is needed"),
        ("algorithm = 'RS256'\nkey = 'hush'", "[auth.keys.a]: key: it is not one public key"),
        ("alg = 'HS256'\nkey = 'hush'", "[auth.keys.a]: unknown option alg"),
        ("algorithm = 'HS256'\nkey = 'hush'\nkid = ''", "kid: it must be 1 to 255 bytes"),
        (
            "algorithm = 'HS256'\nkey = 'hush'\nkid = 'x'\n[auth.keys.b]\nalgorithm = 'HS256'\n\
             key = 'other'\nkid = 'x'",
            "[auth.keys.b]: a has the same kid and algorithm",
        ),
    ] {
        let faults = load(&format!("[auth.keys.a]\n{section}"), &[], &[]).unwrap_err();
        assert!(faults.contains(words), "{section}: {faults}");
        assert!(!faults.contains("hush"), "{faults}");
    }
    for (file, words) in [
        ("auth.keys = 1", "auth.keys is a section: write [auth.keys.NAME]"),
        ("auth.keys.a = 'hush'", "auth.keys.a is a section: write [auth.keys.a]"),
        ("[auth.key.a]\nkey = 'hush'", "unknown section [auth.key]"),
    ] {
        let faults = load(file, &[], &[]).unwrap_err();
        assert!(faults.contains(words) && !faults.contains("hush"), "{faults}");
    }
    let many = |count: usize, id: fn(usize) -> String| {
        let section = |n| format!("[auth.keys.k{n}]\nkey = 's'\nalgorithm = 'HS256'\n{}", id(n));
        load(&(0..count).map(section).collect::<String>(), &[], &[])
    };
    let named = |n| format!("kid = '{n}'\n");
    assert_eq!(many(TOKEN_KEYS_MAX, named).unwrap().config.token_keys.len(), TOKEN_KEYS_MAX);
    assert!(many(TOKEN_KEYS_MAX + 1, named).unwrap_err().contains("there are at most 64"));
    let unnamed = |_| String::new();
    assert!(many(TOKEN_KEYS_TRIED_MAX, unnamed).is_ok());
    let fault = many(TOKEN_KEYS_TRIED_MAX + 1, unnamed).unwrap_err();
    assert!(fault.contains("at most 4 keys without a kid can be for HS256"), "{fault}");
}

#[test]
fn a_secret_that_can_be_guessed_is_warned_of() {
    let short = "s".repeat(TOKEN_SECRET_BYTES_SAFE - 1);
    let file = |secret: &str| {
        format!(
            "auth.hmac_secret = '{secret}'\n[auth.keys.a]\nalgorithm = 'HS256'\nkey = '{secret}'"
        )
    };
    let warnings = load(&file(&short), &[], &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, name) in warnings.iter().zip(["auth.hmac_secret", "[auth.keys.a]: key"]) {
        assert!(warning.starts_with(&format!("{name} has fewer than 32 bytes")), "{warning}");
        assert!(!warning.contains(&short), "{warning}");
    }
    assert!(load(&file(&(short + "s")), &[], &[]).unwrap().warnings.is_empty());
}
