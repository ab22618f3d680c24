//! The house rules that the compiler does not know: who may import whom, what is done in which room only, and the
//! size of files and functions. A rule that is broken is named with its file and line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Floors: a room and the rooms that it may import. The same table stands in `src/lib.rs`.
const FLOORS: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("config", &["message"]),
    ("telemetry", &[]),
    ("buffer", &[]),
    ("protocol", &["message", "buffer"]),
    ("transport", &["protocol", "message", "buffer", "config"]),
    ("hub", &["message", "buffer", "config", "telemetry"]),
    ("driver", &["buffer", "config", "telemetry"]),
    ("connection", &["transport", "protocol", "message", "buffer", "config", "telemetry"]),
    ("worker", BELOW_WORKER),
    ("server", BELOW_SERVER),
];

const BELOW_WORKER: &[&str] = &[
    "message",
    "config",
    "telemetry",
    "buffer",
    "protocol",
    "transport",
    "hub",
    "driver",
    "connection",
];

const BELOW_SERVER: &[&str] = &[
    "message",
    "config",
    "telemetry",
    "buffer",
    "protocol",
    "transport",
    "hub",
    "driver",
    "connection",
    "worker",
];

/// What is written only in some rooms: the text, the rooms, why.
const BANS: &[(&str, &[&str], &str)] = &[
    // The commands that are clients are programs of their own, which the server never runs.
    ("Instant::now", &["driver", "cli"], "the driver reads the clock, once a turn"),
    ("SystemTime", &["driver"], "the driver reads the clock"),
    ("libc::", &["driver", "server"], "system calls are the driver's"),
    ("io_uring::", &["driver"], "system calls are the driver's"),
    ("mio::", &["driver"], "system calls are the driver's"),
    ("socket2::", &["driver"], "socket options are the driver's"),
    ("TcpListener", &["driver", "server"], "sockets are the driver's"),
    ("TcpStream", &["driver", "cli"], "sockets are the driver's"),
    ("UdpSocket", &["driver"], "sockets are the driver's"),
    ("thread::spawn", &["server"], "threads are started by the server"),
    ("thread::Builder", &["server"], "threads are started by the server"),
    ("std::env", &["config", "server", "cli"], "the environment is read at start"),
    ("std::fs", &["config", "server", "cli", "driver"], "files are read at start"),
    ("Mutex", &[], "workers share nothing but messages"),
    ("RwLock", &[], "workers share nothing but messages"),
    ("::*", &[], "an import names what it imports"),
    (".unwrap()", &[], "`expect` says why it holds"),
    ("todo!", &[], "done or not there"),
    ("unimplemented!", &[], "done or not there"),
    ("dbg!", &[], "a leftover"),
    ("FIXME", &[], "a leftover"),
    ("TODO", &[], "a leftover"),
    ("XXX", &[], "a leftover"),
    ("process::exit", &["server"], "only main ends the process; a second signal may"),
];

/// Files with `unsafe` in them, besides tests.
const UNSAFE: &[&str] = &[
    "driver/uring/",
    "driver/epoll.rs",
    "driver/socket.rs",
    "driver/waker.rs",
    "driver/fd_table.rs",
    "driver/heap.rs",
    "protocol/websocket/mask.rs",
];

/// Words that say nothing about what is in a room.
const NO_NAMES: &[&str] =
    &["util", "utils", "common", "core", "helpers", "manager", "base", "misc"];

const LINE_CHARACTERS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    /// Below `src`.
    path: String,
    text: String,
    is_test: bool,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Lines with their numbers, without comments; what follows `mod tests {` is left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !self.is_test && !line.starts_with("mod tests {"))
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap()))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    visit(&root, &mut |path| {
        let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let is_test = below.ends_with("/tests.rs") || below.contains("/tests/");
        sources.push(Source { path: below, text: fs::read_to_string(&path).unwrap(), is_test });
    });
    assert!(sources.len() > 20, "the sources are found");
    sources
}

fn visit(folder: &Path, file: &mut impl FnMut(PathBuf)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, file);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            file(path);
        }
    }
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Rooms named in `crate::…` paths of a line, those in a list of imports included.
fn imports(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .map(|(at, text)| {
            let rest = &line[at + text.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
        .collect()
}

#[test]
fn rooms_import_only_what_is_below_them() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some((room, allowed)) = FLOORS.iter().find(|(room, _)| *room == source.room()) else {
            let known = ["lib", "main", "cli"].contains(&source.room());
            assert!(known, "{} is in no room of the table", source.path);
            continue;
        };
        for (number, line) in source.code() {
            if line.contains("crate::{") {
                faults.push(format!(
                    "{}:{number}: imports of several rooms stand apart",
                    source.path
                ));
            }
            for import in imports(line).into_iter().filter(|import| !import.is_empty()) {
                if import != *room && !allowed.contains(&import) {
                    faults
                        .push(format!("{}:{number}: {room} may not import {import}", source.path));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn the_log_has_a_level_for_every_room() {
    let rooms: Vec<_> = FLOORS.iter().map(|(room, _)| *room).collect();
    assert_eq!(rooms, fantail::config::ROOMS);
}

#[test]
fn what_belongs_to_one_room_is_done_there_only() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            for (text, rooms, why) in BANS {
                if line.contains(text) && !rooms.contains(&source.room()) {
                    faults.push(format!("{}:{number}: `{text}`: {why}", source.path));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn unsafe_stands_where_the_table_allows_it_and_says_why() {
    let mut faults = Vec::new();
    for source in sources() {
        let allowed = UNSAFE.iter().any(|prefix| source.path.starts_with(prefix));
        for (number, line) in source.code() {
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe fn");
            if is_unsafe && !allowed {
                faults.push(format!("{}:{number}: unsafe is not allowed here", source.path));
            }
        }
    }
    report(&faults);
}

#[test]
fn every_door_answers_the_four_questions() {
    let mut faults = Vec::new();
    for source in sources() {
        let is_door = FLOORS.iter().any(|(room, _)| source.path == format!("{room}/mod.rs"));
        for heading in ["**What it is.**", "**Always true.**", "**Must not know.**"] {
            if is_door && !source.text.contains(heading) {
                faults.push(format!("{}: no {heading}", source.path));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_functions_and_lines_stay_readable() {
    let mut faults = Vec::new();
    for source in sources() {
        let stem = Path::new(&source.path).file_stem().unwrap().to_str().unwrap().to_owned();
        if NO_NAMES.contains(&stem.as_str()) {
            faults.push(format!("{}: the name says nothing", source.path));
        }
        if !source.is_test && !source.text.starts_with("//!") {
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
        for (number, lines) in functions(&source) {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{number}: a function of {lines} lines", source.path));
            }
        }
    }
    report(&faults);
}

/// Where each function begins and how long it is: rustfmt closes one at the indentation of its `fn`.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    for (number, line) in source.code() {
        let indent = line.len() - line.trim_start().len();
        let is_head = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "pub const fn "]
            .iter()
            .any(|head| line.trim_start().starts_with(head));
        if is_head && open.is_none() && !line.contains('}') && !line.trim_end().ends_with(';') {
            open = Some((number, indent));
        } else if let Some((start, at)) = open
            && indent == at
            && line.trim_end().ends_with('}')
            && line.trim_start().starts_with('}')
        {
            found.push((start, number - start + 1));
            open = None;
        }
    }
    found
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
