//! Scaling laws: what small runs say of a large one.
//!
//! For each of some budgets of C operations, models of several widths are trained, each on as many tokens D as the budget pays for
//! (IsoFLOP, Hoffmann et al. 2022, arXiv 2203.15556, section 3.2). Too small a model cannot use the tokens, too large a one sees too few: between
//! them is the size that is best for the budget. The law
//!
//! ```text
//! L(N, D) = E + A/N^α + B/D^β          (section 3.3)
//! ```
//! is fitted to those of these runs that saw enough tokens for their size, and says what another size comes to before it is trained. N is C/(6 D), the operations of a token divided by
//! six: the weights of all matrices, the head's and what attention does among them.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::settings::require;
use crate::train::plot::{Picture, log_chart, text};
use crate::train::recipe::{MAX_STEPS, Recipe};
use crate::train::{AnyRecipe, Watch, source};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;
use std::path::Path;

/// The recipe whose width is varied where none is given.
pub const ISOFLOP: &str = include_str!("../../data/recipes/isoflop.toml");

/// Runs of fewer steps say little.
const LEAST_STEPS: u64 = 60;

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Operations of a run.
    pub budgets: Vec<f64>,
    /// Widths of models.
    pub widths: Vec<usize>,
    /// A width and a budget that the law is not fitted to: what it says of them is compared with a run.
    pub hold_out: Option<(usize, f64)>,
    /// D/N that a run needs to have for the law to be fitted to it.
    pub least_ratio: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            budgets: vec![4e12, 8e12, 1.6e13],
            widths: vec![64, 80, 96, 112, 128],
            hold_out: Some((128, 3.2e13)),
            least_ratio: 5.0,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The width of its model.
    pub width: usize,
    /// Its operations.
    pub flops: f64,
    /// N.
    pub size: f64,
    /// D.
    pub tokens: f64,
    /// Its steps.
    pub steps: u64,
    /// The validation loss in the end, in nats a token.
    pub loss: f64,
    /// Whether the law is fitted to it: it came to something, and saw enough tokens for its size. Of too few of them a model has only begun to
    /// learn, and no power of N and D says how much.
    pub fitted: bool,
}

/// The size that is best for a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// The budget.
    pub flops: f64,
    /// N.
    pub size: f64,
    /// D.
    pub tokens: f64,
    /// The loss.
    pub loss: f64,
}

/// `L(N, D) = E + A/N^α + B/D^β`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Law {
    /// The loss that is left in the end, in nats a token.
    pub e: f64,
    /// Of the size.
    pub a: f64,
    /// Its power.
    pub alpha: f64,
    /// Of the tokens.
    pub b: f64,
    /// Their power.
    pub beta: f64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaling {
    /// The runs: those that are marked are what the law is fitted to.
    pub points: Vec<Point>,
    /// For each budget, by a parabola in ln N through its runs; `None` where the best is the least or the greatest width.
    pub optima: Vec<Option<Optimum>>,
    /// The law.
    pub law: Law,
    /// How far it is from the runs that it is fitted to in the mean, as a share of their losses.
    pub residual: f64,
    /// The run that was held out.
    pub held_out: Option<Point>,
    /// What the law says of it.
    pub predicted: Option<f64>,
}

/// `recipe` of `width` channels, for a budget; and the operations and tokens of a step.
fn sized(recipe: &Recipe, width: usize, flops: f64, vocab: usize) -> Result<(Recipe, u64, [f64; 2])> {
    let head = recipe.model.d / recipe.model.heads;
    require(width >= head && width.is_multiple_of(head), "--widths", width, format!("multiples of a head's {head}"))?;
    let mut recipe = recipe.clone();
    (recipe.model.d, recipe.model.heads) = (width, width / head);
    let tokens = recipe.per_step() as f64;
    let step = tokens * recipe.model.config(vocab, recipe.train.context).flops_per_token(recipe.train.context);
    let steps = (flops / step).round();
    let problem = format!("{steps} steps of a model of width {width} for {flops:.1e} operations");
    if !(LEAST_STEPS as f64..=MAX_STEPS as f64).contains(&steps) {
        let hint = format!(
            "choose budgets and widths with at least {LEAST_STEPS} steps: a step here is {step:.1e} operations"
        );
        return Err(Error::config("--budgets", problem, hint));
    }
    Ok((recipe, steps as u64, [step, tokens]))
}

