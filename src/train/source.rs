//! From a recipe's `[data]` to token shards and their tokenizer.

use super::recipe::{Data, Recipe, SplitRule, TokenizerChoice};
use crate::data::dataset::DATASET_FILE;
use crate::data::world::World;
use crate::data::{DatasetInfo, Document, Prepare, Rule, Sources, Split, Tokenizer, prepare};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Where the tokens of a run are: in its own folder, or in a data set that the recipe names.
///
/// `own` is the run's folder for shards. Text (or the built-in world, where the recipe names no data) is tokenised into
/// it; a folder that `kiln data shard` made is used where it is. `progress(what, done, total)` is told of the work.
pub fn shards(recipe: &Recipe, own: &Path, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf> {
    portion(recipe, own, u64::MAX, progress).map(|(path, _)| path)
}

/// As [`shards`], but where tokens are made, it is those of the first `most` bytes of text. Also gives how many times as much text
/// there is.
pub fn portion(
    recipe: &Recipe,
    own: &Path,
    most: u64,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<(PathBuf, f64)> {
    if own.join(DATASET_FILE).is_file() {
        return Ok((own.to_owned(), 1.0));
    }
    let data = &recipe.data;
    let Some(paths) = &data.path else {
        let bytes = data.bytes.min(most);
        let part = Recipe { data: Data { bytes, ..data.clone() }, ..recipe.clone() };
        let documents = || village(&part).map(|(document, _)| Ok(document));
        write(recipe, documents, bytes, own, progress)?;
        return Ok((own.to_owned(), data.bytes as f64 / bytes as f64));
    };
    if let [path] = &paths[..]
        && path.join(DATASET_FILE).is_file()
    {
        return Ok((path.clone(), 1.0));
    }
    if let Some(path) = paths.iter().find(|path| path.extension().is_some_and(|ext| ext == "bin")) {
        return Err(Error::config(
            "data.path",
            format!("{} is a single shard, without a tokenizer and a validation part", path.display()),
            "name the folder that kiln data shard made, or text",
        ));
    }
    let sources = Sources::open(paths, &data.text_field)?;
    let info = write(recipe, || first(sources.documents(), most), sources.bytes().min(most), own, progress)?;
    let taken = info.train.bytes + info.val.bytes;
    let times = if taken < most { 1.0 } else { sources.bytes() as f64 / taken as f64 };
    Ok((own.to_owned(), times.max(1.0)))
}

/// The first `most` bytes of documents, the last one cut at a character.
fn first<D: Iterator<Item = Result<Document>>>(documents: D, most: u64) -> impl Iterator<Item = Result<Document>> {
    documents.scan(most, |left, document| {
        if *left == 0 {
            return None;
        }
        Some(document.map(|mut document| {
            let end = document.text.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let end = (0..=end).rev().find(|&end| document.text.is_char_boundary(end)).unwrap_or(0);
            *left = if end < document.text.len() { 0 } else { *left - end as u64 };
            document.text.truncate(end);
            document
        }))
    })
}

/// The number of token ids of a run before its tokens exist: of its data set where there is one, in its folder `own` or
/// where the recipe says; else of its tokenizer, which for one that is to be learnt is `data.vocab`.
pub fn vocab(recipe: &Recipe, own: Option<&Path>) -> Result<usize> {
    let data = &recipe.data;
    let paths = data.path.iter().flatten().map(PathBuf::as_path);
    if let Some(made) = own.into_iter().chain(paths).find(|path| path.join(DATASET_FILE).is_file()) {
        return Ok(DatasetInfo::load(made)?.tokenizer.vocab);
    }
    Ok(match &data.tokenizer {
        TokenizerChoice::Bpe => data.vocab,
        TokenizerChoice::Byte => Tokenizer::bytes().vocab_size(),
        TokenizerChoice::File(path) => Tokenizer::load(path)?.vocab_size(),
        TokenizerChoice::Char => match &data.path {
            Some(paths) => {
                let sources = Sources::open(paths, &data.text_field)?;
                Tokenizer::chars_of(sources.documents(), &mut |_| {})?.vocab_size()
            }
            None => Tokenizer::chars_of(village(recipe).map(|(document, _)| Ok(document)), &mut |_| {})?.vocab_size(),
        },
    })
}

/// Makes (or loads) the tokenizer, then the shards.
fn write<D: Iterator<Item = Result<Document>> + Send>(
    recipe: &Recipe,
    documents: impl Fn() -> D,
    bytes: u64,
    out: &Path,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<DatasetInfo> {
    let data = &recipe.data;
    // Learning goes over the text on many threads, so it is announced once and not counted.
    progress("learning the tokenizer", 0, 0);
    let tokenizer = match &data.tokenizer {
        TokenizerChoice::Byte => Tokenizer::bytes(),
        TokenizerChoice::Char => Tokenizer::chars_of(documents(), &mut |_| {})?,
        TokenizerChoice::Bpe => Tokenizer::train_bpe(documents(), data.vocab, &|_| {})?,
        TokenizerChoice::File(path) => Tokenizer::load(path)?,
    };
    let rule = match data.split {
        SplitRule::Document => Rule::Document,
        SplitRule::Tail => Rule::Tail,
    };
    let split = Split { rule, fraction: data.val_fraction, seed: data.seed };
    let options = Prepare { split, ..Prepare::default() };
    prepare(documents(), &tokenizer, &options, out, &mut |done| progress("tokenising", done, bytes))
}

/// The stories of the recipe's village, with −ln of the probability with which each is told.
fn village(recipe: &Recipe) -> impl Iterator<Item = (Document, f64)> + Send + use<> {
    let (world, bytes) = (World::new(recipe.data.seed), recipe.data.bytes as usize);
    let (mut index, mut told) = (0, 0);
    std::iter::from_fn(move || {
        if told >= bytes {
            return None;
        }
        let story = world.story(index);
        index += 1;
        told += story.text.len();
        Some((Document { text: story.text, source: "village".into(), line: index, ..Document::default() }, story.nats))
    })
}

/// The entropy of the recipe's built-in corpus in bits a byte: no model can have less; `None` with a user's data.
pub fn floor(recipe: &Recipe) -> Option<f64> {
    if recipe.data.path.is_some() {
        return None;
    }
    let (nats, bytes) = village(recipe).fold((0.0, 0usize), |(n, b), (doc, nats)| (n + nats, b + doc.text.len()));
    Some(nats / (std::f64::consts::LN_2 * bytes as f64))
}
