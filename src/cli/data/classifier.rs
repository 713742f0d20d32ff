//! `kiln data classifier`: a small classifier of texts, learnt from labelled ones.

use crate::cli::term::{print, quote, safe, thousands};
use clap::Args;
use kiln::data::Sources;
use kiln::error::{Error, Result};
use kiln::eval::Bag;
use kiln::measure::auc;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Train a small classifier of texts on labelled ones, as rude and other ones
#[derive(Args, Debug)]
#[command(after_help = "Example:
  kiln data classifier comments.jsonl --label toxic --out toxic.safetensors
  kiln eval runs/village --tasks village-stories --classifier toxic.safetensors

A label counts where it is true, 0.5 and more, or one of --is. One text in ten, by chance, is held out to say how good
the classifier is.")]
pub struct ClassifierArgs {
    /// Files of JSON lines
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The field that says of which kind a text is
    #[arg(long, value_name = "FIELD")]
    label: String,
    /// Labels of the kind, where they are words
    #[arg(long, value_name = "WORD,…", value_delimiter = ',')]
    is: Vec<String>,
    /// The field that holds the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    text_field: String,
    /// The file to write, in safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The same seed learns the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// One text in so many is held out.
const HELD_OUT: usize = 10;

/// Runs `kiln data classifier`.
pub fn run(args: &ClassifierArgs, json: bool) -> Result<()> {
    let mut texts: Vec<(String, bool)> = Vec::new();
    for document in Sources::open(&args.files, &args.text_field)?.documents() {
        let document = document?;
        let found = document.metadata.get(&args.label);
        let kind = match found {
            Some(Value::String(word)) if !args.is.is_empty() => Some(args.is.contains(word)),
            Some(Value::Bool(kind)) => Some(*kind),
            Some(Value::Number(number)) => number.as_f64().map(|number| number >= 0.5),
            _ => None,
        };
        let Some(kind) = kind else {
            let found = found.map_or("none".to_owned(), Value::to_string);
            let at = format!("line {}", document.line);
            let expected = format!("true, false or a number as its {:?}", args.label);
            let hint = "name the field with --label, and words of the kind with --is";
            return Err(Error::format(&document.source, at, expected, found, hint));
        };
        texts.push((document.text, kind));
    }
    // Chance by place, so that the order of the file does not matter.
    let held_out = |i: usize| {
        kiln::rng::Rng::new(args.seed, kiln::rng::Purpose::Resample, 51, i as u64).below(HELD_OUT as u32) == 0
    };
    let (mut train, mut val) = (Vec::new(), Vec::new());
    texts.into_iter().enumerate().for_each(|(i, text)| if held_out(i) { val.push(text) } else { train.push(text) });
    let bag = Bag::train(&train, args.seed)?;
    let scores =
        |kind: bool| val.iter().filter(|text| text.1 == kind).map(|text| bag.score(&text.0)).collect::<Vec<f64>>();
    let (of, others) = (scores(true), scores(false));
    let share = |scores: &[f64], right: &dyn Fn(f64) -> bool| {
        scores.iter().filter(|&&score| right(score)).count() as f64 / scores.len() as f64
    };
    let (found, taken) = (share(&of, &|p| p > 0.5), share(&others, &|p| p > 0.5));
    let known = !of.is_empty() && !others.is_empty();
    let auc = known.then(|| auc(&of, &others));
    bag.save(&args.out)?;
    if json {
        let all = json!({"texts": train.len(), "held_out": val.len(), "auc": auc,
            "found": known.then_some(found), "taken": known.then_some(taken), "out": args.out.to_string_lossy()});
        return print(&all.to_string());
    }
    let mut text = format!("learnt from {} texts\n", thousands(train.len() as u64));
    text += &match auc {
        Some(auc) => format!(
            "of {} held-out ones: AUC {auc:.3}; {:.1} % of the kind found, {:.1} % of the others taken for it\n",
            thousands(val.len() as u64),
            100.0 * found,
            100.0 * taken
        ),
        None => "too few are held out to say how good it is\n".to_owned(),
    };
    print(&format!("{text}\nnext: kiln eval MODEL --tasks village-stories --classifier {}", safe(&quote(&args.out))))
}
