//! The report of `bench peers`: the cost of each server, absolute and relative to fantail.

use serde_json::{Value, json};

use super::cases::{self, Case, Cost};
use crate::run::report::{Spread, environment};

/// The servers and their turns.
#[derive(Default)]
pub struct Report {
    environment: Vec<String>,
    /// Names and versions, in the order of their turns.
    servers: Vec<(String, String)>,
    skipped: Vec<String>,
    turns: Vec<Turn>,
}

struct Turn {
    case: String,
    server: String,
    round: usize,
    outcome: Outcome,
}

/// The result of a turn.
pub enum Outcome {
    /// The report of the load
    Measured(Value),
    /// The cause of failure
    Failed(String),
}

/// The figures of one server in one case.
pub struct Row {
    pub server: String,
    /// The figures, or the cause of failure.
    pub figures: Result<Figures, String>,
}

pub struct Figures {
    pub cost: Spread,
    pub is_memory: bool,
    /// Cost relative to fantail's in the same round.
    pub ratio: Spread,
    /// Operations per second.
    pub rate: Option<Spread>,
}

impl Report {
    pub fn of_this_host() -> Self {
        Self { environment: vec![environment()], ..Self::default() }
    }

    pub fn note_server(&mut self, name: &str, version: &str) {
        if self.servers.iter().all(|(known, _)| known != name) {
            self.servers.push((name.to_owned(), version.to_owned()));
        }
    }

    pub fn note_skipped(&mut self, name: &str) {
        if self.skipped.iter().all(|known| known != name) {
            self.skipped.push(name.to_owned());
        }
    }

    pub fn add(&mut self, case: &Case, server: &str, round: usize, outcome: Outcome) {
        match &outcome {
            Outcome::Measured(report) => {
                let cost =
                    Cost::of(report).map_or_else(|| "no cost".to_owned(), |cost| cost.to_text());
                eprintln!("{} {server} round {}: {cost}", case.title, round + 1);
            }
            Outcome::Failed(why) => eprintln!("{} {server} round {}: {why}", case.title, round + 1),
        }
        let (case, server) = (case.title.to_owned(), server.to_owned());
        self.turns.push(Turn { case, server, round, outcome });
    }

    /// The cases with turns, and in each a row for every server that had a turn.
    pub fn cases(&self) -> Vec<(&'static str, Vec<Row>)> {
        let titles = cases::all(0.0).into_iter().map(|case| case.title);
        titles.map(|title| (title, self.rows(title))).filter(|(_, rows)| !rows.is_empty()).collect()
    }

    fn rows(&self, title: &str) -> Vec<Row> {
        let row = |(server, _): &(String, String)| {
            let has_turns =
                self.turns.iter().any(|turn| turn.case == title && turn.server == *server);
            has_turns.then(|| Row { server: server.clone(), figures: self.figures(title, server) })
        };
        self.servers.iter().filter_map(row).collect()
    }

