//! Reads the sections `[api.keys.NAME]`.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::value::{At, one, texts};
use crate::config::limits::{API_KEY_BYTES_MAX, API_KEYS_MAX};
use crate::config::nearest::did_you_mean;
use crate::config::{API_KEY_OPTIONS, ApiKey, ApiMethods, Namespaces, Secret};

/// Reads the keys of the server API; returns them and what is wrong with them.
pub(super) fn read_api_keys(
    key: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> (Vec<At<ApiKey>>, Vec<At<String>>) {
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    let DeValue::Table(table) = value.get_ref() else {
        let fault = "api.keys is a section: write [api.keys.NAME]".to_owned();
        return (keys, vec![(key.span().start, fault)]);
    };
    for (name, value) in table {
        let at = name.span().start;
        let name = name.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let fault = format!("api.keys.{name} is a section: write [api.keys.{name}]");
            faults.push((at, fault));
            continue;
        };
        if keys.len() >= API_KEYS_MAX {
            faults.push((at, format!("api.keys: there are at most {API_KEYS_MAX}")));
            break;
        }
        let (key, mut of_key) = read_api_key(name, table);
        let secrets = ["key", "key_file"].map(|name| usize::from(table.contains_key(name)));
        let checked = match secrets.iter().sum() {
            1 => key.check(),
            _ => Err(format!("[api.keys.{name}]: it needs either key or key_file")),
        };
        if of_key.is_empty() {
            of_key.extend(checked.err().map(|fault| (at, fault)));
        }
        faults.append(&mut of_key);
        keys.push((at, key));
    }
    (keys, faults)
}

fn read_api_key(name: &str, table: &DeTable<'_>) -> (ApiKey, Vec<At<String>>) {
    let mut key = ApiKey::new(name);
    let mut faults = Vec::new();
    for (option, value) in table {
        let at = value.span().start;
        let option = &**option.get_ref();
        if !API_KEY_OPTIONS.iter().any(|(name, _)| *name == option) {
            let hint = did_you_mean(option, API_KEY_OPTIONS.iter().map(|(name, _)| *name));
            faults.push((at, format!("[api.keys.{name}]: unknown option {option}{hint}")));
            continue;
        }
        let words = texts(value.get_ref()).map_err(|what| format!("it is {what}"));
        let taken = words.and_then(|words| match option {
            "key" => one(words).map(|secret| key.secret = secret.into()),
            "key_file" => one(words)
                .and_then(|path| Secret::read(&path, API_KEY_BYTES_MAX))
                .map(|secret| key.secret = secret),
            "methods" => ApiMethods::parse(&words).map(|methods| key.rights.methods = methods),
            _ => {
                key.rights.namespaces = Some(words);
                Ok(())
            }
        });
        if let Err(fault) = taken {
            faults.push((at, format!("api.keys.{name}.{option}: {fault}")));
        }
    }
    (key, faults)
}

/// What is wrong with the namespaces of the keys, once all namespaces are known.
pub(super) fn unknown_namespaces(keys: &[At<ApiKey>], namespaces: &Namespaces) -> Vec<At<String>> {
    let mut faults = Vec::new();
    for (at, key) in keys {
        for name in key.rights.namespaces.iter().flatten().filter(|name| !namespaces.has(name)) {
            let hint = did_you_mean(name, namespaces.names());
            let fault = format!("[api.keys.{}]: unknown namespace '{name}'{hint}", key.name);
            faults.push((*at, fault));
        }
    }
    faults
}
