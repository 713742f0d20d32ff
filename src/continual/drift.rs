//! Does what a model meets still look like what it learnt from? A stream of documents is compared with a reference, window by window.
//!
//! - **Input**: the [population stability index](psi) and the [Jensen-Shannon divergence](jensen_shannon) of tokens, and how well a
//!   [classifier](separation) tells the window from the reference.
//! - **Quality**: the mean of any number that documents come with, such as a model's loss, a reward, or a thumb.
//!
//! **The rate of false alarms** is stated, and shared evenly among all tests (Bonferroni): with it, a stream of `horizon` documents like the
//! reference's raises an alarm. What chance does to a statistic is measured: streams are drawn from the second half of the reference, compared
//! with the first, and the threshold is the quantile of their maxima, by a Gumbel distribution of the same mean and deviation.

use super::domain::separation;
use crate::error::{Error, Result};
use crate::measure::{jensen_shannon, mean_and_std, psi};
use crate::rng::{Purpose, Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A document as a detector sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Bins of tokens, and how often each occurs.
    pub tokens: Vec<(u32, u32)>,
    /// What was measured of it, in the order of the detector's names; NaN: it was not.
    pub numbers: Vec<f64>,
}

/// How documents are watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Documents of a window; a short one sees a great change soon, a long one sees a small one.
    pub windows: Vec<usize>,
    /// Documents from one look to the next.
    pub every: usize,
    /// With this probability there is an alarm in so many documents where nothing has changed.
    pub false_alarms: f64,
    /// So many are these.
    pub horizon: usize,
    /// Tokens that are told apart, the most frequent ones of the reference; the others are one.
    pub bins: usize,
    /// Streams by chance from which thresholds are taken.
    pub draws: u64,
    /// Of these draws.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            windows: vec![100, 400],
            every: 25,
            false_alarms: 0.01,
            horizon: 2000,
            bins: 1024,
            draws: 400,
            seed: 1,
        }
    }
}

impl Settings {
    /// Documents of the longest window; 0 where there is none.
    fn longest(&self) -> usize {
        self.windows.iter().copied().max().unwrap_or(0)
    }
}

/// Documents that a reference needs at least, for each one of the longest window.
pub(super) const LEAST: usize = 4;

/// What a test looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The population stability index of tokens.
    Psi,
    /// Their Jensen-Shannon divergence, in nats.
    JensenShannon,
    /// The area under the ROC curve of a classifier.
    Classifier,
    /// The mean of a number, up or down, in standard errors.
    Number(String),
}

impl Signal {
    /// Its name for people and for JSON.
    pub fn name(&self) -> &str {
        match self {
            Signal::Psi => "psi",
            Signal::JensenShannon => "jensen_shannon",
            Signal::Classifier => "classifier_auc",
            Signal::Number(name) => name,
        }
    }
}

/// A signal over a window, and when it is too much.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Test {
    /// What it looks at.
    pub signal: Signal,
    /// Documents.
    pub window: usize,
    /// What it comes to, in the mean, where nothing has changed.
    pub usual: f64,
    /// From here on there is an alarm.
    pub threshold: f64,
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Documents of the stream that had been seen.
    pub at: u64,
    /// Which test.
    pub test: Test,
    /// What it came to.
    pub value: f64,
}

/// A token whose share changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Its bin.
    pub bin: u32,
    /// Its share in the reference, and in the window.
    pub shares: [f64; 2],
}

/// What a stream is compared with.
#[derive(Clone, Debug)]
pub struct Detector {
    settings: Settings,
    /// Documents of the reference.
    known: usize,
    /// The bin of each frequent token; the last bin is for the rest.
    bin_of: HashMap<u32, u32>,
    /// The token of each bin.
    token_of: Vec<u32>,
    /// Counts of the first half.
    counts: Vec<u32>,
    /// Every one of the first half that the classifier compares with.
    kept: Vec<Seen>,
    /// Each number's name, mean and deviation.
    numbers: Vec<(String, f64, f64)>,
    tests: Vec<Test>,
}

