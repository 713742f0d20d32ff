//! Examples of how a model is to answer, as tokens of which some are trained on.
//!
//! A line of JSON is one of (Hugging Face's TRL has the first three):
//!
//! | fields | trained on |
//! |---|---|
//! | `messages`, and `tools` where there are some | what the assistant says, with the token that ends its turn |
//! | `prompt`, `completion`: two texts, or two lists of messages | the completion, with the token that ends a text |
//! | `text`, or a file of text | all of it |
//! | `question`, `answer` | the answer, after `Question: …`, a line feed and `Answer:` |
//! | `instruction`, `input` (may be empty), `output` or `response` | the answer, as of two messages |
//!
//! Messages become text by the model's chat template ([`ChatTemplate::assistant_spans`]). Text is cut where training begins and ends, and
//! each part is tokenised by itself, as it is when the model is asked: a token never lies across such a border.
//!
//! An example of which nothing would be trained on, or everything though it has a prompt, is refused with the reason, and so is
//! a set of them without any other. One that is longer than a row is cut at its end, and counted; a plain text goes on in the
//! next example instead.

mod form;
mod pack;
mod prefer;
mod prompts;

pub use form::Form;
pub use pack::{Row, RowMut, Rows, pack};
pub use prefer::{Judged, Preferences};
pub use prompts::{Prompt, Prompts};

use super::chat::ChatTemplate;
use super::split::{Rule, Split};
use super::{Sources, Tokenizer};
use crate::error::{Error, Result};
use form::Part;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Tokens, and which of them are trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The tokens, at least two.
    pub ids: Vec<u32>,
    /// For each, whether the model learns to say it.
    pub trained: Vec<bool>,
    /// Where it is from: a file, and a line of it.
    pub source: (PathBuf, u64),
    /// A hash of its prompt, or of a plain text's whole document.
    pub key: u64,
}

impl Example {
    /// The tokens of these parts, and how many of them were cut off at the end since there are more than `longest`; or why nothing can be
    /// learnt from them.
    fn of(
        parts: &[Part],
        tokenizer: &Tokenizer,
        source: &(PathBuf, u64),
        longest: usize,
    ) -> Result<std::result::Result<(Example, usize), &'static str>> {
        let key = key(parts.iter().take_while(|part| !part.train).map(|part| part.text.as_str()));
        let (mut ids, mut trained) = tokens(parts, tokenizer, source)?;
        let cut = ids.len().saturating_sub(longest);
        ids.truncate(longest);
        trained.truncate(longest);
        Ok(match trained.get(1..) {
            None | Some([]) => Err("it has no two tokens"),
            Some(rest) if trained[0] && rest.iter().all(|&trained| trained) => {
                Err("all of it would be trained on, so there is no prompt: give such texts as {\"text\": …}")
            }
            Some(rest) if rest.iter().any(|&trained| trained) => {
                Ok((Example { ids, trained, source: source.clone(), key }, cut))
            }
            Some(_) if cut > 0 => Err("its prompt alone is longer than a row (train.context)"),
            Some(_) => Err("nothing in it is the assistant's, so nothing would be trained on"),
        })
    }

    /// How many tokens are trained on: the first never is, since nothing comes before it.
    pub fn targets(&self) -> usize {
        self.trained[1..].iter().filter(|&&trained| trained).count()
    }
}

/// What was found in the files, beside the examples.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Found {
    /// Examples that can be used.
    pub examples: usize,
    /// Those of them that are plain texts, or parts of one, and trained on as a whole.
    pub texts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Those of them that are trained on.
    pub trained: usize,
    /// Examples whose last token that is trained on ends a text or a turn: from them a model learns to stop.
    pub ended: usize,
    /// Examples that were longer than a row, and cut at their end.
    pub truncated: usize,
    /// The tokens that were cut off.
    pub cut: usize,
    /// Examples that were refused.
    pub refused: usize,
    /// Why the first of them was, with its place.
    pub first_refused: Option<String>,
}

impl Found {
    fn count(&mut self, example: &Example, tokenizer: &Tokenizer) {
        let last = example.trained.iter().rposition(|&trained| trained).map(|at| example.ids[at]);
        self.examples += 1;
        self.tokens += example.ids.len();
        self.trained += example.targets();
        self.ended += usize::from(last.is_some_and(|id| tokenizer.ends().contains(&id)));
    }

    /// So many tokens of an example were cut off.
    fn cut(&mut self, tokens: usize) {
        self.truncated += usize::from(tokens > 0);
        self.cut += tokens;
    }

    fn refuse(&mut self, (path, line): &(PathBuf, u64), wrong: &str) {
        self.refused += 1;
        self.first_refused.get_or_insert_with(|| format!("{}, line {line}: {wrong}", path.display()));
    }