/// Trains what `settings` says, in the folder `dir`; runs that are there are not done again. `told(what, done, all)` counts
/// operations.
///
/// # Errors
/// The recipe is no language model's; a width or a budget fits it not; a run fails, or a signal stopped it.
pub fn scaling(
    recipe: &AnyRecipe,
    settings: &Settings,
    dir: &Path,
    device: &Device,
    told: &mut dyn FnMut(&str, f64, f64),
    watch: &mut dyn Watch,
) -> Result<Scaling> {
    let AnyRecipe::Text(recipe) = recipe else {
        let hint = "give a recipe of text, as data/recipes/isoflop.toml";
        return Err(Error::config("model.kind", "scaling laws here are those of language models", hint));
    };
    let Settings { budgets, widths, hold_out, .. } = settings;
    require(budgets.len() >= 2, "--budgets", budgets.len(), "two budgets at least")?;
    require(widths.len() >= 3, "--widths", widths.len(), "three widths at least")?;
    let grid = budgets.iter().flat_map(|&flops| widths.iter().map(move |&width| (width, flops)));
    let all: Vec<(usize, f64)> = grid.chain(*hold_out).collect();
    // All of it is looked at before the first run.
    let vocab = source::vocab(recipe, None)?;
    for &(width, flops) in &all {
        sized(recipe, width, flops, vocab)?;
    }
    let shards = source::shards(recipe, &dir.join("data"), &mut |what, _, _| told(what, 0.0, 1.0))?;
    let vocab = source::vocab(recipe, Some(&shards))?;
    let total: f64 = all.iter().map(|run| run.1).sum();
    let (mut points, mut done) = (Vec::new(), 0.0);
    for (width, flops) in all {
        told(&format!("width {width}, {flops:.0e} operations"), done, total);
        done += flops;
        let (sized, steps, [step, tokens]) = sized(recipe, width, flops, vocab)?;
        let set = [
            format!("train.steps={steps}"),
            format!("optim.warmup={}", sized.optim.warmup.min(steps / 4)),
            format!("data.path={}", toml::Value::from(&*shards.to_string_lossy())),
        ];
        let name = format!("d{width}-{flops:.0e}");
        let summary = AnyRecipe::once(dir, &name, &sized.to_toml(), &set, device, watch)?;
        let loss = summary.val_loss.filter(|loss| loss.is_finite()).unwrap_or(f64::INFINITY);
        let (flops, tokens) = (step * steps as f64, tokens * steps as f64);
        let size = flops / (6.0 * tokens);
        let fitted = loss.is_finite() && tokens >= settings.least_ratio * size;
        points.push(Point { width, flops, size, tokens, steps, loss, fitted });
    }
    let held_out = hold_out.map(|_| Point { fitted: false, ..points.pop().expect("it was trained last") });
    Scaling::new(budgets, points, held_out)
}

impl Law {
    /// The law with the least squares of relative residuals of the points that are to be fitted: for each α and β of a grid the best E, A and
    /// B, none of them below 0.
    ///
    /// # Errors
    /// They are fewer than five.
    pub fn fit(points: &[Point]) -> Result<Law> {
        let points: Vec<&Point> = points.iter().filter(|point| point.fitted).collect();
        if points.len() < 5 {
            let problem = format!("{} runs can be fitted: a law of five numbers asks for more", points.len());
            let hint = "give larger budgets or smaller widths, or lower --least-ratio; lower optim.lr where runs broke";
            return Err(Error::failed(problem, hint));
        }
        let powers = || (1..=150).map(|i| 0.01 * f64::from(i));
        let mut best = (f64::INFINITY, None);
        for alpha in powers() {
            for beta in powers() {
                // Each row divided by its loss, so that the right side is 1; columns of about the same size.
                let scale = [1.0, points[0].size.powf(alpha), points[0].tokens.powf(beta)];
                let rows: Vec<[f64; 3]> = points
                    .iter()
                    .map(|p| {
                        let row = [1.0, scale[1] * p.size.powf(-alpha), scale[2] * p.tokens.powf(-beta)];
                        row.map(|x| x / p.loss)
                    })
                    .collect();
                let (error, x) = positive_squares(&rows);
                if error < best.0 {
                    let [e, a, b] = [0, 1, 2].map(|i| x[i] * scale[i]);
                    best = (error, Some(Law { e, a, alpha, b, beta }));
                }
            }
        }
        Ok(best.1.expect("some law is nearest"))
    }

