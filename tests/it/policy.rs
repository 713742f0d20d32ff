//! What PPO and GRPO compute, against TRL's formulas in float64 (`tests/reference/policy.py`).

use kiln::device::Device;
use kiln::ops::policy::Policy;
use kiln::params::Params;
use kiln::tape::{Tape, Var};
use kiln::tensor::Tensor;
use kiln::train::rl::advantage::{
    AdaptiveKl, Scale, gae, group_advantages, importance_weights, returns, token_rewards, whiten,
};
use safetensors::{Dtype, SafeTensors};

/// A tensor of the fixture.
fn stored(name: &str) -> Vec<f64> {
    static FILE: &[u8] = include_bytes!("../fixtures/policy.safetensors");
    let file = SafeTensors::deserialize(FILE).expect("the fixture is a safetensors file");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the fixture has no {name}"));
    let number = |bytes: &[u8]| -> f64 {
        let bytes: [u8; 8] = bytes.try_into().expect("eight bytes");
        if view.dtype() == Dtype::I64 { i64::from_le_bytes(bytes) as f64 } else { f64::from_le_bytes(bytes) }
    };
    view.data().chunks_exact(8).map(number).collect()
}

/// The same in f32.
fn f32s(name: &str) -> Vec<f32> {
    stored(name).iter().map(|&x| x as f32).collect()
}

/// To 1e-5 of the largest element.
#[track_caller]
fn close(got: &[f32], name: &str) {
    let want = stored(name);
    let bound = 1e-5 * want.iter().fold(0.0f64, |max, w| max.max(w.abs()));
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= bound, "{name}, element {i}: {got}, TRL has {want}");
    }
}

/// What `loss` makes of these tokens on the tape, its results, and the gradient of the first.
fn run<const N: usize>(x: [&[f32]; N], loss: impl for<'t> Fn([Var<'t>; N]) -> Vec<Var<'t>>) -> (Vec<f32>, Vec<f32>) {
    let device = Device::cpu(2).expect("a CPU");
    let tape = Tape::new(&device);
    let tensor = |x: &[f32]| Tensor::from_slice(&device, x, [x.len()]);
    let first = tape.variable(tensor(x[0]));
    let mut vars = x.map(|x| tape.constant(tensor(x)));
    vars[0] = first;
    let y = loss(vars);
    let values = y.iter().map(|y| y.value().item()).collect();
    y[0].backward(&mut Params::new(&device, &[], 0), true);
    (values, first.grad().expect("a gradient").f32().to_vec())
}

#[test]
fn advantages_of_groups() {
    let rewards = f32s("group.rewards");
    let by = [("by_group", Scale::Group), ("by_batch", Scale::Batch), ("by_nothing", Scale::Nothing)];
    for (name, scale) in by {
        let got = group_advantages(&rewards, 4, scale);
        close(&got.advantages, &format!("group.{name}"));
        let alike = stored("group.alike");
        assert!(got.alike.iter().zip(&alike).all(|(got, want)| f64::from(u8::from(*got)) == *want), "{:?}", got.alike);
        assert!((got.share_alike() - 2.0 / 6.0).abs() < 1e-12);
        // Groups 1 and 4.
        assert!(got.advantages[4..8].iter().chain(&got.advantages[16..20]).all(|a| *a == 0.0));
    }
}

#[test]
fn losses_of_grpo() {
    const B: usize = 6;
    const T: usize = 7;
    let [logp, old, reference] = ["logp", "old", "ref"].map(|name| f32s(&format!("tokens.{name}")));
    let (advantages, lengths) = (f32s("tokens.advantages"), stored("tokens.lengths"));
    let all: f64 = lengths.iter().sum();
    let wide = Policy { low: 0.2, high: 0.28, beta: 0.04 };
    let cases: [(&str, Policy, &dyn Fn(usize) -> f64); 5] = [
        ("grpo", Policy::default(), &|b| 1.0 / (B as f64 * lengths[b])),
        ("grpo_kl", wide, &|b| 1.0 / (B as f64 * lengths[b])),
        ("dapo", wide, &|_| 1.0 / all),
        ("dr_grpo", wide, &|_| 1.0 / (B * T) as f64),
        ("dapo_sampled", wide, &|_| 1.0 / all),
    ];
    for (case, policy, weight) in cases {
        let weight = |i: usize| if ((i % T) as f64) < lengths[i / T] { weight(i / T) as f32 } else { 0.0 };
        let weights: Vec<f32> = (0..B * T).map(weight).collect();
        let mut a: Vec<f32> = (0..B * T).map(|i| advantages[i / T]).collect();
        if case == "dapo_sampled" {
            let more = importance_weights(&old, &f32s("tokens.sampled"), 2.0);
            close(&more, "dapo_sampled.weights");
            a.iter_mut().zip(more).for_each(|(a, more)| *a *= more);
        }
        let (y, gradient) = run([&logp, &old, &reference, &a, &weights], |[logp, old, reference, a, w]| {
            let (loss, kl, clipped) = logp.policy_loss(old, reference, a, w, policy);
            vec![loss, kl, clipped]
        });
        close(&y[..1], &format!("{case}.loss"));
        close(&gradient, &format!("{case}.d_logp"));
        // Where the weights are those of a mean over tokens.
        if case.starts_with("dapo") {
            close(&y[1..2], &format!("{case}.kl"));
            close(&y[2..], &format!("{case}.clipped"));
        }
    }
}

