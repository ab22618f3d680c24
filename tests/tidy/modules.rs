//! The modules of a crate, and the file in which the name at the end of a path is declared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::source::{Kind, Source, Token, group_end};

/// A module: a file, or a part of one in braces.
pub struct Module {
    /// The path of its file.
    pub path: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    /// What its `use` declarations bind, and whether to pass it on only.
    pub bindings: BTreeMap<String, Binding>,
    /// Paths in its code, `use` declarations left out.
    pub paths: Vec<Vec<String>>,
}

pub struct Binding {
    pub path: Vec<String>,
    pub is_public: bool,
}

/// The modules of one crate; the first is its root. Tests are left out.
#[derive(Default)]
pub struct Modules(pub Vec<Module>);

impl Modules {
    /// Reads the modules of a crate from the file of its root.
    pub fn of_crate(root: &str, sources: &[Source]) -> Modules {
        let mut modules = Modules::default();
        modules.read_file(root, folder_of(root), None, sources);
        modules
    }

    fn read_file(
        &mut self,
        path: &str,
        folder: &str,
        parent: Option<usize>,
        sources: &[Source],
    ) -> usize {
        let source = sources.iter().find(|source| source.path == path);
        let source = source.unwrap_or_else(|| panic!("{path}: a module without a file"));
        let tokens = source.code_tokens();
        let place = Place { path, folder, sources };
        self.read(&place, parent, &tokens, 0..tokens.len())
    }

