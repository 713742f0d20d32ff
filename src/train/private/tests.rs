use super::*;
use crate::data::shard::ShardWriter;
use crate::data::{Dataset, ShardFormat};
use crate::measure::privacy::epsilon;
use crate::params::{Decl, Init, Kind};
use crate::rng::Stream;
use crate::train::Recipe;
use crate::train::lm::Lm;
use std::sync::Arc;

const T: usize = 8;

/// Rows of random tokens below 50.
fn data(dir: &tempfile::TempDir, rows: usize) -> Arc<Dataset> {
    let random = Stream::new(1, Purpose::Test, 0, 0);
    let ids: Vec<u32> = (0..(rows * (T + 1)) as u64).map(|i| random.bits(i) % 50).collect();
    let file = dir.path().join("0.bin");
    let mut writer = ShardWriter::create(&file, ShardFormat::Llmc, 50).unwrap();
    writer.push(&ids).unwrap();
    writer.finish().unwrap();
    Arc::new(Dataset::from_files(&[file], 50, None).unwrap())
}

/// A small model on so many rows.
fn trainer(rows: usize, set: &str) -> (tempfile::TempDir, Trainer<Lm>) {
    let dir = tempfile::tempdir().unwrap();
    let small = "model.layers=1 model.heads=2 model.d=16 train.context=8 optim.dp.reproducible=true";
    let set: Vec<String> = small.split(' ').chain(set.split_whitespace()).map(str::to_owned).collect();
    let recipe = Recipe::load(None, &set).unwrap();
    let trainer = Trainer::new(&recipe, 50, data(&dir, rows), &Device::cpu(2).unwrap()).unwrap();
    (dir, trainer)
}

/// All gradients, one after the other, in f64.
fn gradients(params: &Params) -> Vec<f64> {
    params.ids().flat_map(|id| params.grad(id).expect("written").f32().to_vec()).map(f64::from).collect()
}

/// The examples and the private gradients of a step.
fn private(trainer: &mut Trainer<Lm>, step: u64) -> (Vec<u64>, Vec<f64>) {
    let mut private = trainer.private.take().expect("training is private");
    private.gradients(trainer, At::from(step), &mut Parts::new()).unwrap();
    let drawn = private.drawn.clone();
    trainer.private = Some(private);
    let found = gradients(&trainer.params);
    trainer.params.clear_grads();
    (drawn, found)
}

