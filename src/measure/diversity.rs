//! How much texts repeat themselves and each other.

use std::collections::HashSet;
use std::hash::Hash;

/// distinct-n: how many different runs of n words there are, as a share of all of them in all texts (Li et al. 2016, arXiv 1510.03055); 1 where
/// there is none.
pub fn distinct<W: Hash + Eq>(texts: &[Vec<W>], n: usize) -> f64 {
    let runs: HashSet<&[W]> = texts.iter().flat_map(|text| text.windows(n)).collect();
    let all: usize = texts.iter().map(|text| (text.len() + 1).saturating_sub(n)).sum();
    if all == 0 { 1.0 } else { runs.len() as f64 / all as f64 }
}

/// The share of a text's runs of n words that stood in it before, in the mean of texts that have any (seq-rep-n, Welleck et al. 2020, arXiv
/// 1908.04319).
pub fn repeated<W: Hash + Eq + Clone>(texts: &[Vec<W>], n: usize) -> f64 {
    let long: Vec<&Vec<W>> = texts.iter().filter(|text| text.len() >= n).collect();
    let one = |text: &&Vec<W>| {
        let runs: HashSet<&[W]> = text.windows(n).collect();
        1.0 - runs.len() as f64 / (text.len() + 1 - n) as f64
    };
    long.iter().map(one).sum::<f64>() / long.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_words_are_counted() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let texts = [words("a b a b"), words("a b c d"), words("a")];
        // ab ba ab | ab bc cd
        assert!((distinct(&texts, 2) - 4.0 / 6.0).abs() < 1e-12);
        assert!((repeated(&texts, 2) - (1.0 / 3.0 + 0.0) / 2.0).abs() < 1e-12);
        assert_eq!((distinct(&texts, 9), repeated(&texts, 9)), (1.0, 0.0));
    }
}
