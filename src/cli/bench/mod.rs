//! `kiln bench`.

mod decode;
mod step;

use super::Global;
use super::term::thousands;
use clap::{Args, Subcommand};
use kiln::error::Result;
use serde_json::{Value, json};

/// Measure speed on this machine
#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Step(step::StepArgs),
    Decode(decode::DecodeArgs),
}

/// Runs `kiln bench`.
pub fn run(args: BenchArgs, global: &Global) -> Result<()> {
    match args.what {
        What::Step(args) => step::run(args, global),
        What::Decode(args) => decode::run(args, global),
    }
}

/// The middle, the smallest and the largest of some numbers.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut x: Vec<f64>) -> Spread {
        x.sort_by(f64::total_cmp);
        let n = x.len();
        Spread { median: (x[(n - 1) / 2] + x[n / 2]) / 2.0, min: x[0], max: x[n - 1] }
    }

    /// Tokens per second, of `who`, for a person.
    fn line(&self, who: &str, rest: &str) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(|x| match x < 1000.0 {
            true => format!("{x:.1}"),
            false => thousands(x as u64),
        });
        format!("{who:<20} {median:>8} tokens/s  ({min} to {max}){rest}")
    }

    /// Tokens per second, of `peer`, for a program.
    fn row(&self, bench: &str, peer: &Value, case: &str, threads: usize, n: u16) -> Value {
        json!({"bench": bench, "peer": peer, "case": case, "threads": threads, "unit": "tokens/s",
            "median": self.median, "min": self.min, "max": self.max, "n": n})
    }
}

/// The most memory that this process has held, in MB; `None` where the system does not say.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
