//! What a recipe says of fine-tuning.

use crate::error::{Error, Result};
use crate::nn::LoraConfig;
use crate::params::Hold;
use crate::settings::{Schema, range, require};
use crate::train::fit::Family;
use crate::train::prefer::Preference;
use crate::train::recipe::{Architecture, RecipeOf, Section, Train, one_or_many, paths};
use crate::train::rl::Reinforcement;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The default recipe, as TOML with comments.
pub const TUNE: &str = include_str!("../../../data/recipes/tune.toml");

/// That of [preferences](crate::train::prefer).
pub const PREFER: &str = include_str!("../../../data/recipes/prefer.toml");

/// That of [rewards](crate::train::rl).
pub const REINFORCE: &str = include_str!("../../../data/recipes/reinforce.toml");

/// A recipe of a fine-tuning.
pub type TuneRecipe = RecipeOf<TuneModel, TuneData, TuneSample>;

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneModel {
    /// `tune`, `prefer` or `reinforce`.
    pub kind: TuneKind,
    /// The model to start from: whatever [`model`](crate::train::sampler::model) opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// Whether training starts from fresh weights instead of the model's: a control, which shows what these are worth.
    pub fresh: bool,
    /// What is trained.
    pub method: Method,
    /// r of adapters.
    pub rank: usize,
    /// The numerator of their scale.
    pub alpha: f32,
    /// The share of the channels of an adapter's input that are dropped.
    pub dropout: f32,
    /// Whether the scale is alpha/√rank.
    pub rslora: bool,
    /// Which linear layers get an adapter: patterns of modules' names or of their ends.
    pub targets: Vec<String>,
    /// Which parameters stay as they are where all are trained: patterns of their names or of their ends.
    pub freeze: Vec<String>,
    /// How what is frozen is held.
    pub frozen: Held,
    /// How preferences are learnt; of kind [`Prefer`](TuneKind::Prefer) alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// How rewards are learnt from; of kind [`Reinforce`](TuneKind::Reinforce) alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reinforce: Option<Reinforcement>,
}

/// `model.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuneKind {
    /// To answer as examples show.
    Tune,
    /// To answer, or to judge answers, as preferences show.
    Prefer,
    /// To answer as rewards ask.
    Reinforce,
}

/// `model.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adapters of low rank.
    Lora,
    /// The same, with the norm of each row learnt apart.
    Dora,
    /// All weights.
    Full,
}

/// `model.frozen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// In f32.
    F32,
    /// In bf16.
    Bf16,
    /// In 8 bits.
    Q8,
    /// In 4 bits.
    Q4,
}

impl Held {
    /// How parameters are held.
    pub fn hold(self) -> Hold {
        match self {
            Held::F32 => Hold::Frozen,
            Held::Bf16 => Hold::FrozenBf16,
            Held::Q8 => Hold::FrozenQ8,
            Held::Q4 => Hold::FrozenQ4,
        }
    }
}

impl TuneModel {
    /// What adapters are like.
    pub fn lora(&self) -> LoraConfig {
        let dora = self.method == Method::Dora;
        LoraConfig { rank: self.rank, alpha: self.alpha, dropout: self.dropout, rslora: self.rslora, dora }
    }
}

/// Whether one of these patterns means the dotted `name`: all of it, or an end of it that follows a dot.
pub fn means(patterns: &[glob::Pattern], name: &str) -> bool {
    let ends = std::iter::once(name).chain(name.match_indices('.').map(|(dot, _)| &name[dot + 1..]));
    ends.into_iter().any(|end| patterns.iter().any(|pattern| pattern.matches(end)))
}

/// The patterns of a setting.
///
/// # Errors
/// One of them is none.
pub fn patterns(key: &str, texts: &[String]) -> Result<Vec<glob::Pattern>> {
    let pattern = |text: &String| {
        let hint = "patterns are names with * and ?, as \"*_proj\"";
        glob::Pattern::new(text).map_err(|e| Error::config(key, format!("{text:?}: {}", e.msg), hint))
    };
    texts.iter().map(pattern).collect()
}

