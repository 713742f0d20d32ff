//! Pictures, SVG and PNG from the same drawing; and the loss curve.

use super::metrics::Record;
use crate::data::atomic::write_atomic;
use crate::disk::Disk;
use crate::error::{AtPath, Result};
use plotters::coord::CoordTranslate;
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// The colour of grids.
pub const GRID: RGBColor = RGBColor(228, 230, 234);
const TRAIN: RGBColor = RGBColor(31, 119, 180);
const VAL: RGBColor = RGBColor(214, 84, 30);
const FLOOR: RGBColor = RGBColor(90, 140, 90);

/// What can be drawn.
pub trait Picture {
    /// Pixels of the SVG, across and down; the PNG has twice as many, so that it is sharp on dense screens.
    fn size(&self) -> (u32, u32) {
        (720, 460)
    }

    /// Draws on `area`, with text and lines `scale` times their size.
    ///
    /// # Errors
    /// The backend fails.
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>>;

    /// Writes it as a vector picture.
    fn save_svg(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        register_fonts();
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, self.size()).into_drawing_area(), 1).map_err(failed).at(path)?;
        write_atomic(disk, path, svg.as_bytes())
    }

    /// Writes it as pixels.
    fn save_png(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        register_fonts();
        let (width, height) = (2 * self.size().0, 2 * self.size().1);
        let mut rgb = vec![0; 3 * (width * height) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut rgb, (width, height)).into_drawing_area(), 2)
            .map_err(failed)
            .at(path)?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut png| png.write_image_data(&rgb));
        written.map_err(std::io::Error::from).at(path)?;
        write_atomic(disk, path, &bytes)
    }
}

/// A loss curve: every step's loss, their running mean, and the validation losses.
pub struct LossCurve<'a> {
    /// The run's name.
    pub title: &'a str,
    /// What losses are counted in.
    pub unit: &'a str,
    /// The steps, in order.
    pub records: &'a [Record],
    /// A loss that no model can go below, in nats a token, where it is known.
    pub floor: Option<f64>,
}

impl Picture for LossCurve<'_> {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let train: Vec<(f64, f64)> =
            self.records.iter().map(|r| (r.step as f64, f64::from(r.loss))).filter(|p| p.1.is_finite()).collect();
        let smooth = smoothed(&train);
        let val: Vec<(f64, f64)> =
            self.records.iter().filter_map(|r| Some((r.step as f64, r.val_loss.filter(|v| v.is_finite())?))).collect();
        let s = scale as i32;
        let [font, bold] = [false, true].map(|bold| move |size| text(size, scale, bold));

        area.fill(&WHITE)?;
        let last_step = train.last().or(val.last()).map_or(1.0, |p| p.0).max(1.0);
        let y = y_range(&train, &smooth, &val, self.floor);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, bold(27))
            .margin(12 * s)
            .margin_right(26 * s)
            .x_label_area_size(56 * s)
            .y_label_area_size(66 * s)
            .build_cartesian_2d(0.0..last_step, y)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID.stroke_width(scale))
            .axis_style(INK.stroke_width(scale))
            .set_all_tick_mark_size(4 * s)
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| format!("{y:.1}"))
            .label_style(font(20))
            .axis_desc_style(font(20))
            .x_desc("step")
            .y_desc(format!("loss ({})", self.unit))
            .draw()?;

        let line = |color: RGBColor, width: u32| color.stroke_width(width * scale);
        let key = |style: ShapeStyle| move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 22 * s, y)], style);
        // Single steps stay in the background.
        let raw = TRAIN.mix(0.4).stroke_width(scale);
        chart.draw_series(LineSeries::new(train.iter().copied(), raw))?.label("each step").legend(key(raw));
        if let Some(last) = smooth.last() {
            chart
                .draw_series(LineSeries::new(smooth.iter().copied(), line(TRAIN, 2)))?
                .label(format!("training {:.3}", last.1))
                .legend(key(line(TRAIN, 2)));
        }
        if let Some(last) = val.last() {
            chart
                .draw_series(LineSeries::new(val.iter().copied(), line(VAL, 2).filled()).point_size(3 * scale))?
                .label(format!("validation {:.3}", last.1))
                .legend(key(line(VAL, 2)));
        }
        if let Some(floor) = self.floor {
            chart
                .draw_series(DashedLineSeries::new([(0.0, floor), (last_step, floor)], 6 * s, 5 * s, line(FLOOR, 1)))?
                .label(format!("entropy of the source {floor:.3}"))
                .legend(key(line(FLOOR, 1)));
        }
        legend(&mut chart, scale, SeriesLabelPosition::UpperRight)
    }
}