#[test]
fn rewards_advantages_and_returns_of_ppo() {
    const T: usize = 9;
    let [logp, reference, values] = ["logp", "ref", "values"].map(|name| f32s(&format!("ppo.{name}")));
    let scores = f32s("ppo.scores");
    let rows = |i: usize| i * T..(i + 1) * T;
    let rewards: Vec<f32> =
        (0..6).flat_map(|i| token_rewards(scores[i], &logp[rows(i)], &reference[rows(i)], 0.05)).collect();
    close(&rewards, "ppo.rewards");
    for (gamma, name) in [(1.0, "1"), (0.97, "97")] {
        let advantages: Vec<f32> =
            (0..6).flat_map(|i| gae(&rewards[rows(i)], &values[rows(i)], 0.0, gamma, 0.95)).collect();
        close(&advantages, &format!("ppo.advantages_{name}"));
        close(&returns(&advantages, &values), &format!("ppo.returns_{name}"));
    }
    let counts: Vec<bool> = stored("ppo.mask").iter().map(|m| *m == 1.0).collect();
    let (mut advantages, mut rewards) = (f32s("ppo.advantages_1"), rewards);
    whiten(&mut advantages, &counts, true);
    whiten(&mut rewards, &counts, false);
    close(&advantages, "ppo.white_advantages");
    close(&rewards, "ppo.white_rewards");
}

#[test]
fn losses_of_ppo() {
    let mask = f32s("ppo.mask");
    let weights: Vec<f32> = mask.iter().map(|m| m / mask.iter().sum::<f32>()).collect();
    let of = |name: &str| f32s(&format!("ppo.{name}"));
    // Its KL is in the rewards.
    let (logp, advantages) = (of("logp"), of("white_advantages"));
    let (y, gradient) = run([&of("new_logp"), &logp, &advantages, &weights], |[new, old, a, w]| {
        let (loss, _, clipped) = new.policy_loss(old, old, a, w, Policy::default());
        vec![loss, clipped]
    });
    close(&y[..1], "ppo.loss");
    close(&y[1..], "ppo.clipped");
    close(&gradient, "ppo.d_logp");
    let (y, gradient) = run([&of("new_values"), &of("values"), &of("returns_1"), &weights], |[new, old, t, w]| {
        let (loss, clipped) = new.value_loss(old, t, w, 0.25);
        vec![loss, clipped]
    });
    close(&y[..1], "ppo.value_loss");
    close(&y[1..], "ppo.value_clipped");
    close(&gradient, "ppo.d_values");
}

#[test]
fn the_price_of_the_kl() {
    let mut price = AdaptiveKl { coef: 0.2, target: 6.0, horizon: 1000.0 };
    let coefs: Vec<f32> = stored("adaptive.kl")
        .iter()
        .zip(stored("adaptive.answers"))
        .map(|(kl, answers)| {
            price.update(*kl, answers as usize);
            price.coef as f32
        })
        .collect();
    close(&coefs, "adaptive.coef");
}

#[test]
fn no_advantage_no_gradient() {
    let [logp, old, reference] = ["logp", "old", "ref"].map(|name| f32s(&format!("tokens.{name}")));
    let a = group_advantages(&[0.7; 6], 3, Scale::Group).advantages;
    let a: Vec<f32> = (0..logp.len()).map(|i| a[i / 7]).collect();
    let weights = vec![0.125; logp.len()];
    let (y, gradient) = run([&logp, &old, &reference, &a, &weights], |[logp, old, reference, a, w]| {
        let (loss, kl, clipped) = logp.policy_loss(old, reference, a, w, Policy::default());
        vec![loss, kl, clipped]
    });
    assert!(gradient.iter().all(|g| *g == 0.0) && y[0] == 0.0 && y[1] > 0.0 && y[2] == 0.0, "{y:?} {gradient:?}");
}
