//! The files of the repository, and Rust text as tokens: enough of the language to find names, paths, comments and
//! strings in text that rustfmt has laid out.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Source {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
}

/// Rust files below a folder of the repository.
pub fn sources(folder: &str) -> Vec<Source> {
    files(folder, &["rs"])
}

/// Files below a folder of the repository whose names end in one of these.
pub fn files(folder: &str, extensions: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    visit(&root.join(folder), &mut |path| {
        if extensions.iter().any(|known| path.extension().is_some_and(|own| own == *known)) {
            let below = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: below, text: fs::read_to_string(&path).unwrap() });
        }
    });
    assert!(!found.is_empty(), "{folder} has files");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn visit(folder: &Path, file: &mut impl FnMut(PathBuf)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_foreign = name.starts_with('.') || ["target", "node_modules"].contains(&name);
        if path.is_dir() && !is_foreign {
            visit(&path, file);
        } else if path.is_file() {
            file(path);
        }
    }
}

impl Source {
    /// The path below `src`.
    pub fn below_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    pub fn room(&self) -> &str {
        self.below_src().split(['/', '.']).next().unwrap()
    }

    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines with their numbers, without comments and without tests.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !self.is_test() && !line.starts_with("mod tests {"))
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap()))
    }

    /// The tokens of what [`Self::code`] leaves, comments left out.
    pub fn code_tokens(&self) -> Vec<Token<'_>> {
        if self.is_test() {
            return Vec::new();
        }
        let text = match self.text.find("\nmod tests {") {
            Some(end) => &self.text[..end],
            None => &self.text,
        };
        let mut tokens = tokens(text);
        tokens.retain(|token| token.kind != Kind::Comment);
        tokens
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A keyword, a name or a number.
    Word,
    /// `::`, or one character.
    Sign,
    /// A string or a character, its quotes included.
    Literal,
    Comment,
    Lifetime,
}

#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// The number of its line, from 1.
    pub line: usize,
}

impl Token<'_> {
    pub fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Sign)
    }
}

pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, length) = token(rest, first);
        if let Some(kind) = kind {
            tokens.push(Token { kind, text: &rest[..length], line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// The kind and length of the token that text begins with; no kind for white space.
fn token(text: &str, first: char) -> (Option<Kind>, usize) {
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    if text.starts_with("//") {
        return (Some(Kind::Comment), text.find('\n').unwrap_or(text.len()));
    }
    if let Some(length) = string_length(text) {
        return (Some(Kind::Literal), length);
    }
    if first == '\'' {
        let mut characters = text.chars().skip(1);
        let is_character = characters.next() == Some('\\') || characters.next() == Some('\'');
        if is_character {
            return (Some(Kind::Literal), quoted_length(text, '\''));
        }
        return (Some(Kind::Lifetime), 1 + word_length(&text[1..]));
    }
    match word_length(text) {
        0 if text.starts_with("::") => (Some(Kind::Sign), 2),
        0 => (Some(Kind::Sign), first.len_utf8()),
        length => (Some(Kind::Word), length),
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Strings: plain, raw, of bytes.
fn string_length(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let body = &text[prefix..];
    if text[..prefix].contains('r') {
        let hashes = body.find(|c| c != '#')?;
        body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", &body[..hashes]);
        let length = body[hashes + 1..].find(&end).expect("a raw string ends");
        return Some(prefix + hashes + 1 + length + end.len());
    }
    body.starts_with('"').then(|| prefix + quoted_length(body, '"'))
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    text.len()
}

/// Where the group that opens at this token ends: the index behind its closing token.
pub fn group_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if ["(", "[", "{"].iter().any(|sign| token.is(sign)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|sign| token.is(sign)) {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

#[test]
fn text_is_cut_into_tokens() {
    let text = "fn f<'a>(c: char) { /* // \n x */ g('\\'', '\"', r#\"a\"b\"#, b\"\\\"}\") } // \"done\"\n::end";
    let text = text.replace("/* // \n x */", "// {\n");
    let words: Vec<_> = tokens(&text).iter().map(|token| (token.kind, token.text)).collect();
    assert!(words.contains(&(Kind::Lifetime, "'a")), "{words:?}");
    for literal in ["'\\''", "'\"'", "r#\"a\"b\"#", "b\"\\\"}\""] {
        assert!(words.contains(&(Kind::Literal, literal)), "{literal} in {words:?}");
    }
    assert!(words.contains(&(Kind::Comment, "// \"done\"")), "{words:?}");
    assert_eq!(words[words.len() - 2..], [(Kind::Sign, "::"), (Kind::Word, "end")]);
    let open = tokens(&text).iter().position(|token| token.is("{")).unwrap();
    assert!(tokens(&text)[group_end(&tokens(&text), open)].kind == Kind::Comment);
}