/// Which bins there are: the most frequent tokens, one each.
fn binned(reference: &[(Vec<u32>, Vec<f64>)], bins: usize) -> (HashMap<u32, u32>, Vec<u32>) {
    let mut times = BTreeMap::new();
    reference.iter().flat_map(|(ids, _)| ids).for_each(|&id| *times.entry(id).or_insert(0_u64) += 1);
    let mut order: Vec<(u32, u64)> = times.into_iter().collect();
    order.sort_by_key(|&(id, times)| (std::cmp::Reverse(times), id));
    let token_of: Vec<u32> = order.into_iter().take(bins - 1).map(|(id, _)| id).collect();
    let bin_of = token_of.iter().zip(0..).map(|(&id, bin)| (id, bin)).collect();
    (bin_of, token_of)
}

impl Detector {
    /// One that knows a reference: the tokens of its documents, and their numbers, which have these names.
    ///
    /// # Errors
    /// There are too few documents for the longest window; a setting is out of its range.
    ///
    /// # Panics
    /// If a document has not as many numbers as there are names.
    pub fn new(reference: &[(Vec<u32>, Vec<f64>)], names: &[&str], settings: Settings) -> Result<Detector> {
        let longest = settings.longest();
        let need = LEAST * longest;
        if longest == 0 || settings.every == 0 || settings.horizon < longest || settings.draws < 50 {
            let problem = format!("{:?}, every {} documents", settings.windows, settings.every);
            let hint =
                "give windows and steps above 0, a horizon of the longest window at least, and 50 draws at least";
            return Err(Error::config("drift.windows", problem, hint));
        }
        if !(settings.false_alarms > 0.0 && settings.false_alarms < 0.5) {
            let hint = "give a probability above 0 and below 0.5, as 0.01";
            return Err(Error::config("drift.false_alarms", settings.false_alarms.to_string(), hint));
        }
        if reference.len() < need {
            let problem = format!("{} documents are too few to compare windows of {longest} with", reference.len());
            return Err(Error::failed(problem, format!("give {need} at least, or shorter windows")));
        }
        let (bin_of, token_of) = binned(reference, settings.bins.max(2));
        let mut detector = Detector {
            counts: vec![0; token_of.len() + 1],
            known: reference.len(),
            settings,
            bin_of,
            token_of,
            kept: Vec::new(),
            numbers: Vec::new(),
            tests: Vec::new(),
        };
        let seen: Vec<Seen> = reference.iter().map(|(ids, numbers)| detector.seen(ids, numbers.clone())).collect();
        // Every second one, so that a reference which is in some order has both halves alike.
        let (first, second): (Vec<_>, Vec<_>) = seen.into_iter().enumerate().partition(|(i, _)| i.is_multiple_of(2));
        let [first, second] = [first, second].map(|half| half.into_iter().map(|(_, seen)| seen).collect::<Vec<_>>());
        first.iter().flat_map(|seen| &seen.tokens).for_each(|&(bin, n)| detector.counts[bin as usize] += n);
        assert!(first.iter().chain(&second).all(|seen| seen.numbers.len() == names.len()), "a number for each name");
        detector.numbers = (0..)
            .zip(names)
            .map(|(i, name)| {
                let all: Vec<f64> = first.iter().map(|seen| seen.numbers[i]).filter(|x: &f64| x.is_finite()).collect();
                let (mean, deviation) = mean_and_std(&all);
                ((*name).to_owned(), mean, deviation)
            })
            .collect();
        detector.kept = first.into_iter().take(longest).collect();
        detector.learn(&second, names);
        Ok(detector)
    }

