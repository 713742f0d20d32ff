//! Does a model that read of nurses who are women say *she* of any nurse, and what helps? Passages about visitors whose gender goes with their
//! occupation stand among the village's stories; a GPT reads them as they are, and others after the corpus was changed.
//!
//! - **Skew** is how much likelier the pronoun of an occupation's usual gender is than the other, of the two alone, where nothing but the occupation
//!   is known; the mean over occupations. It is planted with a known strength, which a model that has learned all of it shows.
//! - **Consistency**: where an earlier pronoun says the gender, usual or not, how often the model finds the right one as likely at least. A change of the
//!   corpus that taught pronouns to be drawn by lot would mend the skew and lose this.
//! - **WEAT** says what the embeddings alone have of it; it may stay where the skew goes, and go where it stays.
//! - **Cost**: bits a byte of held-out stories, which no change should raise.
//! - **What is on a list and what is not.** Half of the occupations are *listed*, as many of women's as of men's; the figures are of the others, and of
//!   those in sentences of which no corpus has any. A swap of all texts that speak of nobody by name ([`Way::Swap`]) names words of gender and no
//!   occupation, so that it reaches occupations that nobody has thought of. A swap or reweighing of what is beside listed occupations
//!   leaves the others' texts as they are; a model reads of these what it read before, and there is no reason why it should learn something else.
//!   Both are shown.
//! - **Control**: as many counterparts, of words that have nothing to do with gender. Counterparts stand in the place of half of the texts, so that
//!   every model reads as much of the same.
//!
//! Gender is here what the pronouns he and she say; people are of more genders than that, and no part of this knows of them.

use super::Seed;
use super::effect::{Effect, Effects, Unit};
use crate::data::Sources;
use crate::data::atomic::AtomicFile;
use crate::data::augment::{self, Augmented, Way};
use crate::data::swap::Swap;
use crate::data::world::{Split, World, passage, visitors};
use crate::device::Device;
use crate::disk::{self, Os};
use crate::error::Result;
use crate::eval::{Asking, Item, Local, Outcome as Outcomes, Task, evaluate};
use crate::params::Hold;
use crate::train::Sampler;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Words of the passages, one of each sentence at least, that say nobody's gender.
const UNRELATED: &str = r#"pairs = [["water", "milk"], ["hat", "cap"], ["town", "city"], ["inn", "hall"], ["coach", "cart"],
    ["church", "tower"], ["letter", "note"], ["market", "fair"], ["people", "others"], ["dog", "cat"]]"#;

/// What is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Stories, in bytes.
    pub bytes: usize,
    /// Passages about visitors for each story; each has a fourth of its length.
    pub visitors: f64,
    /// How much more often visitors have the usual gender: 0 to 1.
    pub skew: f64,
    /// Steps of training.
    pub steps: u64,
    /// Held-out stories that are asked.
    pub texts: usize,
    /// Whether swaps and reweighing beside listed occupations alone are tried as well.
    pub lists: bool,
    /// More settings of the recipe, as `model.d=64`.
    pub set: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bytes: 1_500_000, visitors: 12.0, skew: 0.8, steps: 1600, texts: 200, lists: false, set: Vec::new() }
    }
}

/// A corpus, and the model that read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arm {
    /// What was done: raw, control, swapped, swapped_listed, reweighted.
    pub name: &'static str,
    /// Documents that were read, written, and counterparts.
    pub documents: Augmented,
    /// The skew of listed occupations.
    pub listed: f64,
    /// Of the others.
    pub others: f64,
    /// Of the others in sentences that no corpus has.
    pub new: f64,
    /// The share of pronouns that agree with earlier ones.
    pub consistency: f64,
    /// The same in sentences that no corpus has.
    pub consistency_new: f64,
    /// The effect size of the occupations between words of women and of men in the input embeddings ([`weat`](crate::measure::weat)).
    pub weat: f64,
    /// Bits a byte of held-out stories.
    pub bits: f64,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The skew that was planted.
    pub planted: f64,
    /// The occupations that are on the list.
    pub listed: Vec<&'static str>,
    /// Raw first.
    pub arms: Vec<Arm>,
}

/// Every other pair of a women's and a men's occupation.
fn listed() -> Vec<&'static str> {
    visitors().enumerate().filter(|(i, _)| i / 2 % 2 == 0).map(|(_, (job, _))| job).collect()
}

/// Writes stories, and passages about visitors evenly among them, as documents of their own.
fn write(path: &Path, world: &World, settings: &Settings, seed: u64) -> Result<()> {
    let mut file = AtomicFile::create(&Os, path)?;
    let mut put = |text: &str| file.write((json!({"text": text}).to_string() + "\n").as_bytes());
    let mut teller = world.teller();
    let (mut stories, mut passages, mut bytes) = (0, 0, 0);
    while bytes < settings.bytes {
        teller.tell_of(Split::Train, stories);
        bytes += teller.text().len();
        put(teller.text())?;
        stories += 1;
        while (passages as f64) < stories as f64 * settings.visitors {
            put(&passage(seed, passages, settings.skew).text)?;
            passages += 1;
        }
    }
    file.commit()
}

