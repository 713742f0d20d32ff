//! Can a classifier tell new texts from those before? If it can, they differ, in whatever way.

use super::drift::Seen;
use crate::measure::auc;

/// Counts that are added to each bin, so that no share is 0.
const PRIOR: f64 = 0.5;

/// The area under the ROC curve of a classifier that tells `new` from `old`: naive Bayes on tokens, learnt from every second text of both and asked
/// about the others, and the other way round. 0.5 in the mean of samples that nothing tells apart.
pub fn separation(new: &[&Seen], old: &[&Seen], bins: usize) -> f64 {
    let half = |texts: &[&Seen], part: usize| -> Vec<usize> { (part..texts.len()).step_by(2).collect() };
    let one = |asked: usize| {
        let learnt = 1 - asked;
        let shares = [new, old].map(|texts| shares(half(texts, learnt).into_iter().map(|i| texts[i]), bins));
        let scores = [new, old]
            .map(|texts| -> Vec<f64> { half(texts, asked).into_iter().map(|i| score(texts[i], &shares)).collect() });
        auc(&scores[0], &scores[1])
    };
    0.5 * (one(0) + one(1))
}

/// ln of each token's share.
fn shares<'a>(texts: impl Iterator<Item = &'a Seen>, bins: usize) -> Vec<f64> {
    let mut counts = vec![PRIOR; bins];
    texts.flat_map(|text| &text.tokens).for_each(|&(bin, n)| counts[bin as usize] += f64::from(n));
    let all: f64 = counts.iter().sum();
    counts.iter().map(|count| (count / all).ln()).collect()
}

/// The mean of ln p − ln q over a text's tokens: a long text is not surer of itself.
fn score(text: &Seen, [p, q]: &[Vec<f64>; 2]) -> f64 {
    let (mut sum, mut all) = (0.0, 0.0);
    for &(bin, n) in &text.tokens {
        sum += f64::from(n) * (p[bin as usize] - q[bin as usize]);
        all += f64::from(n);
    }
    if all > 0.0 { sum / all } else { 0.0 }
}
