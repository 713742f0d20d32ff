//! A look into a language model while it reads its own training data: logits, hidden units, attention.
//!
//! - **Logits**: the largest in size. PaLM keeps them small by a loss of its own (arXiv 2204.02311, section 5); where they grow
//!   without bound training diverges (Wortsman et al. 2023, arXiv 2309.14322, section 3.1.2).
//! - **Hidden units**: what the last matrix of an MLP reads. A unit that is 0 for every token is dead: neither it nor the row
//!   before it has a gradient. One that is far out on the straight arm of its nonlinearity for every token only adds a constant.
//! - **Attention**: the entropy of each head's weights over that of looking everywhere alike, −Σ p ln p / ln n. Training gets
//!   unstable where it collapses to 0 (Zhai et al. 2023, arXiv 2303.06296). A head of a healthy model may look at one token; it is
//!   most of them that must not.

use super::finding::{Finding, Kind, Knob};
use super::recipe::Terms;
use crate::model::{GptConfig, Site};
use crate::tensor::Tensor;

/// A logit from which on softmax is certain: e¹⁰⁰ is beyond f32. Healthy runs of the study had up to 13.
pub const LOGIT: f64 = 100.0;

/// The share of all hidden units that may be dead. Healthy runs of the study had none.
pub const DEAD: f64 = 0.1;

/// The share of all hidden units that may be saturated. Healthy runs of the study had none.
pub const SATURATED: f64 = 0.1;

/// Below this share of the largest entropy a head has collapsed.
pub const COLLAPSED: f64 = 0.03;

/// The share of heads that may have. Healthy runs of the study had none, broken ones half of them or more; their mean entropies were above
/// 0.7, and below 0.1.
pub const HEADS: f64 = 0.4;

/// A hidden value below this share of its layer's root mean square (or of 0.1, if that is larger) is 0: GELU is there at −3.
const ZERO: f32 = 0.01;

/// From here on GELU and SiLU are straight lines, to 0.1 % and 2 %.
const STRAIGHT: f32 = 4.0;

/// Positions of a row whose attention is looked at.
const QUERIES: usize = 32;

/// Tokens that a position must see, for its entropy to say much.
const LEAST_SEEN: usize = 8;

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Look {
    heads: [usize; 2],
    /// Of logits, the largest size.
    logit: f64,
    /// By block, of each hidden unit: the largest size, the least value, and the sum of the squares of all.
    hidden: Vec<Hidden>,
    /// By block and head: the sum of relative entropies, and how many.
    entropy: Vec<Vec<[f64; 2]>>,
}

#[derive(Clone, Debug, Default)]
struct Hidden {
    largest: Vec<f32>,
    least: Vec<f32>,
    squares: f64,
    rows: usize,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// The largest logit in size.
    pub logit: f64,
    /// The share of hidden units that are 0 for every token.
    pub dead: f64,
    /// The share that are far out for every token.
    pub saturated: f64,
    /// The mean of all heads' relative entropies; NaN where rows are too short to say.
    pub entropy: f64,
    /// The share of heads that have collapsed.
    pub collapsed: f64,
}

impl Look {
    /// Before anything was seen, of a model of this shape.
    pub fn new(config: &GptConfig) -> Look {
        Look { heads: [config.heads, config.kv_heads], ..Look::default() }
    }

    /// What [`Gpt::look`](crate::model::Gpt::look) shows.
    pub fn see(&mut self, site: Site, block: usize, x: &Tensor) {
        match site {
            Site::Stream => {}
            Site::Logits => {
                let largest =
                    x.f32().iter().fold(0.0f32, |max, x| if x.is_finite() { max.max(x.abs()) } else { f32::MAX });
                self.logit = self.logit.max(largest.into());
            }
            Site::Hidden => {
                self.hidden.resize_with(self.hidden.len().max(block + 1), Hidden::default);
                self.hidden[block].see(x.f32(), x.shape().last_dim());
            }
            Site::Qkv => {
                self.entropy.resize_with(self.entropy.len().max(block + 1), Vec::new);
                entropies(x.f32(), [x.shape()[1], x.shape()[2]], self.heads, &mut self.entropy[block]);
            }
        }
    }

    /// What was seen.
    pub fn seen(&self) -> Seen {
        let units: usize = self.hidden.iter().map(|hidden| hidden.largest.len()).sum();
        let share = |of: fn(&Hidden) -> usize| self.hidden.iter().map(of).sum::<usize>() as f64 / units.max(1) as f64;
        let heads: Vec<f64> = self.entropy.iter().flatten().filter(|[_, n]| *n > 0.0).map(|[sum, n]| sum / n).collect();
        let n = heads.len().max(1) as f64;
        Seen {
            logit: self.logit,
            dead: share(Hidden::dead),
            saturated: share(Hidden::saturated),
            entropy: if heads.is_empty() { f64::NAN } else { heads.iter().sum::<f64>() / n },
            collapsed: heads.iter().filter(|entropy| **entropy < COLLAPSED).count() as f64 / n,
        }
    }
}

