//! Fossil deltas: what makes one version of a payload of the version before it (the delta format of fossil-scm.org,
//! `www/delta_format.wiki`). Clients of the command protocol apply them.
//!
//! A delta is the length of the target and a line feed; then instructions to copy bytes of the source
//! (`LENGTH@OFFSET,`) or to insert bytes (`LENGTH:BYTES`); and the checksum of the target with a semicolon. Numbers are
//! in base 64.
//!
//! What both versions begin and end with is found first, which is everything where one value has changed. The rest is
//! looked up in a table of fixed size, so that time is linear and memory constant, whatever the versions are. Inserted
//! bytes are whole characters where the target is UTF-8, so that its delta is UTF-8, too.

/// Appends the delta that makes `target` of `source`. Appends nothing and returns false if the target itself is not
/// longer.
pub fn write_delta(out: &mut Vec<u8>, source: &[u8], target: &[u8]) -> bool {
    let start = out.len();
    let mut delta = Delta { out, source, target, made: 0 };
    write_number(delta.out, target.len());
    delta.out.push(b'\n');
    let ahead = common_prefix(source, target);
    let behind = common_suffix(&source[ahead..], &target[ahead..]);
    delta.copy(0, 0, ahead);
    delta.look_up(ahead, target.len() - behind);
    delta.copy(source.len() - behind, target.len() - behind, behind);
    delta.insert_until(target.len());
    write_number(delta.out, checksum(target) as usize);
    delta.out.push(b';');
    let is_shorter = out.len() - start < target.len();
    if !is_shorter {
        out.truncate(start);
    }
    is_shorter
}

/// A delta that is being written.
struct Delta<'a> {
    out: &'a mut Vec<u8>,
    source: &'a [u8],
    target: &'a [u8],
    /// Bytes of the target that the instructions so far make.
    made: usize,
}

impl Delta<'_> {
    /// Copies what the target has from `start` to `end` and the source has anywhere.
    fn look_up(&mut self, start: usize, end: usize) {
        if end - start < WORD || self.source.len() < WORD {
            return;
        }
        let places = Places::of(self.source);
        // By how much what was found last stands further ahead in the source: a value of the same length may stand
        // between it and what is found next.
        let mut shift = 0_isize;
        let mut at = start;
        while at + WORD <= end {
            let word = word_at(self.target, at);
            let beside = at.checked_add_signed(shift).filter(|at| at + WORD <= self.source.len());
            let found = beside
                .filter(|at| word_at(self.source, *at) == word)
                .or_else(|| places.find(word).filter(|at| word_at(self.source, *at) == word));
            let Some(found) = found else {
                at += 1;
                continue;
            };
            let before = common_suffix(&self.source[..found], &self.target[self.made..at]);
            let from = at - before;
            let ahead = common_prefix(&self.source[found..], &self.target[at..end]);
            if before + ahead < COPY_BYTES_MIN {
                at += 1;
                continue;
            }
            self.copy(found - before, from, before + ahead);
            shift = found.wrapping_sub(at) as isize;
            at += ahead;
        }
    }

    /// Makes bytes of the target by a copy, and what is in front of them by an insertion. The ends of the copy move to
    /// the ends of characters; one that gets too short is not made.
    fn copy(&mut self, from: usize, at: usize, len: usize) {
        let (mut start, mut end) = (at, at + len);
        for _ in 0..CHARACTER_BYTES_MAX {
            start += usize::from(start < end && is_inside_character(self.target, start));
            end -= usize::from(end > start && is_inside_character(self.target, end));
        }
        if end - start < COPY_BYTES_MIN {
            return;
        }
        self.insert_until(start);
        write_number(self.out, end - start);
        self.out.push(b'@');
        write_number(self.out, from + (start - at));
        self.out.push(b',');
        self.made = end;
    }

    fn insert_until(&mut self, end: usize) {
        if self.made < end {
            write_number(self.out, end - self.made);
            self.out.push(b':');
            self.out.extend_from_slice(&self.target[self.made..end]);
            self.made = end;
        }
    }
}

/// Where words of the source are, as far as there is room: every few bytes one word, of those with the same hash the
/// first one.
struct Places([u32; 1 << PLACES_BITS]);