    /// L(N, D) in nats a token.
    pub fn loss(&self, size: f64, tokens: f64) -> f64 {
        self.e + self.a / size.powf(self.alpha) + self.b / tokens.powf(self.beta)
    }

    /// The size for a budget: N = G·(C/6)^(β/(α+β)) with G = (αA/βB)^(1/(α+β)), equation 4; `None` where size or tokens do not matter.
    pub fn best(&self, flops: f64) -> Option<Optimum> {
        let Law { a, alpha, b, beta, .. } = *self;
        let g = (alpha * a / (beta * b)).powf(1.0 / (alpha + beta));
        let size = g * (flops / 6.0).powf(beta / (alpha + beta));
        let tokens = flops / (6.0 * size);
        (size.is_finite() && size > 0.0).then(|| Optimum { flops, size, tokens, loss: self.loss(size, tokens) })
    }
}

/// The x of three numbers, none below 0, with the least Σ(row·x − 1)², and that sum: the best of the solutions in which some are 0.
fn positive_squares(rows: &[[f64; 3]]) -> (f64, [f64; 3]) {
    let mut best = (f64::INFINITY, [0.0; 3]);
    for free in 1..8u32 {
        let on = |i: usize| free >> i & 1 == 1;
        // Normal equations, with the rest held at 0.
        let mut m = [[0.0; 4]; 3];
        for i in 0..3 {
            for j in 0..3 {
                m[i][j] = match on(i) && on(j) {
                    true => rows.iter().map(|row| row[i] * row[j]).sum(),
                    false => f64::from(u8::from(i == j)),
                };
            }
            m[i][3] = if on(i) { rows.iter().map(|row| row[i]).sum() } else { 0.0 };
        }
        let x = solve(m);
        if x.iter().all(|&x| x >= 0.0 && x.is_finite()) {
            let off = |row: &[f64; 3]| row.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>() - 1.0;
            let error = rows.iter().map(|row| off(row).powi(2)).sum();
            if error < best.0 {
                best = (error, x);
            }
        }
    }
    best
}

/// The solution of three equations, by Gauss with pivots.
fn solve(mut m: [[f64; 4]; 3]) -> [f64; 3] {
    for i in 0..3 {
        let pivot = (i..3).max_by(|&a, &b| m[a][i].abs().total_cmp(&m[b][i].abs())).expect("rows are left");
        m.swap(i, pivot);
        for row in 0..3 {
            if row != i {
                let (factor, above) = (m[row][i] / m[i][i], m[i]);
                m[row].iter_mut().zip(above).for_each(|(x, y)| *x -= factor * y);
            }
        }
    }
    [0, 1, 2].map(|i| m[i][3] / m[i][i])
}

/// The lowest point of the parabola through `(x, y)` with the least squares; `None` where it opens downwards, or is outside of them.
fn lowest(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let middle = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y)| of(x - middle, y)).sum::<f64>();
    let row = |k: i32| {
        [sum(&|x, _| x.powi(k)), sum(&|x, _| x.powi(k + 1)), sum(&|x, _| x.powi(k + 2)), sum(&|x, y| y * x.powi(k))]
    };
    let [c, b, a] = solve([row(0), row(1), row(2)]);
    let x = -b / (2.0 * a);
    let (first, last) = points.iter().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.0), h.max(p.0)));
    (a > 0.0 && (first..=last).contains(&(x + middle))).then_some((x + middle, c + b * x + a * x * x))
}

