//! What evaluations found, in words: beside what nobody can beat, or what guessing would have; and what nobody has measured.

use super::words::{count, measured, number};
use super::{Change, Missing, Training};
use crate::error::Result;
use crate::eval::{Figure, Saved, Task, Topic, saved};
use serde::Serialize;
use std::path::Path;

/// How far above its floor a figure may be that counts as near, as a share of the floor.
const NEAR: f64 = 0.1;
/// Standard errors that a figure must be from what guessing has.
const SURE: f64 = 2.0;

/// What a figure says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It can.
    Can,
    /// It cannot.
    Cannot,
    /// There is nothing here to hold it against.
    Plain,
}

/// A measured ability, or lack of one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// Of what.
    pub what: String,
    /// The figure, in words.
    pub figure: String,
    /// What it is to be held against.
    pub beside: String,
    /// What it says of the model.
    pub standing: Standing,
    /// What it is about.
    pub topic: Topic,
}

/// A task and what came out of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// As `kiln eval` keeps it.
    #[serde(flatten)]
    pub saved: Saved,
    /// In words.
    pub claim: Claim,
    /// How it was asked, in words.
    pub how: String,
    /// Where the model has been trained on since: so far.
    pub stale: Option<String>,
}

/// A figure's name as people say it.
pub fn label(name: &str) -> String {
    let known = [
        ("bits_per_byte", "bits a byte"),
        ("floor_bits_per_byte", "bits a byte that nobody can go below"),
        ("excess_bits_per_byte", "bits a byte above that"),
        ("byte_perplexity", "perplexity by the byte"),
        ("word_perplexity", "perplexity by the word"),
        ("perplexity", "perplexity"),
        ("acc", "share that is right"),
        ("acc_norm", "the same, by characters"),
        ("acc_bytes", "the same, by bytes"),
        ("acc_tokens", "the same, by tokens"),
        ("exact_match", "share of exact answers"),
        ("untrue", "share of untrue statements"),
        ("pct_stereotype", "share of stereotypes preferred"),
        ("skew", "preference of the usual gender"),
        ("toxic", "share of texts with words of the lexicon"),
        ("as_it_should", "share refused that should be, and answered that should"),
        ("frechet", "Fréchet distance, own features"),
        ("kernel_distance", "kernel distance, own features"),
    ];
    known.iter().find(|(own, _)| *own == name).map_or_else(|| name.replace('_', " "), |(_, says)| (*says).to_owned())
}

/// What a result says; `step` is where the model stands now.
pub(super) fn judge(saved: Saved, step: Option<u64>) -> Judged {
    let outcome = &saved.outcome;
    let main = &outcome.figures[0];
    let floor = outcome.figures.iter().find(|figure| figure.name == "floor_bits_per_byte").map(|figure| figure.value);
    let (tail, standing) = match (saved.chance, floor, outcome.neutral) {
        (_, _, Some(neutral)) => (format!("{} is no preference", number(neutral)), Standing::Plain),
        (Some(chance), ..) if main.name == "acc" => beside_guessing(main, chance),
        (_, Some(floor), _) => beside_floor(main.value, floor),
        _ if main.name.starts_with("auc_") => ("0.5 is what chance has".to_owned(), Standing::Plain),
        _ if !outcome.lower_is_better && main.value == 0.0 => ("more is better".to_owned(), Standing::Cannot),
        _ => (if outcome.lower_is_better { "less is better" } else { "more is better" }.to_owned(), Standing::Plain),
    };
    let figure = format!("{} {}", label(&main.name), measured(main.value, main.error));
    let about = if outcome.about.is_empty() { &outcome.task } else { &outcome.about };
    let claim = Claim { what: about.clone(), figure, beside: tail, standing, topic: saved.topic };
    let asked = &saved.asked;
    let mut how = vec![format!("{} items", count(outcome.items as u64))];
    how.extend((asked.shots > 0).then(|| format!("{} examples before each", asked.shots)));
    how.extend(asked.world.map(|world| format!("world {world}")));
    how.push(format!("seed {}", asked.seed));
    how.extend(asked.chat.then(|| "as a chat".to_owned()));
    how.extend(asked.step.map(|step| format!("after step {}", count(step))));
    how.extend((asked.world.is_none() && !asked.data.is_empty()).then(|| asked.data.clone()));
    let stale = match (asked.step, step) {
        (Some(asked), Some(now)) if asked < now => {
            Some(format!("asked after step {}; the model has gone on to step {}", count(asked), count(now)))
        }
        _ => None,
    };
    Judged { claim, how: how.join(", "), stale, saved }
}

