//! Values of the settings file.

use toml::Spanned;
use toml::de::DeValue;

/// Something and its place in the file, in bytes.
pub(super) type At<T> = (usize, T);

/// A value of the file as text, like that of a flag.
pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "a number that is too large"),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is_set) => Ok(is_set.to_string()),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("a list in a list"),
        DeValue::Table(_) => Err("a section"),
    };
    match value {
        DeValue::Array(values) => values.iter().map(Spanned::get_ref).map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

/// A fault with the range of values, unless it names that already.
pub(super) fn with_range(fault: &str, range: &str) -> String {
    if fault.contains(range) { fault.to_owned() } else { format!("{fault}; it must be {range}") }
}

/// The value of an option that takes one value.
pub(super) fn one(mut words: Vec<String>) -> Result<String, String> {
    match words.pop() {
        Some(word) if words.is_empty() => Ok(word),
        _ => Err("it takes one value, not a list".to_owned()),
    }
}
