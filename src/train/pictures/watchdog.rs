//! Watches a GAN for what goes wrong with GANs, and says which knob to turn.
//!
//! Of the discriminator's logits it keeps running means (over about a hundred steps): the share that it gets right, and the
//! gap between data and what is made. A verdict adds how much samples differ and which classes are there.

use super::judge::Verdict;

/// The weight of a step in the running means.
const SHARE: f64 = 0.02;

/// What the discriminator's logits were like of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watchdog {
    /// The share of pictures that it told right.
    accuracy: Option<f64>,
    /// The mean logit of data less that of what was made, over how far logits of data lie from one another.
    gap: Option<f64>,
}

impl Watchdog {
    /// Takes in the logits of a step.
    pub fn logits(&mut self, real: &[f32], fake: &[f32]) {
        let n = (real.len() + fake.len()).max(1) as f64;
        let right = real.iter().filter(|x| **x > 0.0).count() + fake.iter().filter(|x| **x < 0.0).count();
        let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len().max(1) as f64;
        let (of_real, of_fake) = (mean(real), mean(fake));
        let spread = (real.iter().map(|&x| (f64::from(x) - of_real).powi(2)).sum::<f64>() / n).sqrt();
        let keep = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + SHARE * (new - old)));
        self.accuracy = keep(self.accuracy, right as f64 / n);
        self.gap = keep(self.gap, (of_real - of_fake) / (spread + 1e-6));
    }

    /// What is wrong, in words.
    pub fn warnings(&self, verdict: &Verdict) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(right) = self.accuracy.filter(|right| *right > 0.97) {
            all.push(format!(
                "the discriminator tells {:.0} % of pictures right, so the generator learns little from it: raise \
                 model.noise or model.smoothing, set model.r1, or lower model.d",
                100.0 * right
            ));
        }
        if let Some(gap) = self.gap.filter(|gap| *gap < 0.02 && self.accuracy.is_some_and(|right| right < 0.53)) {
            all.push(format!(
                "the discriminator cannot tell pictures apart (logits {gap:.2} deviations from one another), so it teaches \
                 nothing: raise model.d, or lower model.noise or model.r1"
            ));
        }
        if verdict.diversity < 0.7 {
            all.push(format!(
                "pictures are too alike: two of them differ {:.2} times as much as two of the data; the generator may have \
                 collapsed: set model.r1, raise model.noise, lower optim.lr, or go back to an earlier checkpoint",
                verdict.diversity
            ));
        }
        if let Some(classes) = verdict.classes.as_ref().filter(|classes| !classes.missing.is_empty()) {
            let missing: Vec<String> = classes.missing.iter().take(10).map(usize::to_string).collect();
            all.push(format!(
                "classes {} are hardly among the pictures: train longer, or set model.conditional = true",
                missing.join(", ")
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Classes;

    fn verdict(diversity: f64, counts: &[usize]) -> Verdict {
        let classes = Classes { counts: counts.to_vec() };
        Verdict::new(10.0, diversity, Some(classes.spread(super::super::judge::LEAST_SHARE, None)))
    }

    #[test]
    fn each_ailment_is_named_with_a_knob_and_health_is_not() {
        let (mut won, mut lost, mut fine) = (Watchdog::default(), Watchdog::default(), Watchdog::default());
        for _ in 0..300 {
            won.logits(&[5.0, 6.0], &[-5.0, -4.0]);
            lost.logits(&[0.1, -0.1], &[0.1, -0.1]);
            fine.logits(&[1.0, -0.5, 2.0, 1.0], &[-1.0, 0.5, -2.0, -1.0]);
        }
        let said = |dog: &Watchdog, diversity, counts: &[usize]| dog.warnings(&verdict(diversity, counts)).join("\n");
        assert_eq!(said(&fine, 0.97, &[50, 50]), "");
        for (text, word, knob) in [
            (said(&won, 0.97, &[50, 50]), "100 % of pictures right", "model.noise"),
            (said(&lost, 0.97, &[50, 50]), "cannot tell", "model.d"),
            (said(&fine, 0.3, &[50, 50]), "too alike", "model.r1"),
            (said(&fine, 0.97, &[99, 1]), "classes 1 ", "model.conditional"),
        ] {
            assert!(text.contains(word) && text.contains(knob) && !text.contains('\n'), "{word}: {text}");
        }
    }
}
