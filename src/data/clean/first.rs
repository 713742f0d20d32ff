//! The first pass: repair, language and quality; what stays goes to disk with its hashes.

use super::layout::Layout;
use super::minhash::MinHash;
use super::quality::{self, Analysis, C4Filter};
use super::recipe::Recipe;
use super::rules::{RULES, Rule, RuleSet};
use super::sort::Record;
use super::spool::Stored;
use super::tally::{Action, Event, Size, Tally};
use super::words::Words;
use super::work::Work;
use super::{Progress, exact, language, near};
use crate::data::repair::repair;
use crate::data::source::Skips;
use crate::data::{Document, Sources, index};
use crate::error::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::sync_channel;

/// A part ends with the document that reaches this many bytes of text, or this many hashes. It bounds memory, what is lost
/// when a run is killed, and the frames of the output: never change it with `--mem`.
const PART: usize = 16 << 20;
const PART_HASHES: usize = 1 << 20;
/// Bytes of text that are worked on at once.
const BATCH: usize = 2 << 20;

/// What the first pass leaves beside its files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct First {
    /// What was read and what rules did.
    pub tally: Tally,
    /// Parts.
    pub parts: usize,
    /// The chain of the hashes of all texts: it says what was read, and must not be shown.
    chain: [u8; 32],
    /// What could not be read, by reason.
    pub skipped: BTreeMap<String, u64>,
}

impl First {
    /// The key of the hashes of personal data.
    pub fn key(&self, file: Option<&[u8]>) -> [u8; 32] {
        let hash = Sha256::new().chain_update("kiln: key of the ledger\0");
        match file {
            Some(bytes) => hash.chain_update("file\0").chain_update(bytes),
            None => hash.chain_update("text\0").chain_update(self.chain),
        }
        .finalize()
        .into()
    }

    /// What tells this input from any other; it gives away nothing of the key.
    pub fn content(&self) -> String {
        super::work::hex(&Sha256::new().chain_update("kiln: content\0").chain_update(self.chain).finalize())
    }
}

/// What becomes of one document.
struct Judged {
    name: String,
    group: String,
    digest: [u8; 32],
    bytes: usize,
    events: Vec<Event>,
    /// What is written where it stays: its record, its bytes, its hashes.
    kept: Option<Kept>,
}

struct Kept {
    record: Vec<u8>,
    text: [u64; 2],
    bytes: usize,
    blocks: Vec<(usize, [u64; 2])>,
    bands: Vec<u64>,
}

/// The stages of the pass.
struct Stages<'a> {
    recipe: &'a Recipe,
    rules: RuleSet,
    language: language::LanguageFilter,
    c4: C4Filter,
    hashes: MinHash,
    /// Whether any rule looks at the words or the lines of a text.
    looks: bool,
}

#[derive(Default)]
struct Scratch {
    words: Words,
    set: Vec<u64>,
    signature: Vec<u32>,
}

