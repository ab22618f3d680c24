//! Checks the stream of each subscriber: every publication once, in order.
//!
//! A payload starts with its number in 16 hexadecimal digits, which are plain text in every protocol.

/// Number of faults in one or more streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Payloads without a valid number.
    pub unexpected: u64,
}

/// The stream of one subscriber.
#[derive(Default)]
pub struct Stream {
    /// `None` before the first publication: a stream may start at any number.
    next: Option<u64>,
    missing: Vec<u64>,
    /// Number of publications received, duplicates excluded.
    count: u64,
}

/// Classification of a received payload.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A publication received for the first time, with its number.
    New(u64),
    Repeated,
    Unexpected,
}

impl Stream {
    pub fn receive(&mut self, payload: &[u8], faults: &mut Faults) -> Arrival {
        let Some(number) = parse(payload) else {
            faults.unexpected += 1;
            return Arrival::Unexpected;
        };
        let next = *self.next.get_or_insert(number);
        if number < next {
            if let Some(place) = self.missing.iter().position(|&missing| missing == number) {
                self.missing.swap_remove(place);
                faults.lost -= 1;
                faults.reordered += 1;
                self.count += 1;
                return Arrival::New(number);
            }
            faults.duplicated += 1;
            return Arrival::Repeated;
        }
        self.skip_to(number, faults);
        self.next = Some(number + 1);
        self.count += 1;
        Arrival::New(number)
    }

    /// Number of publications received, duplicates excluded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the stream: publications before `end` that did not arrive are lost.
    pub fn finish(&mut self, end: u64, faults: &mut Faults) {
        self.skip_to(end, faults);
    }

    fn skip_to(&mut self, number: u64, faults: &mut Faults) {
        let next = self.next.unwrap_or(number);
        faults.lost += number.saturating_sub(next);
        self.missing.extend(next..number);
    }
}

impl Faults {
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.unexpected += other.unexpected;
    }

    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "unexpected": self.unexpected,
        })
    }
}

/// The payload of publication `number`.
pub fn payload(number: u64, size: usize) -> Vec<u8> {
    let mut payload = format!("{number:016x}").into_bytes();
    payload.resize(size.max(DIGITS), b'.');
    payload
}

/// The same in JSON: prices that change from one to the next, as a feed of them has.
pub fn prices(number: u64, size: usize) -> Vec<u8> {
    let mut payload = format!("{number:016x}[").into_bytes();
    let mut state = number;
    while payload.len() < size {
        // The generator of Knuth's MMIX.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (symbol, price) = (state >> 56, (state >> 32) % 100_000);
        let quote = format!("{{\"symbol\":\"S{symbol}\",\"bid\":{price},\"ask\":{}}},", price + 7);
        payload.extend_from_slice(quote.as_bytes());
    }
    payload.truncate(size.max(DIGITS));
    payload
}

/// A document of about `size` bytes in JSON that differs from the others in its number.
pub fn document(number: u64, size: usize) -> Vec<u8> {
    let mut text = format!("{DOCUMENT}{number:016x}\"");
    for field in 1_u64.. {
        let value = field.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let member = format!(",\"field{field}\":{value}");
        if text.len() + member.len() + 1 > size {
            break;
        }
        text.push_str(&member);
    }
    text.push('}');
    text.into_bytes()
}

fn parse(payload: &[u8]) -> Option<u64> {
    let payload = payload.strip_prefix(DOCUMENT.as_bytes()).unwrap_or(payload);
    payload.get(..DIGITS)?.iter().try_fold(0, |number, digit| {
        let value = (*digit as char).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}

const DIGITS: usize = 16;

/// What a document begins with.
const DOCUMENT: &str = "{\"number\":\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(numbers: &[u64], end: u64) -> Faults {
        let mut faults = Faults::default();
        let mut stream = Stream::default();
        for &number in numbers {
            stream.receive(&payload(number, 64), &mut faults);
        }
        stream.finish(end, &mut faults);
        faults
    }

    #[test]
    fn a_complete_stream_has_no_faults_wherever_it_starts() {
        assert!(!faults_of(&[7, 8, 9], 10).any());
    }

    #[test]
    fn gaps_duplicates_and_late_arrivals_are_distinguished() {
        let none = Faults::default();
        assert_eq!(faults_of(&[0, 2], 3), Faults { lost: 1, ..none });
        assert_eq!(faults_of(&[0, 1], 4), Faults { lost: 2, ..none });
        assert_eq!(faults_of(&[0, 1, 1], 2), Faults { duplicated: 1, ..none });
        assert_eq!(faults_of(&[0, 2, 1, 3], 4), Faults { reordered: 1, ..none });
        assert_eq!(faults_of(&[0, 2, 1, 1], 3), Faults { reordered: 1, duplicated: 1, ..none });
    }

    #[test]
    fn a_document_has_a_number_and_its_size() {
        let (mut faults, mut stream) = (Faults::default(), Stream::default());
        assert_eq!(stream.receive(&document(77, 2048), &mut faults), Arrival::New(77));
        assert!((2000..=2048).contains(&document(77, 2048).len()));
        assert!(!faults.any());
    }

    #[test]
    fn a_payload_without_a_number_is_strange() {
        let mut faults = Faults::default();
        assert_eq!(Stream::default().receive(b"hello", &mut faults), Arrival::Unexpected);
        assert_eq!(faults.unexpected, 1);
    }
}
