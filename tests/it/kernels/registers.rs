//! Registers of every kernel on every target, as NVIDIA's assembler gives them, against `kernels/registers.txt`.
//!
//! Runs where `KILN_PTXAS` names a `ptxas` (the package nvidia-cuda-nvcc of PyPI has one). With `KILN_UPDATE` set the table
//! is written anew.

use kiln::device::ptxas::Assembler;
use kiln::proof::variants::{REGISTERS, TARGETS, all, registers};
use rayon::prelude::*;
use std::collections::BTreeMap;

#[test]
#[allow(clippy::print_stdout)]
fn registers_are_those_of_the_table() {
    if std::env::var_os("KILN_PTXAS").is_none() {
        println!("skipped: KILN_PTXAS does not name a ptxas");
        return;
    }
    let ptxas = Assembler::find(None).unwrap();
    let all: Vec<_> = all().into_iter().collect();
    let lines: BTreeMap<String, String> = all
        .par_iter()
        .flat_map_iter(|(name, variant)| {
            let module = variant.module().unwrap();
            let usages = TARGETS.map(|target| ptxas.assemble(&module, target).unwrap());
            let line = |i: usize| {
                let entry = &usages[0][i].entry;
                assert!(usages.iter().all(|usage| usage[i].spills == [0, 0]), "{name} {entry} spills");
                let counts: Vec<String> = usages.iter().map(|usage| usage[i].registers.to_string()).collect();
                (format!("{name} {entry}"), counts.join(" "))
            };
            (0..usages[0].len()).map(line).collect::<Vec<_>>()
        })
        .collect();
    let head = format!("# file, parameters, entry: registers for {}; none spills\n", TARGETS.join(", "));
    let table: String = lines.iter().map(|(name, counts)| format!("{name}: {counts}\n")).collect();
    if std::env::var_os("KILN_UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/registers.txt");
        return std::fs::write(path, head + &table).unwrap();
    }
    for (now, then) in table.lines().zip(REGISTERS.lines().filter(|line| !line.starts_with('#'))) {
        assert_eq!(now, then, "registers changed: KILN_UPDATE=1 writes the table anew");
    }
    assert_eq!(head + &table, REGISTERS);
}

#[test]
fn every_variant_and_each_of_its_kernels_is_in_the_table() {
    let mut lines = 0;
    for (name, variant) in all() {
        let module = variant.module().unwrap();
        for entry in &module.entries {
            let counts = registers(&variant, &entry.name).unwrap_or_else(|| panic!("{name} {}", entry.name));
            assert!(counts.iter().all(|count| (1..=255).contains(count)), "{name} {}: {counts:?}", entry.name);
            lines += 1;
        }
    }
    assert_eq!(lines, REGISTERS.lines().filter(|line| !line.starts_with('#')).count());
}
