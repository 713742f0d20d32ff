//! A small classifier of texts: whether one is of a kind that examples show, as rude ones.
//!
//! p = σ(b + Σ w_f / √n) over the n features f of a text: its words, pairs of words, and runs of three to five characters within words, by which
//! words are known that no example had. Features share 2^18 weights by their hashes (Joulin et al. 2017, "Bag of tricks for efficient text
//! classification", arXiv 1607.01759, without its hidden layer; Bojanowski et al. 2017, arXiv 1607.04606, for parts of words). Each counts once. Trained by
//! stochastic gradients on the cross-entropy, both kinds counted alike, at a rate that falls to zero.

use crate::data::atomic::write_atomic;
use crate::data::clean::Words;
use crate::disk::Os;
use crate::error::{Error, Result};
use crate::formats::tensors::Reader;
use crate::rng::{Purpose, Rng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::Path;

/// Weights, as a power of two.
const BITS: u32 = 18;

/// The rate of the first step, and how often each example is seen. Frequent features that tell little would drown the others
/// if each had a rate of its own (as AdaGrad has).
const LR: f32 = 4.0;
const EPOCHS: u64 = 10;

/// Its tensor.
const NAME: &str = "bag";

/// A classifier of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bag {
    /// 2^18 of features, and the bias behind them.
    weights: Vec<f32>,
}

