//! Plot of the ratios: one panel per case and one bar per peer, relative to fantail at 1, on a logarithmic axis.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{
    DrawingArea, IntoDrawingArea, IntoFont, PathElement, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, RGBColor, TextStyle, WHITE};

use super::report::{FANTAIL, Report, Row, three_digits};

/// Draws the ratios as SVG.
pub fn draw(report: &Report) -> io::Result<String> {
    let cases = report.cases().into_iter();
    let panels: Vec<Panel> = cases.filter_map(|(title, rows)| Panel::of(title, &rows)).collect();
    if panels.is_empty() {
        return Err(io::Error::other("nothing to plot: no peer has a figure"));
    }
    let mut svg = String::new();
    draw_all(&panels, &mut svg).map_err(io::Error::other)?;
    Ok(svg)
}

struct Panel {
    title: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    server: String,
    /// Cost as a multiple of fantail's.
    min: f64,
    median: f64,
    max: f64,
}

impl Panel {
    fn of(title: &'static str, rows: &[Row]) -> Option<Self> {
        let bars: Vec<Bar> = rows.iter().filter_map(Bar::of).collect();
        (!bars.is_empty()).then_some(Self { title, bars })
    }
}

impl Bar {
    /// Returns `None` for fantail itself, which is the reference, and for a server without figures.
    fn of(row: &Row) -> Option<Self> {
        let ratio = &row.figures.as_ref().ok()?.ratio;
        let has_bar = row.server != FANTAIL && ratio.min > 0.0 && ratio.max.is_finite();
        has_bar.then(|| Self {
            server: row.server.clone(),
            min: ratio.min,
            median: ratio.median,
            max: ratio.max,
        })
    }
}

type Area<'svg> = DrawingArea<SVGBackend<'svg>, Shift>;

fn draw_all(panels: &[Panel], svg: &mut String) -> Result<(), String> {
    let bars = || panels.iter().flat_map(|panel| &panel.bars);
    let rows = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0) as i32;
    let scale = Scale {
        ratios: bars().map(|bar| bar.min).fold(0.5, f64::min)
            ..bars().map(|bar| bar.max).fold(10.0, f64::max),
    };
    let panel_height = HEADING + ROW * rows + AXIS;
    let lines = panels.len().div_ceil(COLUMNS) as i32;
    let size = (COLUMNS as u32 * PANEL_WIDTH as u32, (HEADLINE_ROOM + lines * panel_height) as u32);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    write(&root, HEADLINE, (MARGIN, HEADLINE_ROOM / 2), 15, HPos::Left)?;
    for (index, panel) in panels.iter().enumerate() {
        let x = (index % COLUMNS) as i32 * PANEL_WIDTH;
        let y = HEADLINE_ROOM + (index / COLUMNS) as i32 * panel_height;
        draw_panel(&root, panel, (x, y), rows, &scale)?;
    }
    root.present().map_err(|error| error.to_string())?;
    drop(root);
    Ok(())
}

fn draw_panel(
    root: &Area<'_>,
    panel: &Panel,
    (x, y): (i32, i32),
    rows: i32,
    scale: &Scale,
) -> Result<(), String> {
    let words = |error: DrawingAreaErrorKind<io::Error>| error.to_string();
    write(root, panel.title, (x + NAMES, y + HEADING / 2), 13, HPos::Left)?;
    let (top, bottom) = (y + HEADING, y + HEADING + ROW * rows);
    for ratio in scale.marks() {
        let at = x + NAMES + scale.place(ratio);
        let strength = if ratio == 1.0 { 0.9 } else { 0.15 };
        let line = PathElement::new([(at, top), (at, bottom)], BLACK.mix(strength));
        root.draw(&line).map_err(words)?;
        write(root, &format!("{ratio}"), (at, bottom + AXIS / 3), 10, HPos::Center)?;
    }
    let one = x + NAMES + scale.place(1.0);
    for (index, bar) in panel.bars.iter().enumerate() {
        let middle = top + ROW * index as i32 + ROW / 2;
        write(root, &bar.server, (x + NAMES - 6, middle), 11, HPos::Right)?;
        let [min, median, max] =
            [bar.min, bar.median, bar.max].map(|ratio| x + NAMES + scale.place(ratio));
        let color = if bar.median < 1.0 { CHEAPER } else { COSTLIER };
        let corners = [(one.min(median), middle - BAR / 2), (one.max(median), middle + BAR / 2)];
        root.draw(&Rectangle::new(corners, color.filled())).map_err(words)?;
        root.draw(&PathElement::new([(min, middle), (max, middle)], BLACK)).map_err(words)?;
        let right = max.max(one) + 5;
        write(root, &three_digits(bar.median), (right, middle), 11, HPos::Left)?;
    }
    Ok(())
}

fn write(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    horizontal: HPos,
) -> Result<(), String> {
    let style = TextStyle::from(("sans-serif", size).into_font());
    let style = style.pos(Pos::new(horizontal, VPos::Center));
    root.draw(&Text::new(text.to_owned(), at, style)).map_err(|error| error.to_string())
}

/// Maps ratios to pixels, right of the names.
struct Scale {
    ratios: Range<f64>,
}

impl Scale {
    fn place(&self, ratio: f64) -> i32 {
        let Range { start, end } = self.ratios;
        let share = (ratio / start).ln() / (end / start).ln();
        (share * f64::from(PANEL_WIDTH - NAMES - NUMBERS)) as i32
    }

    /// The powers of ten in range.
    fn marks(&self) -> impl Iterator<Item = f64> {
        let powers = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
        powers.into_iter().filter(|power| self.ratios.contains(power) || *power == self.ratios.end)
    }
}

const HEADLINE: &str =
    "Cost of the same work on other servers, as a multiple of fantail's (logarithmic)";

const COLUMNS: usize = 2;
const PANEL_WIDTH: i32 = 430;
/// Width of the names left of the bars, in pixels.
const NAMES: i32 = 130;
/// Width of the number right of the longest bar, in pixels.
const NUMBERS: i32 = 50;
const MARGIN: i32 = 12;
const HEADLINE_ROOM: i32 = 36;
const HEADING: i32 = 26;
const ROW: i32 = 17;
const BAR: i32 = 11;
const AXIS: i32 = 26;

const CHEAPER: RGBColor = RGBColor(120, 170, 120);
const COSTLIER: RGBColor = RGBColor(110, 150, 200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_logarithmic_around_one() {
        let scale = Scale { ratios: 0.1..10.0 };
        let places = [0.1, 1.0, 10.0].map(|ratio| scale.place(ratio));
        assert_eq!(places[1] - places[0], places[2] - places[1]);
        assert_eq!(scale.marks().collect::<Vec<_>>(), [0.1, 1.0, 10.0]);
    }

    #[test]
    fn a_plot_without_figures_is_an_error() {
        assert!(draw(&Report::default()).is_err());
    }
}
