//! Opens a run, which may be under way in another process, and looks at all of it. Nothing is written.

use super::course::Course;
use super::finding::{Finding, Kind, Knob, Number};
use super::model::Look;
use super::recipe::Terms;
use super::{align, data, gan, noise, weights};
use crate::data::{Dataset, DatasetInfo, Part};
use crate::device::Device;
use crate::disk::Os;
use crate::error::Result;
use crate::model::{Gpt, GptConfig};
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::train::any::AnyRecipe;
use crate::train::checkpoint::{self, Newest, State};
use crate::train::lm::Lm;
use crate::train::metrics::{self, Record};
use crate::train::objective::{Objective, fill, room};
use crate::train::pictures::{self, Painter, PictureTask, task::PictureRecipe};
use crate::train::prefer::Prefer;
use crate::train::recipe::{Optim, Recipe};
use crate::train::rl::Reinforce;
use crate::train::seen;
use crate::train::task::{Progress, Task};
use crate::train::text::Text;
use crate::train::trainer::{At, Trainer};
use crate::train::tune::{Tune, TuneRecipe};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run looks like.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run's directory.
    pub run: PathBuf,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// What is wrong, causes first; of each kind one.
    pub findings: Vec<Finding>,
    /// What was measured, wrong or not.
    pub numbers: Vec<Number>,
    /// What could not be looked at, and why.
    pub left_out: Vec<String>,
}

/// What is being found.
struct Work<'a> {
    run: &'a Path,
    terms: Terms,
    /// The newest good checkpoint.
    newest: Option<(PathBuf, State)>,
    /// The highest learning rate so far.
    lr: f64,
    /// The mean of the last losses.
    loss: Option<f64>,
    /// By how much of the first loss it fell.
    fell: Option<f64>,
    report: Report,
}

/// Looks at the run in the folder `run`; `progress` is told of what takes time.
///
/// # Errors
/// There is no run; its recipe or its metrics cannot be read. What else is missing is told of in the report.
pub fn examine(run: &Path, device: &Device, progress: &mut Progress) -> Result<Report> {
    let (recipe, mut work) = begin(run)?;
    let looked = match &recipe {
        AnyRecipe::Text(recipe) => work.text(recipe, device, progress),
        AnyRecipe::Tune(recipe) => work.tune(recipe, device, progress),
        AnyRecipe::Vae(recipe) => work.pictures::<pictures::vae::VaeObjective>(recipe, device, progress),
        AnyRecipe::VqVae(recipe) => work.pictures::<pictures::vqvae::VqVaeObjective>(recipe, device, progress),
        AnyRecipe::Gan(_) => Ok(()),
        AnyRecipe::Prefer(_) | AnyRecipe::Reinforce(_) => {
            let what = "its weights, its gradients and its data: of models that learn from preferences or rewards only the course is judged";
            work.report.left_out.push(what.to_owned());
            Ok(())
        }
    };
    if let Err(e) = looked {
        work.report.left_out.push(e.to_string());
    }
    Ok(work.end())
}

/// Looks at what the run in the folder `run` wrote of its steps, which takes no time; its model and its data are left out.
///
/// # Errors
/// As of [`examine`].
pub fn glance(run: &Path) -> Result<Report> {
    let (_, mut work) = begin(run)?;
    let left_out = "its weights, what it computes, its gradients, its data: kiln doctor looks at them";
    work.report.left_out.push(left_out.to_owned());
    Ok(work.end())
}

