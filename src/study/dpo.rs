//! Does a model become polite by preferences alone? A GPT that knows the village and answers questions about it, with a rude remark behind most
//! answers, learns from pairs of a polite and a rude answer, both true and about as long, of which those who judge prefer the polite one in four of
//! five.
//!
//! - **Asked** are questions about held-out entities, in the ways of the pairs (*people*) and in held-out ways (*other words*); answers are
//!   sampled as the model has them, at temperature 1.
//! - **Polite** is an answer without a word of the rude register, **true** one that begins with the right answer word for word. A question is
//!   *known* whose likeliest answer is true: that hangs on nothing but what the model knows, where sampled answers also on how sure it is.
//! - All learn with the last block alone, the rest of the model stays.
//! - **Beside it**: as many steps of fine-tuning on the preferred answers alone, which imitates those who judge with all their slips.
//! - **Control**: the same pairs, of which either answer is called the better one by chance.
//! - **Start range**: 30 to 50 % of answers polite.

use super::asked::{Questions, prompt};
use super::effect::{Effect, Effects, Unit};
use super::manners::{self, Asked, Teller, on_answers};
use super::{Seed, write_lines};
use crate::data::world::{Lesson, World};
use crate::error::Result;
use crate::rng::{Purpose, Rng};
use crate::train::tune::{PREFER, TUNE};
use serde::Serialize;
use serde_json::{Value, json};

/// What stays: all but the last block and what is behind it. What the model knows lies before; how it says it does not.
const FREEZE: &str = r#"model.freeze=["wte.weight", "wpe.weight", "h.0.*", "h.1.*", "h.2.*"]"#;

/// What is learnt from, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model at the start.
    pub start: manners::Settings,
    /// Pairs.
    pub pairs: u64,
    /// The share of them whose rude answer was preferred.
    pub slips: f64,
    /// The learning rate of DPO.
    pub lr: f64,
    /// Its β.
    pub beta: f64,
    /// What fine-tuning on the preferred answers weighs beside it, lest the truth of what is said fades.
    pub sft: f64,
    /// How often each pair is seen.
    pub epochs: u64,
    /// Those of fine-tuning on the preferred answers: the best of them counts.
    pub chosen_lrs: Vec<f64>,
    /// Other settings of DPO, `key=value`.
    pub set: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            start: manners::Settings::default(),
            pairs: 2000,
            slips: 0.2,
            lr: 1e-4,
            beta: 0.2,
            sft: 0.2,
            epochs: 2,
            chosen_lrs: vec![2e-4, 2e-3],
            set: Vec::new(),
        }
    }
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Questions about held-out entities, and those in held-out ways.
    pub questions: [usize; 2],
    /// Before; DPO; fine-tuning on the preferred answers; DPO on pairs in a random order.
    pub models: [Asked; 4],
}

/// A pair; the rude answer is the better one with probability `slips`.
fn pair(teller: &mut Teller, lessons: &[Lesson], slips: f64) -> Value {
    let lesson = teller.one_of(lessons);
    let [polite, rude] = [false, true].map(|rude| teller.says(lesson, rude));
    let (chosen, rejected) = if teller.by(slips) { (rude, polite) } else { (polite, rude) };
    json!({"prompt": prompt(lesson), "chosen": chosen, "rejected": rejected})
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let world = World::new(at.seed);
    let questions = Questions::new(&world);
    let mut teller = Teller { world: &world, rng: Rng::new(at.seed, Purpose::Resample, 40, 0) };
    let start = manners::start(&settings.start, at, &mut teller, &questions)?;
    let [pairs, chosen, random] = ["pairs.jsonl", "chosen.jsonl", "random.jsonl"].map(|name| at.dir.join(name));
    let mut judged = |slips: f64| -> Vec<Value> {
        (0..settings.pairs).map(|_| pair(&mut teller, &questions.tuned, slips)).collect()
    };
    let own = judged(settings.slips);
    let preferred = own.iter().map(|pair| json!({"prompt": pair["prompt"], "completion": pair["chosen"]}));
    write_lines(&chosen, preferred)?;
    write_lines(&pairs, own)?;
    write_lines(&random, judged(0.5))?;

    let before = Asked::of("before", &start, &questions, at)?;
    let Settings { lr, beta, sft, epochs, .. } = settings;
    let own = [
        format!("optim.lr={lr}"),
        format!("model.preference.beta={beta}"),
        format!("model.preference.sft={sft}"),
        format!("data.epochs={epochs}"),
        FREEZE.into(),
    ];
    let own = [&own[..], &settings.set].concat();
    at.says("learning from pairs");
    let dpo = at.run("dpo", PREFER, &on_answers(&start.run, &pairs, &own))?;
    let learnt = Asked::of("DPO", &dpo, &questions, at)?;
    let mut imitated: Option<Asked> = None;
    for lr in &settings.chosen_lrs {
        at.says(&format!("learning the preferred answers alone, lr {lr}"));
        // As many answers, and as many steps.
        let steps = format!("train.steps={}", dpo.steps);
        let more = [format!("optim.lr={lr}"), steps, "data.packing=false".into(), FREEZE.into()];
        let run = at.run(&format!("chosen-{lr}"), TUNE, &on_answers(&start.run, &chosen, &more))?;
        let asked = Asked::of("preferred answers", &run, &questions, at)?;
        imitated = imitated.filter(|best| best.people.polite >= asked.people.polite).or(Some(asked));
    }
    at.says("learning from pairs in a random order");
    let random = at.run("dpo-random", PREFER, &on_answers(&start.run, &random, &own))?;
    let control = Asked::of("pairs by chance", &random, &questions, at)?;
    Ok(Outcome {
        seed: at.seed,
        questions: [questions.people.len(), questions.other_words.len()],
        models: [before, learnt, imitated.expect("a learning rate"), control],
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "dpo";
    const ASKS: &'static str = "Does a model become polite by preferences alone?";

    fn effects(&self) -> Vec<Effect> {
        let effect = |what: &str, of: fn(&Asked) -> f64| {
            let side = |i: usize| (self.models[i].name.to_owned(), of(&self.models[i]));
            Effect { what: what.into(), unit: Unit::Share, before: side(0), after: side(1), control: side(3) }
        };
        vec![
            effect("polite answers about entities that no pair was about", |asked| asked.people.polite),
            effect("the same, asked in words that no pair had", |asked| asked.other_words.polite),
            effect("true answers", |asked| asked.people.truth),
            effect("questions whose likeliest answer is true", |asked| asked.people.knows),
        ]
    }
}
