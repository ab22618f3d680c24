//! Makes a settings file of fantail from a configuration file of Centrifugo.

mod callbacks;
mod channels;
mod client;
mod conversion;
mod document;
mod keys;
mod server;
mod settings_file;
#[cfg(test)]
mod tests;
mod value;
mod yaml;

use serde_json::{Map, Value};

use conversion::Conversion;
use document::Document;
pub use document::Format;

/// A settings file, and what it lacks.
#[derive(Debug)]
pub struct Converted {
    /// The text of the settings file.
    pub settings: String,
    /// A sentence for each key that was not carried over, and for each difference.
    pub notes: Vec<String>,
}

/// Names of the tables of Centrifugo 6 that its older versions do not have.
const OF_6: &[&str] = &[
    "channel",
    "client",
    "http_api",
    "http_server",
    "rpc",
    "broker",
    "engine",
    "websocket",
    "node",
    "shutdown",
    "log",
    "sse",
    "http_stream",
    "emulation",
    "presence_manager",
];

/// Names of keys of Centrifugo 3 to 5 that 6 does not have.
const OF_5: &[&str] = &[
    "token_hmac_secret_key",
    "token_rsa_public_key",
    "token_ecdsa_public_key",
    "token_jwks_public_endpoint",
    "allowed_origins",
    "namespaces",
    "api_key",
    "api_insecure",
    "admin_password",
    "admin_secret",
    "allow_subscribe_for_client",
    "allow_anonymous_connect_without_token",
    "history_size",
    "history_ttl",
    "proxy_connect_endpoint",
    "proxy_rpc_endpoint",
    "redis_address",
    "port",
    "address",
    "client_insecure",
    "uni_sse",
    "uni_websocket_ping_interval",
    "presence",
    "log_level",
    "health",
    "proxy_http_headers",
];

/// Converts a configuration. `made_up_key` is an API key for a server whose API is not to be called. The error names
/// what is wrong with the file.
pub fn convert(
    text: &str,
    format: Format,
    name: &str,
    made_up_key: &str,
) -> Result<Converted, String> {
    let table = format.parse(text)?;
    if let Some(key) = key_of_5(&table) {
        return Err(format!(
            "{key} is a key of Centrifugo 5: convert the file to Centrifugo 6 with the converter of its \
             documentation first (https://centrifugal.dev/docs/getting-started/migration_v6)"
        ));
    }
    let mut c = Conversion {
        from: Document::new(&table),
        made_up_key: made_up_key.to_owned(),
        ..Conversion::default()
    };
    server::convert(&mut c);
    client::convert(&mut c);
    channels::convert(&mut c);
    callbacks::convert(&mut c);
    c.finish();
    let settings = c.to.text(&format!("# Made from {name}, a configuration of Centrifugo 6.\n"));
    Ok(Converted { settings, notes: c.notes })
}

/// A key that says that the configuration is one of Centrifugo 5 or older.
fn key_of_5(table: &Map<String, Value>) -> Option<&str> {
    let has_table = |name: &&str| table.get(*name).is_some_and(Value::is_object);
    if OF_6.iter().any(has_table) {
        return None;
    }
    let is_old = |(key, value): &(&String, &Value)| {
        OF_5.contains(&key.to_ascii_lowercase().as_str()) && !value.is_object()
    };
    table.iter().find(is_old).map(|(key, _)| key.as_str())
}
