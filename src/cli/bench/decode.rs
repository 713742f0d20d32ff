//! `kiln bench decode`.

use super::{Spread, peak_rss_mb};
use crate::cli::term::print;
use crate::cli::{Global, Weights};
use clap::Args;
use kiln::cpu::limits;
use kiln::device::Device;
use kiln::error::{Error, Result};
use kiln::params::Kind;
use kiln::train::bench::StepCase;
use kiln::train::bench::decode::DecodeBench;
use kiln::train::peer::Peer;
use serde_json::{Value, json};

/// Writing token by token with cached keys and values
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln bench decode gpt2
  kiln bench decode gpt2 --prompt 512 --tokens 32 --json
  kiln bench decode gpt2 --threads 2 \\
      --peer \"VENV/bin/python benches/peers/decode_torch.py gpt2 --threads 2 --serve\"")]
pub struct DecodeArgs {
    /// nano (5.3M parameters), tiny (10.7M) or gpt2 (124M)
    #[arg(value_name = "CASE", default_value = "gpt2", value_parser = ["nano", "tiny", "gpt2"])]
    case: String,
    /// Tokens to read before the first one is written
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to write after the first one
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// How the weights are held: f32, bf16 (half the bytes) or int8 (a quarter); arithmetic is in f32
    #[arg(long, value_name = "TYPE", default_value = "f32", hide_possible_values = true)]
    weights: Weights,
    /// How often, after once to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// A program that does the same, to alternate with (may be given more than once); see benches/peers/README.md
    #[arg(long, value_name = "COMMAND")]
    peer: Vec<String>,
}

/// The seconds of each repetition: to the first token, and of the others.
#[derive(Default)]
struct Times {
    first: Vec<f64>,
    rest: Vec<f64>,
}

impl Times {
    fn add(&mut self, (first, rest): (f64, f64)) {
        self.first.push(first);
        self.rest.push(rest);
    }

    /// Tokens per second after the first.
    fn rate(&self, tokens: f64) -> Spread {
        Spread::of(self.rest.iter().map(|s| tokens / s).collect())
    }

    /// How many times these take as long as `other`, pair by pair.
    fn over(&self, other: &Times, part: fn(&Times) -> &Vec<f64>) -> Spread {
        Spread::of(part(self).iter().zip(part(other)).map(|(a, b)| a / b).collect())
    }
}

/// Runs `kiln bench decode`.
pub fn run(args: DecodeArgs, global: &Global) -> Result<()> {
    let device = global.device()?;
    let Device::Cpu(host) = &device;
    let case = StepCase::all().into_iter().find(|case| case.name == args.case).expect("the parser knows the cases");
    let (prompt, tokens, context) = (args.prompt as usize, args.tokens as usize, case.config.context);
    if prompt + tokens > context {
        let problem = format!("--prompt {prompt} and --tokens {tokens} exceed the context of {}, {context}", case.name);
        return Err(Error::usage(problem, "lower one of them"));
    }
    let hold = args.weights.hold();
    let dtype = hold.dtype(Kind::Matrix).name();
    let mut bench = DecodeBench::new(case.config, hold, &device);
    bench.run(prompt, tokens);
    // Before the ceiling is measured, which takes a buffer.
    let memory = peak_rss_mb();
    let mut peers: Vec<_> = args.peer.iter().map(|command| Peer::start(command)).collect::<Result<_>>()?;
    // The ceiling is measured before and after: on a shared machine it moves.
    let bandwidth = || limits::read_bandwidth(&host.cpu, 256 << 20, 0.3);
    let mut limit = bandwidth();
    let (mut ours, mut theirs) = (Times::default(), Vec::from_iter(peers.iter().map(|_| Times::default())));
    for _ in 0..args.reps {
        ours.add(bench.run(prompt, tokens));
        for (peer, times) in peers.iter_mut().zip(&mut theirs) {
            let rest = peer.once()?;
            times.add((peer.seconds("first_seconds")?, rest));
        }
    }
    limit = limit.max(bandwidth());
    let n = tokens as f64;
    let rate = ours.rate(n);
    let read = rate.median * bench.bytes() as f64 / 1e9;
    let threads = host.cpu.threads.count();
    let name = format!("{} {dtype}, prompt {prompt}", args.case);
    if global.json {
        let row = |peer: &Value, times: &Times| {
            let first = Spread::of(times.first.clone());
            let mut row = times.rate(n).row("decode", peer, &name, threads, args.reps);
            row["tokens"] = json!(tokens);
            row["first_seconds"] = json!({"median": first.median, "min": first.min, "max": first.max});
            row
        };
        let mut all = row(&json!("kiln"), &ours);
        all["gb_per_s"] = json!(read);
        all["limit_gb_per_s"] = json!(limit);
        all["peak_rss_mb"] = json!(memory);
        let against = peers.iter().zip(&theirs).map(|(peer, times)| {
            let mut row = row(&peer.about["peer"], times);
            row["peak_rss_mb"] = peer.last["peak_rss_mb"].clone();
            row["ratio"] = json!(times.over(&ours, |t| &t.rest).median);
            row["first_ratio"] = json!(times.over(&ours, |t| &t.first).median);
            row
        });
        all["against"] = against.collect();
        return print(&all.to_string());
    }
    let rest = |times: &Times, memory: Option<f64>| {
        let memory = memory.map_or(String::new(), |mb| format!(", {mb:.0} MB"));
        format!("  first after {:.3} s{memory}", Spread::of(times.first.clone()).median)
    };
    print(&format!("decode {name}, then {tokens} tokens, {threads} threads, {} times", args.reps))?;
    print(&rate.line("kiln", &rest(&ours, memory)))?;
    print(&format!("{:<20} {read:>8.1} GB/s of weights, of {limit:.1} that can be read", ""))?;
    for (peer, times) in peers.iter().zip(&theirs) {
        let who = peer.about["peer"].as_str().unwrap_or("peer");
        print(&times.rate(n).line(who, &rest(times, peer.last["peak_rss_mb"].as_f64())))?;
        let (ratio, first) = (times.over(&ours, |t| &t.rest), times.over(&ours, |t| &t.first));
        let [a, b, c] = [ratio.median, ratio.min, ratio.max];
        print(&format!(
            "{:<20} {a:>8.2} times as fast, pair by pair ({b:.2} to {c:.2}); first: {:.2}",
            "kiln", first.median
        ))?;
    }
    Ok(())
}