impl Places {
    fn of(source: &[u8]) -> Self {
        let mut places = [NOWHERE; 1 << PLACES_BITS];
        let step = WORD.max((source.len() >> PLACES_BITS).next_power_of_two());
        for at in (0..=source.len() - WORD).step_by(step) {
            let place = &mut places[hash(word_at(source, at))];
            if *place == NOWHERE {
                *place = u32::try_from(at).unwrap_or(NOWHERE);
            }
        }
        Self(places)
    }

    fn find(&self, word: u64) -> Option<usize> {
        let place = self.0[hash(word)];
        (place != NOWHERE).then_some(place as usize)
    }
}

/// Bytes of a word that is looked up.
const WORD: usize = 8;

/// A shorter copy takes about as many bytes as what it copies.
const COPY_BYTES_MIN: usize = 12;

/// Bytes that the end of a copy moves at most, to the end of a character.
const CHARACTER_BYTES_MAX: usize = 3;

/// The number of places in a table, as a power of two.
const PLACES_BITS: u32 = 12;

const NOWHERE: u32 = u32::MAX;

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + WORD].try_into().expect("as many bytes as a word has"))
}

fn hash(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_BITS)) as usize
}

/// Whether the byte at a place continues a character of UTF-8.
fn is_inside_character(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD));
    let same = WORD * words.take_while(|(a, b)| a == b).count();
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let words = a.rchunks_exact(WORD).zip(b.rchunks_exact(WORD));
    let same = WORD * words.take_while(|(a, b)| a == b).count();
    let rest = a[..a.len() - same].iter().rev().zip(b[..b.len() - same].iter().rev());
    same + rest.take_while(|(a, b)| a == b).count()
}

/// The sum of the words of 32 bits in network order, of which the last one ends in zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(4);
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    let words = words.map(|word| u32::from_be_bytes(word.try_into().expect("4 bytes")));
    words.fold(u32::from_be_bytes(last), u32::wrapping_add)
}

