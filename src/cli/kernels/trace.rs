//! `kiln kernels trace`.

use super::{matching, simulated};
use crate::cli::Global;
use crate::cli::term::{Ink, ink, note, print};
use clap::Args;
use kiln::device::ptx::Type;
use kiln::device::sim::trace::{Held, Step};
use kiln::device::sim::{Probe, Trace};
use kiln::error::{Error, Result};
use kiln::proof::Rig;
use serde_json::{Map, Value, json};

/// Follow one thread of a kernel, step by step
///
/// Runs a small case on the simulated device and prints each instruction that the thread comes to: its line, the lanes of its warp
/// that execute it, and the registers that it reads and writes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln kernels trace scale_fwd
  kiln kernels trace attention_fwd --warp 1 --lane 5 --steps 200
  kiln kernels trace gemm --case \"bf16 nt\" --steps 1000 | less")]
pub struct TraceArgs {
    /// A kernel, or a family of one kernel
    name: String,
    /// The block, as one number
    #[arg(long, value_name = "N", default_value_t = 0)]
    block: u32,
    /// The warp of the block
    #[arg(long, value_name = "N", default_value_t = 0)]
    warp: u32,
    /// The lane of the warp
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..32))]
    lane: u32,
    /// Steps to print
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// The first case whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    case: String,
}

/// Runs `kiln kernels trace`.
pub fn run(args: &TraceArgs, global: &Global) -> Result<()> {
    let cases = matching(&args.name, &args.case)?;
    let case = &cases[0];
    let entry = match &case.entries[..] {
        entries if entries.contains(&args.name.as_str()) => args.name.clone(),
        [entry] => (*entry).to_owned(),
        entries => {
            let problem = format!("{} has several kernels: {}", args.name, entries.join(", "));
            return Err(Error::usage(problem, format!("name one: kiln kernels trace {}", entries[0])));
        }
    };
    let sim = simulated(true, global)?;
    let TraceArgs { block, warp, lane, steps, .. } = *args;
    sim.watch(Probe { entry, block, warp, lane, steps: steps as usize });
    // What the kernel does until it fails is shown first.
    let ran = Rig::new(&sim).run(case);
    let Some(trace) = sim.traced() else { return ran.map(|_| ()) };
    inside(args, &trace)?;
    if !global.json {
        let (grid, kernel) = (trace.grid, &trace.module.entries[trace.entry].name);
        let file = &trace.module.source.name;
        let at = format!(
            "{file}, {}; grid {:?} of {:?}; block {block}, warp {warp}, lane {lane}",
            case.name, grid.blocks, grid.threads
        );
        print(&format!("{}  {at}\n", ink(kernel, Ink::Bold)))?;
        print(&ink(
            &format!("{:<16} {:<8}  instruction, and its registers before and after", "line", "lanes"),
            Ink::Dim,
        ))?;
    }
    for step in &trace.steps {
        print(&if global.json { object(&trace, step).to_string() } else { line(&trace, step) })?;
    }
    if trace.total > trace.steps.len() as u64 {
        note(&format!("{} of {} steps; --steps shows more", trace.steps.len(), trace.total));
    }
    ran.map(|_| ())
}

/// # Errors
/// The thread is not in the launch.
fn inside(args: &TraceArgs, trace: &Trace) -> Result<()> {
    let threads: u32 = trace.grid.threads.iter().product();
    let (blocks, warps) = (trace.grid.blocks.iter().product::<u32>(), threads.div_ceil(32));
    let thread = args.warp.saturating_mul(32).saturating_add(args.lane);
    for (flag, given, count) in [("block", args.block, blocks), ("warp", args.warp, warps), ("lane", thread, threads)] {
        if given >= count {
            let least = format!("use 0 to {}", if flag == "lane" { (threads - 1) % 32 } else { count - 1 });
            let problem = match flag {
                "block" => format!("--block {given}: the launch has {count} blocks"),
                "warp" => format!("--warp {given}: a block has {count} warps"),
                _ => format!("--lane {}: the last warp has {} threads", args.lane, threads % 32),
            };
            return Err(Error::usage(problem, least));
        }
    }
    Ok(())
}

/// Where a step stands in the source, and its instruction as it was expanded.
fn place(trace: &Trace, step: &Step) -> (String, usize, String) {
    let source = &trace.module.source;
    let line = source.expanded.place(step.line, 1).line;
    let text = source.expanded.text.lines().nth(step.line.wrapping_sub(1)).unwrap_or_default();
    let text = text.split("//").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    match source.expanded.library(step.line) {
        Some((file, at)) => (format!("{line} {file}:{at}"), line, text),
        None => (line.to_string(), line, text),
    }
}

fn line(trace: &Trace, step: &Step) -> String {
    let (place, _, text) = place(trace, step);
    let list =
        |held: &[Held]| held.iter().map(|held| format!("{}={}", held.name, value(held))).collect::<Vec<_>>().join(" ");
    let (reads, writes) = (list(&step.reads), list(&step.writes));
    let arrow = match (step.on, writes.is_empty()) {
        (false, _) => format!("{reads}  (its guard excludes this lane)"),
        (true, true) => reads,
        (true, false) if reads.is_empty() => format!("-> {writes}"),
        (true, false) => format!("{reads} -> {writes}"),
    };
    let head = format!("{place:<16} {:08x}  {text}", step.mask);
    if arrow.trim().is_empty() { head } else { format!("{head}\n{:27}{}", "", ink(&arrow, Ink::Dim)) }
}

/// A register's value as its type has it; large words, which may be packed halves or addresses, in hexadecimal.
fn value(held: &Held) -> String {
    match held.ty {
        Type::F32 => f32::from_bits(held.bits as u32).to_string(),
        Type::F64 => f64::from_bits(held.bits).to_string(),
        Type::S32 => (held.bits as i32).to_string(),
        Type::S64 => (held.bits as i64).to_string(),
        _ if held.bits >= 1 << 16 => format!("{:#x}", held.bits),
        _ => held.bits.to_string(),
    }
}

fn object(trace: &Trace, step: &Step) -> Value {
    let (place, line, text) = place(trace, step);
    let number = |held: &Held| match held.ty {
        // What is no number has no form in JSON but its name.
        Type::F32 | Type::F64 => serde_json::from_str(&value(held)).unwrap_or_else(|_| json!(value(held))),
        Type::S32 => json!(held.bits as i32),
        Type::S64 => json!(held.bits as i64),
        _ => json!(held.bits),
    };
    let map = |held: &[Held]| held.iter().map(|held| (held.name.clone(), number(held))).collect::<Map<_, _>>();
    json!({"line": line, "place": place, "mask": step.mask, "on": step.on, "text": text, "reads": map(&step.reads),
        "writes": map(&step.writes)})
}
