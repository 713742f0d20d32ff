//! What is known of a model: gathered from what its run left on disk, so that nothing is typed by hand. Nothing here computes for long; what
//! is missing is named.

mod data;
mod judged;
mod model;
mod risk;
mod spent;
mod studies;
pub mod words;

pub use data::{Cleaned, Cleaning, DataSheet, Rule, Share};
pub use judged::{Claim, Judged, Standing, label, standard};
pub use risk::Privacy;
pub use spent::{Planned, Roofline, Spent};
pub use studies::{Figure, Side, Studies, Study};

use super::curve::Dot;
use super::run::{Run, Series, Status};
use crate::disk::Os;
use crate::error::Result;
use crate::eval::{Topic, saved};
use crate::plan::Forecast;
use crate::train::checkpoint::{self, Newest};
use crate::train::{Account, AnyRecipe, health, sampler, source};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use words::{day, shell};

/// The most of a sample that is shown, in bytes.
const MAX_SAMPLE: u64 = 3000;
/// Samples that are shown.
const SAMPLES: usize = 3;
/// Text of the built-in village by which its entropy is told, where a run read more.
const ENOUGH: u64 = 10_000_000;
/// Steps whose mean is the training loss.
const LAST: usize = 50;
/// Commands that are proposed.
const NEXT: usize = 3;

/// What was found out elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// What was planned.
    pub forecast: Option<Forecast>,
    /// What the doctor found, weights and data included.
    pub health: Option<health::Report>,
    /// What this machine can do at most, in GFLOP/s.
    pub peak: Option<f64>,
}

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// In words.
    pub value: String,
}

fn row(name: &str, value: impl ToString) -> Row {
    Row { name: name.to_owned(), value: value.to_string() }
}

/// How a model was trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Tokens, or pictures, in a step.
    pub per_step: u64,
    /// Tokens, or pictures, trained on, each as often as it was.
    pub seen: u64,
    /// Which of them.
    pub unit: &'static str,
    /// What losses are counted in.
    pub loss_unit: &'static str,
    /// What was read, in words.
    pub reads: String,
    /// `running`, `paused` or `done`.
    pub status: &'static str,
    /// The day of the last step.
    pub when: Option<String>,
    /// The mean loss of the last steps; `None` where it is not told.
    pub loss: Option<f64>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// The same in bits a byte.
    pub bits_per_byte: Option<f64>,
    /// The entropy of the source in bits a byte, where it is known.
    pub floor: Option<f64>,
    /// Tokens, or pictures, a second: the median of the last steps.
    pub rate: Option<f64>,
    /// Seconds of all steps, by the speed of each.
    pub stepping: Option<f64>,
    /// Steps that went wrong and were skipped.
    pub skipped: u64,
    /// How often the run went back to a checkpoint.
    pub rewinds: u64,
    /// More numbers of the last step that an evaluation followed.
    pub numbers: Vec<(String, f64)>,
}

impl Training {
    /// How far what is drawn lies from held-out pictures, where that is what was evaluated.
    pub fn distance(&self) -> Option<f64> {
        self.numbers.iter().find(|(name, _)| name == "val_frechet").map(|(_, value)| *value)
    }
}

/// Something that may be wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Risk {
    /// Whether it speaks against the model.
    pub bad: bool,
    /// In words.
    pub says: String,
    /// What to try.
    pub tip: Option<String>,
}

/// A figure of a model and of the one that it was tuned from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Of which task.
    pub task: String,
    /// Which.
    pub figure: String,
    /// What the task is about.
    pub topic: Topic,
    /// In words, before.
    pub before: String,
    /// And after.
    pub after: String,
}

/// What nobody has measured, and what does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    /// What.
    pub what: String,
    /// The command.
    pub command: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Next {
    /// The command.
    pub command: String,
    /// What for.
    pub why: &'static str,
}

/// What the model wrote while it was trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// After so many steps.
    pub step: u64,
    /// The beginning of it.
    pub text: String,
}

