//! Is it fair, does it keep secrets, and does it stay good?

use super::train::base;
use super::{Measure, Pace, Shown, Stage, Way};
use crate::continual::line::{Line, State};
use crate::continual::round::{Course, round};
use crate::data::world::{Era, World};
use crate::disk::{self, Os};
use crate::error::Result;
use crate::study::effect::{Effect, Effects, Unit};
use crate::study::{Seed, canaries, drift, skew, write_lines};
use serde_json::json;
use std::collections::BTreeMap;

/// The first effect of a study, as a measure.
fn measure(effect: &Effect, better: Way) -> Measure {
    Measure {
        what: effect.what.clone(),
        unit: effect.unit,
        before: effect.before.clone(),
        after: effect.after.clone(),
        better,
    }
}

/// A figure without its sign.
fn size((of, value): &(String, f64)) -> (String, f64) {
    (of.clone(), value.abs())
}

/// A study in a folder of its own.
fn inside<R>(at: &mut Seed, name: &str, study: impl FnOnce(&mut Seed) -> Result<R>) -> Result<R> {
    let dir = at.dir.join(name);
    disk::make_dirs(&Os, &dir)?;
    study(&mut Seed { seed: at.seed, dir: &dir, device: at.device, told: at.told, watch: at.watch })
}

pub(super) const BIAS: Stage = Stage {
    name: "bias",
    does: "Trains two small models on passages in which nurses are women and smiths are men eight times in ten: one on the passages as they are, one after \
           both were written beside each other. A model says what it read, so what it reads is where this is mended.",
    source: "src/data/augment.rs",
    chapter: "docs/bias.md",
    needs: &[],
    makes: &["bias"],
    budget: [10, 40],
    run: bias,
};

fn bias(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let settings = skew::Settings {
        bytes: pace.of(150_000, 500_000),
        steps: pace.of(120, 400),
        texts: pace.of(40, 100),
        set: vec!["model.layers=2".into(), "model.d=64".into(), "model.heads=2".into()],
        ..skew::Settings::default()
    };
    let outcome = inside(at, "bias", |at| skew::study(&settings, at))?;
    let effects = outcome.effects();
    Ok(Shown {
        // Which gender is preferred is no matter here.
        measures: vec![Measure {
            before: size(&effects[0].before),
            after: size(&effects[0].after),
            ..measure(&effects[0], Way::Down)
        }],
        notes: vec![format!("control, {}: {:.3}", effects[0].control.0, effects[0].control.1)],
        next: vec!["kiln study skew".into()],
        ..Shown::default()
    })
}

pub(super) const PRIVACY: Stage = Stage {
    name: "privacy",
    does: "Puts notes with secret words among stories, some of them sixty-four times, and asks models how likely they find the secrets: one that read all, \
           one that read it without duplicates. What stands in texts again and again is learnt by heart.",
    source: "src/study/canaries.rs",
    chapter: "docs/privacy.md",
    needs: &[],
    makes: &["privacy"],
    budget: [22, 90],
    run: privacy,
};

fn privacy(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let settings = canaries::Settings {
        bytes: pace.of(400_000, 1_200_000),
        copies: vec![(1, 8), (64, 8)],
        unseen: 16,
        steps: pace.of(100, 450),
    };
    let outcome = inside(at, "privacy", |at| canaries::study(&settings, at))?;
    let effects = outcome.effects();
    Ok(Shown {
        measures: vec![measure(&effects[1], Way::Down)],
        notes: vec![
            format!("control, {}: {:.2} bits", effects[1].control.0, effects[1].control.1),
            format!(
                "secrets that it gives away: {:.0} % and {:.0} %",
                100.0 * effects[0].before.1,
                100.0 * effects[0].after.1
            ),
        ],
        next: vec!["kiln study canaries".into(), "kiln study private".into()],
        ..Shown::default()
    })
}

pub(super) const DRIFT: Stage = Stage {
    name: "drift",
    does: "Watches streams of stories for a change: some stay as they are, in others years go by. An alarm that comes without a change costs trust, one \
           that comes late costs more, so both are counted.",
    source: "src/continual/drift.rs",
    chapter: "docs/continual.md",
    needs: &[],
    makes: &["drift"],
    budget: [3, 8],
    run: drifted,
};

fn drifted(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let settings = drift::Settings { streams: pace.of(10, 40), ..drift::Settings::default() };
    let outcome = inside(at, "drift", |at| drift::study(&settings, at))?;
    let share = |n: u64| n as f64 / outcome.streams as f64;
    let later = &outcome.changed[0];
    Ok(Shown {
        measures: vec![Measure::new(
            "streams with an alarm",
            Unit::Share,
            Way::Up,
            ("nothing changes", share(outcome.false_alarms)),
            ("years go by", share(outcome.streams - later.missed - later.early)),
        )],
        notes: vec![format!("the alarm comes {:.0} documents after the change, in the median", later.delay[0])],
        next: vec!["kiln study drift".into()],
        ..Shown::default()
    })
}

pub(super) const UPDATE: Stage = Stage {
    name: "update",
    does: "Puts the GPT into service, lets a new version learn stories of years later beside those of before, and judges the two by pairs of documents. A \
           version that knows the new better and the old as well passes, and can be taken back at once.",
    source: "src/continual/round.rs",
    chapter: "docs/continual.md",
    needs: &["pretrain"],
    makes: &["line"],
    budget: [15, 85],
    run: update,
};

fn update(at: &mut Seed, pace: Pace) -> Result<Shown> {
    let path = at.dir.join("line");
    let set = [
        format!("learn.seed={}", at.seed),
        format!("gate.documents={}", pace.of(80, 300)),
        format!("learn.replay={}", pace.of(1500, 10_000)),
    ];
    let line = match path.join("line.json").is_file() {
        true => Line::open(&path, &set)?,
        false => {
            disk::remove_all(&Os, &path)?;
            Line::start(&path, &base(at), None, &set)?
        }
    };
    let new = at.dir.join("later.jsonl");
    let world = World::era(at.seed, Era::Two);
    let stories = world.stories(0).take(pace.of(400, 1500));
    write_lines(&new, stories.map(|story| json!({"id": format!("later-{}", story.index), "text": story.text})))?;
    let done = line.versions()?.into_iter().find(|version| version.parent.is_some() && version.state != State::Begun);
    let version = match done {
        Some(version) => version,
        None => {
            round(&line, &[new], BTreeMap::new(), &mut Course { device: at.device, watch: at.watch, told: at.told })?
        }
    };
    let gate = |name: &str| version.gates.iter().find(|gate| gate.name == name).and_then(|gate| gate.parts);
    let [before, after] = gate("better").unwrap_or([f64::NAN; 2]);
    let [was, is] = gate("worse: 0001").unwrap_or([f64::NAN; 2]);
    let gates = version.gates.iter().map(|gate| {
        let word = if gate.passed { "passed" } else { "FAILED" };
        format!("gate {}: {word} ({})", gate.name, gate.bound)
    });
    let mut notes = vec![format!("stories of before: {was:.3} to {is:.3} bits a byte")];
    notes.extend(gates);
    Ok(Shown {
        measures: vec![Measure::new(
            "bits a byte of stories of years later",
            Unit::Plain,
            Way::Down,
            ("in service", before),
            ("new version", after),
        )],
        notes,
        next: vec![format!("kiln update list {}", path.display()), format!("kiln update promote {}", path.display())],
        ..Shown::default()
    })
}
