//! How large a language model and how much text suit one another (Hoffmann et al. 2022, arXiv 2203.15556).
//!
//! Training costs about `C = 6 N D` operations for N parameters and D tokens. For a given C the loss is least where both grow alike;
//! their table 3 has about 20 tokens a parameter, so `N = √(C / 120)` and `D = 20 N`. They fitted models of 44 million parameters and
//! more: below that it is a rule of thumb. Tokens that come again count nearly as new ones up to four times (Muennighoff et al.
//! 2023, arXiv 2305.16264).

use serde::{Deserialize, Serialize};

/// Tokens a parameter at which both are worth the same.
pub const TOKENS: f64 = 20.0;

/// How often text may come again.
pub const EPOCHS: f64 = 4.0;

/// How far a run is from the best use of its operations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// N.
    pub parameters: f64,
    /// D: tokens trained on, those that come again counted again.
    pub tokens: f64,
    /// D / N.
    pub ratio: f64,
    /// The N that suits 6 N D operations.
    pub best_parameters: f64,
    /// The D that does.
    pub best_tokens: f64,
    /// How often the text is gone through; `None` where nobody knows how much there is.
    pub epochs: Option<f64>,
}

impl Scaling {
    /// Of a run over `tokens` tokens, of `text` different ones where that is known.
    pub fn of(parameters: usize, tokens: f64, text: Option<f64>) -> Scaling {
        let parameters = parameters as f64;
        let best = (6.0 * parameters * tokens / (6.0 * TOKENS)).sqrt();
        Scaling {
            parameters,
            tokens,
            ratio: tokens / parameters,
            best_parameters: best,
            best_tokens: TOKENS * best,
            epochs: text.filter(|text| *text > 0.0).map(|text| tokens / text),
        }
    }

    /// What follows, in a sentence or two.
    pub fn advice(&self) -> String {
        let Scaling { ratio, best_parameters, best_tokens, epochs, .. } = *self;
        let [n, d] = [best_parameters, best_tokens].map(short);
        let size = match ratio / TOKENS {
            r if r < 0.5 => {
                format!("few tokens for its size: {n} parameters on {d} tokens would make more of the same work")
            }
            r if r > 2.0 => {
                format!(
                    "many tokens for its size, which makes a model that is cheap to use; {n} parameters on {d} tokens would make more of the same work"
                )
            }
            _ => "close to the best use of the work".to_owned(),
        };
        match epochs {
            Some(epochs) if epochs > EPOCHS => {
                format!(
                    "{size}. The text comes {epochs:.1} times; beyond {EPOCHS:.0} more text, or a smaller model, helps more"
                )
            }
            _ => size,
        }
    }
}

/// `1.3M`.
pub(super) fn short(n: f64) -> String {
    let (scale, name) = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(scale, _)| n >= *scale)
        .unwrap_or((1.0, ""));
    let n = n / scale;
    if n < 10.0 { format!("{n:.1}{name}") } else { format!("{n:.0}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_size_costs_the_same_and_has_twenty_tokens_a_parameter() {
        // Chinchilla itself: 70 billion parameters, 1.4 trillion tokens.
        let found = Scaling::of(70_000_000_000, 1.4e12, None);
        assert!((found.ratio - 20.0).abs() < 1e-9 && (found.best_parameters / 70e9 - 1.0).abs() < 1e-9);
        // Gopher: four times the size on 300 billion tokens.
        let gopher = Scaling::of(280_000_000_000, 3e11, None);
        let [cost, best] =
            [(gopher.parameters, gopher.tokens), (gopher.best_parameters, gopher.best_tokens)].map(|(n, d)| n * d);
        assert!((cost / best - 1.0).abs() < 1e-9 && gopher.advice().contains("few tokens"), "{gopher:?}");
        assert!(Scaling::of(1000, 1e6, Some(1e5)).advice().contains("comes 10.0 times"));
    }
}
