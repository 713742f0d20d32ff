//! The sweep: every case of the operation table.

use kiln::cpu::Simd;
use kiln::device::Device;
use kiln::ops::{Case, Role, TABLE, check};

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