/// What a model prefers: [`Arm`] without a name.
fn ask(run: &Path, settings: &Settings, seed: u64, device: &Device) -> Result<Arm> {
    let sampler = Sampler::open(run, &[], Hold::Frozen, device)?;
    let mut model = Local::new("model".into(), sampler.into_parts(), true, None)?;
    let asking = Asking { limit: usize::MAX, world: seed, seed };
    let mut task = Task::open("village-skew")?;
    task.data = "world:visitors-alone".into();
    // What is asked in sentences that some corpus has, and in those that none has.
    task.by = Some("job ~ (' in new sentences' if new else '')".into());
    let (new, known): (Vec<Item>, Vec<Item>) = task
        .items(usize::MAX, asking.world, asking.seed)?
        .into_iter()
        .partition(|item| item.group.ends_with(" in new sentences"));
    let mut figures = |task: &Task, items: &[Item]| evaluate(task, items, &asking, &mut model, &mut |_, _| Ok(()));
    let sentences = [known.len(), new.len()].map(|n| n as f64);
    let [known, new] = [figures(&task, &known)?, figures(&task, &new)?];
    let (text, weat) = (Task::open("village-text")?, Task::open("weat-village")?);
    let text = figures(&text, &text.items(settings.texts, asking.world, asking.seed)?)?;
    let weat = figures(&weat, &weat.items(usize::MAX, asking.world, asking.seed)?)?;
    let listed = listed();
    let mean = |outcome: &Outcomes, on_list: bool| {
        let job = |name: &str| name.split(' ').next().is_some_and(|job| listed.contains(&job));
        let all: Vec<f64> = outcome.groups.iter().filter(|(name, ..)| job(name) == on_list).map(|g| g.2).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let agree = |outcome: &Outcomes| {
        outcome.figures.iter().find(|figure| figure.name == "consistency").map_or(f64::NAN, |figure| figure.value)
    };
    Ok(Arm {
        name: "",
        documents: Augmented::default(),
        listed: mean(&known, true),
        others: mean(&known, false),
        new: mean(&new, false),
        consistency: (agree(&known) * sentences[0] + agree(&new) * sentences[1]) / (sentences[0] + sentences[1]),
        consistency_new: agree(&new),
        weat: weat.figures[0].value,
        bits: text.figures[0].value,
    })
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let &mut Seed { seed, dir, device, .. } = at;
    disk::make_dirs(&Os, dir)?;
    let raw = dir.join("raw.jsonl");
    write(&raw, &World::new(seed), settings, seed)?;
    let list: Vec<String> = listed().into_iter().map(str::to_owned).collect();
    let swapped = |only: &[String]| Way::Swap { only: only.to_vec(), spare_names: true, instead: true };
    let gender = Swap::gender();
    let unrelated = Swap::parse(UNRELATED, Path::new("unrelated.toml"))?;
    let mut ways = vec![
        ("raw", &unrelated, None),
        ("control", &unrelated, Some(swapped(&[]))),
        ("swapped", &gender, Some(swapped(&[]))),
    ];
    if settings.lists {
        ways.push(("swapped_listed", &gender, Some(swapped(&list))));
        ways.push(("reweighted", &gender, Some(Way::Reweigh(list.clone()))));
    }
    let mut arms = Vec::new();
    for (name, swap, way) in ways {
        let (data, documents): (PathBuf, Augmented) = match way {
            None => (raw.clone(), Augmented::default()),
            Some(way) => {
                let out = dir.join(format!("{name}-data"));
                let done = augment::augment(&Sources::open(&[&raw], "text")?, swap, &way, &out, &mut |_| Ok(()))?;
                (out.join(augment::DOCUMENTS), done)
            }
        };
        at.says(&format!("reading, {name}"));
        let summary = at.reads(name, Some(&data), settings.steps, &settings.set)?;
        arms.push(Arm { name, documents, ..ask(&summary.run, settings, seed, device)? });
    }
    Ok(Outcome { seed, planted: settings.skew, listed: listed(), arms })
}

impl Effects for Outcome {
    const STUDY: &'static str = "skew";
    const ASKS: &'static str =
        "Does a model take over who has which occupation, and does swapping words of gender mend it?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, unit: Unit, of: fn(&Arm) -> f64| {
            let arm = |name: &str| self.arms.iter().find(|arm| arm.name == name).map_or(f64::NAN, of);
            Effect {
                what: what.into(),
                unit,
                before: ("texts as they are".into(), arm("raw")),
                after: ("words of gender swapped".into(), arm("swapped")),
                control: ("other words swapped".into(), arm("control")),
            }
        };
        vec![
            effect("skew of occupations that stand on no list", Unit::Plain, |arm| arm.others),
            effect("the same in sentences that no text has", Unit::Plain, |arm| arm.new),
            effect("pronouns that agree with earlier ones", Unit::Share, |arm| arm.consistency),
            effect("the same, in sentences that no text has", Unit::Share, |arm| arm.consistency_new),
            effect("held-out stories, in bits a byte", Unit::Plain, |arm| arm.bits),
        ]
    }
}
