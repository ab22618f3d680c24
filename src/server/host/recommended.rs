//! The recommended kernel settings: the lines of `sysctl/90-fantail.conf`, compiled in.

/// Recommended open files per worker: `LimitNOFILE=` of `sysctl/fantail.service`.
pub(super) const DESCRIPTORS: u64 = 1_048_576;

/// The name and numbers of each setting of the file, in its order.
pub(super) fn settings() -> impl Iterator<Item = (&'static str, Vec<u64>)> {
    CONF.lines().filter_map(|line| {
        // With a leading minus, sysctl ignores a key that is missing.
        let (key, value) = line.trim_start_matches('-').split_once('=')?;
        let key = key.trim();
        (!key.starts_with(['#', ';'])).then(|| (key, numbers(value)))
    })
}

/// The recommended numbers of a setting. The file must have it.
pub(super) fn setting(key: &str) -> Vec<u64> {
    let found = settings().find(|(name, _)| *name == key);
    found.map(|(_, value)| value).expect("judged settings stand in the file; a test judges all")
}

/// Parses the numbers of a setting.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

const CONF: &str = include_str!("../../../sysctl/90-fantail.conf");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_file_is_empty_a_comment_or_a_setting() {
        let lines = CONF.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert!(lines >= 5, "{lines}");
        assert_eq!(settings().count(), lines);
        assert!(settings().all(|(_, value)| !value.is_empty()));
        assert_eq!(setting("net.core.somaxconn"), [65_535]);
    }

    #[test]
    fn the_unit_sets_the_recommended_limit_on_open_files() {
        let unit = include_str!("../../../sysctl/fantail.service");
        let limit = format!("LimitNOFILE={DESCRIPTORS}");
        assert!(unit.lines().any(|line| line == limit), "{limit}");
    }
}
