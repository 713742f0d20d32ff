//! Does a model learn to add rightly when it is told of each of its answers whether it is right? It has read sums by writers of whom a third are
//! right and the others close: it knows how to add, and says so in a third of its answers. GRPO has to find out which third.
//!
//! - **Asked** are 500 pairs of numbers below 100 that neither the writers nor the rewards were about; answers are sampled at temperature 1.
//! - **Start range**: 20 to 40 % right.
//! - **Expected curve**: a band that each seed has to stay in ([`BAND`]).
//! - **Control**: the same with the advantages' sign turned (a right answer costs what it earned), which has to leave the band.

use super::asked::answered;
use super::effect::{Effect, Effects, Unit};
use super::manners::on;
use super::{Seed, write_lines};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::model::sample::SampleOptions;
use crate::rng::{Purpose, Rng};
use crate::train::tune::REINFORCE;
use crate::train::{Summary, checkpoint};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// The share of right answers after so many steps: at least, at most. Seeds 1 to 3 drew it, with room around them.
pub const BAND: [(u64, f64, f64); 6] =
    [(0, 0.20, 0.40), (160, 0.45, 0.92), (320, 0.62, 0.95), (480, 0.70, 1.0), (640, 0.75, 1.0), (800, 0.75, 1.0)];

/// Below what numbers are.
const BELOW: u32 = 100;

/// By how much those who are wrong are.
const SLIPS: [i64; 6] = [-10, -2, -1, 1, 2, 10];

/// Pairs that are asked, and such that are rewarded; the writers have the others.
const ASKED: [usize; 2] = [500, 2500];

/// What is learnt from, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Steps of reading sums.
    pub read_steps: u64,
    /// Sums to read.
    pub texts: usize,
    /// The share of these that are right.
    pub right: f64,
    /// Answers of a step.
    pub answers: usize,
    /// Answers to a sum.
    pub group: usize,
    /// The learning rate.
    pub lr: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { read_steps: 3500, texts: 400_000, right: 0.35, answers: 128, group: 8, lr: 1e-3 }
    }
}

/// The share of right answers after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Steps.
    pub step: u64,
    /// Of answers at temperature 1.
    pub right: f64,
}

/// What came out for a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The share of sums whose likeliest answer is right, before.
    pub knows: f64,
    /// With rewards for right answers.
    pub curve: Vec<Point>,
    /// With the sign turned.
    pub turned: Vec<Point>,
    /// Seconds of the first.
    pub seconds: f64,
}

impl Outcome {
    /// Whether a curve stays in the band.
    pub fn inside(curve: &[Point]) -> bool {
        let at = |point: &Point| BAND.iter().find(|(step, ..)| *step == point.step);
        curve.iter().all(|point| at(point).is_none_or(|&(_, low, high)| (low..=high).contains(&point.right)))
    }
}

/// A sum of two numbers.
type Pair = [u32; 2];

fn prompt([a, b]: &Pair) -> String {
    format!("{a} + {b} =")
}

/// The share of `pairs` that the model at `path` answers rightly.
fn right(path: &Path, pairs: &[Pair], temperature: f32, at: &Seed) -> Result<f64> {
    let prompts: Vec<String> = pairs.iter().map(prompt).collect();
    let options =
        |i: usize| SampleOptions { tokens: 6, temperature, seed: at.seed << 32 | i as u64, ..SampleOptions::default() };
    let said = answered(path, &prompts, &options, at.device)?;
    let right = pairs.iter().zip(&said).filter(|(pair, said)| said.trim() == pair.iter().sum::<u32>().to_string());
    Ok(right.count() as f64 / pairs.len() as f64)
}

