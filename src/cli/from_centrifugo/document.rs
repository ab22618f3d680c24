//! A configuration file of Centrifugo, read into its keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::value::{DEPTH_MAX, parse_time, scalar};
use super::{keys, yaml};

/// How the file is written. Centrifugo goes by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// YAML 1.2, one document.
    Yaml,
    /// TOML 1.0, as settings of fantail.
    Toml,
}

/// The keys of a configuration file, and which of them have been taken.
#[derive(Debug, Default)]
pub struct Document {
    keys: BTreeMap<String, Key>,
    /// A key, and what is wrong with its value.
    pub faults: Vec<(String, String)>,
}

#[derive(Debug)]
struct Key {
    value: Value,
    is_taken: bool,
}

/// Keys whose value is a list of tables, each with keys of its own.
const LISTS: &[&str] = &["channel.namespaces", "rpc.namespaces", "proxies", "consumers"];

impl Format {
    /// The format of a file with this name.
    pub fn of(path: &Path) -> Result<Self, String> {
        let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
        match end.as_deref() {
            Some("json") => Ok(Self::Json),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("toml") => Ok(Self::Toml),
            _ => {
                Err("its name ends with .json, .yaml, .yml or .toml, as Centrifugo wants it"
                    .to_owned())
            }
        }
    }

    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        }
    }

    /// The table that a file contains. The error names the place.
    pub fn parse(self, text: &str) -> Result<Map<String, Value>, String> {
        let value = match self {
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string())?,
            Self::Yaml => yaml::parse(text)?,
            Self::Toml => of_toml(text)?,
        };
        match value {
            Value::Object(table) if depth_is_bounded(&table, 0) => Ok(table),
            Value::Object(_) => Err(format!("more than {DEPTH_MAX} levels of tables and lists")),
            Value::Null => Ok(Map::new()),
            _ => Err("it is not a table of keys".to_owned()),
        }
    }
}

fn depth_is_bounded(table: &Map<String, Value>, depth: usize) -> bool {
    fn is_bounded(value: &Value, depth: usize) -> bool {
        match value {
            Value::Object(table) => depth_is_bounded(table, depth),
            Value::Array(values) => {
                depth < DEPTH_MAX && values.iter().all(|value| is_bounded(value, depth + 1))
            }
            _ => true,
        }
    }
    depth < DEPTH_MAX && table.values().all(|value| is_bounded(value, depth + 1))
}

fn of_toml(text: &str) -> Result<Value, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = &text.as_bytes()[..at.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        format!("{} at line {line} column {column}", error.message())
    })?;
    Ok(of_table(table.get_ref()))
}

fn of_table(table: &DeTable<'_>) -> Value {
    let keys = table.iter().map(|(key, value)| (key.get_ref().to_string(), of(value.get_ref())));
    Value::Object(keys.collect())
}

fn of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(is_set) => Value::Bool(*is_set),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(values) => values.iter().map(|value| of(value.get_ref())).collect(),
        DeValue::Table(table) => of_table(table),
    }
}

impl Document {
    /// The keys of a table. They are spelt in any case, as with Centrifugo.
    pub fn new(table: &Map<String, Value>) -> Self {
        let mut document = Self::default();
        document.add_table("", table);
        document
    }

