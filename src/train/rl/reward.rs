//! What an answer is worth: verifiers of a prompt, the other fields of its line and an answer. A reward is a weighted sum of them.
//!
//! | name | 1 where, else 0 |
//! |---|---|
//! | `exact` | the answer is the line's `answer`; where that has `####`, as GSM8K's, the number after it |
//! | `begins` | it begins with the line's `answer`, and nothing, a full stop or a blank follows |
//! | `polite` | it has no word of the village's rude register |
//! | `verified` | `begins` and `polite` |
//! | `truth` | it answers a question of the village `village` rightly |
//! | `format` | all of it is as the regular expression `format` says |
//!
//! Of agents (`[model.reinforce.agent]`): `success` is 1 where the task was done, `breaches` how many constraints were broken, to be given a
//! weight below 0, `calls` the share of calls that were made of those that may be.
//!
//! Others are numbers: `short` is 1 − its share of the most tokens; `model` what the reward model `judge` says; `random` 0 or 1 by chance, a control, of which
//! nothing can be learnt.

use super::section::Reinforcement;
use crate::agent::Trace;
use crate::data::Tokenizer;
use crate::data::examples::Prompt;
use crate::data::world::{Verdict, World, rude_words};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::settings::nearest;
use crate::train::prefer::Judge;
use regex::Regex;

/// Their names.
const NAMES: [&str; 12] = [
    "exact", "begins", "polite", "verified", "truth", "format", "short", "model", "random", "success", "breaches",
    "calls",
];

/// Those of agents.
const ACTS: [&str; 4] = ["success", "breaches", "calls", "random"];

/// Those that read `answer`.
const COMPARE: [&str; 3] = ["exact", "begins", "verified"];

/// An answer to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The tokens that were said, with the one that ends them where they ended.
    pub ids: &'a [u32],
    /// They as text, without the end.
    pub text: &'a str,
    /// Of all answers of a run which one: chance hangs on it.
    pub number: u64,
    /// What an agent did.
    pub trace: Option<&'a Trace>,
}

/// One of them.
enum Verifier {
    Exact,
    Begins,
    Polite,
    Verified,
    Truth(Box<World>),
    Format(Regex),
    Short,
    Model(Box<Judge>),
    Random,
    Success,
    Breaches,
    Calls,
}

/// Those of a run.
pub struct Rewards {
    all: Vec<(Verifier, f64)>,
    /// Tokens of an answer at most.
    tokens: usize,
    seed: u64,
}

/// `model.reinforce.NAME`.
fn key(name: &str) -> String {
    format!("model.reinforce.{name}")
}

/// A setting that the reward `name` needs.
fn needs<T>(name: &str, setting: &str, value: Option<T>, example: &str) -> Result<T> {
    value.ok_or_else(|| {
        Error::config(key(setting), format!("the reward {name:?} needs it"), format!("set {}={example}", key(setting)))
    })
}

fn pattern(text: &str) -> Result<Regex> {
    Regex::new(&format!(r"(?s)\A(?:{text})\z"))
        .map_err(|e| Error::config(key("format"), e.to_string(), "give a regular expression, as '[A-Z][a-z]+\\.'"))
}

/// Whether there are rewards by these names, with what they need.
pub(super) fn check(reinforce: &Reinforcement) -> Result<()> {
    let rewards = &reinforce.rewards;
    if rewards.is_empty() {
        let hint = format!("name one, as --reward exact; there are {}", NAMES.join(", "));
        return Err(Error::config(key("rewards"), "no answer would be worth anything", hint));
    }
    for (name, weight) in rewards {
        if !NAMES.contains(&&**name) {
            let near = nearest(name, NAMES.into_iter()).map_or(String::new(), |near| format!("did you mean {near}? "));
            let hint = format!("{near}There are {}", NAMES.join(", "));
            return Err(Error::config(key(&format!("rewards.{name}")), "no such reward", hint));
        }
        if !weight.is_finite() {
            let problem = format!("{weight} is no weight");
            return Err(Error::config(key(&format!("rewards.{name}")), problem, "give a finite number"));
        }
        let acts = reinforce.agent.is_some();
        if name != "random" && ACTS.contains(&&**name) != acts {
            let [of, others] =
                if acts { ["agents", "success, breaches, calls, random"] } else { ["answers", "exact, begins, …"] };
            let hint = format!("take rewards of {of}: {others} (docs/reinforce.md)");
            return Err(Error::config(key(&format!("rewards.{name}")), format!("it is no reward of {of}"), hint));
        }
        match &**name {
            "truth" => drop(needs(name, "village", reinforce.village, "1")?),
            "format" => drop(pattern(needs(name, "format", reinforce.format.as_ref(), "'[A-Z][a-z]+\\.'")?)?),
            "model" => drop(needs(name, "judge", reinforce.judge.as_ref(), "runs/reward")?),
            _ => {}
        }
    }
    Ok(())
}

