//! `kiln kernels list`.

use super::{named, size, stem};
use crate::cli::Global;
use crate::cli::term::{Ink, ink, print};
use clap::Args;
use kiln::device::kernels::{FILES, Plan, Variant};
use kiln::device::ptx::{Entry, Module, Value};
use kiln::error::Result;
use kiln::proof::variants::{self, TARGETS};
use rayon::prelude::*;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// List the kernels: their variants, registers and shared memory
///
/// A family is a file; each of its kernels comes in variants by type and tile. With the name of a family, each variant has a line.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln kernels list
  kiln kernels list attention
  kiln kernels list --json | jq -c 'select(.registers.sm_90 > 128)'")]
pub struct ListArgs {
    /// A family or a kernel [default: all]
    name: Option<String>,
}

/// A kernel of a variant.
struct Row {
    variant: Variant,
    entry: String,
    /// Bytes that it declares, and that its launch adds.
    shared: [usize; 2],
    registers: Option<[u32; 4]>,
}

/// Runs `kiln kernels list`.
pub fn run(args: &ListArgs, global: &Global) -> Result<()> {
    let wanted = args.name.as_ref().map(|name| named(name, &kiln::proof::cases())).transpose()?;
    let files: Vec<(&str, &str)> =
        FILES.into_iter().filter(|(file, _)| wanted.as_ref().is_none_or(|named| named.files.contains(file))).collect();
    let entry = wanted.as_ref().and_then(|named| named.entry);
    let plans = variants::plans();
    for (file, text) in files {
        let module = Variant::new(file, []).module()?;
        let rows = rows(file, &plans)?;
        let rows: Vec<Row> = rows.into_iter().filter(|row| entry.is_none_or(|entry| row.entry == entry)).collect();
        if global.json {
            rows.iter().try_for_each(|row| print(&object(&module, row).to_string()))?;
        } else {
            print(&family(&module, text, &rows, wanted.is_some()))?;
        }
    }
    if global.json || wanted.is_some() {
        Ok(())
    } else {
        print("next: kiln kernels list gemm; kiln kernels show rope; kiln kernels run xent")
    }
}

/// The kernels of a file's variants.
fn rows(file: &str, plans: &[Plan]) -> Result<Vec<Row>> {
    let mut own: Vec<&Variant> =
        plans.iter().map(|plan| &plan.variant).filter(|variant| variant.file == file).collect();
    own.sort_by_key(|variant| variant.to_string());
    own.dedup();
    let of = |variant: &Variant| -> Result<Vec<Row>> {
        let module = variant.module()?;
        let row = |entry: &Entry| {
            let fits = |plan: &&Plan| plan.variant == *variant && (plan.entry.is_empty() || plan.entry == entry.name);
            let added =
                if entry.dynamic_shared { plans.iter().find(fits).map_or(0, |plan| plan.grid.shared) } else { 0 };
            let registers = variants::registers(variant, &entry.name);
            Row { variant: variant.clone(), entry: entry.name.clone(), shared: [entry.shared, added], registers }
        };
        Ok(module.entries.iter().map(row).collect())
    };
    Ok(own.par_iter().map(|variant| of(variant)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn object(module: &Module, row: &Row) -> Json {
    let settings: Map<String, Json> = row
        .variant
        .settings
        .iter()
        .map(|(name, setting)| {
            let value = match Value::parse(&setting.to_string()) {
                Value::Int(x) => json!(x),
                Value::Text(x) => json!(x),
            };
            ((*name).to_owned(), value)
        })
        .collect();
    let registers: Map<String, Json> = TARGETS
        .iter()
        .zip(row.registers.iter().flatten())
        .map(|(target, count)| ((*target).to_owned(), json!(count)))
        .collect();
    let (major, minor) = module.version;
    json!({"file": row.variant.file, "entry": row.entry, "settings": settings, "registers": registers,
        "shared": row.shared[0], "shared_of_launch": row.shared[1],
        "isa": format!("{major}.{minor}"), "target": format!("sm_{}", module.target)})
}

/// From the least to the most.
fn range(numbers: impl Iterator<Item = u64>, word: fn(u64) -> String) -> String {
    let numbers: BTreeSet<u64> = numbers.collect();
    match (numbers.first(), numbers.last()) {
        (Some(a), Some(b)) if a == b => word(*a),
        (Some(a), Some(b)) => format!("{}-{}", word(*a).trim_end_matches(" KiB"), word(*b)),
        _ => "-".to_owned(),
    }
}

fn family(module: &Module, text: &str, rows: &[Row], each: bool) -> String {
    let (major, minor) = module.version;
    // Its file begins with what it is.
    let about = text.lines().next().unwrap_or_default().trim_start_matches("// ");
    let about = about.split(['.', ':', ';']).next().unwrap_or_default();
    let mut out = format!(
        "{}  {about}  {}\n",
        ink(stem(&module.source.name), Ink::Bold),
        ink(&format!("{}, PTX {major}.{minor}, sm_{}", module.source.name, module.target), Ink::Dim)
    );
    let mut lines: Vec<[String; 7]> = Vec::new();
    let heads = ["kernel", "variants", "shared"].into_iter().chain(TARGETS);
    let mut heads: Vec<String> = heads.map(str::to_owned).collect();
    heads[3].insert_str(0, "registers ");
    lines.extend(<[String; 7]>::try_from(heads));
    for entry in module.entries.iter().map(|entry| entry.name.as_str()) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.entry == entry).collect();
        let groups = if each || own.is_empty() { own.chunks(1) } else { own.chunks(own.len()) };
        for group in groups {
            let shared = range(group.iter().map(|row| row.shared.iter().sum::<usize>() as u64), size);
            let [a, b, c, d] = [0, 1, 2, 3]
                .map(|i| range(group.iter().filter_map(|row| Some(u64::from(row.registers?[i]))), |n| n.to_string()));
            lines.push([entry.to_owned(), settings(group), shared, a, b, c, d]);
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for (i, line) in lines.iter().enumerate() {
        let left = line[..3].iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}"));
        let right = line[3..].iter().zip(&widths[3..]).map(|(cell, width)| format!("  {cell:>width$}"));
        let text = left.chain(right).collect::<String>();
        out += &format!("{}\n", if i == 0 { ink(&text, Ink::Dim) } else { text });
    }
    out.trim_end().to_owned() + if each { "" } else { "\n" }
}

/// The values of each parameter: `T=f32|bf16 V=1|4`.
fn settings(rows: &[&Row]) -> String {
    let mut names: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, setting) in rows.iter().flat_map(|row| row.variant.settings.iter()) {
        let at = names.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            names.push((name, Vec::new()));
            names.len() - 1
        });
        let value = setting.to_string();
        if !names[at].1.contains(&value) {
            names[at].1.push(value);
        }
    }
    names.iter().map(|(name, values)| format!("{name}={}", sorted(values).join("|"))).collect::<Vec<_>>().join(" ")
}

/// Numbers by their size, words by the alphabet.
fn sorted(values: &[String]) -> Vec<String> {
    let mut values = values.to_vec();
    values.sort_by_key(|value| (value.parse::<u64>().ok(), value.clone()));
    values
}
