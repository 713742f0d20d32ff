//! Measures on features against numpy and scipy in float64 (`tests/reference/measures.py`), and on sets whose answer is known.

use kiln::measure::{
    Blocks, Classes, Copies, Features, Gaussian, Manifold, classifier_score, frechet_distance, kernel_distance,
    mean_distance, nearest,
};
use kiln::rng::{Purpose, Stream};
use safetensors::SafeTensors;

/// A tensor of the fixture and its last dimension.
fn stored(name: &str) -> (Vec<f64>, usize) {
    static FILE: &[u8] = include_bytes!("../fixtures/measures.safetensors");
    let file = SafeTensors::deserialize(FILE).expect("the fixture is a safetensors file");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the fixture has no {name}"));
    let values = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")));
    (values.collect(), *view.shape().last().expect("a shape"))
}

fn features(name: &str) -> Features {
    let (values, dims) = stored(name);
    Features::new(&values, dims).expect("numbers")
}

#[track_caller]
fn close(got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= bound * want.abs().max(1e-3), "{got}, not {want}");
    }
}

/// `count` normal rows around `mean`.
fn normal(seed: u64, count: usize, dims: usize, mean: f64) -> Features {
    let mut x = vec![0.0f32; count * dims];
    Stream::new(seed, Purpose::Test, 1, 0).normals(1.0, &mut x);
    Features::new(&x.iter().map(|&x| f64::from(x) + mean).collect::<Vec<_>>(), dims).expect("numbers")
}

#[test]
fn distances_of_distributions_are_those_of_scipy() {
    let (a, b, few) = (features("a"), features("b"), features("few"));
    let got = [(&a, &b), (&a, &few), (&few, &b)].map(|(x, y)| frechet_distance(x, y).unwrap());
    // The eigenvalues of a matrix of rank 7 are 0 to 1e-16, and their roots to 1e-8.
    close(&got[..1], &stored("frechet").0[..1], 1e-10);
    close(&got[1..], &stored("frechet").0[1..], 1e-6);
    close(&[frechet_distance(&b, &a).unwrap()], &got[..1], 1e-10);
    let first = Features::new(&stored("a").0[..70 * 12], 12).unwrap();
    let blocks = Blocks { size: 70, ..Blocks::default() };
    close(&[kernel_distance(&first, &b, blocks).unwrap().0], &stored("kernel").0, 1e-10);
}

#[test]
fn neighbours_and_classes_are_those_of_numpy() {
    let (a, b) = (features("a"), features("b"));
    let got = [3, 5].map(|k| Manifold::of(&a, &b, k).unwrap());
    let got: Vec<f64> = got.iter().flat_map(|m| [m.precision, m.recall, m.density, m.coverage]).collect();
    close(&got, &stored("manifold").0, 1e-12);
    let near = nearest(&b, &a);
    let got: Vec<f64> = near.iter().map(|n| n.index as f64).chain(near.iter().map(|n| n.distance)).collect();
    close(&got, &stored("nearest").0, 1e-12);
    close(&[mean_distance(&a).unwrap()], &stored("mean_distance").0, 1e-12);
    let p = features("probabilities");
    let got = [1, 4].map(|splits| classifier_score(&p, splits).unwrap());
    close(&got.map(|(mean, std)| [mean, std]).concat(), &stored("score").0, 1e-12);
    close(&[Classes::of(&p).spread(0.0, None).effective], &stored("effective").0, 1e-12);
}

#[test]
fn equal_sets_are_at_no_distance_and_shifted_ones_at_that_of_the_shift() {
    let a = normal(1, 4000, 8, 0.0);
    assert!(frechet_distance(&a, &a).unwrap() < 1e-10);
    let moved = Features::new(&a.rows().flatten().map(|x| x + 0.5).collect::<Vec<_>>(), 8).unwrap();
    close(&[frechet_distance(&a, &moved).unwrap()], &[8.0 * 0.25], 1e-9);
    let wider = Features::new(&a.rows().flatten().map(|x| 3.0 * x).collect::<Vec<_>>(), 8).unwrap();
    // tr Σ (1 + 9 − 2·3) with the same mean; the mean is tripled too.
    let Gaussian { mean, covariance } = Gaussian::of(&a).unwrap();
    let trace: f64 = covariance.iter().step_by(9).sum();
    let means: f64 = mean.iter().map(|m| 4.0 * m * m).sum();
    close(&[frechet_distance(&a, &wider).unwrap()], &[means + 4.0 * trace], 1e-9);

    // Without bias: around 0 for two halves of one distribution, five deviations from it for another one.
    let b = normal(2, 4000, 8, 0.0);
    let blocks = Blocks { size: 400, count: 20, seed: 1 };
    let (same, deviation) = kernel_distance(&a, &b, blocks).unwrap();
    let (other, _) = kernel_distance(&a, &moved, blocks).unwrap();
    assert!(same.abs() < deviation && other > 5.0 * deviation, "{same} ± {deviation}, {other}");
    assert_eq!(kernel_distance(&a, &b, blocks).unwrap(), (same, deviation), "the seed says which blocks");
}

