//! Transcripts: what is typed, what must be printed, and what may be another word each time.

use std::collections::BTreeMap;

/// A command of a transcript, and the lines that it must print.
#[derive(Clone, Debug)]
pub struct Typed {
    pub command: String,
    pub printed: Vec<String>,
}

/// The epochs and client ids of a document, and those that the server gave in their place.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, String>);

/// The commands of a transcript. A line that ends in a backslash goes on.
pub fn typed(text: &str) -> Vec<Typed> {
    let mut commands: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let begins = line.strip_prefix("$ ");
        if let Some(line) = begins {
            commands.push(Typed { command: line.to_owned(), printed: Vec::new() });
        } else {
            let command = commands.last_mut().expect("a transcript begins with a command");
            if goes_on {
                command.command += "\n";
                command.command += line;
            } else {
                command.printed.push(line.to_owned());
            }
        }
        goes_on = (goes_on || begins.is_some()) && line.ends_with('\\');
    }
    commands
}

impl Names {
    /// Whether what was printed is what is expected: `…` is any text or any lines, and each name is always the same.
    pub fn fits(&mut self, expected: &[String], printed: &str) -> bool {
        let printed: Vec<_> = printed.lines().map(|line| line.trim_end_matches('\r')).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        self.fit_lines(&expected, &printed)
    }

    /// A command with the names that the server gave.
    pub fn replaced(&self, command: &str) -> String {
        self.0.iter().fold(command.to_owned(), |text, (named, own)| text.replace(named, own))
    }

    fn fit_lines(&mut self, expected: &[&str], printed: &[&str]) -> bool {
        let Some((first, rest)) = expected.split_first() else { return printed.is_empty() };
        if *first == "…" {
            return (0..=printed.len()).any(|skipped| {
                let mut names = self.clone();
                let fits = names.fit_lines(rest, &printed[skipped..]);
                if fits {
                    *self = names;
                }
                fits
            });
        }
        let Some((line, later)) = printed.split_first() else { return false };
        self.fit_line(first, line) && self.fit_lines(rest, later)
    }

    fn fit_line(&mut self, expected: &str, printed: &str) -> bool {
        let mut rest = printed;
        for (index, piece) in expected.split('…').enumerate() {
            // The first piece begins the line; what follows an ellipsis is somewhere behind it.
            let from = if index == 0 { Some(0) } else { self.find(rest, piece) };
            let Some(end) = from.and_then(|from| self.fit_piece(&rest[from..], piece, from)) else {
                return false;
            };
            rest = &rest[end..];
        }
        rest.is_empty() || expected.ends_with('…')
    }

    /// Where a piece is found. The last one, if it is empty, is at the end.
    fn find(&self, text: &str, piece: &str) -> Option<usize> {
        text.char_indices()
            .map(|(index, _)| index)
            .chain([text.len()])
            .find(|index| self.clone().fit_piece(&text[*index..], piece, 0).is_some())
    }

    /// Whether a text begins with a piece but for names; where the piece ends, counted from `start` before the text.
    fn fit_piece(&mut self, text: &str, piece: &str, start: usize) -> Option<usize> {
        let (mut text_at, mut piece_at) = (0, 0);
        while piece_at < piece.len() {
            if let Some(name) = name_at(piece, piece_at) {
                let own = name_at(text, text_at).filter(|own| own.len() == name.len())?;
                let known = self.0.entry(name.to_owned()).or_insert_with(|| own.to_owned());
                if known != own {
                    return None;
                }
                text_at += own.len();
                piece_at += name.len();
            } else {
                if text.as_bytes().get(text_at) != piece.as_bytes().get(piece_at) {
                    return None;
                }
                text_at += 1;
                piece_at += 1;
            }
        }
        Some(start + text_at)
    }
}

/// The epoch (8 hexadecimal digits) or the client id (a UUID) that begins here.
fn name_at(text: &str, at: usize) -> Option<&str> {
    let is_part =
        |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte) || *byte == b'-';
    let bytes = text.as_bytes();
    if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'-') {
        return None;
    }
    let len = bytes.get(at..)?.iter().take_while(|byte| is_part(byte)).count();
    if len == 0 {
        return None;
    }
    let ends = bytes.get(at + len).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let name = &text[at..at + len];
    let is_name = len == 8 && !name.contains('-') || len == 36 && name.matches('-').count() == 4;
    (ends && is_name).then_some(name)
}

#[test]
fn names_are_the_same_throughout_and_an_ellipsis_is_anything() {
    let fits = |expected: &str, printed: &str| {
        let expected: Vec<_> = expected.lines().map(str::to_owned).collect();
        Names::default().fits(&expected, printed)
    };
    assert!(fits("{\"epoch\":\"59e9e444\"}", "{\"epoch\":\"00000001\"}"));
    assert!(fits("1:59e9e444\n2:59e9e444", "1:0000000a\n2:0000000a"));
    assert!(!fits("1:59e9e444\n2:59e9e444", "1:0000000a\n2:0000000b"));
    assert!(!fits("1:59e9e444", "1:0000000a\nmore"));
    assert!(fits("a … c…", "a b c d"));
    assert!(!fits("a … c", "a b c d"));
    assert!(fits("…\nb\n…", "a\nb"));
    assert!(!fits("…\nb", "a\nc"));
}

#[test]
fn a_transcript_is_commands_and_what_they_print() {
    let commands = typed("$ a \\\n  b\nc\n$ d\n");
    let commands: Vec<_> = commands.iter().map(|one| (&*one.command, one.printed.len())).collect();
    assert_eq!(commands, [("a \\\n  b", 1), ("d", 0)]);
}
