//! The stamp at the start of every payload: sequence number, time of sending, channel.
//!
//! A mark and eighteen digits of six bits each: plain text in every protocol, JSON included, and short enough for small
//! messages. Times count from the start of this process, so only the process that sent a stamp can use them.

/// Smallest payload: the size of a stamp.
pub const BYTES_MIN: usize = 20;

/// The stamp of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number in its stream, from 1.
    pub sequence: u32,
    /// Time of sending, in nanoseconds since the start of the run; 48 bits suffice for three days.
    pub sent_ns: u64,
    /// Channel number, 24 bits.
    pub channel: u32,
}

/// Appends a payload of `size` bytes, at least [`BYTES_MIN`].
pub fn write(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    let end = out.len() + size.max(BYTES_MIN);
    out.extend_from_slice(MARK);
    write_digits(out, u64::from(stamp.sequence), SEQUENCE_DIGITS);
    write_digits(out, stamp.sent_ns, TIME_DIGITS);
    write_digits(out, u64::from(stamp.channel), CHANNEL_DIGITS);
    out.resize(end, b'.');
}

/// Reads the stamp of a payload; `None` if c1m did not send it. A payload that passed through JSON may be in quotes.
pub fn read(payload: &[u8]) -> Option<Stamp> {
    let payload = payload.strip_prefix(b"\"").unwrap_or(payload);
    let digits = payload.strip_prefix(MARK)?;
    let (sequence, digits) = read_digits(digits, SEQUENCE_DIGITS)?;
    let (sent_ns, digits) = read_digits(digits, TIME_DIGITS)?;
    let (channel, _) = read_digits(digits, CHANNEL_DIGITS)?;
    Some(Stamp {
        sequence: u32::try_from(sequence).ok()?,
        sent_ns,
        channel: u32::try_from(channel).ok()?,
    })
}

fn write_digits(out: &mut Vec<u8>, value: u64, count: u32) {
    out.extend((0..count).rev().map(|place| DIGITS[(value >> (6 * place)) as usize & 63]));
}

fn read_digits(bytes: &[u8], count: u32) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count as usize)?;
    let value = digits.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        Some(value << 6 | u64::from(digit))
    })?;
    Some((value, rest))
}

const MARK: &[u8] = b"c1";
const SEQUENCE_DIGITS: u32 = 6;
const TIME_DIGITS: u32 = 8;
const CHANNEL_DIGITS: u32 = 4;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_from_payloads_of_any_size_and_from_quotes() {
        let stamp = Stamp { sequence: u32::MAX, sent_ns: (1 << 48) - 2, channel: 0xFF_FFFE };
        for size in [0, BYTES_MIN, BYTES_MIN + 1, 300] {
            let mut payload = vec![b'"'];
            write(&mut payload, stamp, size);
            assert_eq!(payload.len() - 1, size.max(BYTES_MIN));
            assert_eq!(read(&payload), Some(stamp));
            assert_eq!(read(&payload[1..]), Some(stamp));
        }
    }

    #[test]
    fn payloads_of_other_programs_have_no_stamp() {
        let mut payload = Vec::new();
        write(&mut payload, Stamp { sequence: 1, sent_ns: 2, channel: 3 }, 0);
        for end in 0..payload.len() {
            assert_eq!(read(&payload[..end]), None);
        }
        for place in 0..payload.len() {
            let mut other = payload.clone();
            other[place] = b'.';
            assert_eq!(read(&other), None, "{place}");
        }
    }
}