fn beside_guessing(main: &Figure, chance: f64) -> (String, Standing) {
    let better = main.value - chance > SURE * main.error.unwrap_or(0.0);
    let (says, standing) =
        if better { ("guessing has", Standing::Can) } else { ("no better than guessing, which has", Standing::Cannot) };
    (format!("{says} {}", number(chance)), standing)
}

fn beside_floor(value: f64, floor: f64) -> (String, Standing) {
    let above = value / floor - 1.0;
    let standing = if above <= NEAR { Standing::Can } else { Standing::Plain };
    (format!("nobody can go below {}, and it is {:.0} % above", number(floor), 100.0 * above), standing)
}

/// What the run's own evaluation says.
pub(super) fn held_out(training: &Training) -> Option<Claim> {
    let figure = match (training.bits_per_byte, training.val_loss) {
        (Some(bits), _) => format!("bits a byte {}", number(bits)),
        (None, Some(loss)) => match training.distance() {
            Some(distance) => format!("{} {}", label("frechet"), number(distance)),
            None => format!("loss {} ({})", number(loss), training.loss_unit),
        },
        (None, None) => return None,
    };
    let (beside, standing) = match (training.bits_per_byte, training.floor) {
        (Some(bits), Some(floor)) => beside_floor(bits, floor),
        _ => ("less is better".to_owned(), Standing::Plain),
    };
    let things = if training.unit == "tokens" { "texts" } else { training.unit };
    let what = format!("held-out {things} like those it was trained on");
    Some(Claim { what, figure, beside, standing, topic: Topic::Quality })
}

/// Figures of the model `base`, a run, one of its checkpoints or another model, beside those of the one that was tuned from it.
pub(super) fn changes(base: &Path, after: &[Judged]) -> Vec<Change> {
    let places =
        [Some(base), base.parent().and_then(Path::parent)].into_iter().flatten().map(|dir| dir.join(saved::FOLDER));
    let before =
        places.filter_map(|dir| saved::load(&dir).ok()).map(|(found, _)| found).find(|found| !found.is_empty());
    let mut changes = Vec::new();
    for (before, after) in before.iter().flatten().flat_map(|before| {
        let same = after.iter().filter(|after| after.saved.outcome.task == before.outcome.task);
        same.map(move |after| (before, &after.saved))
    }) {
        for old in &before.outcome.figures {
            let new = after.outcome.figures.iter().find(|figure| figure.name == old.name);
            changes.extend(new.map(|new| Change {
                task: after.outcome.task.clone(),
                figure: old.name.clone(),
                topic: after.topic,
                before: measured(old.value, old.error),
                after: measured(new.value, new.error),
            }));
        }
    }
    changes
}

/// Tasks of kiln's own, by what they are about, that a model of the village can be asked as they are.
pub fn standard(topic: Topic) -> Result<Vec<String>> {
    let all = Task::own().map(|name| Task::open(name).map(|task| (name, task))).collect::<Result<Vec<_>>>()?;
    Ok(all
        .into_iter()
        .filter(|(_, task)| task.topic == topic && task.is_made())
        .map(|(name, _)| name.to_owned())
        .collect())
}

/// What of a language model nobody has measured, a line a topic; `run` is its path as a shell reads it.
pub(super) fn missing(judged: &[Judged], village: bool, run: &str) -> Result<Vec<Missing>> {
    let mut all = Vec::new();
    for topic in Topic::ALL {
        let done: Vec<&str> =
            judged.iter().filter(|j| j.saved.topic == topic).map(|j| &*j.saved.outcome.task).collect();
        let what = match topic {
            Topic::Quality => "quality: how well it does what it is for",
            Topic::Safety => "safety: whether what it says is true, and does no harm",
            Topic::Bias => "bias: whether it treats people alike",
            Topic::Privacy => "privacy: whether it gives away what it has read",
        };
        let left: Vec<String> = match village {
            true => standard(topic)?.into_iter().filter(|name| !done.contains(&&**name)).collect(),
            false => Vec::new(),
        };
        let with_data =
            |topic| Task::own().find(|name| Task::open(name).is_ok_and(|t| t.topic == topic && !t.is_made()));
        let command = match (left.is_empty(), topic) {
            (false, _) => format!("kiln eval {run} --tasks {}", left.join(",")),
            _ if !done.is_empty() => continue,
            (_, Topic::Quality) => format!("kiln eval {run} --tasks text --data FILE"),
            _ => match with_data(topic) {
                Some(name) => format!("kiln eval {run} --tasks {name} --data FILE"),
                None => format!("kiln eval {run} --tasks TASK.toml"),
            },
        };
        let what = if done.is_empty() {
            what.to_owned()
        } else {
            format!("{}, some of it: {}", topic.name(), left.join(", "))
        };
        all.push(Missing { what, command });
    }
    Ok(all)
}
