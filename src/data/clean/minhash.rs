//! MinHash signatures, and the bands by which near-duplicates meet.
//!
//! A signature holds, for each of bands × rows hash functions, the least hash over a set's elements; two sets have the
//! same least hash with probability J, their Jaccard similarity |A ∩ B| / |A ∪ B| (Broder 1997). A band is the hash of
//! some rows of the signature, and two sets share at least one band with probability 1 − (1 − J^rows)^bands; with 14
//! bands of 8 rows (Penedo et al. 2024, FineWeb) that is 0.56 at J = 0.7, 0.92 at 0.8, 0.99 at 0.85.
//!
//! The hash functions are multiply-add-shift, (a·x + b) mod 2⁶⁴ / 2³² (Dietzfelbinger 1996), of elements that are hashes
//! already.

use super::words::mix;

/// Functions that go over a set together: their state fits in registers.
const GROUP: usize = 8;

/// The hash functions.
#[derive(Clone, Debug)]
pub struct MinHash {
    /// a and b of each function, in groups; the last group is filled up.
    functions: Vec<[[u64; GROUP]; 2]>,
    bands: usize,
    rows: usize,
}

impl MinHash {
    /// `bands` × `rows` functions, chosen by `seed`.
    pub fn new(bands: usize, rows: usize, seed: u64) -> MinHash {
        let draw = |i: usize| mix(mix(seed).wrapping_add(mix(i as u64 + 1)));
        let group = |g: usize| {
            let number = |i: usize| 2 * (g * GROUP + i);
            [std::array::from_fn(|i| draw(number(i)) | 1), std::array::from_fn(|i| draw(number(i) + 1))]
        };
        MinHash { functions: (0..(bands * rows).div_ceil(GROUP)).map(group).collect(), bands, rows }
    }

    /// The signature of a set of hashes: bands × rows numbers, each u32::MAX where the set is empty.
    pub fn sign(&self, set: &[u64], signature: &mut Vec<u32>) {
        signature.clear();
        for [multipliers, addends] in &self.functions {
            // The upper half of the least product is the least of the upper halves.
            let mut least = [u64::MAX; GROUP];
            for &x in set {
                for i in 0..GROUP {
                    least[i] = least[i].min(x.wrapping_mul(multipliers[i]).wrapping_add(addends[i]));
                }
            }
            signature.extend(least.map(|hash| (hash >> 32) as u32));
        }
        signature.truncate(self.bands * self.rows);
    }

    /// The hash of each band of a signature. Bands at different places share a hash only by chance.
    pub fn bands<'a>(&'a self, signature: &'a [u32]) -> impl Iterator<Item = u64> + 'a {
        signature.chunks(self.rows).enumerate().map(|(band, rows)| {
            rows.iter().fold(mix(band as u64 + 1), |hash, &row| mix(hash.wrapping_mul(31) ^ u64::from(row)))
        })
    }

    /// The probability that two sets of similarity `jaccard` share a band.
    pub fn chance(&self, jaccard: f64) -> f64 {
        1.0 - (1.0 - jaccard.powi(self.rows as i32)).powi(self.bands as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// tests/reference/minhash.py: pairs of sets of whole numbers, and what datasketch says of them.
    #[derive(Deserialize)]
    struct Fixture {
        permutations: usize,
        /// |A|, |B|, |A ∩ B|, datasketch's estimate times `permutations`.
        pairs: Vec<[u64; 4]>,
    }

    #[test]
    fn estimates_agree_with_datasketch_within_their_standard_error() {
        let text = include_str!("../../../tests/fixtures/minhash.json");
        let Fixture { permutations, pairs } = serde_json::from_str(text).unwrap();
        let hashes = MinHash::new(permutations / 8, 8, 1);
        let n = pairs.len() as f64;
        let (mut error, mut theirs, mut bias, mut between, mut expected) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (number, [left, right, both, agreed]) in pairs.into_iter().enumerate() {
            // Elements that no other pair has.
            let element = |i: u64| mix(((number as u64) << 32) + i);
            let set = |range: std::ops::Range<u64>| range.map(element).collect::<Vec<u64>>();
            hashes.sign(&set(0..left), &mut a);
            hashes.sign(&set(left - both..left - both + right), &mut b);
            let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
            let jaccard = both as f64 / (left + right - both) as f64;
            let (ours, their) = (same as f64 / permutations as f64, agreed as f64 / permutations as f64);
            error += (ours - jaccard).powi(2);
            theirs += (their - jaccard).powi(2);
            between += (ours - their).powi(2);
            bias += ours - jaccard;
            expected += jaccard * (1.0 - jaccard) / permutations as f64;
        }
        // The mean of a thousand squares lies within about 5 % of its expectation, in one case of three.
        let ratio = |squares: f64, variance: f64| (squares / variance).sqrt();
        assert!((0.9..1.1).contains(&ratio(error, expected)), "ours: {}", ratio(error, expected));
        assert!((0.9..1.1).contains(&ratio(theirs, expected)), "theirs: {}", ratio(theirs, expected));
        assert!((0.9..1.1).contains(&ratio(between, 2.0 * expected)), "between: {}", ratio(between, 2.0 * expected));
        assert!((bias / n).abs() < 3.0 * (expected / n / n).sqrt(), "bias {}", bias / n);
    }

    #[test]
    fn pairs_meet_in_a_band_as_often_as_the_formula_says() {
        let hashes = MinHash::new(14, 8, 1);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for both in [600u64, 750, 850] {
            let mut met = 0;
            for pair in 0..400u64 {
                let set = |from: u64| (from..from + 1000).map(|i| mix((pair << 32) + i)).collect::<Vec<u64>>();
                hashes.sign(&set(0), &mut a);
                hashes.sign(&set(1000 - both), &mut b);
                met += usize::from(hashes.bands(&a).zip(hashes.bands(&b)).any(|(a, b)| a == b));
            }
            let (rate, p) = (met as f64 / 400.0, hashes.chance(both as f64 / (2000 - both) as f64));
            let deviation = (p * (1.0 - p) / 400.0).sqrt();
            assert!((rate - p).abs() < 3.0 * deviation + 0.003, "{both} of 1000 shared: {rate} for {p}");
        }
        assert!((hashes.chance(0.8) - 0.9236).abs() < 1e-3, "{}", hashes.chance(0.8));
    }

    #[test]
    fn an_empty_set_and_an_odd_number_of_functions_are_fine() {
        let hashes = MinHash::new(3, 5, 7);
        let mut signature = Vec::new();
        hashes.sign(&[], &mut signature);
        assert_eq!(signature, [u32::MAX; 15]);
        hashes.sign(&[1, 2, 3], &mut signature);
        assert!(signature.len() == 15 && signature.iter().all(|&row| row < u32::MAX));
        assert_eq!(hashes.bands(&signature).count(), 3);
    }
}