impl Rewards {
    /// Those of a recipe, for answers in the tokens of `tokenizer`.
    ///
    /// # Errors
    /// The reward model cannot be opened, or has other tokens.
    pub fn open(reinforce: &Reinforcement, tokenizer: &Tokenizer, seed: u64, device: &Device) -> Result<Rewards> {
        let verifier = |(name, &weight): (&String, &f64)| {
            let verifier = match &**name {
                "exact" => Verifier::Exact,
                "begins" => Verifier::Begins,
                "polite" => Verifier::Polite,
                "verified" => Verifier::Verified,
                "truth" => Verifier::Truth(Box::new(World::new(needs(name, "village", reinforce.village, "1")?))),
                "format" => Verifier::Format(pattern(reinforce.format.as_deref().unwrap_or_default())?),
                "short" => Verifier::Short,
                "model" => Verifier::Model(Box::new(judge(reinforce, tokenizer, device)?)),
                "success" => Verifier::Success,
                "breaches" => Verifier::Breaches,
                "calls" => Verifier::Calls,
                _ => Verifier::Random,
            };
            Ok((verifier, weight))
        };
        let all = reinforce.rewards.iter().map(verifier).collect::<Result<_>>()?;
        Ok(Rewards { all, tokens: reinforce.tokens, seed })
    }

    /// What answers are worth.
    pub fn of(&mut self, said: &[Said]) -> Vec<f32> {
        let mut sums = vec![0.0; said.len()];
        for (verifier, weight) in &mut self.all {
            let worth: Vec<f64> = match verifier {
                Verifier::Model(judge) => {
                    let texts: Vec<Vec<u32>> = said.iter().map(|said| [&said.prompt.ids, said.ids].concat()).collect();
                    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
                    judge.rewards(&texts).into_iter().map(f64::from).collect()
                }
                other => said.iter().map(|said| other.of(said, self.tokens, self.seed)).collect(),
            };
            sums.iter_mut().zip(worth).for_each(|(sum, worth)| *sum += *weight * worth);
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }
}

/// The reward model of a recipe.
fn judge(reinforce: &Reinforcement, tokenizer: &Tokenizer, device: &Device) -> Result<Judge> {
    let path = needs("model", "judge", reinforce.judge.as_ref(), "runs/reward")?;
    let judge = Judge::open(path, device)?;
    if judge.tokenizer().hash() != tokenizer.hash() {
        let problem = format!("{} has other tokens than the model", path.display());
        let hint = "train one from a model with the same tokenizer: kiln align reward";
        return Err(Error::config(key("judge"), problem, hint));
    }
    Ok(judge)
}

/// Refuses prompts that lack what rewards compare answers with.
///
/// # Errors
/// There is such a prompt; the error names its line.
pub(super) fn answerable<'p>(reinforce: &Reinforcement, mut prompts: impl Iterator<Item = &'p Prompt>) -> Result<()> {
    let Some(name) = COMPARE.into_iter().find(|name| reinforce.rewards.contains_key(*name)) else { return Ok(()) };
    let Some(Prompt { source: (path, line), .. }) = prompts.find(|prompt| prompt.field("answer").is_none()) else {
        return Ok(());
    };
    let hint =
        format!("the reward {name:?} compares answers with it; other rewards do without (model.reinforce.rewards)");
    Err(Error::format(path, format!("line {line}"), "a text or a number in the field \"answer\"", "none", hint))
}