/// A sheet of pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sheet {
    /// What it shows.
    pub says: String,
    /// The file.
    #[serde(serialize_with = "as_shown")]
    pub file: PathBuf,
}

/// A path need not be UTF-8, and JSON is.
fn as_shown<S: serde::Serializer>(path: &Path, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// What is drawn over the steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The training loss.
    pub loss: Vec<Dot>,
    /// The validation loss.
    pub val: Vec<Dot>,
    /// The learning rate.
    pub lr: Vec<Dot>,
    /// The gradient's norm.
    pub gradient: Vec<Dot>,
    /// Tokens, or pictures, a second; none of a private run, of whose batches it tells.
    pub speed: Vec<Dot>,
    /// A loss that no model can go below.
    pub floor: Option<f64>,
}

/// All that is known of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What it is and how it came about, in a sentence.
    pub what: String,
    /// Elements of all parameters.
    pub parameters: Option<u64>,
    /// Those of them that are trained.
    pub trained: Option<u64>,
    /// Its parts.
    pub parts: Vec<Row>,
    /// Whether it is a language model.
    pub writes: bool,
    /// Tags as Hugging Face has them.
    pub tags: Vec<&'static str>,
    /// The model that it was tuned from.
    pub base: Option<String>,
    /// How it was trained; of a run.
    pub training: Option<Training>,
    /// What it can and cannot, as measured.
    pub claims: Vec<Claim>,
    /// What was asked of it, by what that is about.
    pub judged: Vec<Judged>,
    /// What the model that it was tuned from was asked too.
    pub changes: Vec<Change>,
    /// What studies found on the village; [`Studies`] adds them.
    pub studies: Vec<Study>,
    /// What nobody has measured.
    pub missing: Vec<Missing>,
    /// What it took.
    pub spent: Option<Spent>,
    /// What was planned beside what it was.
    pub planned: Vec<Planned>,
    /// How much of the machine its steps reached.
    pub roofline: Option<Roofline>,
    /// What is promised of the privacy of its data.
    pub privacy: Option<Privacy>,
    /// What may be wrong.
    pub risks: Vec<Risk>,
    /// What it was trained on.
    pub data: DataSheet,
    /// What it wrote while it was trained.
    pub samples: Vec<Written>,
    /// Sheets of pictures.
    pub sheets: Vec<Sheet>,
    /// All settings, as TOML.
    pub recipe: Option<String>,
    /// Commands that do it again.
    pub again: Vec<String>,
    /// What to do next.
    pub next: Vec<Next>,
    /// Files that are missing or damaged, and what was not looked at.
    pub absent: Vec<String>,
    /// What is drawn.
    #[serde(skip)]
    pub curves: Curves,
}

/// All that is known of the model at `path`: a run, or anything that kiln reads as a language model.
///
/// # Errors
/// There is no model; a run's recipe cannot be read. What else is missing or damaged is told of in the result.
pub fn gather(path: &Path, extra: &Extra) -> Result<Facts> {
    if path.join("recipe.toml").is_file() { of_run(path, extra) } else { of_model(path) }
}

fn of_model(path: &Path) -> Result<Facts> {
    let (model, damaged) = sampler::model(path)?;
    let made = model::of_config(&model.config);
    let mut facts = Facts::of(path, &made);
    facts.tags = vec!["text-generation"];
    facts.absent.extend(damaged.iter().map(ToString::to_string));
    facts.what = model::sentence(&made, None);
    facts.risks = risk::all(None, None, None);
    facts.judge(path, false, None)?;
    facts.propose(path, None, None);
    // Only a run's answers are kept without a word.
    let keep = format!(" --save {}", shell(&path.join(saved::FOLDER)));
    let commands = facts.missing.iter_mut().map(|missing| &mut missing.command);
    let commands = commands.chain(facts.next.iter_mut().map(|next| &mut next.command));
    commands.filter(|command| command.starts_with("kiln eval")).for_each(|command| command.push_str(&keep));
    Ok(facts)
}

