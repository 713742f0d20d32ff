//! `kiln align`.

use super::Global;
use super::term::{Progress, print};
use super::train::{Course, carry_out};
use super::tune::Start;
use clap::{Args, Subcommand, ValueEnum};
use kiln::error::{Error, Result};
use kiln::measure::mean_and_error;
use kiln::train::AnyRecipe;
use kiln::train::prefer::{Judge, PreferenceLoss};
use kiln::train::tune::PREFER;
use serde_json::json;
use std::path::PathBuf;

/// Bring a model closer to what people prefer
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln align dpo runs/chats --data pairs.jsonl            a model that answers as the better answers do
  kiln align dpo runs/chats --data thumbs.jsonl --loss kto
  kiln align reward runs/chats --data pairs.jsonl         a model that gives an answer a number

A preference is a line of JSON with one of:
  {\"prompt\": …, \"chosen\": …, \"rejected\": …}        {\"chosen\": …, \"rejected\": …}, which begin alike
  {\"prompt\": …, \"completion\": …, \"label\": true}    as kiln chat and kiln serve keep thumbs
where … is a text, or a list of messages: {\"role\": \"user\", \"content\": \"…\"}")]
pub struct AlignArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Learn from pairs of answers, or thumbs, to answer as people like it: DPO, IPO, KTO
    #[command(after_help = "Examples:
  kiln align dpo runs/chats --data pairs.jsonl            adapters of rank 8, held to runs/chats
  kiln align dpo runs/chats --data pairs.jsonl --full     all weights
  kiln align dpo runs/chats --data thumbs.jsonl --loss kto
  kiln align dpo smollm2 --data pairs.jsonl --set model.preference.beta=0.3 --set train.context=512
  kiln align dpo --resume runs/pairs                      goes on where a run was stopped

data/recipes/prefer.toml names every key.")]
    Dpo(DpoArgs),
    /// Learn from pairs of answers to give an answer a number: a reward model
    #[command(after_help = "Examples:
  kiln align reward runs/chats --data pairs.jsonl
  kiln align reward runs/chats --data pairs.jsonl --full --set model.preference.centering=0.01
  kiln align reward --resume runs/pairs                   goes on where a run was stopped

data/recipes/prefer.toml names every key.")]
    Reward(RewardArgs),
    /// What a reward model says of answers
    #[command(after_help = "Examples:
  kiln align score runs/judge --data pairs.jsonl          how often it prefers the better answer, and how sure it is
  kiln align score runs/judge --data pairs.jsonl --json   the rewards, line by line")]
    Score(ScoreArgs),
}

#[derive(Args, Debug)]
struct ScoreArgs {
    /// What `kiln align reward` made
    #[arg(value_name = "RUN")]
    judge: PathBuf,
    /// Files of pairs, or of single answers
    #[arg(long, value_name = "FILE.jsonl", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// How conversations become text: the model's own template, chatml, plain, or a file
    #[arg(long, value_name = "NAME", default_value = "auto")]
    template: String,
}

#[derive(Args, Debug)]
struct DpoArgs {
    #[command(flatten)]
    start: Start,
    /// Which loss: sigmoid (DPO's), ipo, or kto, which reads thumbs too
    #[arg(long, value_name = "NAME", conflicts_with = "resume", hide_possible_values = true)]
    loss: Option<Loss>,
    #[command(flatten)]
    course: Course,
}

#[derive(Args, Debug)]
struct RewardArgs {
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    course: Course,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Loss {
    Sigmoid,
    Ipo,
    Kto,
}

/// What all weights take: a tenth of the recipe's rate of adapters.
const FULL_LR: &str = "1e-5";

/// Runs `kiln align` and gives the exit code.
pub fn run(args: AlignArgs, global: &Global) -> Result<u8> {
    let (start, more, course, reward) = match &args.command {
        Command::Score(args) => return score(args, global).map(|()| 0),
        Command::Dpo(DpoArgs { start, loss, course }) => {
            let loss = loss.map(|loss| match loss {
                Loss::Sigmoid => "model.preference.loss=sigmoid",
                Loss::Ipo => "model.preference.loss=ipo",
                Loss::Kto => "model.preference.loss=kto",
            });
            (start, loss, course, false)
        }
        Command::Reward(RewardArgs { start, course }) => {
            (start, start.resume.is_none().then_some("model.preference.loss=reward"), course, true)
        }
    };
    let recipe = start.recipe(PREFER, more.as_slice(), FULL_LR)?;
    let AnyRecipe::Prefer(own) = &recipe else {
        return Err(Error::config("model.kind", "this recipe does not learn preferences", "run it with: kiln train"));
    };
    let is_reward = own.model.preference.is_some_and(|preference| preference.loss == PreferenceLoss::Reward);
    if is_reward != reward {
        let name = if is_reward { "kiln align reward" } else { "kiln align dpo" };
        let problem = "the recipe is of the other kind of model";
        return Err(Error::config("model.preference.loss", problem, format!("run it with: {name}")));
    }
    carry_out(&recipe, start.resume.as_deref(), *course, global)
}

fn score(args: &ScoreArgs, global: &Global) -> Result<()> {
    let mut judge = Judge::open(&args.judge, &global.host()?)?;
    let mut bar = None;
    let scores = judge.score(&args.data, &args.template, &mut |done, all| {
        bar.get_or_insert_with(|| Progress::count("answers", all)).set(done);
    })?;
    drop(bar);
    if global.json {
        for line in &scores.lines {
            print(&json!(line).to_string())?;
        }
        return Ok(());
    }
    if scores.pairs == 0 {
        let rewards: Vec<f64> = scores.lines.iter().flat_map(|line| &line.rewards).map(|&x| f64::from(x)).collect();
        let [mean, error] = mean_and_error(&rewards);
        return print(&format!("{} answers, mean reward {mean:.3} ± {error:.3}", rewards.len()));
    }
    let [margin, error] = scores.margin;
    print(&format!(
        "{} pairs: the better answer has the higher reward in {:.1} %; margin {margin:.3} ± {error:.3}; calibration error {:.3}",
        scores.pairs,
        100.0 * scores.accuracy,
        scores.ece
    ))
}
