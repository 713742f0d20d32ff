//! `kiln kernels run`.

use super::golden::Golden;
use super::{matching, own, simulated, stem};
use crate::cli::term::{Ink, ink, print};
use crate::cli::{DeviceName, Global};
use clap::Args;
use kiln::device::Driver;
use kiln::device::cuda::Cuda;
use kiln::error::{Error, Result};
use kiln::proof::{self, Case, Check, Outcome, Rig};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Run kernels against their references in f64
///
/// Runs each case of a kernel on the GPU (--device cuda) or on the simulated device (--device sim, the default), and prints the
/// largest error beside its bound.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln kernels run rope
  kiln kernels run attention_fwd --checks        refuses races, and accesses that must not be
  kiln kernels run --all --device cuda --save gpu.safetensors
  kiln kernels run --all --device sim --against gpu.safetensors
  kiln kernels run my.ptx --against gelu_tanh --case f32   a kernel of your own in the place of kiln's

Your own file has an entry of the same name with the same parameters; begin with: kiln kernels show activation > my.ptx")]
pub struct RunArgs {
    /// A family or a kernel; or a file of your own in PTX, to take the place of --against
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// All kernels
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) case: String,
    /// Check every access of the simulated device
    #[arg(long)]
    pub(super) checks: bool,
    /// Keep all results in this safetensors file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare all results with those in this file, from another device or another time; of your own kernel: which of kiln's it stands for
    #[arg(long, value_name = "FILE|KERNEL")]
    pub(super) against: Option<PathBuf>,
}

/// Runs `kiln kernels run`.
pub fn run(args: &RunArgs, global: &Global) -> Result<()> {
    if let Some(path) = args.name.as_deref().filter(|name| own::is_file(name)) {
        return own::run(Path::new(path), args, global);
    }
    let cases = match &args.name {
        Some(name) => matching(name, &args.case)?,
        None => proof::cases().into_iter().filter(|case| case.name.contains(&args.case)).collect(),
    };
    let kept = args.against.as_deref().map(Golden::load).transpose()?;
    let mut keep = Golden::default();
    let cuda = matches!(global.device, DeviceName::Cuda);
    let driver = device(args, global)?;
    if !global.json {
        print(&format!("on {}\n", driver.describe()))?;
    }
    let rig = Rig::new(&*driver);
    let (mut failed, mut done) = (0, 0);
    for case in &cases {
        let ran = rig.run(case);
        done += 1;
        failed += usize::from(!ran.as_ref().is_ok_and(Outcome::holds));
        let results = ran.as_ref().ok();
        let beside = kept.as_ref().zip(results).map(|(kept, outcome)| kept.compare(case, outcome));
        if global.json {
            let mut object = object(case, &ran);
            object["against"] = json!(beside.map(|beside| beside.json()));
            print(&object.to_string())?;
        } else {
            let beside = beside.map_or(String::new(), |beside| format!("\n    {}", beside.words()));
            print(&format!("{}{beside}", line(case, &ran)))?;
        }
        if let (Some(_), Some(outcome)) = (&args.save, results) {
            keep.keep(case, outcome);
        }
        if cuda && ran.is_err() {
            // The context is lost: what follows would fail with it.
            break;
        }
    }
    if let Some(path) = &args.save {
        keep.save(path)?;
    }
    let stopped = if done < cases.len() { format!(", {} not run", cases.len() - done) } else { String::new() };
    if failed > 0 {
        let hint = match (cuda, args.checks) {
            (true, _) => "the same with --device sim --checks names the line",
            (false, true) => "kiln kernels trace follows a thread",
            (false, false) => "--checks looks at every access",
        };
        return Err(Error::failed(format!("{failed} of {done} cases failed{stopped}"), hint));
    }
    if global.json { Ok(()) } else { print(&format!("\n{done} cases, all within their bounds")) }
}

/// What kernels run on.
pub(super) fn device(args: &RunArgs, global: &Global) -> Result<Box<dyn Driver>> {
    Ok(match global.device {
        DeviceName::Auto | DeviceName::Sim => Box::new(simulated(args.checks, global)?),
        DeviceName::SimChecked => Box::new(simulated(true, global)?),
        DeviceName::Cuda if args.checks => {
            return Err(Error::usage("--checks: a GPU does not check its accesses", "use --device sim --checks"));
        }
        DeviceName::Cuda => Box::new(Cuda::new()?),
        DeviceName::Cpu => {
            return Err(Error::usage(
                "--device cpu: kernels run on a GPU or its simulation",
                "use --device sim or cuda",
            ));
        }
    })
}

/// The worst comparison: of those that fail, the first.
fn worst(outcome: &Outcome) -> Option<&Check> {
    outcome.checks.iter().find(|check| !check.holds()).or(outcome.worst())
}

pub(super) fn line(case: &Case, ran: &Result<Outcome>) -> String {
    let head = format!("{:<12} {:<58}", stem(case.file), case.name);
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(error) => {
            let indented = error.to_string().replace('\n', "\n    ");
            let hint = error.hint().map_or(String::new(), |hint| format!("\n    hint: {hint}"));
            return format!("{head} {}\n    {indented}{hint}", ink("FAILED", Ink::Red));
        }
    };
    let (ok, details) = match worst(outcome) {
        Some(check) if !check.holds() => {
            let [at, of] = check.at;
            let Check { what, got, want, .. } = check;
            (ink("FAILED", Ink::Red), format!("\n    {what}, element {at} of {of}: {got}, not {want}"))
        }
        _ => (ink("ok", Ink::Green), String::new()),
    };
    let (error, bound) = worst(outcome).map_or((0.0, 0.0), |check| (check.error, check.bound));
    format!("{head} error {error:>8.1e} of {bound:>8.1e}  {ok}  {:>7.1} ms{details}", 1e3 * outcome.seconds())
}

pub(super) fn object(case: &Case, ran: &Result<Outcome>) -> serde_json::Value {
    let (file, name) = (case.file, &case.name);
    match ran {
        Ok(outcome) => {
            let check = worst(outcome);
            let finite = |x: Option<f64>| x.filter(|x| x.is_finite());
            json!({"file": file, "case": name, "entries": case.entries, "ok": outcome.holds(),
                "what": check.map(|check| &check.what), "error": finite(check.map(|check| check.error)),
                "bound": check.map(|check| check.bound), "seconds": outcome.seconds()})
        }
        Err(error) => json!({"file": file, "case": name, "entries": case.entries, "ok": false,
            "fault": error.to_string(), "hint": error.hint()}),
    }
}
