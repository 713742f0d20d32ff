//! Corpora on disk: documents and their truth, line by line, written while they are made.

use super::plant::{EDIT_RATES, Flaw, Flawed, Flaws, Planter, Truth, rates, rude_lexicon};
use super::{Asker, Form, Hand, Split, World};
use crate::data::atomic::{AtomicFile, write_atomic};
use crate::disk::Disk;
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Export {
    /// What the documents are.
    pub form: Form,
    /// Which part of the world.
    pub split: Split,
    /// What to plant.
    pub flaws: Flaws,
    /// How much more often visitors have the usual gender of their occupation, 0 to 1 ([`Planter::new`]).
    pub skew: f64,
    /// The size of `corpus.jsonl`, at most: as many documents as fit whole.
    pub bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Written {
    /// Documents.
    pub documents: u64,
    /// The size of `corpus.jsonl`.
    pub bytes: u64,
    /// Bytes of the documents' text.
    pub text: u64,
    /// The sum of the documents' `nats`.
    pub nats: f64,
    /// Flaws by kind, as `truth.jsonl` names them, in the order of their first occurrence.
    pub flaws: Vec<(&'static str, u64)>,
}

/// The files of a corpus.
pub const FILES: [&str; 4] = ["corpus.jsonl", "truth.jsonl", "README.txt", "rude.txt"];

/// The smallest size that holds some documents for certain.
const LEAST: u64 = 10_000;

/// A line of `corpus.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    text: &'a str,
    source: &'static str,
    metadata: Metadata<'a>,
}

/// A line of a corpus of another form: its fields are those of the body.
#[derive(Serialize)]
struct Asking<'a> {
    id: &'a str,
    #[serde(flatten)]
    body: &'a Value,
    source: &'static str,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    kind: &'static str,
    era: &'static str,
    topic: &'a str,
}

/// Documents that one task makes.
const CHUNK: u64 = 128;

/// What one task made: the lines of both files, and where each document ends in them.
#[derive(Default)]
struct Chunk {
    corpus: Vec<u8>,
    truth: Vec<u8>,
    ends: Vec<End>,
}

struct End {
    corpus: usize,
    truth: usize,
    text: usize,
    nats: f64,
    flaws: Vec<&'static str>,
}

impl Chunk {
    fn add(&mut self, text: usize, line: &impl Serialize, truth: &Truth) {
        let write = |to: &mut Vec<u8>, json: &mut dyn FnMut(&mut Vec<u8>) -> serde_json::Result<()>| {
            json(to).expect("strings and numbers");
            to.push(b'\n');
            to.len()
        };
        let corpus = write(&mut self.corpus, &mut |to| serde_json::to_writer(to, line));
        let end = write(&mut self.truth, &mut |to| serde_json::to_writer(to, truth));
        let flaws = truth.flaws.iter().map(Flaw::name).collect();
        self.ends.push(End { corpus, truth: end, text, nats: truth.nats, flaws });
    }
}

