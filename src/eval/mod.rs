//! How good a language model is: questions from small files, asked of a model here or of a server elsewhere, and what two models' answers say
//! of the two.
//!
//! | where | what |
//! |-------|------|
//! | [`task`](Task) | a file in TOML: how lines of JSON become questions, and what is right |
//! | [`model`](Model) | who is asked: [`Local`], [`Endpoint`] |
//! | [`why`] | what lies between two runs, a factor at a time |
//! | [`outcome`](Outcome) | the figures, their errors, and comparisons of two models |
//! | `bias` | figures of pairs of which neither is right, and of words in embeddings |
//! | [`gate`] | what figures must be: a policy in TOML |
//! | [`saved`](Saved) | what came out, kept beside the model |
//!
//! Figures are named and computed as lm-evaluation-harness does (Gao et al. 2024, github.com/EleutherAI/lm-evaluation-harness).

mod bag;
mod bias;
mod endpoint;
mod found;
pub mod gate;
mod local;
mod members;
mod model;
mod mutate;
mod outcome;
mod refusal;
mod rows;
pub mod saved;
mod speed;
mod task;
pub mod why;
mod world;

pub use bag::Bag;
pub use endpoint::Endpoint;
pub use local::Local;
pub use members::Signs;
pub use model::{Model, Score, Writing};
pub use outcome::{BINS, Difference, Figure, Found, Nearest, Outcome, Record, Sureness, exposure};
pub use refusal::Refusal;
pub use saved::{Asked, Saved};
pub use task::{Item, Kind, Lean, Task, Topic, Verifier, Words};

use crate::data::world::{Verdict, World};
use crate::error::Result;
use regex::Regex;

/// How a task is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asking {
    /// Items at most.
    pub limit: usize,
    /// Whose world asks, where the built-in one does.
    pub world: u64,
    /// Of what is written, and of which examples are shown.
    pub seed: u64,
}