impl Scaling {
    /// What runs for each of `budgets` in turn say, and what they say of another.
    ///
    /// # Errors
    /// As of [`Law::fit`].
    pub fn new(budgets: &[f64], points: Vec<Point>, held_out: Option<Point>) -> Result<Scaling> {
        let law = Law::fit(&points)?;
        let each = points.len() / budgets.len();
        let optima = points.chunks(each).zip(budgets).map(|(runs, &flops)| {
            let curve: Vec<(f64, f64)> =
                runs.iter().filter(|run| run.loss.is_finite()).map(|run| (run.size.ln(), run.loss)).collect();
            let (size, loss) = if curve.len() < 3 { None } else { lowest(&curve) }?;
            Some(Optimum { flops, size: size.exp(), tokens: flops / (6.0 * size.exp()), loss })
        });
        let off = |point: &&Point| (law.loss(point.size, point.tokens) / point.loss - 1.0).abs();
        let fitted = || points.iter().filter(|point| point.fitted);
        Ok(Scaling {
            optima: optima.collect(),
            law,
            residual: fitted().map(|point| off(&point)).sum::<f64>() / fitted().count() as f64,
            predicted: held_out.as_ref().map(|point| law.loss(point.size, point.tokens)),
            held_out,
            points,
        })
    }

    /// How far the law's word on the run that was held out is above its loss, as a share of that.
    pub fn off(&self) -> Option<f64> {
        Some(self.predicted? / self.held_out.as_ref()?.loss - 1.0)
    }
}

