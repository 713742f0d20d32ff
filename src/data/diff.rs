//! What changed between two data sets: documents by their names, and how tokens are distributed.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::dataset::{Dataset, DatasetInfo, Part, ShardInfo};
use super::index::{Fingerprint, Index};
use crate::error::Result;

/// The difference from data set A to data set B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Documents in A and in B.
    pub documents: [u64; 2],
    /// Names of documents that only B has, in order.
    pub added: Vec<String>,
    /// Names of documents that only A has.
    pub removed: Vec<String>,
    /// Names of documents whose text differs, or that come more or less often.
    pub changed: Vec<String>,
    /// Names of documents that are held out in one of them and not in the other.
    pub moved: Vec<String>,
    /// Training tokens of A and of B.
    pub tokens: [u64; 2],
    /// The Jensen-Shannon divergence of the distributions of training tokens, in bits, 0 to 1; `None` where tokenizers differ.
    pub divergence: Option<f64>,
    /// Ids whose share changed most: id, share in A, share in B; by their part of the divergence.
    pub shifted: Vec<(u32, f64, f64)>,
}

/// Texts under each name on both sides of the split, sorted.
type Documents = BTreeMap<String, [Vec<Fingerprint>; 2]>;

fn documents(dir: &Path, info: &DatasetInfo) -> Result<Documents> {
    let mut all = Documents::new();
    for (side, part) in [Part::Train, Part::Val].into_iter().enumerate() {
        for ShardInfo { file, tokens, .. } in &info.part(part).shards {
            for entry in Index::open(&dir.join(file), *tokens)?.iter().filter(|entry| !entry.continued) {
                all.entry(entry.name.to_owned()).or_default()[side].push(entry.fingerprint);
            }
        }
    }
    all.values_mut().flatten().for_each(|texts| texts.sort_unstable());
    Ok(all)
}

/// Compares the data sets in two folders, and names up to `n` ids whose share changed.
///
/// # Errors
/// One of them cannot be read, or does not tell its documents.
pub fn diff(a: &Path, b: &Path, n: usize) -> Result<Diff> {
    let [info_a, info_b] = [DatasetInfo::load(a)?, DatasetInfo::load(b)?];
    let [from, mut to] = [documents(a, &info_a)?, documents(b, &info_b)?];
    let count = |info: &DatasetInfo| info.train.documents + info.val.documents;
    let mut diff = Diff {
        documents: [count(&info_a), count(&info_b)],
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
        moved: Vec::new(),
        tokens: [info_a.train.tokens, info_b.train.tokens],
        divergence: None,
        shifted: Vec::new(),
    };
    for (name, texts) in from {
        match to.remove(&name) {
            None => diff.removed.push(name),
            Some(others) if others == texts => {}
            Some(others) => {
                let all = |[train, val]: &[Vec<Fingerprint>; 2]| {
                    let mut all = [&train[..], val].concat();
                    all.sort_unstable();
                    all
                };
                let list = if all(&texts) == all(&others) { &mut diff.moved } else { &mut diff.changed };
                list.push(name);
            }
        }
    }
    diff.added = to.into_keys().collect();
    if info_a.tokenizer.sha256 == info_b.tokenizer.sha256 {
        let [p, q] = [Dataset::open(a, Part::Train)?.histogram()?, Dataset::open(b, Part::Train)?.histogram()?];
        let (divergence, mut terms) = jensen_shannon(&p, &q);
        terms.sort_by(|x, y| y.0.total_cmp(&x.0));
        diff.divergence = Some(divergence);
        diff.shifted = terms.into_iter().take(n).filter(|term| term.0 > 0.0).map(|(_, id, p, q)| (id, p, q)).collect();
    }
    Ok(diff)
}

/// JS(P, Q) = ½ KL(P ‖ M) + ½ KL(Q ‖ M), M = ½ (P + Q), in bits, of two histograms; and each id's part of it with its shares.
fn jensen_shannon(p: &[u64], q: &[u64]) -> (f64, Vec<(f64, u32, f64, f64)>) {
    let total = |counts: &[u64]| counts.iter().sum::<u64>().max(1) as f64;
    let (all_p, all_q) = (total(p), total(q));
    let share = |counts: &[u64], all: f64, id: usize| counts.get(id).map_or(0.0, |&count| count as f64 / all);
    let term = |x: f64, m: f64| if x > 0.0 { 0.5 * x * (x / m).log2() } else { 0.0 };
    let terms: Vec<_> = (0..p.len().max(q.len()))
        .map(|id| {
            let (x, y) = (share(p, all_p, id), share(q, all_q, id));
            let m = 0.5 * (x + y);
            (term(x, m) + term(y, m), id as u32, x, y)
        })
        .collect();
    (terms.iter().map(|term| term.0).sum::<f64>().max(0.0), terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_0_for_the_same_and_1_for_disjoint_distributions() {
        assert_eq!(jensen_shannon(&[3, 1, 0], &[6, 2]).0, 0.0);
        assert!((jensen_shannon(&[1, 1], &[0, 0, 5]).0 - 1.0).abs() < 1e-12);
        // ½·(½·log2(0.5/0.75)+½·log2(0.5/0.25)) + ½·log2(1/0.75) of (½, ½) and (1, 0).
        let expected = 0.5 * (0.5 * (0.5f64 / 0.75).log2() + 0.5) + 0.5 * (1.0f64 / 0.75).log2();
        assert!((jensen_shannon(&[1, 1], &[1, 0]).0 - expected).abs() < 1e-12);
    }
}
