//! From data to a recipe, and to a decision: buy, fine-tune or train.
//!
//! The size of a model follows from three limits, each stated with the advice: the text (20 tokens a parameter, text up to four
//! times; [`scaling`](super::scaling)), the hours, and the time that a token may take when the model writes. Operations a second are
//! assumed ([`Machine::speed`]): `kiln plan RECIPE` measures what is written.

use super::cost::{Cost, Rates};
use super::machine::Machine;
use super::scaling::{EPOCHS, TOKENS, short};
use super::seen::Seen;
use crate::cpu::gemm::Precision;
use crate::cpu::limits;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::GptConfig;
use crate::model::config::Size;
use crate::train::AnyRecipe;
use crate::train::pictures::{gan, vae};
use crate::train::sampler;
use crate::train::tune::TUNE;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is wished for.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Where it is trained.
    pub machine: Machine,
    /// The share of a card's peak that is assumed.
    pub utilisation: f64,
    /// What an hour costs.
    pub rates: Rates,
    /// Hours of training at most.
    pub hours: f64,
    /// Milliseconds that a token, or a picture, may take when the model is used on this machine.
    pub latency: Option<f64>,
    /// A model to fine-tune.
    pub base: Option<PathBuf>,
    /// What somebody else's model costs: US dollars for a million tokens, or for a thousand pictures.
    pub api_price: f64,
    /// Millions of tokens, or thousands of pictures, that are made in a month.
    pub use_a_month: f64,
}

/// One way to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// `buy`, `fine-tune` or `train`.
    pub way: &'static str,
    /// US dollars of the first year; `None` where there is no such way.
    pub cost: Option<f64>,
    /// Hours until it can be used.
    pub hours: Option<f64>,
    /// What is known of how good it will be.
    pub evidence: String,
    /// What may go wrong.
    pub risk: String,
}

/// What to do with data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// What there is.
    pub data: Seen,
    /// What is advised, in a line.
    pub what: String,
    /// Why, one reason a line.
    pub why: Vec<String>,
    /// The recipe, as TOML; `None` where a model to start from must be named first.
    pub recipe: Option<String>,
    /// The choices, the advised one first.
    pub choices: Vec<Choice>,
}

/// Sizes of GPTs: layers, width, heads, context.
const SIZES: [[usize; 4]; 9] = [
    [2, 64, 2, 128],
    [4, 128, 4, 128],
    [6, 192, 6, 256],
    [6, 256, 8, 256],
    [8, 384, 6, 256],
    [12, 512, 8, 512],
    [12, 768, 12, 1024],
    [24, 1024, 16, 1024],
    [36, 1280, 20, 1024],
];

/// Parameters of the model that a fine-tuning is reckoned with where none is named: SmolLM2-135M.
const BASE: f64 = 135e6;

/// How often examples are gone through.
const TUNED: f64 = 3.0;

/// Fewer pictures than this teach a discriminator to know them by heart.
const FOR_A_GAN: usize = 5000;

/// What to do with the data at `path`.
///
/// # Errors
/// Nothing that kiln reads is there; the model to start from cannot be used.
pub fn advise(path: &Path, wishes: &Wishes, here: &Device) -> Result<Advice> {
    let data = Seen::at(path)?;
    let text = path.to_str().ok_or_else(|| {
        Error::config("data.path", format!("{} is not UTF-8, so no recipe can name it", path.display()), "rename it")
    })?;
    // Whoever trains from a recipe may stand in another folder.
    let absolute = std::path::absolute(text).unwrap_or(path.to_owned());
    let place = format!("data.path={}", toml::Value::from(&*absolute.to_string_lossy()));
    let precision = if wishes.machine.name() == "cpu" { Precision::F32 } else { Precision::Bf16 };
    let (speed, basis) = wishes.machine.speed(here, precision, wishes.utilisation);
    let advisor = Advisor { data, wishes, here, place, speed, basis };
    match advisor.data {
        Seen::Text { .. } | Seen::Tokens { .. } => advisor.text(),
        Seen::Chats { .. } => advisor.chats(),
        Seen::Pictures { count, dims, classes, scaled } => {
            advisor.pictures(count, [dims.height, dims.width, dims.channels], classes, scaled)
        }
    }
}

