//! Reads the sections `[auth.keys.NAME]`.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::value::{At, one, texts};
use crate::config::callbacks::endpoint;
use crate::config::limits::{TOKEN_KEY_BYTES_MAX, TOKEN_KEYS_MAX};
use crate::config::nearest::did_you_mean;
use crate::config::{Secret, TOKEN_KEY_OPTIONS, TokenKey};

/// Reads the keys of tokens; returns them and what is wrong with them.
pub(super) fn read_token_keys(
    key: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> (Vec<TokenKey>, Vec<At<String>>) {
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    let DeValue::Table(table) = value.get_ref() else {
        let fault = "auth.keys is a section: write [auth.keys.NAME]".to_owned();
        return (keys, vec![(key.span().start, fault)]);
    };
    for (name, value) in table {
        let at = name.span().start;
        let name = name.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let fault = format!("auth.keys.{name} is a section: write [auth.keys.{name}]");
            faults.push((at, fault));
            continue;
        };
        if keys.len() >= TOKEN_KEYS_MAX {
            faults.push((at, format!("auth.keys: there are at most {TOKEN_KEYS_MAX}")));
            break;
        }
        let (key, mut of_key) = read_token_key(name, table);
        let given =
            ["key", "key_file", "jwks_url"].map(|name| usize::from(table.contains_key(name)));
        let checked = match given.iter().sum() {
            1 => key.check(),
            _ => Err(format!("[auth.keys.{name}]: it needs one of key, key_file and jwks_url")),
        };
        if of_key.is_empty() {
            of_key.extend(checked.err().map(|fault| (at, fault)));
        }
        faults.append(&mut of_key);
        keys.push(key);
    }
    (keys, faults)
}

fn read_token_key(name: &str, table: &DeTable<'_>) -> (TokenKey, Vec<At<String>>) {
    let mut key = TokenKey::new(name);
    let mut faults = Vec::new();
    for (option, value) in table {
        let at = value.span().start;
        let option = &**option.get_ref();
        if !TOKEN_KEY_OPTIONS.iter().any(|(name, _)| *name == option) {
            let hint = did_you_mean(option, TOKEN_KEY_OPTIONS.iter().map(|(name, _)| *name));
            faults.push((at, format!("[auth.keys.{name}]: unknown option {option}{hint}")));
            continue;
        }
        let words = texts(value.get_ref()).map_err(|what| format!("it is {what}"));
        let taken = words.and_then(|words| match option {
            "algorithm" => {
                TokenKey::parse_algorithms(&words).map(|algorithms| key.algorithms = algorithms)
            }
            "kid" => one(words).map(|id| key.id = Some(id)),
            "key" => one(words).map(|text| key.key = text.into()),
            "jwks_url" => {
                one(words).and_then(|text| endpoint(&text)).map(|url| key.jwks_url = Some(url))
            }
            "jwks_timeout" => one(words)
                .and_then(|text| TokenKey::parse_jwks_timeout(&text))
                .map(|timeout| key.jwks_timeout = timeout),
            _ => one(words)
                .and_then(|path| Secret::read(&path, TOKEN_KEY_BYTES_MAX))
                .map(|text| key.key = text),
        });
        if let Err(fault) = taken {
            faults.push((at, format!("auth.keys.{name}.{option}: {fault}")));
        }
    }
    (key, faults)
}
