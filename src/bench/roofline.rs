//! The roofline: what this machine allows work of each arithmetic intensity, and what kernels reach of it.
//!
//! ```text
//! attainable(I) = min(peak, bandwidth · I)        I = operations / bytes of the least traffic
//! ```
//! Source: Williams, Waterman, Patterson 2009 (doi 10.1145/1498765.1498785).

use super::kernels::{self, Narrow};
use super::{Case, Ceilings, Row, gemm};
use crate::cpu::gemm::Precision;
use crate::train::plot::{GRID, INK, Picture, text};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Colours of the benchmarks, in the order in which they appear.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 84, 30),
    RGBColor(60, 140, 60),
    RGBColor(140, 80, 170),
    RGBColor(190, 150, 20),
    RGBColor(90, 90, 90),
];

/// The share of the width that the chart takes; names stand beside it.
const CHART: f64 = 0.6;

/// A machine's roof and the kernels under it.
pub struct Roofline<'a> {
    /// The roof.
    pub ceilings: Ceilings,
    /// Threads that computed.
    pub threads: usize,
    /// What was measured; rows without arithmetic are left out.
    pub rows: &'a [Row],
}

/// The cases that are drawn where none are chosen: few enough to be told apart.
pub fn cases() -> Vec<Case> {
    let products = gemm::cases(&[[256, 384, 1536], [1024, 768, 3072], [2048; 3]], gemm::Form::Nt, Precision::F32);
    // Those of few heads would lie on those of many.
    let attention = kernels::attention(Narrow::Nothing).into_iter().filter(|case| !case.name.contains("H4")).collect();
    let kernels = [
        attention,
        kernels::conv(Narrow::Nothing).into_iter().take(4).collect(),
        kernels::layernorm(Narrow::Nothing),
        kernels::gelu(Narrow::Nothing),
        kernels::xent(),
        kernels::adamw(),
    ];
    products.into_iter().chain(kernels.into_iter().flatten()).collect()
}

impl Roofline<'_> {
    /// Intensity, GFLOP/s, name and share of the roof of each row that counts operations.
    fn points(&self) -> Vec<(f64, f64, &Row)> {
        let counts = |row: &&Row| row.part.work.flops > 0.0 && row.part.work.bytes() > 0.0;
        let point = |row| {
            let Row { part, seconds, .. }: &Row = row;
            (part.work.flops / part.work.bytes(), part.work.flops / seconds / 1e9, row)
        };
        self.rows.iter().filter(counts).map(point).collect()
    }

    /// Bandwidth of the sloping part, in GB/s.
    fn bandwidth(&self) -> f64 {
        self.ceilings.read.max(self.ceilings.copy).max(self.ceilings.triad)
    }
}

