//! Files, functions, lines and types that a reader can take in; doors and dependencies that say what they are for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::report;
use crate::source::{Kind, Source, Token, group_end, sources};

const LINE_CHARACTERS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const METHODS_MAX: usize = 40;

/// Words that say nothing about what is in a file.
const NO_NAMES: &[&str] =
    &["util", "utils", "common", "core", "helpers", "manager", "base", "misc"];

/// What each door of a room answers.
const QUESTIONS: &[&str] = &["**What it is.**", "**Always true.**", "**Must not know.**"];

#[test]
fn every_door_answers_the_four_questions() {
    let mut faults = Vec::new();
    let rooms = crate::floors::rooms();
    for source in sources("src") {
        let is_door = rooms.iter().any(|room| source.below_src() == format!("{room}/mod.rs"));
        for heading in QUESTIONS.iter().filter(|heading| !source.text.contains(**heading)) {
            if is_door {
                faults.push(format!("{}: no {heading}", source.path));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_functions_and_lines_stay_readable() {
    let mut faults = Vec::new();
    for source in sources("src") {
        faults.extend(check_file(&source));
    }
    report(&faults);
}

fn check_file(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let stem = Path::new(&source.path).file_stem().unwrap().to_str().unwrap();
    if NO_NAMES.contains(&stem) {
        faults.push(format!("{}: the name says nothing", source.path));
    }
    if !source.is_test() && !source.text.starts_with("//!") {
        faults.push(format!("{}: a file opens with what it is", source.path));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{}: {lines} lines: what second thing does it hold?", source.path));
    }
    for (index, line) in source.text.lines().enumerate() {
        if line.chars().count() > LINE_CHARACTERS_MAX {
            faults.push(format!("{}:{}: a long line", source.path, index + 1));
        }
    }
    for (number, lines) in functions(source) {
        if lines > FUNCTION_LINES_MAX {
            faults.push(format!("{}:{number}: a function of {lines} lines", source.path));
        }
    }
    faults
}

/// The line at which each function begins and its number of lines.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let tokens = source.code_tokens();
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|at| is_function(&tokens, *at)) {
        if let Some(open) = body(&tokens, at) {
            let end = group_end(&tokens, open) - 1;
            found.push((tokens[at].line, tokens[end].line - tokens[at].line + 1));
        }
    }
    found
}

/// Whether a function is declared here, and not a type of functions.
pub fn is_function(tokens: &[Token<'_>], at: usize) -> bool {
    tokens[at].is("fn") && tokens.get(at + 1).is_some_and(|next| next.kind == Kind::Word)
}

/// Where the body of a function, an `impl` or a trait opens; none where a `;` ends it.
pub fn body(tokens: &[Token<'_>], head: usize) -> Option<usize> {
    let mut at = head;
    while at < tokens.len() && !tokens[at].is("{") {
        if tokens[at].is(";") {
            return None;
        }
        at = if tokens[at].is("(") || tokens[at].is("[") { group_end(tokens, at) } else { at + 1 };
    }
    (at < tokens.len()).then_some(at)
}

/// Methods of each type by its name and the folder it is known in, over all its own `impl` blocks. Those of traits do
/// not count: a trait says how many they are, once for all its types, and is itself counted here.
fn methods(sources: &[Source]) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for source in sources {
        let tokens = source.code_tokens();
        for (at, token) in tokens.iter().enumerate() {
            let is_item = at == 0
                || ["}", ";", "]", "unsafe", "pub", ")"].iter().any(|sign| tokens[at - 1].is(sign));
            let named = if token.is("impl") && is_item {
                own_type(&tokens, at)
            } else if token.is("trait") && is_item {
                Some(tokens[at + 1].text)
            } else {
                None
            };
            if let (Some(name), Some(open)) = (named, body(&tokens, at)) {
                let group = &tokens[open..group_end(&tokens, open)];
                *counts.entry((source.room().to_owned(), name.to_owned())).or_default() +=
                    functions_of(group);
            }
        }
    }
    counts
}

/// The type of an `impl` block; none where it is of a trait.
pub fn own_type<'a>(tokens: &[Token<'a>], head: usize) -> Option<&'a str> {
    let open = body(tokens, head)?;
    let mut depth = 0_i32;
    let mut name = None;
    for at in head + 1..open {
        match tokens[at].text {
            "<" => depth += 1,
            ">" if !tokens[at - 1].is("-") => depth -= 1,
            "for" if depth == 0 => return None,
            "where" if depth == 0 => break,
            text if depth == 0 && text.starts_with(char::is_alphabetic) => name = Some(text),
            _ => {}
        }
    }
    name
}