impl Stages<'_> {
    fn judge(&self, document: Document, scratch: &mut Scratch) -> Judged {
        let name = index::name(&document);
        let Document { text, source, metadata, encoding, .. } = document;
        let (source, metadata) = provenance(&source, metadata);
        let group = match self.recipe.datasheet.group.as_str() {
            "" => source.clone(),
            field => match metadata.get(field) {
                Some(Value::String(group)) => group.clone(),
                Some(Value::Null) | None => "none".to_owned(),
                Some(other) => other.to_string(),
            },
        };
        let (digest, bytes) = (Sha256::digest(text.as_bytes()).into(), text.len());
        let mut judged = Judged { name, group, digest, bytes, events: Vec::new(), kept: None };
        let mut text = self.repair(text, encoding, &mut judged.events);
        if let Some((text, layout)) = self.filter(&mut text, &mut judged.events, scratch) {
            let stored = Stored {
                name: (&judged.name).into(),
                source: source.into(),
                metadata: printed(&metadata).into(),
                text: text.into(),
            };
            let mut kept = Kept {
                record: Vec::with_capacity(text.len() + 200),
                text: exact::hash(text),
                bytes: text.len(),
                blocks: Vec::new(),
                bands: Vec::new(),
            };
            stored.write(&mut kept.record);
            if self.rules.has(Rule::Paragraphs) {
                kept.blocks.extend(exact::paragraphs(text, &layout, self.recipe.duplicates.min_paragraph));
            }
            if self.rules.has(Rule::Near) {
                scratch.words.shingles(self.recipe.duplicates.gram, &mut scratch.set);
                self.hashes.sign(&scratch.set, &mut scratch.signature);
                kept.bands.extend(self.hashes.bands(&scratch.signature));
            }
            judged.kept = Some(kept);
        }
        judged
    }

    fn repair(&self, text: String, encoding: Option<&str>, events: &mut Vec<Event>) -> String {
        if !self.rules.has(Rule::Repair) {
            return text;
        }
        let (repaired, repairs) = repair(&text, &self.recipe.repair);
        if repairs.is_none() && encoding.is_none() {
            return text;
        }
        let mut evidence = json!(repairs);
        if let Some(counts) = evidence.as_object_mut() {
            counts.retain(|_, n| *n != json!(0));
            counts.extend(encoding.map(|name| ("encoding".to_owned(), json!(name))));
        }
        let bytes = text.len().saturating_sub(repaired.len()) as u64;
        events.push(Event::new(Rule::Repair, Action::Edited, evidence, bytes, &repaired));
        match repaired {
            Cow::Owned(repaired) => repaired,
            Cow::Borrowed(_) => text,
        }
    }

    /// The text without the lines that go, and its layout; nothing where the document goes. The words of the text are in
    /// `scratch` afterwards.
    fn filter<'t>(
        &self,
        text: &'t mut String,
        events: &mut Vec<Event>,
        scratch: &mut Scratch,
    ) -> Option<(&'t str, Layout)> {
        let gone = |events: &mut Vec<Event>, text: &str, (rule, evidence)| {
            events.push(Event::removed(rule, evidence, text));
            None
        };
        if !self.looks {
            return Some((text, Layout::default()));
        }
        scratch.words.read(text);
        if let Some(reason) = self.language.judge(text, &scratch.words) {
            return gone(events, text, reason);
        }
        let mut layout = Layout::of(text);
        let (edited, placeholder) = self.c4.edit(text, &layout, events);
        if let Some(edited) = edited {
            *text = edited;
            scratch.words.read(text);
            layout = Layout::of(text);
        }
        if let Some(reason) = self.c4.judge(text, placeholder) {
            return gone(events, text, reason);
        }
        let analysis = Analysis { text, layout, words: &scratch.words };
        if let Some(reason) = quality::judge(&analysis, self.recipe, self.rules) {
            return gone(events, text, reason);
        }
        Some((text, analysis.layout))
    }
}

fn printed(metadata: &Map<String, Value>) -> String {
    serde_json::to_string(metadata).expect("plain data is printable")
}

/// The source and the metadata of a document: those that its own line states where it is one of kiln's lines, `{"id",
/// "text", "source", "metadata"}`, so that cleaning twice does not wrap them up twice; else its file and its other fields.
fn provenance(file: &Path, mut fields: Map<String, Value>) -> (String, Map<String, Value>) {
    match (fields.remove("source"), fields.remove("metadata")) {
        (Some(Value::String(source)), Some(Value::Object(metadata))) if fields.is_empty() => (source, metadata),
        (source, metadata) => {
            fields.extend(source.map(|value| ("source".to_owned(), value)));
            fields.extend(metadata.map(|value| ("metadata".to_owned(), value)));
            (file.to_string_lossy().into_owned(), fields)
        }
    }
}

/// A part that is being made.
#[derive(Default)]
struct Part {
    spool: Vec<u8>,
    ledger: String,
    documents: Vec<Record<3>>,
    blocks: Vec<Record<3>>,
    bands: Vec<Record<2>>,
    read: usize,
    tally: Tally,
}

impl Part {
    fn is_full(&self) -> bool {
        self.read >= PART || self.blocks.len() + self.bands.len() >= PART_HASHES
    }

    fn add(&mut self, judged: Judged, document: u32, recipe: &Recipe) {
        let Judged { name, group, bytes, events, kept, .. } = judged;
        self.read += bytes;
        self.tally.read.add(bytes);
        self.tally.group(&group, 0, bytes);
        for event in events {
            self.ledger += &event.line(&name);
            self.tally.add(&name, event);
        }
        let Some(kept) = kept else { return };
        self.spool.extend(kept.record);
        self.documents.push([kept.text[0], kept.text[1], document.into()]);
        let key = near::key(recipe.duplicates.keep, document, kept.bytes);
        self.bands.extend(kept.bands.into_iter().map(|band| [band, key]));
        self.blocks.extend(kept.blocks.into_iter().map(|(i, [a, b])| [a, b, exact::place(document, i)]));
    }

    /// Saves the part.
    fn save(&mut self, work: &Work, first: &mut First) -> Result<()> {
        self.documents.par_sort_unstable();
        self.blocks.par_sort_unstable();
        self.bands.par_sort_unstable();
        let files = [
            ("spool", &self.spool[..]),
            ("ledger", self.ledger.as_bytes()),
            ("documents", bytemuck::cast_slice(self.documents.as_flattened())),
            ("blocks", bytemuck::cast_slice(self.blocks.as_flattened())),
            ("bands", bytemuck::cast_slice(self.bands.as_flattened())),
        ];
        first.tally.merge(std::mem::take(&mut self.tally));
        first.parts += 1;
        work.save_part("first", first.parts - 1, &files, first)?;
        *self = Part::default();
        Ok(())
    }
}

