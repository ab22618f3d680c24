//! What documents refer to: links, flags, settings, metrics, files of the repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use fantail::config::SETTINGS;
use fantail::message::CloseReason;
use fantail::telemetry::METRICS;

use crate::document::{Document, ROOT, documents};

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        for (line, target) in links_of(&document) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let place = format!("{}:{line}", document.path);
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = Path::new(ROOT).join(&document.path);
            let path = if file.is_empty() { path } else { path.with_file_name(file) };
            assert!(path.exists(), "{place}: there is no {file}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(path).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.map(slug).any(|slug| slug == anchor);
                assert!(is_there, "{place}: no heading is #{anchor}");
            }
        }
    }
    assert!(links > 10, "{links}");
}

#[test]
fn every_flag_setting_metric_and_file_that_is_named_exists() {
    let help = help();
    let mut names = 0;
    for document in documents() {
        for (line, code) in codes_of(&document) {
            let word = code.split([' ', '=']).next().unwrap_or_default();
            let is_known = if word.starts_with("--") {
                help.split(|letter: char| !(letter.is_alphanumeric() || letter == '-'))
                    .any(|known| known == word)
            } else if word.starts_with("fantail_") {
                METRICS.iter().any(|metric| metric.name == word.split('{').next().unwrap())
            } else if SECTIONS.iter().any(|section| word.starts_with(section)) {
                SETTINGS.iter().any(|setting| setting.name == word)
            } else if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                Path::new(ROOT).join(word.trim_end_matches('/')).exists()
            } else {
                continue;
            };
            names += 1;
            assert!(is_known, "{}:{line}: there is no {word}", document.path);
        }
    }
    assert!(names > 50, "{names}");
}

#[test]
fn the_reference_lists_the_metrics_as_they_are() {
    let mut table = "| metric | type | what it is |\n|---|---|---|\n".to_owned();
    for metric in METRICS {
        table += &format!("| `{}` | {} | {} |\n", metric.name, metric.kind, metric.help);
    }
    let document = fs::read_to_string(Path::new(ROOT).join("src/telemetry/README.md")).unwrap();
    let list = document.split_once("<!-- metrics -->\n").unwrap().1;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.md");
    fs::write(&path, &table).unwrap();
    assert!(list == table, "put {} at the end of src/telemetry/README.md", path.display());
}

#[test]
fn the_table_of_close_codes_has_every_reason_as_it_is_sent() {
    let documents = documents();
    let document = documents.iter().find(|one| one.path == "src/transport/README.md").unwrap();
    for reason in CloseReason::ALL {
        let (websocket, command) = (reason.websocket_code(), reason.disconnect_code());
        // What no client is sent.
        let unsent = [CloseReason::ClientGone, CloseReason::HttpDone];
        if unsent.contains(reason) {
            continue;
        }
        let row = format!("| {websocket} | {command} | {} |", reason.label());
        assert!(document.text.contains(&row), "no row of the close codes begins with {row}");
    }
}

/// The lines outside of fenced blocks, with their numbers.
fn prose(document: &Document) -> impl Iterator<Item = (usize, &str)> {
    let mut is_inside = false;
    document.text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_inside ^= is_fence;
        (!is_inside && !is_fence).then_some((index + 1, line))
    })
}

fn links_of(document: &Document) -> Vec<(usize, &str)> {
    let parts = prose(document).flat_map(|(index, line)| {
        line.split("](").skip(1).map(move |rest| (index, rest.split(')').next().unwrap_or(rest)))
    });
    parts.collect()
}

/// What stands between backticks.
fn codes_of(document: &Document) -> Vec<(usize, &str)> {
    let codes = prose(document).flat_map(|(index, line)| {
        line.split('`').skip(1).step_by(2).map(move |code| (index, code))
    });
    codes.collect()
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
}

/// The help of every program of this repository.
fn help() -> String {
    let fantail = env!("CARGO_BIN_EXE_fantail");
    let (c1m, bench) = (env!("CARGO_BIN_EXE_c1m"), env!("CARGO_BIN_EXE_bench"));
    let mut text = String::new();
    for (program, commands) in [
        (fantail, "serve check doctor publish subscribe top"),
        (c1m, "idle echo fanout slow storm"),
        (bench, "run peers soak bare"),
    ] {
        for command in commands.split(' ') {
            let help = Command::new(program).args([command, "--help"]).output().unwrap();
            assert!(help.status.success(), "{help:?}");
            text += &String::from_utf8(help.stdout).unwrap();
        }
    }
    for load in ["api", "flood", "recover", "slow-reader"] {
        let help = Command::new(bench).args(["load", load, "--help"]).output().unwrap();
        text += &String::from_utf8(help.stdout).unwrap();
    }
    for script in ["sysctl/apply", "tools/conformance/run"] {
        text += &fs::read_to_string(Path::new(ROOT).join(script)).unwrap();
    }
    text
}

/// How the names of settings begin.
const SECTIONS: &[&str] = &["limits.", "tcp.", "http.", "echo.", "api.", "log."];

/// The folders of the repository.
const FOLDERS: &[&str] = &["src/", "tools/", "tests/", "benches/", "sysctl/", "findings/"];