impl Section for TuneModel {
    fn check(&self, train: &Train) -> Result<()> {
        let tables = [
            ("model.preference", TuneKind::Prefer, "prefer", self.preference.is_some()),
            ("model.reinforce", TuneKind::Reinforce, "reinforce", self.reinforce.is_some()),
        ];
        for (key, kind, name, there) in tables {
            if there && self.kind != kind {
                let hint = format!("leave it out, or set model.kind = \"{name}\"");
                return Err(Error::config(key, "it says how a model of another kind is trained", hint));
            }
            if !there && self.kind == kind {
                let problem = "it says how such a model is trained, and is not there";
                return Err(Error::config(key, problem, format!("data/recipes/{name}.toml has one")));
            }
        }
        self.preference.map_or(Ok(()), |preference| preference.check(train))?;
        self.reinforce.as_ref().map_or(Ok(()), |reinforce| reinforce.check(train))?;
        if self.base.is_none() {
            let hint = "name a run, a directory or a file: kiln tune MODEL --data FILE";
            return Err(Error::config("model.base", "no model is named to start from", hint));
        }
        if self.fresh && self.method != Method::Full {
            let hint = "set model.method to \"full\" as well (--full)";
            return Err(Error::config("model.fresh", "adapters beside fresh weights learn nothing", hint));
        }
        range("model.rank", self.rank, 1..=4096)?;
        let fine = self.alpha.is_finite() && self.alpha > 0.0;
        require(fine, "model.alpha", self.alpha, "a finite number above 0")?;
        require((0.0..1.0).contains(&self.dropout), "model.dropout", self.dropout, "from 0 to below 1")?;
        patterns("model.targets", &self.targets)?;
        patterns("model.freeze", &self.freeze)?;
        Ok(())
    }

    fn fixed(&self, train: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("model.base", format!("{:?}", self.base)),
            ("model.fresh", self.fresh.to_string()),
            ("model.method", format!("{:?}", self.method)),
            ("model.rank", self.rank.to_string()),
            ("model.alpha", self.alpha.to_string()),
            ("model.rslora", self.rslora.to_string()),
            ("model.targets", format!("{:?}", self.targets)),
            ("model.freeze", format!("{:?}", self.freeze)),
            ("model.preference", format!("{:?}", self.preference)),
            ("model.reinforce", format!("{:?}", self.reinforce)),
            ("train.context", train.context.to_string()),
        ]
    }
}

impl Architecture for TuneModel {
    const SCHEMA: Schema = Schema {
        default: TUNE,
        optional: &[
            "model.base",
            "model.preference",
            "model.reinforce",
            "data.path",
            "data.replay",
            "train.context",
            "eval.max_batches",
            "optim.muon_lr",
            "optim.dp",
        ],
        free: &[],
        file: "data/recipes/tune.toml",
        example: "model.rank=16",
    };
    const LEAST_STEPS: u64 = 0;

    fn schema(kind: Option<&str>) -> Schema {
        match kind {
            Some("prefer") => Schema { default: PREFER, file: "data/recipes/prefer.toml", ..Self::SCHEMA },
            Some("reinforce") => Schema { default: REINFORCE, file: "data/recipes/reinforce.toml", ..Self::SCHEMA },
            _ => Self::SCHEMA,
        }
    }

    /// An agent learns from what it does.
    fn reads(&self) -> bool {
        self.reinforce.as_ref().is_none_or(|reinforce| reinforce.agent.is_none())
    }

