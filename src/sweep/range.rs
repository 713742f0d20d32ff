//! The learning-rate range test: one short run whose rate rises by the same factor each step, from one that does nothing to one that
//! breaks the model. Where the loss falls, rates are of use.
//!
//! Source: Smith 2015 (arXiv 1506.01186), section 3.3.

use crate::device::Device;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::settings::require;
use crate::train::plot::{Picture, log_chart, text};
use crate::train::{AnyRecipe, Watch, metrics};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;
use std::path::PathBuf;

/// How the rate rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The first rate.
    pub from: f64,
    /// The last one.
    pub to: f64,
    /// Steps.
    pub steps: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { from: 1e-6, to: 1.0, steps: 300 }
    }
}

/// What the run showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Its directory.
    pub run: PathBuf,
    /// Rates with the loss of the step, and its running mean.
    pub points: Vec<[f64; 3]>,
    /// The rate at which the mean falls fastest; `None` where it never falls.
    pub steepest: Option<f64>,
    /// The rate at which it is lowest.
    pub lowest: f64,
    /// The first rate after that at which half of what was gained is lost again; `None` where that never comes.
    pub breaks: Option<f64>,
}

/// The share of the mean so far in a running mean.
const KEEP: f64 = 0.9;

/// Does a run of `recipe`, TOML, under `overrides`.
///
/// # Errors
/// As of [`AnyRecipe::load`] and [`AnyRecipe::run`]; the rates do not rise; a signal stopped it.
pub fn range(
    recipe: &str,
    overrides: &[String],
    settings: &Settings,
    device: &Device,
    watch: &mut dyn Watch,
) -> Result<Range> {
    let Settings { from, to, steps } = *settings;
    let rises = from > 0.0 && to.is_finite() && from < to;
    require(rises, "--from", from, format!("a rate above 0 and below the last one, {to}"))?;
    require((20..=1_000_000).contains(&steps), "--steps", steps, "20 to 1000000")?;
    let own = [
        "optim.schedule=rising".into(),
        format!("optim.min_lr={from:e}"),
        format!("optim.lr={to:e}"),
        format!("train.steps={steps}"),
        "train.eval_every=0".into(),
        "train.checkpoint_every=0".into(),
        "train.sample_every=0".into(),
        // It is meant to break, and steps that are not finite are skipped.
        "guard.spike_steps=0".into(),
        "guard.max_bad_steps=1000000".into(),
    ];
    let recipe = AnyRecipe::load(None, recipe, &[overrides, &own].concat())?;
    if recipe.optim().dp.is_some() {
        let problem = "the test is of training losses, which private training does not tell";
        return Err(Error::config("optim.dp", problem, "test on public text, without it"));
    }
    let summary = recipe.run(&Os, None, device, watch)?;
    if let Some(signal) = summary.stopped {
        return Err(Error::failed(format!("stopped by signal {signal}"), "begin it anew"));
    }
    let records = metrics::read(&Os, &summary.run.join("metrics.jsonl"))?;
    let losses = records.iter().map(|record| (record.lr, f64::from(record.loss)));
    Range::new(summary.run, losses.filter(|(_, loss)| loss.is_finite()))
}

impl Range {
    fn new(run: PathBuf, losses: impl Iterator<Item = (f64, f64)>) -> Result<Range> {
        let (mut mean, mut weight) = (0.0, 0.0);
        let points: Vec<[f64; 3]> = losses
            .map(|(lr, loss)| {
                mean = KEEP * mean + (1.0 - KEEP) * loss;
                weight = KEEP * weight + (1.0 - KEEP);
                [lr, loss, mean / weight]
            })
            .collect();
        let at = |i: usize| points[i][2];
        let Some(lowest) = (0..points.len()).min_by(|&a, &b| at(a).total_cmp(&at(b))) else {
            return Err(Error::failed("no step had a loss that is finite", "lower --from"));
        };
        // Over a twentieth of the run, so that it is no single step.
        let side = (points.len() / 20).max(1);
        let slope = |&i: &usize| at(i + side) - at(i);
        let steepest = (0..lowest.saturating_sub(side)).min_by(|a, b| slope(a).total_cmp(&slope(b)));
        let half = 0.5 * (at(0) + at(lowest));
        Ok(Range {
            steepest: steepest.filter(|i| slope(i) < 0.0).map(|i| points[i + side / 2][0]),
            lowest: points[lowest][0],
            breaks: (lowest..points.len()).find(|&i| at(i) > half).map(|i| points[i][0]),
            run,
            points,
        })
    }
}

/// Losses against rates.
impl Picture for Range {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        const MEAN: RGBColor = RGBColor(31, 119, 180);
        const MARK: RGBColor = RGBColor(214, 84, 30);
        let s = scale as i32;
        let font = |size| text(size, scale, false);
        area.fill(&WHITE)?;
        let start = self.points[0][2];
        let low = self.points.iter().map(|p| p[2]).fold(f64::INFINITY, f64::min);
        let room = 0.15 * (start - low).max(0.1);
        let ends = [self.points[0][0], self.points[self.points.len() - 1][0]];
        let title = ["loss while the learning rate rises", "learning rate", "loss"];
        let mut chart = log_chart(area, scale, title, ends[0]..ends[1], low - room..start + room)?;
        let inside = |y: f64| y.clamp(low - room, start + room);
        let line = |of: usize| self.points.iter().map(move |p| (p[0], inside(p[of])));
        chart.draw_series(LineSeries::new(line(1), MEAN.mix(0.35).stroke_width(scale)))?;
        chart.draw_series(LineSeries::new(line(2), MEAN.stroke_width(2 * scale)))?;
        let marks = [("falls fastest", self.steepest), ("lowest", Some(self.lowest)), ("breaks", self.breaks)];
        for (i, (name, lr)) in marks.into_iter().enumerate() {
            let Some(lr) = lr else { continue };
            let down = [(lr, low - room), (lr, start + room)];
            chart.draw_series(DashedLineSeries::new(down, 5 * s, 4 * s, MARK.stroke_width(scale)))?;
            let y = start + room - (0.6 + 0.9 * i as f64) * room * 0.5;
            chart.draw_series([Text::new(format!(" {name} {lr:.1e}"), (lr, y), font(17))])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss 5 at small rates, 3 around 1e-2, far above beyond.
    fn made(noise: f64) -> Range {
        let losses = (0..300).map(|i| {
            let lr = 1e-6 * 1e6f64.powf(f64::from(i) / 299.0);
            let down = 2.0 / (1.0 + (1e-3 / lr).powi(2));
            (lr, 5.0 - down + (lr / 0.05).powi(3) + noise * f64::from(i * 37 % 11 - 5) / 5.0)
        });
        Range::new(PathBuf::new(), losses).unwrap()
    }

    #[test]
    fn where_the_loss_falls_and_where_it_breaks_is_found() {
        for noise in [0.0, 0.2] {
            let found = made(noise);
            let steepest = found.steepest.unwrap();
            assert!((5e-4..5e-3).contains(&steepest), "{steepest}");
            assert!((5e-3..5e-2).contains(&found.lowest), "{}", found.lowest);
            let breaks = found.breaks.unwrap();
            assert!(breaks > found.lowest && breaks < 0.3, "{breaks}");
        }
        let flat = Range::new(PathBuf::new(), (1..100).map(|i| (f64::from(i), f64::from(i)))).unwrap();
        assert_eq!((flat.steepest, flat.lowest), (None, 1.0));
        assert!(Range::new(PathBuf::new(), std::iter::empty()).is_err());
    }
}
