//! What breaks a rule today. Each list is to become empty: what is mended leaves it.

/// Files, or folders, in circles.
pub const CIRCLES: &[&str] = &[];

/// Types with too many methods.
pub const METHODS: &[&str] = &[];

/// Files, or folders, with words that the list of words does not allow.
pub const WORDS: &[&str] = &["README.md", "src/transport/README.md"];

/// Takes what an exception excuses out of faults, each with the file or type that it is in. An exception that excuses
/// nothing is a fault itself.
pub fn apply(found: Vec<(String, String)>, exceptions: &[&str]) -> Vec<String> {
    let excuses = |exception: &str, place: &str| {
        place == exception || (exception.ends_with('/') && place.starts_with(exception))
    };
    let mut faults = Vec::new();
    for exception in exceptions {
        if !found.iter().any(|(place, _)| excuses(exception, place)) {
            faults.push(format!("{exception} needs no exception any more: take it back"));
        }
    }
    let rest = found
        .into_iter()
        .filter(|(place, _)| !exceptions.iter().any(|exception| excuses(exception, place)));
    faults.extend(rest.map(|(_, fault)| fault));
    faults
}

#[test]
fn an_exception_excuses_its_files_only_and_is_refused_once_it_is_not_needed() {
    let check = |place: &str, exceptions: &[&str]| {
        apply(vec![(place.to_owned(), "a fault".to_owned())], exceptions)
    };
    assert_eq!(check("src/hub/a.rs", &["src/hub/"]), [""; 0]);
    assert_eq!(check("src/hub/a.rs", &["src/hub/a.rs"]), [""; 0]);
    assert_eq!(check("src/hub/a.rs", &[]), ["a fault"]);
    let unneeded = |name: &str| format!("{name} needs no exception any more: take it back");
    assert_eq!(check("src/hub/a.rs", &["src/hub"]), [&*unneeded("src/hub"), "a fault"]);
    assert_eq!(check("src/hub/a.rs", &["src/hub/", "src/b/"]), [unneeded("src/b/")]);
}
