//! Proxies, which are callbacks here.

use std::collections::BTreeMap;

use fantail::config::{Callback, CallbackOption};

use super::conversion::Conversion;
use super::settings_file::{Written, has_variables, with_variables};

/// The proxies of namespaces, by kind: the name of the option, of the default proxy, and of the callback.
const OF_NAMESPACES: &[(&str, &str, &str)] = &[
    ("subscribe_proxy", "channel.proxy.subscribe", "subscribe"),
    ("publish_proxy", "channel.proxy.publish", "publish"),
    ("sub_refresh_proxy", "channel.proxy.sub_refresh", "sub_refresh"),
];

/// Converts `client.proxy`, `rpc` and `proxies`, and the options of namespaces that name proxies.
pub fn convert(c: &mut Conversion) {
    for kind in ["connect", "refresh"] {
        let path = format!("client.proxy.{kind}");
        if c.from.switch(&format!("{path}.enabled")) && proxy(c, &path, kind) {
            c.has_proof |= kind == "connect";
        }
    }
    let named: BTreeMap<String, String> = (0..c.from.count("proxies"))
        .map(|index| format!("proxies[{index}]"))
        .map(|path| (c.from.text(&format!("{path}.name")), path))
        .collect();
    let namespaces: Vec<_> = namespaces(c, "channel");
    for (option, default, kind) in OF_NAMESPACES {
        let users = users(c, &namespaces, option);
        let Some(chosen) = choose(c, &users, default, &named, kind) else { continue };
        for (path, name) in &users {
            let key = format!("{path}.{option}_name");
            if *name == chosen {
                let section = section_of(c, path);
                c.to.set(&section, &format!("callback_{kind}"), &true.into());
            } else {
                c.note(
                    &key,
                    &format!(
                        "one backend is asked for all channels, {chosen}: callback_{kind} is off here, so \
                         clients have the rights of the namespace only"
                    ),
                );
            }
        }
    }
    rpc(c, &named);
}

fn namespaces(c: &Conversion, room: &str) -> Vec<String> {
    let list = format!("{room}.namespaces");
    let listed = (0..c.from.count(&list)).map(|index| format!("{list}[{index}]"));
    [format!("{room}.without_namespace")].into_iter().chain(listed).collect()
}

fn section_of(c: &mut Conversion, path: &str) -> String {
    if path == "channel.without_namespace" {
        return "channels".to_owned();
    }
    let name = c.from.text(&format!("{path}.name"));
    if name.contains('.') { format!("namespaces.\"{name}\"") } else { format!("namespaces.{name}") }
}

/// The namespaces that have a proxy turned on, each with the name of the proxy.
fn users(c: &mut Conversion, namespaces: &[String], option: &str) -> Vec<(String, String)> {
    let mut users = Vec::new();
    for path in namespaces {
        if c.from.switch(&format!("{path}.{option}_enabled")) {
            let name = c.from.text(&format!("{path}.{option}_name"));
            let name = if name.is_empty() { "default".to_owned() } else { name };
            users.push((path.clone(), name));
        }
    }
    users
}

/// Makes a callback of the proxy that most namespaces use, and returns its name.
fn choose(
    c: &mut Conversion,
    users: &[(String, String)],
    default: &str,
    named: &BTreeMap<String, String>,
    kind: &str,
) -> Option<String> {
    let count = |name: &str| users.iter().filter(|(_, other)| other == name).count();
    let (_, chosen) = users.iter().max_by_key(|(_, name)| (count(name), name == "default"))?;
    let path =
        if chosen == "default" { default } else { named.get(chosen).map_or("", String::as_str) };
    if path.is_empty() {
        let key = format!("{}.{kind}_proxy_name", users[0].0);
        c.note(&key, &format!("there is no proxy {chosen} in proxies"));
        return None;
    }
    proxy(c, path, kind).then(|| chosen.clone())
}