impl Picture for Roofline<'_> {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let s = scale as i32;
        let [font, bold] = [false, true].map(|bold| move |size| text(size, scale, bold));
        let (points, peak, bandwidth) = (self.points(), self.ceilings.fma, self.bandwidth());
        let ridge = peak / bandwidth;
        let (mut low, mut high) = (ridge / 4.0, ridge * 8.0);
        let mut bottom = bandwidth * low;
        for (x, y, _) in &points {
            (low, high, bottom) = (low.min(x / 1.5), high.max(x * 1.5), bottom.min(y / 1.5));
        }

        area.fill(&WHITE)?;
        let (left, right) = area.split_horizontally((f64::from(area.dim_in_pixel().0) * CHART) as i32);
        let mut chart = ChartBuilder::on(&left)
            .caption(
                format!("kiln's kernels, {} {}", self.threads, if self.threads == 1 { "thread" } else { "threads" }),
                bold(22),
            )
            .margin(12 * s)
            .x_label_area_size(52 * s)
            .y_label_area_size(62 * s)
            .build_cartesian_2d((low..high).log_scale(), (bottom..peak * 1.6).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID.stroke_width(scale))
            .axis_style(INK.stroke_width(scale))
            .x_label_formatter(&|x| plain(*x))
            .y_label_formatter(&|y| plain(*y))
            .label_style(font(17))
            .axis_desc_style(font(17))
            .x_desc("floating-point operations a byte")
            .y_desc("GFLOP/s")
            .draw()?;
        let roof = [(low, (bandwidth * low).min(peak)), (ridge, peak), (high, peak)];
        chart.draw_series(LineSeries::new(roof, INK.stroke_width(2 * scale)))?;
        let above = font(15).pos(Pos::new(HPos::Right, VPos::Bottom));
        let text = format!("{peak:.0} GFLOP/s");
        chart.draw_series([Text::new(text, (high / 1.1, peak * 1.04), above)])?;
        let below = font(15).pos(Pos::new(HPos::Left, VPos::Top));
        let x = (low * ridge).sqrt();
        chart.draw_series([Text::new(format!("{bandwidth:.1} GB/s"), (x * 1.1, bandwidth * x), below)])?;

        right.draw(&Text::new("share of the roof", (8 * s, 22 * s), bold(17)))?;
        let step = ((right.dim_in_pixel().1 as i32 - 60 * s) / points.len().max(1) as i32).min(25 * s);
        let mut benches: Vec<&str> = Vec::new();
        for (i, (x, y, row)) in points.iter().enumerate() {
            if !benches.contains(&row.bench) {
                benches.push(row.bench);
            }
            let colour = COLOURS[(benches.len() - 1) % COLOURS.len()];
            let centre = Pos::new(HPos::Center, VPos::Center);
            let number = bold(13).color(&WHITE).pos(centre);
            let marker = |at: (i32, i32)| {
                EmptyElement::at(at)
                    + Circle::new((0, 0), 8 * s, colour.filled())
                    + Text::new((i + 1).to_string(), (0, 3 * s), number.clone())
            };
            left.draw(&marker(chart.backend_coord(&(*x, *y))))?;
            let at = (16 * s, 48 * s + i as i32 * step);
            right.draw(&marker(at))?;
            let words = format!("{:.0} % {}", 100.0 * row.share, name(row));
            right.draw(&Text::new(words, (at.0 + 14 * s, at.1 - 5 * s), font(15)))?;
        }
        Ok(())
    }
}

/// A row's name, short: the case, after the benchmark where the case does not name it.
fn name(row: &Row) -> String {
    let case = row.case.replace(" bias=true residual=true", "").replace(" nt f32", "").replace("forward", "fwd");
    let case = case.replace("backward", "bwd").replace("gelu_tanh", "gelu");
    if case.starts_with(row.bench) { case } else { format!("{} {case}", row.bench) }
}

/// Powers of ten as they are read.
fn plain(x: f64) -> String {
    if x < 1.0 { format!("{x:.1}") } else { format!("{x:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Part, Spread, Unit, Work};
    use crate::disk::Os;

    #[test]
    fn kernels_with_arithmetic_are_drawn_and_named() {
        let row = |bench, case: &str, flops: f64| Row {
            bench,
            case: case.to_owned(),
            peer: "kiln".to_owned(),
            threads: 1,
            part: Part::whole(Work { flops, read: 1e6, written: 1e6, ..Work::default() }, Unit::Gflops),
            rate: Spread { median: 1.0, min: 1.0, max: 1.0 },
            seconds: 1e-3,
            n: 7,
            dropped: 0,
            calm: true,
            bound: "fma",
            share: 0.5,
            peak_rss_mb: None,
            ratio: None,
        };
        let rows =
            [row("gemm", "8x8x8 nt f32", 5e7), row("gelu", "gelu_tanh, backward", 1e6), row("cast", "uncounted", 0.0)];
        let ceilings = Ceilings { fma: 100.0, bf16: None, read: 20.0, copy: 15.0, triad: 25.0 };
        let dir = tempfile::tempdir().unwrap();
        for rows in [&rows[..], &[]] {
            let picture = Roofline { ceilings, threads: 1, rows };
            picture.save_svg(&Os, &dir.path().join("a.svg")).unwrap();
            picture.save_png(&Os, &dir.path().join("a.png")).unwrap();
            let svg = std::fs::read_to_string(dir.path().join("a.svg")).unwrap();
            assert!(svg.contains("100 GFLOP/s") && svg.contains("25.0 GB/s"));
            assert_eq!(svg.contains("50 % gemm 8x8x8") && svg.contains("50 % gelu, bwd"), !rows.is_empty());
            assert!(!svg.contains("cast"));
        }
    }
}
