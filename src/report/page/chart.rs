//! Charts as SVG that scales: lines over steps, and reliability diagrams. Their colours are those of the page around them, light or dark.

use crate::report::curve::{Dot, thinned};
use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::Serialize;
use std::fmt::Write;
use std::ops::Range;

/// The size of a chart in its own units: text of 11 units is legible where a chart is 360 pixels wide.
const SIZE: (f64, f64) = (420.0, 260.0);
/// Margins: left, right, below; above there are the title and the legend.
const MARGIN: (f64, f64, f64) = (48.0, 20.0, 38.0);
/// Points of a line.
const POINTS: usize = 400;
/// Entries of a legend.
const LEGEND: usize = 8;
/// A row of dots, and where its line is below its name.
const ROW: (f64, f64) = (36.0, 20.0);
/// How lines are told apart.
const COLOURS: usize = 8;
/// The rules that charts are drawn by.
pub const STYLE: &str = include_str!("chart.css");

/// A line.
pub struct Curve<'a> {
    /// What the legend calls it; empty: it is not there.
    pub name: &'a str,
    /// Its points.
    pub points: Vec<Dot>,
    /// How it is drawn.
    pub style: Style,
}

/// How a line is drawn, and its colour by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// In the background.
    Faint(usize),
    /// As a line.
    Line(usize),
    /// With a dot at each point.
    Dots(usize),
    /// As a bound.
    Dashed(usize),
}

/// A chart as it is drawn.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Chart {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    bottom: f64,
    title: String,
    about: String,
    unit: String,
    legend: Vec<Entry>,
    below: Vec<Tick>,
    beside: Vec<Tick>,
    bars: Vec<Bar>,
    paths: Vec<Path>,
    dots: Vec<Point>,
    words: Vec<Words>,
}

#[derive(Clone, Debug, Serialize)]
struct Words {
    x: f64,
    y: f64,
    says: String,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    x: f64,
    y: f64,
    class: String,
    name: String,
}

#[derive(Clone, Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Clone, Debug, Serialize)]
struct Bar {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    label: String,
}

#[derive(Clone, Debug, Serialize)]
struct Path {
    class: String,
    d: String,
}

#[derive(Clone, Debug, Serialize)]
struct Point {
    class: String,
    x: f64,
    y: f64,
}

impl Style {
    fn class(self) -> String {
        let (colour, more) = match self {
            Style::Faint(colour) => (colour, " faint"),
            Style::Line(colour) | Style::Dots(colour) => (colour, ""),
            Style::Dashed(colour) => (colour, " dash"),
        };
        format!("k{}{more}", colour % COLOURS)
    }
}

/// What a chart's numbers are on paper.
struct Scale {
    x: Range<f64>,
    y: Range<f64>,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Scale {
    fn x(&self, x: f64) -> f64 {
        let share = (x - self.x.start) / (self.x.end - self.x.start);
        tenth(self.left + share.clamp(0.0, 1.0) * (self.right - self.left))
    }

    fn y(&self, y: f64) -> f64 {
        let share = (y - self.y.start) / (self.y.end - self.y.start);
        tenth(self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top))
    }
}

fn tenth(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
}

