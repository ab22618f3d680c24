//! Settings from all their sources, and what `fantail check` says of them.

use std::fs;
use std::path::PathBuf;

use fantail::config::{SETTINGS, markdown};

use crate::support::{run, run_with};

/// A file that is removed when this is dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("fantail-{}-{name}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// The line of a setting among those that were printed, its columns apart by one blank.
fn line_of(stdout: &str, name: &str) -> String {
    let lines = stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.into_iter().find(|words| words.first() == Some(&name));
    line.unwrap_or_else(|| panic!("{name} is not in: {stdout}")).join(" ")
}

#[test]
fn the_readme_lists_the_settings_as_they_are() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (begin, end) =
        ("<!-- settings: printed by `fantail check --markdown` -->\n", "<!-- settings: end -->");
    let list = readme.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0;
    assert_eq!(list, markdown(), "put what `fantail check --markdown` prints into README.md");
    assert_eq!(run(&["check", "--markdown"]).stdout, markdown());
}

#[test]
fn check_prints_every_setting_with_its_value_and_source() {
    let file = TempFile::new(
        "check",
        "workers = 3\ndriver = 'epoll'\n[limits]\nclose_timeout = '1m30s'\n",
    );
    let variables =
        [("FANTAIL_DRIVER", "auto"), ("FANTAIL_CONFIG", file.path()), ("FANTAIL_PORT", "80")];
    let ended = run_with(
        &variables,
        &["check", "--workers", "4", "--tcp", "[::1]:0", "--tcp", "127.0.0.1:0"],
    );
    assert!(ended.status.success(), "{ended:?}");
    for (name, line) in [
        ("workers", "workers 4 flag --workers".to_owned()),
        ("driver", "driver auto env FANTAIL_DRIVER".to_owned()),
        ("limits.close_timeout", format!("limits.close_timeout 90 s file {}:4", file.path())),
        ("limits.keepalive_interval", "limits.keepalive_interval 25 s default".to_owned()),
        ("tcp.listen", "tcp.listen [::1]:0, 127.0.0.1:0 flag --tcp".to_owned()),
        ("FANTAIL_PORT", "FANTAIL_PORT is no setting and has no effect".to_owned()),
    ] {
        assert_eq!(line_of(&ended.stdout, name), line);
    }
    assert_eq!(ended.stdout.lines().count(), SETTINGS.len() + 1);
}

#[test]
fn check_and_serve_refuse_the_same_faults() {
    let file = TempFile::new("faults", "workers = 0\nlisten = ['127.0.0.1:0']\nworker = 1\n");
    for command in ["check", "serve"] {
        let ended = run(&[command, "--config", file.path()]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for line in [
            format!("{}:1: workers is 0; it must be from 1 to 128", file.path()),
            format!("{}:3: there is no setting worker, did you mean workers?", file.path()),
        ] {
            assert!(ended.stderr.contains(&line), "{line} is not in: {}", ended.stderr);
        }
        let missing = run(&[command, "--config", "/nowhere/fantail.toml"]);
        assert_eq!(missing.status.code(), Some(1), "{missing:?}");
        assert!(missing.stderr.contains("/nowhere/fantail.toml: "), "{missing:?}");
        let usage = run(&[command, "--worker", "1"]);
        assert_eq!(usage.status.code(), Some(2), "{usage:?}");
        assert!(usage.stderr.contains("'--workers'"), "{usage:?}");
    }
}
