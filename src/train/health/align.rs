//! A model that learns from preferences or from rewards, by what its steps and evaluations came to: its loss alone says little.
//!
//! - Of pairs: Rafailov et al. 2023 (arXiv 2305.18290) let only the difference of two answers count, so both may become less likely; Pal et al. 2024
//!   (arXiv 2402.13228) and Razin et al. 2024 (arXiv 2410.08847) show how the preferred one is lost on the way.
//! - Of rewards: what a run says once while it goes on ([`rl`](crate::train::rl)), judged here by the mean of its last steps.

use super::finding::{Finding, Kind, Knob, Number};
use crate::train::metrics::Record;
use crate::train::prefer::{Preference, PreferenceLoss};
use crate::train::rl::{LEAST_ENTROPY, MOST, Reinforcement};

/// Steps that are averaged.
const STEPS: usize = 50;

/// A run of fewer is not judged.
const LEAST: usize = 20;

/// Of training pairs told right, and of held-out ones: more and less than this is learning by heart.
const BY_HEART: [f64; 2] = [0.95, 0.65];

/// What was measured, and what is wrong.
type Looked = (Vec<Number>, Vec<Finding>);

/// The mean of a number over the last steps that have it; `None` where too few do.
fn last(records: &[Record], name: &str) -> Option<f64> {
    mean(records.iter().rev().filter_map(|record| record.more.get(name).copied()))
}

