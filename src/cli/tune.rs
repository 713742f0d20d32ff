//! `kiln tune`.

use super::Global;
use super::term::{Ink, ink, print, safe};
use super::train::{Course, carry_out, data_path};
use clap::Args;
use kiln::data::Tokenizer;
use kiln::data::examples::Example;
use kiln::error::{Error, Result};
use kiln::train::AnyRecipe;
use kiln::train::tune::{TUNE, read};
use serde_json::json;
use std::path::PathBuf;

/// Teach a model to answer as examples show
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln tune runs/village --data answers.jsonl             adapters of rank 8 on all linear layers
  kiln tune runs/village --data answers.jsonl --full      all weights
  kiln tune smollm2 --data chats.jsonl --show-mask 3      look at what would be trained on
  kiln tune smollm2 --data chats.jsonl --set model.frozen=q4 --set optim.lr=1e-3
  kiln tune smollm2 --data letters.jsonl --set optim.dp.epsilon=8 --set data.packing=false
                                                          hides each example (docs/privacy.md)
  kiln tune --resume runs/chats                           goes on where a run was stopped

An example is a line of JSON with one of:
  {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, {\"role\": \"assistant\", \"content\": \"…\"}]}
  {\"prompt\": \"…\", \"completion\": \"…\"}           {\"instruction\": \"…\", \"input\": \"…\", \"output\": \"…\"}
  {\"text\": \"…\"}, of which all is trained on; else what the assistant says is, and the completion")]
pub struct TuneArgs {
    #[command(flatten)]
    start: Start,
    /// Show the tokens of the first N examples, which of them are trained on, and do no more
    #[arg(long, value_name = "N", conflicts_with_all = ["plan", "until"])]
    show_mask: Option<usize>,
    #[command(flatten)]
    course: Course,
}

/// What a run starts from, and learns from.
#[derive(Args, Debug)]
pub struct Start {
    /// What to start from: a run, a Hugging Face directory, a GGUF file, an adapter
    #[arg(value_name = "MODEL", required_unless_present_any = ["resume", "recipe"])]
    model: Option<PathBuf>,
    /// Files to learn from
    #[arg(long, value_name = "FILE.jsonl", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Train all weights, not adapters
    #[arg(long)]
    full: bool,
    /// Settings that differ from the default's [see: data/recipes]
    #[arg(long, value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// Override a key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in this directory, from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "recipe", "data", "full"])]
    pub resume: Option<PathBuf>,
}

impl Start {
    /// The recipe: of the run that goes on; else of the file or of `base`, under `more` and what is asked for. All weights take `full_lr`.
    pub fn recipe(&self, base: &str, more: &[&str], full_lr: &str) -> Result<AnyRecipe> {
        if let Some(run) = &self.resume {
            return AnyRecipe::of_run(run, &self.set);
        }
        let mut set = Vec::new();
        if let (None, Some(name)) = (&self.recipe, self.data.first().and_then(|path| path.file_stem())) {
            let name = name.to_string_lossy();
            set.push(format!("run.name={}", name.strip_suffix(".jsonl").unwrap_or(&name)));
        }
        if self.full {
            set.extend(["model.method=full".to_owned(), format!("optim.lr={full_lr}")]);
        }
        set.extend(more.iter().map(|&set| set.to_owned()));
        set.extend(self.set.iter().cloned());
        if let Some(model) = &self.model {
            let text = model.to_str().ok_or_else(|| {
                let problem = format!("{} is not UTF-8, so no recipe can name it", model.display());
                Error::config("model.base", problem, "rename it, or give a link to it")
            })?;
            set.push(format!("model.base={}", toml::Value::from(text)));
        }
        set.extend(data_path(&self.data)?);
        AnyRecipe::load(self.recipe.as_deref(), base, &set)
    }
}

/// Runs `kiln tune` and gives the exit code.
pub fn run(args: TuneArgs, global: &Global) -> Result<u8> {
    let recipe = recipe(&args)?;
    match args.show_mask {
        Some(count) => show_mask(&recipe, count, global).map(|()| 0),
        None => carry_out(&recipe, args.start.resume.as_deref(), args.course, global),
    }
}

fn recipe(args: &TuneArgs) -> Result<AnyRecipe> {
    // All weights take a tenth of what adapters take.
    let recipe = args.start.recipe(TUNE, &[], "5e-5")?;
    match recipe {
        AnyRecipe::Tune(_) => Ok(recipe),
        _ => Err(Error::config("model.kind", "this recipe does not fine-tune a model", "run it with: kiln train")),
    }
}

/// Tokens with the same weight, side by side.
fn runs(example: &Example) -> Vec<(bool, &[u32])> {
    let bounds = example.trained.chunk_by(|a, b| a == b);
    let mut start = 0;
    bounds
        .map(|same| {
            start += same.len();
            (same[0], &example.ids[start - same.len()..start])
        })
        .collect()
}

fn show_mask(recipe: &AnyRecipe, count: usize, global: &Global) -> Result<()> {
    let AnyRecipe::Tune(recipe) = recipe else { unreachable!("checked before") };
    let prepared = read(recipe, &mut |_, _, _| {})?;
    let (tokenizer, examples) = (&prepared.tokenizer, &prepared.examples);
    for (number, example) in examples.all.iter().take(count).enumerate() {
        let (path, line) = &example.source;
        if global.json {
            let tokens: Vec<String> = example.ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
            let weights: Vec<u8> = example.trained.iter().map(|&trained| u8::from(trained)).collect();
            let object = json!({"source": path.to_string_lossy(), "line": line, "ids": example.ids, "tokens": tokens,
                "weights": weights});
            print(&object.to_string())?;
            continue;
        }
        let head = format!(
            "example {}: {}, line {line}: {} tokens, {} of them trained on",
            number + 1,
            path.display(),
            example.ids.len(),
            example.targets()
        );
        print(&ink(&head, Ink::Bold))?;
        for (trained, ids) in runs(example) {
            print(&shown(tokenizer, trained, ids))?;
        }
        print("")?;
    }
    let found = &examples.found;
    if global.json {
        return print(&json!({ "found": found }).to_string());
    }
    print(&format!(
        "{} examples, {} tokens, {} of them trained on; {} end with a token that ends a turn or a text, {} were cut, {} refused",
        found.examples, found.tokens, found.trained, found.ended, found.truncated, found.refused
    ))?;
    found.first_refused.as_ref().map_or(Ok(()), |first| print(&format!("refused first: {first}")))
}

/// A line of tokens: their weight, and each of them, with a mark between.
fn shown(tokenizer: &Tokenizer, trained: bool, ids: &[u32]) -> String {
    let tokens: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id]).replace('\n', "⏎")).collect();
    let text = safe(&tokens.join("·")).into_owned();
    let weight = if trained { "1" } else { "0" };
    format!("  {weight}  {}", ink(&text, if trained { Ink::Green } else { Ink::Dim }))
}