fn of_run(path: &Path, extra: &Extra) -> Result<Facts> {
    let recipe = AnyRecipe::of_run(path, &[])?;
    let mut absent = Vec::new();
    let mut run = Run::open(path)?;
    // What was read before a damaged line stands.
    if let Err(e) = run.look() {
        absent.push(e.to_string());
    }
    if run.points.is_empty() {
        absent.push("metrics.jsonl: no step is there".to_owned());
    }
    let Newest { found: newest, damaged } = checkpoint::newest(&Os, &path.join("checkpoints"))?;
    absent.extend(damaged.iter().map(ToString::to_string));
    if newest.is_none() {
        absent.push("checkpoints: none that verifies, so there is no model to ask".to_owned());
    }
    let account = Account::read(path).map_err(|e| absent.push(e.to_string())).ok();
    let data = data::sheet(path, &recipe, &mut absent);
    let made = model::of_run(&recipe, data.vocab, account.as_ref());
    let state = newest.as_ref().map(|(_, state)| state);
    let mut training = training(&run, &recipe);
    training.step = training.step.max(state.map_or(0, |state| state.step));
    training.seen = state.filter(|state| state.step == training.step).map_or(training.seen, |state| state.tokens);
    training.rewinds = state.map_or(0, |state| state.guard.rewinds.len() as u64);
    let written = newest.iter().map(|(dir, _)| dir.join(checkpoint::STATE)).chain([path.join("metrics.jsonl")]);
    training.when = written.filter_map(|file| file.metadata().ok()?.modified().ok()).map(day).next();
    let glance = match &extra.health {
        Some(health) => Some(health.clone()),
        None => health::glance(path).map_err(|e| absent.push(e.to_string())).ok(),
    };
    absent.extend(glance.iter().flat_map(|report| report.left_out.clone()).filter(|what| !what.contains("checkpoint")));

    let mut facts = Facts::of(path, &made);
    facts.what = model::sentence(&made, Some(&training));
    facts.tags = model::tags(&recipe);
    if let AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) = &recipe {
        facts.base = recipe.model.base.as_deref().map(|base| base.display().to_string());
    }
    facts.claims.extend(judged::held_out(&training));
    facts.privacy = risk::privacy(path, &mut absent);
    facts.risks = risk::all(facts.privacy.as_ref(), glance.as_ref(), Some(&training));
    let device = state.map(|state| state.device.clone()).or(account.as_ref().map(|a| a.planned.device.clone()));
    facts.spent = Some(spent::of(account.as_ref(), &training, &device.unwrap_or_default(), extra));
    if let Some(account) = &account {
        facts.planned = spent::planned(account, extra);
        facts.roofline = spent::roofline(account, &training, extra.peak);
    }
    facts.data = data;
    facts.samples = samples(path);
    facts.sheets = sheets(path, training.step);
    facts.curves = Curves {
        loss: run.series(Series::Loss),
        val: run.series(Series::Validation),
        lr: run.series(Series::LearningRate),
        gradient: run.series(Series::Gradient),
        speed: if facts.privacy.is_none() { run.series(Series::Speed) } else { Vec::new() },
        floor: training
            .floor
            .zip(training.bits_per_byte.zip(training.val_loss))
            .map(|(floor, (bits, loss))| floor * loss / bits),
    };
    facts.recipe = Some(recipe.to_toml());
    facts.again = vec![format!("kiln train {}", shell(&path.join("recipe.toml")))];
    for what in absent {
        // Two may have stumbled over the same file.
        if !facts.absent.contains(&what) {
            facts.absent.push(what);
        }
    }
    let step = state.map(|state| state.step);
    facts.judge(path, model::of_village(&recipe), step)?;
    if let AnyRecipe::Tune(recipe) | AnyRecipe::Prefer(recipe) | AnyRecipe::Reinforce(recipe) = &recipe
        && let Some(base) = &recipe.model.base
    {
        facts.changes = judged::changes(base, &facts.judged);
    }
    if extra.health.is_none() {
        let what = "its weights, what it computes, its gradients and its data, by the doctor's rules".to_owned();
        facts.missing.push(Missing { what, command: format!("kiln doctor {}", shell(path)) });
    }
    if facts.roofline.is_some_and(|roofline| roofline.peak.is_none()) {
        let what = "the share of this machine's peak that its steps reached".to_owned();
        facts.missing.push(Missing { what, command: format!("kiln report {} --eval", shell(path)) });
    }
    facts.propose(path, Some(&training), glance.as_ref());
    facts.training = Some(training);
    Ok(facts)
}