#[test]
fn precision_tells_of_quality_and_recall_of_variety() {
    let data = normal(1, 600, 4, 0.0);
    let same = Manifold::of(&data, &normal(2, 600, 4, 0.0), 5).unwrap();
    assert!(same.precision > 0.8 && same.recall > 0.8 && same.coverage > 0.9, "{same:?}");
    assert!((same.density - 1.0).abs() < 0.15, "{same:?}");
    // A generator that makes one picture, and one that makes noise.
    let one = Features::new(&data.row(5).repeat(600), 4).unwrap();
    let collapsed = Manifold::of(&data, &one, 5).unwrap();
    assert!(collapsed.precision == 1.0 && collapsed.recall < 0.01 && collapsed.coverage < 0.05, "{collapsed:?}");
    let noise = Manifold::of(&data, &normal(3, 600, 4, 9.0), 5).unwrap();
    assert_eq!((noise.precision, noise.density, noise.coverage), (0.0, 0.0, 0.0));
    let itself = Manifold::of(&data, &data, 5).unwrap();
    assert_eq!((itself.precision, itself.recall, itself.coverage), (1.0, 1.0, 1.0));
}

#[test]
fn copies_of_training_pictures_are_found() {
    let (train, held_out) = (normal(1, 500, 6, 0.0), normal(2, 300, 6, 0.0));
    let honest = Copies::of(&train, &held_out, &normal(3, 300, 6, 0.0)).unwrap();
    assert!(honest.share < 0.05 && (honest.median_ratio - 1.0).abs() < 0.2, "{honest:?}");
    // A third are training pictures with a little noise.
    let (noise, fresh) = (normal(4, 300, 6, 0.0), normal(5, 300, 6, 0.0));
    let sample = |i: usize| -> Vec<f64> {
        let copy = |(t, n): (&f64, &f64)| t + 1e-3 * n;
        if i.is_multiple_of(3) {
            train.row(i).iter().zip(noise.row(i)).map(copy).collect()
        } else {
            fresh.row(i).to_vec()
        }
    };
    let samples = Features::new(&(0..300).flat_map(sample).collect::<Vec<_>>(), 6).unwrap();
    let copied = Copies::of(&train, &held_out, &samples).unwrap();
    assert!(
        (0.33..0.38).contains(&copied.share) && copied.median_ratio < 1.0,
        "{} {}",
        copied.share,
        copied.median_ratio
    );
    assert!(copied.found[..100].iter().all(|(i, near)| i % 3 == 0 && near.index == *i));
    assert!(Copies::of(&train, &normal(2, 99, 6, 0.0), &samples).is_err());
}

#[test]
fn missing_classes_are_named() {
    let row = |class: usize| (0..4).map(move |i| f64::from(u8::from(i == class)));
    let rows = |classes: &[usize]| Features::new(&classes.iter().flat_map(|&c| row(c)).collect::<Vec<_>>(), 4).unwrap();
    let data = Classes::of(&rows(&[0, 1, 2, 3]));
    let samples = rows(&[0, 0, 0, 0, 0, 1, 1, 1, 1, 2]);
    let spread = Classes::of(&samples).spread(0.2, Some(&data));
    assert_eq!((spread.covered, &spread.missing[..], spread.least), (2, &[2, 3][..], 0.0));
    let entropy = -[0.5, 0.4, 0.1f64].iter().map(|p| p * p.ln()).sum::<f64>();
    close(&[spread.effective, spread.divergence.unwrap()], &[entropy.exp(), 4f64.ln() - entropy], 1e-12);
    close(&[classifier_score(&samples, 1).unwrap().0], &[entropy.exp()], 1e-12);
    assert_eq!(Classes::of(&rows(&[0, 1, 2, 3])).spread(0.25, None).covered, 4);
}

#[test]
fn what_cannot_be_judged_is_an_error_with_a_hint() {
    let one = Features::new(&[1.0f32, 2.0], 2).unwrap();
    let errors = [
        Features::new(&[1.0f32, f32::NAN], 2).unwrap_err(),
        Features::new::<f32>(&[], 2).unwrap_err(),
        frechet_distance(&one, &one).unwrap_err(),
        kernel_distance(&one, &one, Blocks::default()).unwrap_err(),
        Manifold::of(&one, &one, 3).unwrap_err(),
        mean_distance(&one).unwrap_err(),
        classifier_score(&one, 1).unwrap_err(),
    ];
    for error in errors {
        assert!(error.hint().is_some(), "{error}");
    }
}