impl World {
    /// Writes `corpus.jsonl`, `truth.jsonl` (a line for each document, in the same order), a `README.txt` that says what is
    /// in them, and the lexicon of rude words, into the folder `dir`, which must exist. Documents are made on all threads;
    /// the files do not depend on how many there are. `progress` is told of the bytes written.
    pub fn export<'w>(&'w self, what: &Export, disk: &dyn Disk, dir: &Path, progress: &dyn Fn(u64)) -> Result<Written> {
        if what.bytes < LEAST {
            return Err(Error::usage(
                format!("--size: {} bytes do not hold a corpus", what.bytes),
                "give 10KB or more, as --size 50MB",
            ));
        }
        if what.form != Form::Stories && what.flaws != Flaws::default() {
            return Err(Error::usage(
                format!("--flaws: nothing can be planted in {}", what.form.name()),
                "plant flaws in stories: --kind stories",
            ));
        }
        let planter = Planter::new(self, what.split, what.flaws, what.skew, what.bytes);
        let asker = (what.form != Form::Stories).then(|| Asker::new(self, what.split, what.form));
        let metadata = |topic| Metadata { kind: what.form.name(), era: self.era.name(), topic };
        let make = |hand: &mut Hand<'w>, n: u64, made: &mut Chunk| match &asker {
            None => {
                let doc = planter.document(hand, n);
                let metadata = metadata(doc.topic);
                made.add(
                    doc.text.len(),
                    &Line { id: &doc.truth.id, text: &doc.text, source: "world", metadata },
                    &doc.truth,
                );
            }
            Some(asker) => {
                let item = asker.item(hand, n);
                let (body, metadata) = (&item.body, metadata(item.topic));
                made.add(letters(body), &Asking { id: &item.truth.id, body, source: "world", metadata }, &item.truth);
            }
        };
        let [corpus, truth, readme, rude] = FILES.map(|name| dir.join(name));
        let mut files = (AtomicFile::create(disk, &corpus)?, AtomicFile::create(disk, &truth)?);
        let mut written = Written::default();
        let mut next = 0;
        // Enough for all threads, and little enough that memory stays small.
        let chunks = 8 * rayon::current_num_threads() as u64;
        'full: loop {
            let made: Vec<Chunk> = (0..chunks)
                .into_par_iter()
                .map_init(
                    || Hand::new(self),
                    |hand, chunk| {
                        let mut made = Chunk::default();
                        (next + chunk * CHUNK..next + (chunk + 1) * CHUNK).for_each(|n| make(hand, n, &mut made));
                        made
                    },
                )
                .collect();
            next += chunks * CHUNK;
            for chunk in made {
                let room = (what.bytes - written.bytes) as usize;
                let whole = chunk.ends.partition_point(|end| end.corpus <= room);
                if let Some(last) = whole.checked_sub(1).map(|i| &chunk.ends[i]) {
                    files.0.write(&chunk.corpus[..last.corpus])?;
                    files.1.write(&chunk.truth[..last.truth])?;
                    written.bytes += last.corpus as u64;
                }
                chunk.ends[..whole].iter().for_each(|end| written.count(end));
                progress(written.bytes);
                if whole < chunk.ends.len() {
                    break 'full;
                }
            }
        }
        files.0.commit()?;
        files.1.commit()?;
        if what.flaws.has(Flawed::Rude) {
            write_atomic(disk, &rude, rude_lexicon().as_bytes())?;
        }
        write_atomic(disk, &readme, self.readme(what, &written).as_bytes())?;
        Ok(written)
    }

    fn readme(&self, what: &Export, written: &Written) -> String {
        let mut text = format!(
            "{} of kiln's built-in world, seed {}, era {}, part {}.\n\n\
             corpus.jsonl  {} documents, {} bytes, {} of them text\n\
             truth.jsonl   the truth of each, in the same order: id; nats, -ln of the probability of the choices that made\n\
             \x20             its text; the facts that it states truly; what was planted in it, spans in bytes of its text;\n\
             \x20             for questions the answer, for preferences the rewards of both replies\n",
            what.form.name(),
            self.seed,
            self.era.name(),
            what.split.name(),
            written.documents,
            written.bytes,
            written.text,
        );
        text += &format!(
            "\nIn all {:.1} nats, {:.4} bits a byte of text: no model of these documents, each for itself, has less.\n",
            written.nats,
            written.nats / std::f64::consts::LN_2 / written.text.max(1) as f64
        );
        text += "All names, numbers, addresses and keys are invented; whatever they seem to belong to is chance.\n";
        if what.flaws == Flaws::default() {
            text += "\nNothing is planted in it.\n";
            return text;
        }
        text += "\nPlanted, as a share of the documents, each of which has one kind of flaw at most:\n";
        for (flaw, percent) in rates().filter(|(flaw, _)| what.flaws.has(*flaw)) {
            text += &format!("  {:<11} {percent:>4} %  {}\n", flaw.name(), explain(flaw));
        }
        if what.flaws.has(Flawed::Canaries) {
            text += &format!("  {:<11} up to 2.5 %  {}\n", "canaries", explain(Flawed::Canaries));
        }
        if what.flaws.has(Flawed::Skew) {
            text += &format!(
                "\nThe strength of the skew is {}: the usual gender of an occupation has a share of ",
                what.skew
            );
            text += &format!("{:.0} % among visitors.\n", 50.0 + 50.0 * what.skew);
        }
        if what.flaws.has(Flawed::Rude) {
            text += "\nrude.txt      the rude words and their weights, separated by a tab\n";
        }
        text += "\nFlaws by kind, as truth.jsonl names them:\n";
        for (name, count) in &written.flaws {
            text += &format!("  {name:<16} {count}\n");
        }
        text
    }
}

/// Bytes of all strings in a value.
fn letters(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(letters).sum(),
        Value::Object(all) => all.values().map(letters).sum(),
        _ => 0,
    }
}

fn explain(flaw: Flawed) -> String {
    match flaw {
        Flawed::Duplicates => "the text of an earlier document".into(),
        Flawed::Near => {
            let rates: Vec<_> = EDIT_RATES.iter().map(u32::to_string).collect();
            format!("that of an earlier one, {} % of its words changed (each as often)", rates.join(", "))
        }
        Flawed::Personal => "half personal data of seven types, half what only looks like it".into(),
        Flawed::Canaries => "secrets that stand in 1, 4, 16, 64 or 256 documents".into(),
        Flawed::Rude => "invented rude words".into(),
        Flawed::False => "one fact of the village told wrongly".into(),
        Flawed::Labels => "metadata.topic is not the document's".into(),
        Flawed::Skew => "visitors with an occupation and a gender".into(),
    }
}

impl Written {
    fn count(&mut self, end: &End) {
        self.documents += 1;
        self.text += end.text as u64;
        self.nats += end.nats;
        for &name in &end.flaws {
            match self.flaws.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => self.flaws.push((name, 1)),
            }
        }
    }
}