/// The style of text of so many points in a picture that is drawn `scale` times its size.
pub fn text(size: u32, scale: u32, bold: bool) -> TextStyle<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    ("sans-serif", size * scale, style).into_font().color(&INK)
}

/// The box that names the series of a chart.
///
/// # Errors
/// The backend fails.
pub fn legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, B, C>,
    scale: u32,
    position: SeriesLabelPosition,
) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    chart
        .configure_series_labels()
        .position(position)
        .margin(12 * scale)
        .legend_area_size(30 * scale as i32)
        .background_style(WHITE.mix(0.9))
        .border_style(GRID.stroke_width(scale))
        .label_font(text(20, scale, false))
        .draw()
}

/// A chart with a logarithm below and its linear values beside; `words` are the title and the names of both.
///
/// # Errors
/// The backend fails.
pub fn log_chart<'a, B: DrawingBackend>(
    area: &'a DrawingArea<B, Shift>,
    scale: u32,
    [title, below, beside]: [&str; 3],
    x: Range<f64>,
    y: Range<f64>,
) -> std::result::Result<LogChart<'a, B>, DrawingAreaErrorKind<B::ErrorType>> {
    let s = scale as i32;
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(26, scale, true))
        .margin(12 * s)
        .margin_right(26 * s)
        .x_label_area_size(56 * s)
        .y_label_area_size(66 * s)
        .build_cartesian_2d(x.log_scale(), y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID.stroke_width(scale))
        .axis_style(INK.stroke_width(scale))
        .x_labels(7)
        .y_labels(7)
        .x_label_formatter(&|x| format!("{x:.0e}"))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style(text(20, scale, false))
        .axis_desc_style(text(20, scale, false))
        .x_desc(below)
        .y_desc(beside)
        .draw()?;
    Ok(chart)
}

/// What [`log_chart`] makes.
pub type LogChart<'a, B> = ChartContext<'a, B, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// One font for both pictures, carried along: the machine may have none.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            let font = epaint_default_fonts::UBUNTU_LIGHT;
            register_font("sans-serif", style, font).unwrap_or_else(|_| unreachable!("the embedded font is one"));
        }
    });
}

fn failed<E: std::error::Error + Send + Sync>(e: DrawingAreaErrorKind<E>) -> std::io::Error {
    std::io::Error::other(e.to_string())
}

