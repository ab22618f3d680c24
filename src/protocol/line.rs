//! Newline-delimited frames, so that `nc` is a client.
//!
//! A CR before the LF belongs to the line end. A line that exceeds the limit is a fault, but the next LF still ends it,
//! so a caller may answer and continue.

use super::take_front;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// The line exceeds the limit; it is skipped up to its end.
    TooLong,
}

/// Decodes a stream into lines.
///
/// A line that is whole in the input is not copied. Only the start of an unfinished line moves to the heap.
#[derive(Debug, Default)]
pub struct LineDecoder {
    partial: Option<Box<Partial>>,
}

impl LineDecoder {
    /// A decoder without an unfinished line; it owns no heap.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes bytes from the front of `input` up to the end of the next line, and returns the line without its end.
    /// `None`: all of the input was taken. A line of more than `line_bytes_max` bytes is a fault once, as soon as that
    /// is known; call again for the next line.
    pub fn next<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        line_bytes_max: usize,
    ) -> Result<Option<&'m mut [u8]>, LineFault> {
        if self.state() == Some(State::Delivered) {
            self.partial = None;
        }
        if self.state() == Some(State::Skipping) && take_line(input).is_some() {
            self.partial = None;
        }
        let Some(line) = take_line(input) else {
            let piece = std::mem::take(input);
            return self.store(piece, line_bytes_max).map(|()| None);
        };
        if self.partial.is_none() {
            return within(without_return(line), line_bytes_max).map(Some);
        }
        // The rest of the line is checked against the limit before it is stored.
        if let Err(fault) = self.store(line, line_bytes_max) {
            self.partial = None;
            return Err(fault);
        }
        let partial = self.partial.get_or_insert_default();
        partial.state = State::Delivered;
        within(without_return(&mut partial.bytes), line_bytes_max).map(Some)
    }

    /// Whether no line is unfinished.
    pub fn is_between_lines(&self) -> bool {
        matches!(self.state(), None | Some(State::Delivered))
    }

    /// Bytes of heap that the decoder owns.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }

    fn state(&self) -> Option<State> {
        self.partial.as_ref().map(|partial| partial.state)
    }

    /// Stores a piece of an unfinished line.
    fn store(&mut self, piece: &[u8], line_bytes_max: usize) -> Result<(), LineFault> {
        if piece.is_empty() {
            return Ok(());
        }
        let partial = self.partial.get_or_insert_default();
        if partial.state == State::Skipping {
            return Ok(());
        }
        let len = partial.bytes.len() + piece.len();
        // One byte more than the limit may still be the CR of the line's end.
        let may_fit =
            len <= line_bytes_max || (len == line_bytes_max + 1 && piece.ends_with(b"\r"));
        if !may_fit {
            partial.bytes = Vec::new();
            partial.state = State::Skipping;
            return Err(LineFault::TooLong);
        }
        partial.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// An unfinished line, which is on the heap.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// `bytes` are the start of a line.
    #[default]
    Filling,
    /// The line exceeds the limit, and its end has not arrived.
    Skipping,
    /// `bytes` are a whole line that was returned; the next call frees it.
    Delivered,
}

/// Appends the bytes that `write` appends, which must not contain an LF, as a line.
pub fn write_line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    debug_assert!(!out[start..].contains(&b'\n'));
    out.push(b'\n');
}

/// Takes the front of the input up to an LF, and returns it without the LF.
fn take_line<'i>(input: &mut &'i mut [u8]) -> Option<&'i mut [u8]> {
    let end = find_line_feed(input)?;
    Some(&mut take_front(input, end + 1)[..end])
}

fn within(line: &mut [u8], line_bytes_max: usize) -> Result<&mut [u8], LineFault> {
    if line.len() <= line_bytes_max { Ok(line) } else { Err(LineFault::TooLong) }
}

fn without_return(line: &mut [u8]) -> &mut [u8] {
    let len = line.len() - usize::from(line.ends_with(b"\r"));
    &mut line[..len]
}

