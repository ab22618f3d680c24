//! Files use each other in one direction only, so that a file can be read with what it uses, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::Modules;
use crate::report;
use crate::source::{Source, sources};

/// The files that a file uses, each with a name that it uses of it.
pub type Graph = BTreeMap<String, BTreeMap<String, String>>;

const CRATES: &[&str] = &["src/lib.rs", "src/main.rs", "tools/bench/main.rs", "tools/c1m/main.rs"];

/// Adds what the files of a crate use. A name that is only passed on (`pub use`) is used where it is written otherwise.
fn add_crate(graph: &mut Graph, root: &str, sources: &[Source]) {
    let modules = Modules::of_crate(root, sources);
    for (index, module) in modules.0.iter().enumerate() {
        let imports = module.bindings.values().filter(|binding| !binding.is_public);
        let used = imports.map(|binding| &binding.path).chain(&module.paths);
        for path in used {
            match modules.declaring_file(index, path) {
                Some(file) if file != module.path => {
                    let names = graph.entry(module.path.clone()).or_default();
                    names.entry(file.to_owned()).or_insert_with(|| path.join("::"));
                }
                _ => {}
            }
        }
    }
}

/// The shortest way from one file to another, both of them named.
fn way(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from = BTreeMap::new();
    let mut queue = VecDeque::from([from.to_owned()]);
    while let Some(file) = queue.pop_front() {
        for next in graph.get(&file).into_iter().flat_map(BTreeMap::keys) {
            if !came_from.contains_key(next) {
                came_from.insert(next.clone(), file.clone());
                queue.push_back(next.clone());
            }
        }
    }
    let mut way = vec![to.to_owned()];
    loop {
        way.push(came_from.get(way.last().unwrap())?.clone());
        if way.last().is_some_and(|file| file == from) {
            way.reverse();
            return Some(way);
        }
    }
}

/// The shortest circle of each file that is in one, each circle once.
pub fn circles(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in graph.keys() {
        let Some(circle) = way(graph, file, file) else { continue };
        let members: BTreeSet<_> = circle.iter().cloned().collect();
        if seen.insert(members) {
            let steps = circle.windows(2).map(|two| {
                format!("\n    {} uses {} of {}", two[0], graph[&two[0]][&two[1]], two[1])
            });
            found.push(format!("a circle:{}", steps.collect::<String>()));
        }
    }
    found
}

#[test]
fn files_use_each_other_in_one_direction_only() {
    let mut all = sources("src");
    all.extend(sources("tools"));
    let mut graph = Graph::new();
    for root in CRATES {
        add_crate(&mut graph, root, &all);
    }
    let files = graph.len();
    assert!(files > 100, "{files} files use others");
    report(&circles(&graph));
}

/// Faults in a crate of these files.
fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<_> = files
        .iter()
        .map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() })
        .collect();
    let mut graph = Graph::new();
    add_crate(&mut graph, files[0].0, &sources);
    circles(&graph)
}

#[test]
fn a_circle_of_two_files_is_found() {
    let root = ("src/lib.rs", "mod a;\nmod b;\n");
    let a = ("src/a.rs", "use crate::b::B;\npub struct A(B);\n");
    let circle = [
        "a circle:\n    src/a.rs uses crate::b::B of src/b.rs\n    src/b.rs uses super::a::A of src/a.rs",
    ];
    assert_eq!(faults(&[root, a, ("src/b.rs", "pub struct B;\n")]), [""; 0]);
    let b = ("src/b.rs", "pub struct B;\nfn f(a: &super::a::A) {}\n");
    assert_eq!(faults(&[root, a, b]), circle);
    let tests =
        ("src/b.rs", "pub struct B;\n#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n");
    assert_eq!(faults(&[root, a, tests]), [""; 0], "tests may");
}

#[test]
fn a_circle_of_three_files_is_found_through_what_a_door_passes_on() {
    let room =
        "mod a;\nmod b;\nmod c;\npub use a::{A, f as g};\npub use self::b::B;\npub use c::C;\n";
    let files = [
        ("src/lib.rs", "mod room;\n"),
        ("src/room/mod.rs", room),
        ("src/room/a.rs", "use super::{B};\npub struct A(B);\npub fn f() {}\n"),
        ("src/room/b.rs", "use crate::room::{self, C};\npub struct B;\n"),
        ("src/room/c.rs", "pub struct C;\n"),
    ];
    assert_eq!(faults(&files), [""; 0]);
    let mut closed = files;
    closed[4].1 = "pub struct C;\nfn h() { super::g() }\n";
    let circle = faults(&closed);
    assert_eq!(circle.len(), 1, "{circle:?}");
    for step in ["a.rs uses super::B of", "b.rs uses crate::room::C of", "c.rs uses super::g of"] {
        assert!(circle[0].contains(step), "{circle:?}");
    }
}

#[test]
fn a_child_that_uses_its_parent_which_uses_it_is_a_circle() {
    let child = ("src/room/a.rs", "use super::Words;\npub fn f(words: Words) {}\n");
    let with = |parent| [("src/lib.rs", "mod room;\n"), ("src/room/mod.rs", parent), child];
    let parent = "mod a;\npub use a::f;\npub struct Words;\n";
    assert_eq!(faults(&with(parent)), [""; 0], "a door that passes on only uses nothing");
    let parent = "mod a;\npub use a::f;\npub struct Words;\nfn g() { f(Words) }\n";
    assert_eq!(faults(&with(parent)).len(), 1);
    let parent = "mod a;\npub struct Words;\nfn g() { a::f(Words) }\n";
    assert_eq!(faults(&with(parent)).len(), 1);
}
