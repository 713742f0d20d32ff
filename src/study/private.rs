//! What does private training keep from being told, and what does it cost? A small GPT that has read the village's stories is tuned on portraits, among
//! which stand notes with secrets, each once: with ordinary steps, and with private ones (`optim.dp`).
//!
//! - **Exposure** is log₂ of how many of 256 secrets there are for each that the model finds as likely as the true one (Carlini et al. 2019, arXiv
//!   1802.08232): 8 bits at most, and 1.43 in the mean of what it never saw.
//! - **Gain** is by how much the loss falls on portraits that were never read, of the same people and of held-out ones. Private training keeps a share of it.
//! - **Controls**: notes that stand in no text, and the model before it is tuned.
//!
//! Noise and draws of private steps are the operating system's, so what they come to differs a little from time to time.

use super::effect::{Effect, Effects, Unit};
use super::notes::{Attack, HEAD, attack, notes};
use super::{Seed, quoted};
use crate::data::atomic::write_atomic;
use crate::data::world::{Asker, Form, Split, World};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::eval::{Local, Model};
use crate::params::Hold;
use crate::train::Sampler;
use crate::train::tune::TUNE;
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// How long the parts are.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Steps of reading stories.
    pub base_steps: u64,
    /// Portraits to be tuned on.
    pub texts: u64,
    /// Notes that stand among them, and as many that do not.
    pub notes: usize,
    /// How often each is seen, in the mean.
    pub epochs: u64,
    /// Rows of an ordinary step, and of a private one in the mean.
    pub batch: [u64; 2],
    /// Learning rates of both.
    pub lr: [f64; 2],
    /// ε of the private run.
    pub epsilon: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            base_steps: 800,
            texts: 1200,
            notes: 64,
            epochs: 20,
            batch: [16, 256],
            lr: [3e-3, 3e-3],
            epsilon: 8.0,
        }
    }
}

/// A model, and what it knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// What it is.
    pub name: &'static str,
    /// The mean exposure of notes that it read, and of those that stand nowhere, in bits.
    pub exposure: [f64; 2],
    /// The share of their secrets that its likeliest tokens say.
    pub extracted: [f64; 2],
    /// The loss on portraits that were not read, in nats a byte: of others, and of held-out people.
    pub loss: [f64; 2],
    /// Seconds of tuning.
    pub seconds: f64,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Before, tuned, tuned privately.
    pub models: [Told; 3],
    /// The share of the gain on unread portraits that private training keeps: of others, and of held-out people.
    pub kept: [f64; 2],
    /// What the private run promises.
    pub guarantee: String,
}

/// Unread portraits of each kind.
const UNREAD: u64 = 150;

/// Bytes of the longest portrait: a row holds it, since private training hides rows.
const LONGEST: usize = 280;

