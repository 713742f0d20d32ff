//! Weights and moments: by how much of itself a matrix changes in a step.
//!
//! ```text
//! AdamW:  r = lr · RMS(m̂ / (√v̂ + ε)) / RMS(W),   m̂ = m/(1 − β₁ᵗ),  v̂ = v/(1 − β₂ᵗ)
//! Muon:   r = lr · s / √max(rows, columns) / RMS(W): an orthogonal matrix's elements have that root mean square
//! ```
//! lr is the highest rate that the run has had. Of all matrices the median counts; an adapter's B starts at 0 and is left out.
//! A rule of thumb calls 1e-3 a good ratio (Karpathy, Stanford's CS231n, "Ratio of weights:updates").

use super::finding::{Finding, Kind};
use super::recipe::Terms;
use crate::nn::lora::is_adapter;
use crate::optim::{AdamW, Muon, MuonScale, Optimizer};
use crate::params::{Kind as Of, Params};

/// A ratio from which on a matrix is written anew in some ten steps. Healthy runs of the study had 0.004 to 0.03, and
/// one at 30 times its rate 0.13.
pub const HIGH: f64 = 0.1;

/// Updates until then: at first weights are small, and Adam's updates all point the same way.
const SETTLED: u64 = 50;

/// A ratio up to which fresh weights hardly change in a thousand steps, where the loss, too, has hardly fallen.
pub const LOW: f64 = 3e-4;

/// The share of the first loss that it has fallen by in any run that learns: of a language model this much is how often tokens
/// occur.
const HARDLY: f64 = 0.15;

/// Ratios that small models learn well with.
const GOOD: f64 = 0.01;

/// A matrix and its ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// The parameter's name.
    pub name: String,
    /// Its update over itself.
    pub ratio: f64,
}

/// The root mean square of AdamW's update, but for the learning rate, after `t` updates.
fn adamw_rms(adamw: &AdamW, t: u64, m: &[f32], v: &[f32]) -> f64 {
    let left = |beta: f64| (1.0 - libm::pow(beta, t as f64)).max(f64::MIN_POSITIVE);
    let (of_m, of_v) = (left(adamw.beta1), left(adamw.beta2));
    let one = |(&m, &v): (&f32, &f32)| (f64::from(m) / of_m / ((f64::from(v) / of_v).sqrt() + adamw.eps)).powi(2);
    (m.iter().zip(v).map(one).sum::<f64>() / m.len().max(1) as f64).sqrt()
}

/// The root mean square of Muon's update, but for the learning rate.
fn muon_rms(muon: &Muon, (rows, cols): (usize, usize)) -> f64 {
    let longer = (rows.max(cols) as f64).sqrt();
    let scale = match muon.scale {
        MuonScale::MatchRmsAdamw => 0.2 * longer,
        MuonScale::Original => (rows as f64 / cols as f64).max(1.0).sqrt(),
    };
    muon.lr_ratio * scale / longer
}

fn rms(x: &[f32]) -> f64 {
    (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len().max(1) as f64).sqrt()
}

/// The ratios of all trained matrices after `updates` updates, at the learning rate `lr`. Matrices of zeros have none.
pub fn ratios(params: &Params, optim: &Optimizer, updates: u64, lr: f64) -> Vec<Ratio> {
    let mut all = Vec::new();
    for group in params.groups().iter().filter(|group| group.kind == Of::Matrix && group.trainable().is_some()) {
        for (slot, &id) in group.ids().iter().enumerate() {
            let name = params.name(id);
            if is_adapter(name) && !name.contains("lora_A") {
                continue;
            }
            let weight = group.weights().view(slot);
            let update = match (&optim.muon, group.moment(0, slot), group.moment(1, slot)) {
                (Some(muon), ..) => muon_rms(muon, weight.shape().as_matrix()),
                (None, Some(m), Some(v)) => adamw_rms(&optim.adamw, updates, &m.read(), &v.read()),
                _ => continue,
            };
            let size = rms(&weight.read());
            if size > 0.0 {
                all.push(Ratio { name: name.to_owned(), ratio: lr * f64::from(group.rate) * update / size });
            }
        }
    }
    all
}