impl Hidden {
    fn see(&mut self, x: &[f32], units: usize) {
        self.largest.resize(units, 0.0);
        self.least.resize(units, f32::INFINITY);
        for row in x.chunks_exact(units) {
            for ((x, largest), least) in row.iter().zip(&mut self.largest).zip(&mut self.least) {
                *largest = largest.max(x.abs());
                *least = least.min(*x);
            }
            self.squares += row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            self.rows += 1;
        }
    }

    fn dead(&self) -> usize {
        let rms = (self.squares / (self.rows * self.largest.len()).max(1) as f64).sqrt() as f32;
        let zero = ZERO * rms.max(0.1);
        self.largest.iter().filter(|largest| **largest < zero).count()
    }

    fn saturated(&self) -> usize {
        self.least.iter().filter(|least| **least > STRAIGHT).count()
    }
}

/// Adds to each head's sum the relative entropies of some positions of all rows: qkv is (B, T, (H + 2·Hkv)·D).
fn entropies(qkv: &[f32], [t, width]: [usize; 2], [heads, kv_heads]: [usize; 2], sums: &mut Vec<[f64; 2]>) {
    sums.resize(heads, [0.0; 2]);
    let d = width / (heads + 2 * kv_heads);
    let scale = 1.0 / (d as f32).sqrt();
    let mut p = Vec::with_capacity(t);
    for row in qkv.chunks_exact(t * width) {
        for query in (0..QUERIES).map(|i| (i + 1) * t / QUERIES).filter(|&i| i > 0).map(|i| i - 1) {
            if query + 1 < LEAST_SEEN {
                continue;
            }
            for (head, sum) in sums.iter_mut().enumerate() {
                let q = &row[query * width + head * d..][..d];
                let key = (heads + head * kv_heads / heads) * d;
                p.clear();
                let dot = |k: &[f32]| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>();
                p.extend((0..=query).map(|at| dot(&row[at * width + key..][..d])));
                let entropy = entropy(&mut p) / ((query + 1) as f64).ln();
                if entropy.is_finite() {
                    *sum = [sum[0] + entropy, sum[1] + 1.0];
                }
            }
        }
    }
}

/// The entropy of softmax of `x`, in nats.
fn entropy(x: &mut [f32]) -> f64 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for x in x {
        let log = f64::from(*x - max);
        let e = log.exp();
        sum += e;
        weighted += if e > 0.0 { e * log } else { 0.0 };
    }
    sum.ln() - weighted / sum
}

