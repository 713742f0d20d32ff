//! A sitting: ceilings once, then case after case, each in turns with all rivals.

use super::turns::{Gauge, Turns, alternate};
use super::{Against, Case, Ceilings, Part, Repetition, Rival, Spread, Started, Unit, geometric_mean, gpu};
use crate::cpu::{Cpu, limits};
use crate::device::Device;
use crate::error::Result;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Seconds of a look at the machine between two rounds.
const LOOK: f64 = 0.012;

/// What is measured under the same conditions.
pub struct Sitting {
    threads: usize,
    rounds: usize,
    device: Device,
    python: Option<PathBuf>,
    rivals: Vec<(Against, Option<Rival>)>,
    /// The machine's limits; the multiply-add peak is the best seen so far.
    pub ceilings: Ceilings,
}

/// How fast somebody did a case, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The benchmark.
    pub bench: &'static str,
    /// The case, and its part where it has several.
    pub case: String,
    /// Who: kiln or a rival.
    pub peer: String,
    /// Threads that computed.
    pub threads: usize,
    /// What the part is, and what its speed is counted in.
    pub part: Part,
    /// The speed over all rounds that count.
    pub rate: Spread,
    /// The seconds in the middle.
    pub seconds: f64,
    /// Rounds that count.
    pub n: usize,
    /// Rounds that do not, since the machine was not itself.
    pub dropped: usize,
    /// False where the machine never was, so that all rounds count.
    pub calm: bool,
    /// The ceiling that binds the work, by the name of its [`Bound`](super::ceilings::Bound).
    pub bound: &'static str,
    /// The speed as a share of what the ceiling allows.
    pub share: f64,
    /// The most memory that its process has held, in MB.
    pub peak_rss_mb: Option<f64>,
    /// For a rival: how many times as fast kiln was, round by round.
    pub ratio: Option<Spread>,
}

/// The rows of a case, kiln's first, part by part, and why rivals did not take part.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The rows.
    pub rows: Vec<Row>,
    /// `name: why`.
    pub skipped: Vec<String>,
}

impl Sitting {
    /// Measures the ceilings of `device` in about `seconds`; each case is to be timed in `rounds` rounds, in turns with these
    /// rivals.
    ///
    /// # Errors
    /// `KILN_SIMD` names a level that this processor lacks; a GPU failed.
    pub fn new(
        device: Device,
        seconds: f64,
        rounds: usize,
        against: Vec<Against>,
        python: Option<PathBuf>,
    ) -> Result<Sitting> {
        // Its memory goes with it, and does not count as that of the work.
        let ceilings = match another(&device)? {
            Device::Cpu(host) => Ceilings::measure(&host.cpu, seconds),
            Device::Gpu(gpu) => gpu::ceilings(&another(&device)?, &gpu, seconds)?,
        };
        let rivals = against.into_iter().map(|against| (against, None)).collect();
        Ok(Sitting { threads: device.host().threads.count(), rounds, device, python, rivals, ceilings })
    }

    /// What computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Times a case.
    ///
    /// # Errors
    /// It cannot be made ready, or a rival failed.
    pub fn time(&mut self, case: &Case) -> Result<Outcome> {
        for (against, rival) in &mut self.rivals {
            if rival.is_none() {
                *rival = Some(Rival::start(against, case, &self.device, self.python.as_deref())?);
            }
        }
        forget_peak_rss();
        let Started { parts, repeat } = case.start(&another(&self.device)?)?;
        let (mut contestants, mut present, mut skipped) = (vec![repeat as Repetition], Vec::new(), Vec::new());
        for (i, rival) in self.rivals.iter_mut().filter_map(|(_, rival)| rival.as_mut()).enumerate() {
            let name = rival.name().to_owned();
            match rival.enter(case, &parts)? {
                Ok(repeat) => {
                    contestants.push(repeat);
                    present.push((i, name));
                }
                Err(why) => skipped.push(format!("{name}: {why}")),
            }
        }
        let look = || match &self.device {
            Device::Cpu(host) => limits::fma_rate(&host.cpu, LOOK),
            // What fails is told by what is timed.
            Device::Gpu(gpu) => gpu::fma_rate(&self.device, gpu, LOOK).unwrap_or(0.0),
        };
        let mut gauge = Gauge::new(self.ceilings.fma, look);
        let turns = alternate(&mut contestants, &mut gauge, self.rounds)?;
        self.ceilings.fma = gauge.best;
        drop(gauge);
        drop(contestants);
        let memory = |i: usize| self.rivals[i].1.as_ref().and_then(Rival::peak_rss_mb);
        let rivals = present.into_iter().map(|(i, name)| (name, memory(i)));
        let own = if let Device::Cpu(_) = self.device { peak_rss_mb() } else { None };
        let who: Vec<_> = [("kiln".to_owned(), own)].into_iter().chain(rivals).collect();
        let rows = parts
            .iter()
            .enumerate()
            .flat_map(|(p, part)| who.iter().enumerate().map(move |(i, (name, memory))| (p, part, i, name, *memory)));
        let rows = rows.map(|(p, part, i, name, memory)| Row {
            peak_rss_mb: memory,
            ..self.row(case, &turns, [i, p], part, name)
        });
        Ok(Outcome { rows: rows.collect(), skipped })
    }

