//! Does a model say what it did not read? A GPT reads stories of which one in six has rude sentences; another one reads them after `kiln data clean` has
//! taken out what has words of a lexicon that knows half of the rude words; both tell stories on.
//!
//! - **Counted** are stories told on in which a rude word stands that the lexicon does not know: those that it knows tell little about what cleaning is
//!   worth where no list is whole.
//! - **Controls**: as many texts taken out by chance; the lexicon's own words, as a check that cleaning did what it says.
//! - **Start range**: how often the model does it that read everything.

use super::effect::{Effect, Effects, Unit};
use super::{Seed, clean_by, write_texts};
use crate::data::Sources;
use crate::data::atomic::write_atomic;
use crate::data::clean::{Mode, Recipe};
use crate::data::world::{Flawed, Flaws, Planter, Split, World, rude_lexicon, rude_words};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::eval::{Local, Model, Writing};
use crate::params::Hold;
use crate::rng::{Purpose, Rng};
use crate::train::Sampler;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is read, and what is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Stories, in bytes.
    pub bytes: usize,
    /// Steps of training.
    pub steps: u64,
    /// Stories that are told on.
    pub stories: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bytes: 5_000_000, steps: 800, stories: 600, tokens: 120 }
    }
}

/// Plain stories for each rude one.
const PLAIN: u32 = 5;

/// A model, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// What it read.
    pub read: &'static str,
    /// How many texts.
    pub texts: u64,
    /// The share of them with rude words that the lexicon does not know, and with words that it knows.
    pub rude_texts: [f64; 2],
    /// The share of its stories with the one, and the other.
    pub rude: [f64; 2],
    /// The validation loss on its own kind of text, in nats a token.
    pub loss: f64,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// All texts; after cleaning; less as many by chance.
    pub models: [Told; 3],
}

/// The words that the lexicon knows, as lines of it: half of all, by chance.
fn listed(seed: u64) -> Vec<String> {
    let all = rude_lexicon();
    let mut words: Vec<&str> = all.lines().collect();
    let mut rng = Rng::new(seed, Purpose::Resample, 30, 0);
    let half = words.len() / 2;
    (0..half).map(|_| words.swap_remove(rng.below(words.len() as u32) as usize).to_owned()).collect()
}

/// Whether a text has rude words that are not `listed`, and whether it has some that are.
fn rude(text: &str, listed: &[String]) -> [bool; 2] {
    let mut found = [false; 2];
    for (word, _) in rude_words(text) {
        let known = listed.iter().any(|line| line.split('\t').next().is_some_and(|own| own.eq_ignore_ascii_case(word)));
        found[usize::from(known)] = true;
    }
    found
}

/// Texts of which one in `PLAIN + 1` has rude sentences.
fn texts(world: &World, bytes: usize) -> Vec<String> {
    let planter = Planter::new(world, Split::Train, Flaws::from_iter([Flawed::Rude]), 0.0, bytes as u64);
    let mut hand = planter.hand();
    let (mut texts, mut size, mut plain) = (Vec::new(), 0, 0);
    for n in 0.. {
        if size >= bytes {
            break;
        }
        let document = planter.document(&mut hand, n);
        match document.truth.flaws.is_empty() {
            true if plain == 0 => continue,
            true => plain -= 1,
            false => plain += PLAIN,
        }
        size += document.text.len();
        texts.push(document.text);
    }
    texts
}

/// Takes what has words of the lexicon out of `from`.
fn cleaned(from: &Path, lexicon: &Path, out: PathBuf) -> Result<PathBuf> {
    let mut recipe = Recipe::load(None, &[])?;
    recipe.lexicons.files = vec![lexicon.to_owned()];
    recipe.lexicons.mode = Mode::Drop;
    recipe.lexicons.max_score = 0.0;
    clean_by(&["lexicon"], recipe, from, out)
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    let world = World::new(seed);
    let listed = listed(seed);
    disk::make_dirs(&Os, dir)?;
    let (raw, lexicon, fewer) = (dir.join("raw.jsonl"), dir.join("lexicon.tsv"), dir.join("fewer.jsonl"));
    let all = texts(&world, settings.bytes);
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    write_texts(&raw, &all)?;
    write_atomic(&Os, &lexicon, (listed.join("\n") + "\n").as_bytes())?;
    at.says("cleaning");
    let clean = cleaned(&raw, &lexicon, dir.join("cleaned"))?;
    let read = |path: &Path| -> Result<Vec<String>> {
        Sources::open(&[path], "text")?.documents().map(|document| document.map(|d| d.text)).collect()
    };
    let left = read(&clean)?;
    let mut rng = Rng::new(seed, Purpose::Resample, 31, 0);
    while all.len() > left.len() {
        all.remove(rng.below(all.len() as u32) as usize);
    }
    write_texts(&fewer, &all)?;

    // The first sentences of stories that nobody read.
    let mut teller = world.teller();
    let begins: Vec<String> = (0..settings.stories as u64)
        .map(|n| {
            teller.tell_of(Split::Val, n);
            let text = teller.text();
            text[..text.find(". ").map_or(text.len(), |at| at + 1)].to_owned()
        })
        .collect();
    let begins: Vec<&str> = begins.iter().map(String::as_str).collect();
    let share = |texts: &[String]| {
        let found = texts.iter().map(|text| rude(text, &listed));
        let sum = found.fold([0.0; 2], |sum, found| [0, 1].map(|i| sum[i] + f64::from(u8::from(found[i]))));
        sum.map(|sum| sum / texts.len().max(1) as f64)
    };
    let mut model = |name: &'static str, folder: &str, data: &Path| -> Result<Told> {
        at.says(&format!("reading {name}"));
        let small = ["model.layers=2", "model.d=96"].map(str::to_owned);
        let summary = at.reads(folder, Some(data), settings.steps, &small)?;
        let parts = Sampler::open(&summary.run, &[], Hold::Frozen, device)?.into_parts();
        let writing = Writing { stop: &[], tokens: settings.tokens, temperature: 1.0, seed };
        let said = Local::new("model".into(), parts, true, None)?.write(&begins, &writing, &mut |_| Ok(()))?;
        let texts = read(data)?;
        let loss = summary.val_loss.unwrap_or(f64::NAN);
        Ok(Told { read: name, texts: texts.len() as u64, rude_texts: share(&texts), rude: share(&said), loss })
    };
    let models = [
        model("all", "raw", &raw)?,
        model("cleaned", "cleaned-run", &clean)?,
        model("fewer, by chance", "fewer-run", &fewer)?,
    ];
    Ok(Outcome { seed, models })
}

impl Effects for Outcome {
    const STUDY: &'static str = "rude";
    const ASKS: &'static str = "Does a model say rude words after texts were cleaned by half a list of them?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, unit: Unit, of: fn(&Told) -> f64| {
            let [before, after, control] = self.models.each_ref().map(|told| (told.read.to_owned(), of(told)));
            Effect { what: what.into(), unit, before, after, control }
        };
        vec![
            effect("stories with rude words that the lexicon does not know", Unit::Share, |told| told.rude[0]),
            effect("loss on texts of its own kind, in nats a token", Unit::Plain, |told| told.loss),
        ]
    }
}