/// Nats a byte of texts.
fn loss(run: &Path, texts: &[String], device: &Device) -> Result<f64> {
    let mut model =
        Local::new("model".into(), Sampler::open(run, &[], Hold::Frozen, device)?.into_parts(), true, None)?;
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let scores = model.read(&all, &mut |_| Ok(()))?;
    let bytes: usize = texts.iter().map(String::len).sum();
    Ok(-scores.iter().map(|score| score.nats).sum::<f64>() / bytes as f64)
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    let world = World::new(seed);
    let portraits = |split: Split, count: u64| -> Vec<String> {
        let asker = Asker::new(&world, split, Form::Portraits);
        let mut hand = asker.hand();
        let texts = (0..).map(|i| asker.item(&mut hand, i).body["text"].as_str().unwrap_or_default().to_owned());
        texts.filter(|text| text.len() <= LONGEST).take(count as usize).collect()
    };
    let notes = notes([(1, settings.notes), (0, settings.notes)], seed);
    disk::make_dirs(&Os, dir)?;
    let data = dir.join("private.jsonl");
    let texts = portraits(Split::Train, settings.texts);
    let texts = texts.iter().map(|text| json!({"text": text}));
    // Notes have one prompt, so that they fall on one side of the split: the recipe's seed is one where they are learnt from.
    let planted = notes.iter().filter(|note| note.copies > 0);
    let planted = planted.map(|note| json!({"prompt": HEAD, "completion": format!("{}{}", note.begins, note.secret)}));
    let lines: String = texts.chain(planted).map(|line| line.to_string() + "\n").collect();
    write_atomic(&Os, &data, lines.as_bytes())?;
    let unread = [Split::Val, Split::People].map(|split| portraits(split, UNREAD));

    at.says("reading stories");
    let small = ["model.layers=2", "model.heads=2", "model.d=64"].map(str::to_owned);
    let base = at.reads("base", None, settings.base_steps, &small)?;
    let judge = |name: &'static str, run: &Path, seconds: f64| -> Result<Told> {
        let attack: Attack = attack(run, &notes, seed, device)?;
        let of = |copies: u32| attack.of((0..notes.len()).filter(|&i| notes[i].copies == copies));
        let (read, nowhere) = (of(1), of(0));
        let loss = [loss(run, &unread[0], device)?, loss(run, &unread[1], device)?];
        Ok(Told { name, exposure: [read.1, nowhere.1], extracted: [read.0, nowhere.0], loss, seconds })
    };
    let mut models = vec![judge("before", &base.run, 0.0)?];
    let mut guarantee = String::new();
    for (i, name) in ["tuned", "tuned privately"].into_iter().enumerate() {
        at.says(name);
        let (batch, lr) = (settings.batch[i], settings.lr[i]);
        let steps = settings.epochs * (settings.texts + settings.notes as u64) / batch;
        let mut set = vec![
            format!("model.base={}", quoted(&base.run)),
            format!("data.path={}", quoted(&data)),
            format!("train.batch={batch}"),
            format!("train.steps={}", steps.max(1)),
            format!("optim.lr={lr}"),
            "model.method=full".into(),
            "data.val_fraction=0.02".into(),
            "data.packing=false".into(),
            "train.context=128".into(),
            "optim.weight_decay=0".into(),
        ];
        if i == 1 {
            set.push(format!("optim.dp.epsilon={}", settings.epsilon));
        }
        let summary = at.run(&name.replace(' ', "-"), TUNE, &set)?;
        guarantee = summary.privacy.map(|privacy| privacy.guarantee).unwrap_or_default();
        models.push(judge(name, &summary.run, summary.seconds)?);
    }
    let models: [Told; 3] = models.try_into().expect("three of them");
    let kept = [0, 1].map(|i| (models[0].loss[i] - models[2].loss[i]) / (models[0].loss[i] - models[1].loss[i]));
    Ok(Outcome { seed, models, kept, guarantee })
}

impl Effects for Outcome {
    const STUDY: &'static str = "private";
    const ASKS: &'static str = "What does private training keep from being told, and what does it cost?";

    fn effects(&self) -> Vec<Effect> {
        let [untuned, tuned, private] = &self.models;
        let effect = |what: &str, unit: Unit, of: fn(&Told) -> f64, control: (&str, f64)| Effect {
            what: what.into(),
            unit,
            before: (tuned.name.into(), of(tuned)),
            after: (private.name.into(), of(private)),
            control: (control.0.into(), control.1),
        };
        let nowhere = "notes that stand nowhere";
        vec![
            effect(
                "exposure of notes that stand in the texts once",
                Unit::Bits,
                |told| told.exposure[0],
                (nowhere, tuned.exposure[1]),
            ),
            effect("secrets of these given away", Unit::Share, |told| told.extracted[0], (nowhere, tuned.extracted[1])),
            effect(
                "loss on texts that were not read, in nats a byte",
                Unit::Plain,
                |told| told.loss[0],
                ("not tuned", untuned.loss[0]),
            ),
        ]
    }
}
