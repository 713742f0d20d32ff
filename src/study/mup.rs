//! Is a learning rate that is best for a narrow model best for a wide one too? Under muP, and as it is without.
//!
//! - **Coordinates**: after a few steps the streams and logits of models of several widths should have moved by about as much: the
//!   slope of log₂(move) over log₂(width) is near 0 (Yang et al. 2022, arXiv 2203.03466, appendix D.1). The control is the standard
//!   parametrisation, whose moves grow with the width.
//! - **Rates**: the learning rate with the lowest validation loss, of a grid in which each is twice the one before, for a wide model and
//!   for a narrow one, as it is and with the wide one's width as muP's base; every seed, and the mean. A wide model is what one wants to
//!   train, so that it is the one that is left as it is.

use super::{search, stopped};
use crate::data::{Batches, Dataset, DatasetInfo, Part};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::model::Site;
use crate::settings::require;
use crate::sweep::{Sweep, Watch, Work};
use crate::tensor::{DType, Out, Spec};
use crate::train::recipe::Recipe;
use crate::train::{Lm, Trainer, source};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// The sweep over learning rates and seeds.
pub const WIDTH: &str = include_str!("../../data/recipes/width.toml");

/// The channels of a head, whatever the width.
const HEAD: usize = 16;

/// What is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Widths whose coordinates are checked; the first one is muP's base.
    pub widths: Vec<usize>,
    /// Steps after which they are.
    pub steps: u64,
    /// The rate of these steps.
    pub lr: f64,
    /// Seeds of these models.
    pub seeds: u64,
    /// The two widths whose best rates are compared; the second one is muP's base.
    pub rates: [usize; 2],
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { widths: vec![64, 128, 256, 512], steps: 8, lr: 1e-3, seeds: 3, rates: [64, 256] }
    }
}

/// How far something moved at each width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moves {
    /// What, as `stream 1`.
    pub what: String,
    /// Root mean square of the change since the start, for each width; the mean over seeds.
    pub moves: Vec<f64>,
    /// The slope of log₂(move) over log₂(width).
    pub slope: f64,
}

/// Losses at each learning rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The model's width.
    pub width: usize,
    /// Whether it is muP's, of another base width than its own.
    pub mup: bool,
    /// A row a rate: the rate, and the validation loss for each seed.
    pub losses: Vec<(f64, Vec<f64>)>,
    /// The number of the rate with the lowest mean loss.
    pub best: usize,
    /// The same for each seed.
    pub of_seeds: Vec<usize>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The widths of the check.
    pub widths: Vec<usize>,
    /// As it is without muP: the control.
    pub standard: Vec<Moves>,
    /// With muP.
    pub mup: Vec<Moves>,
    /// The narrow model, the narrow one with muP, and the wide one.
    pub rates: [Rates; 3],
}

/// The recipe of a model of that width.
fn recipe(width: usize, base: Option<usize>, more: &[String]) -> Result<Recipe> {
    let sweep = Sweep::from_toml(WIDTH, Path::new("data/recipes/width.toml"), &set(width, base)?)?;
    let set = sweep.overrides()?;
    Recipe::load(None, &[&set[..], more].concat())
}

/// What a width changes of the sweep; with `base`, muP's rates are those of that width.
fn set(width: usize, base: Option<usize>) -> Result<Vec<String>> {
    require(width >= HEAD && width.is_multiple_of(HEAD), "--widths", width, format!("multiples of {HEAD}"))?;
    let mut set = vec![format!("set.model.d={width}"), format!("set.model.heads={}", width / HEAD)];
    set.extend(base.into_iter().flat_map(|base| ["set.model.mup=true".into(), format!("set.model.base_d={base}")]));
    Ok(set)
}

/// How far each stream and the logits of a model move in a few steps.
fn moved(
    recipe: &Recipe,
    steps: u64,
    vocab: usize,
    data: &Arc<Dataset>,
    device: &Device,
) -> Result<Vec<(String, f64)>> {
    let (b, t) = (recipe.train.batch, recipe.train.context);
    let mut trainer = Trainer::new(recipe, vocab, data.clone(), device)?;
    // Rows that none of the steps reads.
    let batches = Batches::new(data.clone(), b, t, 1, recipe.train.seed)?;
    let ids = Spec { shape: [b, t].into(), dtype: DType::I32 };
    let (mut x, mut y) = (Out::new(device, ids), Out::new(device, ids));
    batches.fill(steps, 0, x.as_mut_slice(), y.as_mut_slice())?;
    let x = x.freeze();
    let look = |trainer: &mut Trainer<Lm>| {
        let pass = trainer.eval_pass();
        trainer.tape.begin(&trainer.params, pass);
        let mut seen = Vec::new();
        trainer.objective.gpt.look(trainer.tape.constant(x.clone()), &mut |site, block, value| {
            let name = match site {
                Site::Stream => format!("stream {}", block + 1),
                Site::Logits => "logits".to_owned(),
                Site::Qkv | Site::Hidden => return,
            };
            seen.push((name, value.f32().to_vec()));
        });
        trainer.tape.reset();
        seen
    };
    let before = look(&mut trainer);
    for step in 0..steps {
        trainer.step(step)?;
    }
    let change = |(name, was): (String, Vec<f32>), is: &[f32]| {
        let sum: f64 = was.iter().zip(is).map(|(a, b)| f64::from(b - a).powi(2)).sum();
        (name, (sum / is.len() as f64).sqrt())
    };
    let after = look(&mut trainer);
    Ok(before.into_iter().zip(&after).map(|(was, (_, is))| change(was, is)).collect())
}