/// Losses against sizes, a curve a budget.
impl Picture for Scaling {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: u32,
    ) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        const MARK: RGBColor = RGBColor(214, 84, 30);
        let s = scale as i32;
        let font = |size| text(size, scale, false);
        area.fill(&WHITE)?;
        let shown = || self.points.iter().chain(&self.held_out).filter(|point| point.loss.is_finite());
        let ends = |of: fn(&Point) -> f64| {
            shown().map(of).fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)))
        };
        let ((small, large), (low, high)) = (ends(|point| point.size), ends(|point| point.loss));
        let room = 0.06 * (high - low).max(1e-3);
        let title = [
            "loss by size, a curve for each budget of operations",
            "operations of a token / 6",
            "validation loss, nats a token",
        ];
        let mut chart = log_chart(area, scale, title, small / 1.3..large * 1.3, low - room..high + room)?;
        let curve = |flops: f64, sizes: (f64, f64)| {
            let at = move |i: i32| sizes.0 * (sizes.1 / sizes.0).powf(f64::from(i) / 60.0);
            let law = self.law;
            (0..=60).map(move |i| (at(i), law.loss(at(i), flops / (6.0 * at(i))))).filter(move |p| p.1 < high + room)
        };
        let each = self.points.len() / self.optima.len();
        for (i, runs) in self.points.chunks(each).enumerate() {
            let colour = RGBColor(31, 119 - 30 * (i.min(3) as u8), 180 - 40 * (i.min(3) as u8));
            let flops = runs[0].flops;
            chart
                .draw_series(LineSeries::new(curve(flops, (small, large)), colour.mix(0.6).stroke_width(2 * scale)))?;
            let dots = runs.iter().filter(|run| run.loss.is_finite());
            let style = |run: &Point| if run.fitted { colour.filled() } else { colour.mix(0.6).stroke_width(scale) };
            chart.draw_series(dots.map(|run| Circle::new((run.size, run.loss), 4 * s, style(run))))?;
            if let Some(best) = self.optima[i] {
                chart.draw_series([Cross::new((best.size, best.loss), 7 * s, colour.stroke_width(2 * scale))])?;
            }
            let label = format!("{flops:.0e}");
            let last =
                runs.iter().rev().find(|run| run.loss.is_finite()).map_or((large, low), |run| (run.size, run.loss));
            chart.draw_series([EmptyElement::at(last) + Text::new(label, (8 * s, -8 * s), font(16))])?;
        }
        if let (Some(point), Some(predicted)) = (&self.held_out, self.predicted) {
            chart.draw_series([Circle::new((point.size, predicted), 8 * s, MARK.stroke_width(2 * scale))])?;
            chart.draw_series([Circle::new((point.size, point.loss), 4 * s, MARK.filled())])?;
            let words = EmptyElement::at((point.size, point.loss))
                + Text::new("held out; ring: predicted", (-170 * s, 12 * s), font(16));
            chart.draw_series([words])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: Law = Law { e: 0.8, a: 90.0, alpha: 0.45, b: 300.0, beta: 0.38 };

    /// Runs that obey the law, but for a share `noise`.
    fn runs(noise: f64) -> (Vec<f64>, Vec<Point>) {
        let budgets = vec![1e11, 3e11, 1e12];
        let mut points = Vec::new();
        for &flops in &budgets {
            for (i, width) in [16, 32, 48, 64, 96].into_iter().enumerate() {
                let size = 24.0 * (width * width) as f64 + 512.0 * width as f64;
                let tokens = flops / (6.0 * size);
                let sign = if (i + points.len()) % 2 == 0 { 1.0 } else { -1.0 };
                let loss = LAW.loss(size, tokens) * (1.0 + sign * noise);
                points.push(Point { width, flops, size, tokens, steps: 100, loss, fitted: true });
            }
        }
        (budgets, points)
    }

    fn held_out() -> Point {
        let (size, flops) = (460e3, 4e12);
        let tokens = flops / (6.0 * size);
        Point { width: 128, flops, size, tokens, steps: 100, loss: LAW.loss(size, tokens), fitted: false }
    }

    #[test]
    fn a_law_is_found_again_and_says_what_a_larger_run_comes_to() {
        let (budgets, points) = runs(0.0);
        let found = Scaling::new(&budgets, points, Some(held_out())).unwrap();
        assert!(found.residual < 1e-6 && found.off().unwrap().abs() < 1e-5, "{found:?}");
        assert!((found.law.alpha - LAW.alpha).abs() < 0.011 && (found.law.beta - LAW.beta).abs() < 0.011);
        let (budgets, points) = runs(0.005);
        let found = Scaling::new(&budgets, points, Some(held_out())).unwrap();
        assert!(found.residual > 1e-3 && found.off().unwrap().abs() < 0.02, "{found:?}");
        // The parabola's lowest point is near that of the law.
        for best in found.optima.iter().flatten() {
            let law = LAW.best(best.flops).unwrap();
            assert!((best.size / law.size).ln().abs() < 0.5, "{best:?} {law:?}");
        }
        assert!(found.optima.iter().any(Option::is_some));
    }

    #[test]
    fn the_best_size_of_a_law_has_the_least_loss() {
        let best = LAW.best(1e12).unwrap();
        for factor in [0.8, 1.25] {
            assert!(LAW.loss(best.size * factor, best.tokens / factor) > best.loss);
        }
        assert!((6.0 * best.size * best.tokens / 1e12 - 1.0).abs() < 1e-12);
        assert_eq!(Law { a: 0.0, ..LAW }.best(1e12), None);
    }

    #[test]
    fn the_lowest_point_is_inside_or_nowhere() {
        let at = |f: fn(f64) -> f64| lowest(&[1.0, 2.0, 3.0, 5.0].map(|x| (x, f(x))));
        let (x, y) = at(|x| 2.0 * (x - 3.5).powi(2) + 7.0).unwrap();
        assert!((x - 3.5).abs() < 1e-9 && (y - 7.0).abs() < 1e-9);
        assert_eq!([at(|x| (x - 9.0).powi(2)), at(|x| -(x - 3.0).powi(2))], [None, None]);
    }

    #[test]
    fn failed_runs_are_no_part_of_the_law() {
        let (budgets, mut points) = runs(0.0);
        let fail = |point: &mut Point| (point.loss, point.fitted) = (f64::INFINITY, false);
        fail(&mut points[3]);
        assert!(Scaling::new(&budgets, points.clone(), None).unwrap().residual < 1e-6);
        points.iter_mut().skip(2).for_each(fail);
        assert!(Scaling::new(&budgets, points, None).is_err());
    }
}