    fn read(
        &mut self,
        place: &Place<'_>,
        parent: Option<usize>,
        tokens: &[Token<'_>],
        range: Range<usize>,
    ) -> usize {
        let own = self.0.len();
        self.0.push(Module {
            path: place.path.to_owned(),
            parent,
            children: BTreeMap::new(),
            items: BTreeSet::new(),
            bindings: BTreeMap::new(),
            paths: Vec::new(),
        });
        let (mut at, mut depth) = (range.start, 0_usize);
        while at < range.end {
            let token = &tokens[at];
            if token.is("{") {
                depth += 1;
            } else if token.is("}") {
                depth -= 1;
            } else if token.is("#") {
                let head = at + 1 + usize::from(tokens[at + 1].is("!"));
                at = group_end(tokens, head);
                continue;
            } else if token.is("use") {
                at = self.read_use(own, tokens, at);
                continue;
            } else if depth == 0 && token.is("mod") {
                at = self.read_child(place, own, tokens, at);
                continue;
            } else if depth == 0 && DECLARING.iter().any(|keyword| token.is(keyword)) {
                self.0[own].items.insert(declared(tokens, at));
            } else if token.kind == Kind::Word && !follows(tokens, at, &[".", "::"]) {
                at = self.read_path(own, tokens, at);
                continue;
            }
            at += 1;
        }
        own
    }

    fn read_child(
        &mut self,
        place: &Place<'_>,
        own: usize,
        tokens: &[Token<'_>],
        at: usize,
    ) -> usize {
        let name = tokens[at + 1].text;
        if tokens[at + 2].is("{") {
            let end = group_end(tokens, at + 2);
            let child = self.read(place, Some(own), tokens, at + 3..end - 1);
            self.0[own].children.insert(name.to_owned(), child);
            return end;
        }
        if name != "tests" {
            let (path, folder) = place.child(name, tokens, at);
            let child = self.read_file(&path, &folder, Some(own), place.sources);
            self.0[own].children.insert(name.to_owned(), child);
        }
        at + 3
    }

    /// Reads a `use` declaration, and says where it ends.
    fn read_use(&mut self, own: usize, tokens: &[Token<'_>], at: usize) -> usize {
        let is_public = follows(tokens, at, &["pub", ")"]);
        let mut end = at + 1;
        self.read_tree(own, tokens, &mut end, &[], is_public);
        end
    }

    fn read_tree(
        &mut self,
        own: usize,
        tokens: &[Token<'_>],
        at: &mut usize,
        prefix: &[String],
        is_public: bool,
    ) {
        let mut path = prefix.to_vec();
        loop {
            let token = &tokens[*at];
            *at += 1;
            if token.is("{") {
                while !tokens[*at].is("}") {
                    self.read_tree(own, tokens, at, &path, is_public);
                    *at += usize::from(tokens[*at].is(","));
                }
                *at += 1;
                return;
            } else if token.is("::") {
                continue;
            }
            path.push(token.text.to_owned());
            if tokens[*at].is("::") {
                continue;
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let mut name = path.last().unwrap().clone();
            if tokens[*at].is("as") {
                name = format!(
                    "{}{}",
                    tokens[*at + 1].text,
                    if tokens[*at + 1].is("_") { &name } else { "" }
                );
                *at += 2;
            }
            self.0[own].bindings.insert(name, Binding { path, is_public });
            return;
        }
    }

    /// Reads a path of code, and says where it ends.
    fn read_path(&mut self, own: usize, tokens: &[Token<'_>], at: usize) -> usize {
        let mut path = vec![tokens[at].text.to_owned()];
        let mut end = at + 1;
        while end + 1 < tokens.len() && tokens[end].is("::") && tokens[end + 1].kind == Kind::Word {
            path.push(tokens[end + 1].text.to_owned());
            end += 2;
        }
        self.0[own].paths.push(path);
        end
    }

    /// The file that declares what a path names, seen from a module; none for what another crate declares, and for
    /// modules, which are only ways to what is in them.
    pub fn declaring_file(&self, from: usize, path: &[String]) -> Option<&str> {
        self.resolve(from, path, 0)
    }

    fn resolve(&self, from: usize, path: &[String], hops: usize) -> Option<&str> {
        assert!(hops < 20, "{path:?} leads back to itself");
        let mut module = from;
        for (index, name) in path.iter().enumerate() {
            let here = &self.0[module];
            match name.as_str() {
                "crate" => module = 0,
                "self" => {}
                "super" => module = here.parent?,
                _ => {
                    if let Some(child) = here.children.get(name) {
                        module = *child;
                    } else if here.items.contains(name) {
                        return Some(&here.path);
                    } else if let Some(binding) = here.bindings.get(name) {
                        let whole = [&binding.path, &path[index + 1..]].concat();
                        let leads_back = index == 0 && binding.path[0] == *name;
                        return if leads_back {
                            None
                        } else {
                            self.resolve(module, &whole, hops + 1)
                        };
                    } else {
                        // A macro of the module declares it, if it was looked for there at all.
                        return (index > 0).then_some(&*here.path);
                    }
                }
            }
        }
        None
    }
}

/// Keywords that a declared name follows.
const DECLARING: &[&str] =
    &["struct", "enum", "trait", "fn", "type", "const", "static", "macro_rules"];

struct Place<'a> {
    path: &'a str,
    /// Where the files of its children are.
    folder: &'a str,
    sources: &'a [Source],
}

impl Place<'_> {
    /// The file of a child, and the folder of its own children.
    fn child(&self, name: &str, tokens: &[Token<'_>], at: usize) -> (String, String) {
        let mut start = at;
        while follows(tokens, start, &["pub", ")", "(", "super", "crate"]) {
            start -= 1;
        }
        if start > 3 && tokens[start - 1].is("]") && tokens[start - 4].is("path") {
            let named = tokens[start - 2].text.trim_matches('"');
            let mut path: Vec<_> = folder_of(self.path).split('/').collect();
            for part in named.split('/') {
                if part == ".." {
                    path.pop();
                } else {
                    path.push(part);
                }
            }
            let path = path.join("/");
            let folder = folder_of(&path).to_owned();
            return (path, folder);
        }
        let (folder, beside) =
            (format!("{}/{name}", self.folder), format!("{}/{name}.rs", self.folder));
        let is_beside = self.sources.iter().any(|source| source.path == beside);
        (if is_beside { beside } else { format!("{folder}/mod.rs") }, folder)
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

fn follows(tokens: &[Token<'_>], at: usize, signs: &[&str]) -> bool {
    at > 0 && signs.iter().any(|sign| tokens[at - 1].is(sign))
}

fn declared(tokens: &[Token<'_>], keyword: usize) -> String {
    let skipped = ["!", "mut"].iter().any(|sign| tokens[keyword + 1].is(sign));
    tokens[keyword + 1 + usize::from(skipped)].text.to_owned()
}
