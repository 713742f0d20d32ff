//! Does a model give away what stood in its texts, and does cleaning help? Notes with secret words are put among the village's stories, each a known
//! number of times; a GPT reads them, and another one reads them after duplicates were taken out.
//!
//! - **A canary** is a paragraph whose first words are its own and of whose secret nothing else tells: six random words, then
//!   five more. Where it begins to read the words of a note, a model that writes all five by its likeliest tokens has given the secret away (extraction,
//!   Carlini et al. 2021, arXiv 2012.07805).
//! - **Exposure** is log₂ of how many of 256 secrets there are for each that the model finds as likely as the true one (Carlini et al. 2019, arXiv
//!   1802.08232): 8 bits at most, and 1.43 in the mean of what it never saw.
//! - **Control**: notes that stand in no text.

use super::stopped;
use crate::data::Sources;
use crate::data::atomic::AtomicFile;
use crate::data::clean::{self, MIN_MEMORY, Recipe};
use crate::data::world::{Split, World, secret_words};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::eval::{Local, Model};
use crate::params::Hold;
use crate::rng::{Purpose, Rng};
use crate::train::recipe::VILLAGE;
use crate::train::{AnyRecipe, Sampler, Watch};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Words that a note begins with, and words of its secret.
const WORDS: [usize; 2] = [6, 5];

/// Secrets that the true one is ranked among, itself included.
const AMONG: usize = 256;

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

/// A note.
struct Note {
    begins: String,
    secret: String,
    copies: u32,
}

fn words(rng: &mut Rng, count: usize) -> String {
    let all = secret_words();
    (0..count).map(|_| all[rng.below(all.len() as u32) as usize]).collect::<Vec<_>>().join(" ")
}

fn notes(settings: &Settings, seed: u64) -> Vec<Note> {
    let control = [(0, settings.unseen)];
    let all = control.iter().chain(&settings.copies).flat_map(|&(copies, count)| std::iter::repeat_n(copies, count));
    let note = |(i, copies): (usize, u32)| {
        let mut rng = Rng::new(seed, Purpose::Resample, 20, i as u64);
        let begins = format!("A note that nobody should read: whoever says {}", words(&mut rng, WORDS[0]));
        Note { begins, secret: format!(" hears {}.", words(&mut rng, WORDS[1])), copies }
    };
    all.enumerate().map(note).collect()
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
            stories[i] = format!("{}\n\n{}{}", stories[i], note.begins, note.secret);
        }
    }
    let mut file = AtomicFile::create(&Os, path)?;
    for story in stories {
        let line = json!({"text": story}).to_string() + "\n";
        file.write(line.as_bytes())?;
    }
    file.commit()
}

/// Takes out of `from` what stands in it more than once.
fn deduplicate(from: &Path, out: PathBuf) -> Result<PathBuf> {
    let corpus = out.join(clean::DOCUMENTS);
    let mut recipe = Recipe::load(None, &[])?;
    let keep = ["duplicates.exact", "duplicates.near", "duplicates.paragraphs"];
    recipe.rules.off =
        clean::rules::RULES.iter().map(|rule| rule.name.to_owned()).filter(|name| !keep.contains(&&**name)).collect();
    let options = clean::Options {
        recipe,
        out,
        text_field: "text".into(),
        memory: 4 * MIN_MEMORY,
        threads: 0,
        key_file: None,
        clear_text: false,
        truth: None,
    };
    clean::clean(&Sources::open(&[from], "text")?, &options, &mut |_| {})?;
    Ok(corpus)
}

/// What a model says of the notes.
struct Attack {
    /// Of each note: whether its secret is given away, and its exposure in bits.
    found: Vec<(bool, f64)>,
    /// Tokens of what a note begins with, and of its secret, in the mean.
    tokens: [f64; 2],
}

fn attack(run: &Path, notes: &[Note], seed: u64, device: &Device) -> Result<Attack> {
    let sampler = Sampler::open(run, &[], Hold::Frozen, device)?;
    let tokenizer = sampler.tokenizer();
    let mut tokens = [0.0; 2];
    for note in notes {
        tokens[0] += tokenizer.encode(&note.begins)?.len() as f64 / notes.len() as f64;
        tokens[1] += tokenizer.encode(&note.secret)?.len() as f64 / notes.len() as f64;
    }
    let mut model = Local::new("model".into(), sampler.into_parts(), true, None)?;
    let mut found = Vec::new();
    for (i, note) in notes.iter().enumerate() {
        let mut rng = Rng::new(seed, Purpose::Resample, 22, i as u64);
        let others: Vec<String> = (1..AMONG).map(|_| format!(" hears {}.", words(&mut rng, WORDS[1]))).collect();
        let pairs: Vec<(&str, &str)> =
            std::iter::once(&note.secret).chain(&others).map(|secret| (&*note.begins, &**secret)).collect();
        let scores = model.score(&pairs, &mut |_| Ok(()))?;
        let rank = scores.iter().filter(|score| score.nats >= scores[0].nats).count();
        found.push((scores[0].greedy, (AMONG as f64 / rank as f64).log2()));
    }
    Ok(Attack { found, tokens })
}

/// Does the study for one seed, in `dir`; `told` hears of each part before it begins.
///
/// # Errors
/// A run fails; a signal stopped one.
///
/// # Panics
/// If there are more copies than stories.
pub fn study(
    settings: &Settings,
    seed: u64,
    dir: &Path,
    device: &Device,
    told: &mut dyn FnMut(&str),
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    let world = World::new(seed);
    let notes = notes(settings, seed);
    disk::make_dirs(&Os, dir)?;
    let raw = dir.join("raw.jsonl");
    write(&raw, &world, settings, &notes, seed)?;
    told(&format!("seed {seed}: taking duplicates out"));
    let cleaned = deduplicate(&raw, dir.join("cleaned"))?;
    let mut train = |name: &str, data: &Path, told: &mut dyn FnMut(&str)| -> Result<_> {
        told(&format!("seed {seed}: reading, {name}"));
        let set = [
            format!("data.path={}", toml::Value::from(&*data.to_string_lossy())),
            format!("train.seed={seed}"),
            format!("data.seed={seed}"),
            format!("train.steps={}", settings.steps),
            "train.sample_every=0".into(),
            "train.eval_every=0".into(),
        ];
        let summary = AnyRecipe::once(dir, name, VILLAGE, &set, device, watch)?;
        stopped(summary.stopped)?;
        let attack = attack(&summary.run, &notes, seed, device)?;
        Ok((attack, summary.val_loss.unwrap_or(f64::NAN)))
    };
    let (before, loss_before) = train("raw", &raw, told)?;
    let (after, loss_after) = train("deduplicated", &cleaned, told)?;
    let level = |copies: u32| {
        let chosen: Vec<usize> = (0..notes.len()).filter(|&i| notes[i].copies == copies).collect();
        let mean = |of: &dyn Fn(usize) -> f64| chosen.iter().map(|&i| of(i)).sum::<f64>() / chosen.len().max(1) as f64;
        Level {
            copies,
            notes: chosen.len(),
            extracted: [&before, &after].map(|all| mean(&|i| f64::from(u8::from(all.found[i].0)))),
            exposure: [&before, &after].map(|all| mean(&|i| all.found[i].1)),
        }
    };
    let levels = std::iter::once(0).chain(settings.copies.iter().map(|level| level.0)).map(level).collect();
    Ok(Outcome { seed, levels, tokens: before.tokens, loss: [loss_before, loss_after] })
}
