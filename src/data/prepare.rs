//! Documents to a folder of shards, in one pass.

use std::iter::Peekable;
use std::path::Path;

use rayon::prelude::*;

use super::dataset::{DATASET_FILE, DatasetInfo, Part, PartInfo, ShardInfo, TOKENIZER_FILE, TokenizerInfo};
use super::index::{Fingerprint, IndexWriter, beside, fingerprint, name};
use super::shard::{ShardFormat, ShardWriter};
use super::source::{Document, no_text};
use super::split::{Rule, Split};
use super::tokenizer::Tokenizer;
use crate::disk::{self, Os};
use crate::error::{AtPath, Error, Result};

/// Text is read, then encoded on all threads, in batches of about this many bytes.
const BATCH: usize = 4 << 20;

/// How [`prepare`] splits and stores tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prepare {
    /// What is held out.
    pub split: Split,
    /// The layout of shards.
    pub format: ShardFormat,
    /// Tokens in a shard, at most 2^31 - 1, the most that llm.c's header can count. nanoGPT's format is one file.
    pub max_tokens: usize,
}

impl Default for Prepare {
    fn default() -> Prepare {
        Prepare { split: Split::default(), format: ShardFormat::Llmc, max_tokens: 100_000_000 }
    }
}

/// Tokenises `documents` into shards in the folder `out`, which is made if need be: each document's tokens and, where
/// the tokenizer has one, its end-of-document token. At least one document goes to each side of the split; a single
/// one is cut. Memory holds a few megabytes and the longest document ([`Rule::Tail`]: all text). The bytes written do
/// not depend on the number of threads. `dataset.json` is written last, so a folder that has it is complete.
///
/// Calls `progress` with the bytes of text done.
pub fn prepare(
    documents: impl Iterator<Item = Result<Document>>,
    tokenizer: &Tokenizer,
    options: &Prepare,
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<DatasetInfo> {
    options.split.check()?;
    if !(1..=i32::MAX as usize).contains(&options.max_tokens) {
        return Err(Error::usage(
            "--shard-tokens: a shard holds 1 to 2147483647 tokens",
            "leave the default of 100 million",
        ));
    }
    disk::make_dirs(&Os, out)?;
    let old = DatasetInfo::load(out).ok();
    remove(&out.join(DATASET_FILE))?;

    let shards = |part| Shards::new(part, options, out, tokenizer.vocab_size());
    let mut writer = Writer { tokenizer, progress, done: 0, train: shards(Part::Train), val: shards(Part::Val) };
    let mut documents = documents.filter(|d| !matches!(d, Ok(d) if d.text.is_empty())).peekable();
    let split = if options.split.rule == Rule::Tail {
        let all = documents.collect::<Result<Vec<_>>>()?;
        writer.write(tail(all, &options.split)?)?;
        options.split
    } else {
        by_document(&mut documents, &options.split, &mut writer)?
    };
    let (train, val) = (writer.train.finish()?, writer.val.finish()?);
    tokenizer.save(out.join(TOKENIZER_FILE))?;
    let info = DatasetInfo {
        version: 1,
        tokenizer: TokenizerInfo {
            kind: tokenizer.kind(),
            vocab: tokenizer.vocab_size(),
            eot: tokenizer.eot(),
            sha256: tokenizer.hash(),
        },
        format: options.format,
        split,
        train,
        val,
        mix: Vec::new(),
    };
    info.save(out)?;
    if let Some(old) = old {
        let kept: Vec<_> = info.train.shards.iter().chain(&info.val.shards).map(|s| &s.file).collect();
        for ShardInfo { file, .. } in old.train.shards.iter().chain(&old.val.shards) {
            if !kept.contains(&file) {
                remove(&out.join(file))?;
                remove(&beside(&out.join(file)))?;
            }
        }
    }
    Ok(info)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).at(path),
        _ => Ok(()),
    }
}

/// Text on its way to one side of the split.
struct Item {
    document: Document,
    part: Part,
    /// Whether the document ends here.
    ends: bool,
    /// Characters of the document before this text.
    chars_before: usize,
}

