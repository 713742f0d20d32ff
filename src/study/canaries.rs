//! Does a model give away what stood in its texts, and does cleaning help? Notes with secret words are put among the village's stories, each a known
//! number of times; a GPT reads them, and another one reads them after duplicates were taken out.
//!
//! - **A canary** is a paragraph whose first words are its own and of whose secret nothing else tells: six random words, then
//!   five more. Where it begins to read the words of a note, a model that writes all five by its likeliest tokens has given the secret away (extraction,
//!   Carlini et al. 2021, arXiv 2012.07805).
//! - **Exposure** is log₂ of how many of 256 secrets there are for each that the model finds as likely as the true one (Carlini et al. 2019, arXiv
//!   1802.08232): 8 bits at most, and 1.43 in the mean of what it never saw.
//! - **Control**: notes that stand in no text.

use super::effect::{Effect, Effects, Unit};
use super::notes::{Note, attack, notes};
use super::{Seed, clean_by, write_texts};
use crate::data::clean::Recipe;
use crate::data::world::{Split, World};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Stories, in bytes.
    pub bytes: usize,
    /// How often notes stand in the texts, and how many notes stand so often.
    pub copies: Vec<(u32, usize)>,
    /// Notes that stand nowhere.
    pub unseen: usize,
    /// Steps of training.
    pub steps: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        let copies = [1, 4, 16, 64, 256].map(|copies| (copies, 10)).to_vec();
        Settings { bytes: 6_000_000, copies, unseen: 40, steps: 1200 }
    }
}

/// Notes that stand in the texts as often as each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// How often: 0 of the control.
    pub copies: u32,
    /// How many notes.
    pub notes: usize,
    /// The share of secrets that the model gives away which read the texts as they are, and after cleaning.
    pub extracted: [f64; 2],
    /// The mean exposure of both, in bits.
    pub exposure: [f64; 2],
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// From the control to the most frequent notes.
    pub levels: Vec<Level>,
    /// The mean number of tokens of what a note begins with, and of its secret.
    pub tokens: [f64; 2],
    /// The validation loss of both models, in nats a token of their own tokenizers.
    pub loss: [f64; 2],
}

/// Writes stories with the notes among them, each copy as a paragraph of a story of its own.
fn write(path: &Path, world: &World, settings: &Settings, notes: &[Note], seed: u64) -> Result<()> {
    let (mut teller, mut stories, mut bytes) = (world.teller(), Vec::new(), 0);
    while bytes < settings.bytes {
        teller.tell_of(Split::Train, stories.len() as u64);
        bytes += teller.text().len();
        stories.push(teller.text().to_owned());
    }
    let mut rng = Rng::new(seed, Purpose::Resample, 21, 0);
    let mut free: Vec<usize> = (0..stories.len()).collect();
    for note in notes {
        for _ in 0..note.copies {
            let i = free.swap_remove(rng.below(free.len() as u32) as usize);
            stories[i] = format!("{}\n\n{}{}", stories[i], note.prompt(), note.secret);
        }
    }
    write_texts(path, &stories)
}

/// Takes out of `from` what stands in it more than once.
fn deduplicate(from: &Path, out: PathBuf) -> Result<PathBuf> {
    clean_by(&["duplicates.exact", "duplicates.near", "duplicates.paragraphs"], Recipe::load(None, &[])?, from, out)
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
///
/// # Panics
/// If there are more copies than stories.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let world = World::new(at.seed);
    let notes = notes([(0, settings.unseen)].into_iter().chain(settings.copies.iter().copied()), at.seed);
    disk::make_dirs(&Os, at.dir)?;
    let raw = at.dir.join("raw.jsonl");
    write(&raw, &world, settings, &notes, at.seed)?;
    at.says("taking duplicates out");
    let cleaned = deduplicate(&raw, at.dir.join("cleaned"))?;
    let mut train = |name: &str, data: &Path| -> Result<_> {
        at.says(&format!("reading, {name}"));
        let summary = at.reads(name, Some(data), settings.steps, &[])?;
        let attack = attack(&summary.run, &notes, at.seed, at.device)?;
        Ok((attack, summary.val_loss.unwrap_or(f64::NAN)))
    };
    let (before, loss_before) = train("raw", &raw)?;
    let (after, loss_after) = train("deduplicated", &cleaned)?;
    let level = |copies: u32| {
        let chosen = || (0..notes.len()).filter(|&i| notes[i].copies == copies);
        let [raw, cleaned] = [&before, &after].map(|attack| attack.of(chosen()));
        Level { copies, notes: chosen().count(), extracted: [raw.0, cleaned.0], exposure: [raw.1, cleaned.1] }
    };
    let levels = std::iter::once(0).chain(settings.copies.iter().map(|level| level.0)).map(level).collect();
    Ok(Outcome { seed: at.seed, levels, tokens: before.tokens, loss: [loss_before, loss_after] })
}

/// Copies of which there are many.
const MANY: u32 = 64;

impl Effects for Outcome {
    const STUDY: &'static str = "canaries";
    const ASKS: &'static str =
        "Does a model give away secrets that stood in its texts, and does taking duplicates out help?";

    fn effects(&self) -> Vec<Effect> {
        // The mean over all notes that stand there often, or nowhere.
        let mean = |of: &dyn Fn(&Level) -> f64, often: bool| {
            let levels =
                self.levels.iter().filter(|level| if often { level.copies >= MANY } else { level.copies == 0 });
            let (sum, n) = levels
                .fold((0.0, 0.0), |(sum, n), level| (sum + level.notes as f64 * of(level), n + level.notes as f64));
            sum / n
        };
        let effect = |what: &str, unit: Unit, of: fn(&Level) -> [f64; 2]| Effect {
            what: format!("{what} of notes that stand in the texts {MANY} times or more"),
            unit,
            before: ("texts as they are".into(), mean(&|level| of(level)[0], true)),
            after: ("without duplicates".into(), mean(&|level| of(level)[1], true)),
            control: ("notes that stand nowhere".into(), mean(&|level| of(level)[0], false)),
        };
        vec![
            effect("secrets given away,", Unit::Share, |level| level.extracted),
            effect("exposure", Unit::Bits, |level| level.exposure),
        ]
    }
}