impl Chart {
    /// Lines over `unit`; `y` is what is shown of their values ([`span`] of those that matter). None where there is no point.
    pub fn lines(title: &str, unit: &str, curves: &[Curve], y: Option<Range<f64>>) -> Option<Chart> {
        let y = y?;
        let xs = curves.iter().flat_map(|curve| &curve.points).map(|dot| dot.0);
        let last = xs.fold(f64::NEG_INFINITY, f64::max);
        let mut chart = Chart::new(title, unit);
        let top = chart.legend(curves);
        let scale = chart.scale(0.0..last.max(1.0), y, top);
        let values: Vec<String> = curves
            .iter()
            .filter(|curve| !curve.name.is_empty())
            .filter_map(|curve| Some(format!("{} ends at {:.4}", curve.name, curve.points.last()?.1)))
            .collect();
        chart.about = format!("{title} over {unit}: {}", values.join(", "));
        for curve in curves.iter().filter(|curve| !curve.points.is_empty()) {
            let class = curve.style.class();
            let points = thinned(curve.points.clone(), POINTS);
            let mut d = String::new();
            for (i, &(x, y)) in points.iter().enumerate() {
                let _ = write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, scale.x(x), scale.y(y));
            }
            if points.len() == 1 {
                d += "h0.1";
            }
            if matches!(curve.style, Style::Dots(_)) && points.len() <= 60 {
                let dot = |&(x, y): &Dot| Point { class: class.clone(), x: scale.x(x), y: scale.y(y) };
                chart.dots.extend(points.iter().map(dot));
            }
            chart.paths.push(Path { class, d });
        }
        Some(chart)
    }

    /// A reliability diagram of bins of equal width: count, mean confidence, share of right ones. Each bar has its count above it.
    pub fn reliability(title: &str, bins: &[(usize, f64, f64)]) -> Chart {
        let mut chart = Chart::new(title, "how sure it was");
        let diagonal =
            Curve { name: "as sure as right", points: vec![(0.0, 0.0), (1.0, 1.0)], style: Style::Dashed(7) };
        let top = chart.legend(std::slice::from_ref(&diagonal));
        let scale = chart.scale(0.0..1.0, 0.0..1.1, top);
        let width = 1.0 / bins.len().max(1) as f64;
        for (i, &(count, _, right)) in bins.iter().enumerate().filter(|(_, bin)| bin.0 > 0 && bin.2.is_finite()) {
            let (from, to) = (scale.x(i as f64 * width), scale.x((i + 1) as f64 * width));
            let y = scale.y(right);
            let height = tenth(scale.bottom - y);
            chart.bars.push(Bar {
                x: tenth(from + 1.0),
                y,
                width: tenth(to - from - 2.0),
                height,
                label: count.to_string(),
            });
        }
        let ends = [scale.x(0.0), scale.y(0.0), scale.x(1.0), scale.y(1.0)];
        chart.paths.push(Path {
            class: diagonal.style.class(),
            d: format!("M{} {}L{} {}", ends[0], ends[1], ends[2], ends[3]),
        });
        let words: Vec<String> = bins
            .iter()
            .filter(|bin| bin.0 > 0)
            .map(|(count, sure, right)| format!("{count} at {sure:.2}: {right:.2} right"))
            .collect();
        chart.about = format!("{title}: {}", words.join("; "));
        chart
    }

    /// Rows of values, each below its name, over a scale of `unit` that they share and that has 0 on it.
    pub fn rows(title: &str, unit: &str, rows: &[(String, Vec<f64>)]) -> Chart {
        let mut chart = Chart { left: 12.0, ..Chart::new(title, unit) };
        let top = 24.0;
        chart.bottom = top + ROW.0 * rows.len() as f64;
        chart.height = chart.bottom + MARGIN.2;
        let values = || rows.iter().flat_map(|row| &row.1).copied().filter(|x| x.is_finite());
        let shown = span(values().chain([0.0])).expect("0 is one");
        let scale = chart.scale(shown, 0.0..1.0, top);
        chart.beside.clear();
        for (i, (name, values)) in rows.iter().enumerate() {
            let y = top + ROW.0 * i as f64;
            let class = Style::Dots(i).class();
            chart.words.push(Words { x: chart.left, y: y + 12.0, says: name.clone() });
            chart.paths.push(Path {
                class: Style::Faint(7).class(),
                d: format!("M{} {}H{}", chart.left, y + ROW.1, chart.right),
            });
            let dot = |x: &f64| Point { class: class.clone(), x: scale.x(*x), y: y + ROW.1 };
            chart.dots.extend(values.iter().filter(|x| x.is_finite()).map(dot));
        }
        let names: Vec<&str> = rows.iter().map(|row| &*row.0).collect();
        chart.about = format!("{title}: {}", names.join("; "));
        chart
    }

    fn new(title: &str, unit: &str) -> Chart {
        let (width, height) = SIZE;
        let (left, right, bottom) = (MARGIN.0, width - MARGIN.1, height - MARGIN.2);
        Chart { width, height, left, right, bottom, title: title.to_owned(), unit: unit.to_owned(), ..Chart::default() }
    }

    /// Places the legend, and gives where the plot begins below it.
    fn legend(&mut self, curves: &[Curve]) -> f64 {
        let named: Vec<&Curve> =
            curves.iter().filter(|curve| !curve.name.is_empty() && !curve.points.is_empty()).collect();
        let (mut x, mut y) = (8.0, 32.0);
        for curve in named.iter().take(LEGEND) {
            let name = match curve.name.chars().count() {
                0..=40 => curve.name.to_owned(),
                _ => curve.name.chars().take(39).chain(['…']).collect(),
            };
            let width = 33.0 + 6.0 * name.chars().count() as f64;
            if x > 8.0 && x + width > self.width {
                (x, y) = (8.0, y + 15.0);
            }
            self.legend.push(Entry { x, y, class: curve.style.class(), name });
            x += width;
        }
        if let Some(last) = self.legend.last_mut()
            && named.len() > LEGEND
        {
            last.name += &format!(" and {} more", named.len() - LEGEND);
        }
        let top = if named.is_empty() { 28.0 } else { y + 10.0 };
        // Long legends do not squeeze the plot.
        self.height += top - 42.0;
        self.bottom += top - 42.0;
        top
    }

    fn scale(&mut self, x: Range<f64>, y: Range<f64>, top: f64) -> Scale {
        let scale = Scale { x, y, left: self.left, right: self.right, top, bottom: self.bottom };
        self.below = ticks(&scale.x).map(|(at, label)| Tick { at: scale.x(at), label }).collect();
        self.beside = ticks(&scale.y).map(|(at, label)| Tick { at: scale.y(at), label }).collect();
        scale
    }

    /// The drawing, for a page that has [`STYLE`].
    pub fn svg(&self) -> String {
        self.render(false)
    }

    /// The drawing as a file of its own.
    pub fn file(&self) -> String {
        self.render(true)
    }

    fn render(&self, alone: bool) -> String {
        let mut environment = super::environment();
        environment
            .add_template("chart.html", include_str!("chart.html"))
            .expect("the template is well formed; a test renders it");
        let it = Value::from(Serde(self));
        let context = context! { it, alone, style => Value::from_safe_string(STYLE.to_owned()) };
        environment
            .get_template("chart.html")
            .and_then(|t| t.render(context))
            .expect("the template fits; a test renders it")
    }
}

