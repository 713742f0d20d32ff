//! The last pass: what stays is written out, less what is known by now to be there twice, with personal data masked, and
//! with terms, suspect labels and evaluation texts looked for.

use super::Progress;
use super::evaluation::Evaluation;
use super::exact::place;
use super::layout::{self, Layout};
use super::lexicon::Lexicon;
use super::pack;
use super::personal::PersonalFilter;
use super::recipe::{Mode, Recipe};
use super::rules::{Rule, RuleSet};
use super::sort::{Merge, Record};
use super::spool::{Spool, Stored};
use super::tally::{Action, Event, Tally, start};
use super::words::Words;
use super::work::Work;
use crate::error::Result;
use rayon::prelude::*;
use serde_json::json;
use std::borrow::Cow;
use std::iter::Peekable;
use std::path::Path;

/// Bytes of lines that are compressed by themselves.
const FRAME: usize = 1 << 20;
/// Documents that are worked on at once.
const BATCH: usize = 4096;

/// The stages of the pass.
pub struct Stages<'a> {
    /// Personal data.
    pub personal: PersonalFilter,
    /// Terms.
    pub lexicon: Lexicon,
    /// Evaluation texts.
    pub evaluation: Evaluation,
    /// The names of labels, where suspect ones were looked for.
    pub labels: Vec<String>,
    /// The rules that run.
    pub rules: RuleSet,
    /// All settings.
    pub recipe: &'a Recipe,
}

/// What earlier passes know of the documents of one part, by document.
#[derive(Default)]
struct Known {
    exact: Vec<Record<2>>,
    near: Vec<Record<3>>,
    blocks: Vec<Record<2>>,
    labels: Vec<Record<3>>,
}

/// The records of a sorted run, taken as parts come.
struct Taker<const N: usize>(Option<Peekable<Merge<N>>>);

impl<const N: usize> Taker<N> {
    fn new(path: &Path) -> Result<Taker<N>> {
        Ok(Taker(path.is_file().then(|| Merge::new(&[path.to_owned()], 1 << 20)).transpose()?.map(Iterator::peekable)))
    }

    /// Those whose first number is below `end`.
    fn until(&mut self, end: u64) -> Result<Vec<Record<N>>> {
        let mut taken = Vec::new();
        if let Some(records) = &mut self.0 {
            while let Some(record) = records.next_if(|record| record.as_ref().map_or(true, |r| r[0] < end)) {
                taken.push(record?);
            }
        }
        Ok(taken)
    }
}

/// The records of one document among those of a part.
fn of<const N: usize>(records: &[Record<N>], from: u64, to: u64) -> &[Record<N>] {
    let at = |limit| records.partition_point(|record| record[0] < limit);
    &records[at(from)..at(to)]
}

/// What becomes of one document.
struct Done {
    events: Vec<Event>,
    /// Its line in the output, and the bytes of its text.
    line: Option<(String, usize)>,
    group: String,
}