impl Seen {
    /// What is wrong with it.
    pub fn judge(&self, terms: &Terms) -> Vec<Finding> {
        let Seen { logit, dead, saturated, entropy, collapsed } = *self;
        let lower = || terms.lr_times(0.1);
        let mut all = Vec::new();
        if logit > LOGIT {
            let what = "logits are so large that the model is certain of every token, right or wrong";
            let evidence = [("largest logit", logit), ("optim.lr", terms.lr)];
            all.push(Finding::new(Kind::ExplodingLogits, what, &evidence, lower()).severe(logit / LOGIT));
        }
        if collapsed > HEADS {
            let what = "attention has collapsed: most heads look at one token only, whatever is there";
            let evidence = [("share of heads", collapsed), ("mean entropy of all, relative", entropy)];
            let knob = if terms.starts_cold() { terms.warm_up() } else { lower() };
            if terms.starts_cold() && terms.fresh {
                // Zhai et al., section 3: warm-up is what keeps plain transformers from it.
                let what = "the run begins at its full learning rate, and attention has collapsed, as it then does";
                all.push(Finding::new(Kind::NoWarmup, what, &evidence, terms.warm_up()));
            }
            all.push(Finding::new(Kind::AttentionCollapse, what, &evidence, knob).severe(collapsed));
        }
        if dead > DEAD {
            let what = "hidden units are dead: 0 for every token, so that nothing they hang on learns any more";
            let evidence = [("share of units", dead), ("optim.lr", terms.lr)];
            all.push(Finding::new(Kind::DeadUnits, what, &evidence, lower()).severe(dead));
        }
        if saturated > SATURATED {
            let what = "hidden units are saturated: far out for every token, where they are straight lines";
            let evidence = [("share of units", saturated), ("optim.lr", terms.lr)];
            let knob = Knob { key: "optim.weight_decay", value: "0.1".into() };
            all.push(Finding::new(Kind::SaturatedUnits, what, &evidence, knob).severe(saturated));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::model::Size;

    const TERMS: Terms = Terms { lr: 1e-3, warmup: 20, steps: 600, clips: true, falls: true, fresh: true };

    fn config() -> GptConfig {
        GptConfig { kv_heads: 1, ..GptConfig::llama(Size { vocab: 10, context: 64, layers: 2, heads: 2, d: 8 }) }
    }

    /// What is seen where the largest logit, hidden values by unit and token, and queries and keys by position are these.
    fn seen(logit: f32, hidden: impl Fn(usize, usize) -> f32, q: impl Fn(usize, usize) -> f32) -> Seen {
        let (device, t, units) = (Device::cpu(1).expect("a CPU"), 64, 100);
        let mut look = Look::new(&config());
        let tensor = |values: Vec<f32>, last: usize| Tensor::from_slice(&device, &values, [1, t, last]);
        for block in 0..2 {
            // Two heads of queries, one of keys, one of values, of 4 channels each.
            let qkv = (0..t * 16).map(|i| q(i / 16, i % 16)).collect();
            look.see(Site::Qkv, block, &tensor(qkv, 16));
            let values = (0..t * units).map(|i| hidden(i % units, i / units)).collect();
            look.see(Site::Hidden, block, &tensor(values, units));
        }
        let logits = (0..t * 10).map(|i| if i == 77 { -logit } else { 0.1 }).collect();
        look.see(Site::Logits, 2, &tensor(logits, 10));
        look.seen()
    }

    /// Values of both signs.
    fn usual(unit: usize, token: usize) -> f32 {
        ((unit * 31 + token * 17) % 23) as f32 / 11.0 - 1.0
    }

    #[test]
    fn a_healthy_model_is_passed_over() {
        let seen = seen(12.0, usual, |position, channel| 0.3 * usual(channel, position));
        assert!((seen.logit, seen.dead, seen.saturated, seen.collapsed) == (12.0, 0.0, 0.0, 0.0), "{seen:?}");
        assert!(seen.entropy > 0.9 && seen.entropy <= 1.0, "{seen:?}");
        assert_eq!(seen.judge(&TERMS), []);
    }

    #[test]
    fn each_ailment_is_counted_and_named() {
        let kinds = |seen: Seen| seen.judge(&TERMS).into_iter().map(|found| found.kind).collect::<Vec<_>>();
        let small = |position: usize, channel: usize| 0.3 * usual(channel, position);
        assert_eq!(kinds(seen(180.0, usual, small)), [Kind::ExplodingLogits]);
        // A quarter of the units never speaks; others do for one token in 64.
        let dying = |unit: usize, token: usize| match unit {
            0..25 => 1e-4,
            25..50 => f32::from(u8::from(token == 9)),
            _ => usual(unit, token),
        };
        let found = seen(1.0, dying, small);
        assert!(found.dead == 0.25 && kinds(found) == [Kind::DeadUnits], "{found:?}");
        let far = |unit: usize, token: usize| usual(unit, token) + if unit < 30 { 9.0 } else { 0.0 };
        let found = seen(1.0, far, small);
        assert!(found.saturated == 0.3 && kinds(found) == [Kind::SaturatedUnits], "{found:?}");
        // Keys grow with their position, and queries look for the largest: each position sees itself alone.
        let sharp = |position: usize, channel: usize| if channel < 8 { 40.0 } else { position as f32 };
        let found = seen(1.0, usual, sharp);
        assert!(found.collapsed == 1.0 && found.entropy < 0.01, "{found:?}");
        assert_eq!(kinds(found), [Kind::AttentionCollapse]);
    }

    #[test]
    fn some_sharp_heads_are_no_collapse() {
        let sharp = |position: usize, channel: usize| match channel {
            0..4 => 40.0,
            4..8 => 0.001,
            _ => position as f32,
        };
        let found = seen(1.0, usual, sharp);
        assert!(found.collapsed == 0.5 && found.entropy > 0.4, "{found:?}");
        let few = Seen { collapsed: 0.25, ..found };
        assert!(few.judge(&TERMS).is_empty());
        // Where there is no warm-up, that is why.
        let cold = Terms { warmup: 0, ..TERMS };
        let kinds: Vec<Kind> = found.judge(&cold).into_iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [Kind::NoWarmup, Kind::AttentionCollapse]);
    }

    #[test]
    fn entropies_are_those_computed_by_hand() {
        assert!((entropy(&mut [3.0, 3.0, 3.0, 3.0]) - 4f64.ln()).abs() < 1e-12);
        assert!(entropy(&mut [0.0, 1000.0]) == 0.0);
        // p = 1/4, 3/4.
        let want = 0.25 * 4f64.ln() + 0.75 * (4.0f64 / 3.0).ln();
        assert!((entropy(&mut [0.0, 3f32.ln()]) - want).abs() < 1e-6);
    }
}
