//! The documents of the repository: every fenced block is run, and every link and name is valid.
//!
//! A block's language, and what follows it on the line of the fence (which renderers ignore), say how it is run:
//!
//! | fence | what happens |
//! |---|---|
//! | `console` | a transcript: each line that begins with `$ ` is typed, and the other lines are what must be printed |
//! | `console terminal` | the same, each command in a terminal of its own, where it stays |
//! | `sh` | a script that must succeed |
//! | `toml` | settings that `fantail check` must accept; `toml NAME` keeps them as a file for the blocks that follow |
//! | `js`, `python`, `php` | a program that must succeed; it is skipped where its interpreter is not installed |
//! | `rust in FILE` | stands word for word in a test |
//! | any other, with `in FILE` | is a file of `tools/conformance/proxies/`, with which a case of the conformance tests runs a proxy |
//! | any, with `conformance` | run by `tools/conformance/documents.py`, because it needs a browser, packages or root |
//!
//! Further words are separated by `;`. `A => B` runs the command with B in place of A, for a smaller load. With `parse`,
//! the commands are only parsed by the tools' own argument parsers. `publishes DATA` is what a program must publish to
//! the channel of the recipes. Any other fence fails.
//!
//! The blocks of one document run in order in one folder with one server, which is started with the defaults as soon as
//! a block needs one, unless the document starts it. Addresses on this host are replaced by free ones. In what must be
//! printed, `…` is any text or any lines, and an epoch or a client id may be another one, the same throughout a
//! document.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod document;
mod references;
mod session;
mod transcript;
mod tungstenite;

#[expect(dead_code, unused_imports, unused_macros, reason = "what the behaviour tests need beside")]
#[path = "../support/mod.rs"]
mod support;

use document::{Block, documents};
use session::Session;

#[test]
fn every_block_of_every_document_is_run() {
    let documents = documents();
    std::thread::scope(|scope| {
        let runs: Vec<_> = documents
            .iter()
            .map(|document| {
                let run = scope.spawn(|| {
                    let mut session = Session::new(document);
                    document.blocks.iter().for_each(|block| session.run(block));
                    session.finish();
                });
                (document, run)
            })
            .collect();
        for (document, run) in runs {
            assert!(run.join().is_ok(), "{}: see above", document.path);
        }
    });
}

#[test]
fn every_configuration_of_a_proxy_is_shown() {
    let documents = documents();
    let mut files = 0;
    for entry in std::fs::read_dir(format!("{}/tools/conformance/proxies", document::ROOT)).unwrap()
    {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("tools/conformance/proxies/{name}");
        let is_shown = |block: &Block| block.value("in") == Some(&*path);
        let mut blocks = documents.iter().flat_map(|document| &document.blocks);
        assert!(name == "requirements.txt" || blocks.any(is_shown), "no document shows {path}");
        files += 1;
    }
    assert!(files > 10, "{files}");
}

/// Where a block is, for messages.
fn place(block: &Block) -> String {
    format!("{}:{}", block.path, block.line)
}