/// The course of a run.
fn begin(run: &Path) -> Result<(AnyRecipe, Work<'_>)> {
    let recipe = AnyRecipe::of_run(run, &[])?;
    let path = run.join("metrics.jsonl");
    // A run that has just begun has done no step.
    let records = if path.exists() { metrics::read(&Os, &path)? } else { Vec::new() };
    let terms = match &recipe {
        AnyRecipe::Text(recipe) => Text::terms(recipe),
        AnyRecipe::Tune(recipe) => Tune::terms(recipe),
        AnyRecipe::Prefer(recipe) => Prefer::terms(recipe),
        AnyRecipe::Reinforce(recipe) => Reinforce::terms(recipe),
        AnyRecipe::Vae(recipe) => pictures::VaeTask::terms(recipe),
        AnyRecipe::VqVae(recipe) => pictures::VqVaeTask::terms(recipe),
        AnyRecipe::Gan(recipe) => pictures::GanTask::terms(recipe),
    };
    let Newest { found: newest, damaged } = checkpoint::newest(&Os, &run.join("checkpoints"))?;
    let report = Report {
        run: run.to_owned(),
        step: records.last().map_or(0, |record| record.step),
        steps: recipe.train().steps,
        findings: Vec::new(),
        numbers: Vec::new(),
        left_out: damaged.iter().map(ToString::to_string).collect(),
    };
    let lr = records.iter().map(|record| record.lr).fold(0.0, f64::max);
    let mut work = Work { run, terms, newest, lr, loss: None, fell: None, report };
    work.course(&records);
    if work.newest.is_none() {
        work.report.left_out.push("the model: no checkpoint stands yet".into());
    }
    let looked = match &recipe {
        AnyRecipe::Gan(recipe) => Some(gan::look(recipe.model.loss, &records)),
        AnyRecipe::Prefer(recipe) => recipe.model.preference.as_ref().map(|own| align::prefer(own, &records)),
        AnyRecipe::Reinforce(recipe) => recipe.model.reinforce.as_ref().map(|own| align::reinforce(own, &records)),
        _ => None,
    };
    if let Some((numbers, findings)) = looked {
        work.report.numbers.extend(numbers);
        work.report.findings.extend(findings);
    }
    Ok((recipe, work))
}

/// What a step that trains so many rows hangs on.
struct Rows {
    rows: usize,
    /// Of them, in a micro-batch.
    batch: usize,
    micros: usize,
}

