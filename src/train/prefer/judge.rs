//! What a reward model says of answers.

use super::section::PreferenceLoss;
use super::task::right_and_sure;
use crate::data::Tokenizer;
use crate::data::examples::{Judged, Preferences};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::formats::{Pretrained, SCORE_TENSOR};
use crate::measure::mean_and_error;
use crate::model::Gpt;
use crate::nn::lora::PREFIX;
use crate::params::{Decl, Hold, Init, Kind, ParamId, Params};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Shape, Spec, Tensor};
use crate::train::sampler;
use crate::train::tune::{HoldOf, Method, templated};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The tensor that makes the stream after an answer its reward, (1, C), as `transformers` names it.
pub const SCORE: &str = SCORE_TENSOR;

/// Texts that are read side by side.
const ROWS: usize = 16;

/// Adds the parameter of the reward to those of a model with `channels`, and gives its number and how all of them are held. Of an adapter it is saved whole beside it, as PEFT's
/// `modules_to_save`. It begins at 0.
pub(in crate::train) fn add_score(
    method: Method,
    channels: usize,
    decls: &mut Vec<Decl>,
    hold: HoldOf,
) -> (ParamId, HoldOf) {
    let name = match method {
        Method::Full => SCORE.to_owned(),
        Method::Lora | Method::Dora => format!("{PREFIX}{SCORE}"),
    };
    decls.push(Decl::new(name.clone(), Shape::new(&[1, channels]), Kind::Matrix, Init::Zeros));
    let hold: HoldOf = Box::new(move |decl| if decl.name == name { Hold::Train } else { hold(decl) });
    (ParamId(decls.len() as u32 - 1), hold)
}

/// Gives `params` what a model starts with: the weights of `base`, adapters that change nothing, and its score where there is one.
///
/// # Errors
/// A weight cannot be read.
pub(in crate::train) fn start(
    base: Option<&Pretrained>,
    gpt: &Gpt,
    score: Option<ParamId>,
    params: &mut Params,
) -> Result<()> {
    let Some(base) = base else { return Ok(()) };
    base.weights.load(params)?;
    gpt.start_adapters(params);
    if let (Some(id), Some(score)) = (score, base.score()) {
        params.set_weight(id, score);
    }
    Ok(())
}

/// `config.json` or `adapter_config.json` of what is trained by this loss.
pub(super) fn with_score(mut config: Value, loss: PreferenceLoss) -> Value {
    if loss != PreferenceLoss::Reward {
        return config;
    }
    match config["peft_type"].is_null() {
        true => {
            let class = match config["model_type"].as_str() {
                Some("gpt2") => "GPT2ForSequenceClassification",
                _ => "LlamaForSequenceClassification",
            };
            config["architectures"] = json!([class]);
            config["num_labels"] = json!(1);
        }
        false => {
            config["task_type"] = json!("SEQ_CLS");
            config["modules_to_save"] = json!(["score"]);
        }
    }
    config
}

/// What a reward model says of a line of preferences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// The file.
    pub source: PathBuf,
    /// The line.
    pub line: u64,
    /// The reward of the better answer and of the worse one, or of the only one.
    pub rewards: Vec<f32>,
}

/// All lines, and what of pairs is known together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Line by line.
    pub lines: Vec<Scored>,
    /// Pairs.
    pub pairs: usize,
    /// The share of them whose better answer has the higher reward.
    pub accuracy: f64,
    /// The mean of the difference, and its standard error.
    pub margin: [f64; 2],
    /// By how much it is surer than right.
    pub ece: f64,
}

/// A reward model.
pub struct Judge {
    gpt: Gpt,
    params: Params,
    score: Tensor,
    tape: Tape,
    tokenizer: Tokenizer,
}

impl Judge {
    /// Opens the reward model `path`.
    ///
    /// # Errors
    /// As of [`sampler::model`]; it gives no rewards.
    pub fn open(path: &Path, device: &Device) -> Result<Judge> {
        let (model, _) = sampler::model(path)?;
        let Some(score) = model.score() else {
            let hint = "name what kiln align reward made";
            return Err(Error::format(path, SCORE, "the weights of a reward model", "none", hint));
        };
        let host = device.on_host();
        let score = Tensor::from_slice(&host, score, [1, model.config.d]);
        let tokenizer = model.need_tokenizer()?.clone();
        let (gpt, params) = model.load(Hold::Frozen, &host)?;
        Ok(Judge { gpt, params, score, tape: Tape::new(&host), tokenizer })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What it says of the preferences in `paths`. `progress` is told of answers.
    ///
    /// # Errors
    /// As of [`Preferences::read`].
    pub fn score(&mut self, paths: &[PathBuf], template: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Scores> {
        let (tokenizer, template) = templated(self.tokenizer.clone(), template)?;
        let longest = self.gpt.config().context;
        let all = Preferences::read(paths, &tokenizer, template.as_ref(), longest, &mut |_, _| {})?.all;
        let total = all.len() as u64;
        let mut lines = Vec::with_capacity(all.len());
        for some in all.chunks(ROWS) {
            let texts: Vec<&[u32]> = some.iter().flat_map(Judged::answers).map(|answer| &answer.ids[..]).collect();
            let mut rewards = self.rewards(&texts).into_iter();
            for judged in some {
                let (source, line) = judged.answers().next().expect("an answer").source.clone();
                let rewards = rewards.by_ref().take(judged.answers().count()).collect();
                lines.push(Scored { source, line, rewards });
            }
            progress(lines.len() as u64, total);
        }
        let margin = |scored: &Scored| match scored.rewards[..] {
            [better, worse] => Some(f64::from(better) - f64::from(worse)),
            _ => None,
        };
        let margins: Vec<f64> = lines.iter().filter_map(margin).collect();
        let [accuracy, ece] = right_and_sure(&margins);
        Ok(Scores { pairs: margins.len(), accuracy, margin: mean_and_error(&margins), ece, lines })
    }

    /// The rewards of texts: prompts with answers, and the tokens that end these. Of one that is longer than the model's context its last
    /// tokens count.
    pub fn rewards(&mut self, texts: &[&[u32]]) -> Vec<f32> {
        let context = self.gpt.config().context;
        let texts: Vec<&[u32]> = texts.iter().map(|text| &text[text.len().saturating_sub(context)..]).collect();
        // Rows of like lengths side by side.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let mut rewards = vec![0.0; texts.len()];
        for some in order.chunks(ROWS) {
            let t = some.iter().map(|&i| texts[i].len()).max().unwrap_or(1).max(1);
            let mut ids = Out::new(self.tape.device(), Spec { shape: [some.len(), t].into(), dtype: DType::I32 });
            for (row, &i) in ids.as_mut_slice::<i32>().chunks_exact_mut(t).zip(some) {
                row.fill(0);
                row.iter_mut().zip(texts[i]).for_each(|(to, &id)| *to = id as i32);
            }
            self.tape.begin(&self.params, Pass::default());
            let (tape, score) = (&self.tape, self.score.clone());
            let all = tape
                .no_grad(|| self.gpt.hidden(tape.constant(ids.freeze())).linear(tape.constant(score), None).value());
            for (row, &i) in some.iter().enumerate() {
                rewards[i] = texts[i].len().checked_sub(1).map_or(0.0, |last| all.f32()[row * t + last]);
            }
        }
        self.tape.reset();
        rewards
    }
}
