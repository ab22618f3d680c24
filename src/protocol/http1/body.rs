//! The body of a request: with a length or in chunks, RFC 9112 6 and 7.1.

use super::HttpFault;
use super::request_line::is_token_byte;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// A body of this many bytes.
    Length(u64),
    /// A body in chunks, each with its size.
    Chunked,
}

/// The next piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPart<'i> {
    /// Some bytes of the body, never empty.
    Data(&'i [u8]),
    /// All of the input was taken.
    NeedMore,
    /// The body has ended; the rest of the input is the next request.
    End,
}

/// Decodes a body from the bytes that follow its head.
///
/// Invariant: the bytes returned never exceed the limit, and chunk extensions and trailers have limits of their own.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of the body that may still arrive.
    allowance: u64,
    /// Bytes of chunk extensions and trailers that may still arrive.
    overhead_allowance: u32,
}

impl BodyDecoder {
    /// A decoder for one body. A declared length that exceeds the limit is a fault before any of it arrives.
    pub fn new(length: BodyLength, body_bytes_max: u64) -> Result<Self, HttpFault> {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::End,
            BodyLength::Length(length) if length > body_bytes_max => {
                return Err(HttpFault::BodyTooLarge);
            }
            BodyLength::Length(length) => State::Rest(length),
            BodyLength::Chunked => State::Framing(Framing::Size { value: 0, digits: 0 }),
        };
        Ok(Self { state, allowance: body_bytes_max, overhead_allowance: OVERHEAD_BYTES_MAX })
    }

    /// Takes bytes from the front of `input` up to the end of the next piece of the body.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<BodyPart<'i>, HttpFault> {
        loop {
            match self.state {
                State::End => return Ok(BodyPart::End),
                State::Rest(remaining) => {
                    let (data, remaining) = take_data(input, remaining);
                    self.state = if remaining == 0 { State::End } else { State::Rest(remaining) };
                    return Ok(data);
                }
                State::Chunk(remaining) => {
                    let (data, remaining) = take_data(input, remaining);
                    self.state = if remaining == 0 {
                        State::Framing(Framing::ChunkReturn)
                    } else {
                        State::Chunk(remaining)
                    };
                    return Ok(data);
                }
                State::Framing(framing) => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Ok(BodyPart::NeedMore);
                    };
                    *input = rest;
                    self.state = self.after_byte(framing, byte)?;
                }
            }
        }
    }

    /// Whether the body has ended.
    pub fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// The state after one byte of the framing around chunks.
    fn after_byte(&mut self, framing: Framing, byte: u8) -> Result<State, HttpFault> {
        let next = match (framing, byte) {
            (Framing::Size { value, digits: 1.. }, b'\r') => {
                Framing::SizeLineFeed { size: self.admit_chunk(value)? }
            }
            // RFC 9112 7.1.1: white space around the semicolon is bad, but allowed.
            (Framing::Size { value, digits: 1.. }, b';') => {
                Framing::Extension { size: self.admit_chunk(value)?, part: ExtensionPart::Start }
            }
            (Framing::Size { value, digits: 1.. }, b' ' | b'\t') => {
                self.spend_overhead(true, HttpFault::ChunkExtensionInvalid)?;
                Framing::Extension { size: self.admit_chunk(value)?, part: ExtensionPart::End }
            }
            (Framing::Size { value, digits }, _) => size_with_digit(value, digits, byte)?,
            (Framing::Extension { size, part }, b'\r') if part.may_end_line() => {
                Framing::SizeLineFeed { size }
            }
            (Framing::Extension { size, part }, _) => {
                let part = part.after(byte);
                self.spend_overhead(part.is_some(), HttpFault::ChunkExtensionInvalid)?;
                Framing::Extension { size, part: part.ok_or(HttpFault::ChunkExtensionInvalid)? }
            }
            (Framing::SizeLineFeed { size: 0 }, b'\n') => Framing::TrailerStart,
            (Framing::SizeLineFeed { size }, b'\n') => return Ok(State::Chunk(size)),
            (Framing::ChunkReturn, b'\r') => Framing::ChunkLineFeed,
            (Framing::ChunkLineFeed, b'\n') => Framing::Size { value: 0, digits: 0 },
            (Framing::TrailerStart, b'\r') => Framing::LastLineFeed,
            (Framing::TrailerName, b':') => Framing::TrailerValue,
            (Framing::TrailerStart | Framing::TrailerName, _) => {
                self.spend_overhead(is_token_byte(byte), HttpFault::TrailerInvalid)?;
                Framing::TrailerName
            }
            (Framing::TrailerValue, b'\r') => Framing::TrailerLineFeed,
            (Framing::TrailerValue, _) => {
                self.spend_overhead(is_text(byte), HttpFault::TrailerInvalid)?;
                framing
            }
            (Framing::TrailerLineFeed, b'\n') => Framing::TrailerStart,
            (Framing::LastLineFeed, b'\n') => return Ok(State::End),
            (Framing::TrailerLineFeed | Framing::LastLineFeed, _) => {
                return Err(HttpFault::TrailerInvalid);
            }
            (Framing::SizeLineFeed { .. } | Framing::ChunkReturn | Framing::ChunkLineFeed, _) => {
                return Err(HttpFault::ChunkEndInvalid);
            }
        };
        Ok(State::Framing(next))
    }

    /// Checks a chunk on its declared size, so that the decoder does not wait for bytes that it would refuse.
    fn admit_chunk(&mut self, size: u64) -> Result<u64, HttpFault> {
        self.allowance = self.allowance.checked_sub(size).ok_or(HttpFault::BodyTooLarge)?;
        Ok(size)
    }

    /// Counts a byte of extensions or trailers. They are ignored, so their total is limited: a body of one-byte chunks
    /// with long extensions would otherwise cost far more than its size.
    fn spend_overhead(&mut self, is_allowed: bool, fault: HttpFault) -> Result<(), HttpFault> {
        let allowance = self.overhead_allowance.checked_sub(1).filter(|_| is_allowed);
        self.overhead_allowance = allowance.ok_or(fault)?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a body with a length, of which this many bytes are missing.
    Rest(u64),
    /// In a chunk, of which this many bytes are missing.
    Chunk(u64),
    /// In the framing between chunks.
    Framing(Framing),
    /// After the end of the body.
    End,
}

