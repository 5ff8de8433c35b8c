//! Plots as SVG, drawn once. Colours are variables of the style sheet, for light and dark mode.
//!
//! Each plot is drawn in two sizes, so that its text has the same size on a phone and on a wide screen.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use crate::exit::Failure;

/// Pixels of a plot on a wide screen, and on a narrow one.
const WIDE: (u32, u32) = (640, 290);
const NARROW: (u32, u32) = (336, 250);
const FONT: &str = "sans-serif";
const FONT_SIZE: u32 = 12;

/// Colours that stand for variables, and are replaced by them.
const TEXT: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const BARE: RGBColor = RGBColor(3, 3, 3);
/// The first of as many as there are.
const SERIES: u8 = 16;
pub(super) const SERIES_MAX: usize = 8;

/// The variables for light and dark mode; the page with the plot defines them.
pub(super) const COLOURS: &str = "\
:root{--text:#24292f;--grid:#d8dee4;--bare:#8b949e;\
--c0:#2563eb;--c1:#d97706;--c2:#059669;--c3:#9333ea;--c4:#dc2626;--c5:#0891b2;--c6:#65a30d;--c7:#be185d}\
@media (prefers-color-scheme:dark){:root{--text:#e6edf3;--grid:#30363d;--bare:#8b949e;\
--c0:#60a5fa;--c1:#fbbf24;--c2:#34d399;--c3:#c084fc;--c4:#f87171;--c5:#22d3ee;--c6:#a3e635;--c7:#f472b6}}";

/// A line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) colour: Colour,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    /// That of the backend of this number.
    Backend(usize),
    /// That of the bare sleep.
    Bare,
}

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            Self::Backend(number) => RGBColor(SERIES + (number % SERIES_MAX) as u8, 0, 0),
            Self::Bare => BARE,
        }
    }
}

/// An axis, with its labels and what they stand for.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    what: &'static str,
    range: Range<f64>,
    marks: Vec<(f64, String)>,
    log: bool,
}

impl Axis {
    /// From nothing to the largest value.
    pub(super) fn linear(what: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(0.0, f64::max).max(1e-3) * 1.05;
        let unit = 10_f64.powf((max / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|step| max / step <= 6.0).unwrap_or(max);
        let marks = (0..8).map(|i| f64::from(i) * step).filter(|mark| *mark <= max);
        Self { what, range: 0.0..max, marks: marks.map(|mark| (mark, label(mark))).collect(), log: false }
    }

    /// Logarithmic, over all values that are more than `least`.
    pub(super) fn log(what: &'static str, least: f64, values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).clamp(least, 1e12);
        let high = values.fold(least, f64::max).max(low * 2.0);
        let range = (low * 0.8).log10()..(high * 1.25).log10();
        // Where there is room for it, also 2 and 5.
        let steps: &[f64] = if range.end - range.start < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = range.start.floor() as i32..=range.end.ceil() as i32;
        let marks = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        let marks = marks.map(|mark| (mark.log10(), label(mark))).filter(|(place, _)| range.contains(place)).collect();
        Self { what, range, marks, log: true }
    }

    /// With names in the place of values, which count from 0.
    pub(super) fn named(what: &'static str, names: &[&str]) -> Self {
        let marks = names.iter().enumerate().map(|(i, name)| (i as f64, (*name).to_owned())).collect();
        Self { what, range: -0.2..names.len() as f64 - 0.8, marks, log: false }
    }

    fn place(&self, value: f64) -> f64 {
        let place = if self.log { value.max(1e-12).log10() } else { value };
        place.clamp(self.range.start, self.range.end)
    }

    fn label(&self, place: f64) -> String {
        let mark = self.marks.iter().find(|(mark, _)| (mark - place).abs() < 1e-9);
        mark.map_or_else(String::new, |(_, label)| label.clone())
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = self.range;
        limit.0 + ((place - start) / (end - start) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks.iter().map(|(place, _)| *place).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        self.label(*place)
    }
}

fn label(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e4 => format!("{} k", v / 1e3),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

/// Lines over two axes, for both sizes of the page.
pub(super) fn lines(x: &Axis, y: &Axis, lines: &[Line]) -> Result<String, Failure> {
    both(|size| {
        svg(size, |root| {
            let mut chart = ChartBuilder::on(root)
                .margin(4)
                .margin_right(16)
                .margin_top(10)
                .x_label_area_size(40)
                .y_label_area_size(58)
                .build_cartesian_2d(x.clone(), y.clone())?;
            chart
                .configure_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(GRID)
                .label_style((FONT, FONT_SIZE).into_font().color(&TEXT))
                .x_desc(x.what)
                .y_desc(y.what)
                .draw()?;
            for line in lines {
                let points = line.points.iter().map(|(at, value)| (x.place(*at), y.place(*value)));
                let style = line.colour.rgb().stroke_width(2);
                if line.dashed {
                    chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?;
                } else {
                    chart.draw_series(LineSeries::new(points, style))?;
                }
            }
            Ok(())
        })
    })
}

/// A group of bars, one for each backend that has this figure.
#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub(super) title: &'static str,
    /// The backend's number and name, its value, and how that is shown.
    pub(super) bars: Vec<(usize, String, f64, String)>,
}

const BAR: i32 = 17;
const GROUP: i32 = 24;
const GAP: i32 = 8;

/// Horizontal bars on a logarithmic scale, for both sizes of the page.
pub(super) fn bars(groups: &[Bars]) -> Result<String, Failure> {
    both(|(width, _)| bars_of_width(groups, width))
}

/// The same for a wide page alone, as a file of its own that knows its colours.
pub(super) fn bars_alone(groups: &[Bars]) -> Result<String, Failure> {
    let text = bars_of_width(groups, WIDE.0)?;
    let font = "text{font-family:system-ui,sans-serif}";
    Ok(text.replacen('>', &format!("><style>{COLOURS}{font}</style>"), 1))
}

fn bars_of_width(groups: &[Bars], width: u32) -> Result<String, Failure> {
    let height: i32 = groups.iter().map(|group| GROUP + GAP + BAR * group.bars.len() as i32).sum();
    let values = || groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.2));
    let low = (values().fold(f64::INFINITY, f64::min).max(1.0) / 4.0).log10();
    let high = values().fold(1.0, f64::max).log10().max(low + 1.0);
    let (names, numbers) = (78, 84);
    let room = f64::from(width as i32 - names - numbers);
    svg((width, height.max(BAR) as u32), |root| {
        let font = (FONT, FONT_SIZE).into_font();
        let mut y = 0;
        for group in groups {
            root.draw(&Text::new(
                group.title,
                (2, y + 6),
                (FONT, FONT_SIZE + 1).into_font().style(FontStyle::Bold).color(&TEXT),
            ))?;
            y += GROUP;
            for (number, name, value, shown) in &group.bars {
                let length = ((value.max(1.0).log10() - low) / (high - low) * room).max(2.0) as i32;
                let corners = [(names, y + 2), (names + length, y + BAR - 2)];
                root.draw(&Text::new(name.clone(), (2, y + 2), font.clone().color(&TEXT)))?;
                root.draw(&Rectangle::new(corners, Colour::Backend(*number).rgb().filled()))?;
                root.draw(&Text::new(shown.clone(), (names + length + 6, y + 2), font.clone().color(&TEXT)))?;
                y += BAR;
            }
            y += GAP;
        }
        Ok(())
    })
}

