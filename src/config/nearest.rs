//! Suggestions for misspelt names.

/// ", did you mean NAME?" with the nearest of the names, or an empty text if none is near.
pub fn did_you_mean<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(text, names).map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

/// The name nearest to a text, if at most a third of its characters differ. The last word of a dotted name is compared
/// too.
pub fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    // The edit distance to a word, if it is near.
    let distance = |word: &str| {
        let distance = strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase());
        (distance <= word.len().div_ceil(3).min(DISTANCE_MAX)).then_some(distance)
    };
    names
        .filter_map(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            let nearer = distance(name).into_iter().chain(distance(last)).min()?;
            Some((nearer, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Largest edit distance at which two names are near, however long they are.
const DISTANCE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_recognised_and_other_words_are_not() {
        let names =
            ["listen", "limits.keepalive_interval", "limits.keepalive_timeout", "log.level"];
        let near = |text| nearest(text, names.into_iter());
        assert_eq!(near("lisen"), Some("listen"));
        assert_eq!(near("Listen"), Some("listen"));
        assert_eq!(near("limits.keepalive-intervall"), Some("limits.keepalive_interval"));
        assert_eq!(near("keepalive_timeout"), Some("limits.keepalive_timeout"));
        assert_eq!(near("level"), Some("log.level"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
        assert_eq!(did_you_mean("lisen", names.into_iter()), ", did you mean listen?");
        assert_eq!(did_you_mean("colour", names.into_iter()), "");
    }
}