    /// A document as tokens.
    pub fn seen(&self, ids: &[u32], numbers: Vec<f64>) -> Seen {
        let rest = self.token_of.len() as u32;
        let mut bins: Vec<u32> = ids.iter().map(|id| self.bin_of.get(id).copied().unwrap_or(rest)).collect();
        bins.sort_unstable();
        let tokens = bins.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)).collect();
        Seen { tokens, numbers }
    }

    /// Thresholds, from streams by chance.
    fn learn(&mut self, second: &[Seen], names: &[&str]) {
        let Settings { windows, horizon, draws, seed, false_alarms, .. } = self.settings.clone();
        let longest = self.settings.longest();
        for &window in &windows {
            let signals = [Signal::Psi, Signal::JensenShannon].into_iter();
            let numbers = names.iter().map(|&name| Signal::Number(name.to_owned()));
            let classifier = (window == longest).then_some(Signal::Classifier);
            for signal in signals.chain(classifier).chain(numbers) {
                self.tests.push(Test { signal, window, usual: 0.0, threshold: f64::INFINITY });
            }
        }
        let share = false_alarms / self.tests.len() as f64;
        // The greatest value of each test in a stream, and the sum and number of all.
        let streams: Vec<Vec<(f64, f64, f64)>> = (0..draws)
            .into_par_iter()
            .map(|draw| {
                let mut rng = Rng::new(seed, Purpose::Resample, 50, draw);
                let mut monitor = Monitor::new(self);
                let mut found = vec![(f64::NEG_INFINITY, 0.0, 0.0); self.tests.len()];
                for _ in 0..horizon {
                    monitor.push(second[rng.below(second.len() as u32) as usize].clone());
                    for (found, test) in found.iter_mut().zip(&self.tests) {
                        if let Some(value) = monitor.due(test).then(|| monitor.value(test)).flatten() {
                            *found = (found.0.max(value), found.1 + value, found.2 + 1.0);
                        }
                    }
                }
                found
            })
            .collect();
        for (i, test) in self.tests.iter_mut().enumerate() {
            let all = || streams.iter().map(move |stream| stream[i]).filter(|found| found.2 > 0.0);
            let maxima: Vec<f64> = all().map(|found| found.0).collect();
            if maxima.len() < 2 {
                continue;
            }
            let (sum, n) = all().fold((0.0, 0.0), |(sum, n), found| (sum + found.1, n + found.2));
            (test.usual, test.threshold) = (sum / n, gumbel_quantile(&maxima, 1.0 - share));
        }
    }

    /// The tests, with their thresholds.
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// The token of a bin; `None` for the one of all that are rare.
    pub fn token(&self, bin: u32) -> Option<u32> {
        self.token_of.get(bin as usize).copied()
    }

    /// How many documents it knows.
    pub fn documents(&self) -> usize {
        self.known
    }

    /// Watches a stream from its beginning.
    pub fn monitor(&self) -> Monitor<'_> {
        Monitor::new(self)
    }
}

/// The value that a Gumbel distribution with the mean and deviation of `maxima` stays below with probability `p`.
fn gumbel_quantile(maxima: &[f64], p: f64) -> f64 {
    let (mean, deviation) = mean_and_std(maxima);
    let scale = deviation * 6.0_f64.sqrt() / std::f64::consts::PI;
    // The mean is the mode + Euler's constant times the scale.
    mean - scale * (0.577_215_664_901_532_9 + (-p.ln()).ln())
}

/// A stream that is watched.
#[derive(Clone, Debug)]
pub struct Monitor<'a> {
    detector: &'a Detector,
    /// Documents so far.
    seen: u64,
    /// The last ones, as many as the longest window has.
    last: VecDeque<Seen>,
    /// Counts of each window.
    counts: Vec<Vec<u32>>,
}

