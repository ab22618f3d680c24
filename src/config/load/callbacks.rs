//! Reads the sections `[callbacks]` and `[callbacks.KIND]`.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::value::{texts, with_range};
use crate::config::nearest::did_you_mean;
use crate::config::{CALLBACK_OPTIONS, Callback, CallbackKind, CallbackOption, Callbacks};

/// Something and its place in the file, in bytes.
type At<T> = (usize, T);

/// Reads the callbacks; returns them and what is wrong with them. What `[callbacks]` sets holds for every kind that
/// does not set it itself.
pub(super) fn read_callbacks(
    key: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> (Callbacks, Vec<At<String>>) {
    let (mut callbacks, mut faults) = (Callbacks::default(), Vec::new());
    let DeValue::Table(table) = value.get_ref() else {
        let fault = "callbacks is a section: write [callbacks]".to_owned();
        return (callbacks, vec![(key.span().start, fault)]);
    };
    let is_kind = |name: &str| CallbackKind::named(name).is_some();
    for (name, value) in table.iter().filter(|(name, _)| !is_kind(name.get_ref())) {
        let (at, name) = (value.span().start, &**name.get_ref());
        let option = CallbackOption::named(name).filter(|option| option.name != "endpoint");
        match (option, texts(value.get_ref()), value.get_ref()) {
            (_, _, DeValue::Table(_)) => {
                let hint = did_you_mean(name, CallbackKind::WORDS.iter().copied());
                faults.push((at, format!("unknown section [callbacks.{name}]{hint}")));
            }
            (None, Ok(mut words), _) if name == "ca_file" => {
                callbacks.ca_file = words.pop();
                if !words.is_empty() {
                    faults
                        .push((at, "callbacks.ca_file: it takes one value, not a list".to_owned()));
                }
            }
            (Some(option), words, _) => {
                let each = |callback: &mut Callback| {
                    words
                        .as_ref()
                        .map_err(|what| format!("it is {what}"))
                        .and_then(|words| option.parse(words, callback))
                };
                let fault = callbacks.all_mut().find_map(|callback| each(callback).err());
                faults.extend(fault.map(|fault| {
                    (at, format!("callbacks.{name}: {}", with_range(&fault, &option.range())))
                }));
            }
            (None, ..) => {
                let known = CALLBACK_OPTIONS.iter().map(|option| option.name).chain(["ca_file"]);
                let hint = did_you_mean(name, known.filter(|known| *known != "endpoint"));
                faults.push((at, format!("[callbacks]: unknown option {name}{hint}")));
            }
        }
    }
    for (name, value) in table {
        let Some(kind) = CallbackKind::named(name.get_ref()) else { continue };
        let section = format!("callbacks.{}", kind.word());
        match value.get_ref() {
            DeValue::Table(table) => {
                faults.append(&mut read_kind(&section, table, kind, &mut callbacks));
            }
            _ => {
                let fault = format!("{section} is a section: write [{section}]");
                faults.push((name.span().start, fault));
            }
        }
    }
    (callbacks, faults)
}

fn read_kind(
    section: &str,
    table: &DeTable<'_>,
    kind: CallbackKind,
    callbacks: &mut Callbacks,
) -> Vec<At<String>> {
    let mut faults = Vec::new();
    for (name, value) in table {
        let (at, name) = (value.span().start, &**name.get_ref());
        let words = texts(value.get_ref()).map_err(|what| format!("it is {what}"));
        if kind == CallbackKind::Events
            && let Ok(words) = &words
            && let Some(taken) = callbacks.events.parse(name, words)
        {
            faults.extend(taken.err().map(|fault| (at, format!("{section}.{name}: {fault}"))));
            continue;
        }
        let Some(option) = CallbackOption::named(name) else {
            let hint = did_you_mean(name, CALLBACK_OPTIONS.iter().map(|option| option.name));
            faults.push((at, format!("[{section}]: unknown option {name}{hint}")));
            continue;
        };
        let callback = callbacks.of_mut(kind);
        if let Err(fault) = words.and_then(|words| option.parse(&words, callback)) {
            faults.push((at, format!("{section}.{name}: {}", with_range(&fault, &option.range()))));
        }
    }
    faults
}
