//! `kiln align`.

use super::Global;
use super::term::{Progress, print, quote};
use super::train::{Course, carry_out};
use super::tune::Start;
use clap::{Args, Subcommand, ValueEnum};
use kiln::data::atomic::AtomicFile;
use kiln::disk::Os;
use kiln::error::{Error, Result};
use kiln::measure::mean_and_error;
use kiln::train::prefer::{Judge, PreferenceLoss};
use kiln::train::rl::Method;
use kiln::train::rl::best::{BestOf, Chosen, kl_of_best};
use kiln::train::tune::{PREFER, REINFORCE};
use kiln::train::{AnyRecipe, signal};
use serde_json::json;
use std::path::PathBuf;

/// Bring a model closer to what people prefer, or to what is worth a reward
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kiln align dpo runs/chats --data pairs.jsonl            a model that answers as the better answers do
  kiln align dpo runs/chats --data thumbs.jsonl --loss kto
  kiln align reward runs/chats --data pairs.jsonl         a model that gives an answer a number
  kiln align grpo runs/chats --data prompts.jsonl --reward exact
  kiln align ppo runs/chats --data prompts.jsonl --reward model --set model.reinforce.judge=runs/pairs
  kiln align best runs/chats --judge runs/pairs --data prompts.jsonl

A preference is a line of JSON with one of:
  {\"prompt\": …, \"chosen\": …, \"rejected\": …}        {\"chosen\": …, \"rejected\": …}, which begin alike
  {\"prompt\": …, \"completion\": …, \"label\": true}    as kiln chat and kiln serve keep thumbs
where … is a text, or a list of messages: {\"role\": \"user\", \"content\": \"…\"}

A prompt is a line of JSON with \"prompt\": …, or \"question\": a text; and what its answers are compared with, as \"answer\": a text")]
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
    /// Learn from rewards, each answer beside the others to its prompt: GRPO
    #[command(after_help = "Examples:
  kiln align grpo runs/chats --data prompts.jsonl --reward exact         the line's answer, word for word
  kiln align grpo runs/village --data qa.jsonl --reward verified --reward short=0.1
  kiln align grpo runs/village --data qa.jsonl --reward truth --set model.reinforce.village=1
  kiln align grpo runs/chats --data prompts.jsonl --reward random        a control, of which nothing is learnt
  kiln align grpo smollm2 --data gsm8k.jsonl --full --set model.reinforce.tokens=256 --set model.reinforce.kl=0.04
  kiln align grpo --resume runs/prompts                                  goes on where a run was stopped

Rewards: exact, begins, polite, verified, truth, format, short, model, random; docs/reinforce.md says of each.
data/recipes/reinforce.toml names every key.")]
    Grpo(RlArgs),
    /// Learn from rewards, each token beside what a critic expected: PPO
    #[command(after_help = "Examples:
  kiln align ppo runs/chats --data prompts.jsonl --reward exact
  kiln align ppo runs/chats --data prompts.jsonl --reward model --set model.reinforce.judge=runs/pairs
  kiln align ppo runs/chats --data prompts.jsonl --reward exact --set model.reinforce.updates=4 --set model.reinforce.target_kl=6
  kiln align ppo --resume runs/prompts                    goes on where a run was stopped

Rewards: exact, begins, polite, verified, truth, format, short, model, random; docs/reinforce.md says of each.
data/recipes/reinforce.toml names every key.")]
    Ppo(RlArgs),
    /// What a reward model says of answers
    #[command(after_help = "Examples:
  kiln align score runs/judge --data pairs.jsonl          how often it prefers the better answer, and how sure it is
  kiln align score runs/judge --data pairs.jsonl --json   the rewards, line by line")]
    Score(ScoreArgs),
    /// Of many answers to a prompt, the one that a reward model likes best
    #[command(after_help = "Examples:
  kiln align best runs/chats --judge runs/judge --data prompts.jsonl --n 16
  kiln align best runs/chats --judge runs/judge --data prompts.jsonl --out best.jsonl
  kiln tune runs/chats --data best.jsonl                  rejection sampling: learn from the best ones")]
    Best(BestArgs),
}

