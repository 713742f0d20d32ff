//! `kiln doctor`.

use super::Global;
use super::term::{Ink, ink, note, print, quote, safe, thousands};
use clap::Args;
use kiln::cpu::{available_threads, limits};
use kiln::device::probe;
use kiln::error::Result;
use kiln::train::health::{Finding, Report, examine};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Say what is wrong with a run; without one, what this machine has
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln doctor runs/village                 what is wrong, by which numbers, which key to turn; also while it runs
  kiln doctor runs/village --json
  kiln doctor                              what this machine has and what kiln will use of it
  KILN_SIMD=avx2 kiln doctor --threads 1   what a smaller machine would reach

What is found is no error: the exit code is 0. docs/health.md says what each finding means.")]
pub struct DoctorArgs {
    /// A run's directory; it is only read
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
}

/// Runs `kiln doctor`.
pub fn run(args: DoctorArgs, global: &Global) -> Result<()> {
    let Some(path) = args.run else { return machine(global) };
    let device = global.host()?;
    let start = Instant::now();
    let mut told = String::new();
    let mut progress = |what: &str, _, _| {
        if !global.json && what != told && start.elapsed() > Duration::from_secs(2) {
            note(what);
            what.clone_into(&mut told);
        }
    };
    let report = examine(&path, &device, &mut progress)?;
    print(&if global.json { json!(report).to_string() } else { text(&report) })
}

/// A report as people read it.
fn text(report: &Report) -> String {
    let Report { run, step, steps, findings, numbers, left_out } = report;
    let mut text = format!("{}: step {} of {}\n", run.display(), thousands(*step), thousands(*steps));
    for found in findings {
        let name = ink(found.kind.name(), Ink::Red);
        text += &format!("\n{name}: {}\n", found.what);
        text += &format!("  seen by  {}\n  try      {} = {}\n", found.numbers(), found.knob.key, found.knob.value);
    }
    if findings.is_empty() {
        text += &format!("\n{}\n", ink("nothing is wrong with it that kiln could see", Ink::Green));
    }
    text += "\nmeasured\n";
    numbers.iter().for_each(|number| text += &format!("  {number}\n"));
    if !left_out.is_empty() {
        text += "\nnot looked at\n";
        left_out.iter().for_each(|what| text += &format!("  {}\n", safe(what)));
    }
    let run = quote(run);
    // What only the user knows is no command.
    let next = |found: &Finding| {
        format!("kiln train {run}/recipe.toml --set {}={}", found.knob.key, found.knob.value.trim_matches('"'))
    };
    let next = findings.iter().find(|found| !found.knob.value.starts_with('<')).map(next);
    let next = next.or_else(|| (step < steps && findings.is_empty()).then(|| format!("kiln train --resume {run}")));
    text + &next.map_or(String::new(), |next| format!("\nnext: {next}"))
}

/// What this machine has; it takes about a second, to measure.
fn machine(global: &Global) -> Result<()> {
    let device = global.host()?;
    let cpu = device.host();
    let (processor, memory, cuda) = (probe::processor(), probe::memory(), probe::cuda());
    let gflops = limits::fma_peak(cpu, 0.3);
    let read = limits::read_bandwidth(cpu, 256 << 20, 0.3);
    let gpu = cuda.as_ref().is_ok_and(|cuda| !cuda.gpus.is_empty());
    let trains_on = if gpu { "cuda" } else { "cpu" };
    if global.json {
        let gpu = |g: &probe::Gpu| json!({"name": g.name, "capability": g.capability, "memory": g.memory});
        let object = json!({
            "kiln": env!("CARGO_PKG_VERSION"),
            "cpu": {
                "name": processor.name,
                "features": processor.features,
                "logical": processor.logical,
                "available": available_threads(),
                "cgroup_limit": processor.cgroup_limit,
            },
            "memory": {
                "total": memory.total,
                "available": memory.available,
                "cgroup_limit": memory.cgroup_limit,
                "huge_pages": memory.huge_pages,
            },
            "cuda": match &cuda {
                Ok(cuda) => json!({"version": cuda.version, "gpus": cuda.gpus.iter().map(gpu).collect::<Vec<_>>()}),
                Err(why) => json!({"missing": why}),
            },
            "uses": {
                "device": trains_on,
                "simd": cpu.simd.name(),
                "threads": cpu.threads.count(),
                "peak_gflops": gflops,
                "read_gb_per_s": read,
            },
        });
        return print(&object.to_string());
    }
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{name:<12}{}\n", safe(&value));
    let name = if processor.name.is_empty() { std::env::consts::ARCH } else { &processor.name };
    row("processor", format!("{name}, {} {}", std::env::consts::ARCH, std::env::consts::OS));
    let features =
        if processor.features.is_empty() { "none known to kiln".into() } else { processor.features.join(" ") };
    row("features", features);
    let mut threads = format!("{} logical, {} open to this process", processor.logical, available_threads());
    if let Some(limit) = processor.cgroup_limit {
        threads += &format!(", cgroup allows {limit:.1}");
    }
    row("threads", threads);
    let size = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), gib);
    let mut line = format!("{}, {} available", size(memory.total), size(memory.available));
    if let Some(limit) = memory.cgroup_limit {
        line += &format!(", cgroup allows {}", gib(limit));
    }
    row("memory", line);
    row("huge pages", memory.huge_pages.unwrap_or("unknown".into()));
    match &cuda {
        Err(why) => row("gpu", format!("none: {why}")),
        Ok(cuda) if cuda.gpus.is_empty() => row("gpu", "none: the driver finds no device".into()),
        Ok(cuda) => {
            let (major, minor) = cuda.version;
            for gpu in &cuda.gpus {
                let (a, b) = gpu.capability;
                row("gpu", format!("{}, sm_{a}{b}, {}, driver for CUDA {major}.{minor}", gpu.name, gib(gpu.memory)));
            }
        }
    }
    let (count, simd) = (cpu.threads.count(), cpu.simd.name());
    text += "\nkiln will use\n";
    let mut row = |name: &str, value: String| text += &format!("  {name:<9}{value}\n");
    row("device", if gpu { "cuda to train, cpu for all else" } else { "cpu" }.into());
    row("level", format!("{simd}  (KILN_SIMD chooses another)"));
    row("threads", format!("{count}  (--threads chooses another number)"));
    row("peak", format!("{gflops:.0} GFLOP/s in f32, {read:.1} GB/s read, measured just now"));
    print(text.trim_end())
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