fn write_number(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(6).max(1);
    out.extend((0..digits).rev().map(|digit| DIGITS[(number >> (6 * digit)) & 63]));
}

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a delta as the decoders of centrifuge-js and centrifuge-go do.
    fn apply(source: &[u8], delta: &[u8]) -> Result<Vec<u8>, &'static str> {
        let rest = &mut &*delta;
        let (len, _) = number(rest, b"\n")?;
        let mut target = Vec::new();
        loop {
            match number(rest, b"@:;")? {
                (count, b'@') => {
                    let (offset, _) = number(rest, b",")?;
                    let copied = source.get(offset..offset + count).ok_or("a source")?;
                    target.extend_from_slice(copied);
                }
                (count, b':') => {
                    target.extend_from_slice(rest.split_off(..count).ok_or("bytes")?);
                }
                (sum, _) => {
                    let is_right = sum == checksum(&target) as usize && target.len() == len;
                    return if is_right && rest.is_empty() { Ok(target) } else { Err("a sum") };
                }
            }
        }
    }

    /// A number, and what ends it.
    fn number(rest: &mut &[u8], ends: &[u8]) -> Result<(usize, u8), &'static str> {
        let value_of = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
        let values: Vec<usize> = rest.iter().map_while(value_of).collect();
        let end = *rest.get(values.len()).filter(|byte| ends.contains(byte)).ok_or("an end")?;
        *rest = &rest[values.len() + 1..];
        let number = values.iter().fold(0, |number, value| number << 6 | value);
        (!values.is_empty()).then_some((number, end)).ok_or("a number")
    }

    /// The delta, which is applied and checked; `None` if there is none.
    fn delta(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_written = write_delta(&mut out, source, target);
        let delta = out.split_off(b"before".len());
        assert_eq!(out, b"before");
        assert_eq!(is_written, !delta.is_empty());
        if is_written {
            assert!(delta.len() < target.len());
            assert_eq!(apply(source, &delta).as_deref(), Ok(target));
            assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&delta).is_ok());
        }
        is_written.then_some(delta)
    }

    fn document(number: usize) -> String {
        let rows = (0..40).map(|row| {
            let value = if row == 20 { number } else { row * 7919 };
            format!("{{\"id\":{row},\"name\":\"row é {row}\",\"value\":{value}}}")
        });
        rows.collect::<Vec<_>>().join(",")
    }

    /// Bytes that look random and are the same each time.
    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (seed >> 33) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn a_delta_is_written_as_fossil_writes_it() {
        let source = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(2);
        let target = format!("{}!{}", &source[..40], &source[41..]);
        let delta = delta(source.as_bytes(), target.as_bytes()).unwrap();
        // 72 bytes: 40 from 0, one byte, 31 from 41.
        assert!(delta.starts_with(b"18\nd@0,1:!V@e,"), "{}", String::from_utf8_lossy(&delta));
        let mut number = Vec::new();
        write_number(&mut number, u32::MAX as usize);
        assert_eq!(number, b"3~~~~~");
        assert_eq!(checksum(b"\xff\xff\xff\xff\x00\x00\x00\x02\x01"), 0x0100_0001);
    }

    #[test]
    fn a_change_of_one_value_takes_a_few_bytes() {
        let before = document(7);
        for number in [8, 77, 123_456_789, 0] {
            let delta = delta(before.as_bytes(), document(number).as_bytes()).unwrap();
            assert!(delta.len() < 40, "{}", String::from_utf8_lossy(&delta));
        }
        // The same document once more.
        assert!(delta(before.as_bytes(), before.as_bytes()).unwrap().len() < 20);
    }

    #[test]
    fn values_that_move_or_change_in_many_places_are_found() {
        let before = document(7);
        let many = before.replace("\"value\":1", "\"value\":2").replace("row é 3", "line ü 3");
        assert!(delta(before.as_bytes(), many.as_bytes()).unwrap().len() < many.len() / 2);
        let (a, b) = before.split_at(before.len() / 2);
        let swapped = format!("{b},{a}");
        assert!(delta(before.as_bytes(), swapped.as_bytes()).unwrap().len() < 60);
        let doubled = before.repeat(2);
        assert!(delta(before.as_bytes(), doubled.as_bytes()).unwrap().len() < 60);
    }

    #[test]
    fn what_a_delta_does_not_make_shorter_has_none() {
        for (source, target) in [
            ("", ""),
            ("", "a"),
            ("a", ""),
            ("a", "a"),
            ("short", "shorter"),
            ("x", "a text that has nothing of the other one"),
        ] {
            assert_eq!(delta(source.as_bytes(), target.as_bytes()), None, "{source:?} {target:?}");
        }
        assert_eq!(delta(&noise(5000, 1), &noise(5000, 2)), None);
        assert!(delta(&[], &[0; 100_000]).is_none());
    }

    #[test]
    fn a_delta_of_text_is_text_wherever_it_differs() {
        // Characters of two to four bytes that share their first or last bytes.
        let characters = ["é", "è", "é", "ä", "漢", "漣", "字", "😀", "😁", "🙀", "a", "é"];
        let text = |seed: u64, changed: usize| -> String {
            let mut all = noise(400, seed);
            if let Some(byte) = all.get_mut(changed) {
                *byte = byte.wrapping_add(1);
            }
            all.iter().map(|byte| characters[usize::from(*byte) % characters.len()]).collect()
        };
        for seed in 0..20 {
            let before = text(seed, usize::MAX);
            for changed in (0..400).step_by(7) {
                let delta = delta(before.as_bytes(), text(seed, changed).as_bytes());
                assert!(delta.is_some_and(|delta| delta.len() < 60));
            }
        }
    }

    #[test]
    fn deltas_of_hostile_and_random_versions_are_right() {
        let (zeros, ones) = (vec![0; 70_000], vec![0x80; 70_000]);
        let periods: Vec<u8> = (0..70_000_u32).map(|at| (at % 13) as u8).collect();
        let others: Vec<u8> = (0..70_000_u32).map(|at| (at % 17) as u8).collect();
        for source in [&zeros, &ones, &periods, &others] {
            for target in [&zeros, &ones, &periods, &others] {
                delta(source, target);
                delta(&source[..1000], target);
                delta(source, &target[..1000]);
            }
        }
        for seed in 0..200 {
            let source = noise(seed as usize * 11, seed);
            let mut target = source.clone();
            for (at, other) in noise(8, seed + 1000).chunks(2).map(|two| (two[0], two[1])) {
                let at = usize::from(at) * target.len() / 256;
                match other % 3 {
                    0 => target.insert(at, other),
                    1 if at < target.len() => drop(target.remove(at)),
                    _ => drop(target.split_off(at.max(target.len() / 2))),
                }
            }
            delta(&source, &target);
        }
    }
}