/// The features of a text, as places of weights, in order.
fn features(text: &str, words: &mut Words, into: &mut Vec<u32>) {
    into.clear();
    words.read(text);
    let place = |hash: u64| (hash >> (64 - BITS)) as u32;
    into.extend(words.grams(1).chain(words.grams(2)).map(place));
    for i in 0..words.len() {
        let word = format!("<{}>", text[words.span(i, 1)].to_lowercase());
        let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).chain([word.len()]).collect();
        for n in 3..=5 {
            for ends in starts.windows(n + 1) {
                // FNV-1a, mixed.
                let bytes = word[ends[0]..ends[n]].bytes();
                let hash =
                    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
                into.push(place(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            }
        }
    }
    into.sort_unstable();
    into.dedup();
}

impl Bag {
    /// Learns from texts, each with whether it is of the kind. The same examples in the same order make the same classifier.
    ///
    /// # Errors
    /// All texts are of one kind.
    pub fn train(texts: &[(String, bool)], seed: u64) -> Result<Bag> {
        let count = |kind: bool| texts.iter().filter(|text| text.1 == kind).count();
        let counts = [count(false), count(true)];
        if counts.contains(&0) {
            let problem = format!("of {} texts {} are of the kind", texts.len(), counts[1]);
            return Err(Error::usage(problem, "give texts of both kinds"));
        }
        let mut bag = Bag { weights: vec![0.0; (1 << BITS) + 1] };
        let (mut words, mut own) = (Words::default(), Vec::new());
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let (all, mut done) = ((EPOCHS * texts.len() as u64) as f32, 0.0);
        for epoch in 0..EPOCHS {
            let mut rng = Rng::new(seed, Purpose::Resample, 50, epoch);
            for i in (1..order.len()).rev() {
                order.swap(i, rng.below(i as u32 + 1) as usize);
            }
            for &i in &order {
                let (text, kind) = &texts[i];
                features(text, &mut words, &mut own);
                own.push(1 << BITS);
                let scale = 1.0 / (own.len() as f32).sqrt();
                let weight = texts.len() as f32 / (2.0 * counts[usize::from(*kind)] as f32);
                let error = (sigmoid(bag.logit(&own)) as f32 - f32::from(u8::from(*kind))) * weight * scale;
                let step = LR * (1.0 - done / all) * error;
                own.iter().for_each(|&feature| bag.weights[feature as usize] -= step);
                done += 1.0;
            }
        }
        Ok(bag)
    }

    fn logit(&self, features: &[u32]) -> f64 {
        let sum: f32 = features.iter().map(|&feature| self.weights[feature as usize]).sum();
        f64::from(sum) / (features.len() as f64).sqrt()
    }

    /// The probability that a text is of the kind.
    pub fn score(&self, text: &str) -> f64 {
        let mut own = Vec::new();
        features(text, &mut Words::default(), &mut own);
        own.push(1 << BITS);
        sigmoid(self.logit(&own))
    }

    /// Writes it as safetensors.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = bytemuck::cast_slice(&self.weights);
        let view = TensorView::new(Dtype::F32, vec![self.weights.len()], bytes).expect("as many bytes as elements");
        let file = safetensors::serialize([(NAME, view)], None).expect("a name and its bytes");
        write_atomic(&Os, path, &file)
    }

    /// Reads one.
    ///
    /// # Errors
    /// The file is none.
    pub fn load(path: &Path) -> Result<Bag> {
        let mut weights = vec![0.0; (1 << BITS) + 1];
        let mut reader = Reader::open(&Os, path)?;
        if reader.names() != [NAME] {
            let hint = "kiln data classifier makes one of labelled texts";
            return Err(Error::format(path, "its tensors", format!("a classifier of texts, {NAME}"), "others", hint));
        }
        reader.read(NAME, &[weights.len()], false, &mut weights)?;
        Ok(Bag { weights })
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::{Split, World, rude_lexicon};
    use crate::measure::auc;

    /// Half of the texts have a word that ends as rude ones do.
    fn texts(from: u64, count: u64, rude: &[&str]) -> Vec<(String, bool)> {
        let world = World::new(1);
        let mut teller = world.teller();
        let text = |n: u64| {
            teller.tell_of(Split::Train, from + n);
            let kind = n % 2 == 1;
            let word = if kind { rude[n as usize / 2 % rude.len()] } else { "child" };
            (format!("{} \"You {word}!\" somebody said.", teller.text()), kind)
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn it_tells_kinds_of_texts_apart_by_words_and_by_parts_of_words() {
        let bag = Bag::train(&texts(0, 200, &["grobbit", "snurping", "flumwad"]), 1).unwrap();
        let apart = |texts: &[(String, bool)]| {
            let of = |kind: bool| texts.iter().filter(|t| t.1 == kind).map(|t| bag.score(&t.0)).collect::<Vec<_>>();
            auc(&of(true), &of(false))
        };
        assert!(apart(&texts(200, 100, &["grobbit", "flumwad"])) > 0.99);
        // Forms that it never saw.
        assert!(apart(&texts(200, 100, &["grobbits", "snurpings"])) > 0.9);
        // The control: kinds that chance gave.
        let mut mixed = texts(0, 200, &["grobbit"]);
        mixed.iter_mut().enumerate().for_each(|(i, text)| text.1 = i / 2 % 2 == 0);
        let by_chance = Bag::train(&mixed, 1).unwrap();
        let new = texts(200, 200, &["grobbit"]);
        let of = |kind: usize| {
            new.iter()
                .enumerate()
                .filter(|(i, _)| i / 2 % 2 == kind)
                .map(|(_, t)| by_chance.score(&t.0))
                .collect::<Vec<_>>()
        };
        assert!((0.35..0.65).contains(&auc(&of(0), &of(1))));
        assert!(rude_lexicon().contains("grobbit"));
    }

    #[test]
    fn it_comes_back_from_its_file_and_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rude.safetensors");
        let bag = Bag::train(&texts(0, 20, &["grobbit"]), 1).unwrap();
        bag.save(&path).unwrap();
        assert_eq!(Bag::load(&path).unwrap(), bag);
        std::fs::write(&path, "no tensors").unwrap();
        assert!(Bag::load(&path).unwrap_err().to_string().contains("rude.safetensors"));
        let error = Bag::train(&[("a".into(), true)], 1).unwrap_err().to_string();
        assert!(error.contains("of 1 texts 1 are of the kind"), "{error}");
        assert!((0.0..=1.0).contains(&bag.score("")) && (0.0..=1.0).contains(&bag.score("ä€")));
    }
}