/// The median.
pub fn median(ratios: &[Ratio]) -> Option<f64> {
    let mut all: Vec<f64> = ratios.iter().map(|ratio| ratio.ratio).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// What is wrong with them after `updates` updates, in which the mean loss `fell` by a share of the first loss, where that is known.
/// Adapters are judged by their losses alone: their matrices start small, and are to change.
pub fn judge(ratios: &[Ratio], terms: &Terms, updates: u64, fell: Option<f64>) -> Option<Finding> {
    let ratio = median(ratios)?;
    if !terms.falls || ratios.iter().any(|ratio| is_adapter(&ratio.name)) {
        return None;
    }
    let evidence = [("update over weight", ratio), ("rule of thumb", 1e-3), ("optim.lr", terms.lr)];
    if ratio > HIGH && updates >= SETTLED {
        let what = "at its highest rate a step changes a matrix by a large part of itself";
        // Weights grow with the root of the rate, so their ratio does too.
        let knob = terms.lr_times((2.0 * GOOD / ratio).powi(2));
        return Some(Finding::new(Kind::LrTooHigh, what, &evidence, knob).severe(ratio / HIGH));
    }
    if ratio < LOW && terms.fresh && fell.is_some_and(|fell| fell < HARDLY) {
        let what = "even at its highest rate a step changes a matrix by next to nothing of itself";
        let knob = terms.lr_times(GOOD / ratio.max(1e-9));
        return Some(Finding::new(Kind::LrTooLow, what, &evidence, knob).severe(LOW / ratio.max(1e-9)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::nn::{Builder, Linear, Start};
    use crate::rng::{Purpose, Stream};
    use crate::tape::{Pass, Tape};
    use crate::tensor::Tensor;

    const TERMS: Terms = Terms { lr: 1e-3, warmup: 20, steps: 600, clips: true, falls: true, fresh: true };

    fn of(ratio: f64) -> Vec<Ratio> {
        [0.01, 1.0, 100.0].map(|factor| Ratio { name: "w".into(), ratio: ratio * factor }).into()
    }

    #[test]
    fn ratios_far_from_health_are_named_with_a_rate_that_is_nearer() {
        let kind = |ratio, terms: &Terms, updates, fell| {
            judge(&of(ratio), terms, updates, fell).map(|found| (found.kind, found.knob.value))
        };
        assert_eq!(kind(1e-2, &TERMS, 300, Some(0.01)), None);
        assert_eq!(kind(0.4, &TERMS, 300, Some(0.5)), Some((Kind::LrTooHigh, "2.5e-6".into())));
        assert_eq!(kind(0.4, &TERMS, 5, None), None, "a start is fast");
        assert_eq!(kind(1e-5, &TERMS, 300, Some(0.01)), Some((Kind::LrTooLow, "1.0e0".into())));
        // It learns all the same, or it is not known; a model that is tuned needs small steps.
        assert_eq!([Some(0.4), None].map(|fell| kind(1e-5, &TERMS, 300, fell)), [None, None]);
        assert_eq!(kind(1e-5, &Terms { fresh: false, ..TERMS }, 300, Some(0.01)), None);
        assert_eq!(kind(0.4, &Terms { falls: false, ..TERMS }, 300, None), None);
        let adapter = [Ratio { name: "base_model.model.h.0.lora_A.weight".into(), ratio: 0.4 }];
        assert_eq!((judge(&adapter, &TERMS, 300, None), judge(&[], &TERMS, 300, None)), (None, None));
    }

    #[test]
    fn the_ratio_is_what_the_optimizer_then_does() {
        let device = Device::cpu(1).expect("a CPU");
        for optim in [Optimizer::default(), Optimizer { muon: Some(Muon::default()), ..Optimizer::default() }] {
            let mut optim = optim;
            optim.adamw.weight_decay = 0.0;
            optim.muon.iter_mut().for_each(|muon| muon.weight_decay = 0.0);
            let mut builder = Builder::default();
            let linear = Linear::new(&mut builder, "w", [32, 48], false, Start::Normal(0.05));
            let decls = builder.finish();
            let mut params = Params::new(&device, &decls, 1);
            optim.prepare(&mut params);
            // More rows than channels, so that gradients have all ranks.
            let mut x = vec![0.0; 128 * 32];
            Stream::new(1, Purpose::Test, 0, 0).normals(1.0, &mut x);
            let mut tape = Tape::new(&device);
            let id = params.ids().next().expect("a parameter");
            let (lr, mut changed) = (1e-3, 0.0);
            for t in 1..=5 {
                tape.begin(&params, Pass::default());
                let x = tape.constant(Tensor::from_slice(&device, &x, [128, 32]));
                let y = linear.apply(x);
                let loss = (y * y).mean();
                let value = loss.value();
                loss.backward(&mut params, true);
                tape.settle(&mut params);
                let before = params.weight(id).read::<f32>().into_owned();
                optim.step(&mut params, t, lr, &[value]).expect("a step");
                let after = params.weight(id).read::<f32>().into_owned();
                let moved: Vec<f32> = before.iter().zip(&after).map(|(a, b)| a - b).collect();
                changed = rms(&moved) / rms(&after);
            }
            let found = ratios(&params, &optim, 5, lr);
            // Muon's orthogonal matrices have singular values of 0.7 to 1.2.
            let near = if optim.muon.is_some() { 0.3 } else { 1e-3 };
            assert!((found[0].ratio / changed - 1.0).abs() < near, "{found:?}, {changed}");
        }
    }
}
