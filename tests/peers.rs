//! `bench peers` without installed peers reports them as missing and measures fantail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs one short round of echoes; server and load share the first core that this test may use.
fn bench_peers(more: &[&str]) -> Output {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let core = cores.trim().split(['-', ',']).next().unwrap();
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["peers", "echo", "--rounds", "1", "--seconds", "0.2"])
        .args(["--server", env!("CARGO_BIN_EXE_fantail")])
        .args(["--server-core", core, "--load-core", core])
        .args(more)
        .output()
        .unwrap()
}

fn empty_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_missing_peer_is_skipped_and_reported_and_a_failing_one_is_a_row() {
    let folder = empty_folder("peers");
    let broken = folder.join("bun");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("version"), "Bun that does not start\n").unwrap();
    fs::write(broken.join("start"), "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(broken.join("start"), fs::Permissions::from_mode(0o755)).unwrap();
    let (json, markdown) = (folder.join("turns.json"), folder.join("table.md"));

    let output = bench_peers(&[
        "--installed",
        folder.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
        "--markdown",
        markdown.to_str().unwrap(),
    ]);

    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table, fs::read_to_string(&markdown).unwrap());
    for peer in ["tungstenite", "fastwebsockets", "node-ws", "nchan", "python-websockets"] {
        assert!(stderr.contains(&format!("skipped {peer}: not installed")), "{stderr}");
        assert!(table.contains(&format!("- {peer}: skipped, not installed")), "{table}");
    }
    assert_eq!(table.matches("\n| fantail | ").count(), 2, "{table}");
    assert_eq!(table.matches("| 1.00 [1.00..1.00] |").count(), 2, "{table}");
    assert_eq!(table.matches("ended during its start: exit status: 3").count(), 2, "{table}");

    let turns: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let turns = turns["turns"].as_array().unwrap();
    let measured: Vec<_> = turns.iter().filter(|turn| turn["server"] == "fantail").collect();
    assert_eq!(measured.len(), 2);
    assert!(measured.iter().all(|turn| turn["report"]["ops"].as_u64().unwrap() > 100));

    let again = bench_peers(&["--from", json.to_str().unwrap()]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table, "what was written is the same");
}

#[test]
fn a_file_that_is_not_a_report_is_refused() {
    let folder = empty_folder("peers-foreign");
    let file = folder.join("foreign.json");
    fs::write(&file, "{\"turns\": 7}").unwrap();
    let output = bench_peers(&["--from", file.to_str().unwrap()]);
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("foreign.json: not a file written by `bench peers --json`"),
        "{stderr}"
    );
    for arguments in [
        &["--from", "/nowhere.json"][..],
        &["--rounds", "0"],
        &["--seconds", "0"],
        &["--seconds", "nan"],
        &["--seconds=-1"],
        &["--peer", "unknown"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        let output = command.args(["peers", "echo"]).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let name = arguments.last().unwrap().trim_start_matches("--seconds=");
        assert!(!output.status.success() && stderr.contains(name), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") || stderr.starts_with("bench: "), "{stderr}");
    }
}
