//! The sweep: every case of the operation table.

use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::ops::{Case, Role, TABLE, check};
use kiln::params::Params;
use kiln::tape::Tape;
use kiln::tensor::Tensor;

fn checks() -> impl Iterator<Item = (&'static str, usize)> {
    TABLE.iter().flat_map(|entry| {
        let cases = (entry.cases)();
        assert!(cases.iter().any(|case| case.role == Role::Check), "{}: no case to check", entry.name);
        (0..cases.len()).filter(move |&i| cases[i].role == Role::Check).map(|i| (entry.name, i))
    })
}

fn case(name: &str, i: usize) -> Case {
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
