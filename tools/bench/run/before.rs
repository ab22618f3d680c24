//! Comparison of fantail with an earlier build: the effect of a change, and how much either build varies.

use serde_json::Value;

use super::report::Spread;
use super::turn::Pair;

/// Rows in the order of measurement.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
}

impl Table {
    pub fn add(&mut self, name: &str, driver: &str, pairs: &[Pair]) {
        if pairs.iter().all(|pair| pair.before.is_none()) {
            return;
        }
        let of = |take: &dyn Fn(&Pair) -> f64| Spread::of(pairs.iter().map(take));
        let before = |pair: &Pair, path: &[&str]| figure(pair.before.as_ref(), path);
        let ratio =
            |path: &[&str]| of(&|pair| figure(Some(&pair.fantail), path) / before(pair, path));
        let costs = [
            of(&|pair| figure(Some(&pair.fantail), COST)),
            of(&|pair| before(pair, COST)),
            of(&|pair| figure(Some(&pair.bare), COST)),
        ];
        let over = ratio(COST);
        let mut row = format!(
            "| {name} | {driver} | {:.0} ns | **{:.3}** [{:.3}..{:.3}] |",
            costs[1].median, over.median, over.min, over.max,
        );
        for cost in &costs {
            row.push_str(&format!(" {:.2} |", cost.max / cost.min));
        }
        for path in [["latency", "p50_us"], ["latency", "p99_us"]] {
            let now = of(&|pair| figure(Some(&pair.fantail), &path)).median;
            row.push_str(&times(now, of(&|pair| before(pair, &path)).median, ratio(&path).median));
        }
        let ping = |index: usize| {
            let path = ["probe", "p99_us"];
            of(&|pair| figure(pair.pings.as_ref().map(|pings| &pings[index]), &path)).median
        };
        row.push_str(&times(ping(0), ping(1), ping(0) / ping(1)));
        self.rows.push(row);
    }

    pub fn to_markdown(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        format!("\n{HEADINGS}{}\n", self.rows.join("\n"))
    }
}

fn figure(report: Option<&Value>, path: &[&str]) -> f64 {
    let figure = report.and_then(|report| {
        path.iter().try_fold(report, |value, key| value.get(key)).and_then(Value::as_f64)
    });
    figure.unwrap_or(f64::NAN)
}

/// Formats two times in milliseconds and their ratio; empty if the case does not measure them.
fn times(now: f64, before: f64, ratio: f64) -> String {
    if now.is_nan() {
        return " |".to_owned();
    }
    format!(" {:.2} ms, before {:.2} ms: **{ratio:.2}** |", now / 1000.0, before / 1000.0)
}

const COST: &[&str] = &["server", "cpu_ns_per_op"];

const HEADINGS: &str = "\
| case | driver | before, CPU per op | of before, median [min..max] | slowest over fastest round: now | before | bare | publish to last delivery, p50 | p99 | ping meanwhile, p99 |
|---|---|---|---|---|---|---|---|---|---|
";
