//! `kiln data diff`: what changed between two data sets.

use crate::cli::term::{print, quote, safe, thousands};
use clap::Args;
use kiln::data::dataset::DatasetInfo;
use kiln::data::diff::diff;
use kiln::error::Result;
use serde_json::json;
use std::path::PathBuf;

/// Compare two data sets: documents added, removed, changed; how tokens are distributed
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kiln data diff data/books data/books-clean")]
pub struct DiffArgs {
    /// The old data set's folder
    a: PathBuf,
    /// The new data set's folder
    b: PathBuf,
    /// Names of documents and ids of tokens to show of each kind
    #[arg(long, value_name = "N", default_value_t = 5)]
    show: usize,
}

/// Runs `kiln data diff`.
pub fn run(args: &DiffArgs, json: bool) -> Result<()> {
    let diff = diff(&args.a, &args.b, args.show)?;
    let tokenizer = DatasetInfo::load(&args.a)?.load_tokenizer(&args.a)?;
    if json {
        return print(&json!(diff).to_string());
    }
    let mut text = String::new();
    for (name, path, i) in [("A", &args.a, 0), ("B", &args.b, 1)] {
        let (documents, tokens) = (thousands(diff.documents[i]), thousands(diff.tokens[i]));
        text += &format!("{name}  {}: {documents} documents, {tokens} training tokens\n", path.display());
    }
    text.push('\n');
    let what = ["only in B", "only in A", "another text", "held out in one"];
    for (what, names) in what.into_iter().zip([&diff.added, &diff.removed, &diff.changed, &diff.moved]) {
        let some: Vec<_> = names.iter().take(args.show).map(|name| safe(name).into_owned()).collect();
        let more = if names.len() > some.len() && !some.is_empty() { ", …" } else { "" };
        text += &format!("  {what:<16}{:>9}  {}{more}\n", thousands(names.len() as u64), some.join(", "));
    }
    match diff.divergence {
        Some(bits) => {
            text += &format!(
                "\nJensen-Shannon divergence of the training tokens: {bits:.6} bits (0: the same, 1: disjoint)\n"
            )
        }
        None => text += "\nthe tokenizers differ, so tokens cannot be compared\n",
    }
    for (id, a, b) in &diff.shifted {
        let token = format!("{:?}", tokenizer.decode(&[*id]));
        text += &format!("  {id:>6}  {:<16} {:>8.4} %  to {:>8.4} %\n", safe(&token), 100.0 * a, 100.0 * b);
    }
    print(&format!("{text}\nnext: kiln data inspect {}", quote(&args.b)))
}