/// Positions in the extensions of a chunk: `;` name, optionally followed by `=` and a token or a quoted string (RFC
/// 9112 7.1.1). Servers that disagree about such a line allow request smuggling, so nothing else passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionPart {
    /// After the semicolon, before the name.
    Start,
    Name,
    /// After the name, in white space.
    NameEnd,
    /// After the equals sign, before the value.
    Equals,
    Value,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After an extension, in white space: another one follows.
    End,
    /// After a quoted string: the line may end.
    Unquoted,
}

impl ExtensionPart {
    fn may_end_line(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::Unquoted)
    }

    /// The position after `byte`; `None` if the byte is not allowed here.
    fn after(self, byte: u8) -> Option<Self> {
        let is_space = matches!(byte, b' ' | b'\t');
        match (self, byte) {
            (Self::Start | Self::NameEnd | Self::Equals | Self::End, _) if is_space => Some(self),
            (Self::Start | Self::Name, _) if is_token_byte(byte) => Some(Self::Name),
            (Self::Name | Self::NameEnd, b'=') => Some(Self::Equals),
            (Self::Equals, b'"') => Some(Self::Quoted),
            (Self::Equals | Self::Value, _) if is_token_byte(byte) => Some(Self::Value),
            (Self::Quoted, b'"') => Some(Self::Unquoted),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::Quoted, _) if is_text(byte) => Some(Self::Quoted),
            (Self::Escaped, _) if is_text(byte) => Some(Self::Quoted),
            (Self::Name, _) if is_space => Some(Self::NameEnd),
            (Self::Value | Self::Unquoted, _) if is_space => Some(Self::End),
            (Self::Start | Self::Equals | Self::Quoted | Self::Escaped, _) => None,
            (_, b';') => Some(Self::Start),
            _ => None,
        }
    }
}

/// Positions in the framing around chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// In the size of a chunk.
    Size { value: u64, digits: u8 },
    /// In the extensions that follow the size (RFC 9112 7.1.1).
    Extension { size: u64, part: ExtensionPart },
    /// After the CR of a size line.
    SizeLineFeed { size: u64 },
    /// After the data of a chunk.
    ChunkReturn,
    /// After the CR that follows a chunk.
    ChunkLineFeed,
    /// At the start of a line of the trailer section (RFC 9112 7.1.2).
    TrailerStart,
    /// In the name of a trailer.
    TrailerName,
    /// In the value of a trailer.
    TrailerValue,
    /// After the CR of a trailer.
    TrailerLineFeed,
    /// After the CR of the empty line that ends the body.
    LastLineFeed,
}

/// Takes the available bytes of the next `remaining` ones, and returns how many are still missing.
fn take_data<'i>(input: &mut &'i [u8], remaining: u64) -> (BodyPart<'i>, u64) {
    let count = remaining.min(input.len() as u64);
    if count == 0 {
        return (BodyPart::NeedMore, remaining);
    }
    let (data, rest) = input.split_at(count as usize);
    *input = rest;
    (BodyPart::Data(data), remaining - count)
}

