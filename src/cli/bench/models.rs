//! `kiln bench step` and `kiln bench decode`: whole models.

use super::{Turns, precision};
use crate::cli::Weights;
use clap::Args;
use kiln::bench::Case;
use kiln::bench::step::StepCase;
use kiln::bench::{decode, pictures};
use kiln::cpu::gemm::Precision;
use kiln::error::{Error, Result};
use kiln::train::Recipe;
use std::path::Path;

/// A whole training step: forward, backward and update
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln bench step nano
  kiln bench step recipe.toml --threads 1 --json
  kiln bench step nano --precision bf16 --threads 2 --against torch:best
  kiln bench step dcgan --threads 2 --against torch,torch:channels-last")]
pub struct StepArgs {
    /// nano (5.3M parameters), tiny (10.7M), gpt2 (124M), or a recipe, trained on random tokens; vae-mlp, vae-conv or dcgan,
    /// on random pictures
    #[arg(value_name = "CASE", default_value = "nano")]
    name: String,
    /// What linear layers and attention round their operands to, f32 or bf16 [default: f32, or the recipe's]
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    precision: Option<Precision>,
    /// Run blocks again in the backward pass instead of keeping their activations
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    pub(super) turns: Turns,
}

/// Writing token by token with cached keys and values
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln bench decode gpt2
  kiln bench decode gpt2 --prompt 512 --tokens 32 --json
  kiln bench decode gpt2 --threads 2 --against torch")]
pub struct DecodeArgs {
    /// nano (5.3M parameters), tiny (10.7M), gpt2 (124M), or a recipe
    #[arg(value_name = "CASE", default_value = "gpt2")]
    name: String,
    /// Tokens to read before the first one is written
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to write after the first one
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// How the weights are held: f32, bf16 (half the bytes), q8 (a quarter) or q4 (an eighth); arithmetic is in f32
    #[arg(long, alias = "quant", value_name = "TYPE", default_value = "f32", hide_possible_values = true)]
    weights: Weights,
    #[command(flatten)]
    pub(super) turns: Turns,
}

/// The model called `name`, or that of the recipe `name`.
fn model(name: &str) -> Result<StepCase> {
    if let Some(case) = StepCase::all().into_iter().find(|case| case.name == name) {
        return Ok(case);
    }
    if name.ends_with(".toml") {
        return StepCase::of(&Recipe::load(Some(Path::new(name)), &[])?);
    }
    Err(Error::usage(
        format!("there is no case '{name}'"),
        "use nano, tiny, gpt2, vae-mlp, vae-conv, dcgan, or a recipe of a language model: a file that ends in .toml",
    ))
}

impl StepArgs {
    pub(super) fn case(&self) -> Result<Case> {
        if let Some(case) = pictures::case(&self.name, self.precision.unwrap_or_default()) {
            return Ok(case);
        }
        let mut case = model(&self.name)?;
        case.setup.recompute |= self.recompute;
        case.setup.precision = self.precision.unwrap_or(case.setup.precision);
        Ok(case.case())
    }
}

impl DecodeArgs {
    pub(super) fn case(&self) -> Result<Case> {
        let case = match self.name.as_str() {
            "smollm2" => StepCase::smollm2(),
            name if !name.ends_with(".toml") && Path::new(name).exists() => {
                let (model, _) = kiln::train::sampler::model(Path::new(name))?;
                StepCase { name: name.to_owned(), config: model.config, ..StepCase::smollm2() }
            }
            name => model(name)?,
        };
        let (prompt, tokens, context) = (self.prompt as usize, self.tokens as usize, case.config.context);
        if prompt + tokens > context {
            let problem =
                format!("--prompt {prompt} and --tokens {tokens} exceed the context of {}, {context}", case.name);
            return Err(Error::usage(problem, "lower one of them"));
        }
        Ok(decode::case(case, prompt, tokens, self.weights.hold()))
    }
}