/// What is shown of some values: all of them, with a margin; `None` where there are none.
pub fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (low, high) = values.filter(|y| y.is_finite()).fold((f64::MAX, f64::MIN), |(l, h), y| (l.min(y), h.max(y)));
    if low > high {
        return None;
    }
    let margin = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
    Some(low - margin..high + margin)
}

/// About five round numbers in a range, with their names.
fn ticks(range: &Range<f64>) -> impl Iterator<Item = (f64, String)> {
    let rough = (range.end - range.start) / 5.0;
    let ten = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * ten).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * ten);
    let (first, last) = ((range.start / step).ceil() as i64, (range.end / step).floor() as i64);
    let largest = range.start.abs().max(range.end.abs());
    (first..=last.min(first + 12)).map(move |i| {
        let x = i as f64 * step;
        let label = match largest {
            _ if i == 0 => "0".to_owned(),
            a if a >= 1e6 => format!("{}M", trimmed(x / 1e6, step / 1e6)),
            a if a >= 1e4 => format!("{}k", trimmed(x / 1e3, step / 1e3)),
            a if a < 1e-2 => format!("{x:.1e}"),
            _ => trimmed(x, step),
        };
        (x, label)
    })
}

/// A multiple of `step` with as many digits as that has.
fn trimmed(x: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{:.digits$}", x + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_lie_within() {
        let names = |range: Range<f64>| ticks(&range).map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names(0.0..1200.0), ["0", "500", "1000"]);
        assert_eq!(names(0.0..30_000.0), ["0", "10k", "20k", "30k"]);
        assert_eq!(names(0.83..1.12), ["0.9", "1.0", "1.1"]);
        assert_eq!(names(0.0..0.004), ["0", "1.0e-3", "2.0e-3", "3.0e-3", "4.0e-3"]);
    }

    #[test]
    fn a_chart_has_its_lines_and_a_hostile_name_is_text() {
        let points: Vec<Dot> = (0..5000).map(|i| (i as f64, 5.0 / (1.0 + i as f64))).collect();
        let curves = [
            Curve { name: "<script>alert(1)</script>", points: points.clone(), style: Style::Line(0) },
            Curve { name: "", points, style: Style::Faint(9) },
        ];
        let chart = Chart::lines("loss", "steps", &curves, span([0.0, 5.0].into_iter())).unwrap();
        let svg = chart.svg();
        assert!(
            !svg.contains("<script") && svg.contains("&lt;script&gt;") && svg.matches("<path class=\"l k").count() == 3
        );
        assert!(svg.len() < 30_000, "{}", svg.len());
        let file = chart.file();
        assert!(file.contains("xmlns=") && file.contains("<style>") && !svg.contains("<style>"));
        assert!(Chart::lines("loss", "steps", &[], span([f64::NAN].into_iter())).is_none());
    }

    #[test]
    fn rows_have_a_dot_for_each_number_and_a_scale_from_0() {
        let rows = [("before: 3".to_owned(), vec![2.0, 4.0]), ("after: 1".to_owned(), vec![1.0, f64::NAN])];
        let chart = Chart::rows("what", "bits", &rows);
        let x: Vec<f64> = chart.dots.iter().map(|dot| dot.x).collect();
        assert!(x.len() == 3 && x[2] < x[0] && x[0] < x[1] && x[2] > chart.left + 50.0, "{x:?}");
        assert!(chart.dots[0].y == chart.dots[1].y && chart.dots[2].y == chart.dots[0].y + ROW.0);
        let svg = chart.svg();
        assert!(
            svg.contains(">before: 3</text>") && svg.contains(">after: 1</text>") && svg.contains(">0</text>"),
            "{svg}"
        );
    }

    #[test]
    fn a_reliability_diagram_has_a_bar_and_a_count_for_each_bin_that_is_not_empty() {
        let svg = Chart::reliability("sure", &[(0, 0.0, f64::NAN), (12, 0.5, 0.25), (3, 0.9, 1.0)]).svg();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains(">12</text>") && svg.contains(">3</text>"));
    }
}