/// Does the study for one seed.
///
/// # Errors
/// A run fails; a signal stopped one.
pub fn study(settings: &Settings, at: &mut Seed) -> Result<Outcome> {
    disk::make_dirs(&Os, at.dir)?;
    let mut rng = Rng::new(at.seed, Purpose::Resample, 41, 0);
    let mut pairs: Vec<Pair> = (0..BELOW * BELOW).map(|i| [i / BELOW, i % BELOW]).collect();
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, rng.below(i as u32 + 1) as usize);
    }
    let (asked, rest) = pairs.split_at(ASKED[0]);
    let (rewarded, read) = rest.split_at(ASKED[1]);
    let [texts, sums] = ["sums.jsonl", "rewarded.jsonl"].map(|name| at.dir.join(name));
    write_lines(
        &texts,
        (0..settings.texts).map(|_| {
            let [a, b] = read[rng.below(read.len() as u32) as usize];
            let slip = SLIPS[rng.below(SLIPS.len() as u32) as usize];
            let slip = if f64::from(rng.uniform()) < settings.right { 0 } else { slip };
            json!({"text": format!("{a} + {b} = {}", i64::from(a + b) + slip)})
        }),
    )?;
    write_lines(
        &sums,
        rewarded.iter().map(|pair| json!({"prompt": prompt(pair), "answer": pair.iter().sum::<u32>()})),
    )?;
    at.says("reading sums of writers who slip");
    // Bytes; and positions as distances (RoPE), for a sum stands anywhere in a row.
    let own = ["data.vocab=257".into(), "model.kind=llama".into()];
    let start = at.reads("start", Some(&texts), settings.read_steps, &own)?;

    let [every, last] = [BAND[1].0, BAND[BAND.len() - 1].0];
    let of = |weight: f64| {
        let more = [
            format!("model.reinforce.rewards={{ exact = {weight:?} }}"),
            format!("model.reinforce.group={}", settings.group),
            "model.reinforce.tokens=6".into(),
            format!("optim.lr={}", settings.lr),
            format!("train.steps={last}"),
            format!("train.batch={}", settings.answers),
            "train.accumulate=1".into(),
            format!("train.checkpoint_every={every}"),
            format!("train.keep={}", BAND.len()),
            "eval.max_batches=1".into(),
        ];
        on(&start.run, &sums, &more)
    };
    let curve = |run: &Summary, at: &Seed| -> Result<Vec<Point>> {
        let mut curve = vec![Point { step: 0, right: right(&start.run, asked, 1.0, at)? }];
        for (step, path) in checkpoint::list(&Os, &run.run.join("checkpoints"))? {
            curve.push(Point { step, right: right(&path, asked, 1.0, at)? });
        }
        Ok(curve)
    };
    at.says("learning from rewards");
    let run = at.run("rewarded", REINFORCE, &of(1.0))?;
    let (found, seconds) = (curve(&run, at)?, run.seconds);
    at.says("the same with the sign turned");
    let turned = at.run("turned", REINFORCE, &of(-1.0))?;
    Ok(Outcome {
        seed: at.seed,
        knows: right(&start.run, asked, 0.0, at)?,
        curve: found,
        turned: curve(&turned, at)?,
        seconds,
    })
}

impl Effects for Outcome {
    const STUDY: &'static str = "sums";
    const ASKS: &'static str = "Does a model learn to add rightly by rewards alone?";

    fn effects(&self) -> Vec<Effect> {
        let end = |name: &str, point: Option<&Point>| (name.to_owned(), point.map_or(f64::NAN, |point| point.right));
        vec![Effect {
            what: "right sums of numbers that no reward was about".into(),
            unit: Unit::Share,
            before: end("before", self.curve.first()),
            after: end("GRPO", self.curve.last()),
            control: end("the sign turned", self.turned.last()),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_holds_a_curve_that_learns_and_none_that_does_not() {
        let steps = BAND.map(|(step, ..)| step);
        let curve = |right: [f64; 6]| -> Vec<Point> {
            steps.into_iter().zip(right).map(|(step, right)| Point { step, right }).collect()
        };
        assert!(Outcome::inside(&curve([0.30, 0.67, 0.80, 0.87, 0.88, 0.88])));
        // The sign turned; nothing learnt; too easy a start; no number.
        for right in [
            [0.30, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.30; 6],
            [0.60, 0.67, 0.80, 0.87, 0.88, 0.88],
            [0.30, 0.67, 0.80, 0.87, 0.88, f64::NAN],
        ] {
            assert!(!Outcome::inside(&curve(right)), "{right:?}");
        }
    }
}