/// Functions directly inside a group, not those inside of them.
fn functions_of(group: &[Token<'_>]) -> usize {
    let (mut at, mut count) = (1, 0);
    while at < group.len() {
        count += usize::from(is_function(group, at));
        at = if group[at].is("{") { group_end(group, at) } else { at + 1 };
    }
    count
}

fn check_methods(sources: &[Source]) -> Vec<String> {
    let large = methods(sources).into_iter().filter(|(_, count)| *count > METHODS_MAX);
    large
        .map(|((_, name), count)| {
            format!("{name}: {count} methods, {METHODS_MAX} at most: what second thing is it?")
        })
        .collect()
}

#[test]
fn a_type_has_a_limited_number_of_methods_over_all_its_blocks() {
    let mut all = sources("src");
    all.extend(sources("tools"));
    report(&check_methods(&all));
}

#[test]
fn each_dependency_says_what_it_is_for() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let mut in_dependencies = false;
    let mut faults = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies
            && line.contains('=')
            && !line.contains("} #")
            && !line.contains("\" #")
        {
            faults.push(format!("Cargo.toml: no reason: {line}"));
        }
    }
    report(&faults);
}

#[test]
fn a_type_of_too_many_methods_is_found_however_they_are_spread() {
    let file = |path: &str, head: &str, count: usize| {
        let body = "/// Does.\n pub fn f(&self) { fn inner() {} if x { g() } }\n".repeat(count);
        Source { path: path.to_owned(), text: format!("//! A file.\n\n{head} {{\n{body}}}\n") }
    };
    let spread = |more: usize| {
        [
            file("src/hub/mod.rs", "impl Hub", 20),
            file("src/hub/a.rs", "impl<'a, T: Fn() -> u8> Hub<'a, T>", more),
        ]
    };
    assert_eq!(check_methods(&spread(20)), [""; 0]);
    assert_eq!(
        check_methods(&spread(21)),
        ["Hub: 41 methods, 40 at most: what second thing is it?"]
    );
    let others =
        [file("src/hub/mod.rs", "impl Hub", 21), file("src/worker/mod.rs", "impl Hub", 21)];
    assert_eq!(check_methods(&others), [""; 0], "two types of one name");
    assert_eq!(check_methods(&[file("src/a/b.rs", "impl Display for Hub", 41)]), [""; 0]);
    assert_eq!(check_methods(&[file("src/a/b.rs", "pub trait Driver", 41)]).len(), 1);
}

#[test]
fn long_files_functions_lines_and_names_that_say_nothing_are_found() {
    let check = |path: &str, text: &str| {
        check_file(&Source { path: path.to_owned(), text: text.to_owned() }).len()
    };
    assert_eq!(check("src/hub/a.rs", "//! A file.\n"), 0);
    assert_eq!(check("src/hub/a.rs", "fn a() {}\n"), 1);
    assert_eq!(check("src/hub/utils.rs", "//! A file.\n"), 1);
    assert_eq!(check("src/hub/a.rs", &"//! A file.\n".repeat(FILE_LINES_MAX)), 0);
    assert_eq!(check("src/hub/a.rs", &"//! A file.\n".repeat(FILE_LINES_MAX + 1)), 1);
    assert_eq!(check("src/hub/a.rs", &format!("//! {}\n", "a".repeat(LINE_CHARACTERS_MAX))), 1);
    let function = |lines: usize| format!("//! A file.\nfn a() {{\n{}}}\n", "b();\n".repeat(lines));
    assert_eq!(check("src/hub/a.rs", &function(FUNCTION_LINES_MAX - 2)), 0);
    assert_eq!(check("src/hub/a.rs", &function(FUNCTION_LINES_MAX - 1)), 1);
}