fn size_with_digit(value: u64, digits: u8, byte: u8) -> Result<Framing, HttpFault> {
    let digit = char::from(byte).to_digit(16).ok_or(HttpFault::ChunkSizeInvalid)?;
    // Sixteen digits fill 64 bits. Leading zeros count as well, so that a size line is not endless.
    if digits == 16 {
        return Err(HttpFault::ChunkSizeInvalid);
    }
    Ok(Framing::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
}

/// Whether a field value may contain the byte (RFC 9110 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

/// Most bytes of extensions and trailers in one body.
const OVERHEAD_BYTES_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(length: BodyLength, max: u64, text: &[u8]) -> Result<(Vec<u8>, bool), HttpFault> {
        let mut decoder = BodyDecoder::new(length, max)?;
        let (mut input, mut body) = (text, Vec::new());
        loop {
            match decoder.next(&mut input)? {
                BodyPart::Data(data) => body.extend_from_slice(data),
                BodyPart::NeedMore => return Ok((body, false)),
                BodyPart::End => return Ok((body, true)),
            }
        }
    }

    fn chunked(text: &str) -> Result<(Vec<u8>, bool), HttpFault> {
        decode(BodyLength::Chunked, 1000, text.as_bytes())
    }

    #[test]
    fn a_body_with_a_length_ends_there_and_leaves_the_next_request() {
        let mut input: &[u8] = b"hellGET /";
        let mut decoder = BodyDecoder::new(BodyLength::Length(4), 4).unwrap();
        assert_eq!(decoder.next(&mut input), Ok(BodyPart::Data(b"hell")));
        assert_eq!(decoder.next(&mut input), Ok(BodyPart::End));
        assert!(decoder.is_at_end());
        assert_eq!(input, b"GET /");
        let past = BodyDecoder::new(BodyLength::Length(5), 4);
        assert_eq!(past.map(|_| ()), Err(HttpFault::BodyTooLarge));
        assert_eq!(decode(BodyLength::None, 0, b"x"), Ok((vec![], true)));
    }

    #[test]
    fn chunks_are_joined_and_extensions_and_trailers_ignored() {
        let text = "5;a=\"b\"\r\nhello\r\n0A ; b = c;d\r\n, 10 bytes\r\n0\r\nA: b\r\nC:\r\n\r\n";
        assert_eq!(chunked(text), Ok((b"hello, 10 bytes".to_vec(), true)));
        for end in 0..text.len() {
            assert!(chunked(&text[..end]).is_ok_and(|(_, ended)| !ended), "{end}");
        }
    }

    #[test]
    fn a_size_is_followed_by_its_line_end_or_by_extensions_as_they_are_defined() {
        for line in ["1;a", "1;a=b", "1 ;\ta", "1;a=\"\\\" ;\"", "1; a =\tb ;c", "1;a=\"\""] {
            assert_eq!(chunked(&format!("{line}\r\nx")), Ok((b"x".to_vec(), false)), "{line:?}");
        }
        for line in [
            "1 ",
            "1 1",
            "1 a",
            "1;",
            "1;;a",
            "1; ",
            "1;a ",
            "1;a=",
            "1;a=b c",
            "1;a b",
            "1;=b",
            "1;a=\"b",
            "1;a=\"b\"c",
            "1;(a)",
            "1;a=\"b\\",
            "1\t",
            "1;a=b ",
        ] {
            let refused = chunked(&format!("{line}\r\nx"));
            assert_eq!(refused, Err(HttpFault::ChunkExtensionInvalid), "{line:?}");
        }
    }

    #[test]
    fn chunk_sizes_that_are_not_numbers_are_faults() {
        for size in ["", "x", "-1", "+1", "0x1", " 1", "00000000000000001", ";"] {
            let text = format!("{size}\r\n");
            assert_eq!(chunked(&text), Err(HttpFault::ChunkSizeInvalid), "{size:?}");
        }
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(HttpFault::BodyTooLarge));
    }

    #[test]
    fn line_ends_in_chunks_are_strict() {
        for text in ["1\rX", "1\r\naX", "1\r\na\rX", "1\r\naa"] {
            assert_eq!(chunked(text), Err(HttpFault::ChunkEndInvalid), "{text:?}");
        }
        assert_eq!(chunked("1\n"), Err(HttpFault::ChunkSizeInvalid));
        assert_eq!(chunked("1;\n"), Err(HttpFault::ChunkExtensionInvalid));
        for text in ["\n", " a: b", "a b: c", "a\r", "a: \0", "a: b\n", "a: b\rX", "\rX"] {
            let text = format!("0\r\n{text}");
            assert_eq!(chunked(&text), Err(HttpFault::TrailerInvalid), "{text:?}");
        }
    }

    #[test]
    fn chunks_at_the_limit_pass_and_a_longer_one_is_refused_on_its_size() {
        let text = format!("3e8\r\n{}\r\n0\r\n\r\n", "a".repeat(1000));
        assert!(chunked(&text).is_ok_and(|(body, ended)| body.len() == 1000 && ended));
        assert_eq!(chunked("3e9\r"), Err(HttpFault::BodyTooLarge));
        let text = format!("3e8\r\n{}\r\n1\r\n", "a".repeat(1000));
        assert_eq!(chunked(&text), Err(HttpFault::BodyTooLarge));
    }

    #[test]
    fn extensions_and_trailers_at_the_limit_pass_and_longer_ones_are_faults() {
        let extension = "e".repeat(OVERHEAD_BYTES_MAX as usize);
        assert!(chunked(&format!("0;{extension}\r\n\r\n")).is_ok_and(|(_, ended)| ended));
        let text = format!("0;{extension}e");
        assert_eq!(chunked(&text), Err(HttpFault::ChunkExtensionInvalid));
        let text = format!("0\r\n{extension}e");
        assert_eq!(chunked(&text), Err(HttpFault::TrailerInvalid));
    }
}