/// The gradient of one example.
fn alone(trainer: &mut Trainer<Lm>, example: u64) -> Vec<f64> {
    let device = trainer.params.device().clone();
    let one = |spec: Spec| Spec { shape: spec.shape.with_first(1), ..spec };
    let specs: Vec<Spec> = trainer.objective.batch().into_iter().map(one).collect();
    let mut x = room(&device, &specs);
    fill(&mut x, |x| trainer.objective.example(example, x)).unwrap();
    let x = x.into_iter().map(Out::freeze).collect();
    trainer.pass(0, At::from(0), (0, 1), &x);
    let found = gradients(&trainer.params);
    trainer.params.clear_grads();
    found
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn a_step_sums_the_clipped_gradients_of_the_examples_that_it_drew() {
    let (_dir, mut trainer) = trainer(20, "train.batch=8 optim.dp.noise=0");
    let mut norms: Vec<f64> = (0..20).map(|example| norm(&alone(&mut trainer, example))).collect();
    norms.sort_by(f64::total_cmp);
    // Some are clipped, and some are not.
    let clip = norms[10];
    trainer.private.as_mut().unwrap().dp.clip = clip;
    let mut sizes = Vec::new();
    for step in 0..4 {
        let (drawn, found) = private(&mut trainer, step);
        assert!(drawn.len() > 3 && drawn.len() < 20, "{drawn:?}");
        let (mut expected, mut clipped) = (vec![0.0; found.len()], 0);
        for &example in &drawn {
            let gradient = alone(&mut trainer, example);
            let share = (clip / norm(&gradient)).min(1.0);
            clipped += usize::from(share < 1.0);
            expected.iter_mut().zip(&gradient).for_each(|(sum, x)| *sum += share * x / 8.0);
        }
        assert!(clipped > 0 && clipped < drawn.len(), "{clipped} of {} are clipped", drawn.len());
        let off: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        assert!(norm(&off) < 2e-5 * norm(&expected), "off by {} of {}", norm(&off), norm(&expected));
        sizes.push(drawn.len());
    }
    // So that a sum divided by what was drawn, and not by what is expected, is seen.
    assert!(sizes.iter().any(|&size| size != 8), "{sizes:?}");
}

#[test]
fn without_clipping_and_noise_a_step_over_all_rows_is_the_ordinary_one() {
    let (_dir, mut trainer) = trainer(6, "train.batch=6 optim.dp.clip=1e6 optim.dp.noise=0");
    let (drawn, found) = private(&mut trainer, 0);
    assert_eq!(drawn, [0, 1, 2, 3, 4, 5]);
    // The same rows as one micro-batch.
    let device = trainer.params.device().clone();
    let mut x = room(&device, &trainer.objective.batch());
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for row in 0..6 {
        let (mut x, mut y) = ([0; T], [0; T]);
        let both = [&mut x, &mut y].map(|x| crate::train::objective::Values::I32(&mut x[..]));
        trainer.objective.example(row, both.into_iter().collect()).unwrap();
        ids.extend(x);
        targets.extend(y);
    }
    [ids, targets].iter().zip(&mut x).for_each(|(from, to)| to.as_mut_slice::<i32>().copy_from_slice(from));
    let x = x.into_iter().map(Out::freeze).collect();
    trainer.pass(0, At::from(0), (0, 1), &x);
    let expected = gradients(&trainer.params);
    let off: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
    assert!(norm(&off) < 1e-5 * norm(&expected), "off by {} of {}", norm(&off), norm(&expected));
}

/// Parameters of these sizes, without a model.
fn params(sizes: &[usize]) -> Params {
    let decl = |(i, &n): (usize, &usize)| Decl::new(format!("p{i}"), [n], Kind::Vector, Init::Zeros);
    let decls: Vec<Decl> = sizes.iter().enumerate().map(decl).collect();
    Params::new(&Device::cpu(3).unwrap(), &decls, 1)
}

/// For parameters without a model; of all examples every one is drawn.
fn bare(params: &Params, clip: f64, noise: f64) -> Private {
    let dp = Dp { clip, noise: Some(noise), epsilon: None, delta: None, reproducible: true, diagnostics: false };
    let mut bare = Private::new(dp, 3, (10, 10), Some(Examples { count: 10, unit: "thing" }), params).unwrap();
    bare.sums.iter_mut().for_each(|(_, sum)| doubles(sum).fill(0.0));
    bare
}

#[test]
fn no_example_moves_the_sum_by_more_than_the_clip() {
    let mut params = params(&[1, 700, 20_000]);
    let random = Stream::new(2, Purpose::Test, 0, 0);
    let mut next = 0..;
    let mut uniform = || f64::from(random.uniform(next.next().unwrap()));
    for clip in [1e-6, 0.3, 1.0, 1e6] {
        let mut private = bare(&params, clip, 1.0);
        for trial in 0..40 {
            let before: Vec<f64> = private.sums.iter_mut().flat_map(|(_, sum)| doubles(sum).to_vec()).collect();
            // From far below the clip to far above, now and then without end or number.
            let scale = clip * 10f64.powf(20.0 * uniform() - 10.0);
            for id in params.ids().collect::<Vec<_>>() {
                let (mut out, _) = params.lend_grad(id);
                out.f32_mut().iter_mut().for_each(|x| *x = (scale * (2.0 * uniform() - 1.0)) as f32);
                match trial % 8 {
                    3 => out.f32_mut()[0] = f32::NAN,
                    5 => out.f32_mut()[0] = f32::INFINITY,
                    _ => {}
                }
                params.return_grad(id, out);
                params.finish_grad(id);
            }
            add(&mut private.sums, &params, clip);
            let after: Vec<f64> = private.sums.iter_mut().flat_map(|(_, sum)| doubles(sum).to_vec()).collect();
            let moved: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            let moved = norm(&moved);
            assert!(moved <= clip, "clip {clip}, scale {scale}: {moved}");
            let bad = matches!(trial % 8, 3 | 5);
            assert!(if bad { moved == 0.0 } else { moved > 0.0 }, "clip {clip}, scale {scale}: {moved}");
            assert!(bad || scale < 10.0 * clip || moved > 0.9999 * clip, "clip {clip}, scale {scale}: {moved}");
            params.clear_grads();
        }
    }
}

#[test]
fn noise_is_normal_and_as_large_as_it_shall_be() {
    let mut params = params(&[3, 50_001, 40_000]);
    let mut made = |step| {
        let mut private = bare(&params, 0.5, 4.0);
        let key = private.key(step).unwrap();
        private.release(&mut params, &key);
        let found = gradients(&params);
        params.clear_grads();
        found
    };
    let (a, b) = (made(0), made(1));
    assert_eq!(a, made(0));
    // σC/B = 4 · 0.5 / 10. Bounds are five standard errors.
    let n = a.len() as f64;
    for x in [&a, &b] {
        let moment = |k: i32| x.iter().map(|x| (x / 0.2).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 5.0 / n.sqrt(), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "fourth moment {}", moment(4));
    }
    // Neither steps, nor neighbours, nor parameters share numbers.
    let correlation = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), (a, b)| (sum + a * b / 0.04, count + 1.0));
        sum / f64::sqrt(count)
    };
    let neighbours = correlation(&mut a.iter().copied().zip(a[1..].iter().copied()));
    let parameters = correlation(&mut a[3..].iter().copied().zip(a[3 + 50_001..].iter().copied()));
    let chunks = correlation(&mut a[3..].iter().copied().zip(a[3 + CHUNK..].iter().copied()));
    let steps = correlation(&mut a.iter().copied().zip(b.iter().copied()));
    for found in [neighbours, parameters, chunks, steps] {
        assert!(found.abs() < 5.0, "{found} standard errors");
    }
}