    fn figures(&self, title: &str, server: &str) -> Result<Figures, String> {
        let turns = || self.turns.iter().filter(|turn| turn.case == title);
        let (mut costs, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_memory = false;
        for turn in turns().filter(|turn| turn.server == server) {
            let report = match &turn.outcome {
                Outcome::Measured(report) => report,
                Outcome::Failed(why) => return Err(why.clone()),
            };
            let cost = Cost::of(report).ok_or("reported no cost")?;
            is_memory = cost.is_memory;
            let ours = turns()
                .find(|other| other.server == FANTAIL && other.round == turn.round)
                .and_then(|other| match &other.outcome {
                    Outcome::Measured(report) => Cost::of(report),
                    Outcome::Failed(_) => None,
                });
            costs.push(cost.value);
            ratios.extend(ours.map(|ours| cost.value / ours.value));
            rates.extend(report["ops_per_second"].as_f64());
        }
        Ok(Figures {
            cost: Spread::of(costs.into_iter()),
            is_memory,
            ratio: Spread::of(ratios.into_iter()),
            rate: (!rates.is_empty()).then(|| Spread::of(rates.into_iter())),
        })
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.environment.join("\n"));
        for (name, version) in &self.servers {
            text.push_str(&format!("- {name}: {version}\n"));
        }
        for name in &self.skipped {
            text.push_str(&format!("- {name}: skipped, not installed\n"));
        }
        for (title, rows) in self.cases() {
            text.push_str(&format!(
                "\n| {title} | cost, median [min..max] | relative to fantail | per second |\n|---|---|---|---|\n"
            ));
            for Row { server, figures } in rows {
                let line = match figures {
                    Ok(figures) => figures.to_line(),
                    Err(why) => format!("{} | | ", why.replace('|', "\\|").replace('\n', " ")),
                };
                text.push_str(&format!("| {server} | {line} |\n"));
            }
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let turns: Vec<Value> = self
            .turns
            .iter()
            .map(|Turn { case, server, round, outcome }| match outcome {
                Outcome::Measured(report) => {
                    json!({ "case": case, "server": server, "round": round, "report": report })
                }
                Outcome::Failed(why) => {
                    json!({ "case": case, "server": server, "round": round, "failed": why })
                }
            })
            .collect();
        json!({
            "environment": self.environment,
            "servers": self.servers,
            "skipped": self.skipped,
            "turns": turns,
        })
    }

    /// Adds the output of `to_json`; returns `None` if `value` has another form.
    pub fn add_json(&mut self, value: &Value) -> Option<()> {
        for line in value["environment"].as_array()? {
            let line = line.as_str()?;
            if self.environment.iter().all(|known| known != line) {
                self.environment.push(line.to_owned());
            }
        }
        for server in value["servers"].as_array()? {
            self.note_server(server[0].as_str()?, server[1].as_str()?);
        }
        for name in value["skipped"].as_array()? {
            self.note_skipped(name.as_str()?);
        }
        // Rounds of different runs are numbered consecutively.
        let rounds = self.turns.iter().map(|turn| turn.round + 1).max().unwrap_or(0);
        for turn in value["turns"].as_array()? {
            let text = |key: &str| Some(turn[key].as_str()?.to_owned());
            let outcome = match turn.get("report") {
                Some(report) => Outcome::Measured(report.clone()),
                None => Outcome::Failed(text("failed")?),
            };
            let round = rounds + turn["round"].as_u64()? as usize;
            self.turns.push(Turn { case: text("case")?, server: text("server")?, round, outcome });
        }
        Some(())
    }
}

impl Figures {
    fn to_line(&self) -> String {
        let Self { cost, is_memory, ratio, rate } = self;
        let number = |value| Cost { value, is_memory: *is_memory }.to_number();
        let median = Cost { value: cost.median, is_memory: *is_memory }.to_text();
        let cost = format!("{median} [{}..{}]", number(cost.min), number(cost.max));
        let [median, min, max] = [ratio.median, ratio.min, ratio.max].map(three_digits);
        let rate = rate.as_ref().map(|rate| three_digits(rate.median)).unwrap_or_default();
        format!("{cost} | {median} [{min}..{max}] | {rate}")
    }
}

impl Cost {
    fn to_number(&self) -> String {
        three_digits(if self.is_memory { self.value } else { self.value / 1000.0 })
    }

    fn to_text(&self) -> String {
        format!("{} {}", self.to_number(), if self.is_memory { "B" } else { "µs" })
    }
}

/// Formats three significant digits, with separators: 0.333, 4.89, 139, 176,000.
pub fn three_digits(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    if magnitude < 2 {
        return format!("{value:.*}", (2 - magnitude).min(6) as usize);
    }
    let unit = 10f64.powi(magnitude - 2);
    let digits = format!("{:.0}", (value / unit).round() * unit);
    let mut text = String::new();
    for (digit, behind) in digits.chars().zip((0..digits.len()).rev()) {
        text.push(digit);
        if digit != '-' && behind > 0 && behind % 3 == 0 {
            text.push(',');
        }
    }
    text
}

/// The name of fantail among the servers.
pub const FANTAIL: &str = "fantail";

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(server: &str, round: usize, cost: f64) -> Value {
        let report = json!({ "server": { "cpu_ns_per_op": cost }, "ops_per_second": 1000.0 });
        json!({ "case": "accept", "server": server, "round": round, "report": report })
    }

    fn report() -> Report {
        let failed =
            json!({ "case": "accept", "server": "nchan", "round": 0, "failed": "crashed" });
        let turns = [turn(FANTAIL, 0, 10.0), turn("bun", 0, 30.0), failed];
        let more = [turn(FANTAIL, 0, 20.0), turn("bun", 0, 20.0)];
        let servers = [[FANTAIL, "1"], ["bun", "2"], ["nchan", "3"]];
        let mut report = Report::default();
        for turns in [&turns[..], &more] {
            let value = json!({
                "environment": ["here"], "servers": servers, "skipped": ["x"], "turns": turns,
            });
            report.add_json(&value).expect("the shape that to_json writes");
        }
        report
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_failures_are_reported() {
        let text = report().to_markdown();
        assert!(
            text.contains("| bun | 0.0250 µs [0.0200..0.0300] | 2.00 [1.00..3.00] | 1,000 |"),
            "{text}"
        );
        assert!(text.contains("| nchan | crashed | |  |"), "{text}");
        assert!(text.contains("- x: skipped, not installed"), "{text}");
    }

    #[test]
    fn a_report_can_be_read_back_from_json() {
        let mut again = Report::default();
        again.add_json(&report().to_json()).expect("the shape that to_json writes");
        assert_eq!(again.to_markdown(), report().to_markdown());
        assert!(again.add_json(&json!({ "turns": [] })).is_none());
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let text = [0.333_3, 4.885, 139.2, 176_694.0, 1_752_211.0, 0.0].map(three_digits);
        assert_eq!(text, ["0.333", "4.88", "139", "177,000", "1,750,000", "0.00"]);
    }
}
