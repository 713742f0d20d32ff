//! `kiln bench step`.

use super::{Spread, peak_rss_mb};
use crate::cli::Global;
use crate::cli::term::print;
use clap::Args;
use kiln::cpu::gemm::Precision;
use kiln::cpu::limits;
use kiln::device::Device;
use kiln::error::Result;
use kiln::train::bench::{StepBench, StepCase};
use kiln::train::peer::Peer;
use serde_json::{Value, json};

/// A whole training step: forward, backward and update
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln bench step nano
  kiln bench step tiny --threads 1 --json
  kiln bench step nano --threads 2 \\
      --peer \"VENV/bin/python benches/peers/gpt_torch.py nano f32 eager --threads 2 --serve\"")]
pub struct StepArgs {
    /// nano (5.3M parameters), tiny (10.7M) or gpt2 (124M)
    #[arg(value_name = "CASE", default_value = "nano", value_parser = ["nano", "tiny", "gpt2"])]
    case: String,
    /// Steps to time, after two to warm up
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Run blocks again in the backward pass instead of keeping their activations
    #[arg(long)]
    recompute: bool,
    /// What linear layers round the operands of their products to: f32 or bf16
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// A program that does the same step, to alternate with; see benches/peers/README.md
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
}

/// Runs `kiln bench step`.
pub fn run(args: StepArgs, global: &Global) -> Result<()> {
    let device = global.device()?;
    let Device::Cpu(host) = &device;
    let case = StepCase::all().into_iter().find(|case| case.name == args.case).expect("the parser knows the cases");
    let peak = || limits::fma_peak(&host.cpu, 0.1);
    let precision = if args.precision == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let mut bench = StepBench::new(case, precision, args.recompute, &device);
    for _ in 0..2 {
        bench.step();
    }
    let mut peer = args.peer.as_deref().map(Peer::start).transpose()?;
    // The ceiling is measured before and after: on a shared machine it moves.
    let mut ceiling = vec![peak()];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.reps {
        ours.push(bench.step().0);
        if let Some(peer) = &mut peer {
            theirs.push(peer.once()?);
        }
    }
    ceiling.push(peak());
    let tokens = bench.tokens() as f64;
    let rate = |seconds: &[f64]| -> Spread { Spread::of(seconds.iter().map(|s| tokens / s).collect()) };
    let (mine, limit) = (rate(&ours), ceiling.iter().fold(0.0f64, |a, b| a.max(*b)));
    let share = bench.flops() * mine.median / tokens / 1e9 / limit;
    let name = format!("{} {}", args.case, args.precision);
    let threads = host.cpu.threads.count();
    let memory = peak_rss_mb();
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| b / a).collect();
    if global.json {
        let row = |peer: &Value, rate: &Spread| rate.row("step", peer, &name, threads, args.reps);
        let mut all = row(&json!("kiln"), &mine);
        all["share_of_limit"] = json!(share);
        all["limit_gflops"] = json!(limit);
        all["peak_rss_mb"] = json!(memory);
        if let Some(peer) = &peer {
            all["against"] = row(&peer.about["peer"], &rate(&theirs));
            all["ratio"] = json!(Spread::of(ratios).median);
        }
        return print(&all.to_string());
    }
    print(&format!("training step {name}, {threads} threads, {} steps", args.reps))?;
    let memory = memory.map_or(String::new(), |mb| format!(", {mb:.0} MB at most"));
    let rest = format!("  {:.0} % of the f32 FMA peak of {limit:.0} GFLOP/s{memory}", 100.0 * share);
    print(&mine.line("kiln", &rest))?;
    if let Some(peer) = &peer {
        print(&rate(&theirs).line(peer.about["peer"].as_str().unwrap_or("peer"), ""))?;
        let ratio = Spread::of(ratios);
        print(&format!("ratio, pair by pair  {:>8.2}           ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max))?;
    }
    Ok(())
}