impl Work<'_> {
    fn end(self) -> Report {
        Report { findings: settle(self.report.findings), ..self.report }
    }

    fn number(&mut self, name: &'static str, value: f64) {
        if value.is_finite() {
            self.report.numbers.push(Number { name, value });
        }
    }

    /// The losses, and what the guard did.
    fn course(&mut self, records: &[Record]) {
        let mut course = Course::verbose(self.terms);
        let mut worst: Vec<Option<Finding>> = vec![None; Kind::COUNT];
        for record in records {
            for found in course.record(record).into_iter().flatten() {
                let kept = &mut worst[found.kind as usize];
                if kept.as_ref().is_none_or(|kept| found.severity >= kept.severity) {
                    *kept = Some(found);
                }
            }
        }
        // A loss that got under way late is not stuck.
        let moved = |found: &Finding| {
            let start = course.first().unwrap_or(0.0);
            found.kind == Kind::Stuck && course.mean().is_some_and(|mean| mean < 0.98 * start)
        };
        self.report.findings.extend(worst.into_iter().flatten().filter(|found| !moved(found)));
        (self.loss, self.fell) = (course.mean(), course.fell());
        self.number("mean loss of the last steps", course.mean().unwrap_or(f64::NAN));
        self.number("deviation of a step's loss", course.deviation());
        let Some((_, state)) = &self.newest else { return };
        let (skipped, rewinds) = (state.guard.skipped, state.guard.rewinds.len());
        if self.terms.falls && (skipped > 0 || rewinds > 0) {
            let what = "steps went so wrong that they were skipped, or the run went back to a checkpoint";
            let evidence = [("skipped", skipped as f64), ("times back", rewinds as f64), ("optim.lr", self.terms.lr)];
            self.report.findings.push(Finding::new(Kind::LrTooHigh, what, &evidence, self.terms.lr_times(0.3)));
        }
    }

    /// Loads the newest checkpoint into a trainer and judges weights and moments. False where there is none.
    fn weights<O: Objective>(&mut self, trainer: &mut Trainer<O>, optim: &Optim) -> Result<bool> {
        let Some((path, state)) = &self.newest else { return Ok(false) };
        let updates = state.optimizer_steps;
        checkpoint::load(&Os, path, &mut trainer.params)?;
        let ratios = weights::ratios(&trainer.params, &optim.optimizer(), updates, self.lr);
        self.number("update over weight, at the highest rate", weights::median(&ratios).unwrap_or(f64::NAN));
        self.report.findings.extend(weights::judge(&ratios, &self.terms, updates, self.fell));
        Ok(true)
    }

    /// Lets the model read some rows, and measures its gradients last.
    fn model<O: Objective>(&mut self, trainer: &mut Trainer<O>, gpt: fn(&O) -> &Gpt, rows: &Rows) -> Result<()> {
        let at = self.at();
        let device = trainer.params.device().clone();
        let mut batch = room(&device, &trainer.objective.batch());
        fill(&mut batch, |x| trainer.objective.fill(at.batch, 0, x))?;
        let ids: Tensor = batch.swap_remove(0).freeze();
        let pass = trainer.eval_pass();
        let config = gpt(&trainer.objective).config();
        let mut look = Look::new(config);
        let t = ids.shape()[1];
        // Logits of so many rows stand at once.
        let count = (LOGITS / (t * config.vocab).max(1)).clamp(1, ids.shape()[0]);
        let mut tape = Tape::new(&device);
        tape.begin(&trainer.params, pass);
        let ids = tape.constant(ids.view(0, [count, t]));
        gpt(&trainer.objective).look(ids, &mut |site, block, x| look.see(site, block, x));
        drop(tape);
        let seen = look.seen();
        self.number("largest logit", seen.logit);
        self.number("attention entropy, relative", seen.entropy);
        self.number("share of heads that look at one token", seen.collapsed);
        self.number("share of hidden units that are dead", seen.dead);
        self.number("share of hidden units that are saturated", seen.saturated);
        self.report.findings.extend(seen.judge(&self.terms));
        let noise = noise::measure(trainer, at, rows.batch, rows.micros)?;
        let (scale, at_least) = noise.scale();
        let name = if at_least { "gradient noise scale in rows, at least" } else { "gradient noise scale in rows" };
        self.number(name, scale);
        self.number("rows of a step", rows.rows as f64);
        self.report.findings.extend(noise.judge(rows.rows, t));
        Ok(())
    }

    /// The step that the run would do next.
    fn at(&self) -> At {
        let state = self.newest.as_ref().map(|(_, state)| state);
        state.map_or(At::from(0), |state| At {
            step: state.step,
            batch: state.step + state.guard.offset,
            updates: state.optimizer_steps,
        })
    }

    fn text(&mut self, recipe: &Recipe, device: &Device, progress: &mut Progress) -> Result<()> {
        let Some(dir) = seen::data(self.run, recipe) else {
            self.report.left_out.push("the data and the model: the run's tokens are not where its recipe says".into());
            return Ok(());
        };
        progress("looking at the data", 0, 0);
        let info = DatasetInfo::load(&dir)?;
        let (train, val) = (Arc::new(Dataset::open(&dir, Part::Train)?), Dataset::open(&dir, Part::Val)?);
        let (numbers, found) = data::look(&info, &train, &val)?;
        self.report.numbers.extend(numbers);
        self.report.findings.extend(found);
        self.unigram(data::unigram(&train)?);
        if self.newest.is_none() {
            return Ok(());
        }
        progress("looking at the model", 0, 0);
        let (t, b) = (recipe.train.context, recipe.train.batch);
        let config = recipe.model.config(info.tokenizer.vocab, t);
        let micros = noise::micros(b, config.flops_per_token(t) * (b * t) as f64);
        let rows = Rows { rows: b * recipe.train.accumulate, batch: b, micros };
        let mut looked = recipe.clone();
        looked.train.accumulate = micros;
        // Its gradients are looked at as they are.
        looked.optim.dp = None;
        let mut trainer = Trainer::new(&looked, info.tokenizer.vocab, train, device)?;
        if self.weights(&mut trainer, &recipe.optim)? {
            self.model(&mut trainer, |lm: &Lm| &lm.gpt, &rows)?;
        }
        Ok(())
    }

    /// A model that has learnt no more than how often each token occurs.
    fn unigram(&mut self, entropy: f64) {
        self.number("entropy of single tokens, in nats", entropy);
        let Some(loss) = self.loss.filter(|_| self.terms.falls) else { return };
        let done = self.report.step;
        if done < self.terms.warmup + 200 || done < self.terms.steps / 2 || loss < entropy - 0.05 {
            return;
        }
        let what = "the model has learnt at most how often each token occurs";
        let evidence = [("mean loss now", loss), ("entropy of single tokens", entropy), ("step", done as f64)];
        self.report.findings.push(Finding::new(Kind::Stuck, what, &evidence, self.terms.lr_times(10.0)));
    }

    fn tune(&mut self, recipe: &TuneRecipe, device: &Device, progress: &mut Progress) -> Result<()> {
        let b = recipe.train.batch;
        let micros = |config: &GptConfig, t: usize| noise::micros(b, config.flops_per_token(t) * (b * t) as f64);
        let (mut trainer, found, examples) = Tune::reopen(recipe, &micros, device, progress)?;
        self.number("share of tokens trained on", data::mask(&found));
        self.report.findings.extend(data::judge_mask(&found));
        let repeated = data::repeated_things(examples.iter());
        self.number("share of examples that were there before", repeated);
        let knob = Knob { key: "data.path", value: "<a file without its duplicates>".into() };
        self.report.findings.extend(data::judge_repeated(repeated, "examples", knob));
        progress("looking at the model", 0, 0);
        if self.weights(&mut trainer, &recipe.optim)? {
            let rows = Rows { rows: b * recipe.train.accumulate, batch: b, micros: trainer.micros() };
            self.model(&mut trainer, |sft| &sft.gpt, &rows)?;
        }
        Ok(())
    }

    fn pictures<P: Painter>(
        &mut self,
        recipe: &PictureRecipe<P::Model>,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<()> {
        let data = pictures::open(&recipe.data, P::labelled(&recipe.model), progress)?;
        let train = &data.train;
        let repeated = data::repeated_things((0..train.len()).map(|i| train.get(i)));
        self.number("share of pictures that were there before", repeated);
        let knob = Knob { key: "data.path", value: "<a folder without duplicates>".into() };
        self.report.findings.extend(data::judge_repeated(repeated, "pictures", knob));
        if self.newest.is_some() {
            let config = P::config(&recipe.model, train.dims(), train.classes())?;
            let mut trainer = PictureTask::<P>::trainer(recipe, Some(train), config, device)?;
            self.weights(&mut trainer, &recipe.optim)?;
        }
        Ok(())
    }
}

