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
fn range<T: Ord + Copy + ToString>(numbers: impl Iterator<Item = T>) -> String {
    let numbers: BTreeSet<T> = numbers.collect();
    match (numbers.first(), numbers.last()) {
        (Some(a), Some(b)) if a == b => a.to_string(),
        (Some(a), Some(b)) => format!("{}-{}", a.to_string(), b.to_string()),
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
    let head = format!("  {:<20} {:<34} {:<9} registers {}", "kernel", "variants", "shared", TARGETS.join(" "));
    out += &format!("{}\n", ink(&head, Ink::Dim));
    for entry in module.entries.iter().map(|entry| entry.name.as_str()) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.entry == entry).collect();
        let groups: Vec<Vec<&Row>> = match each {
            true => own.into_iter().map(|row| vec![row]).collect(),
            false if own.is_empty() => continue,
            false => vec![own],
        };
        for group in groups {
            let shared = range(group.iter().map(|row| row.shared.iter().sum::<usize>()));
            let registers: Vec<String> = (0..4)
                .map(|i| format!("{:>7}", range(group.iter().filter_map(|row| Some(row.registers?[i])))))
                .collect();
            let shared = match shared.parse::<u64>() {
                Ok(bytes) => size(bytes),
                Err(_) => shared,
            };
            out += &format!("  {entry:<20} {:<34} {shared:<9} {:>10}\n", settings(&group), registers.join(" "));
        }
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
    names.iter().map(|(name, values)| format!("{name}={}", values.join("|"))).collect::<Vec<_>>().join(" ")
}