/// What was read.
struct Read {
    documents: Vec<Document>,
    /// Bytes of files that were read so far.
    bytes: u64,
    /// At the end, what was passed over.
    skips: Option<Skips>,
}

/// Reads all documents but the first `done`, batch by batch, as long as `send` wants more.
fn read(sources: &Sources, done: u64, send: &mut dyn FnMut(Result<Read>) -> bool) {
    let mut all = sources.documents();
    let (mut documents, mut size, mut number) = (Vec::new(), 0, 0);
    while let Some(document) = all.next() {
        let document = match document {
            Ok(document) => document,
            Err(e) => {
                send(Err(e));
                return;
            }
        };
        number += 1;
        if number <= done {
            continue;
        }
        size += document.text.len();
        documents.push(document);
        if size >= BATCH {
            size = 0;
            if !send(Ok(Read { documents: std::mem::take(&mut documents), bytes: all.bytes(), skips: None })) {
                return;
            }
        }
    }
    send(Ok(Read { documents, bytes: all.bytes(), skips: Some(all.skips().clone()) }));
}

/// Runs the pass, or what is left of it.
pub fn run(
    sources: &Sources,
    recipe: &Recipe,
    work: &Work,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<First> {
    if let Some(first) = work.load_first()? {
        return Ok(first);
    }
    let rules = recipe.rules()?;
    let stages = Stages {
        recipe,
        rules,
        language: language::LanguageFilter::new(&recipe.language, rules)?,
        c4: C4Filter::new(&recipe.c4, rules),
        hashes: MinHash::new(recipe.duplicates.bands, recipe.duplicates.rows, recipe.duplicates.seed),
        looks: RULES[Rule::Language as usize..=Rule::Paragraphs as usize]
            .iter()
            .any(|info| info.rule != Rule::Exact && rules.has(info.rule)),
    };
    let mut first = First::default();
    if let Some(last) = work.parts("first").checked_sub(1) {
        first = work.load_part("first", last)?.unwrap_or_default();
    }
    let mut documents: u32 = (0..first.parts).map(|part| documents_in(work, part)).sum::<Result<u32>>()?;
    let done: Size = first.tally.read;
    std::thread::scope(|scope| -> Result<()> {
        let (sender, receiver) = sync_channel::<Result<Read>>(1);
        // Where the other end went on an error of its own, nobody listens.
        scope.spawn(move || read(sources, done.documents, &mut |read| sender.send(read).is_ok()));
        let mut part = Part::default();
        for batch in receiver {
            let batch = batch?;
            let judged: Vec<Judged> = batch
                .documents
                .into_par_iter()
                .map_init(Scratch::default, |scratch, document| stages.judge(document, scratch))
                .collect();
            for judged in judged {
                let chain = Sha256::new().chain_update(first.chain).chain_update(judged.digest);
                first.chain = chain.finalize().into();
                let stays = judged.kept.is_some();
                part.add(judged, documents, recipe);
                documents += u32::from(stays);
                if part.is_full() {
                    part.save(work, &mut first)?;
                }
            }
            let (done, total) = (batch.bytes, sources.bytes());
            progress(Progress { what: "reading and filtering", done, total, bytes: true });
            if let Some(skips) = batch.skips {
                let named = skips.counts.into_iter().map(|(reason, n)| (reason.describe().to_owned(), n));
                first.skipped = named.collect();
            }
        }
        if part.read > 0 || first.parts == 0 {
            part.save(work, &mut first)?;
        }
        Ok(())
    })?;
    work.save_first(&first)?;
    Ok(first)
}

fn documents_in(work: &Work, part: usize) -> Result<u32> {
    let path = work.file("first", part, "documents");
    Ok((crate::error::AtPath::at(path.metadata(), &path)?.len() / 24) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_kiln_keep_their_source_and_metadata() {
        let of = |line: Value| provenance(Path::new("a.jsonl"), line.as_object().unwrap().clone());
        let own = of(json!({"source": "world", "metadata": {"topic": "x"}}));
        assert_eq!(own, ("world".to_owned(), json!({"topic": "x"}).as_object().unwrap().clone()));
        for line in [json!({"source": "b"}), json!({"source": 1, "metadata": {}}), json!({"url": "u", "metadata": {}})]
        {
            assert_eq!(of(line.clone()), ("a.jsonl".to_owned(), line.as_object().unwrap().clone()));
        }
    }
}
