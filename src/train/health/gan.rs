//! A GAN, by what its last steps and evaluations came to: its losses do not fall as it learns. The thresholds are those of the watchdog of
//! a run that is under way ([`watchdog`](crate::train::pictures::watchdog)).

use super::finding::{Finding, Kind, Knob, Number};
use crate::model::GanLoss;
use crate::train::metrics::Record;

/// Below this share of the data's diversity pictures are too alike.
const DIVERSITY: f64 = 0.7;

/// A mean logit from which on the logistic loss has the discriminator right with a probability of 98 %.
const CERTAIN: f64 = 4.0;

/// Steps whose logits are averaged.
const STEPS: usize = 100;

/// What was measured, and what is wrong.
pub fn look(loss: GanLoss, records: &[Record]) -> (Vec<Number>, Vec<Finding>) {
    let (mut numbers, mut findings) = (Vec::new(), Vec::new());
    let knob = || Knob { key: "model.r1", value: "1.0".into() };
    let last = |name: &str| records.iter().rev().find_map(|record| record.more.get(name).copied());
    if let Some(value) = last("val_diversity") {
        let evidence = [("diversity, as a share of the data's", value)];
        numbers.push(Number { name: evidence[0].0, value });
        if value < DIVERSITY {
            let what = "pictures are too alike: the generator may have collapsed";
            findings.push(Finding::new(Kind::ModeCollapse, what, &evidence, knob()));
        }
    }
    let mean = |name: &str| {
        let all: Vec<f64> = records.iter().rev().take(STEPS).filter_map(|r| r.more.get(name).copied()).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    if let (Some(real), Some(fake)) = (mean("d_real"), mean("d_fake")) {
        let evidence = [("mean logit of data", real), ("mean logit of what is made", fake)];
        numbers.extend(evidence.map(|(name, value)| Number { name, value }));
        if loss == GanLoss::NonSaturating && real > CERTAIN && fake < -CERTAIN {
            let what = "the discriminator tells all pictures right, so the generator learns little from it";
            findings.push(Finding::new(Kind::DiscriminatorWins, what, &evidence, knob()));
        }
    }
    (numbers, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_and_a_discriminator_that_wins_are_named_and_health_is_not() {
        let kinds = |loss, logit: f64, diversity: f64| -> Vec<Kind> {
            let record = |step| {
                let more = [("d_real", logit), ("d_fake", -logit), ("val_diversity", diversity)];
                let more = more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                let (val_loss, bits_per_byte, skipped) = (None, None, None);
                Record { step, loss: 1.0, lr: 1e-3, grad_norm: 1.0, val_loss, bits_per_byte, skipped, more }
            };
            let records: Vec<Record> = (1..=150).map(record).collect();
            look(loss, &records).1.into_iter().map(|found| found.kind).collect()
        };
        assert_eq!(kinds(GanLoss::NonSaturating, 1.5, 0.95), []);
        assert_eq!(kinds(GanLoss::NonSaturating, 6.0, 0.95), [Kind::DiscriminatorWins]);
        // Other losses' logits mean something else.
        assert_eq!(kinds(GanLoss::Wasserstein, 60.0, 0.95), []);
        assert_eq!(kinds(GanLoss::Hinge, 1.0, 0.3), [Kind::ModeCollapse]);
        assert!(look(GanLoss::Hinge, &[]).1.is_empty());
    }
}