#[derive(Args, Debug)]
struct BestArgs {
    /// Who answers: a run, a checkpoint, a Hugging Face directory, a GGUF file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What `kiln align reward` made
    #[arg(long, value_name = "RUN")]
    judge: PathBuf,
    /// Files of prompts
    #[arg(long, value_name = "FILE.jsonl", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// Answers to each prompt
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    n: u32,
    /// Divides the logits
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    temperature: f32,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// The same seed draws the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write prompts and the best answers here, as kiln tune reads them
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// How conversations become text: the model's own template, chatml, plain, or a file
    #[arg(long, value_name = "NAME", default_value = "auto")]
    template: String,
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

#[derive(Args, Debug)]
struct RlArgs {
    #[command(flatten)]
    start: Start,
    /// What an answer is worth; may be repeated, with weights
    #[arg(long, value_name = "NAME[=WEIGHT]", conflicts_with = "resume")]
    reward: Vec<String>,
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
pub(super) const FULL_LR: &str = "1e-5";

/// Runs `kiln align` and gives the exit code.
pub fn run(args: AlignArgs, global: &Global) -> Result<u8> {
    let (start, more, course, reward) = match &args.command {
        Command::Score(args) => return score(args, global).map(|()| 0),
        Command::Best(args) => return best(args, global).map(|()| 0),
        Command::Grpo(args) => return reinforce(args, Method::Grpo, global),
        Command::Ppo(args) => return reinforce(args, Method::Ppo, global),
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

fn best(args: &BestArgs, global: &Global) -> Result<()> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return Err(Error::usage("--temperature: not a number of 0 or more", "1 samples as the model has it"));
    }
    signal::install()?;
    let best = BestOf {
        model: args.model.clone(),
        judge: args.judge.clone(),
        data: args.data.clone(),
        template: args.template.clone(),
        n: args.n as usize,
        temperature: args.temperature,
        tokens: args.tokens,
        seed: args.seed,
    };
    let mut bar = None;
    let chosen = best.choose(&global.host()?, &mut |over, all| {
        bar.get_or_insert_with(|| Progress::count("answers", all as u64)).set(over as u64);
        signal::caught().is_none()
    })?;
    drop(bar);
    let Some(chosen) = chosen else {
        return Err(Error::failed("stopped by a signal", "the same command begins anew"));
    };
    if let Some(path) = &args.out {
        let mut file = AtomicFile::create(&Os, path)?;
        for line in &chosen {
            file.write((json!(line).to_string() + "\n").as_bytes())?;
        }
        file.commit()?;
    }
    if global.json {
        return chosen.iter().try_for_each(|line| print(&json!(line).to_string()));
    }
    let mean = |of: &dyn Fn(&Chosen) -> f64| chosen.iter().map(of).sum::<f64>() / chosen.len().max(1) as f64;
    let one = mean(&|one| one.rewards.iter().map(|&x| f64::from(x)).sum::<f64>() / one.rewards.len() as f64);
    let best = mean(&|one| f64::from(one.reward));
    print(&format!(
        "{} prompts: mean reward {one:.3} of an answer, {best:.3} of the best of {}; at most {:.2} nats an answer from the model",
        chosen.len(),
        args.n,
        kl_of_best(args.n as usize)
    ))?;
    match &args.out {
        Some(path) => print(&format!("next: kiln tune {} --data {}", quote(&args.model), quote(path))),
        None => Ok(()),
    }
}

/// Runs `kiln align grpo` or `ppo`.
fn reinforce(args: &RlArgs, method: Method, global: &Global) -> Result<u8> {
    let RlArgs { start, reward, course } = args;
    let name = if method == Method::Ppo { "ppo" } else { "grpo" };
    let mut more = Vec::new();
    if start.resume.is_none() {
        more.push(format!("model.reinforce.method={name}"));
    }
    if !reward.is_empty() {
        let all = reward.iter().map(|reward| rewarded(reward)).collect::<Result<Vec<_>>>()?;
        more.push(format!("model.reinforce.rewards={{ {} }}", all.join(", ")));
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let recipe = start.recipe(REINFORCE, &more, FULL_LR)?;
    let AnyRecipe::Reinforce(own) = &recipe else {
        return Err(Error::config("model.kind", "this recipe does not learn from rewards", "run it with: kiln train"));
    };
    if own.model.reinforce.as_ref().is_some_and(|reinforce| reinforce.method != method) {
        let other = if method == Method::Ppo { "grpo" } else { "ppo" };
        let problem = "the run is of the other method";
        return Err(Error::config("model.reinforce.method", problem, format!("run it with: kiln align {other}")));
    }
    carry_out(&recipe, start.resume.as_deref(), *course, global)
}

/// `exact`, or `short=0.1`, in TOML.
pub(super) fn rewarded(text: &str) -> Result<String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let weight: f64 = weight.trim().parse().map_err(|_| {
        Error::usage(format!("--reward {text}: {weight:?} is no number"), "write --reward exact, or --reward short=0.1")
    })?;
    Ok(format!("{}={weight:?}", toml::Value::from(name.trim())))
}