struct Advisor<'a> {
    data: Seen,
    wishes: &'a Wishes,
    here: &'a Device,
    /// `data.path=…`.
    place: String,
    /// Operations a second.
    speed: f64,
    /// How that is known.
    basis: String,
}

/// A GPT of one of the sizes, and its run.
struct Rung {
    set: Vec<String>,
    parameters: f64,
    tokens: f64,
    seconds: f64,
}

impl Advisor<'_> {
    /// The run of a GPT of `size`: on 20 tokens a parameter, or as many as the text has in four rounds, or as the hours allow.
    fn rung(&self, [layers, d, heads, context]: [usize; 4]) -> Rung {
        let vocab = self.data.vocab();
        let config = GptConfig::gpt2(Size { vocab, context, layers, heads, d });
        let (parameters, flops) = (config.parameters(), config.flops_per_token(context));
        let most = 3600.0 * self.wishes.hours * self.speed / flops;
        let tokens = (TOKENS * parameters).min(EPOCHS * self.data.tokens()).min(most);
        let batch = (2048 * (1 + d / 256) / context).max(4);
        let steps = (tokens / (batch * context) as f64).round().max(100.0);
        let every = (steps / 6.0).ceil();
        let mut set = vec![
            self.place.clone(),
            format!("model.layers={layers}"),
            format!("model.d={d}"),
            format!("model.heads={heads}"),
            format!("data.vocab={}", vocab.max(257)),
            format!("train.context={context}"),
            format!("train.batch={batch}"),
            format!("train.steps={steps}"),
            format!("train.eval_every={every}"),
            format!("train.checkpoint_every={every}"),
            format!("train.sample_every={every}"),
            format!("optim.warmup={}", (steps / 20.0).ceil()),
            // As the village's, which is 128 wide; wider models take smaller rates.
            format!("optim.lr={:.1e}", 4e-3 * (128.0 / d as f64).min(1.0)),
        ];
        if self.wishes.machine.name() != "cpu" {
            set.push("train.precision=bf16".into());
        }
        let tokens = steps * (batch * context) as f64;
        Rung { set, parameters, tokens, seconds: tokens * flops / self.speed }
    }

    /// Parameters at which a token takes as long as it may: all weights are read once for it, in f32.
    fn for_latency(&self) -> Option<f64> {
        self.wishes.latency.map(|ms| 1e6 * ms * limits::read_bandwidth(self.here.host(), 64 << 20, 0.1) / 4.0)
    }

    fn text(&self) -> Result<Advice> {
        let (hours, tokens) = (self.wishes.hours, self.data.tokens());
        let by_text = EPOCHS * tokens / TOKENS;
        // 6 N · 20 N operations.
        let by_hours = (3600.0 * hours * self.speed / (6.0 * TOKENS)).sqrt();
        let by_latency = self.for_latency();
        let most = by_text.min(by_hours).min(by_latency.unwrap_or(f64::INFINITY));
        let device = self.wishes.machine.device(self.here)?;
        // The largest that is within all limits and in memory; the smallest in any case.
        let rungs = || SIZES.iter().rev().map(|size| self.rung(*size));
        let fits = |rung: &Rung| {
            // Data that is not read: what it is has no say in it.
            let set: Vec<String> = rung.set.iter().filter(|set| !set.starts_with("data.path")).cloned().collect();
            AnyRecipe::load(None, "", &set).and_then(|recipe| recipe.plan(None, &device)).is_ok()
        };
        let found = rungs().find(|rung| rung.parameters <= most && fits(rung));
        let Rung { set, parameters, tokens: seen, seconds } = found.unwrap_or_else(|| self.rung(SIZES[0]));
        let mut why = vec![
            format!(
                "{} tokens of text are worth {} parameters at {TOKENS:.0} tokens each, text coming up to {EPOCHS:.0} times (arXiv 2203.15556, 2305.16264)",
                short(tokens),
                short(by_text)
            ),
            format!("{hours} h are worth {} parameters: {}", short(by_hours), self.basis),
        ];
        if let (Some(most), Some(ms)) = (by_latency, self.wishes.latency) {
            why.push(format!("{ms} ms a token are worth {} parameters: each is read once for a token", short(most)));
        }
        why.push(format!("it sees {} tokens, {:.1} a parameter", short(seen), seen / parameters));
        let own = self.own(seconds, &format!(
            "a floor: no base model; loss and bits a byte on held-out text while it trains, then kiln sample. {:.1} tokens a parameter{}",
            seen / parameters,
            if seen / parameters < TOKENS / 2.0 { ": too few to be good" } else { "" }
        ), if by_text < 1e6 { "too little text: it will know its spelling and little else" } else { "it knows nothing but this text" });
        let tune = self.tune(BASE, tokens, "LoRA on text like this moves style more than knowledge");
        // Little text cannot carry a model of its own.
        let train_first = by_text >= 1e6;
        let choices =
            if train_first { vec![own, tune, self.buy("tokens")] } else { vec![tune, own, self.buy("tokens")] };
        let name = format!("a GPT of {} parameters, {} h", short(parameters), hours_text(seconds));
        let what = if train_first {
            format!("train {name}")
        } else {
            format!("fine-tune a model that reads already; to train all the same: {name}")
        };
        self.advice(what, why, Some(self.recipe("", &set)?), choices)
    }

    fn chats(&self) -> Result<Advice> {
        let Seen::Chats { ref fields, .. } = self.data else { unreachable!("looked at before") };
        let tokens = self.data.tokens();
        let parameters = match &self.wishes.base {
            Some(base) => sampler::model(base)?.0.config.parameters(),
            None => BASE,
        };
        let tune = self.tune(
            parameters,
            tokens,
            "it forgets a little of what it knew (data.replay holds against that); the licence of the base",
        );
        let own = self.own(
            tokens * TUNED * 6.0 * 1e6 / self.speed,
            "from fresh weights 4 to 11 % of held-out questions were right where fine-tuning had 70 to 92 % (kiln study tune)",
            "examples alone teach the form of an answer, not what to say",
        );
        let mut why = vec![
            format!("lines with {} are examples of how to answer: a model that reads already learns them in minutes", fields.join(", ")),
            "kiln study tune: of questions about people never tuned on 70 to 89 % right with all weights, 79 to 92 % with LoRA, 4 to 11 % from fresh weights".to_owned(),
        ];
        let recipe = match &self.wishes.base {
            Some(base) => {
                let base = std::path::absolute(base).unwrap_or(base.clone());
                let base = format!("model.base={}", toml::Value::from(&*base.to_string_lossy()));
                Some(self.recipe(TUNE, &[self.place.clone(), base])?)
            }
            None => {
                why.push(format!(
                    "no model is named (--base): reckoned with {} parameters, as of SmolLM2-135M",
                    short(BASE)
                ));
                None
            }
        };
        let what = format!(
            "fine-tune a model of {} parameters with LoRA, {} h",
            short(parameters),
            hours_text(3600.0 * tune.hours.unwrap_or(0.0))
        );
        self.advice(what, why, recipe, vec![tune, self.buy("tokens"), own])
    }

    fn pictures(&self, count: usize, shape: [usize; 3], classes: usize, scaled: Option<usize>) -> Result<Advice> {
        // A GAN's sides are 4 or 7 times 2, 4, 8, …
        let side = shape[0];
        let halves = |side: usize| {
            shape[0] == shape[1]
                && (8..=64).contains(&side)
                && [4, 7].contains(&(side >> side.trailing_zeros().min((side / 4).ilog2())))
        };
        let suits = halves(side);
        let size = scaled.or((!suits).then_some(32)).filter(|size| *size != side || scaled.is_some());
        let seconds_of = |set: &[String], base: &str, epochs: f64| -> Result<(Vec<String>, f64)> {
            // A model of built-in pictures of the same size has the same operations.
            let own =
                [&[format!("data.size={}", size.unwrap_or(side).max(8)), "data.count=200".to_owned()], set].concat();
            let recipe = AnyRecipe::load(None, base, &own)?;
            let plan = recipe.plan(None, &self.wishes.machine.device(self.here)?)?;
            let step = plan.size.flops * recipe.train().accumulate as f64 / self.speed;
            let wanted = epochs * count as f64 / recipe.train().batch as f64;
            let steps = wanted.min(3600.0 * self.wishes.hours / step.max(1e-9)).max(100.0).round();
            let every = (steps / 6.0).ceil();
            let mut set = set.to_vec();
            set.extend([format!("train.steps={steps}"), self.place.clone()]);
            set.extend(["eval", "checkpoint", "sample"].map(|what| format!("train.{what}_every={every}")));
            set.extend(size.map(|size| format!("data.size={size}")));
            Ok((set, steps * step))
        };
        let (gan, conditional) = (count >= FOR_A_GAN, classes > 1);
        let label = format!("model.conditional={conditional}");
        let (base, name, set) = match gan {
            true => (gan::DEFAULT, "a DCGAN", vec![label]),
            false => (vae::CONV, "a convolutional VAE", vec![label]),
        };
        let (set, seconds) = seconds_of(&set, base, if gan { 40.0 } else { 60.0 })?;
        let mut why = vec![match gan {
            true => format!(
                "{count} pictures are enough for a discriminator ({FOR_A_GAN} and more), and a GAN draws sharper than a VAE"
            ),
            false => format!(
                "{count} pictures are few: a discriminator would know them by heart, a VAE is content with them"
            ),
        }];
        if conditional {
            why.push(format!("they have labels of {classes} classes, so it is told them and draws what is asked for"));
        }
        why.extend(size.map(|size| format!("they are scaled to {size} x {size}: models here are for small pictures")));
        why.push(format!("{} h at most: {}", self.wishes.hours, self.basis));
        if self.wishes.latency.is_some() {
            why.push("either draws a picture of this size in milliseconds".to_owned());
        }
        why.push("a VQ-VAE (data/recipes/vqvae.toml) instead, where a GPT is to go on with the pictures".to_owned());
        let own = self.own(
            seconds,
            "distances from held-out pictures while it trains (kiln eval RUN), beside those of the data itself",
            "modes that are left out; kiln warns of them",
        );
        let tune = Choice {
            way: "fine-tune",
            cost: None,
            hours: None,
            evidence: "none: kiln fine-tunes language models alone".into(),
            risk: "another program".into(),
        };
        let what = format!("train {name}, {} h", hours_text(seconds));
        self.advice(what, why, Some(self.recipe(base, &set)?), vec![own, self.buy("pictures"), tune])
    }

    fn own(&self, seconds: f64, evidence: &str, risk: &str) -> Choice {
        let Cost { money, .. } = Cost::of(seconds, &self.wishes.rates);
        Choice {
            way: "train",
            cost: Some(money),
            hours: Some(seconds / 3600.0),
            evidence: evidence.into(),
            risk: risk.into(),
        }
    }

    /// Four operations a parameter and token: those for the gradients of frozen weights are saved.
    fn tune(&self, parameters: f64, tokens: f64, risk: &str) -> Choice {
        let seconds = TUNED * tokens * 4.0 * parameters / self.speed;
        let Cost { money, .. } = Cost::of(seconds, &self.wishes.rates);
        let evidence =
            "70 to 92 % of held-out questions right, 4 to 11 % from fresh weights (kiln study tune; a village)";
        Choice {
            way: "fine-tune",
            cost: Some(money),
            hours: Some(seconds / 3600.0),
            evidence: evidence.into(),
            risk: risk.into(),
        }
    }

    fn buy(&self, what: &str) -> Choice {
        let Wishes { api_price, use_a_month, .. } = *self.wishes;
        let amount = if what == "tokens" { "million tokens" } else { "thousand pictures" };
        Choice {
            way: "buy",
            cost: Some(12.0 * api_price * use_a_month),
            hours: Some(1.0),
            evidence: format!(
                "none here: ask it what you will ask ({use_a_month} {amount} a month at {api_price} USD, an assumption)"
            ),
            risk: "data leaves the house; price and model change without you".into(),
        }
    }

    fn recipe(&self, base: &str, set: &[String]) -> Result<String> {
        let recipe = AnyRecipe::load(None, base, &[&["run.name=planned".to_owned()], set].concat())?;
        Ok(recipe.to_toml())
    }

    fn advice(&self, what: String, why: Vec<String>, recipe: Option<String>, choices: Vec<Choice>) -> Result<Advice> {
        Ok(Advice { data: self.data.clone(), what, why, recipe, choices })
    }
}

fn hours_text(seconds: f64) -> String {
    let hours = seconds / 3600.0;
    if hours < 0.1 { format!("{hours:.2}") } else { format!("{hours:.1}") }
}