fn rpc(c: &mut Conversion, named: &BTreeMap<String, String>) {
    let namespaces = namespaces(c, "rpc");
    for path in &namespaces[1..] {
        c.from.take(&format!("{path}.name"));
    }
    let users = users(c, &namespaces, "proxy");
    let Some(chosen) = choose(c, &users, "rpc.proxy", named, "rpc") else { return };
    for (path, name) in &users {
        if *name != chosen {
            c.note(
                &format!("{path}.proxy_name"),
                &format!(
                    "one backend is asked for all RPCs, {chosen}: it gets those of {name} too"
                ),
            );
        }
    }
    let open: Vec<_> =
        namespaces.iter().filter(|path| users.iter().all(|(user, _)| user != *path)).collect();
    if !open.is_empty() {
        let all = open.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", ");
        c.note(&all, "the backend is asked for RPCs of every name, these too; it can refuse them");
    }
}

/// Makes a callback of a proxy; returns whether there is one.
fn proxy(c: &mut Conversion, path: &str, kind: &str) -> bool {
    let of = |name: &str| format!("{path}.{name}");
    let section = format!("callbacks.{kind}");
    let endpoint = c.from.text(&of("endpoint"));
    let timeout = c.from.time(&of("timeout"));
    let headers = c.from.list(&of("http_headers"));
    let added = c.from.pairs(&of("http.static_headers"));
    let meta = c.from.switch(&of("include_connection_meta"));
    if endpoint.starts_with("grpc://") {
        c.note(
            &of("endpoint"),
            &format!("there is no gRPC: [{section}] needs a backend over HTTP, with the same messages in JSON"),
        );
        return false;
    }
    if !set(c, &of("endpoint"), &section, "endpoint", &Written::Text(with_variables(&endpoint))) {
        return false;
    }
    if let Some(timeout) = timeout.filter(|time| time.as_millis() != 1000) {
        set(c, &of("timeout"), &section, "timeout", &timeout.into());
    }
    if !headers.is_empty() {
        set(c, &of("http_headers"), &section, "http_headers", &Written::List(headers));
    }
    if !added.is_empty() {
        let lines = added.iter().map(|(name, value)| format!("{name}: {}", with_variables(value)));
        let value = Written::List(lines.collect());
        set(c, &of("http.static_headers"), &section, "static_headers", &value);
    }
    if meta {
        set(c, &of("include_connection_meta"), &section, "include_connection_meta", &true.into());
    }
    tls(c, path);
    for (name, why) in [
        ("binary_encoding", "data that is not JSON or text is always in b64data, other data never"),
        (
            "emulated_headers",
            "nothing that a client sends as data becomes a header: take it from data",
        ),
        ("grpc_metadata", "headers are those of http_headers"),
        (
            "http.status_to_code_transforms",
            "the backend answers with the error or disconnect itself",
        ),
    ] {
        if c.from.differs(&of(name)) {
            c.note(&of(name), why);
        }
        c.from.take(&of(name));
    }
    true
}

/// The certificates that a backend is checked against.
fn tls(c: &mut Conversion, path: &str) {
    let of = |name: &str| format!("{path}.http.tls.{name}");
    if !c.from.switch(&of("enabled")) {
        return;
    }
    let authority = c.from.text(&of("server_ca_pem"));
    if authority.contains("-----BEGIN") || authority.len() > 200 {
        c.note(&of("server_ca_pem"), "put it into a file, and its name into callbacks.ca_file");
    } else if !authority.is_empty() {
        let value = Written::Text(with_variables(&authority));
        c.callbacks_ca.get_or_insert((of("server_ca_pem"), value));
    }
    for name in ["cert_pem", "key_pem"] {
        if !c.from.text(&of(name)).is_empty() {
            c.note(&of(name), "backends are shown no certificate: let a proxy do it");
        }
    }
    if c.from.switch(&of("insecure_skip_verify")) {
        c.note(&of("insecure_skip_verify"), "certificates of backends are always checked");
    }
    for name in ["server_name", "client_ca_pem"] {
        if !c.from.text(&of(name)).is_empty() {
            c.note(&of(name), "a backend is checked by the name in its URL");
        }
    }
}

/// Sets an option of a callback; returns whether fantail takes it.
fn set(c: &mut Conversion, key: &str, section: &str, name: &str, value: &Written) -> bool {
    let option = CallbackOption::named(name).expect("the name of an option");
    let texts = value.texts();
    if !texts.iter().any(|text| has_variables(text))
        && let Err(fault) = option.parse(&texts, &mut Callback::default())
    {
        c.note(key, &format!("not carried over as {section}.{name}: {fault}"));
        return false;
    }
    c.to.set(section, name, value);
    true
}
