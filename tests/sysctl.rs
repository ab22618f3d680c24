//! `sysctl/apply` on artificial trees: it raises lower values, saves the former ones, and restores exactly those.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A temporary folder with a tree of settings, a file of values and a file for the former ones.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, settings: &[(&str, &str)], conf: &str) -> Self {
        let tree = Self(
            std::env::temp_dir().join(format!("fantail-sysctl-{}-{name}", std::process::id())),
        );
        for (key, value) in settings {
            let path = tree.path(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        fs::write(tree.0.join("conf"), conf).unwrap();
        tree
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join("sys").join(key.replace('.', "/"))
    }

    fn value(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap().trim_end().to_owned()
    }

    fn apply(&self, arguments: &[&str]) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("sysctl/apply"))
            .arg("--conf")
            .arg(self.0.join("conf"))
            .arg("--state")
            .arg(self.0.join("before"))
            .arg("--proc-sys")
            .arg(self.0.join("sys"))
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn expect(&self, arguments: &[&str], code: i32) -> String {
        let output = self.apply(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = if code == 0 { output.stdout } else { output.stderr };
        String::from_utf8(said).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BEFORE: [(&str, &str); 4] = [
    ("fs.file-max", "9223372036854775807"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.tcp_mem", "1\t2\t30"),
    ("net.ipv4.ip_local_port_range", "32768\t60999"),
];
const CONF: &str = "# a comment\n\nfs.file-max = 100\nnet.core.somaxconn = 65535\nnet.ipv4.tcp_mem = 10 20 30\n\
                    net.ipv4.ip_local_port_range = 10240 65535\n-net.netfilter.nf_conntrack_max = 5\n";

#[test]
fn lower_values_are_raised_and_undo_restores_the_original_values() {
    let tree = Tree::new("raise", &BEFORE, CONF);
    let said = tree.expect(&[], 0);
    assert!(said.contains("nf_conntrack_max: not here"), "{said}");
    assert_eq!(tree.value("net.core.somaxconn"), "65535");
    assert_eq!(tree.value("net.ipv4.tcp_mem"), "10 20 30");
    assert_eq!(tree.value("net.ipv4.ip_local_port_range"), "10240 65535");
    // It lowers nothing.
    assert_eq!(tree.value("fs.file-max"), BEFORE[0].1);
    // A second run changes nothing, and a run after an outside change keeps the first values.
    assert!(!tree.expect(&[], 0).contains("was"));
    fs::write(tree.path("net.core.somaxconn"), "7\n").unwrap();
    tree.expect(&[], 0);
    assert_eq!(tree.value("net.core.somaxconn"), "65535");

    assert!(tree.expect(&["--undo", "--dry-run"], 0).contains("net.core.somaxconn = 4096"));
    assert_eq!(tree.value("net.core.somaxconn"), "65535");
    tree.expect(&["--undo"], 0);
    for (key, before) in BEFORE {
        assert_eq!(tree.value(key), before.replace('\t', " "));
    }
    assert!(tree.expect(&["--undo"], 1).contains("nothing to undo"));
}

#[test]
fn a_dry_run_says_it_all_and_does_nothing() {
    let tree = Tree::new("dry", &BEFORE, CONF);
    let said = tree.expect(&["--dry-run"], 0);
    assert!(said.contains("net.core.somaxconn = 65535   # was 4096"), "{said}");
    for (key, before) in BEFORE {
        assert_eq!(tree.value(key), before);
    }
    assert!(!tree.0.join("before").exists());
}

#[test]
fn a_missing_key_or_an_invalid_line_is_refused_before_anything_is_set() {
    for (conf, word) in [
        ("net.core.somaxconn = 9\nnet.core.missing = 1\n", "net.core.missing"),
        ("net.core.somaxconn = 9999\nnet.core.other 1\n", "not a setting"),
        ("net.core.somaxconn = 9999\n../../etc/x = 1\n", "not a setting"),
    ] {
        let tree = Tree::new("missing", &BEFORE, conf);
        let said = tree.expect(&[], 1);
        assert!(said.contains(word), "{said}");
        assert_eq!(tree.value("net.core.somaxconn"), "4096");
    }
}

#[test]
fn values_that_cannot_be_set_are_reported_and_the_rest_is_set_and_undone() {
    let conf = format!("net.ipv4.refused = 65537\n{CONF}");
    let tree = Tree::new("refused", &BEFORE, &conf);
    // Root may write any file, but not this one, which contains 65536.
    let refused = tree.path("net.ipv4.refused");
    std::os::unix::fs::symlink("/proc/sys/kernel/ngroups_max", refused).unwrap();
    assert!(tree.expect(&[], 1).contains("cannot set net.ipv4.refused"));
    assert_eq!(tree.value("net.core.somaxconn"), "65535");
    fs::write(tree.0.join("before"), "net.ipv4.refused = 1\nnet.core.somaxconn = 4096\n").unwrap();
    assert!(tree.expect(&["--undo"], 1).contains("cannot set net.ipv4.refused back"));
    assert_eq!(tree.value("net.core.somaxconn"), "4096");
    assert!(tree.0.join("before").exists(), "values that were not restored stay saved");
}

#[test]
fn argument_errors_are_distinguished() {
    let tree = Tree::new("arguments", &BEFORE, CONF);
    assert!(tree.expect(&["--fast"], 2).contains("--fast"));
    assert!(tree.expect(&["--state"], 2).contains("--state"));
    assert!(tree.expect(&["--help"], 0).contains("Usage"));
    assert!(tree.expect(&["--conf", "/nowhere"], 1).contains("/nowhere"));
}
