//! From documents to documents that can be trained on, with a ledger of what was done to each.
//!
//! Three passes, so that memory does not grow with the data:
//!
//! 1. `first`: every document is repaired, judged by language and quality, and what stays is written to parts on disk,
//!    with the hashes of its text, its paragraphs and its MinHash bands.
//! 2. The hashes are sorted on disk: `exact` and `near` duplicates, paragraphs; `labels` that look wrong.
//! 3. `last`: what stays is written out without paragraphs that were there before, with personal data masked, and with
//!    lexicons and evaluation texts looked for.
//!
//! Everything on the way lies in the folder `.work` in the output folder, in parts whose ends depend on the documents
//! alone; a part is done when its `.json` is there. So a run that was killed goes on, and neither that, nor the number of
//! threads, nor the memory it may use changes a byte of the result. [`rules`] lists all rules.

pub mod ablate;
mod evaluation;
mod exact;
mod first;
mod labels;
mod language;
mod last;
mod layout;
mod lexicon;
mod minhash;
mod near;
mod pack;
pub mod personal;
mod quality;
mod recipe;
mod report;
pub mod rules;
mod score;
mod sort;
mod spool;
mod tally;
mod words;
mod work;

pub use lexicon::Lexicon;
pub use minhash::MinHash;
pub use recipe::{CLEAN, Keep, Mode, Recipe};
pub use report::Report;
pub use score::{Rate, Score};
pub use tally::{Action, Count, Sample, Size, Tally};
pub use words::Words;
pub use work::DOCUMENTS;

use crate::data::Sources;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};
use spool::Bits;
use std::path::PathBuf;
use work::Work;

/// The least memory that a run can do with, beside what the longest documents take.
pub const MIN_MEMORY: usize = 128 << 20;

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done.
    pub recipe: Recipe,
    /// The folder of the result.
    pub out: PathBuf,
    /// The field of the text in JSON lines of evaluation files.
    pub text_field: String,
    /// Bytes of memory, roughly; at least [`MIN_MEMORY`].
    pub memory: usize,
    /// Threads; 0: all.
    pub threads: usize,
    /// A file whose content keys the hashes of personal data; without one, the text of the input does.
    pub key_file: Option<PathBuf>,
    /// Whether the ledger holds personal data in clear text.
    pub clear_text: bool,
    /// What was planted into the documents, to count how much of it was found.
    pub truth: Option<PathBuf>,
}

impl Options {
    /// Text in the field `text`, all threads, and as much memory as small corpora need.
    pub fn new(recipe: Recipe, out: PathBuf) -> Options {
        Options {
            recipe,
            out,
            text_field: "text".into(),
            memory: 4 * MIN_MEMORY,
            threads: 0,
            key_file: None,
            clear_text: false,
            truth: None,
        }
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does, as "finding near-duplicates".
    pub what: &'static str,
    /// How much of that is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
    /// Whether both are bytes of text.
    pub bytes: bool,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Counts, samples, hashes: what `report.json` holds.
    pub report: Report,
    /// How much of what was planted was found, where a truth was given.
    pub score: Option<Score>,
}

/// Cleans the documents of `sources`.
///
/// # Errors
/// A source, a lexicon or an evaluation file cannot be read; a setting cannot be used; the result cannot be written.
/// What was done until then is kept, and the next call with the same settings goes on from there.
pub fn clean(sources: &Sources, options: &Options, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Outcome> {
    if options.memory < MIN_MEMORY {
        let problem = format!("--mem: {} MB are too few", options.memory >> 20);
        return Err(Error::usage(problem, format!("give at least {} MB", MIN_MEMORY >> 20)));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::failed(format!("threads cannot be started: {e}"), "lower --threads"))?;
    pool.install(|| run(sources, options, progress))
}

fn run(sources: &Sources, options: &Options, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Outcome> {
    let Options { recipe, memory, .. } = options;
    let rules = recipe.rules()?;
    // What can be wrong with settings and their files is told before the work.
    let lexicon = lexicon::Lexicon::load(&recipe.lexicons.files)?;
    let evaluation =
        evaluation::Evaluation::load(&recipe.evaluation.files, &options.text_field, recipe.evaluation.gram)?;
    let truth = options.truth.as_deref().map(score::Truth::load).transpose()?;
    let key_file = options.key_file.as_ref().map(|path| disk::read(&Os, path)).transpose()?;
    let work = Work::open(sources, options, key_file.as_deref())?;
    let first = first::run(sources, recipe, &work, progress)?;
    let spool = work.spool()?;
    let mut removed = Bits::new(spool.len());
    let dir = work.dir();
    let runs = |what| work.runs(what, spool.parts());

    // Each file is whole or absent; what is there was made before.
    let step = |what| Progress { what, done: 0, total: 0, bytes: false };
    if rules.has(rules::Rule::Exact) && !work.exact().is_file() {
        progress(step("finding duplicates"));
        exact::documents(&runs("documents")?, &mut removed, dir, *memory, &work.exact())?;
    }
    work.read::<2>(&work.exact(), |[document, _]| removed.insert(document as u32))?;
    if rules.has(rules::Rule::Near) && !work.near().is_file() {
        if !work.candidates().is_file() {
            progress(step("finding near-duplicates"));
            near::candidates(&runs("bands")?, &removed, dir, *memory, &work.candidates())?;
        }
        let total = work.candidates().metadata().at(work.candidates())?.len() / 16;
        let mut tell = |done| progress(Progress { what: "comparing near-duplicates", done, total, bytes: false });
        let (from, to) = (work.candidates(), work.near());
        near::verify(&from, &spool, &recipe.duplicates, &mut removed, dir, *memory, &to, &mut tell)?;
    }
    work.read::<3>(&work.near(), |[document, _, _]| removed.insert(document as u32))?;
    if rules.has(rules::Rule::Paragraphs) && !work.blocks().is_file() {
        progress(step("finding repeated paragraphs"));
        exact::blocks(&runs("blocks")?, &removed, dir, *memory, &work.blocks())?;
    }
    if rules.has(rules::Rule::Label) && !recipe.labels.field.is_empty() && !work.label_names().is_file() {
        let total = (recipe.labels.epochs * spool.parts()) as u64;
        let mut tell = |done| progress(Progress { what: "judging labels", done, total, bytes: false });
        let names = labels::suspects(&spool, &removed, &recipe.labels, dir, *memory, &work.labels(), &mut tell)?;
        work.save_label_names(&names)?;
    }

    let stages = last::Stages {
        personal: personal::PersonalFilter::new(
            &recipe.personal,
            rules,
            first.key(key_file.as_deref()),
            options.clear_text,
        )?,
        lexicon,
        evaluation,
        labels: work.load_label_names()?,
        rules,
        recipe,
    };
    let mut tally = first.tally.clone();
    tally.merge(last::run(&stages, &spool, &work, progress)?);
    let hashes = work.assemble(spool.parts(), first.parts)?;
    let report = Report::new(tally, &first, hashes, sources, options, &stages)?;
    report.save(&options.out)?;
    let score = truth.map(|truth| score::score(&truth, &work, &spool, options)).transpose()?;
    work.remove()?;
    Ok(Outcome { report, score })
}

#[cfg(test)]
mod tests;