    /// That nothing in `paths` can be used.
    fn nothing(&self, paths: &[PathBuf], hint: &str) -> Error {
        let name = paths.first().map_or(Path::new("the data"), PathBuf::as_path);
        let found = match &self.first_refused {
            Some(first) => format!("{} that cannot be used; the first: {first}", self.refused),
            None => "none".into(),
        };
        Error::format(name, "examples", "at least one with tokens to train on", found, hint)
    }
}

/// Examples in the order of their files.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    /// Those that can be used.
    pub all: Vec<Example>,
    /// What else there was.
    pub found: Found,
    /// The SHA-256 of all ids and of what of them is trained on.
    pub hash: String,
}

impl Examples {
    /// Reads the examples in `paths`, of at most `longest` tokens each. `progress` is told of bytes read.
    ///
    /// # Errors
    /// A file cannot be read or a line is none of the forms above; the template refuses a conversation; the tokenizer lacks a
    /// character; not one example can be used.
    pub fn read(
        paths: &[PathBuf],
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        longest: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Examples> {
        assert!(longest >= 2, "a token and its target");
        let sources = Sources::objects(paths)?;
        let (bytes, mut read) = (sources.bytes(), 0);
        let mut examples = Examples::default();
        for document in sources.documents() {
            let document = document?;
            read += document.text.len() as u64;
            let at = (document.source.clone(), document.line);
            let form = Form::of(document)?;
            let conversational = form.has_prompt();
            let parts = form.parts(template, tokenizer).map_err(|e| placed(e, &at))?;
            examples.add(&parts, conversational, at, tokenizer, longest)?;
            progress(read.min(bytes), bytes);
        }
        if examples.all.is_empty() {
            return Err(examples.found.nothing(paths, "look at what is trained on with --show-mask 3"));
        }
        examples.hash = digest(&examples.all);
        Ok(examples)
    }

    /// Takes up the parts of an example.
    fn add(
        &mut self,
        parts: &[Part],
        conversational: bool,
        source: (PathBuf, u64),
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<()> {
        if !conversational {
            let (ids, trained) = tokens(parts, tokenizer, &source)?;
            let key = key(parts.iter().map(|part| part.text.as_str()));
            // A window ends where the next one begins, so that every token but the first is a target once.
            for start in (0..ids.len().saturating_sub(1)).step_by(longest - 1) {
                let end = ids.len().min(start + longest);
                let window = |range: Range<usize>| (ids[range.clone()].to_vec(), trained[range].to_vec());
                let (ids, trained) = window(start..end);
                self.take(Example { ids, trained, source: source.clone(), key }, tokenizer);
                self.found.texts += 1;
            }
            return Ok(());
        }
        match Example::of(parts, tokenizer, &source, longest)? {
            Err(wrong) => self.found.refuse(&source, wrong),
            Ok((example, cut)) => {
                self.found.cut(cut);
                self.take(example, tokenizer);
            }
        }
        Ok(())
    }

    fn take(&mut self, example: Example, tokenizer: &Tokenizer) {
        self.found.count(&example, tokenizer);
        self.all.push(example);
    }

    /// The examples apart into those to learn from and those that are held out, a share of about `fraction`: by their
    /// [keys](Example::key), so that those with one prompt fall on one side, wherever they are.
    pub fn split(self, fraction: f64, seed: u64) -> [Vec<Example>; 2] {
        let split = Split { rule: Rule::Document, fraction, seed };
        let (val, train) = self.all.into_iter().partition(|example| split.holds_out(example.key));
        [train, val]
    }
}

/// The tokens of parts, and which of them are trained on.
fn tokens(parts: &[Part], tokenizer: &Tokenizer, source: &(PathBuf, u64)) -> Result<(Vec<u32>, Vec<bool>)> {
    let (mut ids, mut trained) = (Vec::new(), Vec::new());
    for Part { text, train } in parts {
        let part = tokenizer.encode_with_special(text).map_err(|e| placed(e, source))?;
        trained.resize(trained.len() + part.len(), *train);
        ids.extend(part);
    }
    Ok((ids, trained))
}

/// The SHA-256 of all ids and of what of them is trained on.
fn digest<'e>(examples: impl IntoIterator<Item = &'e Example>) -> String {
    let mut sum = Sha256::new();
    for Example { ids, trained, .. } in examples {
        sum.update(bytemuck::cast_slice(ids));
        sum.update(trained.iter().map(|&trained| u8::from(trained)).collect::<Vec<_>>());
    }
    hex(sum)
}

/// A digest as hexadecimal digits.
pub(crate) fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The start of the SHA-256 of these texts.
fn key<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut sum = Sha256::new();
    texts.for_each(|text| sum.update(text));
    sum.finalize()[..8].iter().fold(0, |key, &byte| key << 8 | u64::from(byte))
}

/// An error of a line, with its place.
fn placed(error: Error, (path, line): &(PathBuf, u64)) -> Error {
    let hint = error.hint().unwrap_or_default().to_owned();
    Error::format(path, format!("line {line}"), "an example that becomes tokens", error, hint)
}

#[cfg(test)]
mod tests;
