//! Addresses, TLS, the server API, and what else is of the server.

use std::net::{IpAddr, Ipv4Addr};

use super::conversion::Conversion;
use super::settings_file::{Written, with_variables};

/// Converts `http_server`, `log`, `http_api` and `shutdown`.
pub fn convert(c: &mut Conversion) {
    addresses(c);
    log(c);
    api(c);
    let timeout = c.from.time("shutdown.timeout");
    if let Some(timeout) = timeout {
        c.set("shutdown.timeout", "limits.shutdown_timeout", &timeout.into());
    }
    c.set("admin.enabled", "http.page", &false.into());
    c.set("admin.enabled", "statistics", &false.into());
}

fn addresses(c: &mut Conversion) {
    let host = c.from.text("http_server.address");
    let port = port(c, "http_server.port").unwrap_or_else(|| "8000".to_owned());
    let internal_host = c.from.text("http_server.internal_address");
    let internal_port = self::port(c, "http_server.internal_port");
    let has_files = c.from.switch("http_server.tls.enabled");
    let has_tls = c.from.switch("http_server.tls_autocert.enabled") || has_files;
    let listen = ip(c, "http_server.address", &host);
    let admin_host = if internal_host.is_empty() { &host } else { &internal_host };
    let admin = ip(c, "http_server.internal_address", admin_host);
    let admin_port = internal_port.unwrap_or_else(|| port.clone());
    let compresses = compression(c);
    let written =
        |ip: &str, port: &str, words: &str| Written::List(vec![format!("{ip}:{port}{words}")]);
    let tls = |is_set: bool| if is_set { " tls" } else { "" };
    let is_one = (&admin, &admin_port) == (&listen, &port);
    let is_external = c.from.switch("http_server.tls_external");
    let own_tls = c.from.switch("http_server.internal_tls.enabled");
    c.is_loopback = listen.starts_with("127.") || listen == "[::1]";
    let words = format!("{}{}", tls(has_tls), if compresses { " deflate" } else { "" });
    c.set("http_server.port", "listen", &written(&listen, &port, &words));
    if host.is_empty() {
        c.to.comment(
            "",
            &format!("\"[::]:{port}\" beside it serves IPv6, as Centrifugo does where it can"),
        );
    }
    if is_one {
        if !c.is_loopback {
            c.to.comment(
                "",
                "admin.listen = [\"127.0.0.1:8002\"] keeps the server API and /metrics from other hosts",
            );
        }
    } else {
        let admin_tls = own_tls || (has_tls && !is_external);
        let key = "http_server.internal_port";
        c.set(key, "admin.listen", &written(&admin, &admin_port, tls(admin_tls)));
        c.has_admin = true;
        for key in ["http_api.external", "admin.external"] {
            if c.from.switch(key) {
                c.note(key, "the server API and the page are on admin.listen alone");
            }
        }
    }
    for key in ["http_api.external", "admin.external"] {
        c.from.take(key);
    }
    if own_tls {
        c.note(
            "http_server.internal_tls.enabled",
            "all addresses have the certificates of tls.cert",
        );
    }
    if has_tls {
        certificates(c, has_files);
    }
}

/// Whether WebSockets may be compressed.
fn compression(c: &mut Conversion) -> bool {
    let is_on = c.from.switch("websocket.compression");
    let is_on = c.from.switch("uni_websocket.compression") || is_on;
    let least = "websocket.compression_min_size";
    if is_on && c.from.differs(least) {
        let bytes = c.from.number(least);
        c.set(least, "deflate.message_bytes_min", &Written::bytes(bytes));
    }
    is_on
}

/// The files of TLS.
fn certificates(c: &mut Conversion, has_files: bool) {
    c.from.take("http_server.tls_autocert.enabled");
    if !has_files {
        c.note(
            "http_server.tls_autocert.enabled",
            "there is no ACME: let a client such as certbot write the files of tls.cert and tls.key",
        );
    }
    certificate(c, "cert_pem", "tls.cert", "/etc/fantail/fullchain.pem");
    certificate(c, "key_pem", "tls.key", "/etc/fantail/privkey.pem");
    let authorities = "http_server.tls.client_ca_pem";
    if c.from.differs(authorities) {
        certificate(c, "client_ca_pem", "tls.client_ca", "/etc/fantail/clients.pem");
        c.note(authorities, "a client without a token is the user that its certificate names");
    }
}

/// A certificate or a key, which fantail reads from a file.
fn certificate(c: &mut Conversion, name: &str, setting: &'static str, place: &str) {
    let key = format!("http_server.tls.{name}");
    let given = c.from.text(&key);
    let is_path = given.len() < 200 && !given.contains("-----BEGIN") && !given.is_empty();
    if is_path {
        c.set(&key, setting, &Written::Text(with_variables(&given)));
        return;
    }
    c.set(&key, setting, &place.into());
    if !given.is_empty() {
        c.note(&key, &format!("put it into a file: {setting} is {place}"));
    }
}

fn port(c: &mut Conversion, key: &str) -> Option<String> {
    let port = c.from.text(key);
    let is_port = port.parse::<u16>().is_ok() || port.starts_with("${");
    if !is_port && !port.is_empty() {
        c.note(key, &format!("{port} is not a port"));
    }
    is_port.then_some(port)
}

/// An address as fantail has it: no name of a host.
fn ip(c: &mut Conversion, key: &str, host: &str) -> String {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) if host.is_empty() => Ipv4Addr::UNSPECIFIED.to_string(),
        Err(_) if host == "localhost" => Ipv4Addr::LOCALHOST.to_string(),
        Err(_) if host.starts_with("${") => host.to_owned(),
        Err(_) => {
            c.note(key, &format!("{host} is not an IP address: 127.0.0.1 instead"));
            Ipv4Addr::LOCALHOST.to_string()
        }
    }
}

fn log(c: &mut Conversion) {
    let level = c.from.text("log.level").to_ascii_lowercase();
    let level = match level.as_str() {
        "none" | "disabled" => "off",
        "fatal" | "panic" => "error",
        level => level,
    };
    c.set("log.level", "log.level", &level.into());
}

fn api(c: &mut Conversion) {
    let key = c.from.text("http_api.key");
    let is_open = c.from.switch("http_api.insecure");
    let is_off = c.from.switch("http_api.disabled");
    let grpc = c.from.differs("grpc_api.enabled");
    if is_off || (key.is_empty() && !is_open) {
        let why = if is_off { "http_api.disabled" } else { "http_api.key" };
        c.to.comment("api", &format!("made up, so that no request is served, as with {why}"));
        let made_up = c.made_up_key.clone();
        c.set(why, "api.key", &Written::Text(made_up));
        let calls = "the server API cannot be turned off: api.key has been made up, which refuses all calls";
        if is_off || grpc {
            c.note(why, calls);
        }
    } else if is_open {
        c.note("http_api.insecure", "every client that reaches the server API may call it");
        c.is_insecure = true;
    } else {
        c.set("http_api.key", "api.key", &Written::Text(with_variables(&key)));
    }
    match c.from.text("http_api.error_mode").as_str() {
        "" => {}
        mode => c.set("http_api.error_mode", "api.error_mode", &mode.into()),
    }
}