/// Elements of logits that stand at once.
const LOGITS: usize = 1 << 26;

/// One finding of each kind, causes first; a loss that is stuck is told of by what makes it so, where that is known.
fn settle(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for found in findings {
        match all.iter_mut().find(|kept| kept.kind == found.kind) {
            None => all.push(found),
            Some(kept) => {
                kept.what = format!("{}; {}", kept.what, found.what);
                let more = found.evidence.into_iter().filter(|n| !kept.evidence.iter().any(|own| own.name == n.name));
                kept.evidence.extend(more.collect::<Vec<_>>());
            }
        }
    }
    let cause =
        all.iter().position(|f| matches!(f.kind, Kind::LrTooHigh | Kind::LrTooLow | Kind::NoWarmup | Kind::SmallBatch));
    if let (Some(cause), Some(stuck)) = (cause, all.iter().position(|f| f.kind == Kind::Stuck)) {
        let stuck = all[stuck].clone();
        all[cause].what = format!("{}; {}", all[cause].what, stuck.what);
        all[cause].evidence.extend(stuck.evidence.into_iter().filter(|number| number.name != "optim.lr"));
        all.retain(|found| found.kind != Kind::Stuck);
    }
    // A held-out part that is another text has another loss.
    if all.iter().any(|found| found.kind == Kind::DataOrder) {
        all.retain(|found| found.kind != Kind::Overfitting);
    }
    all.sort_by_key(|found| found.kind);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_there_is_one_finding_and_causes_come_first() {
        let knob = |key| Knob { key, value: "1".into() };
        let found =
            |kind, what: &str, numbers: &[(&'static str, f64)]| Finding::new(kind, what, numbers, knob("optim.lr"));
        let all = settle(vec![
            found(Kind::Stuck, "it stays", &[("mean", 7.0), ("optim.lr", 1.0)]),
            found(Kind::DeadUnits, "dead", &[]),
            found(Kind::LrTooHigh, "rose", &[("optim.lr", 1.0)]),
            found(Kind::LrTooHigh, "skipped", &[("skipped", 2.0), ("optim.lr", 1.0)]),
        ]);
        let kinds: Vec<Kind> = all.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [Kind::LrTooHigh, Kind::DeadUnits]);
        assert_eq!(all[0].what, "rose; skipped; it stays");
        let names: Vec<&str> = all[0].evidence.iter().map(|number| number.name).collect();
        assert_eq!(names, ["optim.lr", "skipped", "mean"]);
        let alone = settle(vec![found(Kind::Stuck, "it stays", &[])]);
        assert_eq!(alone[0].kind, Kind::Stuck);
    }
}
