//! Numbers with units, parsed and displayed: "64 KiB", "1.5 s", "1m30s".

use std::fmt;
use std::time::Duration;

/// Parses a whole number: `1000000`, `1_000_000` or `1e6`.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let read = |text: &str| text.replace('_', "").parse::<u64>().ok();
    let exponent = read(exponent).filter(|_| is_number(number) && is_number(exponent));
    let factor = exponent.and_then(|exponent| 10_u64.checked_pow(u32::try_from(exponent).ok()?));
    let count = read(number).zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    count.ok_or_else(|| format!("'{text}' is not a whole number"))
}

/// Parses a number of bytes: a whole number with an optional unit, `B`, `KiB`, `MiB` or `GiB`; `K`, `M` and `G` are the
/// same powers of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit, rest) = next_part(text.trim());
    if !rest.is_empty() {
        return Err(format!(
            "'{text}' is not a size: write a whole number and one unit, such as 64 KiB"
        ));
    }
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" | "kb" => 1 << 10,
        "m" | "mib" | "mb" => 1 << 20,
        "g" | "gib" | "gb" => 1 << 30,
        _ => return Err(format!("'{unit}' is not a unit of bytes: use B, KiB, MiB or GiB")),
    };
    // Fractions of a byte and signs are refused.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "'{text}' is not a size: write a whole number and a unit, such as 64 KiB"
        ));
    }
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("'{text}' is too large"))
}

/// Parses a duration: a decimal number with an optional unit, `ms`, `s` (the default), `min`, `h`, `d`; or the sum of
/// several numbers with units: `1m30s`.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let (mut rest, mut parts) = (text.trim(), 0);
    while parts == 0 || !rest.is_empty() {
        let (number, unit, behind) = next_part(rest);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" if parts == 0 && behind.is_empty() => 1.0,
            "s" | "sec" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(format!("'{text}' has no unit: use ms, s, min, h or d")),
            _ => return Err(format!("'{unit}' is not a unit of time: use ms, s, min, h or d")),
        };
        // `f64` parses more than decimal numbers (inf, 1e9), which is refused here.
        let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = number
            .parse()
            .ok()
            .filter(|_| is_decimal)
            .ok_or_else(|| format!("'{number}' is not a number"))?;
        total = Duration::try_from_secs_f64(number * factor)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("'{text}' is out of range"))?;
        (rest, parts) = (behind, parts + 1);
    }
    Ok(total)
}

/// Splits a text into a number, the unit that follows it, and the rest.
fn next_part(text: &str) -> (&str, &str, &str) {
    let is_letter = |c: char| c.is_ascii_alphabetic();
    let (number, rest) = text.split_at(text.find(is_letter).unwrap_or(text.len()));
    let (unit, rest) = rest.split_at(rest.find(|c| !is_letter(c)).unwrap_or(rest.len()));
    (number.trim(), unit, rest.trim())
}

/// Displays a number of bytes in the largest unit that gives a whole number, as [`parse_bytes`] accepts it.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

/// Displays a duration in the largest unit that gives a whole number, as [`parse_seconds`] accepts it.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Duration);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
        let fits = |unit: &(&str, u64)| self.0 >= unit.1 && self.0.is_multiple_of(unit.1);
        let (name, bytes) = units.into_iter().find(fits).unwrap_or(("B", 1));
        write!(out, "{} {name}", self.0 / bytes)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
        let seconds = self.0.as_secs();
        let fits = |unit: &(&str, u64)| seconds >= unit.1 && seconds.is_multiple_of(unit.1);
        let milliseconds = self.0.as_secs_f64() * 1000.0;
        match units.into_iter().find(fits) {
            Some((name, unit)) if self.0.subsec_nanos() == 0 => {
                write!(out, "{} {name}", seconds / unit)
            }
            _ if seconds > 0 => write!(out, "{} s", self.0.as_secs_f64()),
            _ if self.0.is_zero() => write!(out, "0 s"),
            _ => write!(out, "{milliseconds} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_numbers_with_underscores_or_an_exponent() {
        for text in ["1000000", "1_000_000", "1e6", "10E5", " 1_0e5 "] {
            assert_eq!(parse_count(text), Ok(1_000_000), "{text}");
        }
        assert_eq!(parse_count("18446744073709551615"), Ok(u64::MAX));
        for text in [
            "",
            "_",
            "e6",
            "1e",
            "1e20",
            "18446744073709551616",
            "-1",
            "+1",
            "1.5e6",
            "0x1",
            "1,000",
            "1e-1",
        ] {
            assert!(parse_count(text).unwrap_err().contains("whole number"), "{text}");
        }
    }

    #[test]
    fn bytes_have_optional_units() {
        assert_eq!(parse_bytes("512"), Ok(512));
        assert_eq!(parse_bytes("64 KiB"), Ok(65_536));
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        for text in ["1.5 KiB", "-1", "+1", "", "KiB"] {
            assert!(parse_bytes(text).unwrap_err().contains("a whole number"), "{text}");
        }
        assert!(parse_bytes("12 parsecs").unwrap_err().contains("parsecs"));
        for text in ["18446744073709551615 GiB", "18446744073709551616", "99999999999999999999 B"] {
            assert!(parse_bytes(text).unwrap_err().contains("too large"), "{text}");
        }
        assert!(parse_bytes("1 MiB 5 KiB").unwrap_err().contains("one unit"));
    }

    #[test]
    fn durations_have_units_and_add_up() {
        let milliseconds = |text| parse_seconds(text).map(|time| time.as_millis());
        assert_eq!(milliseconds("25"), Ok(25_000));
        assert_eq!(milliseconds("1.5 s"), Ok(1500));
        assert_eq!(milliseconds("250ms"), Ok(250));
        assert_eq!(milliseconds("2 min"), Ok(120_000));
        assert_eq!(milliseconds("1m30s"), Ok(90_000));
        assert_eq!(milliseconds("1 d 2 h 3 ms"), Ok(93_600_003));
        for text in ["-1", "soon", "1e300", "", " ", "s", "1m30", "30 1m", "inf", "nan s", "1 s,"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
        assert!(parse_seconds("1m30").unwrap_err().contains("'1m30' has no unit"));
        assert!(parse_seconds("999999999999999999999 d").unwrap_err().contains("out of range"));
    }

    #[test]
    fn displayed_values_are_parsed_back() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (64 << 10, "64 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 20) + 1, "1048577 B"),
            (3 << 30, "3 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for (milliseconds, text) in [
            (0, "0 s"),
            (1, "1 ms"),
            (100, "100 ms"),
            (1500, "1.5 s"),
            (75_000, "75 s"),
            (90_000, "90 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (86_400_000, "1 d"),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(Time(time).to_string(), text);
            assert_eq!(parse_seconds(text), Ok(time));
        }
    }
}