/// Streams documents to their sides; returns the split as it was made (a single document is cut at its tail).
fn by_document(
    documents: &mut Peekable<impl Iterator<Item = Result<Document>>>,
    split: &Split,
    writer: &mut Writer,
) -> Result<Split> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut counts = [0u64; 2];
    for index in 0.. {
        let Some(document) = documents.next().transpose()? else { break };
        let last = documents.peek().is_none();
        if last && index == 0 {
            writer.write(tail(vec![document], split)?)?;
            return Ok(Split { rule: Rule::Tail, ..*split });
        }
        let part = match counts {
            [0, _] if last => Part::Train,
            [_, 0] if last => Part::Val,
            _ if split.holds_out(index) => Part::Val,
            _ => Part::Train,
        };
        counts[usize::from(part == Part::Val)] += 1;
        bytes += document.text.len();
        batch.push(Item { document, part, ends: true, chars_before: 0 });
        if bytes >= BATCH || last {
            writer.write(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    if counts == [0, 0] { Err(no_text()) } else { Ok(*split) }
}

/// Cuts a sequence of documents so that the last `fraction` of its characters is held out.
fn tail(documents: Vec<Document>, split: &Split) -> Result<Vec<Item>> {
    let count = |document: &Document| document.text.chars().count();
    let total: usize = documents.iter().map(count).sum();
    if total < 2 {
        return Err(Error::failed("one character is too little text to hold some of it out", "give more text"));
    }
    let mut head = split.head(total);
    let mut items = Vec::with_capacity(documents.len() + 1);
    for mut document in documents {
        let chars = count(&document);
        let mut chars_before = 0;
        if head > 0 && head < chars {
            let cut = document.text.char_indices().nth(head).map_or(document.text.len(), |(at, _)| at);
            let rest = document.text.split_off(cut);
            let first = Document { text: std::mem::replace(&mut document.text, rest), ..document.clone() };
            items.push(Item { document: first, part: Part::Train, ends: false, chars_before });
            (chars_before, head) = (head, 0);
        }
        let part = if head > 0 { Part::Train } else { Part::Val };
        head = head.saturating_sub(chars);
        items.push(Item { document, part, ends: true, chars_before });
    }
    Ok(items)
}

struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    progress: &'a mut dyn FnMut(u64),
    done: u64,
    train: Shards<'a>,
    val: Shards<'a>,
}

impl Writer<'_> {
    /// Encodes texts on all threads and writes their tokens in order.
    fn write(&mut self, items: Vec<Item>) -> Result<()> {
        let tokenizer = self.tokenizer;
        // (item, piece, byte offset of the piece in its text)
        let pieces: Vec<(&Item, &str, usize)> = items
            .iter()
            .flat_map(|item| {
                tokenizer.pieces(&item.document.text).scan(0, move |at, piece| {
                    *at += piece.len();
                    Some((item, piece, *at - piece.len()))
                })
            })
            .collect();
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |&&(_, piece, _): &&(_, &str, _)| {
                bytes += piece.len();
                bytes <= BATCH
            };
            let n = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(n);
            let encoded: Vec<Result<_>> = now
                .par_iter()
                .map(|&(item, piece, at)| {
                    let begins = (at == 0).then(|| (name(&item.document), fingerprint(&item.document.text)));
                    Ok((begins, encode(tokenizer, item, piece, at)?))
                })
                .collect();
            for (&(item, piece, at), encoded) in now.iter().zip(encoded) {
                let (begins, ids) = encoded?;
                let shards = if item.part == Part::Train { &mut self.train } else { &mut self.val };
                if let Some((name, fingerprint)) = begins {
                    shards.begin(name, fingerprint);
                }
                shards.push(&ids)?;
                shards.count(piece.len() as u64);
                if at + piece.len() == item.document.text.len() {
                    shards.info.documents += 1;
                    if item.ends
                        && let Some(eot) = tokenizer.eot()
                    {
                        shards.push(&[eot])?;
                    }
                }
                self.done += piece.len() as u64;
            }
            (self.progress)(self.done);
            rest = later;
        }
        Ok(())
    }
}

/// The ids of a piece of an item's text, `at` bytes from its start.
fn encode(tokenizer: &Tokenizer, item: &Item, piece: &str, at: usize) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    tokenizer.encode_piece(piece, &mut ids).map_err(|e| {
        let Document { text, source, line, .. } = &item.document;
        let character = item.chars_before + text[..at + e.at].chars().count() + 1;
        let at = format!("the document that starts on line {line}, character {character}");
        Error::format(source, at, "text that the tokenizer knows", e.found, tokenizer.unencodable_hint())
    })?;
    Ok(ids)
}

/// The shards of one side, opened as they fill.
struct Shards<'a> {
    part: Part,
    options: &'a Prepare,
    out: &'a Path,
    vocab: usize,
    info: PartInfo,
    current: Option<(ShardWriter, IndexWriter)>,
    /// The document whose tokens come.
    document: (String, Fingerprint),
    /// None of them has come yet.
    begins: bool,
}

impl<'a> Shards<'a> {
    fn new(part: Part, options: &'a Prepare, out: &'a Path, vocab: usize) -> Shards<'a> {
        Shards {
            part,
            options,
            out,
            vocab,
            info: PartInfo::default(),
            current: None,
            document: Default::default(),
            begins: true,
        }
    }

    /// The tokens that are pushed from now on are of this document.
    fn begin(&mut self, name: String, fingerprint: Fingerprint) {
        self.document = (name, fingerprint);
        self.begins = true;
    }

    /// The tokens pushed last stand for so many bytes of text.
    fn count(&mut self, bytes: u64) {
        self.info.bytes += bytes;
        if let Some((_, index)) = &mut self.current {
            index.count(bytes);
        }
    }

    fn push(&mut self, mut ids: &[u32]) -> Result<()> {
        let nanogpt = self.options.format == ShardFormat::Nanogpt;
        let limit = if nanogpt { usize::MAX } else { self.options.max_tokens };
        while !ids.is_empty() {
            if self.current.as_ref().is_some_and(|(writer, _)| writer.tokens() as usize == limit) {
                self.close()?;
            }
            let (writer, index) = match &mut self.current {
                Some(current) => current,
                empty => {
                    let number = self.info.shards.len();
                    let file =
                        if nanogpt { format!("{}.bin", self.part) } else { format!("{}_{number:03}.bin", self.part) };
                    let writer = ShardWriter::create(&self.out.join(&file), self.options.format, self.vocab)?;
                    self.info.shards.push(ShardInfo { file, tokens: 0, sha256: String::new() });
                    empty.insert((writer, IndexWriter::default()))
                }
            };
            if self.begins || writer.tokens() == 0 {
                index.add(&self.document.0, writer.tokens(), !self.begins, self.document.1);
                self.begins = false;
            }
            let (now, later) = ids.split_at(ids.len().min(limit - writer.tokens() as usize));
            writer.push(now)?;
            ids = later;
            // A full one is closed when more comes: what was pushed is yet to be counted.
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let (Some((writer, index)), Some(shard)) = (self.current.take(), self.info.shards.last_mut()) {
            shard.tokens = writer.tokens();
            self.info.tokens += shard.tokens;
            shard.sha256 = writer.finish()?;
            index.finish(&self.out.join(&shard.file), shard.tokens)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<PartInfo> {
        self.close()?;
        Ok(self.info)
    }
}
