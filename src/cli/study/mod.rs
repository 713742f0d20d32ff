//! `kiln study`.

mod agents;
mod canaries;
mod doctor;
mod dpo;
mod drift;
mod halving;
mod mup;
mod overopt;
mod plan;
mod private;
mod reinforce;
mod rude;
mod skew;
mod sums;
mod tune;
mod update;

use super::Global;
use super::term::{Progress, note, print, quote, warn};
use clap::{Args, Subcommand};
use kiln::error::Result;
use kiln::study::Seed;
use kiln::study::effect::{self, Effects};
use kiln::sweep;
use kiln::train::{Event, Watch, signal};
use serde_json::json;
use std::path::PathBuf;

/// Measure what a stage does to a model, on the built-in world, with a control that must fail
#[derive(Args, Debug)]
pub struct StudyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Tune(tune::TuneStudy),
    Dpo(dpo::DpoStudy),
    Reinforce(reinforce::ReinforceStudy),
    Sums(sums::SumStudy),
    Overopt(overopt::OveroptStudy),
    Agents(agents::AgentStudy),
    Halving(halving::HalvingStudy),
    Mup(mup::MupStudy),
    Plan(plan::PlanStudy),
    Doctor(doctor::DoctorStudy),
    Canaries(canaries::CanaryStudy),
    Private(private::PrivateStudy),
    Rude(rude::RudeStudy),
    Skew(skew::SkewStudy),
    Drift(drift::DriftStudy),
    Update(update::UpdateStudy),
}

/// Runs `kiln study`.
pub fn run(args: StudyArgs, global: &Global) -> Result<()> {
    signal::install()?;
    match args.what {
        What::Tune(args) => tune::run(&args, global),
        What::Dpo(args) => dpo::run(&args, global),
        What::Reinforce(args) => reinforce::run(&args, global),
        What::Sums(args) => sums::run(&args, global),
        What::Overopt(args) => overopt::run(&args, global),
        What::Agents(args) => agents::run(&args, global),
        What::Halving(args) => halving::run(args, global),
        What::Mup(args) => mup::run(args, global),
        What::Plan(args) => plan::run(&args, global),
        What::Doctor(args) => doctor::run(&args, global),
        What::Canaries(args) => canaries::run(&args, global),
        What::Private(args) => private::run(&args, global),
        What::Rude(args) => rude::run(&args, global),
        What::Skew(args) => skew::run(&args, global),
        What::Drift(args) => drift::run(&args, global),
        What::Update(args) => update::run(&args, global),
    }
}

/// Which seeds of a study, and where.
#[derive(Args, Debug)]
pub struct Seeds {
    /// Seeds of the world and of all that is random
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,3,4,5")]
    seeds: Vec<u64>,
    /// Where its runs go; those that are there are not done again [default: runs/study-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Seeds {
    /// Does the study for each seed, keeps what it comes to, and prints it.
    fn each<O: Effects>(
        &self,
        global: &Global,
        study: impl Fn(&mut Seed) -> Result<O>,
        table: impl Fn(&O) -> String,
    ) -> Result<()> {
        let device = global.host()?;
        let out = self.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/study-{}", O::STUDY)));
        for &seed in &self.seeds {
            let dir = out.join(format!("seed-{seed}"));
            let told = &mut |what: &str| note(what);
            let outcome = study(&mut Seed { seed, dir: &dir, device: &device, told, watch: &mut Steps::default() })?;
            effect::keep(&outcome, seed, &dir)?;
            match global.json {
                true => print(&json!(outcome).to_string())?,
                false => print(&table(&outcome))?,
            }
        }
        if !global.json {
            print(&format!("next: kiln report RUN --study {}  (these figures on the page of a model)", quote(&out)))?;
        }
        Ok(())
    }
}

/// Shows how far a run is, in a terminal, and stops where a signal asks for it.
#[derive(Default)]
pub(super) struct Steps(Option<Progress>);

impl Watch for Steps {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Start { .. } => signal::save_first(),
            Event::Step { step, steps, .. } => {
                self.0.get_or_insert_with(|| Progress::count("steps", steps)).set_of(step, steps);
                if step == steps {
                    self.0 = None;
                }
            }
            _ => {}
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}

/// Shows how far a sweep is.
#[derive(Default)]
struct Bar(Option<Progress>);

impl sweep::Watch for Bar {
    fn event(&mut self, event: &sweep::Event) {
        match *event {
            sweep::Event::Start { .. } => {
                signal::save_first();
                self.0 = None;
            }
            sweep::Event::Came { steps: [done, all], .. } => {
                self.0.get_or_insert_with(|| Progress::count("steps", all)).set_of(done, all);
            }
            sweep::Event::Warning { text } => match &self.0 {
                Some(bar) => bar.above(|| warn(text)),
                None => warn(text),
            },
            sweep::Event::Prepare { .. } | sweep::Event::Run { .. } => {}
        }
    }

    fn stop(&self) -> Option<i32> {
        signal::caught()
    }
}
