//! What people want, and what a reward model says, as a model goes away from where it began: a picture, as figure 1 of Gao et al. 2023 (arXiv 2210.10760).

use super::overopt::{Outcome, Point};
use crate::train::plot::{GRID, INK, Picture, legend, text};
use plotters::coord::Shift;
use plotters::prelude::*;

/// The picture of a seed: gold at the left, proxy at the right, over the root of the KL.
pub(super) struct Frontier<'a>(pub &'a Outcome);

/// What stands beside it, its title, and what it shows of a point.
type Panel = (&'static str, &'static str, fn(&Point) -> f64);

const BIASED: RGBColor = RGBColor(214, 84, 30);
const PATIENT: RGBColor = RGBColor(31, 119, 180);

impl Picture for Frontier<'_> {
    fn size(&self) -> (u32, u32) {
        (1040, 460)
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let Outcome { biased, control, .. } = self.0;
        // A curve of training ends where it ends; the best of n are points of their own.
        let lines = [
            ("hasty judges", &biased.curve, BIASED, true),
            ("hasty judges, best of n", &biased.best, BIASED, false),
            ("patient judges", &control.curve, PATIENT, true),
            ("patient judges, best of n", &control.best, PATIENT, false),
        ];
        let panels: [Panel; 2] = [
            ("good answers (%)", "gold: what people want", |point| 100.0 * point.gold),
            ("reward, less that before", "proxy: what the reward model says", |point| point.proxy),
        ];
        let s = scale as i32;
        let font = |size| text(size, scale, false);
        area.fill(&WHITE)?;
        let all = || lines.iter().flat_map(|(_, points, ..)| points.iter());
        let end = all().map(|point| point.kl.sqrt()).fold(0.1, f64::max);
        for (number, (panel, (beside, title, of))) in area.split_evenly((1, 2)).iter().zip(panels).enumerate() {
            let high = all().map(of).fold(0.0, f64::max);
            let low = all().map(of).fold(0.0, f64::min);
            let room = 0.06 * (high - low).max(1e-3);
            let mut chart = ChartBuilder::on(panel)
                .caption(title, text(22, scale, true))
                .margin(10 * s)
                .margin_right(22 * s)
                .x_label_area_size(52 * s)
                .y_label_area_size(64 * s)
                .build_cartesian_2d(0.0..1.03 * end, low - room..high + room)?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .bold_line_style(GRID.stroke_width(scale))
                .axis_style(INK.stroke_width(scale))
                .x_labels(6)
                .y_labels(7)
                .x_label_formatter(&|x| format!("{x:.1}"))
                .y_label_formatter(&|y| if high > 5.0 { format!("{y:.0}") } else { format!("{y:.2}") })
                .label_style(font(18))
                .axis_desc_style(font(18))
                .x_desc("root of the KL, nats an answer")
                .y_desc(beside)
                .draw()?;
            for (name, points, colour, whole) in lines {
                let at = points.iter().map(|point| (point.kl.sqrt(), of(point)));
                let at = at.filter(|(x, y)| x.is_finite() && y.is_finite());
                let style = if whole { colour.stroke_width(2 * scale) } else { colour.mix(0.6).stroke_width(scale) };
                let series = LineSeries::new(at, if whole { style } else { style.filled() });
                chart
                    .draw_series(series.point_size(if whole { 0 } else { 4 * scale }))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20 * s, y)], style));
            }
            if number == 1 {
                legend(&mut chart, scale, SeriesLabelPosition::LowerRight)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::overopt::Followed;
    use super::*;
    use crate::disk::Os;

    #[test]
    fn the_picture_names_both_judges_and_what_is_counted() {
        let point = |n: u64, gold: f64| Point { n, kl: n as f64 / 8.0, proxy: n as f64 / 10.0, gold, words: 9.0 };
        let of = |gold: [f64; 4]| Followed {
            accuracy: 0.8,
            curve: (0..4).map(|i| point(10 * i, gold[i as usize])).collect(),
            best: (0..3).map(|i| point(4 * i, 0.3)).collect(),
        };
        let outcome = Outcome { seed: 1, biased: of([0.2, 0.5, 0.3, 0.1]), control: of([0.2, 0.5, 0.6, 0.7]) };
        let dir = std::env::var_os("KILN_PLOTS").map(std::path::PathBuf::from);
        let temporary = tempfile::tempdir().unwrap();
        let dir = dir.unwrap_or(temporary.path().to_owned());
        Frontier(&outcome).save_svg(&Os, &dir.join("frontier.svg")).unwrap();
        Frontier(&outcome).save_png(&Os, &dir.join("frontier.png")).unwrap();
        let svg = std::fs::read_to_string(dir.join("frontier.svg")).unwrap();
        for words in ["hasty judges", "patient judges, best of n", "good answers (%)", "root of the KL"] {
            assert!(svg.contains(words), "{words}");
        }
    }
}
