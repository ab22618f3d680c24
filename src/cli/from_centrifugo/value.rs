//! Values of a configuration file.

use std::time::Duration;

use serde_json::Value;

/// Levels of tables and lists in a file.
pub const DEPTH_MAX: usize = 32;

/// A single value as text.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(is_set) => Some(is_set.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads a time as Go does: `1h30m`, or nanoseconds. Zero and negative times are `Some(None)`.
pub fn parse_time(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    if let Ok(nanoseconds) = text.parse::<i64>() {
        return Some(u64::try_from(nanoseconds).ok().filter(|n| *n > 0).map(Duration::from_nanos));
    }
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(unit_at);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    if is_negative || seconds == 0.0 {
        return Some(None);
    }
    Duration::try_from_secs_f64(seconds).ok().map(Some)
}
