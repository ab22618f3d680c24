//! The run as pictures: how many were open, what memory that took, how latencies went. SVG, with the reader's fonts.

use std::error::Error;
use std::fs;
use std::path::Path;

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
    let worked = |sample: &&Sample| sample.count > 0;
    let latency = |name, value: fn(&Sample) -> f64| {
        let samples = samples.list.iter().filter(worked);
        Line { name, points: samples.map(|sample| (sample.seconds, value(sample))).collect() }
    };
    let p50 = latency("p50", |sample| sample.p50_ns as f64 / 1e6);
    let file = directory.join("latency.svg");
    if p50.points.is_empty() {
        // One of an earlier run would pass for this one's.
        return if file.exists() { Ok(fs::remove_file(file)?) } else { Ok(()) };
    }
    let p99 = latency("p99", |sample| sample.p99_ns as f64 / 1e6);
    draw_lines(&file, "latency, ms", &[p50, p99])
}

fn draw_lines(file: &Path, title: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max).max(0.001) * 1.05;
    let area = SVGBackend::new(file, PIXELS).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("seconds").light_line_style(WHITE).draw()?;
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

const PIXELS: (u32, u32) = (800, 400);
const COLORS: [RGBColor; 3] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];