#[test]
fn examples_are_drawn_each_by_itself_and_keys_differ() {
    let params = params(&[1]);
    let dp = Dp { clip: 1.0, noise: Some(1.0), epsilon: None, delta: None, reproducible: false, diagnostics: false };
    let of =
        |dp, batch, count| Private::new(dp, 3, (batch, 10), Some(Examples { count, unit: "thing" }), &params).unwrap();
    let mut private = of(dp, 5, 50);
    let (mut counts, mut sizes) = ([0f64; 50], Vec::new());
    for _ in 0..4000 {
        let key = private.key(0).unwrap();
        private.draw(&key);
        private.drawn.iter().for_each(|&example| counts[example as usize] += 1.0);
        sizes.push(private.drawn.len() as f64);
    }
    // Binomial: 400 each with a variance of 360; sizes 5 with one of 4.5.
    let chi: f64 = counts.iter().map(|c| (c - 400.0) * (c - 400.0) / 360.0).sum();
    assert!(chi < 100.0, "{chi}");
    let mean = sizes.iter().sum::<f64>() / 4000.0;
    let variance = sizes.iter().map(|size| (size - mean) * (size - mean)).sum::<f64>() / 4000.0;
    assert!((mean - 5.0).abs() < 0.17 && (variance - 4.5).abs() < 0.6, "{mean} {variance}");
    assert!(sizes.contains(&0.0), "a batch may be empty");
    assert_ne!(private.key(0).unwrap(), private.key(0).unwrap());
    let seeded = of(Dp { reproducible: true, ..dp }, 5, 50);
    assert_eq!(seeded.key(1).unwrap(), seeded.key(1).unwrap());
    assert_ne!(seeded.key(1).unwrap(), seeded.key(2).unwrap());
    let mut all = of(dp, 50, 50);
    all.draw(&[7; 32]);
    assert_eq!(all.drawn.len(), 50);
}

#[test]
fn noise_follows_from_what_is_asked_for() {
    let dp = |epsilon| Dp {
        clip: 1.0,
        noise: None,
        epsilon: Some(epsilon),
        delta: Some(1e-5),
        reproducible: false,
        diagnostics: false,
    };
    let found = mechanism(&dp(3.0), 10, 1000, 200).unwrap();
    assert_eq!(found.rate, 0.01);
    let reached = epsilon(&found, 200, 1e-5);
    assert!(reached <= 3.0 && reached > 2.9999, "{reached}");
    let e = mechanism(&dp(3.0), 11, 10, 200).unwrap_err().to_string();
    assert!(e.starts_with("train.batch: 11 examples a step"), "{e}");
    let e = mechanism(&dp(1e-3), 10, 1000, 200).unwrap_err().to_string();
    assert!(e.starts_with("optim.dp.epsilon: "), "{e}");
    assert!((dp(1.0).delta_for(1000) - 1e-5).abs() < 1e-18);
    let default = Dp { delta: None, ..dp(1.0) }.delta_for(1000);
    assert!((default / 5.0119e-4 - 1.0).abs() < 1e-4, "{default}");
}