impl Verifier {
    /// Of one answer; what a model says is asked for many at once.
    fn of(&self, said: &Said, tokens: usize, seed: u64) -> f64 {
        let Said { prompt, text, trace, .. } = *said;
        let of_trace = |of: fn(&Trace) -> f64| trace.map_or(0.0, of);
        let wanted = || prompt.field("answer").unwrap_or_default();
        let polite = || rude_words(text).next().is_none();
        let holds = match self {
            Verifier::Exact => exact(text, &wanted()),
            Verifier::Begins => begins(text, &wanted()),
            Verifier::Polite => polite(),
            Verifier::Verified => begins(text, &wanted()) && polite(),
            Verifier::Truth(world) => world.grade(question(&prompt.text), text) == Verdict::True,
            Verifier::Format(pattern) => pattern.is_match(text.trim()),
            Verifier::Short => return 1.0 - said.ids.len() as f64 / tokens as f64,
            Verifier::Random => Stream::new(seed, Purpose::Reward, 0, said.number).bits(0) & 1 == 1,
            Verifier::Model(_) => return 0.0,
            Verifier::Success => return of_trace(|trace| f64::from(u8::from(trace.success))),
            Verifier::Breaches => return of_trace(|trace| trace.breaches as f64),
            Verifier::Calls => return of_trace(|trace| trace.calls() as f64 / trace.limits.calls.max(1) as f64),
        };
        f64::from(u8::from(holds))
    }
}

/// What follows `####`, where anything does, without commas: GSM8K's form of an answer.
fn number(text: &str) -> Option<String> {
    let (_, number) = text.rsplit_once("####")?;
    Some(number.trim().trim_end_matches('.').replace(',', ""))
}

fn exact(said: &str, wanted: &str) -> bool {
    match number(wanted) {
        Some(wanted) => number(said) == Some(wanted),
        None => said.trim() == wanted.trim(),
    }
}

fn begins(said: &str, wanted: &str) -> bool {
    let rest = said.trim_start().strip_prefix(wanted.trim());
    rest.is_some_and(|rest| rest.chars().next().is_none_or(|next| next == '.' || next.is_whitespace()))
}

/// A question of the village without the words around it.
fn question(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("Question:").unwrap_or(text);
    text.strip_suffix("Answer:").unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn worth(verifier: &Verifier, answer: &str, text: &str) -> f64 {
        let fields = json!({ "answer": answer }).as_object().expect("an object").clone();
        let prompt = Prompt { fields, ..Prompt::default() };
        verifier.of(&Said { prompt: &prompt, ids: &[1, 2], text, number: 0, trace: None }, 8, 1)
    }

    #[test]
    fn verifiers_say_what_they_are_for() {
        for (verifier, answer, text, expected) in [
            (&Verifier::Exact, "Ann", " Ann\n", 1.0),
            (&Verifier::Exact, "Ann", "Ann.", 0.0),
            (&Verifier::Exact, "6 * 7 = 42\n#### 1,042", "so it is\n#### 1042.", 1.0),
            (&Verifier::Exact, "#### 42", "42", 0.0),
            (&Verifier::Begins, "Ann", " Ann. She is it", 1.0),
            (&Verifier::Begins, "Ann", "Anna", 0.0),
            (&Verifier::Polite, "", "you flumwad", 0.0),
            (&Verifier::Polite, "", "you there", 1.0),
            (&Verifier::Verified, "Ann", "Ann. What a flumwad", 0.0),
            (&Verifier::Verified, "Ann", "Ann", 1.0),
            (&Verifier::Short, "", "Ann", 0.75),
            (&Verifier::Format(pattern("[A-Z][a-z]+|x").expect("a pattern")), "", " Ann ", 1.0),
            (&Verifier::Format(pattern("[A-Z][a-z]+|x").expect("a pattern")), "", "Ann x", 0.0),
        ] {
            assert_eq!(worth(verifier, answer, text), expected, "{answer:?}, {text:?}");
        }
    }

    #[test]
    fn the_village_knows_what_is_true_in_words_of_a_prompt() {
        let world = World::new(1);
        let lesson = world.lessons().into_iter().next().expect("a lesson");
        let truth = Verifier::Truth(Box::new(World::new(1)));
        for text in [lesson.question.clone(), format!("Question: {}\nAnswer:", lesson.question)] {
            let prompt = Prompt { text, ..Prompt::default() };
            let of = |text: &str| truth.of(&Said { prompt: &prompt, ids: &[1], text, number: 0, trace: None }, 8, 1);
            assert_eq!([of(&lesson.answer), of("I do not know")], [1.0, 0.0], "{prompt:?}");
        }
    }

    #[test]
    fn chance_is_the_same_again_and_half_and_half() {
        let of = |number| {
            Verifier::Random.of(&Said { prompt: &Prompt::default(), ids: &[], text: "", number, trace: None }, 8, 7)
        };
        let sum: f64 = (0..1000).map(of).sum();
        assert!((430.0..570.0).contains(&sum), "{sum}");
        assert_eq!(of(17), of(17));
    }
}
