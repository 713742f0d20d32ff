//! `kiln study`.

mod canaries;
mod doctor;
mod halving;
mod mup;
mod plan;
mod private;
mod rude;
mod skew;
mod tune;

use super::Global;
use super::term::{Progress, warn};
use clap::{Args, Subcommand};
use kiln::error::Result;
use kiln::sweep;
use kiln::train::{Event, Watch, signal};

/// Measure what a stage does to a model, on the built-in world, with a control that must fail
#[derive(Args, Debug)]
pub struct StudyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Tune(tune::TuneStudy),
    Halving(halving::HalvingStudy),
    Mup(mup::MupStudy),
    Plan(plan::PlanStudy),
    Doctor(doctor::DoctorStudy),
    Canaries(canaries::CanaryStudy),
    Private(private::PrivateStudy),
    Rude(rude::RudeStudy),
    Skew(skew::SkewStudy),
}

/// Runs `kiln study`.
pub fn run(args: StudyArgs, global: &Global) -> Result<()> {
    signal::install()?;
    match args.what {
        What::Tune(args) => tune::run(args, global),
        What::Halving(args) => halving::run(args, global),
        What::Mup(args) => mup::run(args, global),
        What::Plan(args) => plan::run(&args, global),
        What::Doctor(args) => doctor::run(&args, global),
        What::Canaries(args) => canaries::run(args, global),
        What::Private(args) => private::run(args, global),
        What::Rude(args) => rude::run(args, global),
        What::Skew(args) => skew::run(args, global),
    }
}

/// Stops where a signal asks for it, and says nothing.
pub(super) struct Quiet;

impl Watch for Quiet {
    fn event(&mut self, event: &Event) {
        if let Event::Start { .. } = event {
            signal::save_first();
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