impl Facts {
    fn of(path: &Path, made: &model::Made) -> Facts {
        Facts {
            name: model::name(path),
            path: path.display().to_string(),
            what: String::new(),
            parameters: made.parameters,
            trained: made.trained,
            parts: made.parts.clone(),
            writes: made.writes,
            tags: Vec::new(),
            base: None,
            training: None,
            claims: Vec::new(),
            judged: Vec::new(),
            changes: Vec::new(),
            studies: Vec::new(),
            missing: Vec::new(),
            spent: None,
            planned: Vec::new(),
            roofline: None,
            privacy: None,
            risks: Vec::new(),
            data: DataSheet::default(),
            samples: Vec::new(),
            sheets: Vec::new(),
            recipe: None,
            again: Vec::new(),
            next: Vec::new(),
            absent: Vec::new(),
            curves: Curves::default(),
        }
    }

    /// Finds what was asked of the model, and what was not.
    fn judge(&mut self, path: &Path, village: bool, step: Option<u64>) -> Result<()> {
        let (found, wrong) = saved::load(&path.join(saved::FOLDER))?;
        self.absent.extend(wrong.iter().map(ToString::to_string));
        self.judged = found.into_iter().map(|saved| judged::judge(saved, step)).collect();
        self.judged.sort_by_key(|judged| judged.saved.topic);
        self.claims.extend(self.judged.iter().map(|judged| judged.claim.clone()));
        if self.writes {
            self.missing.extend(judged::missing(&self.judged, village, &shell(path))?);
        } else {
            let what = "pictures beside held-out ones: distances, classes, copies".to_owned();
            let unknown = !self.judged.iter().any(|judged| judged.saved.topic == Topic::Quality);
            self.missing.extend(unknown.then(|| Missing { what, command: format!("kiln eval {}", shell(path)) }));
        }
        Ok(())
    }

    /// Says what to do next.
    fn propose(&mut self, path: &Path, training: Option<&Training>, health: Option<&health::Report>) {
        let run = shell(path);
        let mut say = |command: String, why| self.next.push(Next { command, why });
        match training.map(|training| training.status) {
            Some("running") => say(format!("kiln report --live {run}"), "watch it"),
            Some("paused") => say(format!("kiln train --resume {run}"), "let it do the steps that are left"),
            _ => {}
        }
        let knob = health
            .iter()
            .flat_map(|report| &report.findings)
            .map(|found| &found.knob)
            .find(|knob| !knob.value.starts_with('<'));
        if let Some(knob) = knob {
            let set = format!("{}={}", knob.key, knob.value.trim_matches('"'));
            say(format!("kiln train {} --set {set}", shell(&path.join("recipe.toml"))), "mend what the doctor found");
        }
        if self.missing.iter().any(|missing| {
            missing.command.starts_with("kiln eval")
                && !missing.command.ends_with("FILE")
                && !missing.command.ends_with("TASK.toml")
        }) {
            let command = match (self.writes, training) {
                (false, _) => format!("kiln eval {run}"),
                (true, Some(_)) => format!("kiln report {run} --eval"),
                (true, None) => format!("kiln eval {run} --tasks text --data FILE"),
            };
            say(command, "measure what nobody has");
        }
        if self.writes {
            say(format!("kiln chat {run}"), "try it");
            say(
                format!("kiln convert {run} --out {}", shell(Path::new(&format!("{}-hf", self.name)))),
                "give it to other programs",
            );
        } else {
            say(format!("kiln sample {run}"), "see what it draws");
        }
        self.next.truncate(NEXT);
    }
}

