//! Human units: "64 KiB", "1.5 s".

use std::time::Duration;

/// Bytes: a whole number with an optional unit, `B`, `KiB`, `MiB`, `GiB` (or `K`, `M`, `G`, the same powers of 1024).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" | "kb" => 1 << 10,
        "m" | "mib" | "mb" => 1 << 20,
        "g" | "gib" | "gb" => 1 << 30,
        _ => return Err(format!("'{unit}' is no unit of bytes: use B, KiB, MiB or GiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("'{number}' is no whole number of {factor} bytes"))?;
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large"))
}

/// Time: a decimal number with an optional unit, `ms`, `s` (the default), `min`, `h`.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is no unit of time: use ms, s, min or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{number}' is no number"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| format!("'{text}' is out of range"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number.trim(), unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_units() {
        assert_eq!(parse_bytes("512"), Ok(512));
        assert_eq!(parse_bytes("64 KiB"), Ok(65_536));
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert!(parse_bytes("1.5 KiB").is_err());
        assert!(parse_bytes("12 parsecs").unwrap_err().contains("parsecs"));
        assert!(parse_bytes("18446744073709551615 GiB").is_err());
        assert!(parse_bytes("").is_err());
    }

    #[test]
    fn seconds_take_units() {
        assert_eq!(parse_seconds("25"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_seconds("1.5 s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_seconds("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_seconds("2 min"), Ok(Duration::from_secs(120)));
        assert!(parse_seconds("-1").is_err());
        assert!(parse_seconds("soon").is_err());
        assert!(parse_seconds("1e300").is_err());
    }
}
