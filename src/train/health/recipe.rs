//! What a recipe says that findings hang on, and which of its keys to turn.

use super::finding::Knob;
use crate::train::recipe::RecipeOf;
use crate::train::schedule::Shape;

/// What of a recipe the rules know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The highest learning rate.
    pub lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Whether gradients are clipped.
    pub clips: bool,
    /// Whether training shall lower the loss: not where two networks play against one another, parts of the loss grow in weight,
    /// or the rate rises until the model breaks.
    pub falls: bool,
    /// Whether the weights are fresh ones, for which there is much to learn.
    pub fresh: bool,
}

/// Fewer steps of warm-up are none.
const LEAST_WARMUP: u64 = 10;

impl Terms {
    /// Of a recipe whose loss falls as a model with fresh weights learns.
    pub fn of<M, D, S>(recipe: &RecipeOf<M, D, S>) -> Terms {
        let (train, optim) = (&recipe.train, &recipe.optim);
        Terms {
            lr: optim.lr,
            warmup: optim.warmup,
            steps: train.steps,
            clips: optim.clip > 0.0,
            falls: optim.schedule != Shape::Rising,
            fresh: true,
        }
    }

    /// Whether the run begins with next to its full rate.
    pub fn starts_cold(&self) -> bool {
        self.warmup < LEAST_WARMUP
    }

    /// The learning rate times `factor`, to two digits.
    pub fn lr_times(&self, factor: f64) -> Knob {
        Knob { key: "optim.lr", value: format!("{:.1e}", self.lr * factor) }
    }

    /// A warm-up of a twentieth of the run, between 20 and 2,000 steps; those of the published runs lie there (GPT-3, arXiv
    /// 2005.14165, appendix B; LLaMA, arXiv 2302.13971, section 2.3: 2,000 steps).
    pub fn warm_up(&self) -> Knob {
        Knob { key: "optim.warmup", value: (self.steps / 20).clamp(20, 2000).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    #[test]
    fn knobs_are_values_that_a_recipe_can_take() {
        let recipe = Recipe::default();
        let terms = Terms::of(&recipe);
        assert!(!terms.starts_cold() && terms.falls && terms.fresh && terms.clips);
        for knob in [terms.lr_times(0.1), terms.warm_up()] {
            Recipe::load(None, &[format!("{}={}", knob.key, knob.value)]).expect("a recipe");
        }
        assert_eq!((terms.lr_times(0.1).value, terms.warm_up().value), ("4.0e-4".into(), "60".into()));
        let cold = Recipe::load(None, &["optim.warmup=9".into(), "optim.schedule=rising".into()]).expect("a recipe");
        assert!(Terms::of(&cold).starts_cold() && !Terms::of(&cold).falls);
    }
}