/// The same over the first steps.
fn first(records: &[Record], name: &str) -> Option<f64> {
    mean(records.iter().filter_map(|record| record.more.get(name).copied()))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let all: Vec<f64> = values.take(STEPS).collect();
    (all.len() >= LEAST).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// The last evaluation's value of a number.
fn judged(records: &[Record], name: &str) -> Option<f64> {
    records.iter().rev().find_map(|record| record.more.get(name).copied())
}

/// Of a model that learns from preferences.
pub fn prefer(preference: &Preference, records: &[Record]) -> Looked {
    let (mut numbers, mut findings) = (Vec::new(), Vec::new());
    if let (Some(trained), Some(held_out)) =
        (last(records, "rewards/accuracies"), judged(records, "val_rewards/accuracies"))
    {
        let evidence = [("training pairs told right", trained), ("held-out pairs told right", held_out)];
        numbers.extend(evidence.map(|(name, value)| Number { name, value }));
        if trained > BY_HEART[0] && held_out < BY_HEART[1] {
            let what = "pairs are learnt by heart: those that it trained on are told right, held-out ones little better than by chance";
            let knob = Knob { key: "data.epochs", value: "1".into() };
            findings.push(Finding::new(Kind::Overfitting, what, &evidence, knob));
        }
    }
    let of_pairs = matches!(preference.loss, PreferenceLoss::Sigmoid | PreferenceLoss::Ipo);
    if let (true, Some(chosen), Some(margin)) =
        (of_pairs, last(records, "rewards/chosen"), last(records, "rewards/margins"))
    {
        // In nats: a reward is beta times what the model gives more than its reference.
        let evidence = [
            ("nats that preferred answers lost", -chosen / f64::from(preference.beta)),
            ("nats between the two", margin / f64::from(preference.beta)),
        ];
        numbers.extend(evidence.map(|(name, value)| Number { name, value }));
        if margin > 0.0 && -chosen > margin {
            let what =
                "preferred answers lose more probability than they are kept apart by: what is learnt is to say neither";
            let knob = Knob { key: "model.preference.sft", value: "0.2".into() };
            findings.push(Finding::new(Kind::PreferredLost, what, &evidence, knob));
        }
    }
    (numbers, findings)
}

/// Of a model that learns from rewards.
pub fn reinforce(reinforce: &Reinforcement, records: &[Record]) -> Looked {
    let (mut numbers, mut findings) = (Vec::new(), Vec::new());
    let mut rule =
        |kind: Kind, what: &str, evidence: &[(&'static str, f64)], holds: bool, key: &'static str, value: String| {
            numbers.extend(evidence.iter().map(|&(name, value)| Number { name, value }));
            if holds {
                findings.push(Finding::new(kind, what, evidence, Knob { key, value }));
            }
        };
    if let Some(cut) = last(records, "completions/clipped_ratio") {
        let (what, key, value) = match reinforce.agent {
            Some(_) => ("trajectories are cut off before they end", "train.context", "<twice as much>".to_owned()),
            None => {
                ("answers are cut off before they end", "model.reinforce.tokens", (2 * reinforce.tokens).to_string())
            }
        };
        rule(Kind::Truncated, what, &[("share cut off", cut)], cut > MOST, key, value);
    }
    if let Some(alike) = last(records, "frac_reward_zero_std") {
        let what = "in most groups all answers are worth the same, and nothing is learnt of them: prompts are too hard or too easy";
        let value = (2 * reinforce.group).to_string();
        rule(
            Kind::GroupsAlike,
            what,
            &[("share of groups alike", alike)],
            alike > MOST,
            "model.reinforce.group",
            value,
        );
    }
    if let (Some(was), Some(is)) = (first(records, "entropy"), last(records, "entropy")) {
        let what = "the model tries nothing new any more";
        let value = reinforce.kl.map_or("0.05".to_owned(), |kl| format!("{}", (2.0 * kl).max(0.01)));
        let evidence = [("entropy at first", was), ("entropy now", is)];
        rule(Kind::EntropyCollapse, what, &evidence, is < LEAST_ENTROPY * was, "model.reinforce.kl", value);
    }
    (numbers, findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::AnyRecipe;
    use crate::train::tune::{PREFER, REINFORCE};

    fn records(of: &dyn Fn(u64) -> Vec<(&'static str, f64)>) -> Vec<Record> {
        let record = |step| Record {
            step,
            loss: 0.5,
            lr: 1e-4,
            grad_norm: 1.0,
            val_loss: None,
            bits_per_byte: None,
            skipped: None,
            more: of(step).into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        (1..=200).map(record).collect()
    }

    fn kinds(looked: Looked) -> Vec<Kind> {
        looked.1.into_iter().map(|found| found.kind).collect()
    }

    #[test]
    fn preferred_answers_that_are_lost_and_pairs_learnt_by_heart_are_named() {
        let AnyRecipe::Prefer(recipe) =
            AnyRecipe::load(None, PREFER, &["model.base='.'".into(), "data.path='.'".into()]).expect("a recipe")
        else {
            panic!("of preferences")
        };
        let preference = recipe.model.preference.expect("it has one");
        let of = |chosen: f64, margin: f64, right: [f64; 2]| {
            let records = records(&|_| {
                vec![
                    ("rewards/chosen", chosen),
                    ("rewards/margins", margin),
                    ("rewards/accuracies", right[0]),
                    ("val_rewards/accuracies", right[1]),
                ]
            });
            kinds(prefer(&preference, &records))
        };
        assert_eq!(of(-0.34, 0.65, [0.81, 0.75]), []);
        assert_eq!(of(-3.0, 2.0, [0.81, 0.75]), [Kind::PreferredLost]);
        assert_eq!(of(0.5, 2.0, [0.99, 0.55]), [Kind::Overfitting]);
        // A reward model's rewards are its own.
        let judge = Preference { loss: PreferenceLoss::Reward, ..preference };
        let lost = records(&|_| vec![("rewards/chosen", -3.0), ("rewards/margins", 2.0)]);
        assert_eq!(kinds(prefer(&judge, &lost)), []);
        assert_eq!(kinds(prefer(&preference, &lost[..10])), [], "too few steps to judge");
    }

    #[test]
    fn answers_cut_off_groups_alike_and_an_entropy_that_fell_are_named() {
        let AnyRecipe::Reinforce(recipe) =
            AnyRecipe::load(None, REINFORCE, &["model.base='.'".into(), "data.path='.'".into()]).expect("a recipe")
        else {
            panic!("of rewards")
        };
        let reinforcement = recipe.model.reinforce.expect("it has one");
        let of = |cut: f64, alike: f64, now: f64| {
            let records = records(&|step| {
                let entropy = if step > 100 { now } else { 2.0 };
                vec![("completions/clipped_ratio", cut), ("frac_reward_zero_std", alike), ("entropy", entropy)]
            });
            kinds(reinforce(&reinforcement, &records))
        };
        assert_eq!(of(0.1, 0.25, 0.6), []);
        assert_eq!(of(0.9, 0.25, 0.6), [Kind::Truncated]);
        assert_eq!(of(0.1, 0.75, 0.6), [Kind::GroupsAlike]);
        assert_eq!(of(0.1, 0.25, 0.1), [Kind::EntropyCollapse]);
    }
}
