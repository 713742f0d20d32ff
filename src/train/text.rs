//! Language models on text: tokens, their loss in nats and in bits a byte, and texts as samples.

use super::event::{Event, Watch};
use super::fit::{self, Plan};
use super::health::{self, Finding};
use super::lm::{self, Lm};
use super::objective::Examples;
use super::recipe::{self, Data, OptimKind, Recipe, TokenizerChoice, Train};
use super::run::RunDir;
use super::setup::Setup;
use super::source;
use super::task::{Evaluation, Opened, PlannerOf, Progress, Rehearsal, Task};
use super::trainer::Trainer;
use crate::data::atomic::write_atomic;
use crate::data::dataset::DATASET_FILE;
use crate::data::detok::Decoder;
use crate::data::{Apart, Dataset, DatasetInfo, EvalBatches, Part, Tokenizer};
use crate::device::Device;
use crate::disk;
use crate::error::{Error, Result};
use crate::model::sample::SampleOptions;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Text to train on, and what is held out.
pub struct Text {
    tokenizer: Tokenizer,
    eval: EvalBatches,
    /// Bits a byte for each nat a token of validation loss.
    bits_per_byte: f64,
    /// In bits a byte.
    floor: Option<f64>,
    train_tokens: u64,
    val_tokens: u64,
    /// What is wrong with the data.
    found: Vec<Finding>,
}

/// What carries a run over `vocab` ids, whose texts go on from at most `prompt` tokens, out on a dry device.
fn planner(vocab: usize, prompt: usize) -> PlannerOf<Text> {
    Box::new(move |recipe, dry| Plan::of_text(recipe, vocab, prompt, dry))
}

fn supported(recipe: &Recipe, device: &Device) -> Result<()> {
    if recipe.model.mup && recipe.optim.kind == OptimKind::Muon {
        let problem = "its learning rates are for AdamW; Muon's updates are of the same size at every width already";
        return Err(Error::config("model.mup", problem, "leave it out, or set optim.kind = \"adamw\""));
    }
    if recipe.model.mup && matches!(device, Device::Gpu(_)) {
        let problem = "a GPU's update has one learning rate for all";
        return Err(Error::config("model.mup", problem, "leave it out, or train with --device cpu"));
    }
    if recipe.optim.dp.is_some() {
        public_tokenizer(recipe)?;
    }
    Setup::of(recipe).supported(device)?;
    Lm::supported(&recipe.model.config(1, recipe.train.context), recipe.train.precision, device)
}

/// Refuses a tokenizer that is learnt from text that is to stay private: pieces of it are its tokens.
fn public_tokenizer(recipe: &Recipe) -> Result<()> {
    let Data { path, tokenizer, .. } = &recipe.data;
    let learnt = matches!(tokenizer, TokenizerChoice::Bpe | TokenizerChoice::Char);
    // A data set has its own, whatever the recipe says.
    if !learnt || path.iter().flatten().any(|path| path.join(DATASET_FILE).is_file()) {
        return Ok(());
    }
    let problem = "a tokenizer learnt from the text has pieces of it for tokens, which no noise hides (optim.dp)";
    let hint = "set data.tokenizer = \"byte\", or to the tokenizer.json of another text";
    Err(Error::config("data.tokenizer", problem, hint))
}

/// Bytes of text on which a rehearsal makes data: enough for any vocabulary that there is text for.
const PORTION: u64 = 16 << 20;

impl Text {
    /// The task on shards.
    fn on(recipe: &Recipe, data: &Path, device: &Device) -> Result<Opened<Text>> {
        let info = DatasetInfo::load(data)?;
        let tokenizer = info.load_tokenizer(data)?;
        let mut prompt = 1;
        if recipe.train.sample_every > 0 {
            let hint = "give a prompt in the characters of the data";
            let ids = start(&tokenizer, &recipe.sample.prompt).map_err(|e| Error::config("sample.prompt", e, hint))?;
            prompt = ids.len();
        }
        let memory = fit::check(recipe, device, &*planner(info.tokenizer.vocab, prompt))?;
        let train = Arc::new(Dataset::open(data, Part::Train)?);
        let val = Arc::new(Dataset::open(data, Part::Val)?);
        let found = health::data::look(&info, &train, &val)?.1;
        let tokens_per_byte = info.val.tokens as f64 / info.val.bytes.max(1) as f64;
        let train_tokens = train.len() as u64;
        let trainer = Trainer::new(recipe, info.tokenizer.vocab, train, device)?;
        let task = Text {
            tokenizer,
            bits_per_byte: tokens_per_byte / std::f64::consts::LN_2,
            floor: source::floor(recipe),
            train_tokens,
            found,
            val_tokens: val.len() as u64,
            eval: EvalBatches::new(val, recipe.train.batch, recipe.train.context)?,
        };
        Ok(Opened { task, trainer, memory, data: info.hash() })
    }
}

impl Task for Text {
    type Model = recipe::Model;
    type Data = recipe::Data;
    type Sample = recipe::Sample;
    type Objective = Lm;

