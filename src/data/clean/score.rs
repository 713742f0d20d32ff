//! How much of what was planted into documents was found, and how much of what was found was planted.
//!
//! A truth is a file of JSON lines, one for each document, `{"id", "flaws": [{"kind", …}]}`, as `kiln data world` writes
//! it. A flaw counts where its document came to the rule in question as it was planted: one that an earlier rule removed
//! or changed says nothing. A duplicate is found where one of the pair is removed. A finding of personal data is right
//! where it is of the planted kind and shares nine tenths of its bytes with what was planted.

use super::Options;
use super::minhash::MinHash;
use super::recipe::Duplicates;
use super::rules::Rule;
use super::spool::{Bits, Spool};
use super::words::Words;
use super::work::{DOCUMENTS, LEDGER, Work};
use crate::error::{AtPath, Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A flaw as a truth states it; of other kinds only the name is read.
#[derive(Clone, Debug, Default, Deserialize)]
struct Flaw {
    kind: String,
    #[serde(default)]
    of: String,
    #[serde(default)]
    edit_rate: f64,
    #[serde(default)]
    jaccard: f64,
    #[serde(default, rename = "type")]
    sort: String,
    #[serde(default)]
    start: usize,
    #[serde(default)]
    end: usize,
    #[serde(default)]
    secret: String,
    #[serde(default)]
    repeats: u64,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    flaws: Vec<Flaw>,
}

/// What was planted, by document.
pub struct Truth(HashMap<String, Vec<Flaw>>);

impl Truth {
    /// Reads a truth.
    pub fn load(path: &Path) -> Result<Truth> {
        let mut flaws = HashMap::new();
        for (number, line) in (1..).zip(BufReader::new(File::open(path).at(path)?).lines()) {
            let line: Line = serde_json::from_str(&line.at(path)?).map_err(|e| {
                let hint = "a truth is what kiln data world writes beside a corpus";
                Error::format(path, format!("line {number}"), "a document's id and flaws", e, hint)
            })?;
            if !line.flaws.is_empty() {
                flaws.insert(line.id, line.flaws);
            }
        }
        Ok(Truth(flaws))
    }

    fn each<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Flaw)> {
        let all = self.0.iter().flat_map(|(id, flaws)| flaws.iter().map(move |flaw| (id.as_str(), flaw)));
        all.filter(move |(_, flaw)| flaw.kind == kind)
    }
}

/// How well one thing is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// The thing.
    pub what: String,
    /// How many were planted, where they could be found.
    pub planted: u64,
    /// How many of these were found.
    pub found: u64,
    /// How many findings there are.
    pub reported: u64,
    /// How many of these were planted.
    pub right: u64,
}

impl Rate {
    /// The share of the planted that was found.
    pub fn recall(&self) -> Option<f64> {
        (self.planted > 0).then(|| self.found as f64 / self.planted as f64)
    }

    /// The share of the findings that is right.
    pub fn precision(&self) -> Option<f64> {
        (self.reported > 0).then(|| self.right as f64 / self.reported as f64)
    }
}

/// Near-duplicates of one edit rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Edited {
    /// The share of words that were changed.
    pub edit_rate: f64,
    /// Pairs.
    pub pairs: u64,
    /// Their mean similarity.
    pub jaccard: f64,
    /// The share that was compared because they met in a band.
    pub met: f64,
    /// The same, on average over ten choices of hash functions: one choice serves all pairs, so that its luck shows.
    pub met_by_ten: f64,
    /// The share that meets by the formula 1 − (1 − J^rows)^bands.
    pub expected: f64,
    /// The share of which one was removed.
    pub removed: f64,
}

/// How well everything is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// By thing.
    pub rates: Vec<Rate>,
    /// Near-duplicates by edit rate.
    pub edited: Vec<Edited>,
    /// Things that look like personal data and are none: how many there are, how many were taken for some.
    pub hard_negatives: BTreeMap<String, [u64; 2]>,
    /// Canaries that occur once: how many there are, how many are in the output as they were.
    pub canaries: [u64; 2],
    /// Documents whose flaws do not count because an earlier rule removed or changed them.
    pub passed_over: u64,
}