    fn smaller(&self, train: &Train) -> Vec<Family> {
        let frozen = [Held::F32, Held::Bf16, Held::Q8, Held::Q4];
        let less = frozen.iter().skip_while(|held| **held != self.frozen).skip(1);
        let less = less.map(|held| format!("{held:?}").to_lowercase());
        let halves = std::iter::successors(Some(train.context / 2), |n| Some(n / 2)).take_while(|n| *n >= 16);
        let frozen = (self.method != Method::Full).then(|| Family::of("the base in fewer bits", "model.frozen", less));
        let lora = (self.method == Method::Full).then(|| {
            let [lora, lr] = ["model.method=lora", "optim.lr=5e-4"].map(str::to_owned);
            Family { costs: "adapters instead of all weights", steps: vec![vec![lora, lr]] }
        });
        let context = Family::of("longer examples lose their end", "train.context", halves);
        frozen.into_iter().chain(lora).chain([context]).collect()
    }
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneData {
    /// Files of examples.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub path: Option<Vec<PathBuf>>,
    /// How conversations become text: `auto`, `chatml`, `plain` or a file.
    pub template: String,
    /// How often each example is seen, where `train.steps` does not say.
    pub epochs: f64,
    /// Whether a row holds as many examples as fit.
    pub packing: bool,
    /// Files of general text, of which some is learnt along, so that it is not forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub replay: Option<Vec<PathBuf>>,
    /// The share of all rows that is taken from there.
    pub replay_share: f64,
    /// Share of the examples that is held out.
    pub val_fraction: f64,
    /// Seed of the choice of what is held out.
    pub seed: u64,
}

impl Section for TuneData {
    fn given(&self) -> Result<()> {
        let hint = "name a file of examples: kiln tune MODEL --data FILE.jsonl";
        let nothing = || Error::config("data.path", "there is nothing to learn from", hint);
        self.path.as_ref().map(drop).ok_or_else(nothing)
    }

    fn check(&self, train: &Train) -> Result<()> {
        paths(&self.path)?;
        paths(&self.replay)?;
        let replay = self.replay_share;
        require((0.0..1.0).contains(&replay), "data.replay_share", replay, "from 0 to below 1, as 0.2")?;
        let epochs = self.epochs;
        require(epochs > 0.0 && epochs <= 1e6, "data.epochs", epochs, "a number above 0, as 3")?;
        let share = self.val_fraction;
        require((0.0..1.0).contains(&share) && share > 0.0, "data.val_fraction", share, "between 0 and 1, as 0.1")?;
        range("train.context", train.context, 0..=1_000_000)
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        vec![
            ("data.template", self.template.clone()),
            ("data.packing", self.packing.to_string()),
            ("data.val_fraction", self.val_fraction.to_string()),
            ("data.seed", self.seed.to_string()),
            ("data.replay", format!("{:?}", self.replay)),
            ("data.replay_share", self.replay_share.to_string()),
        ]
    }

    fn private(&self) -> Result<()> {
        if self.packing {
            let problem = "the gradient of each example is clipped alone (optim.dp), so none can share a row";
            return Err(Error::config("data.packing", problem, "set data.packing = false"));
        }
        if self.replay.is_some() {
            let problem =
                "batches are drawn from the private examples alone (optim.dp), each with the same probability";
            return Err(Error::config("data.replay", problem, "leave it out, or tune on public text before or after"));
        }
        Ok(())
    }
}

/// `[sample]`: answers to examples that are held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSample {
    /// How many.
    pub count: usize,
    /// Tokens of each at most.
    pub tokens: usize,
    /// Divides the logits; 0: the likeliest token always.
    pub temperature: f32,
    /// How many of the examples that are held out are answered after the last step, by the likeliest tokens, and compared with
    /// what they have.
    pub exact: usize,
}

impl Section for TuneSample {
    fn check(&self, _: &Train) -> Result<()> {
        range("sample.count", self.count, 0..=1000)?;
        range("sample.exact", self.exact, 0..=1_000_000)?;
        range("sample.tokens", self.tokens, 1..=1_000_000)?;
        let fine = self.temperature.is_finite() && self.temperature >= 0.0;
        require(fine, "sample.temperature", self.temperature, "a finite number, 0 or more")
    }

    fn fixed(&self, _: &Train) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
