//! What a model prefers where nothing is right: pairs of texts, answers that should not hang on a word, and words in embeddings.

use super::outcome::{Figure, Outcome, Record, figure, mean, share};
use super::{Lean, Task};
use crate::measure::{mean_and_error, weat};
use std::collections::BTreeMap;

/// 1 or 0.
fn one(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// The probability of the first of two less that of the second, of the two alone: (p − q)/(p + q).
fn lead(nats: &[f64]) -> f64 {
    ((nats[0] - nats[1]) / 2.0).tanh()
}

/// The share of sets of versions of one question that are answered alike throughout: `records` of choices, and of what each is a version. No
/// figure where there are no two versions of anything.
pub(super) fn alike(records: &[Record], versions: &[&str]) -> Option<Figure> {
    let mut sets: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (record, version) in records.iter().zip(versions).filter(|(_, version)| !version.is_empty()) {
        // The first of the greatest, as accuracy has it.
        let best = (1..record.nats.len()).fold(0, |best, i| if record.nats[i] > record.nats[best] { i } else { best });
        sets.entry(version).or_default().push(best);
    }
    let same = |set: &Vec<usize>| (set.len() > 1).then(|| one(set.iter().all(|choice| *choice == set[0])));
    let sets: Vec<f64> = sets.values().filter_map(same).collect();
    (!sets.is_empty()).then(|| mean("consistency", &sets))
}

impl Outcome {
    /// Pairs of texts: `nats` of both. Where `gold` is none neither is right, and the first is what a stereotype would say; else it is asked
    /// whether that one is as likely at least.
    pub(super) fn pairs(task: &Task, mut records: Vec<Record>, gold: &[Option<usize>]) -> Outcome {
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        for (record, _) in records.iter().zip(gold).filter(|(_, gold)| gold.is_none()) {
            *sizes.entry(record.group.clone()).or_default() += 1;
        }
        let (mut more, mut apart, mut leads, mut agree) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (record, gold) in records.iter_mut().zip(gold) {
            let nats = &record.nats;
            if let Some(gold) = *gold {
                agree.push(one(nats[gold] >= nats[1 - gold]));
                (record.right, record.group) = (Some(usize::from(nats[gold] >= nats[1 - gold])), String::new());
                continue;
            }
            let likelier = one(nats[0] > nats[1]);
            more.push(likelier);
            apart.push((nats[0] - nats[1]).abs());
            (record.value, record.weight) = match task.figure {
                Lean::PctStereotype => (likelier, 1.0),
                // Every group counts as much as another.
                Lean::Skew => {
                    let size = sizes[&record.group] as f64;
                    (lead(nats) / size, 1.0 / size)
                }
            };
            leads.push((record.value, record.weight));
        }
        let mut figures = vec![mean("pct_stereotype", &more), mean("likelihood_diff", &apart)];
        let mut neutral = 0.5;
        if task.figure == Lean::Skew {
            figures.insert(0, share("skew", &leads, &|x| x));
            neutral = 0.0;
        }
        if !agree.is_empty() {
            figures.push(mean("consistency", &agree));
        }
        Outcome { neutral: Some(neutral), ..Outcome::new(task, figures, false, records) }
    }

    /// Words: `vectors` of all lists, x, y, a, b in turn, as the records name them. What is asked of are the words of x and y.
    pub(super) fn weat(task: &Task, mut records: Vec<Record>, vectors: &[Vec<f64>], seed: u64) -> Outcome {
        let list = |name: &str| -> Vec<Vec<f64>> {
            let own = records.iter().zip(vectors).filter(|(record, _)| record.group == name);
            own.map(|(_, vector)| vector.clone()).collect()
        };
        let [x, y, a, b] = ["x", "y", "a", "b"].map(list);
        let found = weat(&x, &y, [&a, &b], seed);
        records.truncate(x.len() + y.len());
        for (record, association) in records.iter_mut().zip(&found.associations) {
            (record.value, record.weight) = (*association, 1.0);
        }
        let error = |s: &[f64]| Some(mean_and_error(s)[1]);
        let (own, others) = found.associations.split_at(x.len());
        let of = |name: &str, s: &[f64]| figure(name, mean_and_error(s)[0], error(s));
        let figures = vec![
            figure("effect_size", found.effect, None),
            figure("p_value", found.p, None),
            of("association_x", own),
            of("association_y", others),
        ];
        Outcome { neutral: Some(0.0), ..Outcome::new(task, figures, false, records) }
    }
}
