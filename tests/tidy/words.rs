//! Words: comments, documents, strings and names are plain English in the field's own terms. What is not is refused
//! here with what to say instead.

use std::collections::HashSet;

use crate::report;
use crate::source::{Kind, Source, Token, files, tokens};

/// Words, or words in a row, that are not written, what to write instead, and the phrases in which they may stand.
const BANNED: &[(&str, &str, &[&str])] = &[
    ("whoever", "say which client, caller or thread", &[]),
    ("whomever", "say which client, caller or thread", &[]),
    ("nobody", "no client, no caller, nothing", &[]),
    ("somebody", "a client, a caller", &[]),
    ("whom", "say which client", &[]),
    ("is none", "is missing, is empty, is invalid", &["there is none"]),
    ("are none", "are missing, are empty, are invalid", &["there are none"]),
    (
        "is no",
        "is not a",
        &["there is no", "is no longer", "is no more", "is no less", "is no larger", "is no later"],
    ),
    ("are no", "are not", &["there are no", "are no longer", "are no more"]),
    ("be had", "is available", &[]),
    ("has had", "has received, has used", &[]),
    ("have had", "have received, have used", &[]),
    ("not had", "has not received", &[]),
    ("goodbye", "disconnect", &[]),
    ("goodbyes", "disconnects", &[]),
    ("farewell", "disconnect", &[]),
    ("farewells", "disconnects", &[]),
    ("at the most", "at most", &[]),
    ("told", "is notified, is sent, is configured to", &[]),
    ("who is", "the client that is, which clients are", &[]),
    ("who are", "the clients that are", &[]),
    ("who was", "the client that was", &[]),
    ("who were", "the clients that were", &[]),
    ("who comes", "join and leave events", &[]),
    ("who came", "join and leave events", &[]),
    ("comes and goes", "joins and leaves", &[]),
    ("come and go", "join and leave", &[]),
    ("came and went", "joined and left", &[]),
    ("comings and goings", "join and leave events", &[]),
    (
        "news",
        "join and leave events",
        // A channel in examples, and the changes of a version.
        &[
            "= news",
            "news .",
            "const news",
            "( news )",
            ": news",
            "subscribe news",
            "publish news",
            "its news for version",
        ],
    ),
    ("laggard", "slow subscriber", &[]),
    ("laggards", "slow subscribers", &["evicted laggards total"]),
    ("lagging", "behind", &[]),
    ("may lag", "slow subscriber", &[]),
    ("what was missed", "missed publications", &[]),
    ("what is missed", "missed publications", &[]),
    ("affair", "responsibility", &[]),
    ("affairs", "responsibility", &[]),
    ("stranger", "unknown", &[]),
    ("strangers", "unknown", &[]),
    ("takes orders", "accepts server subscriptions", &[]),
    ("converse", "step", &[]),
    ("awaits room", "awaits drain", &[]),
    ("await room", "await drain", &[]),
    ("go on with room", "resume when drained", &[]),
    ("nearly used up", "low", &[]),
    ("as they look", "encoded", &[]),
    ("for want of", "for lack of", &[]),
    ("let calm down", "wait until idle", &[]),
    ("look around", "discover", &[]),
    ("make way", "evict", &[]),
    ("is deeper", "exceeds depth", &[]),
    ("stayer", "canary", &[]),
    ("asker", "requester", &[]),
];

/// Names of the standard library that are not ours to choose.
const FOREIGN_NAMES: &[&str] = &["is_none", "is_none_or"];

/// With what a document does not begin: it says what a thing is, in a whole sentence or a noun phrase.
const BAD_OPENINGS: &[&str] = &["Of", "Who", "Whom", "Whose", "Those"];

/// Documents of so few words say less than the name that they stand above.
const DOC_WORDS_MIN: usize = 3;

/// A stretch of text that is read on its own.
struct Passage {
    line: usize,
    text: String,
}

/// The words that a text breaks rules with, each with its line.
fn banned_in(passage: &Passage) -> Vec<(usize, String)> {
    let mut joined = String::from(" ");
    let mut lines = Vec::new();
    for (index, line) in passage.text.lines().enumerate() {
        for word in words(line) {
            lines.push((joined.len(), passage.line + index));
            joined.push_str(&word);
            joined.push(' ');
        }
    }
    let mut found = Vec::new();
    for (phrase, instead, contexts) in BANNED {
        for (at, _) in joined.match_indices(&format!(" {phrase} ")) {
            let is_allowed = contexts.iter().any(|context| {
                let before = format!(" {context} ").find(&format!(" {phrase} ")).unwrap();
                at >= before && joined[at - before..].starts_with(&format!(" {context} "))
            });
            if !is_allowed {
                let line = lines.iter().rfind(|(start, _)| *start <= at + 1).unwrap().1;
                found.push((line, format!("`{phrase}`: rather: {instead}")));
            }
        }
    }
    found
}