/// How it was trained, by its recipe and its metrics.
fn training(run: &Run, recipe: &AnyRecipe) -> Training {
    let [unit, loss_unit] = recipe.units();
    let losses = run.series(Series::Loss);
    let last = &losses[losses.len().saturating_sub(LAST)..];
    let rates: Vec<f64> = run.points.iter().filter_map(|point| point.rate.filter(|rate| *rate > 0.0)).collect();
    let stepping = rates.iter().map(|rate| run.per_step as f64 / rate).sum::<f64>();
    let floor = match recipe {
        AnyRecipe::Text(recipe) => {
            let mut some = recipe.clone();
            some.data.bytes = some.data.bytes.min(ENOUGH);
            source::floor(&some)
        }
        _ => None,
    };
    let last_step = run.evaluated.as_ref().or(run.last.as_ref());
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    Training {
        step: run.step(),
        steps: run.steps.max(run.step()),
        per_step: run.per_step,
        seen: run.step() * run.per_step,
        unit,
        loss_unit,
        reads: model::reads(recipe),
        status: match run.status {
            Status::Paused if run.steps == 0 => Status::Done.name(),
            status => status.name(),
        },
        when: None,
        loss: (!last.is_empty()).then(|| last.iter().map(|dot| dot.1).sum::<f64>() / last.len() as f64),
        val_loss: finite(run.val_loss()),
        bits_per_byte: finite(run.bits_per_byte),
        floor,
        rate: run.rate(),
        stepping: (!rates.is_empty()).then_some(stepping),
        skipped: run.skipped,
        rewinds: 0,
        numbers: last_step
            .iter()
            .flat_map(|record| &record.more)
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| (name.clone(), *value))
            .collect(),
    }
}

/// Some of what the model wrote, the first and the last among them.
fn samples(run: &Path) -> Vec<Written> {
    let entries = std::fs::read_dir(run.join("samples")).into_iter().flatten();
    let mut all: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let step = path.file_stem()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
            (path.extension()? == "txt").then_some((step, path))
        })
        .collect();
    all.sort();
    let n = all.len();
    let chosen =
        (0..SAMPLES.min(n)).map(|i| if SAMPLES.min(n) < 2 { n - 1 } else { i * (n - 1) / (SAMPLES.min(n) - 1) });
    let read = |i: usize| {
        let (step, path) = &all[i];
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(MAX_SAMPLE).read_to_end(&mut bytes).ok()?;
        Some(Written { step: *step, text: String::from_utf8_lossy(&bytes).trim().to_owned() })
    };
    chosen.filter_map(read).collect()
}

/// The sheets of a run of pictures, as they were named when it did its last step.
fn sheets(run: &Path, step: u64) -> Vec<Sheet> {
    let all = [
        (format!("samples/step-{step:06}.png"), "After the last step"),
        (
            format!("samples/reconstructions-{step:06}.png"),
            "Held-out pictures, and below each what the model makes of it",
        ),
        (
            "samples/traversal.png".to_owned(),
            "A latent variable in each row, from −3 to 3, the others as of one picture",
        ),
        ("samples/interpolation.png".to_owned(), "From one held-out picture to another"),
        ("samples/training.png".to_owned(), "The same numbers, or pictures, after each so many steps"),
    ];
    let there = all.into_iter().map(|(file, says)| Sheet { says: says.to_owned(), file: run.join(file) });
    there.filter(|sheet| sheet.file.is_file()).collect()
}
