//! Which documents are held out for validation.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// How held-out text is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Whole documents, each by a hash of the seed and its index: adding documents at the end moves none of the
    /// earlier ones. A single document falls back to [`Rule::Tail`].
    #[default]
    Document,
    /// The last part of all text, counted in characters (as nanoGPT cuts Shakespeare). Holds all text in memory.
    Tail,
}

/// The share of text held out for validation, and how it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// How.
    pub rule: Rule,
    /// The share, above 0 and below 1.
    pub fraction: f64,
    /// Selects among the splits that [`Rule::Document`] could make.
    pub seed: u64,
}

impl Default for Split {
    fn default() -> Split {
        Split { rule: Rule::Document, fraction: 0.05, seed: 1337 }
    }
}

/// The stream of the split among those of [`Purpose::Order`]; the order of windows uses low numbers.
const STREAM: u32 = 0xFF_FFFF;

impl Split {
    /// Checks the fraction.
    pub fn check(&self) -> Result<()> {
        if self.fraction > 0.0 && self.fraction < 1.0 {
            return Ok(());
        }
        Err(Error::usage(
            format!("--val-fraction: the share held out for validation is {}: not between 0 and 1", self.fraction),
            "hold out 0.05 for 5 % (--val-fraction, or data.val_fraction in a recipe)",
        ))
    }

    /// Whether the document with this index, from 0, is held out under [`Rule::Document`].
    pub fn holds_out(&self, index: u64) -> bool {
        let bits = Stream::new(self.seed, Purpose::Order, STREAM, 0).bits(index);
        f64::from(bits) < self.fraction * 4_294_967_296.0
    }

    /// How many of `chars` characters are for training under [`Rule::Tail`]; at least one on each side.
    pub fn head(&self, chars: usize) -> usize {
        ((chars as f64 * (1.0 - self.fraction)) as usize).clamp(1, chars.saturating_sub(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_held_out_is_the_fraction() {
        for fraction in [0.01, 0.05, 0.5] {
            let split = Split { fraction, ..Split::default() };
            let held = (0..100_000).filter(|&i| split.holds_out(i)).count() as f64;
            let deviation = (100_000.0 * fraction * (1.0 - fraction)).sqrt();
            assert!((held - 100_000.0 * fraction).abs() < 4.0 * deviation, "{held} of 100000 at {fraction}");
        }
    }

    #[test]
    fn seeds_choose_differently() {
        let chosen =
            |seed| (0..200).map(|i| Split { seed, fraction: 0.5, ..Split::default() }.holds_out(i)).collect::<Vec<_>>();
        assert_ne!(chosen(1), chosen(2));
        assert_eq!(chosen(1), chosen(1));
    }

    #[test]
    fn the_tail_is_nanogpts() {
        assert_eq!(Split { rule: Rule::Tail, fraction: 0.1, seed: 0 }.head(1_115_394), 1_003_854);
        assert_eq!(Split { rule: Rule::Tail, fraction: 0.999, seed: 0 }.head(2), 1);
        assert_eq!(Split { rule: Rule::Tail, fraction: 0.001, seed: 0 }.head(2), 1);
    }
}