/// Words in small letters, those of a name apart; a mark of any other kind stands as one of its own.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for character in line.chars() {
        let starts_word = character.is_uppercase() && was_small;
        if starts_word || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if character.is_alphanumeric() {
            words.last_mut().unwrap().extend(character.to_lowercase());
        } else if !character.is_whitespace() && !"_`*'\"".contains(character) {
            words.extend([character.to_string(), String::new()]);
        }
        was_small = character.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Comments whose lines follow one another, each with its marker.
fn comments(tokens: &[Token<'_>]) -> Vec<(&'static str, Passage)> {
    let mut found: Vec<(&'static str, Passage)> = Vec::new();
    let mut next = 0;
    for token in tokens.iter().filter(|token| token.kind == Kind::Comment) {
        let marker =
            ["///", "//!", "//"].into_iter().find(|marker| token.text.starts_with(marker)).unwrap();
        let text = token.text[marker.len()..].trim();
        match found.last_mut() {
            Some((last, passage)) if *last == marker && token.line == next => {
                passage.text = format!("{}\n{text}", passage.text);
            }
            _ => found.push((marker, Passage { line: token.line, text: text.to_owned() })),
        }
        next = token.line + 1;
    }
    found
}

fn check_rust(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (marker, passage) in comments(&tokens) {
        found.extend(banned_in(&passage));
        if marker != "//" {
            let count = passage.text.split_whitespace().count();
            let opening = passage.text.split_whitespace().next().unwrap_or_default();
            if count < DOC_WORDS_MIN {
                found.push((passage.line, format!("`{}` says nothing", passage.text)));
            } else if BAD_OPENINGS.contains(&opening) {
                found.push((
                    passage.line,
                    format!("a document begins with `{opening}`: say what it is"),
                ));
            }
        }
    }
    let mut seen = HashSet::new();
    for token in &tokens {
        let is_name = token.kind == Kind::Word && !FOREIGN_NAMES.contains(&token.text);
        // A literal of one word is a value.
        let is_text = token.kind == Kind::Literal && token.text.contains(' ');
        if (is_name && seen.insert(token.text)) || is_text {
            let text = token.text.replace("\\\n", "\n").replace("\\n", " ");
            found.extend(banned_in(&Passage { line: token.line, text }));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn check_text(text: &str) -> Vec<(usize, String)> {
    banned_in(&Passage { line: 1, text: text.to_owned() })
}

fn check(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Source { path, text } in sources {
        let faults = if path.ends_with(".rs") { check_rust(text) } else { check_text(text) };
        found.extend(faults.into_iter().map(|(line, fault)| format!("{path}:{line}: {fault}")));
    }
    found
}

#[test]
fn comments_documents_strings_and_names_are_plain_english() {
    let mut all = files("", &["md"]);
    for folder in ["src", "tools", "tests", "benches"] {
        all.extend(files(folder, &["rs", "html"]));
    }
    all.retain(|source| source.path != "tests/tidy/words.rs");
    report(&check(&all));
}

#[test]
fn each_banned_phrase_is_found_in_comments_documents_strings_and_names() {
    for (phrase, _, contexts) in BANNED {
        let upper = format!("{}{}", phrase[..1].to_uppercase(), &phrase[1..]);
        for text in [
            format!("f(); // It {phrase}, then\n"),
            format!("/// {upper} a thing or two.\n"),
            format!("//! What\n//! {}\n//! then.\n", phrase.replace(' ', "\n//! ")),
            format!("let text = \"it {}\";", phrase.replace(' ', " \\\n  ")),
            format!("fn it_{}_then() {{}}", phrase.replace(' ', "_")),
            format!(
                "struct It{}Then;",
                phrase
                    .split(' ')
                    .map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]))
                    .collect::<String>()
            ),
        ] {
            let found = check_rust(&text);
            assert!(
                found.iter().any(|(_, fault)| fault.starts_with(&format!("`{phrase}`"))),
                "{text}: {found:?}"
            );
        }
        assert!(!check_text(&format!("# A title\n| a cell | {phrase} |\n")).is_empty());
        for context in *contexts {
            assert_eq!(check_text(&format!("Here {context} again")), [], "{context}");
        }
    }
    let across =
        check_rust("let a = 1;\n/// It is well\n/// known that x is\n/// no y.\nfn f() {}\n");
    assert_eq!(across, [(3, "`is no`: rather: is not a".to_owned())]);
    assert_eq!(check_rust("if this.is_none() { \"is none\".len() }").len(), 1);
    assert_eq!(check_rust("// It is. No word of it is banned here: is, none; untold.\n"), []);
}

#[test]
fn documents_of_too_few_words_and_those_without_a_head_are_found() {
    let check = |text: &str| check_rust(text).len();
    assert_eq!(check("/// Which.\nchannel: u8,"), 1);
    assert_eq!(check("/// Which channel.\nchannel: u8,"), 1);
    assert_eq!(check("/// Which channel it is.\nchannel: u8,"), 0);
    assert_eq!(
        check("/// A thing that spans lines, the last of which is\n/// short.\nchannel: u8,"),
        0
    );
    assert_eq!(check("/// Of its share of the hub.\nchannel: u8,"), 1);
    assert_eq!(check("// Two words\nf();"), 0, "a comment may");
}