/// The slope of the line through (log₂ x, log₂ y) with the least squares.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let points = points.map(|(x, y)| (x.log2(), y.log2()));
    let n = points.clone().count() as f64;
    let [mx, my] = points.clone().fold([0.0, 0.0], |[a, b], (x, y)| [a + x / n, b + y / n]);
    let [xy, xx] = points.fold([0.0, 0.0], |[a, b], (x, y)| [a + (x - mx) * (y - my), b + (x - mx).powi(2)]);
    xy / xx
}

/// The coordinate check of models whose base is `base`, or without muP; with its data in `own`.
///
/// # Errors
/// A width is no multiple of a head's; data cannot be written.
fn check(settings: &Settings, base: Option<usize>, own: &Path, device: &Device) -> Result<Vec<Moves>> {
    let Settings { widths, steps, lr, seeds, .. } = settings;
    let mut all: Vec<Moves> = Vec::new();
    for (i, &width) in widths.iter().enumerate() {
        for seed in 1..=*seeds {
            let more = [
                format!("optim.lr={lr}"),
                "optim.schedule=constant".into(),
                "optim.warmup=0".into(),
                format!("train.seed={seed}"),
            ];
            let recipe = recipe(width, base, &more)?;
            let shards = source::shards(&recipe, own, &mut |_, _, _| ())?;
            let vocab = DatasetInfo::load(&shards)?.tokenizer.vocab;
            let data = Arc::new(Dataset::open(&shards, Part::Train)?);
            for (j, (what, move_)) in moved(&recipe, *steps, vocab, &data, device)?.into_iter().enumerate() {
                if all.len() == j {
                    all.push(Moves { what, moves: vec![0.0; widths.len()], slope: 0.0 });
                }
                all[j].moves[i] += move_ / *seeds as f64;
            }
        }
    }
    for Moves { moves, slope: found, .. } in &mut all {
        *found = slope(widths.iter().map(|&w| w as f64).zip(moves.iter().copied()));
    }
    Ok(all)
}

/// The losses of all rates and seeds at a width.
fn rates(
    dir: &Path,
    width: usize,
    base: Option<usize>,
    more: &[String],
    work: &Work,
    watch: &mut dyn Watch,
) -> Result<Rates> {
    let name = format!("{width}{}", if base.is_some() { "-mup" } else { "" });
    let set = [&set(width, base)?, more, &[format!("sweep.name={name}")]].concat();
    let sweep = Sweep::from_toml(WIDTH, Path::new("data/recipes/width.toml"), &set)?;
    let found = search(dir, sweep, work, watch)?;
    stopped(found.stopped)?;
    let mut losses: Vec<(f64, Vec<f64>)> = Vec::new();
    for trial in &found.trials {
        let [lr, _seed] = &trial.setting[..] else { unreachable!("the sweep has two keys, in this order") };
        let lr = lr.as_float().unwrap_or_default();
        let loss = trial.progress.values.last().copied().unwrap_or(f64::INFINITY);
        match losses.iter_mut().find(|(other, _)| *other == lr) {
            Some((_, row)) => row.push(loss),
            None => losses.push((lr, vec![loss])),
        }
    }
    losses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let least = |of: &dyn Fn(&[f64]) -> f64| {
        (0..losses.len()).min_by(|&a, &b| of(&losses[a].1).total_cmp(&of(&losses[b].1))).unwrap_or(0)
    };
    let best = least(&|row| row.iter().sum());
    let of_seeds = (0..losses[0].1.len()).map(|seed| least(&|row| row[seed])).collect();
    Ok(Rates { width, mup: base.is_some(), best, of_seeds, losses })
}

/// Does the study in `dir`; `more` overrides the sweep.
///
/// # Errors
/// As of [`run`](crate::sweep::run); a signal stopped it.
pub fn study(
    settings: &Settings,
    dir: &Path,
    more: &[String],
    (work, device): (&Work, &Device),
    told: &mut dyn FnMut(&str),
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    disk::make_dirs(&Os, dir)?;
    let (own, base) = (dir.join("data"), Some(settings.widths[0]));
    told("coordinates, standard");
    let standard = check(settings, None, &own, device)?;
    told("coordinates, muP");
    let mup = check(settings, base, &own, device)?;
    let [narrow, wide] = settings.rates;
    let mut rates = |width: usize, base: Option<usize>| {
        told(&format!("rates at width {width}{}", if base.is_some() { ", muP" } else { "" }));
        rates(dir, width, base, more, work, watch)
    };
    // At its base width a model of muP is what it is without.
    let rates = [rates(narrow, None)?, rates(narrow, Some(wide))?, rates(wide, None)?];
    Ok(Outcome { widths: settings.widths.clone(), standard, mup, rates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_the_power_of_the_width() {
        let widths = [64.0, 128.0, 256.0f64];
        for power in [-0.5, 0.0, 1.0] {
            assert!((slope(widths.iter().map(|&w| (w, 3.0 * w.powf(power)))) - power).abs() < 1e-9);
        }
    }

    #[test]
    fn logits_of_wide_models_move_as_far_as_those_of_narrow_ones_with_mup_alone() {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::cpu(1).unwrap();
        let settings = Settings { widths: vec![16, 64], steps: 3, lr: 4e-3, seeds: 1, ..Settings::default() };
        let found = |base: Option<usize>| check(&settings, base, dir.path(), &device).unwrap();
        let (standard, mup) = (found(None), found(Some(16)));
        let names: Vec<&str> = mup.iter().map(|moves| &*moves.what).collect();
        assert_eq!(names, ["stream 1", "stream 2", "logits"]);
        assert!(standard[2].slope > 0.4 && mup[2].slope.abs() < 0.25, "{standard:?}\n{mup:?}");
        // The first width is the base: nothing is scaled there.
        assert_eq!(standard[2].moves[0], mup[2].moves[0]);
    }
}
