//! The distribution of a data set's tokens, drawn: how often the commonest, the second, the third… occurs.

use super::plot::{GRID, INK, Picture, legend, text};
use plotters::coord::Shift;
use plotters::prelude::*;

const COLORS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 84, 30)];

/// Shares of tokens by their rank, both axes logarithmic: a straight line falling by one is Zipf's law.
pub struct TokenHistogram<'a> {
    /// What stands above.
    pub title: &'a str,
    /// Names and counts of each id, as [`Dataset::histogram`](crate::data::Dataset::histogram) gives them; at most two.
    pub parts: &'a [(&'a str, Vec<u64>)],
}

impl Picture for TokenHistogram<'_> {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let s = scale as i32;
        let font = |size| text(size, scale, false);
        let bold = text(27, scale, true);
        let curves: Vec<Vec<(f64, f64)>> = self.parts.iter().map(|(_, counts)| curve(counts)).collect();
        let points = || curves.iter().flatten();
        let last = points().map(|point| point.0).fold(2.0, f64::max);
        let low = points().map(|point| point.1).fold(1e-3, f64::min);
        let high = points().map(|point| point.1).fold(low * 2.0, f64::max);
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, bold)
            .margin(12 * s)
            .margin_right(26 * s)
            .x_label_area_size(56 * s)
            .y_label_area_size(92 * s)
            .build_cartesian_2d((1.0..last).log_scale(), (low..high * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID.stroke_width(scale))
            .axis_style(INK.stroke_width(scale))
            .set_all_tick_mark_size(4 * s)
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&|x| format!("{x}"))
            .y_label_formatter(&|y| percent(*y))
            .label_style(font(20))
            .axis_desc_style(font(20))
            .x_desc("rank of the token")
            .y_desc("share of all tokens")
            .draw()?;
        for ((curve, (name, counts)), color) in curves.into_iter().zip(self.parts).zip(COLORS) {
            let style = color.stroke_width(2 * scale);
            let key = move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 22 * s, y)], style);
            let used = counts.iter().filter(|&&count| count > 0).count();
            chart
                .draw_series(LineSeries::new(curve, style))?
                .label(format!("{name}: {used} of the ids occur, {:.2} bits a token", entropy(counts)))
                .legend(key);
        }
        legend(&mut chart, scale, SeriesLabelPosition::UpperRight)
    }
}

/// Ranks and shares; of the later ranks, points that stand apart on a logarithmic axis.
fn curve(counts: &[u64]) -> Vec<(f64, f64)> {
    let mut counts: Vec<u64> = counts.iter().copied().filter(|&count| count > 0).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let total = counts.iter().sum::<u64>() as f64;
    let (mut points, mut next) = (Vec::new(), 0.0);
    for (rank, &count) in counts.iter().enumerate() {
        let x = (rank + 1) as f64;
        if x >= next || rank + 1 == counts.len() {
            points.push((x, count as f64 / total));
            next = x * 1.01;
        }
    }
    points
}

/// The entropy of the distribution, in bits.
fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let bits = |&count: &u64| count as f64 / total * (total / count as f64).log2();
    counts.iter().filter(|count| **count > 0).map(bits).sum()
}

/// 0.001 as `0.1 %`.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let digits = (-percent.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Os;

    #[test]
    fn both_pictures_are_made_and_say_what_they_show() {
        let dir = std::env::var_os("KILN_PLOTS").map(std::path::PathBuf::from);
        let temporary = tempfile::tempdir().unwrap();
        let dir = dir.unwrap_or(temporary.path().to_owned());
        let counts: Vec<u64> = (1..2000u64).map(|rank| 1_000_000 / rank / if rank > 1500 { 10 } else { 1 }).collect();
        let parts = [("train", counts.clone()), ("val", counts.into_iter().map(|count| count / 19).collect())];
        let picture = TokenHistogram { title: "data/village", parts: &parts };
        picture.save_svg(&Os, &dir.join("tokens.svg")).unwrap();
        picture.save_png(&Os, &dir.join("tokens.png")).unwrap();
        let text = std::fs::read_to_string(dir.join("tokens.svg")).unwrap();
        for words in ["data/village", "rank of the token", "train: 1999 of the ids", "bits a token", "0.1 %"] {
            assert!(text.contains(words), "{words}");
        }
        for parts in [vec![], vec![("train", vec![])], vec![("train", vec![0, 5])]] {
            TokenHistogram { title: "", parts: &parts }.save_svg(&Os, &dir.join("a.svg")).unwrap();
        }
    }

    #[test]
    fn the_entropy_is_that_of_the_shares() {
        assert_eq!(entropy(&[4, 4, 0, 4, 4]), 2.0);
        assert_eq!(entropy(&[]), 0.0);
        assert_eq!([percent(1.0), percent(0.05), percent(0.00002)], ["100 %", "5 %", "0.002 %"]);
    }
}