    fn add_table(&mut self, path: &str, table: &Map<String, Value>) {
        for (key, value) in table {
            let key = key.to_ascii_lowercase();
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                Value::Object(table) if !keys::is_known(&path) => self.add_table(&path, table),
                Value::Array(values) if LISTS.contains(&path.as_str()) => {
                    for (index, value) in values.iter().enumerate() {
                        let path = format!("{path}[{index}]");
                        match value {
                            Value::Object(table) => self.add_table(&path, table),
                            value => self.add(path, value),
                        }
                    }
                }
                value => self.add(path, value),
            }
        }
    }

    fn add(&mut self, path: String, value: &Value) {
        self.keys.insert(path, Key { value: value.clone(), is_taken: false });
    }

    /// Number of tables in a list.
    pub fn count(&self, list: &str) -> usize {
        let index = |key: &str| -> Option<usize> {
            let (number, _) = key.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
            number.parse().ok()
        };
        self.keys.keys().filter_map(|key| index(key)).max().map_or(0, |last| last + 1)
    }

    /// The keys that have not been taken, with their values.
    pub fn left(&self) -> impl Iterator<Item = (&str, &Value)> {
        let left = self.keys.iter().filter(|(_, key)| !key.is_taken);
        left.map(|(path, key)| (path.as_str(), &key.value))
    }

    /// Whether a key is set to another value than its default. It is not taken.
    pub fn differs(&self, path: &str) -> bool {
        self.keys.get(path).is_some_and(|key| !keys::is_default(path, &key.value))
    }

    /// Marks a key as taken, and returns its value, if it is set.
    pub fn take(&mut self, path: &str) -> Option<Value> {
        let key = self.keys.get_mut(path)?;
        key.is_taken = true;
        Some(key.value.clone()).filter(|value| !value.is_null())
    }

    /// Marks the keys of a namespace as taken, but for its groups of keys.
    pub fn take_all(&mut self, namespace: &str) {
        for (path, key) in &mut self.keys {
            let option = path.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('.'));
            key.is_taken |= option.is_some_and(|option| !option.contains('.'));
        }
    }

    /// Takes a text, or the default.
    pub fn text(&mut self, path: &str) -> String {
        let default = || keys::default_of(path).to_owned();
        let Some(value) = self.take(path) else { return default() };
        scalar(&value).unwrap_or_else(|| {
            self.fault(path, &value, "a text");
            default()
        })
    }

    /// Takes true or false.
    pub fn switch(&mut self, path: &str) -> bool {
        let Some(value) = self.take(path) else { return false };
        match scalar(&value).map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("true" | "1" | "t") => true,
            Some("false" | "0" | "f" | "") => false,
            _ => {
                self.fault(path, &value, "true or false");
                false
            }
        }
    }

    /// Takes a whole number, or the default.
    pub fn number(&mut self, path: &str) -> i64 {
        let default = || keys::default_of(path).parse().unwrap_or(0);
        let Some(value) = self.take(path) else { return default() };
        let text = scalar(&value).unwrap_or_else(|| "?".to_owned());
        if text.is_empty() {
            return default();
        }
        text.trim().parse().unwrap_or_else(|_| {
            self.fault(path, &value, "a whole number");
            default()
        })
    }

    /// Takes a time, or the default; `None` if it is zero or less.
    pub fn time(&mut self, path: &str) -> Option<Duration> {
        let default = || parse_time(keys::default_of(path)).flatten();
        let Some(value) = self.take(path) else { return default() };
        let text = scalar(&value).unwrap_or_default();
        parse_time(&text).unwrap_or_else(|| {
            self.fault(path, &value, "a time such as 10s");
            default()
        })
    }

    /// Takes a list of texts. A text by itself is a list of one.
    pub fn list(&mut self, path: &str) -> Vec<String> {
        let Some(value) = self.take(path) else { return Vec::new() };
        let texts = match &value {
            Value::Array(values) => values.iter().map(scalar).collect(),
            value => scalar(value).map(|text| if text.is_empty() { vec![] } else { vec![text] }),
        };
        texts.unwrap_or_else(|| {
            self.fault(path, &value, "a list of texts");
            Vec::new()
        })
    }

    /// Takes a table of texts, or a list of tables that have `key` and `value`.
    pub fn pairs(&mut self, path: &str) -> Vec<(String, String)> {
        let Some(value) = self.take(path) else { return Vec::new() };
        let pairs: Option<Vec<_>> = match &value {
            Value::Object(table) => {
                table.iter().map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
            }
            Value::Array(rows) => {
                let pair =
                    |row: &Value| Some((scalar(row.get("key")?)?, scalar(row.get("value")?)?));
                rows.iter().map(pair).collect()
            }
            _ => None,
        };
        pairs.unwrap_or_else(|| {
            self.fault(path, &value, "a table of texts");
            Vec::new()
        })
    }

    fn fault(&mut self, path: &str, value: &Value, wanted: &str) {
        let mut shown = value.to_string();
        if let Some((cut, _)) = shown.char_indices().nth(40) {
            shown.truncate(cut);
            shown.push('…');
        }
        self.faults.push((path.to_owned(), format!("{shown} is not {wanted}")));
    }
}
