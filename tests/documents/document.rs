//! Documents and their fenced blocks.

use std::fs;
use std::path::Path;

/// A Markdown file of the repository.
#[derive(Debug)]
pub struct Document {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
    pub blocks: Vec<Block>,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Path of the document, from the root of the repository.
    pub path: String,
    /// The line of its fence, from 1.
    pub line: usize,
    pub language: String,
    /// The words behind the language.
    pub words: Vec<String>,
    /// With the line feed of each line.
    pub text: String,
}

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every document but those whose blocks are history or quotations.
pub fn documents() -> Vec<Document> {
    let mut paths = Vec::new();
    visit(Path::new(ROOT), &mut paths);
    paths.sort();
    let documents: Vec<_> = paths.iter().map(|path| Document::read(path)).collect();
    assert!(documents.iter().any(|document| document.path == "README.md"), "{paths:?}");
    documents
}

fn visit(folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let is_left_out = ["target", "findings"].contains(&&*name) || name.starts_with('.');
            if !is_left_out && !name.ends_with("node_modules") {
                visit(&path, paths);
            }
        } else if name.ends_with(".md") && name != "CHANGELOG.md" {
            paths.push(name);
        }
    }
}

impl Document {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_inside = false;
        for (index, line) in text.lines().enumerate() {
            match line.trim_start().strip_prefix("```") {
                Some("") if is_inside => is_inside = false,
                Some(info) => {
                    assert!(!is_inside, "{path}:{}: the block before has no end", index + 1);
                    is_inside = true;
                    let (language, words) = info.split_once(' ').unwrap_or((info, ""));
                    blocks.push(Block {
                        path: path.to_owned(),
                        line: index + 1,
                        language: language.to_owned(),
                        words: words.split(';').map(|word| word.trim().to_owned()).collect(),
                        text: String::new(),
                    });
                }
                None if is_inside => {
                    let block = blocks.last_mut().expect("inside of one");
                    block.text += line;
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!is_inside, "{path}: the last block has no end");
        Self { path: path.to_owned(), text, blocks }
    }
}

impl Block {
    /// Whether it has a word.
    pub fn is(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// What follows a word, if it has that word.
    pub fn value(&self, word: &str) -> Option<&str> {
        self.words.iter().find_map(|own| own.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Its text, with what makes it smaller.
    pub fn scaled(&self) -> String {
        let pairs = self.words.iter().filter_map(|word| word.split_once(" => "));
        pairs.fold(self.text.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{}:{}: {from} is not in it", self.path, self.line);
            text.replace(from, to)
        })
    }
}