/// Runs the pass, or what is left of it.
pub fn run(stages: &Stages, spool: &Spool, work: &Work, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Tally> {
    let mut exact = Taker::<2>::new(&work.exact())?;
    let mut near = Taker::<3>::new(&work.near())?;
    let mut blocks = Taker::<2>::new(&work.blocks())?;
    let mut labels = Taker::<3>::new(&work.labels())?;
    let mut all = Tally::default();
    for part in 0..spool.parts() {
        let range = spool.range(part);
        let known = Known {
            exact: exact.until(range.end.into())?,
            near: near.until(range.end.into())?,
            blocks: blocks.until(place(range.end, 0))?,
            labels: labels.until(range.end.into())?,
        };
        if let Some(tally) = work.load_part("last", part)? {
            all.merge(tally);
            continue;
        }
        let bytes = spool.part(part)?;
        let (mut tally, mut ledger) = (Tally::default(), String::new());
        let mut frames = vec![String::new()];
        for from in (0..bytes.len()).step_by(BATCH) {
            let batch = from..bytes.len().min(from + BATCH);
            let done: Vec<(String, Done)> = batch
                .into_par_iter()
                .map_init(Words::default, |words, i| {
                    let stored = bytes.get(i)?;
                    let name = stored.name.clone().into_owned();
                    Ok((name, stages.finish(stored, range.start + i as u32, &known, spool, words)?))
                })
                .collect::<Result<_>>()?;
            for (name, Done { events, line, group }) in done {
                for event in events {
                    ledger += &event.line(&name);
                    tally.add(&name, event);
                }
                let Some((line, size)) = line else { continue };
                tally.written.add(size);
                tally.group(&group, 1, size);
                if frames.last().is_some_and(|frame| frame.len() >= FRAME) {
                    frames.push(String::new());
                }
                *frames.last_mut().expect("one at least") += &line;
            }
        }
        let frames: Vec<Vec<u8>> =
            frames.par_iter().filter(|frame| !frame.is_empty()).map(|frame| pack::frame(frame.as_bytes())).collect();
        work.save_part("last", part, &[("zst", &frames.concat()), ("ledger", ledger.as_bytes())], &tally)?;
        all.merge(tally);
        progress(Progress { what: "writing", done: part as u64 + 1, total: spool.parts() as u64, bytes: false });
    }
    Ok(all)
}

impl Stages<'_> {
    fn finish(
        &self,
        mut stored: Stored,
        document: u32,
        known: &Known,
        spool: &Spool,
        words: &mut Words,
    ) -> Result<Done> {
        let group = match self.recipe.datasheet.group.as_str() {
            "" => stored.source.clone().into_owned(),
            field => stored.field(field).unwrap_or_else(|| "none".to_owned()),
        };
        let mut done = Done { events: Vec::new(), line: None, group };
        let next = u64::from(document) + 1;
        let gone = |mut done: Done, event: Event| {
            done.events.push(event);
            Ok(done)
        };
        if let [[_, first]] = of(&known.exact, document.into(), next) {
            let evidence = json!({"of": spool.with(*first as u32, |first| first.name.clone().into_owned())?});
            return gone(done, Event::removed(Rule::Exact, evidence, &stored.text));
        }
        if let [[_, stays, similarity]] = of(&known.near, document.into(), next) {
            let (name, other) = spool
                .with(*stays as u32, |other| (other.name.clone().into_owned(), start(&other.text, 800).to_owned()))?;
            let similarity = (f64::from_bits(*similarity) * 1e4).round() / 1e4;
            let evidence = json!({"of": name, "jaccard": similarity});
            return gone(done, Event { other, ..Event::removed(Rule::Near, evidence, &stored.text) });
        }
        let repeated = of(&known.blocks, place(document, 0), place(document + 1, 0));
        if !repeated.is_empty() {
            let event = self.cut(&mut stored, repeated, spool)?;
            let empty = event.action == Action::Removed;
            done.events.push(event);
            if empty {
                return Ok(done);
            }
        }
        let text = std::mem::take(&mut stored.text);
        let (masked, event) = self.personal.apply(&text);
        if let Some(event) = event {
            let dropped = event.action == Action::Removed;
            done.events.push(event);
            if dropped {
                return Ok(done);
            }
        }
        let masked = if let Cow::Owned(masked) = masked { Some(masked) } else { None };
        stored.text = masked.map_or(text, Cow::Owned);
        let lexicon = self.rules.has(Rule::Lexicon) && !self.lexicon.is_empty();
        let evaluation = self.rules.has(Rule::Evaluation) && !self.evaluation.is_empty();
        if lexicon || evaluation {
            words.read(&stored.text);
        }
        if lexicon {
            let event = self.terms(&mut stored, words);
            let dropped = event.as_ref().is_some_and(|event| event.action == Action::Removed);
            done.events.extend(event);
            if dropped {
                return Ok(done);
            }
        }
        if let [[_, likelier, loss]] = of(&known.labels, document.into(), next) {
            let settings = &self.recipe.labels;
            let evidence = json!({
                "label": stored.field(&settings.field),
                "likelier": self.labels[*likelier as usize],
                "loss": (f64::from_bits(*loss) * 1e4).round() / 1e4,
            });
            if settings.mode == Mode::Drop {
                return gone(done, Event::removed(Rule::Label, evidence, &stored.text));
            }
            done.events.push(Event::new(Rule::Label, Action::Flagged, evidence, 0, &stored.text));
        }
        if evaluation && let Some(overlap) = self.evaluation.find(words) {
            let evidence = json!({
                "text": overlap.text, "word": overlap.word, "words": overlap.words, "runs": overlap.runs
            });
            if self.recipe.evaluation.mode == Mode::Drop {
                return gone(done, Event::removed(Rule::Evaluation, evidence, &stored.text));
            }
            done.events.push(Event::new(Rule::Evaluation, Action::Flagged, evidence, 0, &stored.text));
        }
        done.line = Some((stored.line(), stored.text.len()));
        Ok(done)
    }

    /// Takes out the paragraphs that were there before.
    fn cut(&self, stored: &mut Stored, repeated: &[Record<2>], spool: &Spool) -> Result<Event> {
        let (layout, blocks) = (Layout::of(&stored.text), repeated.len());
        let ranges: Vec<_> = repeated.iter().map(|[at, _]| layout.blocks()[*at as u32 as usize].clone()).collect();
        let first = spool.with((repeated[0][1] >> 32) as u32, |first| first.name.clone().into_owned())?;
        let excerpt = start(&stored.text[ranges[0].clone()], 800).to_owned();
        let text = layout::without(&stored.text, ranges);
        let action = if text.is_empty() { Action::Removed } else { Action::Edited };
        let bytes = (stored.text.len() - text.len()) as u64;
        let event = Event::new(Rule::Paragraphs, action, json!({"paragraphs": blocks, "of": first}), bytes, &excerpt);
        stored.text = text.into();
        Ok(event)
    }

    /// Looks for terms, and masks them where that is wanted.
    fn terms(&self, stored: &mut Stored, words: &Words) -> Option<Event> {
        let (found, settings) = (self.lexicon.find(words), &self.recipe.lexicons);
        if found.spans.is_empty() || found.score <= settings.max_score {
            return None;
        }
        let spans: Vec<[usize; 2]> = found.spans.iter().map(|span| [span.start, span.end]).collect();
        let evidence = json!({"score": (found.score * 1e4).round() / 1e4, "spans": spans});
        let bytes = found.spans.iter().map(|span| span.len() as u64).sum();
        Some(match settings.mode {
            Mode::Drop => Event::removed(Rule::Lexicon, evidence, &stored.text),
            Mode::Flag => Event::new(Rule::Lexicon, Action::Flagged, evidence, 0, &stored.text),
            Mode::Mask => {
                let event = Event::new(Rule::Lexicon, Action::Edited, evidence, bytes, &stored.text);
                let mut text = stored.text.clone().into_owned();
                found.spans.into_iter().rev().for_each(|span| text.replace_range(span, "[TERM]"));
                stored.text = text.into();
                event
            }
        })
    }
}