/// The mean of each point and its neighbours: up to a sixtieth of the run on each side, but fewer in the steep first
/// steps, so that the mean does not lag behind.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for (_, y) in points {
        sums.push(sums[sums.len() - 1] + y);
    }
    let mean = |(i, &(x, _)): (usize, &(f64, f64))| {
        let side = (points.len() / 60).min(i / 4);
        let (from, to) = (i - side, (i + side + 1).min(points.len()));
        (x, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Losses to show: all of them, but single steps that shoot up after the first tenth do not squeeze the rest.
fn y_range(
    train: &[(f64, f64)],
    smooth: &[(f64, f64)],
    val: &[(f64, f64)],
    floor: Option<f64>,
) -> std::ops::Range<f64> {
    let start = &train[..train.len().div_ceil(10)];
    let shown = start.iter().chain(smooth).chain(val).map(|p| p.1).chain(floor);
    let high = shown.clone().fold(f64::NEG_INFINITY, f64::max);
    let low = train.iter().map(|p| p.1).chain(shown).fold(f64::INFINITY, f64::min);
    if low > high {
        return 0.0..1.0;
    }
    let margin = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-6);
    (low - margin)..(high + margin)
}

/// 2500 as `2.5k`.
fn short(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{}M", x / 1e6),
        x if x >= 1e4 => format!("{}k", x / 1e3),
        x => format!("{x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    fn records(n: u64) -> Vec<Record> {
        let record = |step: u64| {
            let noise = ((step * 7919) % 101) as f64 / 101.0 - 0.5;
            let loss = 1.6 + 5.3 * (-(step as f64) / (0.08 * n as f64)).exp() + 1.2 / (1.0 + step as f64 / 50.0);
            Record {
                step,
                loss: (loss + 0.25 * noise) as f32,
                lr: 1e-3,
                grad_norm: 1.0,
                more: Default::default(),
                val_loss: step.is_multiple_of((n / 6).max(1)).then_some(loss + 0.04),
                bits_per_byte: None,
                skipped: None,
            }
        };
        (1..=n).map(record).collect()
    }

    #[test]
    fn both_pictures_are_made_and_carry_their_text() {
        let dir = std::env::var_os("KILN_PLOTS").map(std::path::PathBuf::from);
        let temporary = tempfile::tempdir().unwrap();
        let dir = dir.unwrap_or(temporary.path().to_owned());
        let records = records(600);
        let curve = LossCurve { title: "village", unit: "nats per token", records: &records, floor: Some(1.42) };
        let (svg, png) = (dir.join("loss.svg"), dir.join("loss.png"));
        curve.save_svg(&Os, &svg).unwrap();
        curve.save_png(&Os, &png).unwrap();
        let text = std::fs::read_to_string(svg).unwrap();
        for words in ["village", "loss (nats per token)", "step", "training 1.", "validation 1.", "source 1.420"] {
            assert!(text.contains(words), "{words}");
        }
        let bytes = std::fs::read(png).unwrap();
        assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n");
        // Width and height, in the first chunk.
        assert_eq!(bytes[16..24], [[0, 0, 5, 160], [0, 0, 3, 152]].concat());
    }

    #[test]
    fn runs_of_no_steps_one_step_and_broken_losses_draw_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut broken = records(3);
        broken[1].loss = f32::NAN;
        broken[2].val_loss = Some(f64::INFINITY);
        for records in [records(0), records(1), broken] {
            let curve = LossCurve { title: "", unit: "", records: &records, floor: None };
            curve.save_svg(&Os, &dir.path().join("a.svg")).unwrap();
            curve.save_png(&Os, &dir.path().join("a.png")).unwrap();
        }
        let curve = LossCurve { title: "", unit: "", records: &[], floor: None };
        assert!(curve.save_png(&Os, &dir.path().join("no/folder.png")).unwrap_err().to_string().contains("folder.png"));
    }

    #[test]
    fn the_running_mean_follows_without_a_lag() {
        let points: Vec<(f64, f64)> = (0..500).map(|i| (i as f64, if i < 250 { 4.0 } else { 2.0 })).collect();
        let smooth = smoothed(&points);
        assert_eq!((smooth[0].1, smooth[241].1, smooth[258].1, smooth[499].1), (4.0, 4.0, 2.0, 2.0));
        assert!((smooth[249].1 - 3.0).abs() < 0.1 && (smooth[250].1 - 3.0).abs() < 0.1);
        assert_eq!(smoothed(&points[..1]), points[..1]);
    }

    #[test]
    fn a_single_peak_does_not_squeeze_the_curve() {
        let mut train: Vec<(f64, f64)> = (0..1000).map(|i| (i as f64, 3.0)).collect();
        train[700].1 = 500.0;
        let range = y_range(&train, &smoothed(&train[..600]), &[], Some(1.0));
        assert!(range.end < 4.0 && range.start < 1.0 && range.start > 0.8, "{range:?}");
    }
}