/// Draws for both sizes of the page, which shows the one that fits.
fn both(draw: impl Fn((u32, u32)) -> Result<String, Failure>) -> Result<String, Failure> {
    Ok(format!("<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>", draw(WIDE)?, draw(NARROW)?))
}

type Root<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a picture, and puts variables in the place of the colours.
fn svg(size: (u32, u32), draw: impl FnOnce(&Root<'_>) -> Drawn) -> Result<String, Failure> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawn = draw(&root).and_then(|()| root.present().map_err(Into::into));
        drawn.map_err(|e| Failure::new(format!("cannot draw a plot: {e}")))?;
    }
    for (colour, variable) in [(TEXT, "text"), (GRID, "grid"), (BARE, "bare")] {
        text = text.replace(&hex(colour), &format!("var(--{variable})"));
    }
    for number in 0..SERIES_MAX {
        text = text.replace(&hex(Colour::Backend(number).rgb()), &format!("var(--c{number})"));
    }
    Ok(text)
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_have_no_colours_of_their_own() {
        let points = vec![(0.1, 0.2), (10.0, 30.0)];
        let line = |colour, dashed| Line { colour, dashed, points: points.clone() };
        let x = Axis::log("x", 0.01, points.iter().map(|point| point.0));
        let y = Axis::linear("y", points.iter().map(|point| point.1));
        let text = lines(&x, &y, &[line(Colour::Backend(0), false), line(Colour::Bare, true)]).unwrap();
        assert!(text.contains("var(--c0)") && text.contains("var(--bare)") && text.contains("var(--text)"), "{text}");
        assert!(!text.contains("=\"#"), "{text}");
        let bars = bars_alone(&[Bars { title: "t", bars: vec![(1, "redis".into(), 5.0, "5/s".into())] }]).unwrap();
        assert!(bars.contains("prefers-color-scheme") && bars.contains("var(--c1)"), "{bars}");
    }

    #[test]
    fn axes_hold_their_values_and_have_labels() {
        let axis = Axis::log("ms", 0.01, [0.3, 250.0].into_iter());
        let labels = |axis: &Axis| axis.marks.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&axis), ["1", "10", "100"]);
        assert_eq!((axis.place(0.0), axis.place(1e9)), (axis.range.start, axis.range.end));
        assert_eq!(labels(&Axis::log("MB", 1.0, [15.0, 90.0].into_iter())), ["20", "50", "100"]);
        let axis = Axis::linear("s", [7.0].into_iter());
        assert_eq!(labels(&axis), ["0", "2", "4", "6"]);
        assert_eq!((label(20_000.0), label(3e6), label(0.1)), ("20 k".into(), "3 M".into(), "0.1".into()));
    }
}
