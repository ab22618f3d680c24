//! Floors: which room may import which. `src/lib.rs` shows the same table, and what is allowed is used.

use crate::report;
use crate::source::{Source, sources};

/// A room and the rooms that it imports.
const FLOORS: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("buffer", &[]),
    ("protocol", &["message"]),
    ("auth", &["message", "config", "protocol"]),
    ("transport", &["protocol", "message", "buffer", "config", "auth"]),
    ("hub", &["message", "config"]),
    ("driver", &["buffer", "config"]),
    ("connection", &["transport", "message", "buffer", "config"]),
    ("callback", &["message", "config", "protocol", "auth"]),
    (
        "worker",
        &[
            "message",
            "config",
            "telemetry",
            "buffer",
            "auth",
            "transport",
            "hub",
            "driver",
            "connection",
            "callback",
        ],
    ),
    (
        "server",
        &["message", "config", "telemetry", "hub", "driver", "connection", "callback", "worker"],
    ),
];

/// Files that are in no room: the map, the program, the command line.
const OUTSIDE: &[&str] = &["lib", "main", "cli"];

pub fn rooms() -> Vec<&'static str> {
    FLOORS.iter().map(|(room, _)| *room).collect()
}

/// Rooms named in `crate::…` paths, each with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let tokens = source.code_tokens();
    let heads = tokens.windows(3).filter(|three| three[0].is("crate") && three[1].is("::"));
    heads.map(|three| (three[2].line, three[2].text.to_owned())).collect()
}

fn check_imports(sources: &[Source], floors: &[(&str, &[&str])]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        let Some((room, allowed)) = floors.iter().find(|(room, _)| *room == source.room()) else {
            if !OUTSIDE.contains(&source.room()) {
                faults.push(format!("{} is in no room of the table", source.path));
            }
            continue;
        };
        for (line, import) in imports(source) {
            if import == "{" {
                faults.push(format!("{}:{line}: one `use` for each room", source.path));
            } else if import != *room && !allowed.contains(&import.as_str()) {
                faults.push(format!("{}:{line}: {room} may not import {import}", source.path));
            }
            used.push((*room, import));
        }
    }
    for (room, allowed) in floors {
        for import in *allowed {
            if !used.contains(&(*room, (*import).to_owned())) {
                faults.push(format!("{room} may import {import} and does not: take it back"));
            }
        }
    }
    faults
}

/// The table of `src/lib.rs`: rooms and their imports.
fn table(map: &str) -> Vec<(String, Vec<String>)> {
    let mut table: Vec<(String, Vec<String>)> = Vec::new();
    for row in map.lines().filter_map(|line| line.strip_prefix("//! | [`")) {
        let (room, cells) = row.split_once("`] |").unwrap();
        let imports = cells.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim();
        let named = |names: &str| names.split(',').map(|name| name.trim().to_owned()).collect();
        let imports: Vec<String> = match imports.strip_prefix("all above") {
            Some(rest) => {
                let left_out: Vec<String> = rest.strip_prefix(" but ").map_or(Vec::new(), named);
                let above = table.iter().map(|(room, _)| room.clone());
                above.filter(|room| !left_out.contains(room)).collect()
            }
            None if imports == "nothing" => Vec::new(),
            None => named(imports),
        };
        table.push((room.to_owned(), imports));
    }
    table
}

#[test]
fn rooms_import_only_what_is_below_them_and_no_permission_is_unused() {
    report(&check_imports(&sources("src"), FLOORS));
}

#[test]
fn the_map_shows_the_same_floors() {
    let map = &sources("src").into_iter().find(|source| source.path == "src/lib.rs").unwrap();
    let shown = table(&map.text);
    let shown: Vec<_> = shown.iter().map(|(room, imports)| (room.as_str(), imports)).collect();
    assert_eq!(shown.len(), FLOORS.len(), "rooms in src/lib.rs: {shown:?}");
    for ((room, imports), (shown_room, shown_imports)) in FLOORS.iter().zip(shown) {
        assert_eq!(*room, shown_room, "the order of rooms in src/lib.rs");
        assert_eq!(imports, shown_imports, "what {room} may import, in src/lib.rs");
    }
}

#[test]
fn the_log_has_a_level_for_every_room() {
    assert_eq!(rooms(), fantail::config::ROOMS);
}

#[test]
fn imports_that_are_not_allowed_and_permissions_that_are_not_used_are_found() {
    let check = |text: &str| {
        let source = Source { path: "src/hub/mod.rs".to_owned(), text: text.to_owned() };
        check_imports(&[source], &[("hub", &["message"])])
    };
    assert_eq!(check("use crate::message::Request;"), [""; 0]);
    assert_eq!(check("use crate::message::Request;\nuse crate::hub::Hub;"), [""; 0]);
    assert_eq!(check("f(crate::message::g(), crate::driver::h());").len(), 1);
    assert_eq!(check("use crate::{message, message::Request};").len(), 2);
    let unused = ["hub may import message and does not: take it back"];
    assert_eq!(check("// crate::message\n"), unused);
    assert_eq!(check("\nmod tests {\n use crate::message::Request;\n}"), unused);
    let outside = Source { path: "src/attic/mod.rs".to_owned(), text: String::new() };
    assert_eq!(check_imports(&[outside], &[]), ["src/attic/mod.rs is in no room of the table"]);
}

#[test]
fn the_table_is_read_from_the_map() {
    let map = "//! | room | what it is | may import |\n//! |---|---|---|\n\
               //! | [`buffer`] | bytes | nothing |\n//! | [`hub`] | channels | message, buffer |\n\
               //! | [`worker`] | the turn | all above |\n\
               //! | [`server`] | the log | all above but hub, buffer |\n";
    let row = |room: &str, imports: &[&str]| {
        (room.to_owned(), imports.iter().map(|import| (*import).to_owned()).collect())
    };
    let rows = [
        row("buffer", &[]),
        row("hub", &["message", "buffer"]),
        row("worker", &["buffer", "hub"]),
        row("server", &["worker"]),
    ];
    assert_eq!(table(map), rows);
}
