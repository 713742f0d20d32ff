//! The variants of kernels that training and running a GPT take, with those for study, and their registers.

use super::TYPES;
use crate::device::Grid;
use crate::device::kernels::*;
use std::collections::BTreeMap;

/// The targets for which registers are known.
pub const TARGETS: [&str; 4] = ["sm_80", "sm_86", "sm_89", "sm_90"];

/// Registers of each kernel of each variant for [`TARGETS`], as `kiln kernels assemble` found them.
pub const REGISTERS: &str = include_str!("../../kernels/registers.txt");

/// The variants by how [`REGISTERS`] calls them.
pub fn all() -> BTreeMap<String, Variant> {
    plans().into_iter().map(|plan| (plan.variant.to_string(), plan.variant)).collect()
}

/// A plan for each variant, for sizes of no meaning; where the kernels of a file take different shared memory, one for each
/// kernel, else `entry` is empty.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for t in TYPES {
        for aligned in [true, false] {
            for file in [
                "activation.ptx",
                "dropout.ptx",
                "elementwise.ptx",
                "policy.ptx",
                "sample.ptx",
                "slope.ptx",
                "swiglu.ptx",
            ] {
                plans.push(flat(file, "", t, 1, aligned));
            }
            plans.push(partial_sums("", t, 1, aligned));
            plans.push(adamw(t, Float::Bf16, 1, aligned));
        }
        plans.extend(TYPES.map(|to| cast(t, to, 1, true)));
        for columns in [67, 128, 768, 1024, 1600, 4096, 8192] {
            plans.extend([norm_forward("", t, 1, columns), norm_backward("", t, 1, columns, 1)]);
        }
        plans.push(Plan { entry: "", ..codes_nearest(t, 1) });
        plans.extend([logits("", t, 1, 8), logits("", t, 1, 7)]);
        plans.extend([loss("", t, 1, 8), loss("", t, 1, 7)]);
        plans.extend([augment("", [t, Float::F32], 1), augment("", [Float::F32, t], 1)]);
        plans.extend([8, 7].map(|columns| spectral("", t, 1, columns)));
        plans.extend([8, 7].map(|columns| norm_each("", t, 1, columns)));
        for file in ["blend.ptx", "kl.ptx", "resample.ptx", "sphere.ptx", "split.ptx"] {
            plans.extend([8, 7].map(|columns| by_rows(file, "", t, 1, columns)));
        }
        plans.extend([t, Float::F32].into_iter().flat_map(|tb| [8, 7].map(|columns| row_dots([t, tb], 1, columns))));
        plans.extend([embedding("", t, Float::F32, 1, 8), embedding("", t, Float::F32, 1, 7)]);
        plans.extend([64, 128].map(|dim| rope(t, 1, dim, dim)));
        for dim in [32, 64, 128] {
            let sizes = Heads { batch: 1, time: 1, heads: 1, kv_heads: 1, dim };
            let entries = ["attention_fwd", "attention_delta", "attention_bwd_q", "attention_bwd_kv"];
            plans.extend(entries.map(|entry| attention(entry, t, sizes)));
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
    for (t, wide) in [(Float::F32, 4), (Float::Bf16, 8)] {
        for channels in [[wide, wide], [1, wide], [wide, 1]] {
            plans.push(conv("", t, "none", channels, [1; 3]));
        }
        plans.push(conv("", t, "relu", [wide; 2], [1; 3]));
    }
    plans.push(limits("", 1));
    plans.extend([0, 1].map(|pad: i64| {
        let variant = Variant::new("study.ptx", [("PAD", pad.into())]);
        Plan { variant, entry: "", grid: Grid::new(1, 256) }
    }));
    plans
}

/// Registers for [`TARGETS`] of kernel `entry` of a variant, where they are known.
pub fn registers(variant: &Variant, entry: &str) -> Option<[u32; 4]> {
    let start = format!("{variant} {entry}: ");
    let counts = REGISTERS.lines().find_map(|line| line.strip_prefix(&start))?;
    let mut counts = counts.split(' ').map(str::parse);
    Some([(); 4].map(|()| counts.next().and_then(Result::ok).unwrap_or(0)))
}
