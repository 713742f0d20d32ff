//! Registers of every kernel on every target, as NVIDIA's assembler gives them, against `kernels/registers.txt`.
//!
//! Runs where `KILN_PTXAS` names a `ptxas` (the package nvidia-cuda-nvcc of PyPI has one). With `KILN_UPDATE` set the table
//! is written anew.

use super::*;
use kiln::device::kernels::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const TARGETS: [&str; 4] = ["sm_80", "sm_86", "sm_89", "sm_90"];

/// Variants that training and running a GPT take, by how the table calls them.
fn variants() -> BTreeMap<String, Variant> {
    let mut plans = Vec::new();
    for t in TYPES {
        for aligned in [true, false] {
            for file in ["activation.ptx", "dropout.ptx", "elementwise.ptx", "swiglu.ptx"] {
                plans.push(flat(file, "", t, 1, aligned));
            }
            plans.push(partial_sums("", t, 1, aligned));
            plans.push(adamw(t, Float::Bf16, 1, aligned));
        }
        plans.extend(TYPES.map(|to| cast(t, to, 1, true)));
        for columns in [67, 128, 768, 1024, 1600, 4096, 8192] {
            plans.extend([norm_forward("", t, 1, columns), norm_backward("", t, 1, columns, 1)]);
        }
        plans.extend([logits("", t, 1, 8), logits("", t, 1, 7)]);
        plans.extend([embedding("", t, Float::F32, 1, 8), embedding("", t, Float::F32, 1, 7)]);
        plans.extend([64, 128].map(|dim| rope(t, 1, dim, dim)));
        for dim in [32, 64, 128] {
            plans.push(attention("", t, Heads { batch: 1, time: 1, heads: 1, kv_heads: 1, dim }));
        }
    }
    for side in [64, 1536, 8192] {
        for form in [Form::Nt, Form::Nn, Form::Tn] {
            let sizes = [side, side, 1];
            plans.push(gemm(Unit::Bf16, form, Float::Bf16, "none", sizes));
            plans.push(gemm(Unit::Bf16, form, Float::F32, "none", sizes));
            plans.push(gemm(Unit::Tf32, form, Float::F32, "none", sizes));
            plans.push(gemm(Unit::F32(true), form, Float::F32, "none", sizes));
        }
        plans.push(gemm(Unit::Bf16, Form::Nt, Float::Bf16, "gelu_tanh", [side, side, 1]));
        plans.push(gemm(Unit::F32(true), Form::Nt, Float::F32, "gelu_tanh", [side, side, 1]));
    }
    let name = |variant: &Variant| {
        let settings = variant.settings.iter().map(|(name, setting)| match setting {
            Setting::Number(x) => format!(" {name}={x}"),
            Setting::Word(x) => format!(" {name}={x}"),
        });
        format!("{}{}", variant.file, settings.collect::<String>())
    };
    plans.into_iter().map(|plan| (name(&plan.variant), plan.variant)).collect()
}

/// Assembles a variant for a target: the registers of each entry.
fn assemble(ptxas: &Path, dir: &Path, name: &str, module: &Module, target: &str) -> BTreeMap<String, String> {
    let path = dir.join(format!("{}-{target}.ptx", name.replace(' ', "-")));
    std::fs::write(&path, &module.source.expanded.text).unwrap();
    let arguments = [&format!("-arch={target}"), "-warn-spills", "-v", "-o", "/dev/null"];
    let out = Command::new(ptxas).args(arguments).arg(&path).output().expect("ptxas runs");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name} for {target}:\n{text}");
    assert!(!text.contains("spilled"), "{name} for {target} spills:\n{text}");
    let mut registers = BTreeMap::new();
    let mut entry = String::new();
    for line in text.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().unwrap_or("").to_owned();
        } else if let Some(rest) = line.split("Used ").nth(1) {
            registers.insert(entry.clone(), rest.split(' ').next().unwrap_or("").to_owned());
        }
    }
    assert_eq!(
        registers.len(),
        module.entries.len(),
        "{name}: what ptxas said of its entries is not understood:\n{text}"
    );
    registers
}

#[test]
#[allow(clippy::print_stdout)]
fn registers_are_those_of_the_table() {
    let Some(ptxas) = std::env::var_os("KILN_PTXAS") else {
        println!("skipped: KILN_PTXAS does not name a ptxas");
        return;
    };
    let dir = std::env::temp_dir().join(format!("kiln-registers-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let variants: Vec<(String, Variant)> = variants().into_iter().collect();
    let (next, lines) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((name, variant)) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let module = variant.module().unwrap();
                    let all = TARGETS.map(|target| assemble(Path::new(&ptxas), &dir, name, &module, target));
                    for entry in all[0].keys() {
                        let counts: Vec<&str> = all.iter().map(|one| one[entry].as_str()).collect();
                        lines.lock().unwrap().insert(format!("{name} {entry}"), counts.join(" "));
                    }
                }
            });
        }
    });
    std::fs::remove_dir_all(&dir).unwrap();
    let head = format!("# file, parameters, entry: registers for {}; none spills\n", TARGETS.join(", "));
    let lines = lines.into_inner().unwrap();
    let table: String = lines.iter().map(|(name, counts)| format!("{name}: {counts}\n")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/registers.txt");
    if std::env::var_os("KILN_UPDATE").is_some() {
        return std::fs::write(path, head + &table).unwrap();
    }
    let held = std::fs::read_to_string(path).unwrap();
    for (now, then) in table.lines().zip(held.lines().filter(|line| !line.starts_with('#'))) {
        assert_eq!(now, then, "registers changed: KILN_UPDATE=1 writes the table anew");
    }
    assert_eq!(head + &table, held);
}