/// Which documents belong together, by planted duplicates.
struct Families<'a>(HashMap<&'a str, &'a str>);

impl<'a> Families<'a> {
    fn new(truth: &'a Truth) -> Families<'a> {
        let pairs = truth.each("exact_duplicate").chain(truth.each("near_duplicate"));
        Families(pairs.map(|(id, flaw)| (id, flaw.of.as_str())).collect())
    }

    fn root(&self, mut id: &'a str) -> &'a str {
        // As deep as copies of copies go; a circle in a wrong file ends too.
        for _ in 0..64 {
            match self.0.get(id) {
                Some(of) => id = of,
                None => break,
            }
        }
        id
    }
}

/// A found span of personal data.
type Span = (String, usize, usize);

/// What the ledger says.
#[derive(Default)]
struct Ledger {
    /// Documents that a rule before personal data changed.
    edited: HashSet<String>,
    personal: HashMap<String, Vec<Span>>,
    /// Documents by rule.
    marked: HashMap<&'static str, HashSet<String>>,
}

impl Ledger {
    fn load(path: &Path) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for line in BufReader::new(File::open(path).at(path)?).lines() {
            let line: Value = serde_json::from_str(&line.at(path)?).unwrap_or_default();
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let (document, rule, action) = (text("document"), text("rule"), text("action"));
            if rule == Rule::Personal.name() {
                let number = |span: &Value, key: &str| span[key].as_u64().unwrap_or_default() as usize;
                let spans = line["evidence"]["found"].as_array().into_iter().flatten();
                let spans = spans
                    .map(|s| (s["kind"].as_str().unwrap_or_default().to_owned(), number(s, "start"), number(s, "end")));
                ledger.personal.insert(document, spans.collect());
                continue;
            }
            let marks = [Rule::Lexicon, Rule::Label].into_iter().find(|known| known.name() == rule);
            if let Some(marks) = marks {
                ledger.marked.entry(marks.name()).or_default().insert(document);
            } else if action == "edited" {
                ledger.edited.insert(document);
            }
        }
        Ok(ledger)
    }
}

/// Scores a run whose folder of work is still there.
pub(super) fn score(truth: &Truth, work: &Work, spool: &Spool, options: &Options) -> Result<Score> {
    let mut names = Vec::with_capacity(spool.len() as usize);
    for part in 0..spool.parts() {
        let bytes = spool.part(part)?;
        for i in 0..bytes.len() {
            names.push(bytes.get(i)?.name.clone().into_owned());
        }
    }
    let numbers: HashMap<&str, u32> = (0..).zip(&names).map(|(i, name)| (name.as_str(), i)).collect();
    let families = Families::new(truth);
    let ledger = Ledger::load(&options.out.join(LEDGER))?;
    let (mut exact, mut near) = (Bits::new(spool.len()), Bits::new(spool.len()));
    let mut score = Score::default();

    let mut rate = Rate { what: "exact duplicates".into(), ..Rate::default() };
    let mut pairs = Vec::new();
    work.read::<2>(&work.exact(), |[document, first]| pairs.push([document as u32, first as u32]))?;
    for [document, first] in pairs {
        exact.insert(document);
        rate.reported += 1;
        let text = spool.with(first, |first| first.text.clone().into_owned())?;
        rate.right += u64::from(spool.with(document, |document| document.text == text)?);
    }
    for (id, flaw) in truth.each("exact_duplicate") {
        if let (Some(&a), Some(&b)) = (numbers.get(id), numbers.get(flaw.of.as_str())) {
            rate.planted += 1;
            rate.found += u64::from(exact.has(a) || exact.has(b));
        }
    }
    score.rates.push(rate);

    let mut rate = Rate { what: "near-duplicates, J ≥ 0.85".into(), ..Rate::default() };
    let name = |number: u64| names[number as u32 as usize].as_str();
    work.read::<3>(&work.near(), |[document, stays, _]| {
        near.insert(document as u32);
        rate.reported += 1;
        rate.right += u64::from(families.root(name(document)) == families.root(name(stays)));
    })?;
    // Pairs by number, the flaw, whether they met.
    let mut planted: HashMap<[u32; 2], (&Flaw, bool)> = HashMap::new();
    for (id, flaw) in truth.each("near_duplicate") {
        if let (Some(&a), Some(&b)) = (numbers.get(id), numbers.get(flaw.of.as_str()))
            && !exact.has(a)
            && !exact.has(b)
        {
            planted.insert([a.min(b), a.max(b)], (flaw, false));
        }
    }
    work.read::<2>(&work.candidates(), |[a, b]| {
        let (a, b) = (a as u32, b as u32);
        if let Some((_, met)) = planted.get_mut(&[a.min(b), a.max(b)]) {
            *met = true;
        }
    })?;
    let settings = &options.recipe.duplicates;
    let hashes = MinHash::new(settings.bands, settings.rows, settings.seed);
    let chances = by_ten(&planted.keys().copied().collect::<Vec<_>>(), spool, settings)?;
    let mut by_rate: BTreeMap<u64, Edited> = BTreeMap::new();
    for (pair, (flaw, met)) in &planted {
        let removed = pair.iter().any(|&document| near.has(document));
        if flaw.jaccard >= 0.85 {
            rate.planted += 1;
            rate.found += u64::from(removed);
        }
        let row = by_rate.entry((flaw.edit_rate * 1e6).round() as u64).or_default();
        row.edit_rate = flaw.edit_rate;
        row.pairs += 1;
        row.jaccard += flaw.jaccard;
        row.expected += hashes.chance(flaw.jaccard);
        row.met += f64::from(u8::from(*met));
        row.met_by_ten += chances[pair];
        row.removed += f64::from(u8::from(removed));
    }
    score.rates.push(rate);
    score.edited.extend(by_rate.into_values().map(|row| {
        let n = row.pairs as f64;
        Edited {
            met_by_ten: row.met_by_ten / n,
            jaccard: row.jaccard / n,
            expected: row.expected / n,
            met: row.met / n,
            removed: row.removed / n,
            ..row
        }
    }));

    // A flaw within the text counts where the document came to the last pass as it was.
    let whole =
        |id: &str| numbers.get(id).is_some_and(|&n| !exact.has(n) && !near.has(n)) && !ledger.edited.contains(id);
    score.passed_over = truth.0.keys().filter(|id| !whole(id)).count() as u64;
    personal(truth, &ledger, &whole, &options.recipe.personal.kinds, &mut score);
    for (what, kind, rule) in
        [("terms of lexicons", "rude", Rule::Lexicon), ("wrong labels", "wrong_label", Rule::Label)]
    {
        let planted: HashSet<&str> = truth.each(kind).map(|(id, _)| id).filter(|id| whole(id)).collect();
        let marked = ledger.marked.get(rule.name());
        let mut rate = Rate { what: what.into(), planted: planted.len() as u64, ..Rate::default() };
        for document in marked.into_iter().flatten().filter(|id| whole(id)) {
            rate.reported += 1;
            rate.right += u64::from(planted.contains(document.as_str()));
        }
        rate.found = rate.right;
        score.rates.push(rate);
    }
    canaries(truth, &options.out.join(DOCUMENTS), &mut score)?;
    Ok(score)
}

/// The share of ten choices of hash functions with which each pair meets in a band.
fn by_ten(pairs: &[[u32; 2]], spool: &Spool, settings: &Duplicates) -> Result<HashMap<[u32; 2], f64>> {
    let choices: Vec<MinHash> = (0..10).map(|i| MinHash::new(settings.bands, settings.rows, 1000 + i)).collect();
    let each = |pair: &[u32; 2]| {
        let mut sets = [Vec::new(), Vec::new()];
        for (&document, set) in pair.iter().zip(&mut sets) {
            spool.with(document, |document| Words::of(&document.text).shingles(settings.gram, set))?;
        }
        let meets = |hashes: &&MinHash| {
            let [a, b] = [0, 1].map(|i| {
                let mut signature = Vec::new();
                hashes.sign(&sets[i], &mut signature);
                hashes.bands(&signature).collect::<Vec<u64>>()
            });
            a.iter().zip(&b).any(|(a, b)| a == b)
        };
        Ok((*pair, choices.iter().filter(meets).count() as f64 / choices.len() as f64))
    };
    pairs.par_iter().map(each).collect()
}

/// Whether a found span is a planted one.
fn same(found: &Span, flaw: &Flaw) -> bool {
    let both = found.2.min(flaw.end).saturating_sub(found.1.max(flaw.start));
    let all = found.2.max(flaw.end) - found.1.min(flaw.start);
    found.0 == flaw.sort && both * 10 >= all * 9
}

fn personal(truth: &Truth, ledger: &Ledger, whole: &dyn Fn(&str) -> bool, kinds: &[String], score: &mut Score) {
    let mut rates: BTreeMap<&str, Rate> = BTreeMap::new();
    for kind in kinds {
        rates.insert(kind, Rate { what: format!("personal data: {kind}"), ..Rate::default() });
    }
    let none = Vec::new();
    for (id, flaw) in truth.each("personal").filter(|(id, _)| whole(id)) {
        let Some(rate) = rates.get_mut(flaw.sort.as_str()) else { continue };
        rate.planted += 1;
        rate.found += u64::from(ledger.personal.get(id).unwrap_or(&none).iter().any(|span| same(span, flaw)));
    }
    for (id, spans) in ledger.personal.iter().filter(|(id, _)| whole(id)) {
        let flaws = truth.0.get(id).map_or(&[][..], Vec::as_slice);
        for span in spans {
            let Some(rate) = rates.get_mut(span.0.as_str()) else { continue };
            rate.reported += 1;
            rate.right += u64::from(flaws.iter().any(|flaw| flaw.kind == "personal" && same(span, flaw)));
        }
    }
    for (id, flaw) in truth.each("hard_negative").filter(|(id, _)| whole(id)) {
        let [all, taken] = score.hard_negatives.entry(flaw.sort.clone()).or_default();
        *all += 1;
        let spans = ledger.personal.get(id).unwrap_or(&none);
        *taken += u64::from(spans.iter().any(|span| span.1 < flaw.end && flaw.start < span.2));
    }
    score.rates.extend(rates.into_values());
}

fn canaries(truth: &Truth, documents: &Path, score: &mut Score) -> Result<()> {
    let once: HashMap<&str, &str> = truth
        .each("canary")
        .filter(|(_, flaw)| flaw.repeats <= 1)
        .map(|(id, flaw)| (id, flaw.secret.as_str()))
        .collect();
    if once.is_empty() {
        return Ok(());
    }
    score.canaries[0] = once.len() as u64;
    for line in BufReader::new(Frames::open(documents)?).lines() {
        let line: Value = serde_json::from_str(&line.at(documents)?).unwrap_or_default();
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        score.canaries[1] += u64::from(once.get(text("id")).is_some_and(|secret| text("text").contains(secret)));
    }
    Ok(())
}

/// The content of a file of zstd frames.
struct Frames {
    decoder: Option<ruzstd::decoding::StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>>,
}

impl Frames {
    fn open(path: &Path) -> Result<Frames> {
        let file = BufReader::new(File::open(path).at(path)?);
        Ok(Frames { decoder: Frames::next(file)? })
    }

    fn next(
        mut file: BufReader<File>,
    ) -> Result<Option<ruzstd::decoding::StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>>> {
        if file.fill_buf().at(DOCUMENTS)?.is_empty() {
            return Ok(None);
        }
        let decoder = ruzstd::decoding::StreamingDecoder::new(file);
        decoder.map(Some).map_err(|e| Error::format(DOCUMENTS, "content", "zstd", e, "clean the documents again"))
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let file = self.decoder.take().expect("it is there").into_inner();
            self.decoder = Frames::next(file).map_err(std::io::Error::other)?;
        }
        Ok(0)
    }
}
