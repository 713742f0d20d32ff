//! Is it seen that what a model meets has changed, how soon, and how often is it seen where nothing has? A detector knows some of the village's
//! stories, and watches streams of others.
//!
//! - **Control**: streams of the same village at the same time. An alarm there is false; of so many streams the detector says beforehand how many
//!   will have one.
//! - **Era 2**: years later, other people and other words. **Habits**: the same people and words, of which other things are told.
//! - **Delay**: how many documents after the change an alarm is raised. A stream that has one before is counted as false, not as soon.

use super::Seed;
use super::effect::{Effect, Effects, Unit};
use crate::continual::drift::{Detector, Settings as Watched};
use crate::data::Tokenizer;
use crate::data::source::Document;
use crate::data::world::{Era, World};
use crate::disk::{self, Os};
use crate::error::{Error, Result};
use crate::measure::percentile;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The detector's.
    pub watched: Watched,
    /// Documents that it knows.
    pub reference: u64,
    /// Ids of the tokenizer, which is learnt from these.
    pub vocab: usize,
    /// Streams of each kind.
    pub streams: u64,
    /// Documents before a change.
    pub before: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { watched: Watched::default(), reference: 4000, vocab: 1024, streams: 200, before: 1000 }
    }
}

/// What became of streams that change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Into what.
    pub era: &'static str,
    /// Streams with an alarm before the change.
    pub early: u64,
    /// Streams without any.
    pub missed: u64,
    /// Documents from the change to the alarm: the median, nineteen of twenty at most, all at most. A stream that has none counts as long as it
    /// was watched.
    pub delay: [f64; 3],
    /// How often each signal raised it.
    pub by: BTreeMap<String, u64>,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Streams of each kind.
    pub streams: u64,
    /// Documents of each.
    pub documents: u64,
    /// The rate of false alarms that the detector was asked to keep.
    pub stated: f64,
    /// Streams without a change in which there was an alarm.
    pub false_alarms: u64,
    /// How often each signal raised it.
    pub false_by: BTreeMap<String, u64>,
    /// Those that change.
    pub changed: Vec<Changed>,
}

/// A stream: numbers of stories of the first era, and of those of another one behind them.
struct Stream<'a> {
    eras: [&'a World; 2],
    first: u64,
    lengths: [u64; 2],
}

impl Stream<'_> {
    /// Documents until the first alarm, and which signal raised it.
    fn watch(&self, detector: &Detector, tokenizer: &Tokenizer) -> Result<Option<(u64, String)>> {
        let mut monitor = detector.monitor();
        let mut ids = Vec::new();
        for (world, length) in self.eras.into_iter().zip(self.lengths) {
            let mut teller = world.teller();
            for i in self.first..self.first + length {
                teller.tell(i);
                ids.clear();
                tokenizer.encode_into(teller.text(), &mut ids)?;
                if let Some(alarm) = monitor.see(detector.seen(&ids, Vec::new())) {
                    return Ok(Some((alarm.at, format!("{} of {}", alarm.test.signal.name(), alarm.test.window))));
                }
            }
        }
        Ok(None)
    }
}

/// Does the study for one seed.
///
/// # Errors
/// The detector's settings do not fit; a signal stopped it.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    let horizon = settings.watched.horizon as u64;
    let worlds = Era::ALL.map(|era| World::era(at.seed, era));
    at.says("telling stories of which it knows");
    let texts: Vec<String> = worlds[0].stories(0).take(settings.reference as usize).map(|story| story.text).collect();
    let document = |text: &String| Ok(Document { text: text.clone(), ..Document::default() });
    let tokenizer = Tokenizer::train_bpe(texts.iter().map(document), settings.vocab, &|_| {})?;
    let known: Vec<_> = tokenizer.encode_batch(&texts)?.into_iter().map(|ids| (ids, Vec::new())).collect();
    let detector = Detector::new(&known, &[], Watched { seed: at.seed, ..settings.watched.clone() })?;
    let watch = |to: usize, lengths: [u64; 2]| -> Result<Vec<Option<(u64, String)>>> {
        (0..settings.streams)
            .into_par_iter()
            .map(|stream| {
                // No stream has a story of another one.
                let first = settings.reference + (to as u64 * settings.streams + stream) * horizon;
                Stream { eras: [&worlds[0], &worlds[to]], first, lengths }.watch(&detector, &tokenizer)
            })
            .collect()
    };
    let (mut false_by, mut changed) = (BTreeMap::new(), Vec::new());
    for (to, era) in Era::ALL.into_iter().map(Era::name).enumerate() {
        if let Some(signal) = at.watch.stop() {
            return Err(Error::failed(
                format!("stopped by signal {signal}"),
                "the same command begins this seed again",
            ));
        }
        if to == 0 {
            at.says("watching streams that stay the same");
            for (_, signal) in watch(0, [horizon, 0])?.into_iter().flatten() {
                *false_by.entry(signal).or_insert(0) += 1;
            }
            continue;
        }
        at.says(&format!("watching streams that change, era {era}"));
        let after = horizon - settings.before.min(horizon);
        let all = watch(to, [settings.before, after])?;
        let (mut delays, mut by) = (Vec::new(), BTreeMap::new());
        for (alarm, signal) in all.iter().flatten().filter(|(alarm, _)| *alarm > settings.before) {
            delays.push((alarm - settings.before) as f64);
            *by.entry(signal.clone()).or_insert(0) += 1;
        }
        let missed = all.iter().filter(|alarm| alarm.is_none()).count() as u64;
        let early = settings.streams - missed - delays.len() as u64;
        delays.extend((0..missed).map(|_| after as f64));
        let delay = match delays.is_empty() {
            true => [f64::NAN; 3],
            false => [0.5, 0.95, 1.0].map(|p| percentile(&delays, p)),
        };
        changed.push(Changed { era, early, missed, delay, by });
    }
    disk::make_dirs(&Os, at.dir)?;
    let Settings { streams, watched, .. } = settings;
    Ok(Outcome {
        seed: at.seed,
        streams: *streams,
        documents: horizon,
        stated: watched.false_alarms,
        false_alarms: false_by.values().sum(),
        false_by,
        changed,
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "drift";
    const ASKS: &'static str = "Is it seen that what a model meets has changed?";

    fn effects(&self) -> Vec<Effect> {
        let share = |n: u64| n as f64 / self.streams.max(1) as f64;
        let stated = ("stated beforehand".to_owned(), self.stated);
        self.changed
            .iter()
            .map(|changed| Effect {
                what: format!("streams with an alarm, change to era {}", changed.era),
                unit: Unit::Share,
                before: stated.clone(),
                after: ("after the change".into(), share(self.streams - changed.missed - changed.early)),
                control: ("no change".into(), share(self.false_alarms)),
            })
            .collect()
    }
}
