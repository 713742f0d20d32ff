//! The sweep: every case of the operation table.

use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::nn::{Builder, Embedding};
use kiln::ops::elementwise::Elementwise;
use kiln::ops::{Case, Input, Role, TABLE, check};
use kiln::params::Params;
use kiln::rng::{Purpose, Stream};
use kiln::tape::{Array64, Pass, Tape};
use kiln::tensor::Tensor;

/// Names and numbers of the cases to check.
pub fn checks() -> impl Iterator<Item = (&'static str, usize)> {
    TABLE.iter().flat_map(|entry| {
        let cases = (entry.cases)();
        assert!(cases.iter().any(|case| case.role == Role::Check), "{}: no case to check", entry.name);
        (0..cases.len()).filter(move |&i| cases[i].role == Role::Check).map(|i| (entry.name, i))
    })
}

/// A case of the table.
pub fn case(name: &str, i: usize) -> Case {
    let entry = TABLE.iter().find(|entry| entry.name == name).expect("a name of the table");
    (entry.cases)().swap_remove(i)
}

#[test]
fn results_and_gradients_match_the_f64_reference() {
    let device = Device::cpu(2).expect("a CPU");
    let failures: Vec<String> = checks()
        .filter_map(|(name, i)| check::check(case(name, i), &device).err().map(|error| format!("{name}: {error}")))
        .collect();
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn results_are_the_same_bits_for_every_instruction_set_and_thread_count() {
    for (name, i) in checks() {
        let bits = |device: &Device| {
            let (values, grads) = check::run(case(name, i), device);
            values.into_iter().chain(grads).flatten().map(f32::to_bits).collect::<Vec<_>>()
        };
        let expected = bits(&Device::cpu_with(Simd::available()[0], 1));
        for simd in Simd::available() {
            for threads in [1, 2, 3] {
                let got = bits(&Device::cpu_with(simd, threads));
                let differs = got.iter().zip(&expected).filter(|(a, b)| a != b).count();
                assert_eq!(
                    differs,
                    0,
                    "{name}: {}: {differs} numbers differ with {threads} threads on {}",
                    case(name, i).name,
                    simd.name()
                );
            }
        }
    }
}

/// An operation that is used twice on the same inputs leaves twice the gradient: the second one is added to the first.
/// Only the first result is used, so that the gradients of others are absent.
#[test]
fn gradients_are_added_to_those_that_are_there() {
    let device = Device::cpu(2).expect("a CPU");
    let gradients = |name: &str, i: usize, times: usize| -> Vec<Vec<f32>> {
        let tape = Tape::new(&device);
        let mut params = Params::new(&device, &[], 0);
        let inputs = case(name, i).inputs;
        let x = check::leaves(&tape, &inputs, &check::values(&inputs, &device));
        let y = (1..times).fold(tape.apply_dyn(case(name, i).op, &x), |y, _| y + tape.apply_dyn(case(name, i).op, &x));
        let dy = (0..y.outputs()).map(|o| {
            let value = y.output(o).value();
            Tensor::from_slice(&device, &vec![if o == 0 { 0.7f32 } else { 0.0 }; value.numel()], *value.shape())
        });
        y.backward_from(&dy.collect::<Vec<_>>(), &mut params, true);
        x.iter().filter_map(|x| x.grad()).map(|grad| grad.f32().to_vec()).collect()
    };
    for (name, i) in checks() {
        if !case(name, i).inputs.iter().any(|input| input.grad) {
            continue;
        }
        let (once, twice) = (gradients(name, i, 1), gradients(name, i, 2));
        assert_eq!(once.len(), twice.len(), "{name}: {}", case(name, i).name);
        for (once, twice) in once.iter().zip(&twice) {
            let max = once.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            let close = |(once, twice): (&f32, &f32)| (2.0 * once - twice).abs() <= 1e-5 * max + 1e-6;
            assert!(once.iter().zip(twice).all(close), "{name}: {}", case(name, i).name);
        }
    }
}

/// What an operation does not claim to read is gone when its backward pass runs, and what it offers to make again is made
/// again: the gradients are the same bits as with everything kept.
#[test]
fn gradients_need_no_more_than_an_operation_says_that_it_reads() {
    let device = Device::cpu(2).expect("a CPU");
    let gradients = |name: &str, i: usize, keep: bool| -> Vec<Vec<u32>> {
        let tape = Tape::new(&device);
        let inputs = case(name, i).inputs;
        let x = check::leaves(&tape, &inputs, &check::values(&inputs, &device));
        // Inputs made by operations, and results that are read, so that the tape may let go of both.
        let loss = || {
            let x: Vec<_> =
                x.iter().zip(&inputs).map(|(x, input)| if input.grad { x.scale(1.0) } else { *x }).collect();
            let y = tape.apply_dyn(case(name, i).op, &x);
            let of = |o| {
                let y = y.output(o);
                (y.value().dtype() == kiln::tensor::DType::F32).then(|| y.tape().apply(Elementwise::Mul, &[y, y]).sum())
            };
            [(0..y.outputs()).filter_map(of).reduce(|a, b| a + b).expect("a result in f32")]
        };
        let [loss] = if keep { loss() } else { tape.scope(loss) };
        loss.backward(&mut Params::new(&device, &[], 0), true);
        x.iter().filter_map(|x| x.grad()).map(|grad| grad.f32().iter().map(|g| g.to_bits()).collect()).collect()
    };
    for (name, i) in checks() {
        let case = case(name, i);
        if case.inputs.iter().any(|input| input.grad) {
            assert!(gradients(name, i, true) == gradients(name, i, false), "{name}: {}", case.name);
        }
    }
}

#[test]
fn a_gradient_that_is_lent_is_written_or_added_to_in_the_forward_pass() {
    let device = Device::cpu(2).expect("a CPU");
    let mut builder = Builder::default();
    let table = Embedding::new(&mut builder, "table", [11, 5], 0.5);
    let decls = builder.finish();
    // The head's gradient after some micro-batches, and the norm. The head computes it in its forward pass, or later.
    let gradient = |lend: bool, micros: usize, early: bool| {
        let mut params = Params::new(&device, &decls, 1);
        let mut tape = Tape::new(&device);
        for _ in 0..micros {
            tape.begin(&params, Pass::default());
            if lend {
                tape.lend(&mut params, table.id());
            }
            // The table is read twice, as a tied one is.
            let ids = tape.constant(Tensor::from_slice(&device, &[1i32, 2, 3, 4], [1, 4]));
            let x = ids.embedding(table.table(&tape), None, 0);
            let head = table.table(&tape);
            let loss = match early {
                true => {
                    x.linear_xent(head, tape.constant(Tensor::from_slice(&device, &[3i32, 0, 10, 7], [4])), None, None)
                }
                false => x.linear(head, None).sum(),
            };
            loss.backward(&mut params, true);
        }
        (params.grad(table.id()).expect("a gradient").f32().to_vec(), params.grad_norm())
    };
    assert_eq!(gradient(true, 1, true), gradient(false, 1, true));
    // What is not computed in a forward pass comes in the backward pass as ever.
    assert_eq!(gradient(true, 2, false), gradient(false, 2, false));
    let (lent, own) = (gradient(true, 3, true), gradient(false, 3, true));
    assert!((lent.1 - own.1).abs() < 1e-6 * own.1 && lent.1 > 1.0, "{lent:?} {own:?}");
    assert!(lent.0.iter().zip(&own.0).all(|(a, b)| (a - b).abs() < 1e-6), "{lent:?} {own:?}");
}

/// How an operation's first result changes along a direction, and the gradients of that, against differences of the
/// reference: of f(x + h d) for the one, of their changes with each input for the other.
#[test]
fn tangents_and_their_gradients_match_the_f64_reference() {
    const NAMES: [&str; 11] = [
        "picture_norm",
        "resample",
        "linear",
        "conv",
        "activation",
        "dropout",
        "sample",
        "augment",
        "elementwise",
        "reshape",
        "reduce",
    ];
    let device = Device::cpu(2).expect("a CPU");
    let moved =
        |x: &Array64, h: f64, d: &[f64]| Array64::new(x.shape, x.data.iter().zip(d).map(|(x, d)| x + h * d).collect());
    let signs = |n: usize, seed: u32| -> Vec<f64> {
        let stream = Stream::new(7, Purpose::Test, seed, 0);
        (0..n).map(|i| if stream.bits(i as u64) & 1 == 0 { 1.0 } else { -1.0 }).collect()
    };
    let mut done = 0;
    for (name, i) in checks().filter(|(name, _)| NAMES.contains(name)) {
        let Case { op, inputs, name: about, .. } = case(name, i);
        let fixed = |input: &Input| input.rounded || !input.grad;
        if fixed(&inputs[0]) || (name == "sample" && inputs.len() > 1) || inputs[0].spec.shape.numel() > 2000 {
            continue;
        }
        let what = format!("{name}: {about}");
        // Sums may lie anywhere, a kink too.
        if name != "activation" && (about.contains("Relu") || about.contains("slope=0.2")) {
            continue;
        }
        let exact: Vec<Array64> = (0..)
            .zip(&inputs)
            .map(|(i, input)| Array64::new(input.spec.shape, input.data(i).into_iter().map(f64::from).collect()))
            .collect();
        let d = signs(exact[0].data.len(), 0);
        // The tangent in f64 at x, and the scalar Σ r · tangent.
        let tangent = |x: &[Array64]| -> Vec<f64> {
            const H: f64 = 1e-4;
            let at = |h: f64| op.reference(&[&[moved(&x[0], h, &d)], &x[1..]].concat()).swap_remove(0).data;
            at(H).iter().zip(at(-H)).map(|(a, b)| (a - b) / (2.0 * H)).collect()
        };
        let want = tangent(&exact);
        let r = signs(want.len(), 1);
        let scalar = |x: &[Array64]| tangent(x).iter().zip(&r).map(|(t, r)| t * r).sum::<f64>();

        let tape = Tape::new(&device);
        let x = check::leaves(&tape, &inputs, &check::values(&inputs, &device));
        let y = tape.apply_dyn(case(name, i).op, &x);
        let along =
            tape.constant(Tensor::from_slice(&device, &d.iter().map(|&d| d as f32).collect::<Vec<_>>(), x[0].shape()));
        let got = tape.tangent(y, x[0], along);
        let max = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (i, (got, want)) in got.value().f32().iter().zip(&want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 1e-4 * max + 1e-6, "{what}: tangent, element {i}: {got}, the reference says {want}");
        }
        let r: Vec<f32> = r.iter().map(|&r| r as f32).collect();
        got.backward_from(&[Tensor::from_slice(&device, &r, got.shape())], &mut Params::new(&device, &[], 0), true);
        for i in (0..inputs.len()).filter(|&i| inputs[i].grad) {
            let grad: Vec<f32> = x[i].grad().map_or_else(|| vec![0.0; exact[i].data.len()], |g| g.f32().to_vec());
            for direction in 0..4u32 {
                const H: f64 = 1e-3;
                let n = exact[i].data.len();
                let way: Vec<f64> = signs(n, 2 + direction).iter().map(|s| s / (n as f64).sqrt()).collect();
                let at = |h: f64| {
                    let mut x = exact.clone();
                    x[i] = moved(&x[i], h, &way);
                    scalar(&x)
                };
                let want = (at(H) - at(-H)) / (2.0 * H);
                let got: f64 = grad.iter().zip(&way).map(|(g, d)| f64::from(*g) * d).sum();
                let size = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt().max(1.0);
                assert!(
                    (got - want).abs() <= 2e-4 * size,
                    "{what}: gradient of input {i}: {got}, the reference says {want}"
                );
            }
        }
        done += 1;
    }
    assert!(done > 60, "{done} cases");
}
