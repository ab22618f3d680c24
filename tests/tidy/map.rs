//! The map in `src/lib.rs` leads somewhere: every path in it exists.

use std::path::Path;

use crate::report;
use crate::source::sources;

/// The paths in the map, in its backticks, each with its line.
fn paths(map: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    for (index, line) in map.lines().enumerate().filter(|(_, line)| line.starts_with("//!")) {
        let quoted = line.split('`').skip(1).step_by(2);
        paths.extend(quoted.filter(|text| text.contains('/')).map(|path| (index + 1, path)));
    }
    paths
}

/// Paths are below `src` or below the top of the repository. One that ends with `/` is a folder.
fn check(map: &str) -> Vec<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exists = |path: &str| {
        let places = [top.join("src").join(path), top.join(path)];
        places
            .iter()
            .any(|place| if path.ends_with('/') { place.is_dir() } else { place.is_file() })
    };
    let missing = paths(map).into_iter().filter(|(_, path)| !exists(path));
    missing.map(|(line, path)| format!("src/lib.rs:{line}: {path} does not exist")).collect()
}

#[test]
fn every_path_in_the_map_exists() {
    let map = sources("src").into_iter().find(|source| source.path == "src/lib.rs").unwrap();
    let count = paths(&map.text).len();
    assert!(count > 50, "{count} paths");
    report(&check(&map.text));
}

#[test]
fn a_path_that_does_not_exist_is_found() {
    let map =
        "//! | a right | `auth/decide.rs`, `hub/` |\n//! | a test | `tests/tidy/map.rs`, `Hub` |\n";
    assert_eq!(check(map), [""; 0]);
    let moved = "//! The map.\n//! | a right | `auth/attic.rs`, `auth/decide.rs/`, `attic/` |\n";
    let faults = ["auth/attic.rs", "auth/decide.rs/", "attic/"]
        .map(|path| format!("src/lib.rs:2: {path} does not exist"));
    assert_eq!(check(moved), faults);
}