    const UNIT: &'static str = "tokens";
    const LOSS: &'static str = "nats per token";

    /// A vocabulary that is still to be learnt counts with `data.vocab`, and a prompt with a token for each byte.
    fn planner(recipe: &Recipe, own: Option<&Path>, device: &Device) -> Result<PlannerOf<Text>> {
        let vocab = source::vocab(recipe, own)?;
        supported(recipe, device)?;
        Ok(planner(vocab, 1 + recipe.sample.prompt.len()))
    }

    fn open(recipe: &Recipe, own: &Path, device: &Device, progress: &mut Progress) -> Result<Opened<Text>> {
        supported(recipe, device)?;
        // Before time goes into data for a run that can have no memory, whatever the vocabulary turns out to be.
        let quiet = Recipe { train: Train { sample_every: 0, ..recipe.train.clone() }, ..recipe.clone() };
        if !fit::fits(&quiet, device, &*planner(1, 1)) {
            fit::check(&quiet, device, &*planner(recipe.data.vocab, 1))?;
        }
        let data = source::shards(recipe, own, progress)?;
        Text::on(recipe, &data, device)
    }

    fn rehearse(
        recipe: &Recipe,
        own: Option<&Path>,
        scratch: &Path,
        device: &Device,
        progress: &mut Progress,
    ) -> Result<Rehearsal<Text>> {
        supported(recipe, device)?;
        let made = own.filter(|own| own.join(DATASET_FILE).is_file());
        let start = Instant::now();
        let (data, times) = source::portion(recipe, made.unwrap_or(scratch), PORTION, progress)?;
        let more = (times - 1.0) * start.elapsed().as_secs_f64();
        let opened = Text::on(recipe, &data, device)?;
        Ok(Rehearsal { opened, more, held_out: times, judged_before: false })
    }

    fn examples(
        recipe: &Recipe,
        own: Option<&Path>,
        scratch: &Path,
        progress: &mut Progress,
    ) -> Result<Option<Examples>> {
        let made = own.filter(|own| own.join(DATASET_FILE).is_file());
        let data = source::shards(recipe, made.unwrap_or(scratch), progress)?;
        let rows = Apart::new(Arc::new(Dataset::open(&data, Part::Train)?), recipe.train.context);
        Ok(Some(lm::examples(&rows)))
    }

    fn about(&self) -> Vec<(u64, &'static str)> {
        let ids = self.tokenizer.vocab_size() as u64;
        vec![(ids, "token ids"), (self.train_tokens, "tokens to train on"), (self.val_tokens, "to validate")]
    }

    fn warnings(&self) -> Vec<String> {
        self.found.iter().map(ToString::to_string).collect()
    }

    fn config(&self, trainer: &Trainer<Lm>) -> Value {
        trainer.objective.gpt.config().to_json()
    }

    fn files(&self) -> Vec<(&str, &str)> {
        self.tokenizer.files().collect()
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer<Lm>,
        _: bool,
        max_batches: Option<usize>,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        let found = trainer.evaluate(&self.eval, max_batches, progress)?;
        Ok(found.map(|(nats, targets)| Evaluation { loss: nats / targets as f64, ..Evaluation::default() }))
    }

    fn floor(&self) -> Option<f64> {
        self.floor.map(|bits| bits / self.bits_per_byte)
    }

    fn bits_per_byte(&self, loss: f64) -> Option<f64> {
        Some(loss * self.bits_per_byte)
    }

    fn sample(
        &mut self,
        trainer: &mut Trainer<Lm>,
        recipe: &Recipe,
        step: u64,
        run: &RunDir,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let sample = &recipe.sample;
        let options = SampleOptions {
            tokens: sample.tokens,
            temperature: sample.temperature,
            top_k: sample.top_k,
            top_p: sample.top_p,
            seed: step,
            ..SampleOptions::default()
        };
        let mut text = sample.prompt.clone();
        let prompt = start(&self.tokenizer, &sample.prompt)?;
        let mut decoder = Decoder::new(&self.tokenizer);
        trainer.generate(prompt, self.tokenizer.ends(), &options, &mut |id| {
            text.push_str(&decoder.push(id));
            watch.stop().is_none()
        });
        text.push_str(&decoder.finish());
        disk::make_dirs(run.disk(), &run.samples())?;
        write_atomic(run.disk(), &run.sample(step, "txt"), text.as_bytes())?;
        watch.event(&Event::Sample { step, text: &text });
        Ok(())
    }
}

/// The ids from which a model writes on: the prompt's, after the token that texts start with where there is one.
///
/// # Errors
/// The tokenizer has no token for a character of the prompt, or nothing to start from.
pub fn start(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    let mut ids: Vec<u32> = tokenizer.start().into_iter().collect();
    ids.extend(tokenizer.encode_with_special(prompt)?);
    if ids.is_empty() {
        // Without a token between documents, a line break is the likeliest start.
        ids.extend(tokenizer.encode("\n").unwrap_or_default());
    }
    if ids.is_empty() {
        ids.push(0);
    }
    Ok(ids)
}
