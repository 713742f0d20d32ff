//! `kiln data ablate`: does a rule of `kiln data clean` help the model that is trained on what it leaves?

use super::clean::memory;
use crate::cli::Global;
use crate::cli::term::{note, print, quote, safe, thousands};
use clap::Args;
use kiln::data::clean::ablate::{Variants, variants};
use kiln::data::clean::{self, Options};
use kiln::data::{Limits, Sources};
use kiln::error::{Error, Result};
use kiln::train::{Recipe, train};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The model that is trained where --train says nothing else: half a minute on two cores for all seeds of a rule.
const MODEL: [&str; 10] = [
    "model.layers=2",
    "model.heads=4",
    "model.d=64",
    "train.context=128",
    "train.batch=8",
    "train.steps=300",
    "train.eval_every=0",
    "train.checkpoint_every=0",
    "train.sample_every=0",
    "optim.warmup=30",
];

/// Train a small model with and without each rule of data clean
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln data ablate crawl/ --out ablation
  kiln data ablate crawl/ --out ablation --rules duplicates.near,gopher.words --seeds 5 --train train.steps=1000")]
pub struct AblateArgs {
    /// Files of text, or folders of these
    #[arg(value_name = "IN", required = true)]
    sources: Vec<PathBuf>,
    /// Field of the text in .jsonl files
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Folder for the variants and their runs
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rules to try [default: those that remove or change something]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    rules: Vec<String>,
    /// Models for each variant; the spread among them is the noise
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=100))]
    seeds: u64,
    /// Settings of data clean that differ from the default ones, as TOML
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting of data clean; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// One setting of the model's training, as train.steps=1000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    train: Vec<String>,
    /// Memory to use for cleaning, roughly
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = memory)]
    mem: usize,
}

/// Runs `kiln data ablate`.
pub fn run(args: &AblateArgs, global: &Global) -> Result<()> {
    let options = Options {
        recipe: clean::Recipe::load(args.recipe.as_deref(), &args.set)?,
        out: args.out.clone(),
        text_field: args.text_field.clone(),
        memory: args.mem,
        threads: global.threads(),
        key_file: None,
        clear_text: false,
        truth: None,
    };
    let recipe = |data: &Path, name: &str, seed: u64| -> Result<Recipe> {
        let mut set: Vec<String> = MODEL.iter().map(|set| (*set).to_owned()).collect();
        set.extend(args.train.iter().cloned());
        let mut recipe = Recipe::load(None, &set)?;
        recipe.data.path = Some(vec![data.to_owned()]);
        (recipe.run.dir, recipe.run.name) = (args.out.join("runs"), format!("{name}-{seed}"));
        recipe.train.seed = seed;
        recipe.validate()?;
        Ok(recipe)
    };
    let vocab = recipe(Path::new("x"), "x", 1)?.data.vocab;
    let device = global.device()?;
    let limits = Limits { memory: args.mem / 4, ..Limits::default() };
    let sources = Sources::lenient(&args.sources, &args.text_field, limits)?;
    note("cleaning with all rules, then without each");
    let Variants { all, without, bytes, idle } = variants(&sources, &options, &args.rules, vocab, &mut |_| {})?;

    let losses = |data: &Path, name: &str| -> Result<Vec<f64>> {
        note(&format!("training {} models: {name}", args.seeds));
        let one = |seed| {
            let recipe = recipe(data, name, seed)?;
            // What an earlier call left would only move this one to another name.
            kiln::disk::remove_all(&kiln::disk::Os, &recipe.run.dir.join(&recipe.run.name))?;
            let none = || Error::failed("no loss was measured", "leave eval.max_batches out of --train");
            train(&recipe, None, &device, &mut ())?.bits_per_byte.ok_or_else(none)
        };
        (1..=args.seeds).map(one).collect()
    };
    let base = losses(&all, "all")?;
    let mut rows = Vec::new();
    for (rule, data, size) in &without {
        let found = losses(data, &format!("without-{rule}"))?;
        let ((mean, deviation), (base, noise)) = (mean_and_deviation(&found), mean_and_deviation(&base));
        // Other documents come in another order: seeds do not pair the runs.
        let difference = mean - base;
        let error = ((deviation.powi(2) + noise.powi(2)) / args.seeds as f64).sqrt();
        rows.push((*rule, *size, difference, error, verdict(difference, error)));
    }
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    let (loss, noise) = mean_and_deviation(&base);
    if global.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(rule, size, difference, error, verdict)| {
                json!({"rule": rule, "bytes_without": size, "bits_per_byte_more_without": difference,
                    "standard_error": error, "verdict": verdict})
            })
            .collect();
        let object = json!({"bits_per_byte": loss, "seed_deviation": noise, "bytes": bytes, "seeds": args.seeds,
            "rules": rows, "idle": idle});
        return print(&object.to_string());
    }
    let mut text = format!(
        "all rules: {} bytes to train on, {loss:.4} bits per byte of held-out text; {noise:.4} between seeds\n\n",
        thousands(bytes)
    );
    text += &format!("{:<34} {:>14} {:>11} {:>9}  \n", "without", "bytes", "bits more", "±");
    for (rule, size, difference, error, verdict) in &rows {
        text += &format!("{rule:<34} {:>14} {difference:>+11.4} {error:>9.4}  {verdict}\n", thousands(*size));
    }
    if !idle.is_empty() {
        text += &format!("did nothing here: {}\n", safe(&idle.join(", ")));
    }
    text += &format!(
        "\n± is the standard error over {} seeds; \"helps\": the loss is higher without the rule, by more than two of these.\n",
        args.seeds
    );
    print(&format!("{text}\nnext: kiln data clean {} --out clean", quote(&args.sources[0])))
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

/// What a difference of loss says.
fn verdict(difference: f64, error: f64) -> &'static str {
    match difference {
        d if d > 2.0 * error => "helps",
        d if d < -2.0 * error => "harms",
        _ => "no difference beyond noise",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_beyond_two_standard_errors() {
        let (mean, deviation) = mean_and_deviation(&[1.0, 2.0, 3.0]);
        assert_eq!((mean, deviation), (2.0, 1.0));
        assert_eq!(
            [verdict(0.3, 0.1), verdict(0.1, 0.1), verdict(-0.3, 0.1)],
            ["helps", "no difference beyond noise", "harms"]
        );
    }
}
