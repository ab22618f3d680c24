//! What is written in some rooms only, and where `unsafe` stands.

use crate::report;
use crate::source::{Source, sources};

/// A text, the rooms in which it may stand, and why.
const BANS: &[(&str, &[&str], &str)] = &[
    // The commands that are clients are programs of their own, which the server never runs.
    ("Instant::now", &["driver", "callback", "cli"], "the driver reads the clock, once a turn"),
    ("SystemTime", &["driver", "callback"], "the driver reads the clock"),
    ("libc::", &["driver"], "system calls are the driver's"),
    ("io_uring::", &["driver"], "system calls are the driver's"),
    ("mio::", &["driver"], "system calls are the driver's"),
    ("socket2::", &["driver"], "socket options are the driver's"),
    ("TcpListener", &["driver"], "sockets are the driver's"),
    ("TcpStream", &["driver", "cli"], "sockets are the driver's"),
    ("UdpSocket", &[], "sockets are the driver's"),
    ("thread::spawn", &[], "threads are started by the server"),
    ("thread::Builder", &["server"], "threads are started by the server"),
    ("std::env", &["config"], "the environment is read at start"),
    ("std::fs", &["config", "server", "driver", "cli"], "files are read at start"),
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

/// Files, or folders, with `unsafe` in them, besides tests.
const UNSAFE: &[&str] = &[
    "driver/uring/",
    "driver/socket.rs",
    "driver/waker.rs",
    "driver/fd_table.rs",
    "driver/heap.rs",
    "protocol/websocket/mask.rs",
];

fn check_bans(sources: &[Source], bans: &[(&str, &[&str], &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            for (text, rooms, why) in bans.iter().filter(|(text, ..)| line.contains(text)) {
                if !rooms.contains(&source.room()) {
                    faults.push(format!("{}:{number}: `{text}`: {why}", source.path));
                }
                used.push((*text, source.room()));
            }
        }
    }
    for (text, rooms, _) in bans {
        for room in rooms.iter().filter(|room| !used.contains(&(*text, **room))) {
            faults.push(format!("{room} may write `{text}` and does not: take it back"));
        }
    }
    faults
}

fn check_unsafe(sources: &[Source], allowed: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            if line.contains("unsafe {") || line.contains("unsafe fn") {
                match allowed.iter().find(|prefix| source.below_src().starts_with(**prefix)) {
                    Some(prefix) => used.push(*prefix),
                    None => faults.push(format!("{}:{number}: unsafe is not allowed", source.path)),
                }
            }
        }
    }
    for prefix in allowed.iter().filter(|prefix| !used.contains(prefix)) {
        faults.push(format!("{prefix} may hold unsafe and does not: take it back"));
    }
    faults
}

#[test]
fn each_banned_text_stays_in_its_rooms_and_no_permission_is_unused() {
    report(&check_bans(&sources("src"), BANS));
}

#[test]
fn unsafe_stands_where_the_table_allows_it_and_only_where_it_is_needed() {
    report(&check_unsafe(&sources("src"), UNSAFE));
}

#[test]
fn bans_that_are_broken_and_permissions_that_are_not_used_are_found() {
    let check = |text: &str| {
        let source = Source { path: "src/hub/mod.rs".to_owned(), text: text.to_owned() };
        check_bans(&[source], &[("clock", &["hub"], "why"), ("lock!", &[], "never")])
    };
    assert_eq!(check("clock();"), [""; 0]);
    assert_eq!(check("clock();\nlock!();"), ["src/hub/mod.rs:2: `lock!`: never"]);
    let unused = ["hub may write `clock` and does not: take it back"];
    assert_eq!(check("// clock\n"), unused);
    assert_eq!(check("\nmod tests {\nclock();\n}"), unused);
}

#[test]
fn unsafe_in_the_wrong_place_and_in_no_place_is_found() {
    let check = |path: &str, text: &str| {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        check_unsafe(&[source], &["driver/uring/"])
    };
    assert_eq!(check("src/driver/uring/ring.rs", "unsafe { f() }"), [""; 0]);
    assert_eq!(check("src/driver/epoll.rs", "unsafe fn f() {}").len(), 2);
    let unused = ["driver/uring/ may hold unsafe and does not: take it back"];
    assert_eq!(check("src/driver/uring/ring.rs", "safe()"), unused);
}