/// The index of the first LF. Blocks without one are skipped as vectors.
fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<32>();
    let has_line_feed =
        |block: &[u8; 32]| block.iter().fold(false, |found, &byte| found | (byte == b'\n'));
    let passed = blocks.iter().take_while(|block| !has_line_feed(block)).count() * 32;
    let index = bytes[passed..].iter().position(|&byte| byte == b'\n')?;
    Some(passed + index)
}

const _: () = assert!(size_of::<LineDecoder>() == 8, "an idle decoder is one empty pointer");

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = Vec<Result<Vec<u8>, LineFault>>;

    fn lines(decoder: &mut LineDecoder, bytes: &[u8], max: usize) -> Lines {
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut lines = Vec::new();
        loop {
            match decoder.next(&mut input, max) {
                Ok(Some(line)) => lines.push(Ok(line.to_vec())),
                Ok(None) => return lines,
                Err(fault) => lines.push(Err(fault)),
            }
        }
    }

    fn ok(line: &str) -> Result<Vec<u8>, LineFault> {
        Ok(line.as_bytes().to_vec())
    }

    #[test]
    fn lines_end_in_lf_or_cr_lf() {
        let mut decoder = LineDecoder::new();
        let found = lines(&mut decoder, b"a\nb\r\n\n\r\nc\rd\r\r\nrest", 10);
        assert_eq!(found, [ok("a"), ok("b"), ok(""), ok(""), ok("c\rd\r")]);
        assert!(!decoder.is_between_lines());
        assert_eq!(lines(&mut decoder, b"!\n", 10), [ok("rest!")]);
        assert!(decoder.is_between_lines());
        assert_eq!(decoder.buffered_bytes(), 0);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_a_longer_one_is_a_fault_that_leaves_the_next_line_intact() {
        for end in ["\n", "\r\n"] {
            let text = format!("1234{end}12345{end}123456789{end}1{end}");
            let expected = [ok("1234"), Err(LineFault::TooLong), Err(LineFault::TooLong), ok("1")];
            assert_eq!(lines(&mut LineDecoder::new(), text.as_bytes(), 4), expected);
        }
    }

    #[test]
    fn an_endless_line_is_one_fault_and_takes_no_growing_memory() {
        let mut decoder = LineDecoder::new();
        assert_eq!(lines(&mut decoder, b"12345", 4), [Err(LineFault::TooLong)]);
        for _ in 0..100 {
            assert_eq!(lines(&mut decoder, &[b'x'; 1000], 4), []);
            assert!(decoder.buffered_bytes() <= size_of::<Partial>());
        }
        assert_eq!(lines(&mut decoder, b"x\nok\n", 4), [ok("ok")]);
    }

    #[test]
    fn a_carriage_return_right_after_the_limit_waits_for_the_next_byte() {
        let mut decoder = LineDecoder::new();
        assert_eq!(lines(&mut decoder, b"1234\r", 4), []);
        assert_eq!(lines(&mut decoder, b"\n", 4), [ok("1234")]);
        assert_eq!(lines(&mut decoder, b"1234\r", 4), []);
        assert_eq!(lines(&mut decoder, b"x\n1\n", 4), [Err(LineFault::TooLong), ok("1")]);
    }

    #[test]
    fn a_line_feed_is_found_at_each_index() {
        for len in 0..100 {
            let mut bytes = vec![b'a'; len];
            assert_eq!(find_line_feed(&bytes), None);
            for index in 0..len {
                bytes[index] = b'\n';
                assert_eq!(find_line_feed(&bytes), Some(index));
                bytes[index] = b'a';
            }
        }
    }

    #[test]
    fn a_written_line_can_be_read() {
        let mut out = Vec::new();
        write_line(&mut out, |out| out.extend_from_slice(b"{}"));
        assert_eq!(lines(&mut LineDecoder::new(), &out, 2), [ok("{}")]);
    }
}