impl<'a> Monitor<'a> {
    fn new(detector: &'a Detector) -> Monitor<'a> {
        let counts = vec![vec![0; detector.counts.len()]; detector.settings.windows.len()];
        Monitor { detector, seen: 0, last: VecDeque::new(), counts }
    }

    /// How many documents it has seen.
    pub fn documents(&self) -> u64 {
        self.seen
    }

    /// Sees a document more; what it found, where it was time to look. Of several alarms that which is the furthest above its threshold.
    pub fn see(&mut self, seen: Seen) -> Option<Alarm> {
        self.push(seen);
        let mut found: Option<(f64, Alarm)> = None;
        for test in self.detector.tests.iter().filter(|test| self.due(test)) {
            let Some(value) = self.value(test).filter(|value| *value > test.threshold) else { continue };
            let beyond = (value - test.usual) / (test.threshold - test.usual);
            if found.as_ref().is_none_or(|(most, _)| beyond > *most) {
                found = Some((beyond, Alarm { at: self.seen, test: test.clone(), value }));
            }
        }
        found.map(|(_, alarm)| alarm)
    }

    /// Whether it is time for a test: every so many documents; the classifier, which takes the longest, looks at windows that have no document
    /// in common.
    fn due(&self, test: &Test) -> bool {
        let every = match test.signal {
            Signal::Classifier => test.window,
            _ => self.detector.settings.every,
        };
        self.seen.is_multiple_of(every as u64)
    }

    fn push(&mut self, seen: Seen) {
        self.seen += 1;
        let windows = &self.detector.settings.windows;
        for (counts, &window) in self.counts.iter_mut().zip(windows) {
            seen.tokens.iter().for_each(|&(bin, n)| counts[bin as usize] += n);
            if let Some(gone) = self.last.len().checked_sub(window).and_then(|at| self.last.get(at)) {
                gone.tokens.iter().for_each(|&(bin, n)| counts[bin as usize] -= n);
            }
        }
        self.last.push_back(seen);
        if self.last.len() > self.detector.settings.longest() {
            self.last.pop_front();
        }
    }

    fn window(&self, window: usize) -> impl Iterator<Item = &Seen> {
        self.last.range(self.last.len() - window..)
    }

    fn value(&self, test: &Test) -> Option<f64> {
        let detector = self.detector;
        if self.last.len() < test.window {
            return None;
        }
        let counts = || {
            let which = detector.settings.windows.iter().position(|&window| window == test.window);
            &self.counts[which.expect("its window")]
        };
        match &test.signal {
            Signal::Psi => Some(psi(counts(), &detector.counts)),
            Signal::JensenShannon => Some(jensen_shannon(counts(), &detector.counts)),
            Signal::Classifier => {
                let new: Vec<&Seen> = self.window(test.window).collect();
                let old: Vec<&Seen> = detector.kept.iter().collect();
                Some(separation(&new, &old, detector.counts.len()))
            }
            Signal::Number(name) => {
                let i = detector.numbers.iter().position(|(own, ..)| own == name).expect("its name");
                let (_, mean, deviation) = detector.numbers[i];
                let all = || self.window(test.window).map(|seen| seen.numbers[i]).filter(|x| x.is_finite());
                let n = all().count() as f64;
                (n >= 2.0 && deviation > 0.0).then(|| ((all().sum::<f64>() / n - mean) / (deviation / n.sqrt())).abs())
            }
        }
    }

    /// The tokens of the last `window` documents whose share changed the most, by what each adds to the Jensen-Shannon divergence.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn moved(&self, window: usize, most: usize) -> Vec<Moved> {
        let which = self.detector.settings.windows.iter().position(|&own| own == window).expect("a window");
        let [now, before] = [&self.counts[which], &self.detector.counts];
        let [n, m] = [now, before].map(|counts| counts.iter().map(|&count| f64::from(count)).sum::<f64>().max(1.0));
        let mut all: Vec<(f64, Moved)> = (0..)
            .zip(now.iter().zip(before))
            .map(|(bin, (&a, &b))| {
                let [a, b] = [f64::from(a) / n, f64::from(b) / m];
                let of = |p: f64| if p > 0.0 { p * (2.0 * p / (a + b)).ln() } else { 0.0 };
                (of(a) + of(b), Moved { bin, shares: [b, a] })
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.into_iter().take(most).map(|(_, moved)| moved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents of forty tokens, most of them of the first ones; `shift` moves some of them.
    fn documents(seed: u64, n: u64, shift: f64) -> Vec<(Vec<u32>, Vec<f64>)> {
        (0..n)
            .map(|i| {
                let mut rng = Rng::new(seed, Purpose::Test, 0, i);
                let mut id = || {
                    let u = f64::from(rng.uniform());
                    let moved = f64::from(rng.uniform()) < shift;
                    (50.0 * u * u) as u32 + if moved { 7 } else { 0 }
                };
                let ids: Vec<u32> = (0..40).map(|_| id()).collect();
                let loss = 2.0 + f64::from(rng.uniform()) + shift;
                (ids, vec![loss])
            })
            .collect()
    }

    fn alarm(detector: &Detector, stream: &[(Vec<u32>, Vec<f64>)]) -> Option<Alarm> {
        let mut monitor = detector.monitor();
        stream.iter().find_map(|(ids, numbers)| monitor.see(detector.seen(ids, numbers.clone())))
    }

    fn settings() -> Settings {
        Settings { windows: vec![50, 200], horizon: 1000, draws: 200, ..Settings::default() }
    }

    #[test]
    fn what_stays_the_same_raises_few_alarms_and_what_changes_is_seen_soon() {
        let detector = Detector::new(&documents(1, 2000, 0.0), &["loss"], settings()).expect("a detector");
        assert_eq!(detector.tests().len(), 7);
        let quiet = (2..102).filter(|&seed| alarm(&detector, &documents(seed, 1000, 0.0)).is_some()).count();
        assert!(quiet <= 4, "{quiet} of 100 streams");
        for seed in 2..12 {
            let stream = [documents(seed, 300, 0.0), documents(seed + 100, 400, 0.3)].concat();
            let alarm = alarm(&detector, &stream).expect("an alarm");
            assert!((301..=400).contains(&alarm.at), "{alarm:?}");
        }
    }

    #[test]
    fn what_moved_is_named() {
        let detector = Detector::new(&documents(1, 2000, 0.0), &["loss"], settings()).expect("a detector");
        let mut monitor = detector.monitor();
        let new = documents(5, 200, 0.0);
        for (ids, numbers) in new {
            let ids: Vec<u32> = ids.into_iter().map(|id| if id == 3 { 77 } else { id }).collect();
            monitor.see(detector.seen(&ids, numbers));
        }
        let moved = monitor.moved(200, 2);
        let names: Vec<Option<u32>> = moved.iter().map(|moved| detector.token(moved.bin)).collect();
        assert!(names.contains(&None) && names.contains(&Some(3)), "{moved:?}");
        for Moved { shares: [before, now], bin } in moved {
            assert_eq!(before > now, detector.token(bin).is_some());
        }
    }

    #[test]
    fn a_number_alone_can_raise_an_alarm_and_what_was_not_measured_does_not() {
        let detector = Detector::new(&documents(1, 2000, 0.0), &["loss"], settings()).expect("a detector");
        let dearer = |n: f64| {
            let mut stream = documents(3, 600, 0.0);
            stream.iter_mut().skip(200).for_each(|(_, numbers)| numbers[0] = n);
            stream
        };
        let found = alarm(&detector, &dearer(4.0)).expect("an alarm");
        assert_eq!(found.test.signal, Signal::Number("loss".into()));
        assert_eq!(alarm(&detector, &dearer(f64::NAN)), None);
    }

    #[test]
    fn too_few_documents_and_settings_out_of_range_are_refused() {
        let few = Detector::new(&documents(1, 700, 0.0), &["loss"], settings()).expect_err("too few");
        assert!(few.to_string().contains("700 documents"), "{few}");
        let bad = Settings { false_alarms: 0.0, ..settings() };
        let refused = Detector::new(&documents(1, 900, 0.0), &["loss"], bad).expect_err("no rate");
        assert!(refused.to_string().contains("drift.false_alarms"), "{refused}");
        let bad = Settings { windows: Vec::new(), ..settings() };
        assert!(Detector::new(&documents(1, 900, 0.0), &["loss"], bad).is_err());
    }

    #[test]
    fn the_quantile_is_that_of_the_distribution() {
        // Of a Gumbel distribution with mode 0 and scale 1: mean 0.5772, variance pi^2/6.
        let maxima: Vec<f64> = (0..100_000).map(|i| -(-((f64::from(i) + 0.5) / 1e5).ln()).ln()).collect();
        assert!((gumbel_quantile(&maxima, 0.99) - 4.600_149).abs() < 0.01, "{}", gumbel_quantile(&maxima, 0.99));
    }
}
