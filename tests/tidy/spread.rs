//! The methods of a type may be spread over files. These files call each other's methods in one direction only, so that
//! the callers can be read with what they call.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::{Graph, circles};
use crate::report;
use crate::sizes::{body, is_function, own_type};
use crate::source::{Source, Token, group_end, sources};

/// Types whose files call each other in circles, each with the reason.
const INTENDED: &[(&str, &str)] = &[
    (
        "Connections",
        "a worker's state; each file has one verb, and every verb may close a connection",
    ),
    ("Engine", "a load's connections; what opens one sends messages, and a message may end it"),
];

/// A type by its room, or the tool that it is in, and its name.
type Name = (String, String);

/// The methods of one type in one file.
#[derive(Default)]
struct Part {
    declared: BTreeSet<String>,
    called: BTreeSet<String>,
}

/// The parts of each type, by file.
fn parts(sources: &[Source]) -> BTreeMap<Name, BTreeMap<String, Part>> {
    let mut types: BTreeMap<Name, BTreeMap<String, Part>> = BTreeMap::new();
    for source in sources {
        let tokens = source.code_tokens();
        for at in (0..tokens.len()).filter(|at| tokens[*at].is("impl")) {
            let (Some(name), Some(open)) = (own_type(&tokens, at), body(&tokens, at)) else {
                continue;
            };
            let room = source.path.split('/').take(2).collect::<Vec<_>>().join("/");
            let files = types.entry((room, name.to_owned())).or_default();
            let part = files.entry(source.path.clone()).or_default();
            part.read(&tokens[open..group_end(&tokens, open)]);
        }
    }
    types
}

impl Part {
    fn read(&mut self, tokens: &[Token<'_>]) {
        for at in 0..tokens.len() {
            if is_function(tokens, at) {
                self.declared.insert(tokens[at + 1].text.to_owned());
            } else if let [receiver, separator, method, open, ..] = &tokens[at..]
                && open.is("(")
                && ((receiver.is("self") && separator.is("."))
                    || (receiver.is("Self") && separator.is("::")))
            {
                self.called.insert(method.text.to_owned());
            }
        }
    }
}

/// The files of a type that call the methods in others.
fn graph(files: &BTreeMap<String, Part>) -> Graph {
    let mut graph = Graph::new();
    for (from, caller) in files {
        for (to, declarer) in files.iter().filter(|(to, _)| *to != from) {
            let is_elsewhere = |method: &&String| {
                declarer.declared.contains(*method) && !caller.declared.contains(*method)
            };
            if let Some(method) = caller.called.iter().find(is_elsewhere) {
                graph.entry(from.clone()).or_default().insert(to.clone(), format!("self.{method}"));
            }
        }
    }
    graph
}

fn check(sources: &[Source], intended: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut needed = BTreeSet::new();
    for ((_, name), files) in parts(sources) {
        let found = circles(&graph(&files));
        if !found.is_empty() && intended.contains(&&*name) {
            needed.insert(name);
        } else {
            faults.extend(found.into_iter().map(|circle| format!("{name}: {circle}")));
        }
    }
    let unneeded = intended.iter().filter(|name| !needed.contains(**name));
    faults.extend(unneeded.map(|name| format!("{name} is in no circle: take the reason back")));
    faults
}

#[test]
fn files_of_one_type_call_each_other_in_one_direction_only() {
    let mut all = sources("src");
    all.extend(sources("tools"));
    let intended: Vec<_> = INTENDED.iter().map(|(name, _)| *name).collect();
    report(&check(&all, &intended));
}

#[test]
fn a_circle_of_methods_is_found_unless_it_is_intended() {
    let file = |path: &str, body: &str| Source {
        path: path.to_owned(),
        text: format!("//! A file.\nimpl<T> Hub<T> {{\n{body}\n}}\n"),
    };
    let one = || file("src/hub/mod.rs", "fn a(&self) { self.b(); self.own() }\nfn own(&self) {}");
    let way = [one(), file("src/hub/b.rs", "fn b(&self) { self.own() }\nfn own(&self) {}")];
    assert_eq!(check(&way, &[]), [""; 0], "each has a method of this name");
    assert_eq!(check(&way, &["Hub"]), ["Hub is in no circle: take the reason back"]);
    let circle = [one(), file("src/hub/b.rs", "fn b(&self) { Self::a(self) }")];
    assert_eq!(
        check(&circle, &[]),
        ["Hub: a circle:\n    src/hub/b.rs uses self.a of src/hub/mod.rs\n    \
          src/hub/mod.rs uses self.b of src/hub/b.rs"]
    );
    assert_eq!(check(&circle, &["Hub"]), [""; 0]);
    let others = [one(), file("src/worker/b.rs", "fn b(&self) { self.a() }")];
    assert_eq!(check(&others, &[]), [""; 0], "two types of one name");
}
