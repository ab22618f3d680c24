//! The samples of a response to `/metrics`.

use std::collections::BTreeMap;

/// All samples of one response.
#[derive(Debug, Default)]
pub struct Samples {
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn is_of(&self, worker: Option<usize>) -> bool {
        worker.is_none_or(|worker| self.label("worker") == Some(&worker.to_string()))
    }
}

impl Samples {
    /// Parses the Prometheus text format as this server writes it; ignores other lines.
    pub fn parse(page: &str) -> Self {
        Self { samples: page.lines().filter_map(parse_line).collect() }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.of_name("fantail_turns_total").count()
    }

    /// The sum of all samples with a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.of_name(name).map(|sample| sample.value).sum()
    }

    /// The sum of one worker's samples with a name.
    pub fn of_worker(&self, name: &str, worker: usize) -> f64 {
        let of_name = self.of_name(name).filter(|sample| sample.is_of(Some(worker)));
        of_name.map(|sample| sample.value).sum()
    }

    /// The sums of the samples with a name, for each value of a label, in the order of the response.
    pub fn by_label<'a>(&'a self, name: &'a str, key: &str) -> Vec<(&'a str, f64)> {
        let mut found: Vec<(&str, f64)> = Vec::new();
        for sample in self.of_name(name) {
            let Some(label) = sample.label(key) else { continue };
            match found.iter_mut().find(|(known, _)| *known == label) {
                Some((_, value)) => *value += sample.value,
                None => found.push((label, sample.value)),
            }
        }
        found
    }

    /// The cumulative counts of a histogram, by upper bound. Keys are the bits of the bounds, which sort like the
    /// bounds because those are positive.
    fn buckets(&self, name: &str, worker: Option<usize>) -> BTreeMap<u64, f64> {
        let mut buckets = BTreeMap::new();
        let bucket = format!("{name}_bucket");
        for sample in self.of_name(&bucket).filter(|sample| sample.is_of(worker)) {
            let Some(bound) = sample.label("le").and_then(|le| le.parse::<f64>().ok()) else {
                continue;
            };
            *buckets.entry(bound.to_bits()).or_insert(0.0) += sample.value;
        }
        buckets
    }

    fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?;
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
    });
    let labels = labels.collect::<Option<_>>()?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// The upper bound of the bucket that has the `share` quantile, 0.0..=1.0, of the values observed between two
/// responses; `None` if none was observed.
pub fn percentile(
    before: &Samples,
    now: &Samples,
    name: &str,
    worker: Option<usize>,
    share: f64,
) -> Option<f64> {
    let old = before.buckets(name, worker);
    let buckets: Vec<(f64, f64)> = now
        .buckets(name, worker)
        .into_iter()
        // After a restart, a server counts from zero.
        .map(|(bound, count)| {
            (f64::from_bits(bound), (count - old.get(&bound).unwrap_or(&0.0)).max(0.0))
        })
        .collect();
    let (_, count) = *buckets.last()?;
    let wanted = (share * count).ceil();
    let found = buckets.iter().find(|(_, cumulative)| *cumulative >= wanted);
    found.map(|(bound, _)| *bound).filter(|_| count > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: [u32; 3]) -> Samples {
        let [a, b, c] = counts;
        Samples::parse(&format!(
            "# TYPE lag_seconds histogram\n\
             lag_seconds_bucket{{worker=\"0\",le=\"0.001\"}} {a}\n\
             lag_seconds_bucket{{worker=\"0\",le=\"0.002\"}} {b}\n\
             lag_seconds_bucket{{worker=\"0\",le=\"+Inf\"}} {c}\n\
             lag_seconds_bucket{{worker=\"1\",le=\"0.001\"}} {a}\n\
             lag_seconds_bucket{{worker=\"1\",le=\"0.002\"}} {a}\n\
             lag_seconds_bucket{{worker=\"1\",le=\"+Inf\"}} {a}\n\
             fantail_turns_total{{worker=\"0\"}} 7\n\
             fantail_turns_total{{worker=\"1\"}} 5\n\
             kinds{{worker=\"0\",kind=\"two words\"}} 1\n\
             kinds{{worker=\"1\",kind=\"two words\"}} 2\n\
             broken{{worker=\"1\n"
        ))
    }

    #[test]
    fn samples_are_distinguished_by_their_labels() {
        let page = page([1, 2, 3]);
        assert_eq!(page.workers(), 2);
        assert_eq!(page.sum("fantail_turns_total"), 12.0);
        assert_eq!(page.of_worker("fantail_turns_total", 1), 5.0);
        assert_eq!(page.by_label("kinds", "kind"), [("two words", 3.0)]);
    }

    #[test]
    fn a_percentile_is_that_of_the_values_between_two_responses() {
        let (before, now) = (page([100, 100, 100]), page([150, 190, 200]));
        let of_worker = |share| percentile(&before, &now, "lag_seconds", Some(0), share);
        assert_eq!(of_worker(0.5), Some(0.001));
        assert_eq!(of_worker(0.9), Some(0.002));
        assert_eq!(of_worker(0.99), Some(f64::INFINITY));
        assert_eq!(percentile(&before, &now, "lag_seconds", None, 0.6), Some(0.001));
        assert_eq!(percentile(&now, &now, "lag_seconds", None, 0.5), None);
        assert_eq!(percentile(&now, &before, "lag_seconds", None, 0.5), None, "a restart");
    }
}
