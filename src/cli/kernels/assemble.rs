//! `kiln kernels assemble`.

use super::named;
use crate::cli::Global;
use crate::cli::term::{Ink, ink, print};
use clap::Args;
use kiln::device::kernels::Variant;
use kiln::device::ptxas::{Assembler, Usage};
use kiln::error::{Error, Result};
use kiln::proof::variants::{self, TARGETS};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Assemble kernels with NVIDIA's ptxas: registers and spills on each target
///
/// Needs ptxas, but no GPU: the package nvidia-cuda-nvcc of PyPI holds one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pip install --no-deps --target nvcc nvidia-cuda-nvcc==13.0.88
  kiln kernels assemble gemm --ptxas nvcc/nvidia/cu13/bin/ptxas
  KILN_PTXAS=nvcc/nvidia/cu13/bin/ptxas kiln kernels assemble --json")]
pub struct AssembleArgs {
    /// A family or a kernel [default: all]
    name: Option<String>,
    /// The assembler [default: KILN_PTXAS, or the one in PATH]
    #[arg(long, value_name = "PATH")]
    ptxas: Option<PathBuf>,
}

/// Runs `kiln kernels assemble`.
pub fn run(args: &AssembleArgs, global: &Global) -> Result<()> {
    let wanted = args.name.as_ref().map(|name| named(name, &kiln::proof::cases())).transpose()?;
    let ptxas = Assembler::find(args.ptxas.as_deref())?;
    let all: Vec<(String, Variant)> = variants::all()
        .into_iter()
        .filter(|(_, variant)| wanted.as_ref().is_none_or(|named| named.files.contains(&variant.file)))
        .collect();
    let entry = wanted.as_ref().and_then(|named| named.entry);
    if !global.json {
        let head = format!("{:<62} {}", "kernel", TARGETS.map(|target| format!("{target:>7}")).concat());
        print(&ink(&head, Ink::Dim))?;
    }
    let (mut spilling, mut kernels) = (0, 0);
    // A few at a time, so that lines come as they are known.
    for some in all.chunks(8) {
        let done: Vec<[Vec<Usage>; 4]> = some
            .par_iter()
            .map(|(_, variant)| {
                let module = variant.module()?;
                let [a, b, c, d] = TARGETS.map(|target| ptxas.assemble(&module, target));
                Ok([a?, b?, c?, d?])
            })
            .collect::<Result<_>>()?;
        for ((name, variant), usages) in some.iter().zip(&done) {
            for i in (0..usages[0].len()).filter(|i| entry.is_none_or(|entry| usages[0][*i].entry == entry)) {
                let of: [&Usage; 4] = [0, 1, 2, 3].map(|target| &usages[target][i]);
                kernels += 1;
                spilling += usize::from(of.iter().any(|usage| usage.spills != [0, 0]));
                print(&if global.json { object(variant, of).to_string() } else { line(name, of) })?;
            }
        }
    }
    if spilling > 0 {
        let hint = "a smaller tile needs fewer registers";
        return Err(Error::failed(format!("{spilling} of {kernels} kernels spill registers"), hint));
    }
    if global.json { Ok(()) } else { print(&format!("\n{kernels} kernels; none spills")) }
}

fn line(name: &str, of: [&Usage; 4]) -> String {
    let counts = of.map(|usage| format!("{:>7}", usage.registers)).concat();
    let spilled: Vec<String> = of
        .iter()
        .zip(TARGETS)
        .filter(|(usage, _)| usage.spills != [0, 0])
        .map(|(usage, target)| format!("{target}: {} B stored, {} B loaded", usage.spills[0], usage.spills[1]))
        .collect();
    let spills =
        if spilled.is_empty() { String::new() } else { ink(&format!("  SPILLS {}", spilled.join("; ")), Ink::Red) };
    format!("{:<62} {counts}{spills}", format!("{name} {}", of[0].entry))
}

fn object(variant: &Variant, of: [&Usage; 4]) -> Value {
    let map = |f: &dyn Fn(&Usage) -> Value| -> Map<String, Value> {
        of.iter().zip(TARGETS).map(|(usage, target)| (target.to_owned(), f(usage))).collect()
    };
    json!({"file": variant.file, "variant": variant.to_string(), "entry": of[0].entry,
        "registers": map(&|usage| json!(usage.registers)), "spills": map(&|usage| json!(usage.spills))})
}