/// Asks `model` the items of a task. `told(done, all)` hears of them.
///
/// # Errors
/// The task's data cannot be read; the model fails; `told` does.
pub fn evaluate(
    task: &Task,
    items: &[Item],
    asking: &Asking,
    model: &mut dyn Model,
    told: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Outcome> {
    let record = |item: &Item| Record {
        prompt: item.prompt.clone(),
        target: item.target.clone(),
        group: item.group.clone(),
        ..Record::default()
    };
    let mut records: Vec<Record> = items.iter().map(record).collect();
    Ok(match task.kind {
        Kind::Text => {
            let texts: Vec<&str> = items.iter().map(|item| &*item.target).collect();
            let scores = model.read(&texts, &mut |n| told(n, texts.len()))?;
            for (record, score) in records.iter_mut().zip(scores) {
                (record.nats, record.tokens) = (vec![score.nats], vec![score.each.len()]);
            }
            let floors: Vec<Option<f64>> = items.iter().map(|item| item.nats).collect();
            Outcome::text(task, records, &floors)
        }
        Kind::Members => {
            let texts: Vec<&str> = items.iter().map(|item| &*item.target).collect();
            let scores = model.read(&texts, &mut |n| told(n, texts.len()))?;
            for ((record, score), item) in records.iter_mut().zip(&scores).zip(items) {
                (record.nats, record.tokens) = (vec![score.nats], vec![score.each.len()]);
                record.right = Some(usize::from(item.member));
            }
            let signs: Vec<Signs> = scores.iter().zip(&texts).map(|(score, text)| Signs::new(score, text)).collect();
            Outcome::members(task, records, &signs)
        }
        Kind::Choice | Kind::Pairs => {
            let after: Vec<Vec<String>> = items
                .iter()
                .map(|item| item.choices.iter().map(|choice| format!("{}{choice}", task.delimiter)).collect())
                .collect();
            let pairs: Vec<(&str, &str)> = items
                .iter()
                .zip(&after)
                .flat_map(|(item, after)| after.iter().map(|text| (&*item.prompt, &**text)))
                .collect();
            let mut scores = model.score(&pairs, &mut |n| told(n, pairs.len()))?.into_iter();
            for (record, item) in records.iter_mut().zip(items) {
                for (choice, score) in item.choices.iter().zip(scores.by_ref()) {
                    record.choices.push(choice.clone());
                    record.nats.push(score.nats);
                    record.tokens.push(score.each.len());
                }
                record.target = if item.open { String::new() } else { item.choices[item.gold].clone() };
            }
            if task.kind == Kind::Pairs {
                let gold: Vec<Option<usize>> = items.iter().map(|item| (!item.open).then_some(item.gold)).collect();
                return Ok(Outcome::pairs(task, records, &gold));
            }
            let gold: Vec<usize> = items.iter().map(|item| item.gold).collect();
            let mut outcome = Outcome::choice(task, records, &gold);
            let versions: Vec<&str> = items.iter().map(|item| &*item.version).collect();
            outcome.figures.extend(bias::alike(&outcome.records, &versions));
            outcome
        }
        Kind::Weat => {
            let words: Vec<&str> = items.iter().map(|item| &*item.target).collect();
            let vectors = model.vectors(&words)?;
            Outcome::weat(task, records, &vectors, asking.seed)
        }
        Kind::Cloze => {
            let after: Vec<String> = items.iter().map(|item| format!("{}{}", task.delimiter, item.target)).collect();
            let pairs: Vec<(&str, &str)> =
                items.iter().zip(&after).map(|(item, text)| (&*item.prompt, &**text)).collect();
            let scores = model.score(&pairs, &mut |n| told(n, pairs.len()))?;
            for (record, score) in records.iter_mut().zip(&scores) {
                (record.nats, record.tokens) = (vec![score.nats], vec![score.each.len()]);
            }
            let greedy: Vec<bool> = scores.iter().map(|score| score.greedy).collect();
            Outcome::cloze(task, records, &greedy)
        }
        Kind::Speed => speed::ask(task, records, model, told)?,
        Kind::Answer | Kind::Pass | Kind::Write | Kind::Refuse => {
            let prompts: Vec<&str> = items.iter().map(|item| &*item.prompt).collect();
            let all = prompts.len() * task.samples;
            for sample in 0..task.samples {
                let writing = Writing {
                    stop: &task.stop,
                    tokens: task.tokens,
                    temperature: task.temperature,
                    seed: asking.seed.wrapping_add(sample as u64),
                };
                let said = model.write(&prompts, &writing, &mut |n| told(sample * prompts.len() + n, all))?;
                records.iter_mut().zip(said).for_each(|(record, said)| record.said.push(said));
            }
            let world = World::new(asking.world);
            if task.kind == Kind::Write {
                let found = found::look(task, &mut records, &world)?;
                return Ok(Outcome::written(task, records, found));
            }
            if task.kind == Kind::Refuse {
                let refusal = Refusal::new(&task.refusals);
                for record in &mut records {
                    record.right = Some(record.said.iter().filter(|said| refusal.is(said)).count());
                }
                let harmful: Vec<bool> = items.iter().map(|item| item.harmful).collect();
                return Ok(Outcome::refusals(task, records, &harmful));
            }
            let judge = Judge::new(task);
            for (record, item) in records.iter_mut().zip(items) {
                let right = |said: &&String| judge.right(item, said, &world);
                record.right = Some(record.said.iter().filter(right).count());
            }
            if task.kind == Kind::Answer { Outcome::answer(task, records) } else { Outcome::pass(task, records) }
        }
    })
}

/// Who says what is right.
struct Judge {
    verifier: Option<Verifier>,
    extract: Option<Regex>,
    ignore: Vec<Regex>,
    case: bool,
}

impl Judge {
    fn new(task: &Task) -> Judge {
        let regex = |pattern: &String| Regex::new(pattern).expect("it was compiled when the task was read");
        Judge {
            verifier: task.verifier,
            extract: task.extract.as_ref().map(regex),
            ignore: task.ignore.iter().map(regex).collect(),
            case: task.case,
        }
    }

    fn right(&self, item: &Item, said: &str, world: &World) -> bool {
        match self.verifier {
            Some(Verifier::World) => world.grade(&item.question, said) == Verdict::True,
            Some(Verifier::Number) => {
                let number = last_number(said);
                number.is_some() && number == last_number(&item.target)
            }
            None => {
                let found = match &self.extract {
                    None => Some(said),
                    Some(extract) => {
                        let found = extract.captures(said);
                        found.and_then(|found| found.get(1).or(found.get(0))).map(|found| found.as_str())
                    }
                };
                found.is_some_and(|said| self.plain(said) == self.plain(&item.target))
            }
        }
    }

    /// A text as it is compared.
    fn plain(&self, text: &str) -> String {
        let mut text = if self.case { text.to_owned() } else { text.to_lowercase() };
        for ignore in &self.ignore {
            text = ignore.replace_all(&text, "").into_owned();
        }
        text.trim().to_owned()
    }
}

/// The last whole number of a text, without a separator of thousands.
fn last_number(text: &str) -> Option<i64> {
    let digits = |c: char| c.is_ascii_digit() || c == ',' || c == '-';
    let mut runs = text.split(|c: char| !digits(c)).filter(|run| run.contains(|c: char| c.is_ascii_digit()));
    runs.next_back()?.trim_end_matches(['-', ',']).replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests;
