//! The report of `bench run`: medians, spreads, and whether the bounds hold.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::cases::{Bound, Comparison, Figure, Solo};
use super::turn::Pair;

/// Rows in the order of measurement.
pub struct Report {
    rows: Vec<Row>,
    turns: Vec<Value>,
}

struct Row {
    name: String,
    driver: String,
    figures: String,
    bound: String,
    holds: Option<bool>,
    /// Median figure of fantail.
    median: f64,
}

impl Report {
    pub fn new() -> Self {
        Self { rows: Vec::new(), turns: Vec::new() }
    }

    pub fn add_comparison(&mut self, comparison: &Comparison, driver: &str, pairs: Vec<Pair>) {
        let cost = |report: &Value| report["server"]["cpu_ns_per_op"].as_f64().unwrap_or(f64::NAN);
        let rate = |report: &Value| report["ops_per_second"].as_f64().unwrap_or(f64::NAN);
        let of = |take: &dyn Fn(&Pair) -> f64| Spread::of(pairs.iter().map(take));
        let fantail = of(&|pair| cost(&pair.fantail));
        let bare = of(&|pair| cost(&pair.bare));
        let ratio = of(&|pair| cost(&pair.fantail) / cost(&pair.bare));
        let rates = [of(&|pair| rate(&pair.fantail)), of(&|pair| rate(&pair.bare))];
        let others = pairs
            .iter()
            .flat_map(|pair| [&pair.fantail, &pair.bare])
            .filter_map(|report| report["server"]["other_share"].as_f64())
            .fold(0.0, f64::max);
        let mut bounds = Vec::new();
        let mut holds = None;
        if let Some(max) = comparison.ratio_max {
            bounds.push(format!("{max:.2} of bare"));
            holds = Some(ratio.median <= max);
        }
        let mut figures = format!(
            "{:.0} ns \\| {:.0} ns \\| **{:.3}** [{:.3}..{:.3}] \\| {:.0}/s \\| {:.0}/s \\| {:.0} %",
            fantail.median,
            bare.median,
            ratio.median,
            ratio.min,
            ratio.max,
            rates[0].median,
            rates[1].median,
            others * 100.0,
        )
        .replace("\\|", "|");
        if let Some((earlier, max)) = comparison.over_earlier
            && let Some(row) =
                self.rows.iter().find(|row| row.name == earlier && row.driver == driver)
        {
            let over = fantail.median / row.median;
            bounds.push(format!("{max:.2} of “{earlier}”: {over:.3}"));
            holds = Some(holds.unwrap_or(true) && over <= max);
        }
        figures.push(' ');
        for (number, pair) in pairs.into_iter().enumerate() {
            let Pair { fantail, bare, before, pings } = pair;
            self.turns.push(json!({
                "case": comparison.name, "driver": driver, "pair": number,
                "fantail": fantail, "bare": bare, "before": before, "pings": pings,
            }));
        }
        self.rows.push(Row {
            name: comparison.name.to_owned(),
            driver: driver.to_owned(),
            figures,
            bound: bounds.join("; "),
            holds,
            median: fantail.median,
        });
    }

    pub fn add_solo(&mut self, solo: &Solo, driver: &str, turns: Vec<Value>) {
        for Figure { name, path, unit, bound } in &solo.figures {
            let figure = |report: &Value| {
                path.iter().fold(report, |value, key| &value[key]).as_f64().unwrap_or(f64::NAN)
            };
            let spread = Spread::of(turns.iter().map(figure));
            // A ratio.
            let digits = if unit.is_empty() { 2 } else { 0 };
            self.rows.push(Row {
                name: name.clone(),
                driver: driver.to_owned(),
                figures: format!(
                    "{:.digits$} {unit} | | [{:.digits$}..{:.digits$}] | | | ",
                    spread.median, spread.min, spread.max
                ),
                bound: match bound {
                    Some(Bound::AtMost(max)) => format!("{max:.0} {unit}"),
                    Some(Bound::AtLeast(min)) => format!("at least {min:.0} {unit}"),
                    None => String::new(),
                },
                holds: bound.map(|bound| match bound {
                    Bound::AtMost(max) => spread.median <= max,
                    Bound::AtLeast(min) => spread.min >= min,
                }),
                median: spread.median,
            });
        }
        for (number, report) in turns.into_iter().enumerate() {
            self.turns.push(json!({
                "case": solo.load.join(" "), "driver": driver, "turn": number, "fantail": report,
            }));
        }
    }

    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.holds != Some(false))
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n", environment());
        text.push_str(HEADINGS);
        for Row { name, driver, figures, bound, holds, .. } in &self.rows {
            let verdict = match holds {
                Some(true) => "holds",
                Some(false) => "**fails**",
                None => "",
            };
            text.push_str(&format!("| {name} | {driver} | {figures}| {bound} | {verdict} |\n"));
        }
        text
    }

    pub fn to_json(&self) -> Value {
        json!({ "environment": environment(), "turns": self.turns })
    }
}

/// Minimum, median and maximum of several turns.
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self { min: f64::NAN, median: f64::NAN, max: f64::NAN };
        };
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { min, median: (low + high) / 2.0, max }
    }
}

/// Kernel, CPU and commit, without which figures are meaningless.
pub fn environment() -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let kernel = output("uname", &["-sr"]).unwrap_or_default();
    let commit = output("git", &["describe", "--always", "--dirty"]).unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!("{kernel}, {count} × {model}, commit {commit}")
}

const HEADINGS: &str = "\
| case | driver | fantail, CPU per op | bare | ratio, median [min..max] | fantail rate | bare rate | other load on the core | bound | |
|---|---|---|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
    }
}