    /// The row of contestant `i` and part `p`.
    fn row(&self, case: &Case, turns: &Turns, [i, p]: [usize; 2], part: &Part, name: &str) -> Row {
        let bound = self.ceilings.bound(&part.work);
        let seconds = Spread::of(turns.rounds.iter().map(|round| round.seconds[i][p]));
        let rate =
            Spread { median: part.rate(seconds.median), min: part.rate(seconds.max), max: part.rate(seconds.min) };
        Row {
            bench: case.bench,
            case: if part.name.is_empty() { case.name.clone() } else { format!("{}, {}", case.name, part.name) },
            peer: name.to_owned(),
            threads: self.threads,
            part: part.clone(),
            rate,
            seconds: seconds.median,
            n: turns.rounds.len(),
            dropped: turns.dropped,
            calm: turns.calm,
            bound: bound.name,
            share: bound.seconds / seconds.median,
            peak_rss_mb: None,
            ratio: (i > 0)
                .then(|| Spread::of(turns.rounds.iter().map(|round| round.seconds[i][p] / round.seconds[0][p]))),
        }
    }
}

impl Row {
    /// For a program: one object.
    pub fn json(&self) -> Value {
        let mut row = json!({"bench": self.bench, "case": self.case, "peer": self.peer, "threads": self.threads,
            "unit": self.part.unit.name(), "median": self.rate.median, "min": self.rate.min, "max": self.rate.max,
            "n": self.n, "dropped": self.dropped, "calm": self.calm, "seconds": self.seconds,
            "share_of_limit": self.share, "limit": self.bound, "peak_rss_mb": self.peak_rss_mb});
        let work = self.part.work;
        for (key, amount) in [("gflops", work.flops), ("gb_per_s", work.bytes())] {
            if amount > 0.0 {
                row[key] = json!(amount / self.seconds / 1e9);
            }
        }
        if let Unit::Tokens(n) = self.part.unit {
            row["tokens"] = json!(n);
        }
        if let Some(ratio) = self.ratio {
            row["ratio"] = json!(ratio.median);
            row["ratio_min"] = json!(ratio.min);
            row["ratio_max"] = json!(ratio.max);
        }
        row
    }
}

/// Each contestant's geometric mean over its rows: of the speeds, the shares and the ratios. The rows are of one unit.
pub fn means(rows: &[Row]) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    rows.iter().for_each(|row| {
        if !names.contains(&row.peer.as_str()) {
            names.push(&row.peer)
        }
    });
    let of = |name: &str| {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.peer == name).collect();
        let spread = |f: fn(&Row) -> Option<f64>| {
            let values: Vec<f64> = rows.iter().filter_map(|row| f(row)).collect();
            (!values.is_empty())
                .then(|| Spread { median: geometric_mean(values.iter().copied()), ..Spread::of(values) })
        };
        let rate = spread(|row| Some(row.rate.median)).expect("a row for each name");
        Row {
            case: format!("geometric mean of {}", rows.len()),
            rate,
            seconds: geometric_mean(rows.iter().map(|row| row.seconds)),
            n: rows.len(),
            dropped: rows.iter().map(|row| row.dropped).sum(),
            calm: rows.iter().all(|row| row.calm),
            share: geometric_mean(rows.iter().map(|row| row.share)),
            ratio: spread(|row| Some(row.ratio?.median)),
            part: Part { work: Default::default(), ..rows[0].part.clone() },
            ..rows[0].clone()
        }
    };
    names.into_iter().map(of).collect()
}

/// A device like this one, so that memory of other cases is not held.
fn another(device: &Device) -> Result<Device> {
    let Cpu { simd, threads, .. } = device.host();
    match device {
        Device::Cpu(_) => Ok(Device::cpu_with(*simd, threads.count())),
        Device::Gpu(gpu) => Device::gpu(Arc::clone(&gpu.driver), Cpu::with(*simd, threads.count())),
    }
}

/// The most memory that this process has held, in MB; `None` where the system does not say.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some((line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0).round())
}

/// Lets the system count the most memory anew, where it can.
fn forget_peak_rss() {
    // Where it cannot, what is said is the most since the process began.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
