//! Plots of a run as SVG: open connections, memory and latency over time.

use std::error::Error;
use std::fs;
use std::path::Path;

use fantail::server::host::Grouped;
use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend,
    WHITE,
};

use crate::report::{Sample, Samples};

struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// Writes `connections.svg`, `memory.svg` and, if there were messages, `latency.svg` into a folder.
pub fn draw(directory: &Path, samples: &Samples) -> Result<(), Box<dyn Error>> {
    let line = |name, value: fn(&Sample) -> f64| {
        let points = samples.list.iter().map(|sample| (sample.seconds, value(sample))).collect();
        Line { name, points }
    };
    draw_lines(
        &directory.join("connections.svg"),
        "open connections",
        &[line("open", |sample| sample.open as f64)],
    )?;
    let mut memory = vec![
        line("c1m", |sample| sample.memory.own as f64 / 1e6),
        line("kernel", |sample| sample.memory.kernel() as f64 / 1e6),
    ];
    if samples.list.iter().any(|sample| sample.memory.server > 0) {
        memory.push(line("server", |sample| sample.memory.server as f64 / 1e6));
    }
    draw_lines(&directory.join("memory.svg"), "memory, MB", &memory)?;
    let has_messages = |sample: &&Sample| sample.count > 0;
    let latency = |name, value: fn(&Sample) -> f64| {
        let samples = samples.list.iter().filter(has_messages);
        Line { name, points: samples.map(|sample| (sample.seconds, value(sample))).collect() }
    };
    let p50 = latency("p50", |sample| sample.p50_ns as f64 / 1e6);
    let file = directory.join("latency.svg");
    if p50.points.is_empty() {
        // A plot of an earlier run must not be taken for one of this run.
        return if file.exists() { Ok(fs::remove_file(file)?) } else { Ok(()) };
    }
    let p99 = latency("p99", |sample| sample.p99_ns as f64 / 1e6);
    draw_lines(&file, "latency, ms", &[p50, p99])
}

fn draw_lines(file: &Path, title: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    // The first message may come ten minutes after the start.
    let start = points().map(|point| point.0).fold(f64::INFINITY, f64::min).max(0.0);
    let end = points().map(|point| point.0).fold(start + 1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max).max(0.001) * 1.05;
    let area = SVGBackend::new(file, PIXELS).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(start..end, 0.0..top)?;
    let (x_label, y_label) = (label(end - start), label(top));
    chart
        .configure_mesh()
        .x_desc("seconds")
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .light_line_style(WHITE)
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// Formats the numbers of an axis by its length.
fn label(length: f64) -> impl Fn(&f64) -> String {
    let decimals = if length < 1.0 { 3 } else { 1 };
    move |value| match length {
        10.0.. => Grouped(value.round() as u64).to_string(),
        _ => format!("{value:.decimals$}"),
    }
}

const PIXELS: (u32, u32) = (800, 400);
const COLORS: [RGBColor; 3] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_numbers_have_no_more_digits_than_needed() {
        assert_eq!(label(1_050_000.0)(&1_000_000.0), "1,000,000");
        assert_eq!(label(5.0)(&2.5), "2.5");
        assert_eq!(label(0.06)(&0.025), "0.025");
    }
}
